/* The access log: whatever the format, and whatever a client sent, a line is printable ASCII and
 * ends once.
 *
 * The first byte chooses a preset or says where the format ends; what follows is a request, and the
 * answer's head is from there, too. */
#include "connection.h"
#include "gateway/access_format.h"

typedef struct world {
    connection c;
    as_access_format *format;
    bool colors;
    as_slice value; /* of a field of the answer */
} world;

static void check_line(const world *w, const as_buf *line) {
    MUST(line->len > 0 && line->data[line->len - 1] == '\n');
    for (size_t i = 0; i + 1 < line->len; i++) {
        char c = line->data[i];
        bool is_color = w->colors && c == '\x1b';
        MUST((c >= ' ' && c < 0x7f) || is_color);
    }
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    world *w = ctx;
    (void)body;
    const as_access_moment moment = {.seconds = 1700000000, .nanoseconds = 5, .duration = 1234567};
    MUST(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
    (void)as_exchange_head_field(ex, AS_SLICE("x-a"), w->value);
    MUST(as_exchange_body(ex, (as_bytes){.p = ""}, false) == AS_OK);
    as_buf line = {0};
    MUST(as_access_format_add(w->format, ex, &moment, &line) == AS_OK);
    check_line(w, &line);
    as_buf_fini(&line, NULL);
    as_exchange_release(ex);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const as_handlers handlers = {.on_request = on_request};
    static const as_slice presets[] = {{"uvicorn", 7}, {"common", 6}, {"combined", 8}, {"json", 4}};
    input in = {data, size};
    uint8_t choice = take_byte(&in);
    bool colors = choice == 4;
    as_slice text = choice < 4    ? presets[choice]
                    : choice == 4 ? presets[0]
                                  : take_bytes(&in, choice - 5u);
    char problem[AS_ACCESS_PROBLEM] = "";
    as_access_format *format = as_access_format_new(text, colors, problem);
    if (format == NULL) {
        MUST(strlen(problem) > 0 && strlen(problem) < sizeof(problem));
        return 0;
    }
    for (size_t i = 0; i < text.n; i++) { /* what the operator asks for, is written */
        if (text.p[i] < ' ' || text.p[i] == 0x7f) {
            as_access_format_free(format);
            return 0;
        }
    }
    world *w = calloc(1, sizeof(*w));
    MUST(w != NULL);
    connection_init(&w->c, &handlers);
    w->format = format;
    w->colors = colors;
    w->c.env.timed = true;
    w->c.env.copy_heads = true;
    w->value = take_string(&in);
    as_buf request = {0};
    put_text(&request, "GET /");
    put(&request, in.p, in.n);
    connection_feed(&w->c, logged(&request), WHOLE, true);
    as_buf_fini(&request, NULL);
    connection_fini(&w->c);
    as_access_format_free(format);
    free(w);
    return 0;
}

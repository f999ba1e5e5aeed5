/* The writer of responses: whatever an application calls, in whatever order and with whatever
 * bytes, what leaves are responses that an independent reader understands, one for each request,
 * with just the fields and the body that were accepted; a response that the application left
 * incomplete is cut, and never looks complete.
 *
 * An input is a program: the first two bytes choose the requests, then come calls with their
 * arguments. */
#include <sys/mman.h>
#include <unistd.h>

#include "connection.h"
#include "reference.h"

enum { CHOICES = 2, REQUESTS = 4 };

static const as_slice requests[] = {
    TEXT("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    TEXT("HEAD / HTTP/1.1\r\nhost: a\r\n\r\n"),
    TEXT("POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 3\r\n\r\nabc"),
    TEXT("GET / HTTP/1.0\r\n\r\n"),
    TEXT("GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"),
    TEXT("GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"),
    TEXT("GET / HTTP/1.1\r\nhost: a\r\n\r\n"),
    TEXT("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
};

/* What must have left for one request. */
typedef struct expectation {
    unsigned interims;
    unsigned status; /* 0: none */
    as_buf fields, body, trailers;
    bool is_head, is_complete, is_refusal, is_tunnel;
    bool is_early;   /* its body was not all there: whether to close may come clear too late */
    bool is_reached; /* as many bytes were given as Content-Length says */
} expectation;

typedef struct world {
    connection c;
    input program;
    expectation expected[REQUESTS];
    unsigned begun;
    as_exchange *ex;  /* that the program goes on with */
    bool outside;     /* the program goes on when no handler runs */
    unsigned written; /* bytes by reference that are held */
} world;

static expectation *present(world *w) {
    return &w->expected[w->begun - 1];
}

/* --- fields --------------------------------------------------------------------------------- */

/* Those of a response that the server writes, or drops. */
static bool is_servers(as_slice name) {
    static const char *const names[] = {
        "content-length", "connection", "transfer-encoding", "keep-alive", "proxy-connection",
        "upgrade",        "te"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (as_slice_ieq(name, (as_slice){names[i], strlen(names[i])})) {
            return true;
        }
    }
    return false;
}

static void put_field(as_buf *to, as_slice name, as_slice value) {
    put_slice(to, name);
    put_text(to, ": ");
    put_slice(to, as_trim(value));
    put_text(to, "\n");
}

static as_slice take_name(input *in) {
    static const as_slice names[] = {
        TEXT("content-length"), TEXT("Connection"), TEXT("Transfer-Encoding"), TEXT("date"),
        TEXT("Server"),         TEXT("keep-alive"), TEXT("upgrade"),           TEXT("x")};
    uint8_t choice = take_byte(in);
    return choice < 8 ? names[choice] : take_bytes(in, choice % 32);
}

static void call_field(world *w) {
    as_slice name = take_name(&w->program),
             value = take_bytes(&w->program, take_byte(&w->program) % 32);
    as_err err = as_exchange_head_field(w->ex, name, value);
    if (err == AS_OK && !is_servers(name)) {
        put_field(&present(w)->fields, name, value);
    }
}

/* --- bodies --------------------------------------------------------------------------------- */

static void hold(void *owner) {
    ((world *)owner)->written++;
}

static void drop(void *owner) {
    ((world *)owner)->written--;
}

static void gave(world *w, as_err err, as_slice bytes, bool more) {
    if (err != AS_OK) {
        return;
    }
    expectation *e = present(w);
    if (!w->ex->no_body) {
        put_slice(&e->body, bytes);
    }
    e->is_complete = !more;
    e->is_reached = (w->ex->seen & AS_SEEN_LENGTH) != 0 && w->ex->body_left == 0;
}

static void call_body(world *w, bool more, bool is_large) {
    static char large[AS_OUTQ_COPY_MAX + 5];
    as_slice piece = take_bytes(&w->program, take_byte(&w->program) % 64);
    as_bytes bytes = {piece.p, piece.n, NULL, NULL, NULL};
    if (is_large) {
        memset(large, 'L', sizeof(large));
        bytes = (as_bytes){large, sizeof(large), w, hold, drop};
    }
    gave(w, as_exchange_body(w->ex, bytes, more), (as_slice){bytes.p, bytes.n}, more);
}

static void call_file(world *w, bool more) {
    static const char text[] = "the bytes of a file";
    uint8_t off = take_byte(&w->program) % sizeof(text);
    uint8_t n = take_byte(&w->program) % (sizeof(text) - off);
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    MUST(fd >= 0 && write(fd, text, sizeof(text)) == (ssize_t)sizeof(text));
    gave(w, as_exchange_file(w->ex, fd, off, n, more), (as_slice){text + off, n}, more);
}

static void call_trailer(world *w) {
    as_slice name = take_name(&w->program),
             value = take_bytes(&w->program, take_byte(&w->program) % 32);
    as_err err = as_exchange_trailer(w->ex, name, value);
    if (err == AS_OK && w->ex->chunked) {
        put_field(&present(w)->trailers, name, value);
    }
}

/* --- the other calls ------------------------------------------------------------------------ */

static void call_begin(world *w) {
    static const uint16_t statuses[] = {200, 204, 304, 404, 101, 100, 500, 299};
    uint8_t choice = take_byte(&w->program);
    unsigned status = choice < 8 ? statuses[choice] : choice * 7u;
    as_slice reason = take_bytes(&w->program, take_byte(&w->program) % 16);
    if (as_exchange_head_begin(w->ex, status, reason) == AS_OK) {
        MUST(status >= 200 && status <= 999);
        present(w)->status = status;
    }
}

static void call_abandon(world *w) {
    bool was_open = w->ex->res == AS_RES_HEAD;
    as_exchange_head_abandon(w->ex);
    if (was_open && !w->ex->aborted) {
        present(w)->status = 0;
        present(w)->fields.len = 0;
    }
}

static void call_interim(world *w) {
    static const uint16_t statuses[] = {100, 103, 101, 199, 200, 99, 0, 150};
    unsigned status = statuses[take_byte(&w->program) % 8];
    as_slice pairs[2];
    pairs[0] = take_name(&w->program);
    pairs[1] = take_bytes(&w->program, take_byte(&w->program) % 16);
    bool none = pairs[0].n > 0 && is_servers(pairs[0]);
    if (!none && as_exchange_interim(w->ex, status, pairs, 2) == AS_OK) {
        MUST(status >= 100 && status <= 199 && status != 101);
        present(w)->interims += w->ex->head->minor > 0;
    }
}

static void call_refuse(world *w) {
    if (as_exchange_refuse(w->ex, AS_E_WS_METHOD) == AS_OK) {
        present(w)->is_refusal = present(w)->is_complete = true;
    }
}

static void call_upgrade(world *w) {
    as_slice pairs[4] = {AS_SLICE("upgrade"), AS_SLICE("x")};
    pairs[2] = take_name(&w->program);
    pairs[3] = take_bytes(&w->program, take_byte(&w->program) % 16);
    bool none = is_servers(pairs[2]);
    if (!none && as_exchange_upgrade(w->ex, pairs, 4) == AS_OK) {
        present(w)->is_tunnel = true;
    }
}

static void call_release(world *w) {
    as_exchange *ex = w->ex;
    w->ex = NULL;
    as_exchange_release(ex);
}

/* One call of the program. */
static void call(world *w) {
    uint8_t op = take_byte(&w->program);
    bool more = (op & 64) != 0;
    switch (op % 17) {
    case 0:
    case 1:
        call_begin(w);
        break;
    case 2:
    case 3:
    case 4:
        call_field(w);
        break;
    case 5:
        call_abandon(w);
        break;
    case 6:
        call_interim(w);
        break;
    case 7:
    case 8:
        call_body(w, more, false);
        break;
    case 9:
        call_body(w, more, true);
        break;
    case 10:
        call_file(w, more);
        break;
    case 11:
        call_trailer(w);
        break;
    case 12:
        gave(w, as_exchange_end(w->ex), AS_SLICE(""), false);
        break;
    case 13: {
        bool owed = w->ex->wants_continue;
        as_exchange_want_body(w->ex);
        present(w)->interims += owed && !w->ex->wants_continue;
        break;
    }
    case 14:
        (void)as_exchange_flush(w->ex);
        (void)as_exchange_pending(w->ex);
        as_exchange_yield(w->ex);
        break;
    case 15:
        if (more) {
            call_refuse(w);
        } else {
            call_upgrade(w);
        }
        break;
    default:
        if (more) {
            as_exchange_abort(w->ex);
        }
        call_release(w);
        break;
    }
}

/* Until the exchange is released or, now and then, the handler returns. */
static void play(world *w) {
    while (w->ex != NULL) {
        if (w->program.n == 0) {
            call_release(w);
        } else if (w->program.p[0] == 0xff && !w->outside) {
            (void)take_byte(&w->program);
            return; /* goes on outside */
        } else {
            call(w);
        }
    }
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    world *w = ctx;
    (void)body;
    if (w->ex != NULL) { /* an application that stayed behind its answer */
        MUST(w->ex->res == AS_RES_DONE);
        call_release(w);
    }
    MUST(w->begun < REQUESTS);
    w->ex = ex;
    w->begun++;
    present(w)->is_head = ex->head->is_head;
    present(w)->is_early = ex->req == AS_REQ_BODY;
    play(w);
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    world *w = ctx;
    MUST(ex->aborted && ex == w->ex);
    (void)why;
    play(w);
    if (w->ex != NULL) {
        call_release(w);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    MUST(ex == ((world *)ctx)->ex && data.n > 0);
}

static void idle(connection *c) {
    world *w = (world *)(void *)c;
    w->outside = true;
    play(w);
    w->outside = false;
}

/* --- what left ------------------------------------------------------------------------------ */

/* The application's fields, in order, are among those that left; the rest is the server's. */
static void check_fields(const as_buf *expected, as_slice fields) {
    as_slice rest = logged(expected);
    while (fields.n > 0) {
        const char *end = memchr(fields.p, '\n', fields.n);
        as_slice line = {fields.p, (size_t)(end - fields.p) + 1};
        fields = (as_slice){fields.p + line.n, fields.n - line.n};
        if (rest.n >= line.n && memcmp(rest.p, line.p, line.n) == 0) {
            rest = (as_slice){rest.p + line.n, rest.n - line.n};
            continue;
        }
        as_slice name = {line.p, (size_t)((const char *)memchr(line.p, ':', line.n) - line.p)};
        MUST(is_servers(name) || as_slice_eq(line, AS_SLICE("server: asgiserver\n")));
    }
    MUST(rest.n == 0);
}

static void check_response(const expectation *e, const reference_response *response) {
    if (!e->is_refusal) {
        MUST(response->status == e->status);
        check_fields(&e->fields, logged(&response->fields));
        must_agree("the body that was given and the one that left", &e->body, &response->body);
        must_agree("trailers", &e->trailers, &response->trailers);
    }
}

/* Of a head to be followed by bytes that are not HTTP, of a response that was cut, and of one that
 * waited behind others when the connection was. */
static void check_last(const world *w, const expectation *e, reading got,
                       const reference_response *response) {
    bool dead = w->c.h1.phase == AS_H1_DEAD;
    if (e->is_tunnel) {
        MUST((got == READ_ALL && response->status == 101) || (dead && got == READ_MORE));
    } else {
        bool no_body = e->is_head || e->status == 204 || e->status == 304; /* its head is all */
        MUST(dead && (got == READ_MORE || (got == READ_ALL && (no_body || e->is_reached))));
    }
}

/* Moves behind a response; false: it is the last one, and not a whole one. */
static bool check_one(const world *w, const expectation *e, bool is_interim, as_slice *bytes,
                      bool *closes) {
    bool dead = w->c.h1.phase == AS_H1_DEAD, ended = w->c.h1.phase >= AS_H1_CLOSING;
    reference_response response;
    reading got = reference_read_response(*bytes, e->is_head, ended && !dead, &response);
    bool is_whole = is_interim || e->is_complete;
    if (e->is_tunnel && !is_interim) {
        is_whole = false;
    }
    if (!is_whole || (dead && got == READ_MORE)) {
        check_last(w, e, got, &response);
        reference_response_fini(&response);
        return false;
    }
    MUST(got == READ_ALL && (response.status < 200) == is_interim);
    *bytes = (as_slice){bytes->p + response.size, bytes->n - response.size};
    *closes = !is_interim && (response.closes || response.until_close);
    MUST(!*closes || bytes->n == 0);
    if (!is_interim) {
        check_response(e, &response);
    }
    reference_response_fini(&response);
    return true;
}

static void check(const world *w) {
    as_slice bytes = logged(&w->c.out);
    bool closes = false;
    for (unsigned i = 0; i < w->begun; i++) {
        const expectation *e = &w->expected[i];
        for (unsigned n = 0; n <= e->interims; n++) {
            if (!check_one(w, e, n < e->interims, &bytes, &closes)) {
                return;
            }
        }
    }
    MUST(bytes.n == 0);
    bool is_closing = w->c.h1.phase == AS_H1_CLOSING;
    MUST(is_closing || !closes);
    MUST(closes || !is_closing || w->expected[w->begun - 1].is_early);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const as_handlers handlers = {
        .on_request = on_request, .on_body = on_body, .on_abort = on_abort};
    if (size < CHOICES) {
        return 0;
    }
    world *w = calloc(1, sizeof(*w));
    MUST(w != NULL);
    connection_init(&w->c, &handlers);
    w->c.idle = idle;
    w->program = (input){data + CHOICES, size - CHOICES};
    w->c.env.copy_heads = (data[1] & 1) != 0;
    if (data[1] & 2) {
        w->c.limits.limit_write_buffer = 100;
    }
    as_buf bytes = {0};
    for (unsigned i = 0, choice = data[0]; i < REQUESTS; i++, choice = choice * 5 + 3) {
        put_slice(&bytes, requests[choice % 8]);
    }
    connection_feed(&w->c, logged(&bytes), (data[1] & 4) ? BYTES : WHOLE, false);
    check(w);
    connection_fini(&w->c);
    MUST(w->ex == NULL && w->written == 0);
    for (unsigned i = 0; i < REQUESTS; i++) {
        as_buf_fini(&w->expected[i].fields, NULL);
        as_buf_fini(&w->expected[i].body, NULL);
        as_buf_fini(&w->expected[i].trailers, NULL);
    }
    as_buf_fini(&bytes, NULL);
    free(w);
    return 0;
}

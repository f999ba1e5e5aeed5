/* Frames and their events: every row of the corpus whole, byte by byte, in growing parts, cut in
 * two everywhere, behind another frame, and under other masks. */

#include "http/ws_internal.h"
#include "ws_corpus.h"
#include "ws_describe.h"

static unsigned failures;
static const as_ws_deflate_params agreed = {.on = true, .server_bits = 15, .client_bits = 15};
static const as_ws_deflate_params off = {0};

static void fail(const char *what, size_t n, const char *got) {
    fprintf(stderr, "%s %zu: %s\n", what, n, got);
    failures++;
}

/* --- the corpus ----------------------------------------------------------------------------- */

/* The length of the part that begins at `at`. */
typedef size_t cut(size_t at, size_t argument);

static size_t cut_nowhere(size_t at, size_t argument) {
    return SIZE_MAX;
}
static size_t cut_everywhere(size_t at, size_t argument) {
    return 1;
}
static size_t cut_growing(size_t at, size_t argument) { /* 1, 2, 4, 8 … */
    return at + 1;
}
static size_t cut_once(size_t at, size_t argument) {
    return at == 0 ? argument : SIZE_MAX;
}

static void run(const ws_row *row, as_slice bytes, cut *next, size_t argument, ws_log *log) {
    as_ws_env *env = as_ws_env_new(NULL);
    as_ws *ws = as_ws_new(env, row->deflate ? &agreed : &off, row->max_size);
    as_err err = AS_OK;
    *log = (ws_log){0};
    for (size_t at = 0; at < bytes.n && err == AS_OK;) {
        size_t n = next(at, argument);
        n = n < bytes.n - at ? n : bytes.n - at;
        err = ws_feed(ws, (as_slice){bytes.p + at, n}, log);
        at += n;
    }
    if (err != AS_OK && ws_feed(ws, AS_SLICE("\x81\x80\0\0\0\0"), &(ws_log){0}) != err) {
        ws_log_add(log, "|an error is not final");
    }
    as_ws_free(ws);
    as_ws_env_free(env);
}

static void expect(const ws_row *row, as_slice bytes, cut *next, size_t argument) {
    ws_log log;
    run(row, bytes, next, argument, &log);
    if (strcmp(log.text, row->events) != 0) {
        fprintf(stderr, "expected %s; ", row->events);
        fail("row", (size_t)(row - ws_rows), log.text);
    }
}

static void test_cuts(const ws_row *row, as_slice bytes) {
    expect(row, bytes, cut_nowhere, 0);
    expect(row, bytes, cut_everywhere, 0);
    expect(row, bytes, cut_growing, 0);
    for (size_t n = 1; n < bytes.n; n++) {
        expect(row, bytes, cut_once, n);
    }
}

static void test_behind_another(const ws_row *row) {
    static const char first[] = TEXT("\x81", "x") FRAME("\x89", "\x80", "");
    size_t n = sizeof(first) - 1;
    char bytes[1024], events[1024];
    memcpy(bytes, first, n);
    memcpy(bytes + n, row->bytes.p, row->bytes.n);
    (void)snprintf(events, sizeof(events), "text x|ping %s%s", row->events[0] != '\0' ? "|" : "",
                   row->events);
    ws_log log;
    run(row, (as_slice){bytes, n + row->bytes.n}, cut_nowhere, 0, &log);
    if (strcmp(log.text, events) != 0) {
        fail("behind another frame: row", (size_t)(row - ws_rows), log.text);
    }
}

/* Puts a mask into each frame, as far as they are well-formed; another one for each. */
static void put_masks(unsigned char *p, size_t n, uint32_t mask) {
    for (size_t at = 0; at + 2 <= n && (p[at + 1] & 0x80) != 0; mask = mask * 2654435761u + 1) {
        uint64_t length = p[at + 1] & 0x7f, size = length == 127 ? 8 : length == 126 ? 2 : 0;
        if (at + 2 + size + 4 > n) {
            return;
        }
        for (uint64_t i = 0; i < size; i++) {
            length = (i == 0 ? 0 : length << 8) | p[at + 2 + i];
        }
        at += 2 + size;
        unsigned char key[4] = {(unsigned char)(mask >> 24), (unsigned char)(mask >> 16),
                                (unsigned char)(mask >> 8), (unsigned char)mask};
        memcpy(p + at, key, 4);
        at += 4;
        for (uint64_t i = 0; i < length && at < n; i++, at++) {
            p[at] ^= key[i % 4];
        }
    }
}

static void test_masks(const ws_row *row) {
    char bytes[1024];
    for (uint32_t mask = 1; mask != 0; mask <<= 3) {
        memcpy(bytes, row->bytes.p, row->bytes.n);
        put_masks((unsigned char *)bytes, row->bytes.n, mask * 0x9e3779b9u);
        test_cuts(row, (as_slice){bytes, row->bytes.n});
    }
}

static void test_rows(void) {
    for (size_t i = 0; i < sizeof(ws_rows) / sizeof(ws_rows[0]); i++) {
        test_cuts(&ws_rows[i], ws_rows[i].bytes);
        test_behind_another(&ws_rows[i]);
        test_masks(&ws_rows[i]);
    }
}

/* --- masks ---------------------------------------------------------------------------------- */

static void test_unmasking(void) {
    enum { LENGTHS = 140, OFFSETS = 33 };
    static const unsigned char key[4] = {0x12, 0xf4, 0x00, 0x9b};
    unsigned char bytes[OFFSETS + LENGTHS + 8], expected[sizeof(bytes)];
    for (size_t offset = 0; offset < OFFSETS; offset++) {
        for (size_t n = 0; n < LENGTHS; n++) {
            for (size_t phase = 0; phase < 4; phase++) {
                unsigned char turned[4], after[4];
                for (size_t i = 0; i < sizeof(bytes); i++) {
                    bytes[i] = expected[i] = (unsigned char)(i * 7);
                }
                for (size_t i = 0; i < n; i++) {
                    expected[offset + i] ^= key[(phase + i) % 4];
                }
                for (size_t i = 0; i < 4; i++) {
                    turned[i] = key[(phase + i) % 4];
                    after[i] = key[(phase + n + i) % 4];
                }
                uint32_t mask;
                memcpy(&mask, turned, 4);
                mask = as__ws_unmask((char *)bytes + offset, n, mask);
                if (memcmp(bytes, expected, sizeof(bytes)) != 0 || memcmp(&mask, after, 4) != 0) {
                    fail("unmasking", n, "wrong");
                }
            }
        }
    }
}

/* --- sizes ---------------------------------------------------------------------------------- */

static size_t frame(char *out, unsigned char first, size_t n) {
    size_t size = as_ws_frame_header(out, AS_WS_TEXT, false, n);
    out[0] = (char)first;
    out[1] = (char)(out[1] | 0x80);
    memset(out + size, 0, 4);
    memset(out + size + 4, 'a', n);
    return size + 4 + n;
}

static const size_t sizes[] = {0,     1,     125,   126,   127,    2047,   2048,
                               16383, 16384, 65535, 65536, 100000, 1000000};

static void test_size(size_t n, size_t part, as_buf_pool *pool) {
    char *bytes = malloc(n + 32), expected[64];
    ws_log log = {0}, whole = {0};
    as_ws_env *env = as_ws_env_new(pool);
    as_ws *ws = as_ws_new(env, &off, n);
    size_t all = frame(bytes, 0x81, n);
    for (size_t at = 0; at < all; at += part) {
        (void)ws_feed(ws, (as_slice){bytes + at, part < all - at ? part : all - at}, &log);
    }
    memset(bytes, 'a', n);
    ws_log_event(&whole, &(as_ws_event){.kind = AS_WS_MESSAGE_TEXT, .data = {bytes, n}});
    if (strcmp(log.text, whole.text) != 0) {
        (void)snprintf(expected, sizeof(expected), "%.20s, expected %.20s", log.text, whole.text);
        fail("size", n, expected);
    }
    as_ws_free(ws);
    as_ws_env_free(env);
    free(bytes);
}

static void test_sizes(void) {
    as_buf_pool pool;
    as_buf_pool_init(&pool, 4);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        test_size(sizes[i], SIZE_MAX / 2, NULL);
        test_size(sizes[i], 1000, NULL);
        test_size(sizes[i], 1000, &pool);
        test_size(sizes[i], 65536, &pool);
    }
    as_buf_pool_fini(&pool);
}

/* --- the rest ------------------------------------------------------------------------------- */

/* What lies in the input as a whole is not copied. */
static void test_nothing_is_copied(void) {
    char bytes[] = "\x81\x85\x01\x02\x03\x04"
                   "Igohn\x89\x81\0\0\0\0p";
    as_ws_env *env = as_ws_env_new(NULL);
    as_ws *ws = as_ws_new(env, &off, 0);
    as_ws_input in = {bytes, sizeof(bytes) - 1};
    as_ws_event event;
    if (as_ws_next(ws, &in, &event) != AS_OK || event.data.p != bytes + 6 ||
        !as_slice_eq(event.data, AS_SLICE("Hello"))) {
        fail("a message", 5, "is copied");
    }
    if (as_ws_next(ws, &in, &event) != AS_OK || event.data.p != bytes + 17 || event.data.n != 1) {
        fail("a ping", 1, "is copied");
    }
    as_ws_free(ws);
    as_ws_env_free(env);
}

static void test_close_codes(void) {
    static const struct {
        unsigned from, to;
        bool valid;
    } rows[] = {{0, 999, false},     {1000, 1003, true}, {1004, 1006, false}, {1007, 1014, true},
                {1015, 2999, false}, {3000, 4999, true}, {5000, 70000, false}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (unsigned code = rows[i].from; code <= rows[i].to; code++) {
            if (as_ws_close_code_valid(code) != rows[i].valid) {
                fail("close code", code, rows[i].valid ? "refused" : "taken");
            }
        }
    }
    static const struct {
        as_err why;
        unsigned code;
    } told[] = {
        {AS_E_WS_UTF8, 1007}, {AS_E_WS_LARGE, 1009}, {AS_E_NOMEM, 1011}, {AS_E_WS_PROTOCOL, 1002}};
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++) {
        if (as_ws_close_code(told[i].why) != told[i].code) {
            fail("close code", told[i].code, "is not told");
        }
    }
}

static void test_headers(void) {
    static const struct {
        as_ws_opcode opcode;
        bool compressed;
        uint64_t n;
        as_slice expected;
    } rows[] = {
        {AS_WS_TEXT, false, 0, RAW("\x81\x00")},
        {AS_WS_TEXT, true, 125, RAW("\xc1\x7d")},
        {AS_WS_BINARY, false, 126, RAW("\x82\x7e\x00\x7e")},
        {AS_WS_BINARY, true, 65535, RAW("\xc2\x7e\xff\xff")},
        {AS_WS_BINARY, false, 65536, RAW("\x82\x7f\0\0\0\0\0\x01\0\0")},
        {AS_WS_BINARY, false, INT64_MAX, RAW("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff")},
        {AS_WS_CLOSE, false, 2, RAW("\x88\x02")},
        {AS_WS_PONG, false, 125, RAW("\x8a\x7d")},
    };
    char out[AS_WS_FRAME_HEADER_MAX];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t n = as_ws_frame_header(out, rows[i].opcode, rows[i].compressed, rows[i].n);
        if (!as_slice_eq((as_slice){out, n}, rows[i].expected)) {
            fail("header", i, "wrong");
        }
    }
}

int main(void) {
    test_rows();
    test_unmasking();
    test_sizes();
    test_nothing_is_copied();
    test_close_codes();
    test_headers();
    return failures == 0 ? 0 : 1;
}

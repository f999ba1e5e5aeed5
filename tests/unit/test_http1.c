/* HTTP/1 without I/O: tables of raw bytes, each fed whole, byte by byte, cut at random and behind
 * another request, must give the same requests and the same answers; then limits, and bytes and
 * gateways at random. */
#include "http1_rows.h"

/* --- tables: what is read ------------------------------------------------------------------- */

static void check_good(const row *r, cut how, unsigned seed, bool behind) {
    current = r->name;
    world *w = world_new();
    text all = {NULL, 0}, list = {NULL, 0};
    if (behind) {
        text_addf(&all, "GET /ok 1.1\nHost=[ok]\n\n");
        text_addf(&list, "200 ");
    }
    text_add(&all, r->all, strlen(r->all));
    text_add(&list, r->statuses, strlen(r->statuses));
    text raw = {NULL, 0};
    text_add(&raw, behind ? GOOD : "", behind ? strlen(GOOD) : 0);
    text_add(&raw, r->raw, strlen(r->raw));
    feed_cut(w, raw.p, raw.n, how, seed);
    same("requests", &w->all, text_of(&all));
    text got = {NULL, 0};
    statuses(&w->out, &got);
    same("statuses", &got, text_of(&list));
    same("refused", &w->refused, "");
    CHECK(phase(w) == (r->open ? AS_H1_IDLE : AS_H1_CLOSING));
    CHECK(w->aborted == 0);
    text_clear(&raw);
    text_clear(&got);
    text_clear(&all);
    text_clear(&list);
    world_free(w);
}

static void check_bad(const bad_row *r, cut how, unsigned seed, bool behind) {
    current = r->raw;
    world *w = world_new();
    text raw = {NULL, 0}, expected = {NULL, 0};
    text_add(&raw, behind ? GOOD : "", behind ? strlen(GOOD) : 0);
    text_add(&raw, r->raw, strlen(r->raw));
    text_add(&raw, "\r\n\r\n\r\n" GOOD, strlen("\r\n\r\n\r\n" GOOD));
    text_addf(&expected, "%s%s ", behind ? "200 " : "", r->status);
    feed_cut(w, raw.p, raw.n, how, seed);
    check_closing(w, text_of(&expected));
    same("requests", &w->all, behind ? "GET /ok 1.1\nHost=[ok]\n\n" : "");
    CHECK(strstr(text_of(&w->out), "\r\nconnection: close\r\n") != NULL);
    CHECK(w->refused.n > 0);
    CHECK(as_h1_wants_linger(&w->h1));
    text_clear(&raw);
    text_clear(&expected);
    world_free(w);
}

#define SEEDS 20u

static void test_tables(void) {
    for (size_t i = 0; i < ROWS(good_rows); i++) {
        for (int behind = 0; behind < 2; behind++) {
            check_good(&good_rows[i], CUT_WHOLE, 0, behind);
            check_good(&good_rows[i], CUT_BYTES, 0, behind);
            for (unsigned seed = 0; seed < SEEDS; seed++) {
                check_good(&good_rows[i], CUT_RANDOM, seed, behind);
            }
        }
    }
    for (size_t i = 0; i < ROWS(bad_rows); i++) {
        for (int behind = 0; behind < 2; behind++) {
            check_bad(&bad_rows[i], CUT_WHOLE, 0, behind);
            check_bad(&bad_rows[i], CUT_BYTES, 0, behind);
            for (unsigned seed = 0; seed < SEEDS; seed++) {
                check_bad(&bad_rows[i], CUT_RANDOM, seed, behind);
            }
        }
    }
}

/* --- limits --------------------------------------------------------------------------------- */

/* `times` times `piece` between a head and a tail; the status that comes of it. */
typedef struct long_row {
    const char *status, *before, *piece;
    unsigned times;
    const char *after;
} long_row;

static const long_row long_rows[] = {
    {"200", "GET /", "a", 8190 - 14, " HTTP/1.1\r\n" H "\r\n"},
    {"414", "GET /", "a", 8190 - 13, " HTTP/1.1\r\n" H "\r\n"},
    {"414", "GET /", "a", 20000, ""},
    {"414", "BREW /", "a", 20000, ""},
    {"414", "", "A", 20000, ""},
    {"400", "", "\r\n", 40000, GOOD},
    {"431", "GET / HTTP/1.1\r\n" H "A: ", "b", 70000, "\r\n\r\n"},
    {"431", "GET / HTTP/1.1\r\n" H "A: ", "b", 70000, ""},
    {"431", "GET / HTTP/1.1\r\n" H "A:", " ", 70000, ""},
    {"431", "GET / HTTP/1.1\r\n" H, "b", 70000, ""},
    {"200", "GET / HTTP/1.1\r\n" H "A: ", "b", 65536 - 34, "\r\n\r\n"},
    {"200", "GET / HTTP/1.1\r\n" H, "A: b\r\n", 99, "\r\n"},
    {"431", "GET / HTTP/1.1\r\n" H, "A: b\r\n", 100, "\r\n"},
    {"200", CHUNKED, "1\r\nx\r\n", 20000, "0\r\n\r\n"},
    {"200", CHUNKED, "1;abcdefgh=ijkl\r\nx\r\n", 2000, "0\r\n\r\n"},
    {"400", CHUNKED "1;", "a", 80000, "\r\nx\r\n0\r\n\r\n"},
    {"400", CHUNKED "", "0", 80000, "1\r\nx\r\n0\r\n\r\n"},
    {"431", CHUNKED "0\r\n", "A: b\r\n", 101, "\r\n"},
    {"431", CHUNKED "0\r\nA: ", "b", 70000, "\r\n\r\n"},
};

static void check_long(const long_row *r, size_t step) {
    current = r->before;
    text raw = {NULL, 0}, list = {NULL, 0}, expected = {NULL, 0};
    world *w = world_new();
    text_add(&raw, r->before, strlen(r->before));
    for (unsigned i = 0; i < r->times; i++) {
        text_add(&raw, r->piece, strlen(r->piece));
    }
    text_add(&raw, r->after, strlen(r->after));
    for (size_t at = 0; at < raw.n; at += step) {
        feed(w, raw.p + at, step < raw.n - at ? step : raw.n - at);
    }
    statuses(&w->out, &list);
    text_addf(&expected, "%s ", r->status);
    same("statuses", &list, text_of(&expected));
    text_clear(&raw);
    text_clear(&list);
    text_clear(&expected);
    world_free(w);
}

static void test_limits(void) {
    for (size_t i = 0; i < ROWS(long_rows); i++) {
        check_long(&long_rows[i], 65536);
        check_long(&long_rows[i], 1000);
        check_long(&long_rows[i], 1);
    }
}

/* What can be told from the line is told before there is more of a head. */
static void test_told_at_once(void) {
    static const char *const lines[] = {"GET /\r\nX", "OPTIONS / RTSP/1.0\r\n",
                                        "SOURCE / ICE/1.0\r\n"};
    for (size_t i = 0; i < ROWS(lines); i++) {
        current = lines[i];
        world *w = world_new();
        feeds(w, lines[i]);
        check_closing(w, "400 ");
        world_free(w);
    }
    current = "a line feed in front";
    world *w = world_new();
    feeds(w, "\n");
    same("refused", &w->refused, "invalid request line (line end) at 0;");
    world_free(w);
}

static void check_field_limit(const char *before, size_t n, const char *statuses_expected) {
    text raw = {NULL, 0}, list = {NULL, 0};
    world *w = world_new();
    w->limits.limit_request_head = 200000;
    w->limits.limit_request_field_size = 100000;
    text_addf(&raw, "GET / HTTP/1.1\r\n" H "%s", before);
    for (size_t i = 0; i < n; i++) {
        text_add(&raw, "a", 1);
    }
    text_addf(&raw, "%s", before[0] == '\0' ? ": b\r\n\r\n" : "\r\n\r\n");
    for (size_t at = 0, step; at < raw.n; at += step) {
        step = raw.n - at < 65536 ? raw.n - at : 65536;
        feed(w, raw.p + at, step);
    }
    statuses(&w->out, &list);
    same("statuses", &list, statuses_expected);
    text_clear(&raw);
    text_clear(&list);
    world_free(w);
}

static void test_field_limit(void) {
    current = "limit_request_field_size";
    check_field_limit("A: ", 100000 - 5, "200 ");
    check_field_limit("A: ", 100000 - 4, "431 ");
    current = "a name of more than 16 bits";
    check_field_limit("", UINT16_MAX, "200 ");
    check_field_limit("", UINT16_MAX + 1, "431 ");
}

static void test_body_limit(void) {
    current = "limit_request_body";
    world *w = world_new();
    w->limits.limit_request_body = 10;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n0123456789");
    CHECK(phase(w) == AS_H1_IDLE);
    feeds(w, CHUNKED "5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n");
    CHECK(phase(w) == AS_H1_IDLE);
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 11\r\n\r\n");
    check_closing(w, "200 200 413 ");
    CHECK(strcmp(text_of(&w->events), "request request ") == 0); /* the gateway never saw it */
    world_reconnect(w);
    feeds(w, CHUNKED "5\r\n01234\r\n");
    feeds(w, "6\r\n");
    check_closing(w, "200 200 413 413 ");
    CHECK(w->aborted == 1 && w->abort_why == AS_E_BODY_LARGE);
    world_free(w);
}

static void test_concurrency_limit(void) {
    current = "limit_concurrency";
    world *w = world_new();
    w->limits.limit_concurrency = 1;
    feeds(w, GOOD GOOD);
    w->env.requests++; /* another connection's */
    feeds(w, GOOD);
    w->env.requests--;
    check_closing(w, "200 200 503 ");
    CHECK(strstr(text_of(&w->out), "\r\nretry-after: 1\r\n") != NULL);
    world_free(w);
}

/* --- at random ------------------------------------------------------------------------------ */

/* Some requests, good and bad, with a few bytes changed. */
static void random_bytes(text *raw, unsigned *seed) {
    static const char spice[] = "\r\n\r\n \t:;,0123abcfGETP/?#%\"\x01\x80";
    for (unsigned i = 1 + random_below(seed, 4); i > 0; i--) {
        const char *part = random_below(seed, 8) > 0
                               ? good_rows[random_below(seed, ROWS(good_rows))].raw
                               : bad_rows[random_below(seed, ROWS(bad_rows))].raw;
        text_add(raw, part, strlen(part));
    }
    for (unsigned i = random_below(seed, 4); i > 0; i--) {
        raw->p[random_below(seed, (unsigned)raw->n)] = spice[random_below(seed, sizeof(spice) - 1)];
    }
}

/* However the bytes are cut, the same requests are seen and the same answers given. */
static void test_random_cuts(void) {
    current = "random bytes";
    for (unsigned round = 0; round < 3000; round++) {
        unsigned seed = round;
        text raw = {NULL, 0}, list = {NULL, 0}, list_cut = {NULL, 0};
        random_bytes(&raw, &seed);
        world *w = world_new(), *v = world_new();
        feed_cut(w, raw.p, raw.n, CUT_WHOLE, 0);
        feed_cut(v, raw.p, raw.n, round % 4 == 0 ? CUT_BYTES : CUT_RANDOM, seed);
        statuses(&w->out, &list);
        statuses(&v->out, &list_cut);
        if (strcmp(text_of(&list), text_of(&list_cut)) != 0 ||
            strcmp(text_of(&w->all), text_of(&v->all)) != 0 || phase(w) != phase(v)) {
            current = raw.p;
            fail_text("cut", text_of(&list_cut), text_of(&list));
            fail_text("cut", text_of(&v->all), text_of(&w->all));
        }
        world_free(w);
        world_free(v);
        text_clear(&raw);
        text_clear(&list);
        text_clear(&list_cut);
    }
}

/* A gateway without a plan: what it may do, at any time. Nothing must break, be lost or leak. */
static unsigned whims;

static void act(world *w) {
    as_exchange *ex = w->ex;
    if (ex == NULL) {
        return;
    }
    switch (random_below(&whims, 16)) {
    case 0:
        as_exchange_abort(ex);
        break;
    case 1:
        release(w);
        break;
    case 2:
    case 3:
        as_exchange_pause(ex);
        break;
    case 4:
    case 5:
    case 6:
        as_exchange_resume(ex);
        break;
    case 7:
        as_exchange_want_body(ex);
        break;
    case 8:
        as_exchange_head_abandon(ex);
        break;
    case 9:
        (void)as_exchange_flush(ex);
        break;
    case 10:
        (void)as_exchange_end(ex);
        break;
    default:
        (void)as_exchange_head_begin(ex, 200 + random_below(&whims, 2) * 4, AS_SLICE(""));
        (void)as_exchange_body(ex, bytes_of("hello"), random_below(&whims, 3) > 0);
        break;
    }
}

static void act_on_data(world *w, as_exchange *ex, as_slice data) {
    (void)ex;
    (void)data;
    act(w);
    act(w);
}

static void act_on_event(world *w, as_exchange *ex) {
    (void)ex;
    act(w);
}

static void test_random_gateway(void) {
    current = "a gateway without a plan";
    static const script random_script = {act_on_data, act_on_data, act_on_event, act_on_event,
                                         NULL};
    for (unsigned round = 0; round < 6000; round++) {
        unsigned seed = round;
        text raw = {NULL, 0};
        random_bytes(&raw, &seed);
        whims = round;
        world *w = world_new();
        w->script = &random_script;
        w->limits.limit_write_buffer = 20;
        for (size_t at = 0, step; at < raw.n; at += step) {
            step = 1 + random_below(&seed, 60);
            step = step < raw.n - at ? step : raw.n - at;
            w->stuck = random_below(&seed, 3) == 0;
            feed(w, raw.p + at, step);
            act(w);
            if (random_below(&seed, 2) == 0) {
                w->stuck = false;
                resume(w);
            }
        }
        if (random_below(&seed, 2) == 0) {
            as_h1_eof(&w->h1);
            act(w);
        } else if (random_below(&seed, 2) == 0) {
            as_h1_timeout(&w->h1);
        }
        world_free(w);
        text_clear(&raw);
    }
}

int main(void) {
    test_tables();
    test_limits();
    test_told_at_once();
    test_field_limit();
    test_body_limit();
    test_concurrency_limit();
    test_random_cuts();
    test_random_gateway();
    return failures == 0 ? 0 : 1;
}

/* HTTP/1 without I/O: tables of raw bytes, each fed whole, byte by byte, cut at random and behind
 * another request, must give the same requests and the same answers; then what a gateway may do
 * with an exchange. */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http/forwarded.h"
#include "http/head_cache.h"
#include "http/http1.h"
#include "http/response.h"

/* --- a text that grows ---------------------------------------------------------------------- */

typedef struct text {
    char *p;
    size_t n;
} text;

static void text_add(text *t, const char *p, size_t n) {
    char *bytes = realloc(t->p, t->n + n + 1);
    assert(bytes != NULL);
    t->p = bytes;
    if (n > 0) {
        memcpy(t->p + t->n, p, n);
    }
    t->n += n;
    t->p[t->n] = '\0';
}

static void text_addf(text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void text_addf(text *t, const char *format, ...) {
    char line[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    assert(n >= 0 && (size_t)n < sizeof(line));
    text_add(t, line, (size_t)n);
}

static void text_clear(text *t) {
    free(t->p);
    *t = (text){NULL, 0};
}

static const char *text_of(const text *t) {
    return t->p != NULL ? t->p : "";
}

/* --- a connection with a gateway ------------------------------------------------------------ */

typedef struct world world;

/* What a test's gateway does; NULL: the usual, an answer as soon as the request is complete. */
typedef struct script {
    void (*on_request)(world *w, as_exchange *ex, as_slice body);
    void (*on_body)(world *w, as_exchange *ex, as_slice data);
    void (*on_end)(world *w, as_exchange *ex);
    void (*on_drain)(world *w, as_exchange *ex);
    void (*on_eof)(world *w, as_exchange *ex);
} script;

struct world {
    as_limits limits;
    as_handlers handlers;
    as_buf_pool pool;
    as_response_defaults defaults;
    as_h1_env env;
    as_conn_info info;
    as_h1 h1;
    const script *script;
    as_exchange *ex;   /* the last one, until it is released */
    text request, all; /* of the present request; of all complete ones */
    text events;       /* handlers in order, without data */
    text out;          /* what was sent */
    text refused;      /* on_refused */
    unsigned notified, flushed, soon, aborted;
    uint32_t alarm;
    as_err abort_why;
    bool stuck; /* nothing is taken from the queue */
};

static const as_bytes no_bytes = {"", 0, NULL, NULL, NULL};

static as_bytes bytes_of(const char *p) {
    return (as_bytes){p, strlen(p), NULL, NULL, NULL};
}

/* Takes everything, in pieces. */
static void drain(world *w) {
    as_out out;
    while (!w->stuck && as_outq_peek(&w->h1.out, &out)) {
        size_t taken = 0;
        if (out.nvec == 0) {
            char piece[5000];
            ssize_t n =
                pread(out.fd, piece, out.n < sizeof(piece) ? out.n : sizeof(piece), out.off);
            assert(n > 0);
            text_add(&w->out, piece, (size_t)n);
            taken = (size_t)n;
        }
        for (int i = 0; i < out.nvec; i++) {
            text_add(&w->out, out.vec[i].iov_base, out.vec[i].iov_len);
            taken += out.vec[i].iov_len;
        }
        as_outq_taken(&w->h1.out, taken);
    }
    assert(w->stuck || w->h1.out.size == 0);
}

static void answer(as_exchange *ex) {
    assert(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
    assert(as_exchange_body(ex, bytes_of("ok"), false) == AS_OK);
    as_exchange_release(ex);
}

static void describe(world *w, const as_exchange *ex) {
    const as_head *head = ex->head;
    text *t = &w->request;
    as_slice method = as_head_slice(head, head->method), path = as_head_slice(head, head->path),
             query = as_head_slice(head, head->query);
    text_add(t, method.p, method.n);
    text_addf(t, " ");
    text_add(t, path.p, path.n);
    if (query.n > 0) {
        text_addf(t, " ? ");
        text_add(t, query.p, query.n);
    }
    text_addf(t, " 1.%d\n", head->minor);
    for (uint32_t i = 0; i < head->nfields; i++) {
        as_slice name = as_field_name(head, &head->fields[i]),
                 value = as_field_value(head, &head->fields[i]);
        text_add(t, name.p, name.n);
        text_addf(t, "=[");
        text_add(t, value.p, value.n);
        text_addf(t, "]\n");
    }
}

static void request_complete(world *w) {
    text_add(&w->all, text_of(&w->request), w->request.n);
    text_addf(&w->all, "\n");
}

static void answer_if_complete(world *w, as_exchange *ex) {
    if (ex->req == AS_REQ_DONE) {
        request_complete(w);
        answer(ex);
        w->ex = NULL;
    }
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    world *w = ctx;
    if (w->ex != NULL) {
        as_exchange_release(w->ex); /* a task that stayed behind its answer */
    }
    w->ex = ex;
    text_addf(&w->events, "request ");
    text_clear(&w->request);
    describe(w, ex);
    text_add(&w->request, body.p, body.n);
    if (w->script != NULL && w->script->on_request != NULL) {
        w->script->on_request(w, ex, body);
    } else if (w->script == NULL) {
        as_exchange_want_body(ex);
        answer_if_complete(w, ex);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    world *w = ctx;
    assert(data.n > 0 && !ex->paused && ex->req == AS_REQ_BODY);
    text_addf(&w->events, "body ");
    text_add(&w->request, data.p, data.n);
    if (w->script != NULL && w->script->on_body != NULL) {
        w->script->on_body(w, ex, data);
    }
}

static void on_end(void *ctx, as_exchange *ex) {
    world *w = ctx;
    assert(ex->req == AS_REQ_DONE);
    text_addf(&w->events, "end ");
    if (w->script != NULL && w->script->on_end != NULL) {
        w->script->on_end(w, ex);
    } else if (w->script == NULL) {
        answer_if_complete(w, ex);
    }
}

static void on_eof(void *ctx, as_exchange *ex) {
    world *w = ctx;
    assert(!ex->aborted);
    text_addf(&w->events, "eof ");
    if (w->script != NULL && w->script->on_eof != NULL) {
        w->script->on_eof(w, ex);
    }
}

static void on_shutdown(void *ctx, as_exchange *ex) {
    assert(!ex->aborted);
    text_addf(&((world *)ctx)->events, "shutdown ");
}

static void on_alarm(void *ctx, as_exchange *ex) {
    assert(!ex->aborted);
    text_addf(&((world *)ctx)->events, "alarm ");
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    world *w = ctx;
    assert(ex->aborted);
    w->aborted++;
    w->abort_why = why;
    text_addf(&w->events, "abort ");
    assert(as_exchange_head_begin(ex, 200, AS_SLICE("")) != AS_OK);
    assert(as_exchange_body(ex, no_bytes, false) != AS_OK);
    as_exchange_release(ex);
    if (w->ex == ex) {
        w->ex = NULL;
    }
}

static void on_drain(void *ctx, as_exchange *ex) {
    world *w = ctx;
    text_addf(&w->events, "drain ");
    if (w->script != NULL && w->script->on_drain != NULL) {
        w->script->on_drain(w, ex);
    }
}

static void on_close(void *ctx, as_conn_info *info) {
    (void)ctx;
    (void)info;
}

static void on_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                       uint64_t offset) {
    world *w = ctx;
    (void)info;
    text_addf(&w->refused, "%s (%.*s) at %llu;", as_err_text(why),
              detail.n < 100 ? (int)detail.n : 100, detail.p, (unsigned long long)offset);
}

static void notify(as_h1 *h1) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    assert(!h1->feeding);
    w->notified++;
}

static as_err flush(as_h1 *h1) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    w->flushed++;
    drain(w);
    return AS_OK;
}

static void flush_soon(as_h1 *h1) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    assert(!h1->feeding);
    w->soon++;
}

static void set_alarm(as_h1 *h1, uint32_t ms) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    w->alarm = ms;
}

static world *world_new(void) {
    world *w = calloc(1, sizeof(*w));
    assert(w != NULL);
    as_limits_init(&w->limits);
    w->handlers = (as_handlers){.on_request = on_request,
                                .on_body = on_body,
                                .on_end = on_end,
                                .on_eof = on_eof,
                                .on_abort = on_abort,
                                .on_drain = on_drain,
                                .on_close = on_close,
                                .on_refused = on_refused,
                                .on_alarm = on_alarm};
    as_buf_pool_init(&w->pool, 4);
    assert(as_response_defaults_init(&w->defaults, false, false, NULL, 0) == AS_OK);
    w->env = (as_h1_env){.limits = &w->limits,
                         .handlers = &w->handlers,
                         .ctx = w,
                         .defaults = &w->defaults,
                         .pool = &w->pool,
                         .notify = notify,
                         .flush = flush,
                         .flush_soon = flush_soon,
                         .set_alarm = set_alarm};
    assert(as_h1_env_init(&w->env) == AS_OK);
    strcpy(w->info.client, "192.0.2.1");
    as_h1_init(&w->h1, &w->env, &w->info);
    return w;
}

static void world_free(world *w) {
    as_h1_fini(&w->h1, AS_E_CLOSED);
    if (w->ex != NULL) {
        as_exchange_release(w->ex);
    }
    assert(w->env.requests == 0);
    as_h1_env_fini(&w->env);
    as_response_defaults_fini(&w->defaults);
    as_buf_pool_fini(&w->pool);
    text_clear(&w->request);
    text_clear(&w->all);
    text_clear(&w->events);
    text_clear(&w->out);
    text_clear(&w->refused);
    free(w);
}

/* A connection that has the same loop. */
static void world_reconnect(world *w) {
    as_h1_fini(&w->h1, AS_E_CLOSED);
    as_h1_init(&w->h1, &w->env, &w->info);
}

/* One read, in memory of just its size, and what the connection does behind it. */
static void feed(world *w, const char *p, size_t n) {
    char *data = malloc(n);
    assert(data != NULL || n == 0);
    memcpy(data, p, n);
    as_h1_feed(&w->h1, data, n);
    free(data);
    drain(w);
    while (w->h1.above_high && !w->stuck) {
        as_h1_resume(&w->h1);
        drain(w);
    }
}

static void feeds(world *w, const char *raw) {
    feed(w, raw, strlen(raw));
}

static void resume(world *w) {
    as_h1_resume(&w->h1);
    drain(w);
}

static as_h1_phase phase(const world *w) {
    return as_h1_get_phase(&w->h1);
}

/* --- checks --------------------------------------------------------------------------------- */

static const char *current = ""; /* the case that runs */
static unsigned failures;

/* The case's name or bytes, on one line. */
static const char *case_name(void) {
    static char line[400];
    size_t n = 0;
    for (const char *p = current; *p != '\0' && n < sizeof(line) - 5; p++) {
        bool printable = *p >= ' ' && *p < 0x7f;
        n += (size_t)snprintf(line + n, 5, printable ? "%c" : "\\x%02x", (unsigned char)*p);
    }
    return line;
}

static void fail_text(const char *what, const char *got, const char *expected) {
    fprintf(stderr, "%s: %s\n--- got\n%s\n--- expected\n%s\n---\n", case_name(), what, got,
            expected);
    failures++;
}

static void same(const char *what, const text *got, const char *expected) {
    if (strcmp(text_of(got), expected) != 0) {
        fail_text(what, text_of(got), expected);
    }
}

#define CHECK(condition)                                                                               \
    do {                                                                                               \
        if (!(condition)) {                                                                            \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, case_name(), #condition);               \
            failures++;                                                                                \
        }                                                                                              \
    } while (0)

/* "200 200 400" of the answers. */
static void statuses(const text *out, text *list) {
    const char *at = text_of(out);
    while ((at = strstr(at, "HTTP/1.1 ")) != NULL) {
        at += 9;
        if (memcmp(at, "100", 3) != 0) {
            text_add(list, at, 3);
            text_add(list, " ", 1);
        }
    }
}

/* --- tables: what is read ------------------------------------------------------------------- */

#define H "Host: a\r\n"
#define GOOD "GET /ok HTTP/1.1\r\nHost: ok\r\n\r\n"

typedef struct row {
    const char *name, *raw, *all, *statuses;
    bool open; /* the connection serves on */
} row;

static const row good_rows[] = {
    {"one", "GET /p?q=1 HTTP/1.1\r\n" H "\r\n", "GET /p ? q=1 1.1\nHost=[a]\n\n", "200 ", true},
    {"values are trimmed", "GET / HTTP/1.1\r\nHost:\t a \t \r\nA: b\t\r\nB:\r\nC: \t \r\n\r\n",
     "GET / 1.1\nHost=[a]\nA=[b]\nB=[]\nC=[]\n\n", "200 ", true},
    {"two", "GET /1 HTTP/1.1\r\n" H "\r\nGET /2 HTTP/1.1\r\n" H "\r\n",
     "GET /1 1.1\nHost=[a]\n\nGET /2 1.1\nHost=[a]\n\n", "200 200 ", true},
    {"empty lines", "\r\n\r\nGET /1 HTTP/1.1\r\n" H "\r\n\r\nGET /2 HTTP/1.1\r\n" H "\r\n",
     "GET /1 1.1\nHost=[a]\n\nGET /2 1.1\nHost=[a]\n\n", "200 200 ", true},
    {"counted body", "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhello" GOOD,
     "POST / 1.1\nHost=[a]\nContent-Length=[5]\nhello\nGET /ok 1.1\nHost=[ok]\n\n", "200 200 ",
     true},
    {"empty body", "POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n" GOOD,
     "POST / 1.1\nHost=[a]\nContent-Length=[0]\n\nGET /ok 1.1\nHost=[ok]\n\n", "200 200 ", true},
    {"chunked body",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: CHUNKED\r\n\r\n"
     "5\r\nhello\r\n1;x=\"y\"\r\n,\r\n006\r\n world\r\n0\r\nX: y\r\n\r\n" GOOD,
     "POST / 1.1\nHost=[a]\nTransfer-Encoding=[CHUNKED]\nhello, world\nGET /ok 1.1\nHost=[ok]\n\n",
     "200 200 ", true},
    {"upgrade is ignored",
     "POST / HTTP/1.1\r\n" H
     "Connection: upgrade\r\nUpgrade: x\r\nContent-Length: 2\r\n\r\nhi" GOOD,
     "POST / 1.1\nHost=[a]\nConnection=[upgrade]\nUpgrade=[x]\nContent-Length=[2]\nhi\n"
     "GET /ok 1.1\nHost=[ok]\n\n",
     "200 200 ", true},
    {"close", "GET / HTTP/1.1\r\n" H "Connection: x, Close\r\n\r\n" GOOD,
     "GET / 1.1\nHost=[a]\nConnection=[x, Close]\n\n", "200 ", false},
    {"1.0", "GET / HTTP/1.0\r\n\r\n" GOOD, "GET / 1.0\n\n", "200 ", false},
    {"1.0 keep-alive", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n" GOOD,
     "GET / 1.0\nConnection=[Keep-Alive]\n\nGET /ok 1.1\nHost=[ok]\n\n", "200 200 ", true},
    {"absolute form", "GET http://b:8/p?q HTTP/1.1\r\n" H "\r\n", "GET /p ? q 1.1\nHost=[b:8]\n\n",
     "200 ", true},
    {"absolute form, no path", "GET HTTPS://b HTTP/1.1\r\n" H "\r\n", "GET / 1.1\nHost=[b]\n\n",
     "200 ", true},
    {"asterisk", "OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS  1.1\nHost=[a]\n\n", "200 ", true},
    {"obs-text", "GET / HTTP/1.1\r\n" H "A: \xff\x80\r\n\r\n",
     "GET / 1.1\nHost=[a]\nA=[\xff\x80]\n\n", "200 ", true},
    {"expectation of a body that is here",
     "POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nhi" GOOD,
     "POST / 1.1\nHost=[a]\nExpect=[100-Continue]\nContent-Length=[2]\nhi\n"
     "GET /ok 1.1\nHost=[ok]\n\n",
     "200 200 ", true},
    {"garbage behind a close",
     "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n\x01\x02 garbage\r\n",
     "GET / 1.1\nHost=[a]\nConnection=[close]\n\n", "200 ", false},
    {"M-SEARCH", "M-SEARCH / HTTP/1.1\r\n" H "\r\n", "M-SEARCH / 1.1\nHost=[a]\n\n", "200 ", true},
};

/* Refused, and what comes behind is not looked at. */
typedef struct bad_row {
    const char *status, *raw;
} bad_row;

static const bad_row bad_rows[] = {
    /* RFC 9112, 2.2: line ends */
    {"400", "\nGET / HTTP/1.1\r\n" H "\r\n"},
    {"400", "\r\rGET / HTTP/1.1\r\n" H "\r\n"},
    {"400", "\rGET / HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET / HTTP/1.1\n" H "\r\n"},
    {"400", "GET / HTTP/1.1\r" H "\r\n"},
    {"400", "GET / HTTP/1.1\r\nHost: a\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "\n"},
    {"400", "GET / HTTP/1.1\r\n" H "\rX"},
    {"400", "GET / HTTP/1.1\r\n" H "A: b\rC: d\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"},
    /* 2.3: versions */
    {"505", "GET / HTTP/1.2\r\n" H "\r\n"},
    {"505", "GET / HTTP/2.0\r\n" H "\r\n"},
    {"505", "GET / HTTP/3.0\r\n" H "\r\n"},
    {"505", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"},
    {"400", "GET / HTTP/1\r\n" H "\r\n"},
    {"400", "GET / HTTP/1.10\r\n" H "\r\n"},
    {"400", "GET / HTTP/11.1\r\n" H "\r\n"},
    {"400", "GET / http/1.1\r\n" H "\r\n"},
    {"400", "GET / HTTP/1.1 \r\n" H "\r\n"},
    {"400", "GET /\r\n\r\n"},
    {"400", "GET / \r\n\r\n"},
    {"400", "OPTIONS / RTSP/1.0\r\n" H "\r\n"},
    {"400", "SOURCE / ICE/1.0\r\n" H "\r\n"},
    /* 3.1: methods */
    {"501", "BREW / HTTP/1.1\r\n" H "\r\n"},
    {"501", "get / HTTP/1.1\r\n" H "\r\n"},
    {"501", "GETT / HTTP/1.1\r\n" H "\r\n"},
    {"501", "GE / HTTP/1.1\r\n" H "\r\n"},
    {"501", "ANNOUNCE / HTTP/1.1\r\n" H "\r\n"},
    {"501", "CONNECT a:1 HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET: / HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET\t/ HTTP/1.1\r\n" H "\r\n"},
    {"400", "G\xc9T / HTTP/1.1\r\n" H "\r\n"},
    {"400", "BREW\r\n" H "\r\n"},
    {"400", "BREW /\r\n" H "\r\n"},
    {"400", "BREW  HTTP/1.1\r\n" H "\r\n"},
    {"400", "BREW / HTTP/1.1\n" H "\r\n"},
    {"400", "BREW / HTTP/1.1x\n" H "\r\n"},
    {"400", "BREW / HTTP/1.x\r\n" H "\r\n"},
    {"400", "BREW / HTTP/1./\r\n" H "\r\n"},
    {"400", "BREW / XTTP/1.1\r\n" H "\r\n"},
    {"400", "BREW /a b HTTP/1.1\r\n" H "\r\n"},
    {"400", "BREW /\x7f HTTP/1.1\r\n" H "\r\n"},
    {"400", " / HTTP/1.1\r\n" H "\r\n"},
    {"400", "\x16\x03\x01\x02 hello"},
    {"400", "GET\r\n" H "\r\n"},
    /* 3.2: targets, hosts */
    {"400", "GET * HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET a HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET /a#b HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET /\x7f HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET /\xc3\xa9 HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET /a b HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET  / HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET /  HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET ftp://a/ HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET http:///a HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET http://u@a/ HTTP/1.1\r\n" H "\r\n"},
    {"400", "GET http://b/ HTTP/1.1\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "X: y\r\nhOST: a\r\n\r\n"},
    {"400", "GET / HTTP/1.0\r\n" H H "\r\n"},
    {"400", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
    {"400", "GET / HTTP/1.0\r\nHost: a b\r\n\r\n"},
    /* 5: field lines */
    {"400", "GET / HTTP/1.1\r\n" H "A : b\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H ": b\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "A\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "A(: b\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "A: b\r\n c\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "A:\r\n\tc\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "A: \x01\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "A: \x7f\r\n\r\n"},
    {"400", "GET / HTTP/1.1\r\n" H "A:\vb\r\n\r\n"},
    {"417", "POST / HTTP/1.1\r\n" H "Expect: x\r\nContent-Length: 2\r\n\r\nhi"},
    {"417", "POST / HTTP/1.1\r\n" H "Expect: 100-continue, x\r\nContent-Length: 2\r\n\r\nhi"},
    /* 6: framing */
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: +1\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: -1\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: 0x1\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: 1_0\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: 1 0\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: 1, 1\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: 0\r\nContent-Length: 1\r\n\r\nx"},
    {"400", "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551616\r\n\r\nx"},
    {"413", "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551615\r\n\r\nx"},
    {"400",
     "POST / HTTP/1.1\r\n" H "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {"400",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"},
    {"400", "POST / HTTP/1.0\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
    {"400", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"},
    {"400",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0"},
    {"400", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"},
    {"400",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n"},
    {"400", "POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n0\r\n\r\n"},
    {"400", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"},
    {"400", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"},
    {"400", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: \vchunked\r\n\r\n0\r\n\r\n"},
    {"501", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
    {"501",
     "POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"},
    {"501", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: identity\r\n\r\n"},
    {"501", "POST / HTTP/1.1\r\n" H "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
/* 7.1: chunks */
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
    {"400", CHUNKED "\r\n"},
    {"400", CHUNKED "+1\r\nx\r\n"},
    {"400", CHUNKED "0x1\r\nx\r\n"},
    {"400", CHUNKED " 1\r\nx\r\n"},
    {"400", CHUNKED "1 \r\nx\r\n"},
    {"400", CHUNKED "1\nx\r\n"},
    {"400", CHUNKED "1\rx\r\n"},
    {"400", CHUNKED "1\r\nx\n"},
    {"400", CHUNKED "1\r\nxy\r\n"},
    {"400", CHUNKED "1\r\nx0\r\n\r\n"},
    {"400", CHUNKED "1;a\nb\r\nx\r\n0\r\n\r\n"},
    {"400", CHUNKED "1;a\x01\r\nx\r\n0\r\n\r\n"},
    {"400", CHUNKED "1 a\r\nx\r\n0\r\n\r\n"},
    {"400", CHUNKED "10000000000000000\r\nx\r\n"},
    {"413", CHUNKED "fffffffffffffff\r\nx\r\n"},
    {"400", CHUNKED "0\r\n\n"},
    {"400", CHUNKED "0\r\n\rX"},
    {"400", CHUNKED "0\r\nA\r\n\r\n"},
    {"400", CHUNKED "0\r\nA : b\r\n\r\n"},
    {"400", CHUNKED "0\r\nA: b\r\n c\r\n\r\n"},
    {"400", CHUNKED "0\r\nContent-Length: 1\r\n\r\n"},
    {"400", CHUNKED "0\r\nTransfer-Encoding: chunked\r\n\r\n"},
    {"400", CHUNKED "0\r\nhOst: b\r\n\r\n"},
    {"400", CHUNKED "0\r\nConnection: close\r\n\r\n"},
    {"400", CHUNKED "0\r\nTrailer: x\r\n\r\n"},
    {"400", CHUNKED "0\r\nTE: trailers\r\n\r\n"},
    {"400", CHUNKED "0\r\nKeep-Alive: x\r\n\r\n"},
    {"400", CHUNKED "0\r\nUpgrade: x\r\n\r\n"},
};

/* How a case's bytes are cut; the seed also chooses. */
typedef enum cut { CUT_WHOLE, CUT_BYTES, CUT_RANDOM } cut;

static unsigned random_below(unsigned *seed, unsigned n) {
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 16) % n;
}

static void feed_cut(world *w, const char *raw, size_t n, cut how, unsigned seed) {
    for (size_t at = 0, step; at < n; at += step) {
        step = how == CUT_WHOLE ? n : how == CUT_BYTES ? 1 : 1 + random_below(&seed, 40);
        if (step > n - at) {
            step = n - at;
        }
        feed(w, raw + at, step);
    }
}

static void check_closing(world *w, const char *statuses_expected) {
    text list = {NULL, 0};
    statuses(&w->out, &list);
    same("statuses", &list, statuses_expected);
    text_clear(&list);
    CHECK(phase(w) == AS_H1_CLOSING || phase(w) == AS_H1_DEAD);
}

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

#define ROWS(table) (sizeof(table) / sizeof((table)[0]))
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

/* --- heads that repeat ---------------------------------------------------------------------- */

/* Answers to a request; `w->ex` stays until it is released. */
static void keep(world *w, as_exchange *ex, as_slice body) {
    (void)body;
    w->ex = ex;
}

static const script keeping = {.on_request = keep};

/* What comes of bytes on a new connection of the loop. */
static void see(world *w, const char *raw, size_t n, text *seen) {
    world_reconnect(w);
    text_clear(&w->request);
    text_clear(&w->all);
    text_clear(&w->out);
    text_clear(&w->refused);
    feed(w, raw, n);
    text_add(seen, text_of(&w->all), w->all.n);
    text_add(seen, text_of(&w->out), w->out.n);
    text_add(seen, text_of(&w->refused), w->refused.n);
    text_addf(seen, "%d %d", phase(w), as_h1_wants_linger(&w->h1));
}

/* As often as it takes to be kept, if it may be. */
static void warm(world *w, const char *raw, size_t n) {
    text seen = {NULL, 0};
    for (int i = 0; i < 3; i++) {
        see(w, raw, n, &seen);
        text_clear(&seen);
    }
}

static bool is_kept(const world *w, const char *raw, size_t n) {
    return as_head_cache_find(w->env.heads, raw, n) != NULL;
}

/* The same bytes say the same on a loop that has seen `before` and on one that has seen nothing. */
static void check_warm(world *w, const char *raw, size_t n) {
    text one = {NULL, 0}, other = {NULL, 0};
    world *cold = world_new();
    see(cold, raw, n, &one);
    see(w, raw, n, &other);
    same("on a warm loop", &other, text_of(&one));
    text_clear(&one);
    text_clear(&other);
    world_free(cold);
}

static void check_again(const char *name, const char *raw) {
    current = name;
    text twice = {NULL, 0};
    text_addf(&twice, GOOD);
    text_add(&twice, raw, strlen(raw));
    text_add(&twice, raw, strlen(raw));
    world *w = world_new();
    warm(w, raw, strlen(raw));
    check_warm(w, raw, strlen(raw));
    check_warm(w, text_of(&twice), twice.n);
    check_warm(w, text_of(&twice), twice.n);
    text_clear(&twice);
    world_free(w);
}

static void test_tables_again(void) {
    for (size_t i = 0; i < ROWS(good_rows); i++) {
        check_again(good_rows[i].name, good_rows[i].raw);
    }
    for (size_t i = 0; i < ROWS(bad_rows); i++) {
        check_again(bad_rows[i].raw, bad_rows[i].raw);
    }
}

/* Each byte of a head that is kept counts, and so does where it ends. */
static void test_one_byte_differs(void) {
    static const char raw[] =
        "GET /path HTTP/1.1\r\n" H "User-Agent: test/1.0 (of heads)\r\nAccept: */*\r\n"
        "Connection: keep-alive\r\nCache-Control: max-age=0\r\n\r\n";
    static const char others[] = "\r\n :Xx0/\t";
    size_t n = sizeof(raw) - 1;
    char changed[sizeof(raw) + 1];
    current = "one byte differs";
    world *w = world_new();
    warm(w, raw, n);
    CHECK(is_kept(w, raw, n));
    for (size_t at = 0; at < n; at++) {
        CHECK(!is_kept(w, raw, at));
        check_warm(w, raw, at);
        for (size_t i = 0; i < sizeof(others) - 1; i++) {
            memcpy(changed, raw, sizeof(raw));
            changed[at] = others[i];
            CHECK(changed[at] == raw[at] || !is_kept(w, changed, n));
            check_warm(w, changed, n);
        }
        memcpy(changed, raw, at);
        changed[at] = 'z';
        memcpy(changed + at + 1, raw + at, n - at);
        CHECK(!is_kept(w, changed, n + 1));
        check_warm(w, changed, n + 1);
    }
    CHECK(is_kept(w, raw, n));
    world_free(w);
}

typedef struct kept_row {
    const char *raw;
    bool is_kept;
} kept_row;

#define TEN(s) s s s s s s s s s s
static const kept_row kept_rows[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", true},
    {"HEAD / HTTP/1.1\r\n" H "\r\n", true},
    {"DELETE /a/b HTTP/1.1\r\n" H "\r\n", true},
    {"GET / HTTP/1.0\r\n" H "\r\n", true},
    {"GET http://b/ HTTP/1.1\r\n" H "\r\n", true},
    {"GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n", true},
    {"GET / HTTP/1.1\r\n" H TEN("Accept: a\r\n") TEN("Via: b\r\n") TEN("DNT: 1\r\n") "\r\n", true},
    {"GET / HTTP/1.1\r\n" H TEN("Accept: a\r\n") TEN("Via: b\r\n")
         TEN("DNT: 1\r\n") "DNT: 1\r\n"
                           "DNT: 1\r\n\r\n",
     false},
    {"GET / HTTP/1.1\r\n" H "User-Agent: " TEN(TEN("123456789012345678901")) "\r\n\r\n", false},
    {"GET / HTTP/1.0\r\n\r\n", false},
    {"GET /?token=1 HTTP/1.1\r\n" H "\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Cookie: a=b\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Authorization: Bearer a\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "X-Api-Key: a\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "X-Forwarded-Host: a\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", false},
    {"GET / HTTP/1.1\r\n" H "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", false},
};

static void test_which_heads_are_kept(void) {
    for (size_t i = 0; i < ROWS(kept_rows); i++) {
        const kept_row *r = &kept_rows[i];
        size_t n = strlen(r->raw);
        text seen = {NULL, 0};
        current = r->raw;
        world *w = world_new();
        see(w, r->raw, n, &seen);
        CHECK(!is_kept(w, r->raw, n)); /* it may be the only one of its kind */
        see(w, r->raw, n, &seen);
        CHECK(is_kept(w, r->raw, n) == r->is_kept);
        text_clear(&seen);
        world_free(w);
    }
}

/* More than there is room for: those that are kept are few, and each is the right one. */
static void test_many_heads(void) {
    current = "many heads";
    world *w = world_new();
    char raw[100];
    unsigned kept = 0;
    for (unsigned i = 0; i < 600; i++) {
        int n = snprintf(raw, sizeof(raw), "GET /%u HTTP/1.1\r\n" H "\r\n", i % 300);
        warm(w, raw, (size_t)n);
        check_warm(w, raw, (size_t)n);
    }
    for (unsigned i = 0; i < 300; i++) {
        int n = snprintf(raw, sizeof(raw), "GET /%u HTTP/1.1\r\n" H "\r\n", i);
        kept += is_kept(w, raw, (size_t)n);
    }
    CHECK(kept > 0 && kept <= AS_HEAD_CACHE_SETS * AS_HEAD_CACHE_WAYS);
    world_free(w);
}

/* Whether a refusal has a body is this request's matter, parsed or not. */
static void test_kept_heads_refused(void) {
    static const char head[] = "HEAD / HTTP/1.1\r\n" H "\r\n",
                      get[] = "GET / HTTP/1.1\r\n" H "\r\n";
    current = "kept heads refused";
    world *w = world_new();
    w->limits.limit_concurrency = 1;
    warm(w, head, sizeof(head) - 1);
    warm(w, get, sizeof(get) - 1);
    w->env.requests++; /* another connection's */
    for (int i = 0; i < 2; i++) {
        text seen = {NULL, 0};
        see(w, head, sizeof(head) - 1, &seen);
        CHECK(strstr(text_of(&w->out), " 503 ") != NULL);
        CHECK(memcmp(w->out.p + w->out.n - 4, "\r\n\r\n", 4) == 0);
        see(w, get, sizeof(get) - 1, &seen);
        CHECK(strstr(text_of(&w->out), " 503 ") != NULL);
        CHECK(memcmp(w->out.p + w->out.n - 4, "\r\n\r\n", 4) != 0);
        text_clear(&seen);
    }
    w->env.requests--;
    world_free(w);
}

static void notify_nobody(as_h1 *h1) {
    (void)h1;
}

/* What a proxy tells is written into the head of its request. */
static void test_kept_heads_and_proxies(void) {
    static const as_scheme_field ssl = {{"X-FORWARDED-SSL", 15}, {"on", 2}};
    static const as_forwarding forwarding = {.fields = true, .schemes = &ssl, .nschemes = 1};
    static const char raw[] = "GET / HTTP/1.1\r\n" H "\r\n";
    current = "kept heads and proxies";
    world *w = world_new();
    warm(w, raw, sizeof(raw) - 1);
    w->env.forwarding = &forwarding;
    w->script = &keeping;
    for (int trusted = 0; trusted < 2; trusted++) {
        w->info.trusted = trusted;
        world_reconnect(w);
        feeds(w, raw);
        const as_head *kept = as_head_cache_find(w->env.heads, raw, sizeof(raw) - 1);
        CHECK((w->ex->head == kept) == !trusted);
        answer(w->ex);
        w->ex = NULL;
    }
    world_free(w);
}

/* A request that goes on has its head, whatever the cache does meanwhile, and whoever shares it. */
static void test_kept_heads_that_are_held(void) {
    static const char raw[] = "GET /held HTTP/1.1\r\n" H "\r\n";
    current = "kept heads that are held";
    world *w = world_new();
    warm(w, raw, sizeof(raw) - 1);
    as_exchange *held[2];
    as_h1 h1[2];
    w->script = &keeping;
    w->env.notify = notify_nobody;
    for (size_t i = 0; i < 2; i++) {
        char bytes[sizeof(raw)];
        memcpy(bytes, raw, sizeof(raw));
        as_h1_init(&h1[i], &w->env, &w->info);
        as_h1_feed(&h1[i], bytes, sizeof(raw) - 1);
        memset(bytes, 'x', sizeof(bytes));
        held[i] = w->ex;
        w->ex = NULL;
    }
    CHECK(held[0] != held[1] && held[0]->head == held[1]->head);
    w->script = NULL;
    for (unsigned i = 0; i < 300; i++) {
        char other[100];
        int n = snprintf(other, sizeof(other), "GET /held%u HTTP/1.1\r\n" H "\r\n", i);
        warm(w, other, (size_t)n);
        n = snprintf(other, sizeof(other), "GET /held HTTP/1.1\r\nHost: a%u\r\n\r\n", i);
        warm(w, other, (size_t)n);
    }
    CHECK(!is_kept(w, raw, sizeof(raw) - 1)); /* others took its place */
    for (size_t i = 0; i < 2; i++) {
        text_clear(&w->request);
        describe(w, held[i]);
        same("head", &w->request, "GET /held 1.1\nHost=[a]\n");
        answer(held[i]);
        as_h1_fini(&h1[i], AS_E_CLOSED);
    }
    world_free(w);
}

/* --- what is written ------------------------------------------------------------------------ */

static void release(world *w) {
    as_exchange_release(w->ex);
    w->ex = NULL;
}

static void begin(world *w, unsigned status) {
    CHECK(as_exchange_head_begin(w->ex, status, AS_SLICE("")) == AS_OK);
}

static void field(world *w, const char *name, const char *value) {
    CHECK(as_exchange_head_field(w->ex, (as_slice){name, strlen(name)},
                                 (as_slice){value, strlen(value)}) == AS_OK);
}

static void body(world *w, const char *data, bool more) {
    CHECK(as_exchange_body(w->ex, bytes_of(data), more) == AS_OK);
}

typedef struct answer_row {
    const char *name, *request;
    void (*answer)(world *w);
    const char *out;
    as_h1_phase after;
} answer_row;

#define GET "GET / HTTP/1.1\r\n" H "\r\n"
#define GET_CLOSE "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n"
#define GET_10 "GET / HTTP/1.0\r\n\r\n"
#define GET_10_KEEP "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
#define HEAD "HEAD / HTTP/1.1\r\n" H "\r\n"

static void whole(world *w) {
    begin(w, 200);
    field(w, "X-A", " b ");
    body(w, "hello", false);
}
static void declared(world *w) {
    begin(w, 200);
    field(w, "Content-Length", "5");
    body(w, "he", true);
    body(w, "", true);
    body(w, "llo", false);
}
static void streamed(world *w) {
    begin(w, 200);
    body(w, "", true);
    body(w, "0123456789abcdefg", true);
    body(w, "", true);
    body(w, "h", false);
}
static void streamed_then_end(world *w) {
    begin(w, 200);
    body(w, "x", true);
    CHECK(as_exchange_end(w->ex) == AS_OK);
}
static void nothing(world *w) {
    begin(w, 200);
    body(w, "", false);
}
static void no_content(world *w) {
    begin(w, 204);
    CHECK(w->ex->no_body);
    field(w, "content-length", "3");
    body(w, "abc", false);
}
static void not_modified(world *w) {
    begin(w, 304);
    field(w, "content-length", "3");
    field(w, "etag", "\"x\"");
    body(w, "", false);
}
static void head_streamed(world *w) {
    begin(w, 200);
    CHECK(w->ex->no_body);
    body(w, "x", true);
    body(w, "", false);
}
static void closing(world *w) {
    begin(w, 200);
    field(w, "connection", "x, Close");
    body(w, "x", false);
}
static void hop_by_hop(world *w) {
    begin(w, 200);
    field(w, "Transfer-Encoding", "chunked");
    field(w, "Keep-Alive", "timeout=5");
    field(w, "Proxy-Connection", "keep-alive");
    field(w, "TE", "trailers");
    field(w, "Connection", "keep-alive, upgrade");
    field(w, "Upgrade", "h2c");
    body(w, "x", false);
}
static void reason(world *w) {
    CHECK(as_exchange_head_begin(w->ex, 299, AS_SLICE("Very Fine")) == AS_OK);
    body(w, "x", false);
}
static void unknown_status(world *w) {
    begin(w, 599);
    body(w, "x", false);
}
static void abandoned(world *w) {
    begin(w, 200);
    field(w, "content-length", "77");
    field(w, "connection", "close");
    as_exchange_head_abandon(w->ex);
    CHECK(w->ex->res == AS_RES_START && w->ex->status == 0);
    begin(w, 404);
    body(w, "", false);
}
static void trailers(world *w) {
    begin(w, 200);
    w->ex->trailers = true;
    body(w, "x", true);
    static const char *const forbidden[] = {
        "Content-Length", "Transfer-Encoding", "Host", "Connection", "Trailer", "TE", "Keep-Alive",
        "Upgrade"};
    for (size_t i = 0; i < ROWS(forbidden); i++) {
        as_slice name = {forbidden[i], strlen(forbidden[i])};
        CHECK(as_exchange_trailer(w->ex, name, AS_SLICE("1")) == AS_E_RESPONSE_NAME);
    }
    CHECK(as_exchange_trailer(w->ex, AS_SLICE("X-Sum"), AS_SLICE("1")) == AS_OK);
    CHECK(as_exchange_trailer(w->ex, AS_SLICE("X-T"), AS_SLICE("2\n")) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_body(w->ex, bytes_of("y"), true) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_end(w->ex) == AS_OK);
}
static void no_trailers(world *w) {
    begin(w, 200);
    field(w, "content-length", "1");
    body(w, "x", true);
    CHECK(as_exchange_trailer(w->ex, AS_SLICE("X-Sum"), AS_SLICE("1")) == AS_OK);
    CHECK(as_exchange_end(w->ex) == AS_OK);
}
static void hints(world *w) {
    as_slice pairs[] = {AS_SLICE("link"), AS_SLICE("</a>"), AS_SLICE("link"), AS_SLICE("</b>")};
    as_slice bad[] = {AS_SLICE("link"), AS_SLICE("</a>\r\nx: y")};
    CHECK(as_exchange_interim(w->ex, 103, pairs, 4) == AS_OK);
    CHECK(as_exchange_interim(w->ex, 103, bad, 2) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_interim(w->ex, 99, pairs, 4) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_interim(w->ex, 101, pairs, 4) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_interim(w->ex, 200, pairs, 4) == AS_E_RESPONSE_STATUS);
    nothing(w);
}
static void file_part(world *w) {
    char path[] = "/tmp/test_http1.XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && unlink(path) == 0 && write(fd, "0123456789", 10) == 10);
    begin(w, 200);
    CHECK(as_exchange_file(w->ex, dup(fd), 2, 3, true) == AS_OK);
    CHECK(as_exchange_file(w->ex, dup(fd), 2, 0, true) == AS_OK);
    CHECK(as_exchange_file(w->ex, fd, 9, 1, false) == AS_OK);
}

static const answer_row answer_rows[] = {
    {"whole", GET, whole, "HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 5\r\n\r\nhello",
     AS_H1_IDLE},
    {"nothing", GET, nothing, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", AS_H1_IDLE},
    {"declared", GET, declared, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", AS_H1_IDLE},
    {"streamed", GET, streamed,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
     "11\r\n0123456789abcdefg\r\n1\r\nh\r\n0\r\n\r\n",
     AS_H1_IDLE},
    {"streamed, then its end", GET, streamed_then_end,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", AS_H1_IDLE},
    {"streamed, 1.0", GET_10_KEEP, streamed,
     "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n0123456789abcdefgh", AS_H1_CLOSING},
    {"whole, 1.0", GET_10, nothing,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", AS_H1_CLOSING},
    {"whole, 1.0 keep-alive", GET_10_KEEP, nothing,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", AS_H1_IDLE},
    {"the client closes", GET_CLOSE, nothing,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", AS_H1_CLOSING},
    {"the application closes", GET, closing,
     "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx", AS_H1_CLOSING},
    {"HEAD, whole", HEAD, whole, "HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 5\r\n\r\n",
     AS_H1_IDLE},
    {"HEAD, declared", HEAD, declared, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", AS_H1_IDLE},
    {"HEAD, streamed", HEAD, head_streamed, "HTTP/1.1 200 OK\r\n\r\n", AS_H1_IDLE},
    {"204", GET, no_content, "HTTP/1.1 204 No Content\r\n\r\n", AS_H1_IDLE},
    {"304", GET, not_modified,
     "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 3\r\n\r\n", AS_H1_IDLE},
    {"hop by hop", GET, hop_by_hop, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", AS_H1_IDLE},
    {"a reason", GET, reason, "HTTP/1.1 299 Very Fine\r\ncontent-length: 1\r\n\r\nx", AS_H1_IDLE},
    {"an unknown status", GET, unknown_status, "HTTP/1.1 599 \r\ncontent-length: 1\r\n\r\nx",
     AS_H1_IDLE},
    {"abandoned", GET, abandoned, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
     AS_H1_IDLE},
    {"trailers", GET, trailers,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
     AS_H1_IDLE},
    {"trailers of a counted body", GET, no_trailers,
     "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", AS_H1_IDLE},
    {"early hints", GET, hints,
     "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n"
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
     AS_H1_IDLE},
    {"early hints, 1.0", GET_10_KEEP, hints,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", AS_H1_IDLE},
    {"file", GET, file_part,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n234\r\n1\r\n9\r\n0\r\n\r\n",
     AS_H1_IDLE},
    {"file, 1.0", GET_10, file_part, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n2349",
     AS_H1_CLOSING},
    {"file, HEAD", HEAD, file_part, "HTTP/1.1 200 OK\r\n\r\n", AS_H1_IDLE},
};

/* From within the handler, and later from outside of it. */
static void (*answer_now)(world *w);

static void answer_within(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    w->ex = ex;
    answer_now(w);
    release(w);
}

static const script answering = {.on_request = answer_within};

static void test_answers(void) {
    for (size_t i = 0; i < ROWS(answer_rows); i++) {
        const answer_row *r = &answer_rows[i];
        current = r->name;
        world *w = world_new();
        w->script = &answering;
        answer_now = r->answer;
        feeds(w, r->request);
        same("at once", &w->out, r->out);
        CHECK(phase(w) == r->after && w->notified == 0);
        world_free(w);

        w = world_new();
        w->script = &keeping;
        feeds(w, r->request);
        CHECK(phase(w) == AS_H1_BUSY && as_h1_wants_read(&w->h1) && w->env.requests == 1);
        r->answer(w);
        drain(w);
        same("later", &w->out, r->out);
        CHECK(phase(w) == r->after && w->notified > 0);
        CHECK(w->ex->proto == NULL); /* a task behind the answer holds nobody up */
        release(w);
        CHECK(w->env.requests == 0);
        world_free(w);
    }
}

static void test_wrong_calls(void) {
    current = "calls in a wrong state or with wrong arguments";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    as_exchange *ex = w->ex;
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_body(ex, no_bytes, true) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_end(ex) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_trailer(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_begin(ex, 199, AS_SLICE("")) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_head_begin(ex, 1000, AS_SLICE("")) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("a\r\nb")) == AS_E_RESPONSE_VALUE);
    begin(w, 200);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_interim(ex, 103, NULL, 0) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_field(ex, AS_SLICE(""), AS_SLICE("b")) == AS_E_RESPONSE_NAME);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a b"), AS_SLICE("b")) == AS_E_RESPONSE_NAME);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a\n"), AS_SLICE("b")) == AS_E_RESPONSE_NAME);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b\r\nc: d")) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), (as_slice){"b\0c", 3}) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_head_field(ex, AS_SLICE("Content-Length"), AS_SLICE("+1")) ==
          AS_E_RESPONSE_LENGTH);
    CHECK(as_exchange_head_field(ex, AS_SLICE("Content-Length"),
                                 AS_SLICE("18446744073709551616")) == AS_E_RESPONSE_LENGTH);
    field(w, "content-length", "3");
    CHECK(as_exchange_head_field(ex, AS_SLICE("Content-Length"), AS_SLICE("3")) ==
          AS_E_RESPONSE_LENGTH);
    CHECK(as_exchange_body(ex, bytes_of("abcd"), true) == AS_E_RESPONSE_LONG);
    CHECK(as_exchange_body(ex, bytes_of("ab"), false) == AS_E_RESPONSE_SHORT);
    CHECK(ex->res == AS_RES_HEAD && w->h1.out.size == 0);
    body(w, "ab", true);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_body(ex, bytes_of("cd"), true) == AS_E_RESPONSE_LONG);
    CHECK(as_exchange_end(ex) == AS_E_RESPONSE_SHORT);
    body(w, "c", false);
    CHECK(as_exchange_body(ex, no_bytes, false) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_end(ex) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_pending(ex) == 0);
    as_exchange_want_body(ex);
    as_exchange_pause(ex);
    as_exchange_resume(ex);
    as_exchange_head_abandon(ex);
    as_exchange_abort(ex);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
    world_free(w);
}

static void dated(world *w) {
    begin(w, 200);
    field(w, "Date", "never");
    body(w, "", false);
}
static void served(world *w) {
    begin(w, 200);
    field(w, "Server", "other");
    body(w, "", false);
}

static void check_defaults(world *w, void (*answer_it)(world *w), const char *out) {
    text_clear(&w->out);
    w->script = &answering;
    answer_now = answer_it;
    feeds(w, GET);
    same("out", &w->out, out);
}

static void test_defaults(void) {
    current = "the server's own field lines";
    static const as_slice extra[] = {{"x-a", 3}, {"b", 1}};
    world *w = world_new();
    as_response_defaults_fini(&w->defaults);
    CHECK(as_response_defaults_init(&w->defaults, true, true, extra, 2) == AS_OK);
    as_response_defaults_tick(&w->defaults, 784111777);
    check_defaults(w, nothing,
                   "HTTP/1.1 200 OK\r\nserver: asgiserver\r\n"
                   "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-a: b\r\ncontent-length: 0\r\n\r\n");
    check_defaults(w, dated,
                   "HTTP/1.1 200 OK\r\nDate: never\r\nserver: asgiserver\r\nx-a: b\r\n"
                   "content-length: 0\r\n\r\n");
    check_defaults(w, served,
                   "HTTP/1.1 200 OK\r\nServer: other\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                   "x-a: b\r\ncontent-length: 0\r\n\r\n");
    world_free(w);
}

/* --- the course of a connection
 * ------------------------------------------------------------------- */

static void test_pipelining(void) {
    current = "pipelining behind a busy exchange";
    world *w = world_new();
    w->script = &keeping;
    w->limits.limit_pipeline = 100;
    feeds(w, GET GET GET);
    CHECK(phase(w) == AS_H1_BUSY && w->env.requests_total == 1 && as_h1_wants_read(&w->h1));
    feeds(w, GET GET);
    CHECK(!as_h1_wants_read(&w->h1));
    for (int i = 0; i < 5; i++) {
        CHECK(w->ex != NULL && w->env.requests_total == (uint64_t)i + 1);
        nothing(w);
        release(w);
        resume(w);
    }
    CHECK(phase(w) == AS_H1_IDLE && as_h1_wants_read(&w->h1));
    CHECK(w->env.requests == 0 && w->h1.pending.len == 0);
    world_free(w);
}

/* Requests that follow one another at once: with the turn over, some, and then one for each call.
 */
static void test_turns(void) {
    current = "pipelined requests have a turn";
    world *w = world_new();
    uint64_t begun = 0;
    w->env.turn_end = 1; /* long ago */
    for (int i = 0; i < 10; i++) {
        feeds(w, GET GET GET GET);
        begun += w->h1.yielded ? 0 : 4;
    }
    CHECK(begun > 0 && begun < 40 && w->h1.yielded && phase(w) == AS_H1_BUSY);
    uint64_t before = w->env.requests_total;
    resume(w);
    resume(w);
    CHECK(w->env.requests_total == before + 2 && w->h1.yielded);
    w->env.turn_over = false; /* the next turn */
    w->env.turn_end = UINT64_MAX;
    as_h1_eof(&w->h1);
    CHECK(w->env.requests_total == 40 && !w->h1.yielded && phase(w) == AS_H1_CLOSING);
    world_free(w);

    current = "one request at a time waits for nobody";
    w = world_new();
    w->env.turn_end = 1;
    w->env.turn_over = true;
    feeds(w, GET);
    feeds(w, GET);
    CHECK(w->env.requests_total == 2 && !w->h1.yielded && phase(w) == AS_H1_IDLE);
    world_free(w);
}

static void test_endless_empty_lines(void) {
    current = "empty lines have the size of a head";
    world *w = world_new();
    w->limits.limit_request_head = 100;
    for (int i = 0; i < 50; i++) {
        feeds(w, "\r\n");
    }
    CHECK(phase(w) == AS_H1_IDLE && w->refused.n == 0);
    feeds(w, "\r\n");
    CHECK(phase(w) == AS_H1_CLOSING && strncmp(text_of(&w->out), "HTTP/1.1 400 ", 13) == 0);
    world_free(w);
}

/* A client that sends requests and reads no answers costs no more than a bound. */
static void big_answer(world *w, as_exchange *ex, as_slice data) {
    static const char big[50000];
    (void)w;
    (void)data;
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
    CHECK(as_exchange_body(ex, (as_bytes){big, sizeof(big), NULL, NULL, NULL}, false) == AS_OK);
    as_exchange_release(ex);
    w->ex = NULL;
}

static void test_unread_answers(void) {
    current = "answers that nobody reads";
    static const script bigs = {.on_request = big_answer};
    world *w = world_new();
    w->script = &bigs;
    w->stuck = true;
    for (int i = 0; i < 100; i++) {
        feeds(w, GET);
    }
    CHECK(w->h1.out.size < 200000);
    w->stuck = false;
    drain(w);
    for (int i = 0; i < 100; i++) {
        resume(w);
    }
    CHECK(w->env.requests_total == 100 && phase(w) == AS_H1_IDLE);
    world_free(w);
}

static void test_drain_level(void) {
    current = "on_drain";
    world *w = world_new();
    w->script = &keeping;
    w->limits.limit_write_buffer = 1000;
    feeds(w, GET);
    begin(w, 200);
    char data[1200];
    memset(data, 'x', sizeof(data));
    w->stuck = true;
    CHECK(as_exchange_body(w->ex, (as_bytes){data, sizeof(data), NULL, NULL, NULL}, true) == AS_OK);
    CHECK(as_exchange_pending(w->ex) > 1000);
    as_outq_taken(&w->h1.out, w->h1.out.size - 500);
    as_h1_resume(&w->h1);
    CHECK(strstr(text_of(&w->events), "drain") == NULL);
    as_outq_taken(&w->h1.out, w->h1.out.size - 200);
    as_h1_resume(&w->h1);
    CHECK(strstr(text_of(&w->events), "drain") != NULL);
    world_free(w);
}

static void pause_first(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    w->ex = ex;
    as_exchange_pause(ex);
}

static void pause_again(world *w, as_exchange *ex, as_slice data) {
    (void)w;
    (void)data;
    as_exchange_pause(ex);
}

static void test_body_flow(void) {
    current = "a paused body";
    static const script pausing = {pause_first, pause_again, NULL, NULL, NULL};
    world *w = world_new();
    w->script = &pausing;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n01");
    CHECK(phase(w) == AS_H1_BUSY && !as_h1_wants_read(&w->h1));
    feeds(w, "23");
    feeds(w, "456");
    same("events", &w->events, "request ");
    as_exchange_resume(w->ex);
    CHECK(w->notified > 0 && phase(w) == AS_H1_BODY);
    resume(w);
    same("events", &w->events, "request body ");
    as_exchange_resume(w->ex);
    feeds(w, "789" GET);
    as_exchange_resume(w->ex);
    resume(w);
    same("events", &w->events, "request body body end ");
    CHECK(strstr(text_of(&w->request), "0123456789") != NULL);
    CHECK(w->ex->received == 10 && phase(w) == AS_H1_BUSY && w->env.requests_total == 1);
    nothing(w);
    release(w);
    resume(w);
    CHECK(w->env.requests_total == 2);
    world_free(w);
}

static void test_continue(void) {
    current = "100-continue";
#define EXPECTING(length) "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: " length "\r\n\r\n"
    world *w = world_new();
    w->script = &keeping;
    feeds(w, EXPECTING("2"));
    CHECK(phase(w) == AS_H1_BUSY && w->ex->wants_continue);
    as_exchange_want_body(w->ex);
    as_exchange_want_body(w->ex);
    CHECK(phase(w) == AS_H1_BODY && w->notified > 0);
    drain(w);
    same("continue", &w->out, "HTTP/1.1 100 Continue\r\n\r\n");
    feeds(w, "hi");
    same("events", &w->events, "request body end ");
    nothing(w);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE);

    drain(w);
    text_clear(&w->out); /* the head is begun, but the body's bytes decide over it */
    feeds(w, EXPECTING("2"));
    begin(w, 200);
    as_exchange_want_body(w->ex);
    drain(w);
    same("before the held head", &w->out, "HTTP/1.1 100 Continue\r\n\r\n");
    feeds(w, "hi");
    body(w, "ok", false);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE);

    drain(w);
    text_clear(&w->out);
    feeds(w, EXPECTING("2")); /* never asked for: nobody knows whether it will be sent */
    nothing(w);
    release(w);
    drain(w);
    same("unasked", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
    world_free(w);

    w = world_new(); /* not even a body that would be skipped: it may not come */
    w->script = &keeping;
    w->limits.limit_body_discard = 100;
    feeds(w, "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    nothing(w);
    release(w);
    drain(w);
    same("small", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    CHECK(w->ex->wants_continue);
    feeds(w, "0\r\n\r\n"); /* a body without a byte was sent, too */
    CHECK(!w->ex->wants_continue);
    nothing(w);
    release(w);
    drain(w);
    same("empty", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    CHECK(phase(w) == AS_H1_IDLE);
    world_free(w);
}

static void test_refused_head(void) {
    current = "HEAD in a request line that is refused";
    for (cut how = CUT_WHOLE; how <= CUT_BYTES; how++) {
        world *w = world_new();
        static const char raw[] = "HEAD /\x02 HTTP/1.1\r\n" H "\r\n";
        feed_cut(w, raw, sizeof(raw) - 1, how, 0);
        drain(w);
        const char *end = strstr(text_of(&w->out), "\r\n\r\n");
        CHECK(strncmp(text_of(&w->out), "HTTP/1.1 400 ", 13) == 0 && end != NULL && end[4] == '\0');
        world_free(w);
    }
}

static void test_unread_body(void) {
    current = "a body that the application does not read";
    static const char post[] = "POST / HTTP/1.1\r\n" H "Content-Length: 31\r\n\r\n";
    static const char last[] = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    world *w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 31;
    feeds(w, post);
    nothing(w);
    release(w);
    CHECK(phase(w) == AS_H1_BODY);
    feeds(w, "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n\n" + 0);
    CHECK(w->env.requests_total == 1);
    world_free(w);

    static const char *const early[] = {post, CHUNKED "5\r\nhello\r\n"};
    for (size_t i = 0; i < 2; i++) {
        w = world_new();
        w->script = &keeping;
        feeds(w, early[i]);
        nothing(w);
        release(w);
        drain(w);
        same("early", &w->out, last);
        CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
        feeds(w, GET);
        CHECK(w->env.requests_total == 1);
        world_free(w);
    }

    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 31;
    feeds(w, post);
    nothing(w);
    release(w);
    feeds(w, "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(phase(w) == AS_H1_IDLE && w->env.requests_total == 1);
    feeds(w, GET);
    CHECK(w->env.requests_total == 2);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 30;
    feeds(w, post);
    nothing(w);
    release(w);
    drain(w);
    same("too much", &w->out, last);
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
    world_free(w);

    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 30;
    feeds(w, CHUNKED "5\r\nhello\r\n");
    nothing(w);
    release(w);
    feeds(w, "5\r\nhello\r\n");
    CHECK(phase(w) == AS_H1_BODY);
    feeds(w, "5\r\nhello\r\n50\r\n01234567890123456789012345678901234567890123456789");
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
    world_free(w);
}

/* The answer says that it is the last one. */
static void answer_last(world *w) {
    nothing(w);
    release(w);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);
}

/* What makes a response the last one, and what does not; all say so in the head. */
static void test_last_responses(void) {
    current = "the gateway wants no further request";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    w->ex->close = true;
    answer_last(w);

    current = "no time for a further request";
    w = world_new();
    w->script = &keeping;
    w->limits.timeout_keep_alive = 0;
    feeds(w, GET);
    answer_last(w);

    current = "a response that begins before its request's body has come";
    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 30;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 31\r\n\r\n");
    CHECK(as_exchange_head_begin(w->ex, 200, AS_SLICE("")) == AS_OK);
    CHECK(as_exchange_body(w->ex, (as_bytes){.p = "part", .n = 4}, true) == AS_OK);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n");
    feeds(w, "0123456789012345678901234567890");
    CHECK(as_exchange_body(w->ex, (as_bytes){.p = ""}, false) == AS_OK);
    release(w);
    drain(w);
    CHECK(phase(w) == AS_H1_IDLE);
    world_free(w);
}

/* Only who said that nothing follows, and held to it, is not waited for behind the last answer. */
static void test_who_lingers(void) {
    static const struct {
        const char *request, *later; /* later: while the application works */
        void (*answer)(world *w);
        bool tls, lingers;
    } rows[] = {
        {GET_CLOSE, "", nothing, false, false},
        {GET_CLOSE, "", streamed, false, false},
        {GET_10, "", nothing, false, true},   /* it said nothing */
        {GET_CLOSE, "", nothing, true, true}, /* TLS sends more than requests */
        {GET_CLOSE GET, "", nothing, false, true},
        {GET_CLOSE, GET, nothing, false, true},
        {GET_10 "\r\n", "", nothing, false, true},
        {GET, "", closing, false, true}, /* the client knows nothing of it yet */
        {GET_10_KEEP, "", closing, false, true},
        {"POST / HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 2\r\n\r\nhi", "", nothing,
         false, true},
        {"GET / HTTP/1.1\r\n" H "Connection: close, upgrade\r\nUpgrade: t\r\n\r\n", "", nothing,
         false, true},
        {"GET / HTTP/1.1\r\n" H "Upgrade: websocket\r\n\r\n", "", nothing, false, true},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        current = rows[i].request;
        world *w = world_new();
        w->script = &keeping;
        w->info.is_tls = rows[i].tls;
        feeds(w, rows[i].request);
        feeds(w, rows[i].later);
        rows[i].answer(w);
        release(w);
        CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1) == rows[i].lingers);
        world_free(w);
    }
}

static void test_abort(void) {
    current = "abort";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    begin(w, 200);
    body(w, "x", true);
    as_exchange_abort(w->ex);
    CHECK(phase(w) == AS_H1_DEAD && w->notified > 0 && w->ex->aborted && w->aborted == 0);
    CHECK(as_exchange_body(w->ex, bytes_of("x"), false) == AS_E_CLOSED);
    CHECK(as_exchange_flush(w->ex) == AS_E_CLOSED);
    release(w);
    CHECK(w->env.requests == 0);
    world_free(w);

    current = "released without an answer";
    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    release(w);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests == 0);
    world_free(w);

    current = "the connection goes";
    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    begin(w, 200);
    world_reconnect(w);
    CHECK(w->aborted == 1 && w->abort_why == AS_E_CLOSED && w->ex == NULL && w->env.requests == 0);
    world_free(w);

    current = "the connection goes, a background task stays";
    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    nothing(w);
    as_exchange *ex = w->ex;
    world_reconnect(w);
    CHECK(ex->proto == NULL && ex->head != NULL && ex->head->nfields == 1 && w->aborted == 0);
    CHECK(ex->info == NULL || ex->info != &w->info);
    release(w);
    world_free(w);
}

/* Ways for an application to leave while the connection is inside of a handler. */
static void abort_within(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    w->ex = ex;
    as_exchange_abort(ex);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_CLOSED);
}
static void release_within(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    as_exchange_release(ex);
    w->ex = NULL;
}
static void answer_in_body(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    answer(ex);
    w->ex = NULL;
}

static void test_within_handlers(void) {
    current = "leaving within a handler";
    static const script aborting = {.on_request = abort_within};
    static const script releasing = {.on_request = release_within};
    static const script early = {.on_body = answer_in_body};
    static const script abort_later = {.on_body = abort_within};
    world *w = world_new();
    w->script = &aborting;
    feeds(w, GET GET);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests_total == 1 && w->ex->head->nfields == 1);
    world_free(w);
    w = world_new();
    w->script = &releasing;
    feeds(w, GET GET);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests_total == 1 && w->env.requests == 0);
    world_free(w);
    w = world_new();
    w->script = &abort_later;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\n");
    feeds(w, "abc" GET);
    same("events", &w->events, "request body ");
    CHECK(phase(w) == AS_H1_DEAD);
    world_free(w);
    w = world_new(); /* the answer comes before the end of the body */
    w->script = &early;
    w->limits.limit_body_discard = 3;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\n");
    feeds(w, "abc");
    CHECK(phase(w) == AS_H1_BODY);
    feeds(w, "def");
    same("events", &w->events, "request body ");
    CHECK(phase(w) == AS_H1_IDLE);
    world_free(w);
}

/* --- behind a proxy ------------------------------------------------------------------------- */

static void describe_info(const as_exchange *ex, text *out) {
    const as_head *head = ex->head;
    const as_conn_info *info = ex->info;
    as_slice host = as_head_slice(head, head->host), prefix = as_head_slice(head, head->prefix);
    text_addf(out, "%s%s %s %u %s %u [%.*s] [%.*s]", info->via != NULL ? "via " : "",
              info->is_unix ? "unix" : "inet", info->client, info->client_port,
              info->is_tls ? "https" : "http", info->server_port, (int)host.n, host.p,
              (int)prefix.n, prefix.p);
}

#define NOTHING_TOLD "unix  0 http 8000 [] []"

static const struct {
    const char *fields, *told;
} forwarded_rows[] = {
    {"X: y\r\n", NOTHING_TOLD},
    {"X-Forwarded-For: 198.51.100.7:99\r\n", "via inet 198.51.100.7 99 http 8000 [] []"},
    {"X-Forwarded-For: 2001:db8::1\r\n", "via inet 2001:db8::1 0 http 8000 [] []"},
    {"X-Forwarded-For: evil\r\n", NOTHING_TOLD},
    {"X-Forwarded-Proto: https\r\n", "via unix  0 https 8000 [] []"},
    {"X-Forwarded-Proto: http\r\n", "via unix  0 http 8000 [] []"},
    {"X-Forwarded-Host: b\r\n", "via unix  0 http 80 [b] []"},
    {"X-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\n", "via unix  0 https 443 [b] []"},
    {"X-Forwarded-Host: b:81\r\n", "via unix  0 http 81 [b] []"},
    {"X-Forwarded-Port: 82\r\n", "via unix  0 http 82 [] []"},
    {"X-Forwarded-Prefix: /p\r\n", "via unix  0 http 8000 [] [/p]"},
    {"Forwarded: for=198.51.100.7;proto=https\r\n", "via inet 198.51.100.7 0 https 8000 [] []"},
};

static void check_forwarded(const as_forwarding *forwarding, bool trusted, const char *fields,
                            const char *told) {
    current = fields;
    text got = {NULL, 0};
    world *w = world_new();
    w->script = &keeping;
    w->env.forwarding = forwarding;
    w->info = (as_conn_info){
        .server = "/run/x", .server_port = 8000, .is_unix = true, .trusted = trusted};
    feeds(w, "GET / HTTP/1.1\r\n" H);
    feeds(w, fields);
    feeds(w, "\r\n");
    if (w->ex != NULL) {
        describe_info(w->ex, &got);
        nothing(w);
        release(w);
    } else {
        statuses(&w->out, &got);
    }
    same("told", &got, told);
    text_clear(&got);
    world_free(w);
}

static void test_forwarding(void) {
    static const as_scheme_field ssl = {{"X-FORWARDED-SSL", 15}, {"on", 2}};
    as_forwarding forwarding = {.fields = true};
    for (size_t i = 0; i < ROWS(forwarded_rows); i++) {
        check_forwarded(&forwarding, true, forwarded_rows[i].fields, forwarded_rows[i].told);
        check_forwarded(&forwarding, false, forwarded_rows[i].fields, NOTHING_TOLD);
        check_forwarded(NULL, true, forwarded_rows[i].fields, NOTHING_TOLD);
    }
    forwarding.schemes = &ssl;
    forwarding.nschemes = 1;
    check_forwarded(&forwarding, true, "X-Forwarded-Ssl: on\r\n", "via unix  0 https 8000 [] []");
    check_forwarded(&forwarding, true, "X-Forwarded-Ssl: on\r\nX-Forwarded-Ssl: off\r\n", "400 ");
}

/* RFC 9110, 7.8: both fields ask for it. */
static void test_asking_for_an_upgrade(void) {
    static const struct {
        const char *fields;
        bool asks;
    } rows[] = {{"Connection: x, Upgrade\r\nUpgrade: x\r\n", true},
                {"Connection: upgrade\r\n", false},
                {"Upgrade: x\r\n", false}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        current = rows[i].fields;
        world *w = world_new();
        w->script = &keeping;
        feeds(w, "GET / HTTP/1.1\r\n" H);
        feeds(w, rows[i].fields);
        feeds(w, "\r\n");
        CHECK(w->ex->head->upgrade == rows[i].asks);
        nothing(w);
        release(w);
        world_free(w);
    }
}

static void test_broken_body(void) {
    current = "a body that breaks";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    feeds(w, "nonsense");
    check_closing(w, "400 ");
    CHECK(w->aborted == 1 && w->abort_why == AS_E_CHUNK && w->ex == NULL);
    world_free(w);

    w = world_new(); /* the head of an answer is begun: it is taken back */
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    begin(w, 200);
    feeds(w, "nonsense");
    check_closing(w, "400 ");
    world_free(w);

    w = world_new(); /* half an answer is out: only a cut tells the client */
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    begin(w, 200);
    body(w, "x", true);
    feeds(w, "nonsense");
    CHECK(phase(w) == AS_H1_DEAD && w->aborted == 1);
    world_free(w);

    w = world_new(); /* the answer is complete: there is none to the rest */
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    nothing(w);
    release(w);
    feeds(w, "nonsense");
    check_closing(w, "200 ");
    world_free(w);
}

static void test_eof(void) {
    current = "end of file";
    world *w = world_new();
    as_h1_eof(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING && w->refused.n == 0); /* a probe */
    world_free(w);

    w = world_new();
    feeds(w, "\r\n");
    as_h1_eof(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING && w->refused.n == 0);
    world_free(w);

    w = world_new();
    feeds(w, GET "GET / HT");
    CHECK(phase(w) == AS_H1_HEAD);
    as_h1_eof(&w->h1);
    drain(w);
    check_closing(w, "200 400 ");
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\nabc");
    as_h1_eof(&w->h1);
    drain(w);
    check_closing(w, "400 ");
    CHECK(w->aborted == 1 && w->abort_why == AS_E_TRUNCATED);
    world_free(w);

    w = world_new(); /* a half-closed client waits for its answers */
    w->script = &keeping;
    feeds(w, GET GET);
    as_h1_eof(&w->h1);
    CHECK(phase(w) == AS_H1_BUSY && !as_h1_wants_read(&w->h1));
    same("events", &w->events, "request eof ");
    nothing(w);
    release(w);
    resume(w);
    same("events", &w->events, "request eof request eof ");
    nothing(w);
    release(w);
    resume(w);
    CHECK(phase(w) == AS_H1_CLOSING && w->aborted == 0);
    world_free(w);
}

static void test_timeouts(void) {
    current = "timeouts";
    world *w = world_new();
    as_h1_timeout(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING && w->h1.out.size == 0 && w->refused.n == 0);
    world_free(w);

    w = world_new();
    feeds(w, "GET / HTTP/1.1\r\nHo");
    as_h1_timeout(&w->h1);
    drain(w);
    check_closing(w, "408 ");
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\nabc");
    CHECK(phase(w) == AS_H1_BODY);
    as_h1_timeout(&w->h1);
    drain(w);
    check_closing(w, "408 ");
    CHECK(w->aborted == 1 && w->abort_why == AS_E_TIMEOUT_BODY);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    as_h1_timeout(&w->h1); /* nothing is expected of the client */
    CHECK(phase(w) == AS_H1_BUSY);
    world_free(w);
}

static void test_draining(void) {
    current = "draining";
    world *w = world_new();
    feeds(w, GET);
    w->env.draining = true;
    as_h1_drain(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, GET GET);
    w->env.draining = true;
    as_h1_drain(&w->h1);
    CHECK(phase(w) == AS_H1_BUSY);
    nothing(w);
    release(w);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING && w->env.requests_total == 1);
    world_free(w);

    w = world_new(); /* the head is out already */
    w->script = &keeping;
    feeds(w, GET);
    begin(w, 200);
    body(w, "x", true);
    w->env.draining = true;
    as_h1_drain(&w->h1);
    CHECK(phase(w) == AS_H1_BUSY);
    body(w, "x", false);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE); /* it did not say that it is the last */
    feeds(w, GET);
    nothing(w);
    release(w);
    drain(w);
    CHECK(strstr(text_of(&w->out), "content-length: 0\r\nconnection: close\r\n\r\n") != NULL);
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);
}

/* Bodies by reference: held once, dropped once. */
static int held;

static void hold_owner(void *owner) {
    (void)owner;
    held++;
}

static void drop_owner(void *owner) {
    (void)owner;
    held--;
}

/* --- tunnels -------------------------------------------------------------------------------- */

#define UPGRADE "GET /t HTTP/1.1\r\n" H "Connection: upgrade\r\nUpgrade: t\r\n\r\n"
#define UPGRADED "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nUpgrade: t\r\n\r\n"

static const as_slice upgrade_pairs[] = {{"Upgrade", 7}, {" t ", 3}};

static void upgrade(world *w, as_exchange *ex) {
    CHECK(as_exchange_upgrade(ex, upgrade_pairs, 2) == AS_OK);
}

static void upgrade_at_once(world *w, as_exchange *ex, as_slice body) {
    CHECK(body.n == 0);
    w->ex = ex;
    upgrade(w, ex);
    CHECK(strcmp(text_of(&w->events), "request ") == 0); /* nothing comes from inside of the call */
    CHECK(as_exchange_body(ex, bytes_of("<"), true) == AS_OK);
}

static void echo(world *w, as_exchange *ex, as_slice data) {
    (void)w;
    CHECK(as_exchange_body(ex, (as_bytes){data.p, data.n, NULL, NULL, NULL}, true) == AS_OK);
    if (data.n > 0 && data.p[data.n - 1] == '.') {
        CHECK(as_exchange_end(ex) == AS_OK);
    }
}

static void end_tunnel(world *w, as_exchange *ex) {
    (void)w;
    if (ex->req == AS_REQ_DONE) { /* else it is the server who ends */
        CHECK(as_exchange_end(ex) == AS_OK);
    }
}

static const script tunneling = {
    .on_request = upgrade_at_once, .on_body = echo, .on_eof = end_tunnel};
static const script tunneling_late = {.on_request = keep, .on_body = echo, .on_eof = end_tunnel};

static void echo_two(world *w, as_exchange *ex, as_slice data) {
    size_t n = data.n < 2 ? data.n : 2;
    echo(w, ex, (as_slice){data.p, n});
    as_exchange_pause(ex);
    ex->untaken = data.n - n;
}

static const script tunneling_by_two = {.on_body = echo_two, .on_eof = end_tunnel};

/* A world whose exchange is a tunnel, with nothing sent yet. */
static world *tunnel_new(void) {
    world *w = world_new();
    w->script = &tunneling_late;
    feeds(w, UPGRADE);
    upgrade(w, w->ex);
    drain(w);
    same("out", &w->out, UPGRADED);
    text_clear(&w->out);
    text_clear(&w->events);
    return w;
}

static void test_tunnel_bytes(void) {
    current = "bytes behind the handshake belong to the tunnel";
    world *w = world_new();
    w->script = &tunneling;
    feeds(w, UPGRADE "GET / HTTP/1.1\r\n\r\n");
    CHECK(phase(w) == AS_H1_TUNNEL && as_h1_wants_read(&w->h1));
    CHECK(w->ex->req == AS_REQ_BODY && w->ex->received == 18 && w->ex->status == 101);
    feed(w, "\0\r\n", 3);
    same("events", &w->events, "request body body ");
    CHECK(w->out.n == strlen(UPGRADED "<GET / HTTP/1.1\r\n\r\n") + 3);
    CHECK(w->env.requests == 1 && w->ex->sent == 22);
    as_h1_eof(&w->h1);
    drain(w);
    same("events", &w->events, "request body body eof ");
    CHECK(phase(w) == AS_H1_CLOSING && w->env.requests == 0 && w->aborted == 0);
    world_free(w);

    current = "byte by byte, and upgraded late";
    w = world_new();
    w->script = &tunneling_late;
    for (const char *p = UPGRADE "abc"; *p != '\0'; p++) {
        feed(w, p, 1);
    }
    same("events", &w->events, "request ");
    CHECK(phase(w) == AS_H1_BUSY);
    upgrade(w, w->ex);
    same("events", &w->events, "request ");
    CHECK(w->notified == 1);
    resume(w);
    same("out", &w->out, UPGRADED "abc");
    feeds(w, "d.");
    same("out", &w->out, UPGRADED "abcd.");
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1) && w->ex->res == AS_RES_DONE);
    feeds(w, GET); /* dropped */
    same("events", &w->events, "request body body ");
    CHECK(as_exchange_body(w->ex, no_bytes, true) == AS_E_RESPONSE_STATE);
    release(w);
    world_free(w);
}

static void test_tunnel_flow(void) {
    current = "pause and resume";
    world *w = tunnel_new();
    as_exchange_pause(w->ex);
    CHECK(!as_h1_wants_read(&w->h1));
    feeds(w, "abc");
    as_h1_eof(&w->h1);
    same("events", &w->events, "");
    as_exchange_resume(w->ex);
    same("events", &w->events, "");
    resume(w);
    same("events", &w->events, "body eof ");
    same("out", &w->out, "abc");
    as_h1_eof(&w->h1);
    as_h1_resume(&w->h1);
    same("events", &w->events, "body eof ");
    world_free(w);

    current = "what a handler leaves comes again";
    w = tunnel_new();
    w->script = &tunneling_by_two;
    feeds(w, "abcde");
    same("out", &w->out, "ab");
    CHECK(w->ex->received == 2 && !as_h1_wants_read(&w->h1));
    as_h1_eof(&w->h1);
    same("events", &w->events, "body ");
    for (int i = 0; i < 2; i++) {
        as_exchange_resume(w->ex);
        resume(w);
    }
    same("events", &w->events, "body body body eof ");
    same("out", &w->out, "abcde");
    world_free(w);

    current = "bytes leave when they are told to";
    w = tunnel_new();
    w->notified = 0;
    CHECK(as_exchange_body(w->ex, bytes_of("a"), true) == AS_OK);
    CHECK(w->notified == 0 && as_exchange_pending(w->ex) == 1);
    as_exchange_flush_soon(w->ex);
    CHECK(w->notified == 0 && w->soon == 1);
    CHECK(as_exchange_flush(w->ex) == AS_OK && w->notified == 1);
    CHECK(as_exchange_body(w->ex, bytes_of("b"), false) == AS_OK && w->notified == 2);
    CHECK(as_exchange_flush(w->ex) == AS_E_RESPONSE_STATE);
    drain(w);
    same("out", &w->out, "ab");
    world_free(w);

    current = "on_drain in a tunnel";
    w = tunnel_new();
    w->stuck = true;
    for (int i = 0; i < 3; i++) {
        char chunk[40000];
        memset(chunk, 'x', sizeof(chunk));
        CHECK(as_exchange_body(w->ex, (as_bytes){chunk, sizeof(chunk), NULL, NULL, NULL}, true) ==
              AS_OK);
    }
    CHECK(as_exchange_pending(w->ex) == 120000);
    resume(w);
    same("events", &w->events, "");
    w->stuck = false;
    drain(w);
    resume(w);
    same("events", &w->events, "drain ");
    world_free(w);
}

static void test_tunnel_calls(void) {
    current = "what is no call for a tunnel";
    world *w = tunnel_new();
    as_exchange *ex = w->ex;
    CHECK(as_exchange_upgrade(ex, upgrade_pairs, 2) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_refuse(ex, AS_E_WS_METHOD) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_interim(ex, 103, NULL, 0) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_trailer(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_file(ex, dup(0), 0, 1, true) == AS_E_RESPONSE_STATE);
    as_exchange_head_abandon(ex);
    as_exchange_want_body(ex);
    CHECK(w->h1.out.size == 0);
    as_exchange_set_alarm(ex, 5);
    CHECK(w->alarm == 5);
    as_h1_timeout(&w->h1); /* no phase of a tunnel's */
    as_h1_alarm(&w->h1);
    as_h1_disconnect(&w->h1);
    same("events", &w->events, "alarm eof ");
    as_exchange_abort(ex);
    CHECK(phase(w) == AS_H1_DEAD && w->aborted == 0);
    CHECK(as_exchange_body(ex, no_bytes, true) == AS_E_CLOSED);
    CHECK(as_exchange_flush(ex) == AS_E_CLOSED);
    as_exchange_set_alarm(ex, 7);
    as_exchange_flush_soon(ex);
    CHECK(w->alarm == 5 && w->soon == 0);
    release(w);
    world_free(w);

    current = "the end of the server has a handler of its own";
    w = tunnel_new();
    w->handlers.on_shutdown = on_shutdown;
    as_h1_disconnect(&w->h1);
    as_h1_eof(&w->h1);
    drain(w);
    same("events", &w->events, "shutdown eof ");
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);

    current = "a tunnel that is let go, or whose connection breaks";
    w = tunnel_new();
    release(w);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests == 0);
    world_free(w);
    w = tunnel_new();
    world_reconnect(w);
    CHECK(w->aborted == 1 && w->ex == NULL);
    world_free(w);
}

/* Nothing is written, and an ordinary answer can be given. */
static void check_no_upgrade(const char *name, const char *request, const as_slice *pairs,
                             as_err why) {
    current = name;
    world *w = world_new();
    w->script = &keeping;
    feeds(w, request);
    CHECK(as_exchange_upgrade(w->ex, pairs, 2) == why);
    CHECK(w->h1.out.size == 0 && w->ex->res == AS_RES_START && w->ex->status == 0);
    nothing(w);
    release(w);
    world_free(w);
}

static void test_no_tunnel(void) {
    static const as_slice bad_name[] = {{"a b", 3}, {"x", 1}},
                          bad_value[] = {{"a", 1}, {"x\ny", 3}};
    check_no_upgrade("a name that is none", UPGRADE, bad_name, AS_E_RESPONSE_NAME);
    check_no_upgrade("a value with a line end", UPGRADE, bad_value, AS_E_RESPONSE_VALUE);
    check_no_upgrade("HTTP/1.0", GET_10, upgrade_pairs, AS_E_RESPONSE_STATE);
    check_no_upgrade("a body that has not come",
                     "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nab", upgrade_pairs,
                     AS_E_RESPONSE_STATE);

    current = "refused by the gateway";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    CHECK(as_exchange_refuse(w->ex, AS_E_WS_VERSION) == AS_OK && w->ex->status == 426);
    as_exchange_set_alarm(w->ex, 1);
    release(w);
    drain(w);
    same("out", &w->out,
         "HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain; charset=utf-8\r\n"
         "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
         "content-length: 35\r\nconnection: close\r\n\r\n"
         "version of WebSocket not supported\n");
    CHECK(phase(w) == AS_H1_CLOSING && w->refused.n == 0 && w->alarm == 0);
    world_free(w);
}

static void test_references(void) {
    current = "bodies by reference";
    static const char big[100000];
    world *w = world_new();
    w->script = &keeping;
    as_bytes data = {big, sizeof(big), NULL, hold_owner, drop_owner};
    for (int i = 0; i < 3; i++) {
        w->stuck = i == 2;
        feeds(w, GET);
        begin(w, 200);
        CHECK(as_exchange_body(w->ex, data, true) == AS_OK);
        CHECK(as_exchange_body(w->ex, data, false) == AS_OK);
        CHECK(held == 2);
        release(w);
        drain(w);
        CHECK(held == (i == 2 ? 2 : 0));
    }
    world_free(w);
    CHECK(held == 0);
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
    test_tables_again();
    test_one_byte_differs();
    test_which_heads_are_kept();
    test_many_heads();
    test_kept_heads_refused();
    test_kept_heads_and_proxies();
    test_kept_heads_that_are_held();
    test_answers();
    test_wrong_calls();
    test_defaults();
    test_pipelining();
    test_turns();
    test_endless_empty_lines();
    test_unread_answers();
    test_drain_level();
    test_body_flow();
    test_continue();
    test_refused_head();
    test_unread_body();
    test_last_responses();
    test_who_lingers();
    test_abort();
    test_within_handlers();
    test_forwarding();
    test_asking_for_an_upgrade();
    test_broken_body();
    test_eof();
    test_timeouts();
    test_draining();
    test_tunnel_bytes();
    test_tunnel_flow();
    test_tunnel_calls();
    test_no_tunnel();
    test_references();
    test_random_cuts();
    test_random_gateway();
    return failures == 0 ? 0 : 1;
}

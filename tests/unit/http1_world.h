/* A connection of HTTP/1 without I/O, its gateway, and what is to be seen of both: for the tests of
 * csrc/http that feed it bytes (test_http1*.c). */
#ifndef AS_TESTS_HTTP1_WORLD_H
#define AS_TESTS_HTTP1_WORLD_H

#undef NDEBUG
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

#define H "Host: a\r\n"
#define GOOD "GET /ok HTTP/1.1\r\nHost: ok\r\n\r\n"
#define GET "GET / HTTP/1.1\r\n" H "\r\n"
#define GET_CLOSE "GET / HTTP/1.1\r\n" H "Connection: close\r\n\r\n"
#define GET_10 "GET / HTTP/1.0\r\n\r\n"
#define GET_10_KEEP "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
#define HEAD "HEAD / HTTP/1.1\r\n" H "\r\n"
#define CHUNKED "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"
#define ROWS(table) (sizeof(table) / sizeof((table)[0]))

/* --- a text that grows ---------------------------------------------------------------------- */

typedef struct text {
    char *p;
    size_t n;
} text;

static inline void text_add(text *t, const char *p, size_t n) {
    char *bytes = realloc(t->p, t->n + n + 1);
    assert(bytes != NULL);
    t->p = bytes;
    if (n > 0) {
        memcpy(t->p + t->n, p, n);
    }
    t->n += n;
    t->p[t->n] = '\0';
}

static inline void text_addf(text *t, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static inline void text_addf(text *t, const char *format, ...) {
    char line[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    assert(n >= 0 && (size_t)n < sizeof(line));
    text_add(t, line, (size_t)n);
}

static inline void text_clear(text *t) {
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

static inline as_bytes bytes_of(const char *p) {
    return (as_bytes){p, strlen(p), NULL, NULL, NULL};
}

/* Takes everything, in pieces. */
static inline void drain(world *w) {
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

static inline void answer(as_exchange *ex) {
    assert(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
    assert(as_exchange_body(ex, bytes_of("ok"), false) == AS_OK);
    as_exchange_release(ex);
}

static inline void describe(world *w, const as_exchange *ex) {
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

static inline void request_complete(world *w) {
    text_add(&w->all, text_of(&w->request), w->request.n);
    text_addf(&w->all, "\n");
}

static inline void answer_if_complete(world *w, as_exchange *ex) {
    if (ex->req == AS_REQ_DONE) {
        request_complete(w);
        answer(ex);
        w->ex = NULL;
    }
}

static inline void on_request(void *ctx, as_exchange *ex, as_slice body) {
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

static inline void on_body(void *ctx, as_exchange *ex, as_slice data) {
    world *w = ctx;
    assert(data.n > 0 && !ex->paused && ex->req == AS_REQ_BODY);
    text_addf(&w->events, "body ");
    text_add(&w->request, data.p, data.n);
    if (w->script != NULL && w->script->on_body != NULL) {
        w->script->on_body(w, ex, data);
    }
}

static inline void on_end(void *ctx, as_exchange *ex) {
    world *w = ctx;
    assert(ex->req == AS_REQ_DONE);
    text_addf(&w->events, "end ");
    if (w->script != NULL && w->script->on_end != NULL) {
        w->script->on_end(w, ex);
    } else if (w->script == NULL) {
        answer_if_complete(w, ex);
    }
}

static inline void on_eof(void *ctx, as_exchange *ex) {
    world *w = ctx;
    assert(!ex->aborted);
    text_addf(&w->events, "eof ");
    if (w->script != NULL && w->script->on_eof != NULL) {
        w->script->on_eof(w, ex);
    }
}

static inline void on_shutdown(void *ctx, as_exchange *ex) {
    assert(!ex->aborted);
    text_addf(&((world *)ctx)->events, "shutdown ");
}

static inline void on_alarm(void *ctx, as_exchange *ex) {
    assert(!ex->aborted);
    text_addf(&((world *)ctx)->events, "alarm ");
}

static inline void on_abort(void *ctx, as_exchange *ex, as_err why) {
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

static inline void on_drain(void *ctx, as_exchange *ex) {
    world *w = ctx;
    text_addf(&w->events, "drain ");
    if (w->script != NULL && w->script->on_drain != NULL) {
        w->script->on_drain(w, ex);
    }
}

static inline void on_close(void *ctx, as_conn_info *info) {
    (void)ctx;
    (void)info;
}

static inline void on_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                              uint64_t offset) {
    world *w = ctx;
    (void)info;
    text_addf(&w->refused, "%s (%.*s) at %llu;", as_err_text(why),
              detail.n < 100 ? (int)detail.n : 100, detail.p, (unsigned long long)offset);
}

static inline void notify(as_h1 *h1) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    assert(!h1->feeding);
    w->notified++;
}

static inline as_err flush(as_h1 *h1) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    w->flushed++;
    drain(w);
    return AS_OK;
}

static inline void flush_soon(as_h1 *h1) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    assert(!h1->feeding);
    w->soon++;
}

static inline void set_alarm(as_h1 *h1, uint32_t ms) {
    world *w = (world *)((char *)h1 - offsetof(world, h1));
    w->alarm = ms;
}

static inline world *world_new(void) {
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

static inline void world_free(world *w) {
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
static inline void world_reconnect(world *w) {
    as_h1_fini(&w->h1, AS_E_CLOSED);
    as_h1_init(&w->h1, &w->env, &w->info);
}

/* One read, in memory of just its size, and what the connection does behind it. */
static inline void feed(world *w, const char *p, size_t n) {
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

static inline void feeds(world *w, const char *raw) {
    feed(w, raw, strlen(raw));
}

static inline void resume(world *w) {
    as_h1_resume(&w->h1);
    drain(w);
}

static inline as_h1_phase phase(const world *w) {
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

static inline void fail_text(const char *what, const char *got, const char *expected) {
    fprintf(stderr, "%s: %s\n--- got\n%s\n--- expected\n%s\n---\n", case_name(), what, got,
            expected);
    failures++;
}

static inline void same(const char *what, const text *got, const char *expected) {
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
static inline void statuses(const text *out, text *list) {
    const char *at = text_of(out);
    while ((at = strstr(at, "HTTP/1.1 ")) != NULL) {
        at += 9;
        if (memcmp(at, "100", 3) != 0) {
            text_add(list, at, 3);
            text_add(list, " ", 1);
        }
    }
}

static inline void check_closing(world *w, const char *statuses_expected) {
    text list = {NULL, 0};
    statuses(&w->out, &list);
    same("statuses", &list, statuses_expected);
    text_clear(&list);
    CHECK(phase(w) == AS_H1_CLOSING || phase(w) == AS_H1_DEAD);
}

/* --- what is fed ---------------------------------------------------------------------------- */

/* How a case's bytes are cut; the seed also chooses. */
typedef enum cut { CUT_WHOLE, CUT_BYTES, CUT_RANDOM } cut;

static inline unsigned random_below(unsigned *seed, unsigned n) {
    *seed = *seed * 1103515245u + 12345u;
    return (*seed >> 16) % n;
}

static inline void feed_cut(world *w, const char *raw, size_t n, cut how, unsigned seed) {
    for (size_t at = 0, step; at < n; at += step) {
        step = how == CUT_WHOLE ? n : how == CUT_BYTES ? 1 : 1 + random_below(&seed, 40);
        if (step > n - at) {
            step = n - at;
        }
        feed(w, raw + at, step);
    }
}

/* --- what a gateway does -------------------------------------------------------------------- */

/* Answers to a request; `w->ex` stays until it is released. */
static inline void keep(world *w, as_exchange *ex, as_slice body) {
    (void)body;
    w->ex = ex;
}

static const script keeping = {.on_request = keep};

static inline void release(world *w) {
    as_exchange_release(w->ex);
    w->ex = NULL;
}

static inline void begin(world *w, unsigned status) {
    CHECK(as_exchange_head_begin(w->ex, status, AS_SLICE("")) == AS_OK);
}

static inline void field(world *w, const char *name, const char *value) {
    CHECK(as_exchange_head_field(w->ex, (as_slice){name, strlen(name)},
                                 (as_slice){value, strlen(value)}) == AS_OK);
}

static inline void body(world *w, const char *data, bool more) {
    CHECK(as_exchange_body(w->ex, bytes_of(data), more) == AS_OK);
}

static inline void nothing(world *w) {
    begin(w, 200);
    body(w, "", false);
}

#endif

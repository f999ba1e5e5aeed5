#include "connection.h"

#include <unistd.h>

static connection *connection_of(as_h1 *h1) {
    return (connection *)(void *)((char *)h1 - offsetof(connection, h1));
}

/* --- what leaves ---------------------------------------------------------------------------- */

static size_t take_file(connection *c, const as_out *out) {
    char piece[1000];
    size_t most = out->n < sizeof(piece) ? (size_t)out->n : sizeof(piece);
    ssize_t n = pread(out->fd, piece, most, out->off);
    MUST(n > 0);
    put(&c->out, piece, (size_t)n);
    return (size_t)n;
}

static void drain(connection *c) {
    as_out out;
    while (!c->reader_stalls && as_outq_peek(&c->h1.out, &out)) {
        size_t taken = 0;
        if (out.nvec == 0) {
            taken = take_file(c, &out);
        }
        for (int i = 0; i < out.nvec; i++) {
            put(&c->out, out.vec[i].iov_base, out.vec[i].iov_len);
            taken += out.vec[i].iov_len;
        }
        as_outq_taken(&c->h1.out, taken);
    }
    MUST(c->reader_stalls || c->h1.out.size == 0);
}

/* --- what the protocol asks its loop for ----------------------------------------------------- */

static void notify(as_h1 *h1) {
    MUST(!h1->feeding);
    connection_of(h1)->notified++;
}

static as_err flush(as_h1 *h1) {
    drain(connection_of(h1));
    return AS_OK;
}

static void flush_soon(as_h1 *h1) {
    MUST(!h1->feeding);
}

static void set_alarm(as_h1 *h1, uint32_t ms) {
    (void)h1;
    (void)ms;
}

/* --- handlers that do nothing --------------------------------------------------------------- */

static void ignore(void *ctx, as_exchange *ex) {
    (void)ctx;
    (void)ex;
}

static void ignore_body(void *ctx, as_exchange *ex, as_slice data) {
    (void)ctx;
    MUST(data.n > 0 && !ex->paused);
}

static void ignore_close(void *ctx, as_conn_info *info) {
    (void)ctx;
    (void)info;
}

static void release_aborted(void *ctx, as_exchange *ex, as_err why) {
    (void)ctx;
    MUST(ex->aborted && why != AS_OK);
    as_exchange_release(ex);
}

static void remember_refusal(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                             uint64_t offset) {
    connection *c = ctx;
    MUST(info == &c->info && why != AS_OK && c->refused == AS_OK);
    MUST(detail.n < 500 && offset < UINT32_MAX);
    c->refused = why;
}

#define OR(handler, otherwise) ((handler) != NULL ? (handler) : (otherwise))

void connection_init(connection *c, const as_handlers *handlers) {
    *c = (connection){0};
    as_limits_init(&c->limits);
    c->handlers = (as_handlers){.on_request = handlers->on_request,
                                .on_body = OR(handlers->on_body, ignore_body),
                                .on_end = OR(handlers->on_end, ignore),
                                .on_eof = OR(handlers->on_eof, ignore),
                                .on_abort = OR(handlers->on_abort, release_aborted),
                                .on_drain = OR(handlers->on_drain, ignore),
                                .on_close = ignore_close,
                                .on_refused = remember_refusal,
                                .on_alarm = ignore};
    as_buf_pool_init(&c->pool, 4);
    MUST(as_response_defaults_init(&c->defaults, true, false, NULL, 0) == AS_OK);
    c->env = (as_h1_env){.limits = &c->limits,
                         .handlers = &c->handlers,
                         .ctx = c,
                         .defaults = &c->defaults,
                         .pool = &c->pool,
                         .notify = notify,
                         .flush = flush,
                         .flush_soon = flush_soon,
                         .set_alarm = set_alarm};
    MUST(as_h1_env_init(&c->env) == AS_OK);
    strcpy(c->info.client, "192.0.2.1");
    c->info.server = "192.0.2.2";
    as_h1_init(&c->h1, &c->env, &c->info);
}

void connection_fini(connection *c) {
    as_h1_fini(&c->h1, AS_E_CLOSED);
    MUST(c->env.requests == 0);
    as_h1_env_fini(&c->env);
    as_response_defaults_fini(&c->defaults);
    as_buf_pool_fini(&c->pool);
    as_buf_fini(&c->out, NULL);
}

/* --- turns ---------------------------------------------------------------------------------- */

void connection_turn(connection *c) {
    do {
        c->notified = 0;
        if (c->h1.phase != AS_H1_DEAD) {
            drain(c);
        }
        if (c->idle != NULL) {
            c->idle(c);
        }
        as_h1_resume(&c->h1);
        if (c->h1.phase != AS_H1_DEAD) {
            drain(c);
        }
    } while (c->notified > 0);
}

void connection_feed(connection *c, as_slice bytes, uint32_t cut, bool eof) {
    while (bytes.n > 0) {
        size_t n = next_part(&cut, bytes.n);
        char *part = copy_exactly(bytes.p, n);
        as_h1_feed(&c->h1, part, n);
        free(part);
        connection_turn(c);
        bytes = (as_slice){bytes.p + n, bytes.n - n};
    }
    if (eof) {
        as_h1_eof(&c->h1);
        connection_turn(c);
    }
}

/* The exchange: one request and its response, whatever protocol carried it. The joint between the
 * protocols below (HTTP/1 now) and the gateways above (ASGI, WSGI, the bench's constant answer).
 *
 * LIFE
 *   A protocol makes an exchange when a request head is complete and calls `on_request` once, when
 *   the head and whatever body came with it in the same read are there. The exchange is shared:
 *   the protocol holds it until the response is complete and the request read to its end, or the
 *   connection is gone; the gateway holds it from `on_request` on until `as_exchange_release`,
 *   which it calls exactly once, in any state, also from inside any handler.
 *
 *   request side    AS_REQ_BODY -> AS_REQ_DONE                      (or aborted)
 *   response side   AS_RES_START -> AS_RES_HEAD -> AS_RES_BODY -> AS_RES_DONE   (or aborted)
 *
 *   START  nothing written; `interim` is allowed
 *   HEAD   between head_begin and the first body: fields are added; all of it can be taken back
 *   BODY   the head has left (or is bound to)
 *   DONE   complete; every further call returns AS_E_RESPONSE_STATE
 *   `aborted` is set once, before `on_abort`: every further call returns AS_E_CLOSED and does
 *   nothing.
 *
 * TUNNEL
 *   `upgrade` goes from START (the request being complete) to BODY by a 101, and from then on the
 *   exchange carries raw bytes both ways, until either side ends it:
 *
 *   in    on_body brings what comes, from the byte behind the handshake on, never from inside of
 *         the call; it may be changed in place. The request side is AS_REQ_BODY again: pause and
 *         resume are its flow control, and what a handler leaves `untaken` comes again. The
 *         client's FIN makes it AS_REQ_DONE and is told by on_eof, once, behind the last byte.
 *   out   `body` only queues. The bytes leave behind the handler inside of which they were written,
 *         with `flush`, or with `flush_soon`. !more, or `end`, is DONE: our FIN goes out behind
 *         what is queued, and what the client still sends is dropped for a while.
 *         Heads, files and trailers are refused.
 *
 *   The gateway's only time is set_alarm; the client's is timeout_write while bytes wait for it.
 *
 * RE-ENTRANCY
 *   No handler is ever called from inside a call that the gateway makes on the exchange; the one
 *   way up is from the loop. A handler may run Python, and may end, abort or release any exchange.
 *
 * THREADS  All calls are made on the loop's thread. */
#ifndef AS_HTTP_EXCHANGE_H
#define AS_HTTP_EXCHANGE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/err.h"
#include "base/slice.h"
#include "http/head.h"
#include "http/outq.h"

typedef struct as_exchange as_exchange;
typedef struct as_conn_info as_conn_info;

typedef enum as_req_state { AS_REQ_BODY, AS_REQ_DONE } as_req_state;
typedef enum as_res_state { AS_RES_START, AS_RES_HEAD, AS_RES_BODY, AS_RES_DONE } as_res_state;

/* Upwards: what a gateway implements. `ctx` is the one given to the loop. */
typedef struct as_handlers {
    /* A request. `ex->head` is valid until this returns and, if the exchange is still in use then,
     * for its whole life (the protocol keeps it with as_head_keep, and moves the pointer; a gateway
     * that needs the copy earlier may do the same).
     * `body`: the body bytes that are here already, valid during the call; ex->req tells whether
     * they are all of it. */
    void (*on_request)(void *ctx, as_exchange *ex, as_slice body);
    /* More body, valid during the call. Not called while paused. */
    void (*on_body)(void *ctx, as_exchange *ex, as_slice data);
    /* The body is complete (ex->req is AS_REQ_DONE). Not called when on_request said so already. */
    void (*on_end)(void *ctx, as_exchange *ex);
    /* The client half-closed its side behind a complete request: it may be gone, or may still wait
     * for the answer. Or the server stops, and an application that would go on for long had better
     * end (as_loop_disconnect; see on_shutdown). Writing goes on being allowed. */
    void (*on_eof)(void *ctx, as_exchange *ex);
    /* The exchange is broken: the client left, a limit bit, or the server stops. */
    void (*on_abort)(void *ctx, as_exchange *ex, as_err why);
    /* ex->pending() fell to the low-water mark after it was above the high one. */
    void (*on_drain)(void *ctx, as_exchange *ex);
    /* The connection is gone: drop info->gateway. */
    void (*on_close)(void *ctx, as_conn_info *info);
    /* For the log: a refused request or a connection that failed. `detail`: what the parser saw,
     * may be empty; `offset`: bytes into the request. `head`: as far as it is known, or NULL. */
    void (*on_refused)(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                       uint64_t offset);
    /* as_loop_disconnect, where it is to be told from on_eof; NULL: that is called. */
    void (*on_shutdown)(void *ctx, as_exchange *ex);
    /* as_exchange_set_alarm's time has come; no other alarm follows by itself. */
    void (*on_alarm)(void *ctx, as_exchange *ex);
} as_handlers;

/* What is known of a connection; it outlives its exchanges' handlers. Of a request that a trusted
 * proxy passed on: the same, as the proxy tells it (http/forwarded.h). */
struct as_conn_info {
    char client[64];    /* numeric address; empty for a Unix socket */
    const char *server; /* numeric address, or the path of a Unix socket; lives as long as this */
    uint16_t client_port;
    uint16_t server_port;
    bool is_unix;      /* the client is on this machine, at a Unix socket */
    bool is_tls;       /* the client uses https */
    bool trusted;      /* a proxy that is believed */
    as_conn_info *via; /* the proxy's connection, where this is what it tells; else NULL */
    void *gateway; /* the gateway's own, per connection; NULL at first, and where `via` is set */
    struct as_tls
        *tls; /* of the connection itself (net/tls.h); NULL: it is plain, or `via` is set */
};

/* Downwards: what a protocol implements. Use the as_exchange_* calls below. The last four are NULL
 * where exchanges are never upgraded. */
typedef struct as_exchange_ops {
    as_err (*interim)(as_exchange *ex, unsigned status, const as_slice *pairs, size_t npairs);
    as_err (*head_begin)(as_exchange *ex, unsigned status, as_slice reason);
    as_err (*head_field)(as_exchange *ex, as_slice name, as_slice value);
    void (*head_abandon)(as_exchange *ex);
    as_err (*body)(as_exchange *ex, as_bytes data, bool more);
    as_err (*file)(as_exchange *ex, int fd, off_t off, uint64_t n, bool more);
    as_err (*trailer)(as_exchange *ex, as_slice name, as_slice value);
    as_err (*end)(as_exchange *ex);
    as_err (*flush)(as_exchange *ex);
    as_err (*lend)(as_exchange *ex);
    void (*reclaim)(as_exchange *ex);
    uint64_t (*pending)(const as_exchange *ex);
    void (*want_body)(as_exchange *ex);
    void (*pause)(as_exchange *ex);
    void (*resume)(as_exchange *ex);
    void (*yield)(as_exchange *ex);
    void (*abort)(as_exchange *ex);
    void (*release)(as_exchange *ex);
    as_err (*refuse)(as_exchange *ex, as_err why);
    as_err (*upgrade)(as_exchange *ex, const as_slice *pairs, size_t npairs);
    void (*flush_soon)(as_exchange *ex);
    void (*set_alarm)(as_exchange *ex, uint32_t ms);
} as_exchange_ops;

struct as_exchange {
    const as_exchange_ops *ops;
    as_head *head;
    as_conn_info *info; /* the connection's, or `own` */
    as_conn_info *own;  /* made for what a proxy tells, or as a copy once the protocol has let go */
    void *gateway;      /* the gateway's own, per exchange; NULL at first */
    union {
        void *proto;       /* the protocol's own; NULL when it has let go */
        as_exchange *next; /* among the free ones */
    };
    union {
        uint64_t body_left; /* of a declared response Content-Length, UINT64_MAX: none declared */
        uint64_t untaken;   /* in a tunnel, set within on_body: so many of its last bytes were not
                             * looked at, and come again, after resume where it has paused, else
                             * in another turn of the loop */
    };
    uint64_t sent;     /* body bytes of the response given so far */
    uint64_t received; /* body bytes of the request seen so far */
    uint16_t status;   /* of the response, 0 before head_begin */
    uint8_t req, res;  /* as_req_state, as_res_state */
    bool aborted;
    bool no_body; /* HEAD, 204, 304: body bytes are counted and dropped */
    bool chunked; /* the response is */
    bool close;   /* the connection closes behind this exchange */
    bool paused;
    bool wants_continue; /* 100 Continue is owed when the body is first asked for */
    bool trailers;       /* set by the gateway before the first body: trailers will follow */
    bool released;       /* the gateway has let go */
    uint8_t seen;        /* the response's own fields so far: bits of http/response.h */
    /* Only where the loop's configuration asks for them (net/loop.h: timed, copy_heads). */
    uint64_t started; /* when the request's head was complete: as_microseconds() */
    char *head_copy; /* the response head as it left, in HTTP/1's form, with a NUL behind; NULL: not
                      * yet, no memory */
};

/* 1xx but 101: `pairs` is name, value, name, value … AS_E_RESPONSE_* on a bad one; then nothing is
 * written. Nothing is sent to HTTP/1.0. */
static inline as_err as_exchange_interim(as_exchange *ex, unsigned status, const as_slice *pairs,
                                         size_t npairs) {
    return ex->ops->interim(ex, status, pairs, npairs);
}
/* Status 200 to 999; an empty reason takes the usual one. */
static inline as_err as_exchange_head_begin(as_exchange *ex, unsigned status, as_slice reason) {
    return ex->ops->head_begin(ex, status, reason);
}
/* One field line, checked. Content-Length is checked and remembered, Connection: close understood,
 * other hop-by-hop fields dropped, the application's own Date and Server replace the server's. */
static inline as_err as_exchange_head_field(as_exchange *ex, as_slice name, as_slice value) {
    return ex->ops->head_field(ex, name, value);
}
/* HEAD -> START: the head is taken back, as if head_begin had never been called. */
static inline void as_exchange_head_abandon(as_exchange *ex) {
    ex->ops->head_abandon(ex);
}
/* A chunk of the body; the first one ends the head, and decides the framing: with !more and no
 * Content-Length the length is known. AS_E_RESPONSE_LONG / _SHORT against a declared length: after
 * the head has left the caller should abort. !more completes the response. */
static inline as_err as_exchange_body(as_exchange *ex, as_bytes data, bool more) {
    return ex->ops->body(ex, data, more);
}
/* The same with `n` bytes of a file from `off`, which leave by sendfile. `fd` is taken over. */
static inline as_err as_exchange_file(as_exchange *ex, int fd, off_t off, uint64_t n, bool more) {
    return ex->ops->file(ex, fd, off, n, more);
}
/* Behind the last body, given with `more`: field lines of the trailer section, then `end`. Dropped
 * where the response is not chunked. */
static inline as_err as_exchange_trailer(as_exchange *ex, as_slice name, as_slice value) {
    return ex->ops->trailer(ex, name, value);
}
static inline as_err as_exchange_end(as_exchange *ex) {
    return ex->ops->end(ex);
}
/* Gives what is written to the kernel now, as far as it takes it, instead of with the batch. */
static inline as_err as_exchange_flush(as_exchange *ex) {
    return ex->ops->flush(ex);
}
/* The same around a call of Python that may take long or not: what is written leaves within a few
 * milliseconds, or with what follows. `reclaim` comes before anything else that is done with the
 * exchange, but for calls that Python makes. Not in a tunnel. */
static inline as_err as_exchange_lend(as_exchange *ex) {
    return ex->ops->lend(ex);
}
static inline void as_exchange_reclaim(as_exchange *ex) {
    ex->ops->reclaim(ex);
}
/* Bytes of the connection that the kernel has not taken; above the high-water mark, wait for
 * on_drain. */
static inline uint64_t as_exchange_pending(const as_exchange *ex) {
    return ex->ops->pending(ex);
}
/* on_drain comes from the loop as soon as pending() is at the low-water mark, also when it never
 * was above the high one: for a gateway that could write on, but lets others have their turn. */
static inline void as_exchange_yield(as_exchange *ex) {
    ex->ops->yield(ex);
}
/* The application asks for the body: sends 100 Continue if the client waits for it. */
static inline void as_exchange_want_body(as_exchange *ex) {
    if (ex->wants_continue) {
        ex->ops->want_body(ex);
    }
}
/* Flow control of the request body. */
static inline void as_exchange_pause(as_exchange *ex) {
    if (!ex->paused) {
        ex->ops->pause(ex);
    }
}
static inline void as_exchange_resume(as_exchange *ex) {
    if (ex->paused) {
        ex->ops->resume(ex);
    }
}
/* START -> DONE: the protocol answers by itself, with the status and the text of `why`, and the
 * connection closes. on_refused is not called. */
static inline as_err as_exchange_refuse(as_exchange *ex, as_err why) {
    return ex->ops->refuse(ex, why);
}
/* START -> BODY: 101, and a tunnel (see above). `pairs` as for interim, the Upgrade field among
 * them; Connection and the server's own fields are the protocol's. Nothing is written and nothing
 * has changed when it fails. */
static inline as_err as_exchange_upgrade(as_exchange *ex, const as_slice *pairs, size_t npairs) {
    return ex->ops->upgrade(ex, pairs, npairs);
}
/* In a tunnel: what is queued leaves with the loop's next turn. */
static inline void as_exchange_flush_soon(as_exchange *ex) {
    ex->ops->flush_soon(ex);
}
/* In a tunnel: on_alarm in `ms` milliseconds, 0: not at all. A later call replaces it. It counts
 * from the call, or from when the last queued byte has left if that is later. */
static inline void as_exchange_set_alarm(as_exchange *ex, uint32_t ms) {
    ex->ops->set_alarm(ex, ms);
}
/* Cuts the connection so that the client sees a broken response, never a short one. on_abort is not
 * called. */
static inline void as_exchange_abort(as_exchange *ex) {
    ex->ops->abort(ex);
}
/* The gateway lets go. If the response is not complete, it is aborted. */
static inline void as_exchange_release(as_exchange *ex) {
    ex->ops->release(ex);
}

#endif

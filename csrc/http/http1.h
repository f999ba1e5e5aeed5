/* HTTP/1.0 and 1.1 without I/O (RFC 9112): fed bytes, it makes exchanges, calls the gateway, and
 * writes answers into its output queue. The connection (csrc/net) owns it, feeds it and drains the
 * queue.
 *
 * One exchange at a time is with the gateway; bytes behind it wait in `pending`, which is bounded.
 * After as_h1_feed and every other call that runs handlers, and after `notify`, the connection
 * looks at as_h1_phase, as_h1_wants_read and `out`.
 *
 * Which rule is llhttp's and which is ours is written at the top of h1_head.c. */
#ifndef AS_HTTP_HTTP1_H
#define AS_HTTP_HTTP1_H

#include "base/buf.h"
#include "base/limits.h"
#include "http/exchange.h"
#include "http/response.h"

typedef struct as_h1 as_h1;

/* What all HTTP/1 connections of one loop share. Owned by the loop, which outlives them. */
typedef struct as_h1_env {
    const as_limits *limits;
    const as_handlers *handlers;
    void *ctx;                              /* for the handlers */
    const struct as_forwarding *forwarding; /* NULL: what proxies tell is not asked for */
    as_response_defaults *defaults;
    as_buf_pool *pool;
    as_exchange *free_exchanges;
    struct as_h1_scratch *scratch; /* the one head that is being parsed within a read */
    struct as_head_cache *heads;   /* that came before */
    struct as_h1_parser *parser;   /* for the next one; NULL: it is in use */
    as_slice gathered;             /* body bytes of the current read */
    as_line *lines;                /* AS_LINES field lines that were answered with before */
    uint32_t requests;             /* exchanges that are with the gateway now */
    bool draining;                 /* every answer from now on closes its connection */
    bool timed;                    /* as_exchange.started is wanted */
    bool copy_heads;               /* as_exchange.head_copy is */
    uint64_t requests_total;
    uint64_t turn_end;      /* when others are to have their turn, if many requests came at once:
                             * microseconds, CLOCK_MONOTONIC; set by the loop, 0: never */
    bool turn_over;         /* it has come; the loop takes it back */
    uint32_t pipelined;     /* requests that followed others at once */
    uint64_t requests_mark; /* `marked` is set by the request with this number; 0: none */
    bool marked;
    bool unhealthy;       /* what the health path says */
    as_slice health_path; /* that the server itself answers; empty: none */
    uint64_t overloaded;  /* requests refused for limit_concurrency; not told by on_refused */
    uint64_t spool_full;  /* … by the gateway, for limit_body_spool */
    /* Called when a protocol changed something outside of a call from its connection: it wrote, it
     * ended, it wants to read again, it must be cut. May flush at once; must not call handlers. */
    void (*notify)(as_h1 *h1);
    /* Writes the queue to the kernel now, as far as it takes it; never calls handlers. */
    as_err (*flush)(as_h1 *h1);
    /* Around a call of Python: the queue leaves meanwhile, soon; until `reclaim` nothing is written
     * to it. */
    as_err (*lend)(as_h1 *h1);
    void (*reclaim)(as_h1 *h1);
    /* For tunnels: writes the queue with the loop's next turn; calls as_h1_alarm later, as
     * as_exchange_set_alarm says. */
    void (*flush_soon)(as_h1 *h1);
    void (*set_alarm)(as_h1 *h1, uint32_t ms);
} as_h1_env;

as_err as_h1_env_init(as_h1_env *env);
void as_h1_env_fini(as_h1_env *env);

typedef enum as_h1_phase {
    AS_H1_IDLE,    /* between requests, nothing of the next one is here */
    AS_H1_HEAD,    /* inside a request head */
    AS_H1_BODY,    /* waiting for body bytes */
    AS_H1_BUSY,    /* the gateway works; nothing is expected of the client */
    AS_H1_TUNNEL,  /* so, but for what an alarm watches */
    AS_H1_CLOSING, /* drain `out`, then shut down and linger (as_h1_wants_linger) or close */
    AS_H1_DEAD     /* cut at once */
} as_h1_phase;

/* Where in a request the bytes that are parsed next are. */
typedef enum as_h1_state {
    AS_H1_AT_START, /* before its first byte */
    AS_H1_AT_HEAD,
    AS_H1_AT_LENGTH, /* in a body of known length */
    AS_H1_AT_CHUNKS,
    AS_H1_AT_END,   /* behind it; its exchange is still with the gateway */
    AS_H1_AT_TUNNEL /* its exchange was upgraded: bytes that are not HTTP */
} as_h1_state;

struct as_h1 {
    as_h1_env *env;
    as_conn_info *info;
    as_exchange *ex; /* the one with the gateway, or NULL */
    as_outq out;
    as_buf pending;              /* bytes that cannot be parsed yet */
    size_t pending_off;          /* of those that were parsed meanwhile */
    struct as_h1_parser *parser; /* while a head or chunks come in; NULL: none is needed */
    struct as_h1_scratch *saved; /* a head that came in parts; NULL between heads */
    uint64_t body_left;          /* AT_LENGTH: bytes to come */
    uint64_t body_seen;          /* body bytes of this request */
    uint64_t offset;             /* bytes of this request that are behind, for the log */
    uint32_t discard; /* body bytes of an answered request that are still read and dropped */
    uint32_t skipped; /* bytes of empty lines in front of the request */
    uint8_t phase;
    uint8_t state;
    as_err failure; /* what a callback of the parser found */
    as_err error;   /* why it closes, AS_OK otherwise */
    bool feeding;   /* on the stack now: answers gather, notify is not called */
    bool linger;
    bool yielded;      /* `pending` has a request that waits for the loop's next turn alone */
    bool eof;          /* the client has closed its side */
    bool eof_told;     /* the exchange knows */
    bool served;       /* at least one request was answered */
    bool above_high;   /* on_drain is owed, or requests wait for the client to read */
    bool after_cr;     /* the last byte was a CR: an LF must follow */
    bool trailing;     /* in the trailer section */
    bool undispatched; /* behind a head whose request is not with the gateway yet */
};

void as_h1_init(as_h1 *h1, as_h1_env *env, as_conn_info *info);
/* Aborts the exchange (on_abort with `why`) and frees what is held. */
void as_h1_fini(as_h1 *h1, as_err why);

/* Bytes from the client. They may be changed in place, and are not needed afterwards. */
void as_h1_feed(as_h1 *h1, char *data, size_t n);
/* Goes on with `pending` after an exchange ended or the body was resumed, and calls on_drain when
 * it is due; the connection calls it from the loop after notify. */
void as_h1_resume(as_h1 *h1);
/* The client closed its side. */
void as_h1_eof(as_h1 *h1);
/* The server stops: the gateway hears on_shutdown, or on_eof, for a request that still runs. */
void as_h1_disconnect(as_h1 *h1);
/* env->set_alarm's time has come. */
void as_h1_alarm(as_h1 *h1);
/* The phase's time is over: answers 408, or closes. */
void as_h1_timeout(as_h1 *h1);
/* What comes is no request: answers with the status of `why` and closes, or closes alone. */
void as_h1_refuse(as_h1 *h1, as_err why);
void as_h1_hang_up(as_h1 *h1, as_err why);
/* The server stops: an idle connection closes, a busy one after its answer. */
void as_h1_drain(as_h1 *h1);

static inline as_h1_phase as_h1_get_phase(const as_h1 *h1) {
    return (as_h1_phase)h1->phase;
}
bool as_h1_wants_read(const as_h1 *h1);
static inline bool as_h1_wants_linger(const as_h1 *h1) {
    return h1->linger;
}

#endif

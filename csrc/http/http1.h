/* HTTP/1.0 and 1.1 without I/O (RFC 9112): fed bytes, it makes exchanges, calls the gateway, and writes
 * answers into its output queue. The connection (csrc/net) owns it, feeds it and drains the queue.
 *
 * One exchange at a time is with the gateway; bytes behind it wait in `pending`, which is bounded.
 * After as_h1_feed, as_h1_resume, as_h1_eof or as_h1_timeout, and after `notify`, the connection looks
 * at as_h1_phase, as_h1_wants_read and `out`.
 *
 * Which rule is llhttp's and which is ours is written at the top of http1.c. */
#ifndef AS_HTTP_HTTP1_H
#define AS_HTTP_HTTP1_H

#include <llhttp.h>

#include "base/buf.h"
#include "base/limits.h"
#include "http/exchange.h"
#include "http/response.h"

typedef struct as_h1 as_h1;

/* What all HTTP/1 connections of one loop share. Owned by the loop, which outlives them. */
typedef struct as_h1_env {
    const as_limits *limits;
    const as_handlers *handlers;
    void *ctx; /* for the handlers */
    as_response_defaults *defaults;
    as_buf_pool *pool;
    as_exchange *free_exchanges;
    struct as_h1_scratch *scratch; /* the one head that is being parsed within a read */
    uint32_t requests;             /* exchanges that are with the gateway now */
    bool draining;                 /* every answer from now on closes its connection */
    uint64_t requests_total;
    /* Called when a protocol changed something outside of a call from its connection: it wrote, it
     * ended, it wants to read again, it must be cut. May flush at once; must not call handlers. */
    void (*notify)(as_h1 *h1);
    /* Writes the queue to the kernel now, as far as it takes it; never calls handlers. */
    as_err (*flush)(as_h1 *h1);
} as_h1_env;

as_err as_h1_env_init(as_h1_env *env);
void as_h1_env_fini(as_h1_env *env);

typedef enum as_h1_phase {
    AS_H1_IDLE,    /* between requests, nothing of the next one is here */
    AS_H1_HEAD,    /* inside a request head */
    AS_H1_BODY,    /* waiting for body bytes */
    AS_H1_BUSY,    /* the gateway works; nothing is expected of the client */
    AS_H1_CLOSING, /* drain `out`, then shut down and linger (as_h1_wants_linger) or close */
    AS_H1_DEAD     /* cut at once */
} as_h1_phase;

struct as_h1 {
    llhttp_t parser;
    as_h1_env *env;
    as_conn_info *info;
    as_exchange *ex;  /* the one with the gateway, or NULL */
    as_outq out;
    as_buf pending;   /* bytes behind the current request that are not parsed yet */
    struct as_h1_scratch *saved; /* a head that came in parts; NULL between heads */
    uint64_t overhead; /* bytes of the present body's framing: chunk lines, extensions, trailers */
    uint32_t discard; /* body bytes of an answered request that may still be read and dropped */
    uint32_t junk;    /* bytes that came after the last request and are not looked at */
    uint32_t trailers, trailer_bytes; /* of the present body */
    char trailer_name[20]; /* of the present trailer, its beginning */
    uint8_t trailer_name_len;
    uint32_t blank;   /* bytes of empty lines before the next request */
    uint8_t phase;
    as_err error;     /* why it closes, AS_OK otherwise */
    bool discarding;  /* inside the body of an answered request */
    bool in_body;     /* the parser is behind a head, before the end of its message */
    bool feeding;     /* on the stack now: answers gather, notify is not called */
    bool body_paused;
    bool close;       /* nothing more is parsed */
    bool linger;
    bool eof;         /* the client has closed its side */
    bool served;      /* at least one request was answered */
    bool above_high;  /* on_drain is owed */
};

void as_h1_init(as_h1 *h1, as_h1_env *env, as_conn_info *info);
/* Aborts the exchange (on_abort with `why`) and frees what is held. */
void as_h1_fini(as_h1 *h1, as_err why);

/* Bytes from the client. They may be changed in place, and are not needed afterwards. */
void as_h1_feed(as_h1 *h1, char *data, size_t n);
/* Goes on with `pending` after an exchange ended or the body was resumed, and calls on_drain when it
 * is due; the connection calls it from the loop after notify. */
void as_h1_resume(as_h1 *h1);
/* The client closed its side. */
void as_h1_eof(as_h1 *h1);
/* The phase's time is over: answers 408, or closes. */
void as_h1_timeout(as_h1 *h1);
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

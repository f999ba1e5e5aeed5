/* What http1.c (requests, flow) and h1_response.c (the exchange's downward calls) share. */
#ifndef AS_HTTP_H1_INTERNAL_H
#define AS_HTTP_H1_INTERNAL_H

#include "http/http1.h"

/* The head that is being parsed. The loop's own serves heads that come in one read; for one that comes in
 * parts a connection gets its own, with the bytes so far. */
typedef struct as_h1_scratch {
    as_head head;
    uint32_t capacity;   /* of head.fields */
    uint32_t before;     /* bytes of this head in earlier reads */
    uint32_t size;       /* of a complete head: bytes that are there from its base on */
    const char *chunk;   /* where the present read's part of it begins */
    as_buf bytes;        /* of a saved head: all of it so far */
    char *body;          /* body bytes of this read, moved together */
    size_t body_len;
    as_err error;        /* what a callback refused */
    uint32_t error_off;
    uint32_t host;       /* 1 + index of the Host field, 0: none */
    uint16_t codings;    /* Transfer-Encoding fields */
    uint16_t lengths;    /* Content-Length fields */
    bool begun;          /* a message is under way */
    bool in_value;       /* the last field's value is being read */
    bool head_done;      /* the head is complete and judged, but not dispatched */
    bool message_done;
    bool says_close, says_keep_alive, says_upgrade, has_upgrade;
} as_h1_scratch;

extern const as_exchange_ops as__h1_exchange_ops;

/* The response of the connection's exchange is complete: lets go of it. Not while a handler runs. */
void as__h1_let_go(as_h1 *h1);
/* The connection is to be cut; lets go of the exchange, without a word to the gateway. */
void as__h1_kill(as_h1 *h1, as_err why);
/* Recomputes h1->phase. */
void as__h1_update(as_h1 *h1);
/* A whole error response that ends the connection. */
void as__h1_write_error(as_h1 *h1, as_err err, bool is_head);

#endif

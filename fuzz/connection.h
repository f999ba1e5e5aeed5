/* A connection of HTTP/1 without a socket: a target feeds it, and plays its application. */
#ifndef AS_FUZZ_CONNECTION_H
#define AS_FUZZ_CONNECTION_H

#include "fuzz.h"
#include "http/http1.h"

typedef struct connection {
    as_limits limits;
    as_handlers handlers;
    as_buf_pool pool;
    as_response_defaults defaults;
    as_h1_env env;
    as_conn_info info;
    as_h1 h1;
    as_buf out;                         /* what has left */
    as_err refused;                     /* on_refused's reason, AS_OK: not called */
    unsigned notified;                  /* since the last read */
    bool reader_stalls;                 /* nothing leaves */
    void (*idle)(struct connection *c); /* what an application does outside of handlers; NULL */
} connection;

/* In place. Handlers get `c` as their context; those that are NULL do nothing. */
void connection_init(connection *c, const as_handlers *handlers);
/* Ends it: on_abort for what still runs, and nothing may be left over. */
void connection_fini(connection *c);
/* All bytes, cut as next_part does, each part in memory of its own; then the client's FIN. */
void connection_feed(connection *c, as_slice bytes, uint32_t cut, bool eof);
/* What the loop does behind a read or a notify. */
void connection_turn(connection *c);

#endif

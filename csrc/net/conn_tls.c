/* The handshake of a connection of TLS as its loop sees it: which are under way, and what becomes
 * of those that fail. The handshake itself is the transport's (net/tls.c). */
#include <stdlib.h>

#include "net/conn_internal.h"
#include "net/tls.h"

as_err as__conn_begin_handshake(as_conn *conn) {
    as_loop *loop = as__loop_of(conn);
    as_handshake *handshake = malloc(sizeof(*handshake));
    if (handshake == NULL) {
        return AS_E_NOMEM;
    }
    handshake->conn = conn;
    as__list_push(&loop->handshakes, &handshake->open);
    conn->handshake = handshake;
    conn->share.greedy = 1; /* a step takes as long as dozens of requests */
    loop->nhandshakes++;
    return AS_OK;
}

void as__conn_end_handshake(as_conn *conn) {
    as_handshake *handshake = conn->handshake;
    if (handshake != NULL) {
        conn->handshake = NULL;
        as__loop_of(conn)->nhandshakes--;
        as__link_remove(&handshake->open);
        free(handshake);
    }
}

void as__loop_limit_handshakes(as_loop *loop) {
    uint32_t limit = loop->limits.limit_tls_handshakes;
    if (limit != 0 && loop->nhandshakes > limit) {
        as_conn *oldest = AS_OWNER(loop->handshakes.next, as_handshake, open)->conn;
        as__conn_end_handshake(oldest);
        as__conn_refuse(oldest, AS_E_TLS_CROWD);
        as__conn_enqueue(oldest);
    }
}

/* A client that took the port for a plain one is told so in its own language. */
static void answer_plainly(as_conn *conn) {
    as_tls_abandon(&conn->transport);
    conn->info.is_tls = false;
    conn->info.tls = NULL;
    as_h1_refuse(&conn->h1, AS_E_TLS_PLAIN);
}

/* OpenSSL has sent the alert that says why, and the client is to read it. */
static void handshake_failed(as_conn *conn) {
    as__conn_end_handshake(conn);
    as_h1_hang_up(&conn->h1, AS_E_TLS_HANDSHAKE);
    as__conn_tell_refused(conn, AS_E_TLS_HANDSHAKE, as_tls_failure(conn->info.tls));
}

/* Not inlined, as it is no part of the way of a request. */
__attribute__((noinline)) void as__conn_read_failed(as_conn *conn, as_err why) {
    switch (why) {
    case AS_E_TLS_PLAIN:
        answer_plainly(conn);
        break;
    case AS_E_TLS_HANDSHAKE:
        handshake_failed(conn);
        break;
    case AS_E_TLS_NONE:
    case AS_E_TLS_RECORD:
    case AS_E_TLS_FLOOD:
        conn->cut = why;
        as__conn_tell_refused(conn, why, as_tls_failure(conn->info.tls));
        break;
    default:
        conn->cut = why;
    }
}

void as__conn_handshake_expired(as_conn *conn) {
    if (conn->proxy != NULL && conn->proxy->len > 0) {
        as__conn_refuse(conn, AS_E_PROXY_TRUNCATED);
    } else if (as_tls_begun(conn->info.tls)) {
        as__conn_refuse(conn, AS_E_TIMEOUT_HANDSHAKE);
    } else {
        conn->cut = AS_E_CLOSED; /* somebody looked whether the port is open */
    }
}

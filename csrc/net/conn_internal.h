/* A connection as its files see it: conn.c (its life: what is done, and when), conn_io.c (its
 * bytes), conn_proxy.c (the header of the PROXY protocol), conn_tls.c (handshakes), conn_timeout.c
 * (what it waits for, and how long). */
#ifndef AS_NET_CONN_INTERNAL_H
#define AS_NET_CONN_INTERNAL_H

#include "net/conn.h"
#include "net/turn.h"

/* What can restart a timeout that is already running. */
enum { AS_GOT_BYTES = 1, AS_GOT_REQUEST = 2, AS_WROTE = 4, AS_ALARM_SET = 8 };

/* A TLS handshake that is under way. */
typedef struct as_handshake {
    as_conn *conn;
    as_link open; /* in as_loop.handshakes */
} as_handshake;

struct as_conn {
    as_h1 h1;
    as_conn_info info;
    as_transport transport;
    as_link all;  /* in as_loop.conns; closed: in .gone */
    as_link todo; /* in as_loop.todo, or .greedy */
    as_timeout timeout;
    union {
        uint64_t opened;     /* milliseconds; while it is not lingering */
        uint64_t linger_end; /* milliseconds; while it is */
    };
    uint32_t unsent;         /* bytes that the kernel had not got rid of when it was last asked */
    uint32_t linger_left;    /* bytes that may still be dropped */
    uint32_t got, wrote;     /* bytes since the timeout was looked at */
    as_share share;          /* of the loop's turn */
    as_buf *proxy;           /* a PROXY header is due: its bytes so far; else NULL */
    as_handshake *handshake; /* NULL: over, or no TLS */
    as_err cut;              /* why it must be closed without ado */
    uint32_t alarm;          /* milliseconds that the gateway set, 0: none */
    uint8_t interest;        /* what the kernel is asked for: EPOLLIN … */
    uint8_t waiting : 4;     /* the kind of wait whose timeout runs, conn_timeout.c's */
    uint8_t progress : 4;    /* AS_GOT_BYTES … since the timeout was looked at */
    uint8_t late;            /* where in as_loop.late bytes of ours are, 0: none are */
    uint8_t ready;           /* EPOLLIN …, as it was told while others had their turn */
    bool fresh : 1;          /* something may have come that nobody has looked for yet */
    bool flushing : 1;
    bool resume : 1;     /* the gateway did something between events */
    bool drain : 1;      /* draining has begun */
    bool disconnect : 1; /* as_h1_disconnect is due */
    bool lingering : 1;
    bool may_introduce : 1; /* the peer may send a PROXY header */
    bool expired : 1;       /* its time is over, and what follows from that is due */
    bool closed : 1;
    /* AS_ADDRESS_MAX bytes behind a wildcard listener, AS_SERVER_MAX where a PROXY header tells it,
     * else nothing. */
    char server[];
};

static inline as_conn *as__conn_of(as_h1 *h1) {
    return AS_OWNER(h1, as_conn, h1);
}

static inline as_loop *as__loop_of(const as_conn *conn) {
    return AS_OWNER(conn->h1.env, as_loop, env);
}

/* --- conn.c ----------------------------------------------------------------------------------- */

/* as__conn_work is due; or it is, and others go first. */
void as__conn_enqueue(as_conn *conn);
void as__conn_enqueue_behind(as_conn *conn);
/* The log hears why its client is refused; the connection is cut for it, too. */
void as__conn_tell_refused(as_conn *conn, as_err why, as_slice detail);
void as__conn_refuse(as_conn *conn, as_err why);
/* Something came since the socket was looked at: a request of the last moment, which closing would
 * answer by a reset. */
bool as__conn_has_unread(const as_conn *conn);

/* --- conn_io.c -------------------------------------------------------------------------------- */

/* Reads what is there and feeds it. May run handlers. */
void as__conn_read(as_conn *conn);
/* Reads and drops what a client still sends after our last answer; at its end, the connection is
 * cut. */
void as__conn_drop(as_conn *conn);
/* Writes until the queue is empty, the kernel is full or the turn's room is used up: for what is
 * left then, the watcher comes back at once. */
void as__conn_write(as_conn *conn);
/* Gives the queue to as_loop.late; false: it must be written now. */
bool as__conn_put_late(as_conn *conn);
/* What the loop was to write later is ours again, as far as it has not left. */
void as__conn_take_back(as_conn *conn);

/* --- conn_proxy.c ----------------------------------------------------------------------------- */

/* Reads on in the header that is due. True: it is behind. */
bool as__conn_read_proxy_header(as_conn *conn);
void as__conn_forget_proxy_header(as_conn *conn);

/* --- conn_tls.c ------------------------------------------------------------------------------- */

as_err as__conn_begin_handshake(as_conn *conn);
void as__conn_end_handshake(as_conn *conn);
/* Its time is over. */
void as__conn_handshake_expired(as_conn *conn);
/* Whoever opens connections and says nothing on them must not keep out the others. */
void as__loop_limit_handshakes(as_loop *loop);
/* The transport's `read` has failed, of TLS or not. */
void as__conn_read_failed(as_conn *conn, as_err why);

/* --- conn_timeout.c --------------------------------------------------------------------------- */

/* The timeout follows what it waits for now, and what has come and gone since this was last called.
 */
void as__conn_set_timeout(as_conn *conn);
/* What it waits for begins anew, and may have another time. */
void as__conn_renew_timeout(as_conn *conn);
/* Its time is over: `expired`, since as__conn_expire. May run handlers. */
void as__conn_run_out(as_conn *conn);
/* Milliseconds that an idle connection has for a request while draining. */
uint32_t as__conn_last_wait(const as_conn *conn);

#endif

/* What a connection waits for, how long, and what follows when its time is over. It has one
 * timeout, which goes from one of these waits to the next. */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "net/conn_internal.h"

/* Milliseconds from its beginning in which a connection's first request is waited for while
 * draining: the client has connected, and may be sending it. */
#define NEWCOMER_TIME 1000u

/* What a connection can run out of time for. */
typedef enum wait_kind {
    WAIT_NONE, /* nothing is expected of the client */
    WAIT_HANDSHAKE,
    WAIT_HEAD,
    WAIT_BODY,
    WAIT_KEEP_ALIVE,
    WAIT_LAST, /* draining: a request that may be under way */
    WAIT_WRITE,
    WAIT_LINGER,
    WAIT_ALARM /* the gateway's, in a tunnel */
} wait_kind;

static wait_kind waits_for(const as_conn *conn) {
    if (conn->lingering) {
        return conn->transport.wants == 0 ? WAIT_LINGER : WAIT_WRITE;
    }
    if (conn->h1.out.size > 0) {
        return WAIT_WRITE;
    }
    switch (as_h1_get_phase(&conn->h1)) {
    case AS_H1_IDLE:
        return as__loop_of(conn)->env.draining ? WAIT_LAST
               : conn->h1.served               ? WAIT_KEEP_ALIVE
               : conn->transport.handshaking   ? WAIT_HANDSHAKE
                                               : WAIT_HEAD;
    case AS_H1_HEAD:
        return WAIT_HEAD;
    case AS_H1_BODY:
        return WAIT_BODY;
    case AS_H1_TUNNEL:
        return WAIT_ALARM;
    default:
        return WAIT_NONE;
    }
}

uint32_t as__conn_last_wait(const as_conn *conn) {
    as_loop *loop = as__loop_of(conn);
    uint64_t newcomer_until = conn->h1.served ? 0 : conn->opened + NEWCOMER_TIME;
    uint64_t now = as__loop_now(loop);
    uint32_t left = newcomer_until > now ? (uint32_t)(newcomer_until - now) : 0;
    return left > loop->drain_idle ? left : loop->drain_idle;
}

/* A time of 0 is without end; but what is `left` is not, even if it ran out just now. */
static uint32_t shorter(uint32_t left, uint32_t time) {
    left = left > 0 ? left : 1;
    return time == 0 || time > left ? left : time;
}

static uint32_t time_for(const as_conn *conn, wait_kind kind) {
    const as_limits *limits = &as__loop_of(conn)->limits;
    switch (kind) {
    case WAIT_HANDSHAKE:
        return limits->timeout_tls_handshake;
    case WAIT_HEAD:
        return limits->timeout_request_head;
    case WAIT_BODY:
        return limits->timeout_request_body;
    case WAIT_KEEP_ALIVE:
        return limits->timeout_keep_alive;
    case WAIT_LAST:
        return shorter(as__conn_last_wait(conn),
                       conn->h1.served ? limits->timeout_keep_alive : limits->timeout_request_head);
    case WAIT_WRITE:
        return limits->timeout_write;
    case WAIT_LINGER:
        return limits->timeout_linger;
    case WAIT_ALARM:
        return conn->alarm;
    default:
        return 0;
    }
}

/* A head has its time as a whole, however slowly its bytes drip in; so has the pause before it. */
static uint8_t restarted_by(wait_kind kind) {
    switch (kind) {
    case WAIT_HEAD:
    case WAIT_KEEP_ALIVE:
    case WAIT_LAST:
        return AS_GOT_REQUEST;
    case WAIT_BODY:
    case WAIT_LINGER:
        return AS_GOT_BYTES;
    case WAIT_WRITE:
        return AS_WROTE;
    case WAIT_ALARM:
        return AS_ALARM_SET;
    default:
        return 0;
    }
}

/* What the kernel still holds of what it took. A socket is writable again only when a good part of
 * its buffer is free: a client that reads slowly makes progress long before. */
static uint32_t unsent_bytes(const as_conn *conn) {
    int bytes = 0;
    return ioctl(conn->transport.fd, SIOCOUTQ, &bytes) == 0 && bytes > 0 ? (uint32_t)bytes : 0;
}

/* Bytes a second below which a client is too slow; 0: any will do. */
static uint32_t least_rate(const as_conn *conn, wait_kind kind) {
    const as_limits *limits = &as__loop_of(conn)->limits;
    return kind == WAIT_BODY    ? limits->min_body_rate
           : kind == WAIT_WRITE ? limits->min_write_rate
                                : 0;
}

/* How many bytes the client has taken from the kernel since this was last asked. */
static uint64_t count_taken(as_conn *conn) {
    uint64_t had = (uint64_t)conn->unsent + conn->wrote;
    conn->unsent = unsent_bytes(conn);
    return had > conn->unsent ? had - conn->unsent : 0; /* TLS adds to what we wrote */
}

/* A wait that goes on has what was left of its time, and what its bytes may take at the least rate,
 * but never more than the whole time. Without a rate any byte restores the whole. */
static uint64_t prolonged(const as_conn *conn, wait_kind kind, uint64_t left, uint64_t moved) {
    uint64_t whole = time_for(conn, kind);
    uint32_t rate = least_rate(conn, kind);
    if (rate == 0 || moved >= rate * whole / 1000) {
        return moved > 0 ? whole : left;
    }
    uint64_t time = left + moved * 1000 / rate;
    return time < whole ? time : whole;
}

void as__conn_set_timeout(as_conn *conn) {
    as_loop *loop = as__loop_of(conn);
    wait_kind kind = waits_for(conn);
    bool fresh = kind != conn->waiting;
    bool restart = fresh || (conn->progress & restarted_by(kind)) != 0;
    uint64_t moved = kind == WAIT_WRITE && restart ? count_taken(conn) : conn->got;
    conn->progress = 0;
    conn->got = conn->wrote = 0;
    if (!restart) {
        return;
    }
    conn->waiting = (uint8_t)kind;
    conn->expired = false;
    uint64_t time = time_for(conn, kind);
    if (time == 0) {
        as__timeout_clear(&conn->timeout);
        return;
    }
    uint64_t now = as__loop_now(loop), deadline = now + time;
    if (!fresh && least_rate(conn, kind) != 0) {
        uint64_t due = conn->timeout.deadline;
        deadline = now + prolonged(conn, kind, due > now ? due - now : 0, moved);
    }
    if (kind == WAIT_LINGER && deadline > conn->linger_end) {
        deadline = conn->linger_end;
    }
    as__timeout_set(&loop->wheel, &conn->timeout, now, deadline);
}

void as__conn_renew_timeout(as_conn *conn) {
    conn->waiting = WAIT_NONE;
}

void as__conn_set_alarm(as_h1 *h1, uint32_t ms) {
    as_conn *conn = as__conn_of(h1);
    conn->alarm = ms;
    conn->progress |= AS_ALARM_SET;
    if (!h1->feeding && !conn->closed) {
        as__conn_set_timeout(conn);
        as__loop_timer(as__loop_of(conn));
    }
}

/* --- its end ---------------------------------------------------------------------------------- */

/* Many may run out of time at once, and to close a connection can take a while: where the kernel
 * has much to forget. */
void as__conn_expire(as_timeout *timeout) {
    as_conn *conn = AS_OWNER(timeout, as_conn, timeout);
    conn->expired = true;
    as__conn_enqueue_behind(conn);
}

/* The kernel has got rid of more for a client that reads on: true, and the wait goes on. */
static bool goes_on_reading(as_conn *conn) {
    as_loop *loop = as__loop_of(conn);
    uint64_t time = prolonged(conn, WAIT_WRITE, 0, count_taken(conn));
    if (time > 0) {
        uint64_t now = as__loop_now(loop);
        conn->waiting = WAIT_WRITE;
        as__timeout_set(&loop->wheel, &conn->timeout, now, now + time);
    }
    return time > 0;
}

void as__conn_run_out(as_conn *conn) {
    wait_kind kind = (wait_kind)conn->waiting;
    conn->expired = false;
    conn->waiting = WAIT_NONE;
    switch (kind) {
    case WAIT_HANDSHAKE:
        as__conn_handshake_expired(conn);
        break;
    case WAIT_WRITE:
        if (!goes_on_reading(conn)) {
            as__conn_refuse(conn, AS_E_TIMEOUT_WRITE);
        }
        break;
    case WAIT_LINGER:
        conn->cut = AS_E_CLOSED;
        break;
    case WAIT_ALARM:
        conn->alarm = 0;
        as_h1_alarm(&conn->h1);
        break;
    default:
        if (as_h1_get_phase(&conn->h1) == AS_H1_IDLE && as__conn_has_unread(conn)) {
            conn->fresh = true;
            return;
        }
        if (conn->proxy != NULL && conn->proxy->len > 0) {
            as__conn_refuse(conn, AS_E_PROXY_TRUNCATED);
        }
        as_h1_timeout(&conn->h1);
        break;
    }
}

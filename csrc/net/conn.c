/* A connection's life:
 *
 *   open -> [TLS handshake] -> (readable: read, feed -> work)* -> [linger: shut down, read and
 * drop] -> close
 *
 * `work` is the one place that looks at what the protocol wants (as_h1_get_phase, as_h1_wants_read,
 * `out`) and makes what the socket is watched for and the timeout follow; it runs at the end of
 * every event, and from the loop's todo list for what happened outside of events. */
#include "net/conn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net/listener.h"
#include "net/tls.h"

/* What one connection may do before the others get their turn. Who does all of it, and wants more,
 * is greedy, and has its turn behind those who are not, until it was modest so many times. */
#define READ_ROUNDS 8u                     /* full read buffers */
#define WORK_ROUNDS 8u                     /* times drained and filled again */
#define WRITE_MAX ((uint32_t)(1024 + 64) * 1024) /* bytes written: a MiB with its head */
#define WRITE_CROWDED ((uint32_t)64 * 1024) /* … where others wait */
#define WRITE_GREEDY ((uint32_t)256 * 1024) /* … by who goes behind them */
#define WRITE_LEAST ((uint32_t)16 * 1024)  /* in a single call */
#define MODEST_TIMES 7u

/* How long lingering goes on while bytes keep coming. */
#define LINGER_BYTES ((uint32_t)64 * 1024 * 1024)
#define LINGER_TIMES 15u /* timeout_linger in all */

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

/* What can restart a timeout that is already running. */
enum { GOT_BYTES = 1, GOT_REQUEST = 2, WROTE = 4, ALARM_SET = 8 };

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
    union {
        uint32_t unsent;      /* bytes that the kernel had not got rid of when it was last asked */
        uint32_t linger_left; /* bytes; while it is lingering */
    };
    uint32_t got, wrote;     /* bytes since the timeout was looked at */
    uint32_t room;           /* bytes that may be written in this turn */
    uint32_t alarm;          /* milliseconds of WAIT_ALARM, 0: none */
    as_buf *proxy;           /* a PROXY header is due: its bytes so far; else NULL */
    as_handshake *handshake; /* NULL: over, or no TLS */
    as_err cut;              /* why it must be closed without ado */
    uint8_t interest;        /* what the kernel is asked for: EPOLLIN … */
    uint8_t waiting : 4;     /* wait_kind whose timeout runs */
    uint8_t progress : 4;    /* GOT_BYTES … since the timeout was looked at */
    uint8_t late;            /* where in as_loop.late bytes of ours are, 0: none are */
    uint8_t ready;           /* EPOLLIN …, as it was told while others had their turn */
    uint8_t greedy;          /* events until it is modest; 0: it is */
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

static as_conn *conn_of(as_h1 *h1) {
    return AS_OWNER(h1, as_conn, h1);
}

static as_loop *loop_of(const as_conn *conn) {
    return AS_OWNER(conn->h1.env, as_loop, env);
}

static void enqueue(as_conn *conn) {
    if (!as__link_linked(&conn->todo)) {
        as__list_push(&loop_of(conn)->todo, &conn->todo);
    }
    as__loop_again(loop_of(conn));
}

/* … and others go first. */
static void enqueue_behind(as_conn *conn) {
    if (!as__link_linked(&conn->todo)) {
        as__list_push(&loop_of(conn)->greedy, &conn->todo);
    }
}

static void mark_greedy(as_conn *conn) {
    conn->greedy = MODEST_TIMES + 1;
}

/* --- closing ---------------------------------------------------------------------------------- */

static void forget_proxy_header(as_conn *conn) {
    if (conn->proxy != NULL) {
        as_buf_fini(conn->proxy, NULL);
        free(conn->proxy);
        conn->proxy = NULL;
    }
}

static void end_handshake(as_conn *conn) {
    as_handshake *handshake = conn->handshake;
    if (handshake != NULL) {
        conn->handshake = NULL;
        loop_of(conn)->nhandshakes--;
        as__link_remove(&handshake->open);
        free(handshake);
    }
}

void as__conn_free_gone(as_loop *loop) {
    as_link *gone;
    while ((gone = as__list_pop(&loop->gone)) != NULL) {
        free(AS_OWNER(gone, as_conn, all));
    }
}

/* Not left to close(): a child of the application's may have the socket as well. */
static void unwatch(const as_conn *conn) {
    if (conn->interest != 0) {
        (void)epoll_ctl(loop_of(conn)->epoll_fd, EPOLL_CTL_DEL, conn->transport.fd, NULL);
    }
}

/* A close that the client sees as a reset, so that it takes no part of an answer for the whole. */
static void set_reset(as_conn *conn) {
    if (!conn->info.is_unix) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(conn->transport.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
}

/* What the loop was to write later is ours again, as far as it has not left. */
static void take_back(as_conn *conn) {
    as_buf buf;
    size_t off;
    if (conn->late == 0) {
        return;
    }
    ssize_t n = as__late_take(loop_of(conn)->late, conn->late, &buf, &off);
    conn->late = 0;
    if (n > 0) {
        conn->progress |= WROTE;
        conn->wrote += (uint32_t)n;
        off += (size_t)n;
    }
    as_err err = as_outq_attach(&conn->h1.out, buf, off);
    err = n < 0 ? (as_err)n : err;
    if (conn->cut == AS_OK) {
        conn->cut = err;
    }
}

static void close_now(as_conn *conn, as_err why, bool reset) {
    if (conn->closed) {
        return;
    }
    as_loop *loop = loop_of(conn);
    take_back(conn);
    conn->closed = true; /* the handlers below reach the connection no more */
    as__link_remove(&conn->todo);
    as__link_remove(&conn->all);
    as__list_push(&loop->gone, &conn->all); /* callers and events may know it yet */
    as__timeout_remove(&loop->wheel, &conn->timeout);
    loop->nconns--;
    as__balance_tell(&loop->balance, loop->nconns);
    forget_proxy_header(conn);
    end_handshake(conn);
    as_h1_fini(&conn->h1, why);
    if (loop->config.handlers->on_close != NULL) {
        loop->config.handlers->on_close(loop->config.ctx, &conn->info);
    }
    if (reset) {
        set_reset(conn);
    }
    unwatch(conn);
    conn->transport.ops->close(&conn->transport, !reset && why != AS_E_RESET);
    as__loop_conn_gone(loop);
}

/* For the log, by its name in the table of errors. */
static void tell_refused(as_conn *conn, as_err why, as_slice detail) {
    const as_loop_config *config = &loop_of(conn)->config;
    if (config->handlers->on_refused != NULL) {
        config->handlers->on_refused(config->ctx, &conn->info, why, detail, 0);
    }
}

static void refuse(as_conn *conn, as_err why) {
    conn->cut = why;
    tell_refused(conn, why, AS_SLICE(""));
}

/* --- TLS -------------------------------------------------------------------------------------- */

/* Whoever opens connections and says nothing on them must not keep out the others. */
static void limit_handshakes(as_loop *loop) {
    uint32_t limit = loop->limits.limit_tls_handshakes;
    if (limit != 0 && loop->nhandshakes > limit) {
        as_conn *oldest = AS_OWNER(loop->handshakes.next, as_handshake, open)->conn;
        end_handshake(oldest);
        refuse(oldest, AS_E_TLS_CROWD);
        enqueue(oldest);
    }
}

static as_err begin_handshake(as_conn *conn) {
    as_loop *loop = loop_of(conn);
    as_handshake *handshake = malloc(sizeof(*handshake));
    if (handshake == NULL) {
        return AS_E_NOMEM;
    }
    handshake->conn = conn;
    as__list_push(&loop->handshakes, &handshake->open);
    conn->handshake = handshake;
    conn->greedy = 1; /* a step takes as long as dozens of requests */
    loop->nhandshakes++;
    return AS_OK;
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
    end_handshake(conn);
    as_h1_hang_up(&conn->h1, AS_E_TLS_HANDSHAKE);
    tell_refused(conn, AS_E_TLS_HANDSHAKE, as_tls_failure(conn->info.tls));
}

/* Not inlined, as it is no part of the way of a request. */
static __attribute__((noinline)) void read_failed(as_conn *conn, as_err why) {
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
        tell_refused(conn, why, as_tls_failure(conn->info.tls));
        break;
    default:
        conn->cut = why;
    }
}

static void handshake_expired(as_conn *conn) {
    if (conn->proxy != NULL && conn->proxy->len > 0) {
        refuse(conn, AS_E_PROXY_TRUNCATED);
    } else if (as_tls_begun(conn->info.tls)) {
        refuse(conn, AS_E_TIMEOUT_HANDSHAKE);
    } else {
        conn->cut = AS_E_CLOSED; /* somebody looked whether the port is open */
    }
}

/* --- the PROXY protocol ----------------------------------------------------------------------- */

/* From here on the connection is that of the client behind the proxy, who is believed about others
 * only if he is a proxy himself. */
static void introduce(as_conn *conn, const as_proxy_header *header) {
    const as_forwarding *forwarding = loop_of(conn)->config.forwarding;
    as_conn_info *info = &conn->info;
    if (header->kind == AS_PROXY_LOCAL) {
        return;
    }
    if (header->kind == AS_PROXY_UNKNOWN) {
        info->trusted = false;
        return;
    }
    info->is_unix = header->kind == AS_PROXY_UNIX;
    info->trusted = forwarding != NULL && as_trust_has(&forwarding->trust, &header->source);
    as_address_format(&header->source, info->client);
    info->client_port = header->source_port;
    info->server_port = header->destination_port;
    info->server = conn->server;
    if (info->is_unix) {
        memcpy(conn->server, header->path, sizeof(header->path));
    } else {
        as_address_format(&header->destination, conn->server);
    }
}

/* `fresh` is what was not looked at before. Sets `own` to how many of these bytes are the header's,
 * and `complete` when that is all of it; else they are kept. */
static as_err parse_proxy_header(as_conn *conn, as_slice fresh, as_proxy_header *out, size_t *own,
                                 bool *complete) {
    as_buf *bytes = conn->proxy;
    size_t before = bytes->len, size;
    as_slice all = fresh;
    if (before > 0) {
        if (as_buf_append(bytes, NULL, fresh.p, fresh.n) != AS_OK) {
            return AS_E_NOMEM;
        }
        all = (as_slice){bytes->data, bytes->len};
    }
    as_err err = as_proxy_parse(loop_of(conn)->config.proxy_protocol, all, out, &size);
    *complete = size > 0;
    *own = size > 0 ? size - before : fresh.n;
    if (err == AS_OK && size == 0 && before == 0) {
        err = as_buf_append(bytes, NULL, fresh.p, fresh.n);
    }
    return err;
}

/* The header is looked at while the kernel still has it, and only its own bytes are taken: whoever
 * reads next finds his first byte first. True when the header is behind. */
static bool read_proxy_header(as_conn *conn) {
    char *buf = loop_of(conn)->read_buf;
    int fd = conn->transport.fd;
    ssize_t n = recv(fd, buf, AS_PROXY_V2_MAX, MSG_PEEK);
    if (n == 0 && conn->proxy->len > 0) {
        refuse(conn, AS_E_PROXY_TRUNCATED);
    } else if (n == 0) {
        conn->cut = AS_E_CLOSED;
    } else if (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) {
        conn->cut = AS_E_RESET;
    } else if (n > 0 && !conn->may_introduce) {
        refuse(conn, AS_E_PROXY_PEER);
    }
    if (n <= 0 || conn->cut != AS_OK) {
        return false;
    }
    as_proxy_header header;
    size_t own;
    bool complete;
    as_err err = parse_proxy_header(conn, (as_slice){buf, (size_t)n}, &header, &own, &complete);
    if (err != AS_OK || recv(fd, buf, own, 0) != (ssize_t)own) {
        refuse(conn, err != AS_OK ? err : AS_E_IO);
        return false;
    }
    if (complete) {
        introduce(conn, &header);
        forget_proxy_header(conn);
    }
    return complete;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Whether it may read on, having filled so many buffers. */
static bool may_read_on(as_conn *conn, unsigned rounds) {
    const as_loop *loop = loop_of(conn);
    if (rounds < READ_ROUNDS && (!loop->crowded || conn->greedy > 0) &&
        as_microseconds() < loop->env.turn_end) {
        return true;
    }
    mark_greedy(conn);
    return false;
}

/* Bytes of a read: bounded, so that one client cannot keep the others waiting. */
static size_t read_size(const as_conn *conn) {
    const as_loop *loop = loop_of(conn);
    return loop->crowded && conn->greedy == 0 ? loop->share : AS_READ_BUFFER;
}

/* Reads what is there and feeds it. */
static inline void read_and_feed(as_conn *conn) {
    as_loop *loop = loop_of(conn);
    size_t size = read_size(conn);
    if (conn->proxy != NULL && !read_proxy_header(conn)) {
        return;
    }
    as__loop_tick_date(loop);
    for (unsigned round = 1;; round++) {
        int eof = 0;
        ssize_t n = conn->transport.ops->read(&conn->transport, loop->read_buf, size, &eof);
        if (n < 0) {
            read_failed(conn, (as_err)n);
            return;
        }
        if (eof) {
            as_h1_eof(&conn->h1);
            return;
        }
        if (n == 0) {
            return;
        }
        uint64_t requests = loop->env.requests_total;
        as_h1_feed(&conn->h1, loop->read_buf, (size_t)n);
        conn->got += (uint32_t)n;
        conn->progress |= GOT_BYTES;
        if (loop->env.requests_total != requests) {
            conn->progress |= GOT_REQUEST;
        }
        if ((size_t)n < size || conn->cut != AS_OK || conn->h1.yielded ||
            !as_h1_wants_read(&conn->h1) || !may_read_on(conn, round)) {
            return;
        }
    }
}

/* What came on a socket whose transport has nothing to say any more. Of TCP the kernel copies
 * nothing then (tcp(7)). */
static ssize_t drop(const as_conn *conn) {
    ssize_t n;
    do {
        n = recv(conn->transport.fd, loop_of(conn)->read_buf, AS_READ_BUFFER, MSG_TRUNC);
    } while (n < 0 && errno == EINTR);
    return n;
}

/* Reads and drops what a client still sends after our last answer; at its end, the connection is
 * cut. */
static void read_and_drop(as_conn *conn) {
    as_transport *t = &conn->transport;
    if (t->wants != 0) {
        t->ops->shutdown(t);
    }
    for (unsigned round = 0; t->wants == 0 && round < READ_ROUNDS; round++) {
        ssize_t n = drop(conn);
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            return;
        }
        if (n <= 0 || (size_t)n >= conn->linger_left) {
            conn->cut = AS_E_CLOSED;
            return;
        }
        conn->linger_left -= (uint32_t)n;
        conn->progress |= GOT_BYTES;
    }
}

/* --- writing ---------------------------------------------------------------------------------- */

/* Leaves what is beyond `max` bytes out. */
static void shorten(as_out *out, uint64_t max) {
    uint64_t kept = 0;
    if (out->n <= max) {
        return;
    }
    for (int i = 0; i < out->nvec; i++) {
        if (out->vec[i].iov_len >= max - kept) {
            out->vec[i].iov_len = (size_t)(max - kept);
            out->nvec = i + 1;
        }
        kept += out->vec[i].iov_len;
    }
    out->n = max;
}

/* The front of `out` to the kernel, once; `full`: the kernel takes no more now. */
static as_err write_once(as_conn *conn, as_out *out, bool *full) {
    as_transport *t = &conn->transport;
    ssize_t n;
    shorten(out, conn->room > WRITE_LEAST ? conn->room : WRITE_LEAST);
    if (out->nvec > 0) {
        n = t->ops->writev(t, out->vec, out->nvec);
        *full = n >= 0 && (uint64_t)n < out->n;
    } else {
        n = t->ops->sendfile(t, out->fd, out->off, out->n);
        *full = n == 0;
    }
    if (n < 0) {
        return (as_err)n;
    }
    if (n > 0) {
        conn->wrote += (uint32_t)n;
        conn->progress |= WROTE;
        conn->room = (uint64_t)n < conn->room ? conn->room - (uint32_t)n : 0;
        as_outq_taken(&conn->h1.out, (uint64_t)n);
    }
    return AS_OK;
}

/* Writes until the queue is empty, the kernel is full or the turn's room is used up: for what is
 * left then, the watcher comes back at once. */
static void flush(as_conn *conn) {
    take_back(conn);
    if (conn->flushing || conn->cut != AS_OK || conn->h1.out.size == 0) {
        return;
    }
    conn->flushing = true; /* as_outq_taken may run Python, which may write */
    bool full = false;
    as_out out;
    while (!full && conn->cut == AS_OK && conn->room > 0 && as_outq_peek(&conn->h1.out, &out)) {
        conn->cut = write_once(conn, &out, &full);
    }
    if (conn->room == 0) {
        mark_greedy(conn);
    }
    conn->flushing = false;
}

as_err as__conn_flush(as_h1 *h1) {
    as_conn *conn = conn_of(h1);
    if (conn->closed) {
        return AS_E_CLOSED;
    }
    flush(conn);
    if (conn->cut != AS_OK) {
        enqueue(conn);
        return AS_E_CLOSED;
    }
    return AS_OK;
}

/* Gives the queue to as_loop.late; false: it must be written now. TLS has its own buffers. */
static bool put_late(as_conn *conn) {
    as_buf buf;
    size_t off;
    if (conn->transport.tls != NULL || conn->cut != AS_OK || conn->flushing || conn->late != 0 ||
        !as_outq_detach(&conn->h1.out, &buf, &off)) {
        return false;
    }
    conn->late = (uint8_t)as__late_put(loop_of(conn)->late, &conn->transport, &buf, off, conn);
    if (conn->late == 0) {
        (void)as_outq_attach(&conn->h1.out, buf, off); /* the queue is empty: no memory is needed */
    }
    return conn->late != 0;
}

as_err as__conn_lend(as_h1 *h1) {
    as_conn *conn = conn_of(h1);
    if (conn->closed || !put_late(conn)) {
        return as__conn_flush(h1);
    }
    if (!as__late_guard(loop_of(conn)->late)) {
        return as__conn_flush(h1); /* without a thread nobody else would write */
    }
    return AS_OK;
}

void as__conn_reclaim(as_h1 *h1) {
    as_conn *conn = conn_of(h1);
    take_back(conn);
    if (conn->cut != AS_OK && !conn->closed) {
        enqueue(conn);
    }
}

/* --- timeouts --------------------------------------------------------------------------------- */

static wait_kind waits_for(const as_conn *conn) {
    if (conn->lingering) {
        return conn->transport.wants == 0 ? WAIT_LINGER : WAIT_WRITE;
    }
    if (conn->h1.out.size > 0) {
        return WAIT_WRITE;
    }
    switch (as_h1_get_phase(&conn->h1)) {
    case AS_H1_IDLE:
        return loop_of(conn)->env.draining   ? WAIT_LAST
               : conn->h1.served             ? WAIT_KEEP_ALIVE
               : conn->transport.handshaking ? WAIT_HANDSHAKE
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

/* Milliseconds that an idle connection has for a request while draining. */
static uint32_t last_wait(const as_conn *conn) {
    as_loop *loop = loop_of(conn);
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
    const as_limits *limits = &loop_of(conn)->limits;
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
        return shorter(last_wait(conn),
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
        return GOT_REQUEST;
    case WAIT_BODY:
    case WAIT_LINGER:
        return GOT_BYTES;
    case WAIT_WRITE:
        return WROTE;
    case WAIT_ALARM:
        return ALARM_SET;
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
    const as_limits *limits = &loop_of(conn)->limits;
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

static void set_timeout(as_conn *conn) {
    as_loop *loop = loop_of(conn);
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

/* The kernel has got rid of more for a client that reads on: true, and the wait goes on. */
static bool goes_on_reading(as_conn *conn) {
    as_loop *loop = loop_of(conn);
    uint64_t time = prolonged(conn, WAIT_WRITE, 0, count_taken(conn));
    if (time > 0) {
        uint64_t now = as__loop_now(loop);
        conn->waiting = WAIT_WRITE;
        as__timeout_set(&loop->wheel, &conn->timeout, now, now + time);
    }
    return time > 0;
}

/* --- watching --------------------------------------------------------------------------------- */

static uint8_t wanted_interest(const as_conn *conn) {
    uint8_t interest = conn->transport.wants;
    if (conn->lingering ? interest == 0 : as_h1_wants_read(&conn->h1)) {
        interest |= EPOLLIN;
    }
    if (conn->h1.out.size > 0) {
        interest |= EPOLLOUT;
    }
    /* Where neither is wanted (the client has half-closed, or sends faster than the application
     * reads), a reset must be seen nevertheless: priority data is what no client sends. */
    return interest != 0 ? interest : EPOLLPRI;
}

/* Only once there is something to wait for: a connection that is over with its first read, as are
 * many that carry a single request, costs the kernel's set nothing. */
static void watch(as_conn *conn) {
    as_loop *loop = loop_of(conn);
    uint8_t interest = wanted_interest(conn);
    if (interest == conn->interest) {
        return;
    }
    struct epoll_event wanted = {.events = interest, .data.ptr = conn};
    int what = conn->interest != 0 ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(loop->epoll_fd, what, conn->transport.fd, &wanted) == 0) {
        conn->interest = interest;
        return;
    }
    if (what == EPOLL_CTL_ADD) {
        as__listeners_pause(loop, errno); /* no more are taken for a while */
    }
    conn->cut = AS_E_IO;
    enqueue(conn);
}

/* --- work ------------------------------------------------------------------------------------- */

/* Our side is finished, but closing now would make the kernel answer bytes that are still under way
 * with a reset, which can destroy our last answer before the client has read it (RFC 9112, 9.6). */
static bool start_lingering(as_conn *conn) {
    uint32_t time = loop_of(conn)->limits.timeout_linger;
    as_transport *t = &conn->transport;
    if (!as_h1_wants_linger(&conn->h1) || (conn->h1.eof && t->tls == NULL) || time == 0) {
        return false;
    }
    t->ops->shutdown(t);
    if (conn->h1.eof && t->wants == 0) {
        return false; /* the client is finished, too */
    }
    conn->lingering = true;
    conn->greedy = 0; /* what is dropped costs next to nothing */
    conn->linger_left = LINGER_BYTES;
    conn->linger_end = as__loop_now(loop_of(conn)) + (uint64_t)time * LINGER_TIMES;
    return true;
}

/* The gateway can be told to write on. */
static bool drain_due(const as_conn *conn) {
    const as_h1 *h1 = &conn->h1;
    return h1->above_high && h1->phase < AS_H1_CLOSING &&
           h1->out.size <= loop_of(conn)->limits.limit_write_buffer / 4;
}

/* Lets the protocol and the gateway go on. */
static void resume(as_conn *conn) {
    uint64_t requests = loop_of(conn)->env.requests_total;
    as_h1_resume(&conn->h1);
    if (loop_of(conn)->env.requests_total != requests) {
        conn->progress |= GOT_REQUEST;
    }
}

/* Writes, and lets a gateway that waited for it write on. */
static void flush_and_resume(as_conn *conn) {
    for (unsigned round = 0; round < WORK_ROUNDS; round++) {
        flush(conn);
        if (conn->cut != AS_OK || !drain_due(conn)) {
            return;
        }
        resume(conn);
    }
    enqueue(conn);
}

/* Something came since the socket was looked at: a request of the last moment, which closing would
 * answer by a reset. */
static bool has_unread(const as_conn *conn) {
    char byte;
    return recv(conn->transport.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* The server stops: an idle connection closes, unless a request may be under way. */
static void close_if_drained(as_conn *conn) {
    if (!loop_of(conn)->env.draining || as_h1_get_phase(&conn->h1) != AS_H1_IDLE ||
        last_wait(conn) != 0) {
        return;
    }
    if (has_unread(conn)) {
        conn->fresh = true;
        enqueue(conn);
    } else {
        as_h1_drain(&conn->h1);
    }
}

static bool is_finished(as_conn *conn) {
    as_h1_phase phase = as_h1_get_phase(&conn->h1);
    return phase == AS_H1_DEAD || (phase == AS_H1_CLOSING && conn->h1.out.size == 0 &&
                                   !conn->lingering && !start_lingering(conn));
}

/* What waits in the transport: no event of the socket will tell. */
static __attribute__((noinline)) void enqueue_buffered(as_conn *conn) {
    if ((conn->interest & EPOLLIN) == 0) {
        return;
    }
    if (conn->greedy > 0) {
        enqueue_behind(conn);
    } else {
        enqueue(conn);
    }
}

/* Makes everything follow what the protocol wants now. Closes `conn` when that is its end. */
static void work(as_conn *conn) {
    take_back(conn);
    if (conn->cut == AS_OK && !conn->lingering) {
        flush_and_resume(conn);
        close_if_drained(conn);
    }
    if (conn->cut != AS_OK) {
        /* A client that left, and an idle connection, take nothing amiss. */
        bool reset = conn->h1.ex != NULL || conn->h1.out.size > 0;
        close_now(conn, conn->cut, reset);
        return;
    }
    if (is_finished(conn)) {
        bool dead = as_h1_get_phase(&conn->h1) == AS_H1_DEAD;
        close_now(conn, conn->h1.error != AS_OK ? conn->h1.error : AS_E_CLOSED, dead);
        return;
    }
    watch(conn);
    set_timeout(conn);
    if (conn->h1.yielded) {
        mark_greedy(conn);
        conn->resume = true;
        enqueue_behind(conn);
    }
    if (conn->transport.buffered) {
        enqueue_buffered(conn);
    }
}

/* What was answered leaves with the answers to others, at the end of the loop's turn. */
static bool may_wait(const as_conn *conn) {
    return conn->cut == AS_OK && !conn->lingering && conn->h1.phase < AS_H1_TUNNEL &&
           !conn->h1.above_high && !loop_of(conn)->env.draining;
}

/* Before handlers run: answers that have waited long enough leave; a thread looks after the others.
 * False: that has closed `conn`. */
static bool may_run_handlers(const as_conn *conn) {
    as_loop *loop = loop_of(conn);
    if (as__late_any(loop->late) && (as__late_is_due(loop->late) || !as__late_guard(loop->late))) {
        as__conn_work_late(loop);
    }
    return !conn->closed;
}

/* Its time is over. */
static void run_out(as_conn *conn) {
    wait_kind kind = (wait_kind)conn->waiting;
    conn->expired = false;
    conn->waiting = WAIT_NONE;
    switch (kind) {
    case WAIT_HANDSHAKE:
        handshake_expired(conn);
        break;
    case WAIT_WRITE:
        if (!goes_on_reading(conn)) {
            refuse(conn, AS_E_TIMEOUT_WRITE);
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
        if (as_h1_get_phase(&conn->h1) == AS_H1_IDLE && has_unread(conn)) {
            conn->fresh = true;
            return;
        }
        if (conn->proxy != NULL && conn->proxy->len > 0) {
            refuse(conn, AS_E_PROXY_TRUNCATED);
        }
        as_h1_timeout(&conn->h1);
        break;
    }
}

/* What it may do begins anew. */
static void begin_turn(as_conn *conn) {
    conn->room = !loop_of(conn)->crowded ? WRITE_MAX
                 : conn->greedy == 0     ? WRITE_CROWDED
                                         : WRITE_GREEDY;
    if (conn->greedy > 0 && conn->handshake == NULL) {
        conn->greedy--;
    }
}

static void on_ready(as_conn *conn, uint32_t events);

void as__conn_work(as_link *todo) {
    as_conn *conn = AS_OWNER(todo, as_conn, todo);
    uint32_t ready = conn->ready & conn->interest;
    conn->ready = 0;
    if (!may_run_handlers(conn)) {
        return;
    }
    begin_turn(conn);
    if (conn->expired) {
        run_out(conn);
    }
    if (conn->cut == AS_OK && !conn->lingering) {
        if (conn->drain) {
            conn->drain = false;
            conn->waiting = WAIT_NONE; /* its time is another now */
        }
        if (conn->disconnect) {
            conn->disconnect = false;
            as_h1_disconnect(&conn->h1);
        }
        if (conn->resume) {
            conn->resume = false;
            resume(conn);
        }
        if (conn->fresh || (conn->transport.buffered && as_h1_wants_read(&conn->h1))) {
            conn->fresh = false;
            ready |= EPOLLIN; /* as if the socket had become readable now */
        }
    }
    if (ready != 0) {
        on_ready(conn, ready);
    } else {
        work(conn);
    }
}

/* Neither readable nor writable was asked for: a reset, a hang-up, or urgent data that nobody
 * wants. */
static void on_priority(as_conn *conn) {
    int error = 0;
    socklen_t len = sizeof(error);
    char byte;
    if (getsockopt(conn->transport.fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0 ||
        recv(conn->transport.fd, &byte, 1, MSG_OOB | MSG_DONTWAIT) != 1) {
        conn->cut = AS_E_RESET;
    }
}

static void on_ready(as_conn *conn, uint32_t events) {
    if (!may_run_handlers(conn)) {
        return;
    }
    if (conn->cut == AS_OK && (events & (EPOLLIN | conn->transport.wants)) != 0) {
        if (conn->lingering) {
            read_and_drop(conn);
        } else {
            read_and_feed(conn);
        }
        if (conn->handshake != NULL && !conn->transport.handshaking) {
            end_handshake(conn);
        }
    } else if (conn->cut == AS_OK && (events & EPOLLPRI) != 0) {
        on_priority(conn);
    }
    if (!may_wait(conn) || !put_late(conn)) {
        work(conn);
    }
}

bool as__conn_event(as_conn *conn, uint32_t events) {
    if (conn->closed) {
        return false;
    }
    uint32_t wanted = events & conn->interest;
    if ((events & EPOLLERR) != 0 && wanted != EPOLLPRI) {
        conn->cut = AS_E_RESET;
    } else if (wanted == 0 && (events & EPOLLHUP) != 0) {
        wanted = conn->interest; /* both sides have ended: whoever reads or writes learns it */
    } else if (wanted == 0) {
        return false; /* what it is watched for has changed since */
    }
    if (conn->greedy > 0 && conn->cut == AS_OK) {
        conn->ready |= (uint8_t)wanted;
        enqueue_behind(conn);
        return false;
    }
    begin_turn(conn);
    on_ready(conn, wanted);
    return true;
}

/* Many may run out of time at once, and to close a connection can take a while: where the kernel
 * has much to forget. */
void as__conn_expire(as_timeout *timeout) {
    as_conn *conn = AS_OWNER(timeout, as_conn, timeout);
    conn->expired = true;
    enqueue_behind(conn);
}

/* Those that come meanwhile have their turn with the next one. */
void as__conn_work_late(as_loop *loop) {
    unsigned at = 0;
    as_conn *conn;
    while ((conn = as__late_next(loop->late, &at)) != NULL) {
        work(conn);
    }
    if (as__late_any(loop->late)) {
        as__loop_again(loop);
    }
}

void as__conn_flush_late(as_loop *loop) {
    unsigned at = 0;
    as_conn *conn;
    while ((conn = as__late_next(loop->late, &at)) != NULL) {
        flush(conn);
    }
}

/* --- from outside of events ------------------------------------------------------------------- */

/* Nothing is left to do that needs the loop: the usual case of an answer that is written at once.
 */
static bool is_settled(const as_conn *conn) {
    const as_h1 *h1 = &conn->h1;
    return conn->cut == AS_OK && h1->phase < AS_H1_CLOSING && h1->pending.len == 0 && !h1->eof &&
           !h1->above_high && !h1->env->draining && wanted_interest(conn) == conn->interest;
}

void as__conn_notify(as_h1 *h1) {
    as_conn *conn = conn_of(h1);
    if (conn->closed) {
        return;
    }
    flush(conn);
    if (is_settled(conn)) {
        set_timeout(conn);
        as__loop_timer(loop_of(conn));
        return;
    }
    conn->resume = true;
    enqueue(conn);
}

void as__conn_flush_soon(as_h1 *h1) {
    as_conn *conn = conn_of(h1);
    if (!conn->closed) {
        enqueue(conn);
    }
}

void as__conn_set_alarm(as_h1 *h1, uint32_t ms) {
    as_conn *conn = conn_of(h1);
    conn->alarm = ms;
    conn->progress |= ALARM_SET;
    if (!h1->feeding && !conn->closed) {
        set_timeout(conn);
        as__loop_timer(loop_of(conn));
    }
}

void as__conn_drain_all(as_loop *loop) {
    for (as_link *at = loop->conns.next; at != &loop->conns; at = at->next) {
        as_conn *conn = AS_OWNER(at, as_conn, all);
        conn->drain = true;
        enqueue(conn);
    }
}

void as__conn_disconnect_all(as_loop *loop) {
    for (as_link *at = loop->conns.next; at != &loop->conns; at = at->next) {
        as_conn *conn = AS_OWNER(at, as_conn, all);
        if (conn->h1.ex != NULL) {
            conn->disconnect = true;
            enqueue(conn);
        }
    }
}

void as__conn_forked_all(as_loop *loop, int null) {
    for (as_link *at = loop->conns.next; at != &loop->conns; at = at->next) {
        (void)dup3(null, AS_OWNER(at, as_conn, all)->transport.fd, O_CLOEXEC);
    }
}

unsigned as__conn_cut_all(as_loop *loop) {
    unsigned exchanges = 0;
    for (as_link *at = loop->conns.next; at != &loop->conns; at = at->next) {
        as_conn *conn = AS_OWNER(at, as_conn, all);
        exchanges += conn->h1.ex != NULL;
        if (conn->cut == AS_OK) {
            conn->cut = AS_E_SHUTDOWN;
        }
        enqueue(conn);
    }
    return exchanges;
}

/* --- opening ---------------------------------------------------------------------------------- */

static void describe(as_conn *conn, const as_listener *listener, const struct sockaddr *peer) {
    as_conn_info *info = &conn->info;
    info->is_unix = listener->is_unix;
    info->is_tls = listener->tls != NULL;
    info->tls = as_tls_of(&conn->transport);
    info->server = listener->server;
    info->server_port = listener->port;
    as_address address = as_address_of_socket(peer);
    const as_loop_config *config = &loop_of(conn)->config;
    if (address.n > 0 || info->is_unix) {
        info->trusted =
            config->forwarding != NULL && as_trust_has(&config->forwarding->trust, &address);
        conn->may_introduce =
            config->proxy_trust != NULL && as_trust_has(config->proxy_trust, &address);
    }
    as__format_address(peer, info->client, &info->client_port);
    if (listener->wildcard) {
        struct sockaddr_storage own = {.ss_family = AF_UNSPEC};
        socklen_t len = sizeof(own);
        (void)getsockname(conn->transport.fd, (struct sockaddr *)&own, &len);
        as__format_address((struct sockaddr *)&own, conn->server, &info->server_port);
        info->server = conn->server;
    }
}

static as_conn *allocate(const as_loop *loop, const as_listener *listener) {
    bool proxied = loop->config.proxy_protocol != AS_PROXY_OFF;
    as_conn *conn = calloc(1, sizeof(*conn) + (proxied              ? AS_SERVER_MAX
                                               : listener->wildcard ? AS_ADDRESS_MAX
                                                                    : 0));
    if (conn != NULL && proxied && (conn->proxy = calloc(1, sizeof(*conn->proxy))) == NULL) {
        free(conn);
        return NULL;
    }
    return conn;
}

/* Takes over `fd`, also when it fails. */
static as_err open_transport(as_conn *conn, const as_listener *listener, int fd) {
    as_loop *loop = loop_of(conn);
    as_tcp_transport_init(&conn->transport, fd);
    as_err err = AS_OK;
    if (listener->tls != NULL) {
        err = as_tls_transport_init(&conn->transport, fd, listener->tls, loop->tls_scratch);
    }
    if (err == AS_OK && listener->tls != NULL) {
        err = begin_handshake(conn);
    }
    if (err != AS_OK) {
        conn->transport.ops->close(&conn->transport, false);
    }
    return err;
}

as_err as__conn_open(as_loop *loop, const as_listener *listener, int fd,
                     const struct sockaddr *peer) {
    as_conn *conn = allocate(loop, listener);
    if (conn == NULL) {
        (void)close(fd);
        return AS_E_NOMEM;
    }
    as_h1_init(&conn->h1, &loop->env, &conn->info);
    as_err err = open_transport(conn, listener, fd);
    if (err != AS_OK) {
        forget_proxy_header(conn);
        free(conn);
        return err;
    }
    as__link_init(&conn->todo);
    as__timeout_init(&conn->timeout);
    conn->opened = as__loop_now(loop);
    describe(conn, listener, peer);
    as__list_push(&loop->conns, &conn->all);
    loop->nconns++;
    as__balance_tell(&loop->balance, loop->nconns);
    loop->conns_total++;
    if (conn->handshake != NULL) {
        watch(conn); /* a step of it is not to be wasted where nothing came yet */
        limit_handshakes(loop);
    } else {
        conn->fresh = true;
        as__list_push(&loop->todo, &conn->todo);
    }
    set_timeout(conn);
    return AS_OK;
}

/* A connection's life:
 *
 *   open -> [TLS handshake] -> (readable: read, feed -> work)* -> [linger: shut down, read and
 * drop] -> close
 *
 * `work` is the one place that looks at what the protocol wants (as_h1_get_phase, as_h1_wants_read,
 * `out`) and makes what the socket is watched for and the timeout follow; it runs at the end of
 * every event, and from the loop's todo list for what happened outside of events. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "net/conn_internal.h"
#include "net/listener.h"
#include "net/tls.h"

#define WORK_ROUNDS 8u /* times drained and filled again in one turn */

/* How long lingering goes on while bytes keep coming. */
#define LINGER_BYTES ((uint32_t)64 * 1024 * 1024)
#define LINGER_TIMES 15u /* timeout_linger in all */

void as__conn_enqueue(as_conn *conn) {
    if (!as__link_linked(&conn->todo)) {
        as__list_push(&as__loop_of(conn)->todo, &conn->todo);
    }
    as__loop_again(as__loop_of(conn));
}

void as__conn_enqueue_behind(as_conn *conn) {
    if (!as__link_linked(&conn->todo)) {
        as__list_push(&as__loop_of(conn)->greedy, &conn->todo);
    }
}

/* --- closing ---------------------------------------------------------------------------------- */

void as__conn_free_gone(as_loop *loop) {
    as_link *gone;
    while ((gone = as__list_pop(&loop->gone)) != NULL) {
        free(AS_OWNER(gone, as_conn, all));
    }
}

/* Not left to close(): a child of the application's may have the socket as well. */
static void unwatch(const as_conn *conn) {
    if (conn->interest != 0) {
        (void)epoll_ctl(as__loop_of(conn)->epoll_fd, EPOLL_CTL_DEL, conn->transport.fd, NULL);
    }
}

/* A close that the client sees as a reset, so that it takes no part of an answer for the whole. */
static void set_reset(as_conn *conn) {
    if (!conn->info.is_unix) {
        struct linger now = {.l_onoff = 1, .l_linger = 0};
        (void)setsockopt(conn->transport.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
    }
}

static void close_now(as_conn *conn, as_err why, bool reset) {
    if (conn->closed) {
        return;
    }
    as_loop *loop = as__loop_of(conn);
    as__conn_take_back(conn);
    conn->closed = true; /* the handlers below reach the connection no more */
    as__link_remove(&conn->todo);
    as__link_remove(&conn->all);
    as__list_push(&loop->gone, &conn->all); /* callers and events may know it yet */
    as__timeout_remove(&loop->wheel, &conn->timeout);
    loop->nconns--;
    as__balance_tell(&loop->balance, loop->nconns);
    as__conn_forget_proxy_header(conn);
    as__conn_end_handshake(conn);
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

void as__conn_tell_refused(as_conn *conn, as_err why, as_slice detail) {
    const as_loop_config *config = &as__loop_of(conn)->config;
    if (config->handlers->on_refused != NULL) {
        config->handlers->on_refused(config->ctx, &conn->info, why, detail, 0);
    }
}

void as__conn_refuse(as_conn *conn, as_err why) {
    conn->cut = why;
    as__conn_tell_refused(conn, why, AS_SLICE(""));
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
    as_loop *loop = as__loop_of(conn);
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
    as__conn_enqueue(conn);
}

/* --- work ------------------------------------------------------------------------------------- */

/* Our side is finished, but closing now would make the kernel answer bytes that are still under way
 * with a reset, which can destroy our last answer before the client has read it (RFC 9112, 9.6). */
static bool start_lingering(as_conn *conn) {
    uint32_t time = as__loop_of(conn)->limits.timeout_linger;
    as_transport *t = &conn->transport;
    if (!as_h1_wants_linger(&conn->h1) || (conn->h1.eof && t->tls == NULL) || time == 0) {
        return false;
    }
    t->ops->shutdown(t);
    if (conn->h1.eof && t->wants == 0) {
        return false; /* the client is finished, too */
    }
    conn->lingering = true;
    conn->share.greedy = 0; /* what is dropped costs next to nothing */
    conn->linger_left = LINGER_BYTES;
    conn->linger_end = as__loop_now(as__loop_of(conn)) + (uint64_t)time * LINGER_TIMES;
    return true;
}

/* The gateway can be told to write on. */
static bool drain_due(const as_conn *conn) {
    const as_h1 *h1 = &conn->h1;
    return h1->above_high && h1->phase < AS_H1_CLOSING &&
           h1->out.size <= as__loop_of(conn)->limits.limit_write_buffer / 4;
}

/* Lets the protocol and the gateway go on. */
static void resume(as_conn *conn) {
    uint64_t requests = as__loop_of(conn)->env.requests_total;
    as_h1_resume(&conn->h1);
    if (as__loop_of(conn)->env.requests_total != requests) {
        conn->progress |= AS_GOT_REQUEST;
    }
}

/* Writes, and lets a gateway that waited for it write on. */
static void flush_and_resume(as_conn *conn) {
    for (unsigned round = 0; round < WORK_ROUNDS; round++) {
        as__conn_write(conn);
        if (conn->cut != AS_OK || !drain_due(conn)) {
            return;
        }
        resume(conn);
    }
    as__conn_enqueue(conn);
}

bool as__conn_has_unread(const as_conn *conn) {
    char byte;
    return recv(conn->transport.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

/* The server stops: an idle connection closes, unless a request may be under way. */
static void close_if_drained(as_conn *conn) {
    if (!as__loop_of(conn)->env.draining || as_h1_get_phase(&conn->h1) != AS_H1_IDLE ||
        as__conn_last_wait(conn) != 0) {
        return;
    }
    if (as__conn_has_unread(conn)) {
        conn->fresh = true;
        as__conn_enqueue(conn);
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
    if (conn->share.greedy > 0) {
        as__conn_enqueue_behind(conn);
    } else {
        as__conn_enqueue(conn);
    }
}

/* Makes everything follow what the protocol wants now. Closes `conn` when that is its end. */
static void work(as_conn *conn) {
    as__conn_take_back(conn);
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
    as__conn_set_timeout(conn);
    if (conn->h1.yielded) {
        as__share_mark_greedy(&conn->share);
        conn->resume = true;
        as__conn_enqueue_behind(conn);
    }
    if (conn->transport.buffered) {
        enqueue_buffered(conn);
    }
}

/* What was answered leaves with the answers to others, at the end of the loop's turn. */
static bool may_wait(const as_conn *conn) {
    return conn->cut == AS_OK && !conn->lingering && conn->h1.phase < AS_H1_TUNNEL &&
           !conn->h1.above_high && !as__loop_of(conn)->env.draining;
}

/* Before handlers run: answers that have waited long enough leave; a thread looks after the others.
 * False: that has closed `conn`. */
static bool may_run_handlers(const as_conn *conn) {
    as_loop *loop = as__loop_of(conn);
    if (as__late_any(loop->late) && (as__late_is_due(loop->late) || !as__late_guard(loop->late))) {
        as__conn_work_late(loop);
    }
    return !conn->closed;
}

static void begin_turn(as_conn *conn) {
    as__share_begin(&conn->share, &as__loop_of(conn)->turn, conn->handshake == NULL);
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
        as__conn_run_out(conn);
    }
    if (conn->cut == AS_OK && !conn->lingering) {
        if (conn->drain) {
            conn->drain = false;
            as__conn_renew_timeout(conn);
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
            as__conn_drop(conn);
        } else {
            as__conn_read(conn);
        }
        if (conn->handshake != NULL && !conn->transport.handshaking) {
            as__conn_end_handshake(conn);
        }
    } else if (conn->cut == AS_OK && (events & EPOLLPRI) != 0) {
        on_priority(conn);
    }
    if (!may_wait(conn) || !as__conn_put_late(conn)) {
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
    if (conn->share.greedy > 0 && conn->cut == AS_OK) {
        conn->ready |= (uint8_t)wanted;
        as__conn_enqueue_behind(conn);
        return false;
    }
    begin_turn(conn);
    on_ready(conn, wanted);
    return true;
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
        as__conn_write(conn);
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
    as_conn *conn = as__conn_of(h1);
    if (conn->closed) {
        return;
    }
    as__conn_write(conn);
    if (is_settled(conn)) {
        as__conn_set_timeout(conn);
        as__loop_timer(as__loop_of(conn));
        return;
    }
    conn->resume = true;
    as__conn_enqueue(conn);
}

void as__conn_flush_soon(as_h1 *h1) {
    as_conn *conn = as__conn_of(h1);
    if (!conn->closed) {
        as__conn_enqueue(conn);
    }
}

void as__conn_drain_all(as_loop *loop) {
    for (as_link *at = loop->conns.next; at != &loop->conns; at = at->next) {
        as_conn *conn = AS_OWNER(at, as_conn, all);
        conn->drain = true;
        as__conn_enqueue(conn);
    }
}

void as__conn_disconnect_all(as_loop *loop) {
    for (as_link *at = loop->conns.next; at != &loop->conns; at = at->next) {
        as_conn *conn = AS_OWNER(at, as_conn, all);
        if (conn->h1.ex != NULL) {
            conn->disconnect = true;
            as__conn_enqueue(conn);
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
        as__conn_enqueue(conn);
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
    const as_loop_config *config = &as__loop_of(conn)->config;
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
    as_loop *loop = as__loop_of(conn);
    as_tcp_transport_init(&conn->transport, fd);
    as_err err = AS_OK;
    if (listener->tls != NULL) {
        err = as_tls_transport_init(&conn->transport, fd, listener->tls, loop->tls_scratch);
    }
    if (err == AS_OK && listener->tls != NULL) {
        err = as__conn_begin_handshake(conn);
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
        as__conn_forget_proxy_header(conn);
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
        as__loop_limit_handshakes(loop);
    } else {
        conn->fresh = true;
        as__list_push(&loop->todo, &conn->todo);
    }
    as__conn_set_timeout(conn);
    return AS_OK;
}

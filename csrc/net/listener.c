#include "net/listener.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "net/conn.h"
#include "net/tls.h"

#define ACCEPT_MAX 16u   /* connections taken at once, before the others are served again */
#define UNSENT_MAX (256 * 1024) /* bytes that the kernel keeps beyond what it may send */
#define QUEUE_MAX 65536u /* connections taken before accepting ends: a backlog's largest size */
#define RETRY_AFTER 500u /* milliseconds without a connection that closed, then accepting is tried */
#define YIELD_TIME 1000000 /* nanoseconds that other processes have to take connections */

void as__format_address(const struct sockaddr *address, char *out, uint16_t *port) {
    out[0] = '\0';
    *port = 0;
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        (void)inet_ntop(AF_INET, &in->sin_addr, out, AS_ADDRESS_MAX);
        *port = ntohs(in->sin_port);
    } else if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
        *port = ntohs(in6->sin6_port);
        if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
            (void)inet_ntop(AF_INET, &in6->sin6_addr.s6_addr[12], out, AS_ADDRESS_MAX);
            return;
        }
        (void)inet_ntop(AF_INET6, &in6->sin6_addr, out, AS_ADDRESS_MAX);
        char zone[IF_NAMESIZE];
        if (IN6_IS_ADDR_LINKLOCAL(&in6->sin6_addr) &&
            if_indextoname(in6->sin6_scope_id, zone) != NULL) {
            size_t n = strlen(out);
            (void)snprintf(out + n, AS_ADDRESS_MAX - n, "%%%s", zone);
        }
    }
}

static bool is_wildcard(const struct sockaddr *address) {
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;
        return in->sin_addr.s_addr == htonl(INADDR_ANY);
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;
        return IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
    }
    return false;
}

/* A path is not always terminated; that of an abstract socket starts with a NUL, usually written
 * '@'. */
static void format_path(const struct sockaddr_un *address, socklen_t len, char out[AS_SERVER_MAX]) {
    size_t n = len > offsetof(struct sockaddr_un, sun_path)
                   ? (size_t)len - offsetof(struct sockaddr_un, sun_path)
                   : 0;
    memcpy(out, address->sun_path, n);
    out[n] = '\0';
    if (n > 0 && out[0] == '\0') {
        out[0] = '@';
    }
}

static void watch_none(as_loop *loop) {
    for (as_link *at = loop->listeners.next; at != &loop->listeners; at = at->next) {
        as_listener *listener = AS_OWNER(at, as_listener, link);
        if (!listener->closed) {
            (void)uv_poll_stop(&listener->poll);
        }
    }
}

/* Stops accepting until as__listeners_resume. `why` goes to the log, once until the queue of
 * waiting clients was empty again. */
static void pause_accepting(as_loop *loop, const char *why) {
    if (loop->accept_paused) {
        return;
    }
    loop->accept_paused = true;
    watch_none(loop);
    if (!loop->accept_noticed) {
        loop->accept_noticed = true;
        char text[160];
        (void)snprintf(text, sizeof(text), "accepting connections stopped: %s", why);
        as__loop_notice(loop, AS_NOTICE_WARNING, text);
    }
}

void as__listeners_pause(as_loop *loop, int error) {
    pause_accepting(loop, uv_strerror(uv_translate_sys_error(error)));
    uint64_t now = as__loop_now(loop);
    as__timeout_set(&loop->wheel, &loop->accept_retry, now, now + RETRY_AFTER);
}

/* Errors of the one connection that was about to be accepted (accept(2)): the next one may be fine.
 */
static bool concerns_one_client(int error) {
    switch (error) {
    case EINTR:
    case ECONNABORTED:
    case EPROTO:
    case EPERM: /* a firewall rule */
    case ENETDOWN:
    case ENOPROTOOPT:
    case EHOSTDOWN:
    case ENONET:
    case EHOSTUNREACH:
    case EOPNOTSUPP:
    case ENETUNREACH:
    case ETIMEDOUT:
        return true;
    default:
        return false;
    }
}

static bool is_full(const as_loop *loop) {
    return loop->limits.limit_connections != 0 && loop->nconns >= loop->limits.limit_connections;
}

/* For a moment: they have fewer connections. */
static void leave_to_others(as_loop *loop) {
    const struct itimerspec moment = {.it_value = {.tv_nsec = YIELD_TIME}};
    if (timerfd_settime(loop->yield_fd, 0, &moment, NULL) == 0) {
        watch_none(loop);
    }
}

/* One connection; false: no more now. */
static bool accept_one(as_listener *listener) {
    as_loop *loop = listener->loop;
    struct sockaddr_storage peer = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof(peer);
    int fd = accept4(listener->fd, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        if (as__conn_open(loop, listener, fd, (struct sockaddr *)&peer) != AS_OK) {
            as__listeners_pause(loop, ENOMEM);
            return false;
        }
        return true;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
        as__balance_rest(&loop->balance);
        if (loop->accept_noticed) {
            loop->accept_noticed = false;
            as__loop_notice(loop, AS_NOTICE_WARNING, "accepting connections goes on");
        }
        return false;
    }
    if (concerns_one_client(errno)) {
        return true;
    }
    as__listeners_pause(loop, errno);
    return false;
}

static void on_readable(uv_poll_t *handle, int status, int events) {
    (void)events;
    as_listener *listener = AS_OWNER(handle, as_listener, poll);
    if (status < 0) {
        as__listeners_pause(listener->loop, -status);
        return;
    }
    if (is_full(listener->loop)) {
        pause_accepting(listener->loop, "as many connections as limit_connections allows");
        return;
    }
    for (unsigned i = 0; i < ACCEPT_MAX && !is_full(listener->loop); i++) {
        listener->loop->turn.crowded = listener->loop->turn.crowded || i >= AS_CROWD;
        if (!as__balance_may_accept(&listener->loop->balance, listener->loop->nconns)) {
            leave_to_others(listener->loop);
            break;
        }
        if (!accept_one(listener)) {
            break;
        }
    }
}

static void watch_all(as_loop *loop) {
    for (as_link *at = loop->listeners.next; at != &loop->listeners; at = at->next) {
        as_listener *listener = AS_OWNER(at, as_listener, link);
        if (!listener->closed) {
            (void)uv_poll_start(&listener->poll, UV_READABLE, on_readable);
        }
    }
    as__loop_again(loop);
}

static as_err describe(as_listener *listener) {
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    if (getsockname(listener->fd, (struct sockaddr *)&address, &len) != 0) {
        return AS_E_IO;
    }
    listener->is_unix = address.ss_family == AF_UNIX;
    if (listener->is_unix) {
        format_path((struct sockaddr_un *)&address, len, listener->server);
        return AS_OK;
    }
    as__format_address((struct sockaddr *)&address, listener->server, &listener->port);
    listener->wildcard = is_wildcard((struct sockaddr *)&address);
    /* Answers leave in whole batches: waiting for more to send with them only costs time. Accepted
     * sockets inherit the option on Linux, where this saves a call for each of them. */
    int on = 1;
    (void)setsockopt(listener->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* Else it takes up to 4 MiB for a client that reads nothing, and as long to forget them. */
    int unsent = UNSENT_MAX;
    (void)setsockopt(listener->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
    return AS_OK;
}

/* --- several processes ------------------------------------------------------------------------ */

static void on_yielded(uv_poll_t *handle, int status, int events) {
    (void)status;
    (void)events;
    as_loop *loop = AS_OWNER(handle, as_loop, yield);
    uint64_t times;
    ssize_t n = read(loop->yield_fd, &times, sizeof(times));
    (void)n; /* it only has to be readable no more */
    as__balance_waited(&loop->balance, loop->nconns);
    if (!loop->accept_paused) {
        watch_all(loop);
    }
}

/* A timer of the kernel's: the loop's own has no such short times. */
as_err as__listeners_balance(as_loop *loop, void *memory, size_t size) {
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (fd < 0) {
        return AS_E_IO;
    }
    if (uv_poll_init(&loop->uv, &loop->yield, fd) != 0) {
        (void)close(fd);
        return AS_E_IO;
    }
    loop->yield_fd = fd;
    (void)uv_poll_start(&loop->yield, UV_READABLE, on_yielded);
    as__balance_join(&loop->balance, memory, size);
    as__loop_again(loop);
    return AS_OK;
}

static void stop_balancing(as_loop *loop) {
    as__balance_leave(&loop->balance);
    if (loop->yield_fd >= 0) {
        uv_close((uv_handle_t *)&loop->yield, NULL);
        (void)close(loop->yield_fd);
        loop->yield_fd = -1;
    }
}

/* --- TLS -------------------------------------------------------------------------------------- */

/* The shortest interval of all contexts; 0: none is watched. */
static uint32_t watch_interval(const as_loop *loop) {
    uint32_t shortest = 0;
    for (as_link *at = loop->listeners.next; at != &loop->listeners; at = at->next) {
        const as_listener *listener = AS_OWNER(at, as_listener, link);
        uint32_t interval =
            listener->tls != NULL && !listener->closed ? as_tls_context_interval(listener->tls) : 0;
        if (interval != 0 && (shortest == 0 || interval < shortest)) {
            shortest = interval;
        }
    }
    return shortest;
}

static void watch_files(as_loop *loop) {
    uint32_t interval = watch_interval(loop);
    uint64_t now = as__loop_now(loop);
    if (interval == 0) {
        as__timeout_remove(&loop->wheel, &loop->tls_watch);
        return;
    }
    as__timeout_set(&loop->wheel, &loop->tls_watch, now, now + interval);
    as__loop_timer(loop);
}

/* NULL as `from`: of all TLS sockets. */
static void exchange_context(as_loop *loop, as_tls_context *from, as_tls_context *to) {
    for (as_link *at = loop->listeners.next; at != &loop->listeners; at = at->next) {
        as_listener *listener = AS_OWNER(at, as_listener, link);
        if (listener->tls != NULL && (from == NULL || listener->tls == from)) {
            as_tls_context_unref(listener->tls);
            listener->tls = as_tls_context_ref(to);
        }
    }
}

void as__listeners_set_tls(as_loop *loop, as_tls_context *tls) {
    exchange_context(loop, NULL, tls);
    watch_files(loop);
}

static void tell_reloaded(as_loop *loop, const as_tls_context *tls) {
    size_t n;
    const as_tls_certificate *first = as_tls_context_certificates(tls, &n);
    char text[AS_TLS_WHY], more[32] = "";
    if (n > 1) {
        (void)snprintf(more, sizeof(more), ", and %zu more", n - 1);
    }
    (void)snprintf(text, sizeof(text), "TLS: reloaded %.300s, valid until %s%s", first->path,
                   first->not_after, more);
    as__loop_notice(loop, AS_NOTICE_WARNING, text);
    if (*as_tls_context_warnings(tls) != '\0') {
        (void)snprintf(text, sizeof(text), "TLS: left out: %.480s", as_tls_context_warnings(tls));
        as__loop_notice(loop, AS_NOTICE_WARNING, text);
    }
}

/* Files that are being read, on a thread of libuv's: two hundred certificates take 0.2 s, and a
 * file system may take any time. */
typedef struct reading {
    uv_work_t work;
    as_loop *loop;
    as_tls_context *old, *fresh;
    as_err err;
    char why[AS_TLS_WHY];
} reading;

static void read_again(uv_work_t *work) {
    reading *r = AS_OWNER(work, reading, work);
    r->err = as_tls_context_again(r->old, &r->fresh, r->why);
}

/* The old one stays where the files cannot be used: half of a pair may be written by now. */
static void take_over(const reading *r) {
    char text[AS_TLS_WHY + 64];
    if (r->err == AS_OK) {
        exchange_context(r->loop, r->old, r->fresh);
        tell_reloaded(r->loop, r->fresh);
        return;
    }
    (void)snprintf(text, sizeof(text), "TLS: cannot reload, the old certificates stay: %s",
                   r->err == AS_E_TLS_SETTINGS ? r->why : as_err_text(r->err));
    as__loop_notice(r->loop, AS_NOTICE_ERROR, text);
}

/* On the loop's thread. */
static void on_read(uv_work_t *work, int status) {
    (void)status; /* nobody cancels it */
    reading *r = AS_OWNER(work, reading, work);
    r->loop->nreadings--;
    if (!r->loop->closing) {
        take_over(r);
    }
    as_tls_context_unref(r->fresh);
    as_tls_context_unref(r->old);
    free(r);
}

static void make_again(as_loop *loop, as_tls_context *old) {
    reading *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        as__loop_notice(loop, AS_NOTICE_ERROR,
                        "TLS: cannot reload, the old certificates stay: out of memory");
        return;
    }
    r->loop = loop;
    r->old = as_tls_context_ref(old);
    loop->nreadings++;
    (void)uv_queue_work(&loop->uv, &r->work, read_again,
                        on_read); /* fails without a function only */
}

void as__listeners_check_tls(as_loop *loop) {
    bool busy = loop->nreadings > 0; /* then what changed meanwhile is seen with the next look */
    for (as_link *at = loop->listeners.next; !busy && at != &loop->listeners; at = at->next) {
        const as_listener *listener = AS_OWNER(at, as_listener, link);
        if (listener->tls != NULL && as_tls_context_interval(listener->tls) != 0 &&
            as_tls_context_changed(listener->tls)) {
            make_again(loop, listener->tls);
        }
    }
    watch_files(loop);
}

/* --- opening and closing ---------------------------------------------------------------------- */

/* What all TLS connections of the loop share. */
static as_err prepare_tls(as_loop *loop) {
    if (loop->tls_scratch == NULL) {
        loop->tls_scratch = malloc(AS_TLS_RECORD);
    }
    return loop->tls_scratch != NULL ? AS_OK : AS_E_NOMEM;
}

as_err as__listener_open(as_loop *loop, int fd, as_tls_context *tls) {
    if (tls != NULL && prepare_tls(loop) != AS_OK) {
        return AS_E_NOMEM;
    }
    as_listener *listener = calloc(1, sizeof(*listener));
    if (listener == NULL) {
        return AS_E_NOMEM;
    }
    listener->loop = loop;
    listener->fd = fd;
    as_err err = describe(listener);
    if (err != AS_OK || uv_poll_init(&loop->uv, &listener->poll, fd) != 0) {
        free(listener);
        return err != AS_OK ? err : AS_E_IO;
    }
    listener->tls = tls != NULL ? as_tls_context_ref(tls) : NULL;
    as__list_push(&loop->listeners, &listener->link);
    watch_files(loop);
    if (!loop->accept_paused) {
        (void)uv_poll_start(&listener->poll, UV_READABLE, on_readable);
    }
    as__loop_again(loop);
    return AS_OK;
}

static void unwatch(as_listener *listener) {
    listener->closed = true;
    uv_close((uv_handle_t *)&listener->poll, NULL);
}

static void accept_waiting(as_listener *listener) {
    for (unsigned i = 0; i < QUEUE_MAX && !is_full(listener->loop); i++) {
        if (!accept_one(listener)) {
            break;
        }
    }
}

/* Those who have connected already are served: closing the socket resets whoever is not accepted.
 * Hence it is closed here and now, and not when its owner gets round to that; the number stays his.
 */
void as__listeners_drain(as_loop *loop) {
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (as_link *at = loop->listeners.next; at != &loop->listeners; at = at->next) {
        as_listener *listener = AS_OWNER(at, as_listener, link);
        if (!listener->closed) {
            unwatch(listener);
            accept_waiting(listener);
            (void)dup3(null, listener->fd, O_CLOEXEC); /* -1: the owner's close has to do */
        }
    }
    if (null >= 0) {
        (void)close(null);
    }
    as__listeners_close(loop);
}

void as__listeners_close(as_loop *loop) {
    for (as_link *at = loop->listeners.next; at != &loop->listeners; at = at->next) {
        as_listener *listener = AS_OWNER(at, as_listener, link);
        if (!listener->closed) {
            unwatch(listener);
        }
    }
    as__timeout_remove(&loop->wheel, &loop->accept_retry);
    as__timeout_remove(&loop->wheel, &loop->tls_watch);
    stop_balancing(loop);
}

void as__listeners_resume(as_loop *loop) {
    if (!loop->accept_paused) {
        return;
    }
    loop->accept_paused = false;
    as__timeout_remove(&loop->wheel, &loop->accept_retry);
    watch_all(loop);
}

void as__listeners_forked(as_loop *loop, int null) {
    for (as_link *at = loop->listeners.next; at != &loop->listeners; at = at->next) {
        const as_listener *listener = AS_OWNER(at, as_listener, link);
        if (!listener->closed) {
            (void)dup3(null, listener->fd, O_CLOEXEC);
        }
    }
}

void as__listeners_free(as_loop *loop) {
    as_link *link;
    while ((link = as__list_pop(&loop->listeners)) != NULL) {
        as_listener *listener = AS_OWNER(link, as_listener, link);
        as_tls_context_unref(listener->tls);
        free(listener);
    }
}

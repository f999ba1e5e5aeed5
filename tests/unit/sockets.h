/* What the tests of the loop on real sockets share: listening, clients, and waiting for what has to
 * come. */
#ifndef AS_TESTS_SOCKETS_H
#define AS_TESTS_SOCKETS_H

#undef NDEBUG
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "net/loop.h"

#define PATIENCE 20000 /* milliseconds until something that has to come counts as missing */
#define GET "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
#define GET_CLOSE "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

static inline int64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* --- the server side -------------------------------------------------------------------------- */

/* A socket that listens; it is the loop that makes it one that does not block. */
static inline int listen_at(const struct sockaddr *address, socklen_t len, int backlog) {
    int fd = socket(address->sa_family, SOCK_STREAM, 0);
    assert(fd >= 0 && bind(fd, address, len) == 0 && listen(fd, backlog) == 0);
    return fd;
}

/* … on a port of the system's choice. */
static inline int listen_on_host(uint32_t host, struct sockaddr_in *address, int backlog) {
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(host)};
    socklen_t len = sizeof(*address);
    int fd = listen_at((struct sockaddr *)address, len, backlog);
    assert(getsockname(fd, (struct sockaddr *)address, &len) == 0);
    return fd;
}

static inline int listen_on_loopback(struct sockaddr_in *address, int backlog) {
    return listen_on_host(INADDR_LOOPBACK, address, backlog);
}

/* A loop that serves on it. */
static inline as_loop *loop_on(int fd, const as_loop_config *config, as_tls_context *tls) {
    as_loop *loop = as_loop_new(config);
    assert(loop != NULL && as_loop_listen(loop, fd, tls) == AS_OK);
    return loop;
}

static inline void answer_hello(as_exchange *ex) {
    assert(as_exchange_head_begin(ex, 200, (as_slice){0}) == AS_OK);
    assert(as_exchange_body(ex, (as_bytes){.p = "hello", .n = 5}, false) == AS_OK);
    as_exchange_release(ex);
}

/* One wait of at most `limit` milliseconds, and one poll; true: something was ready or due. */
static inline bool turn_loop(as_loop *loop, int limit) {
    struct pollfd fd = {.fd = as_loop_fd(loop), .events = POLLIN};
    int timeout = as_loop_timeout(loop);
    bool due = timeout >= 0 && timeout < limit;
    int ready = poll(&fd, 1, due ? timeout : limit);
    as_loop_poll(loop);
    return ready > 0 || due;
}

/* Drives the loop of `s` as its header says, until `condition`, which may read from sockets. */
#define UNTIL(s, condition)                                                                            \
    do {                                                                                               \
        int64_t until_ = now_ms() + PATIENCE;                                                         \
        while (!(condition)) {                                                                         \
            assert(now_ms() < until_ && #condition);                                                  \
            (void)turn_loop((s)->loop, 5);                                                             \
        }                                                                                              \
    } while (0)

/* --- the client side -------------------------------------------------------------------------- */

static inline int connect_to_address(const struct sockaddr_in *address) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert(fd >= 0 && connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0);
    return fd;
}

static inline void unblock(int fd) {
    assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
}

/* A close that the other side sees as a reset. */
static inline void close_by_reset(int fd) {
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    assert(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)) == 0);
    assert(close(fd) == 0);
}

/* What a client has got: `data` ends with a NUL that is not part of it; NULL: nothing yet. */
typedef struct heard {
    char *data;
    size_t len, cap;
} heard;

static inline void hear(heard *h, const char *p, size_t n) {
    if (h->len + n >= h->cap) {
        h->cap = 2 * (h->len + n);
        h->data = realloc(h->data, h->cap);
        assert(h->data != NULL);
    }
    memcpy(h->data + h->len, p, n);
    h->len += n;
    h->data[h->len] = '\0';
}

static inline unsigned count_heard(const heard *h, const char *what) {
    unsigned n = 0;
    for (const char *at = h->data; at != NULL && (at = strstr(at, what)) != NULL; at++) {
        n++;
    }
    return n;
}

#endif

#include "client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>

void fail(const char *form, ...) {
    va_list args;
    va_start(args, form);
    (void)fprintf(stderr, "%s: ", program_invocation_short_name);
    (void)vfprintf(stderr, form, args);
    (void)fputc('\n', stderr);
    va_end(args);
    exit(1);
}

void *allocate(size_t n) {
    void *p = calloc(1, n);
    if (p == NULL) {
        fail("no memory");
    }
    return p;
}

uint64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* --- times ------------------------------------------------------------------------------------ */

/* Slots are as wide as the highest bit of a time says: each power of two has 2^FINE_BITS of them.
 */
static unsigned slot_of(uint64_t ns) {
    if (ns >> FINE_BITS == 0) {
        return (unsigned)ns;
    }
    unsigned shift = (unsigned)(63 - __builtin_clzll(ns)) - FINE_BITS;
    return (shift << FINE_BITS) + (unsigned)(ns >> shift);
}

static uint64_t slot_start(unsigned slot) {
    if (slot >> FINE_BITS == 0) {
        return slot;
    }
    unsigned shift = (slot >> FINE_BITS) - 1;
    return (uint64_t)(slot - (shift << FINE_BITS)) << shift;
}

void times_add(times *t, uint64_t ns) {
    t->count++;
    t->slots[slot_of(ns)]++;
}

double times_percentile(const times *t, double part) {
    uint64_t wanted = (uint64_t)((double)t->count * part), seen = 0;
    for (unsigned i = 0; i < SLOTS; i++) {
        seen += t->slots[i];
        if (seen > wanted || (seen == t->count && seen > 0)) {
            return (double)slot_start(i) / 1000.0;
        }
    }
    return 0;
}

/* --- connections ------------------------------------------------------------------------------ */

int open_epoll(void) {
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        fail("epoll_create1: %s", strerror(errno));
    }
    return epoll;
}

void wire_connect(wire *w, const char *host, unsigned port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1;
    w->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1 || w->fd < 0 ||
        setsockopt(w->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) != 0 ||
        connect(w->fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        fail("connect: %s", strerror(errno));
    }
}

static void watch(wire *w, int epoll, int how, bool room) {
    struct epoll_event event = {.events = EPOLLIN | (room ? EPOLLOUT : 0), .data.ptr = w};
    if (epoll_ctl(epoll, how, w->fd, &event) != 0) {
        fail("epoll_ctl: %s", strerror(errno));
    }
    w->watched = room;
}

void wire_watch(wire *w, int epoll) {
    if (fcntl(w->fd, F_SETFL, O_NONBLOCK) != 0) {
        fail("fcntl: %s", strerror(errno));
    }
    watch(w, epoll, EPOLL_CTL_ADD, false);
}

bool wire_send(wire *w, int epoll, const char *p, size_t *at, size_t n) {
    bool open = true;
    while (*at < n && open) {
        ssize_t sent = send(w->fd, p + *at, n - *at, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            break;
        }
        open = sent >= 0;
        *at += open ? (size_t)sent : 0;
    }
    bool room = open && *at < n;
    if (room != w->watched) {
        watch(w, epoll, EPOLL_CTL_MOD, room);
    }
    return open;
}

int serve_wires(int epoll, int timeout_ms, wire_event *on_room, wire_event *on_bytes, void *load) {
    struct epoll_event events[256];
    int n = epoll_wait(epoll, events, 256, timeout_ms);
    for (int i = 0; i < n; i++) {
        void *conn = events[i].data.ptr;
        if (events[i].events & EPOLLOUT) {
            on_room(load, conn);
        }
        if (events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) {
            on_bytes(load, conn);
        }
    }
    return n;
}

/* What the load programs share: connections that one thread watches with epoll, and a histogram of
 * times. Whatever goes wrong ends the program with status 1 and a line on standard error. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    FINE_BITS = 7, /* of a time that the histogram keeps: an error below 1 % */
    SLOTS = (64 - FINE_BITS + 1) << FINE_BITS,
};

typedef struct times {
    uint64_t count;
    uint64_t slots[SLOTS];
} times;

/* A connection to the server under test: the first member of a program's own. */
typedef struct wire {
    int fd;
    bool watched; /* for room to write; for bytes it always is */
} wire;

__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *form, ...);
void *allocate(size_t n); /* zeroes */
uint64_t now_ns(void);

void times_add(times *t, uint64_t ns);
double times_percentile(const times *t, double part); /* in microseconds; 0 where there are none */

int open_epoll(void);
void wire_connect(wire *w, const char *host, unsigned port); /* blocking, and not watched yet */
void wire_watch(wire *w, int epoll);                         /* from here on it never blocks */

/* Sends [*at, n) of `p` as far as the kernel takes it, and watches for room while any is left;
 * false where the server has closed. */
bool wire_send(wire *w, int epoll, const char *p, size_t *at, size_t n);

/* Calls these for the wires that have room or bytes, with what begins with the wire, and returns
 * how many there were. */
typedef void wire_event(void *load, void *conn);
int serve_wires(int epoll, int timeout_ms, wire_event *on_room, wire_event *on_bytes, void *load);

#endif

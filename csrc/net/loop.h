/* One event loop with its listeners and connections: what a worker runs. Knows no Python.
 *
 * The loop is driven from outside: when `as_loop_fd` is readable, call `as_loop_poll`; when the
 * hook `wake` was called, call it soon; while `as_loop_timeout` is not negative, also call
 * `as_loop_poll` within that many milliseconds. `as_loop_run` does all of this where nobody else
 * has a loop.
 *
 * Owner: whoever made it. All calls are made on one thread; as_loop_wakeup alone from any. */
#ifndef AS_NET_LOOP_H
#define AS_NET_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/limits.h"
#include "http/exchange.h"
#include "http/forwarded.h"
#include "http/proxy_protocol.h"
#include "net/tls_context.h"

typedef struct as_loop as_loop;

typedef enum as_notice_level {
    AS_NOTICE_WARNING,
    AS_NOTICE_ERROR /* somebody has to do something */
} as_notice_level;

typedef struct as_loop_config {
    as_limits limits;
    const as_handlers *handlers;
    void *ctx;                       /* for handlers and hooks */
    const as_slice *headers;         /* extra response field lines: name, value, …; copied */
    size_t nheaders;                 /* slices */
    as_slice health_path;            /* answered by the loop itself; empty: none; copied */
    const as_forwarding *forwarding; /* NULL: no proxy is believed. Lives as long as the loop */
    as_proxy_mode proxy_protocol;    /* connections begin with a header of the PROXY protocol … */
    const as_trust *proxy_trust;     /* … from these peers; so, too */
    bool timed, copy_heads;          /* as_exchange.started and .head_copy are wanted */
    /* Hooks. `wake`: as_loop_poll must be called soon, from outside of the present stack; called
     * once until the next poll. `timer`: as_loop_due is sooner than it was. `drained`: after
     * as_loop_drain, the last connection is gone. All may be NULL for as_loop_run. */
    void (*wake)(void *ctx);
    void (*timer)(void *ctx);
    void (*drained)(void *ctx);
    /* The request that as_loop_mark named has been seen. */
    void (*marked)(void *ctx);
    /* For the log: something that concerns no connection, such as accepting that stops or goes on.
     */
    void (*notice)(void *ctx, as_notice_level level, const char *text);
    /* as_loop_set_alarm's time has come. */
    void (*alarm)(void *ctx);
} as_loop_config;

as_loop *
as_loop_new(const as_loop_config *config); /* NULL: no memory or no descriptors, errno tells */
/* Cuts what is left (on_abort, on_close run) and closes the listeners. */
void as_loop_free(as_loop *loop);

/* Accepts on `fd`, a listening socket, which stays the caller's and must stay open until
 * as_loop_drain, which closes it: the number is the caller's to close all the same. `tls`: what is
 * spoken there; NULL: plain HTTP. The files of a context are watched: when they change, another one
 * takes its place. */
as_err as_loop_listen(as_loop *loop, int fd, as_tls_context *tls);
/* From now on new connections to all TLS sockets take this one. */
void as_loop_set_tls(as_loop *loop, as_tls_context *tls);

/* Shares new connections fairly with the loops of other processes that accept from the same sockets
 * and were given the same `memory`: zeros at first, AS_SEAT_SIZE of `size`
 * bytes for each process, and aligned to that. It must stay. Before as_loop_listen. */
#define AS_SEAT_SIZE 64u
as_err as_loop_balance(as_loop *loop, void *memory, size_t size);

int as_loop_fd(const as_loop *loop);
/* Handles what is ready; never blocks. A nested call does nothing but ask for another round. */
void as_loop_poll(as_loop *loop);
/* Milliseconds until as_loop_poll is due for timeouts, little more than a minute at most; -1:
 * nothing can time out. Every poll may change it. */
int as_loop_timeout(const as_loop *loop);
/* When that is, on a clock of its own; UINT64_MAX: never. */
uint64_t as_loop_due(const as_loop *loop);

/* Waits and polls until as_loop_stop, until the last connection is gone after as_loop_drain, or
 * until `before_wait` / `after_wait` says stop by returning false. They (NULL: none) surround the
 * blocking wait: the place to release and take a lock, and to look for signals; where `before_wait`
 * says stop, neither the wait nor `after_wait` follows. A wait lasts at most `longest`
 * milliseconds, -1: no matter how long. */
void as_loop_run(as_loop *loop, bool (*before_wait)(void *ctx), bool (*after_wait)(void *ctx),
                 int longest);
void as_loop_stop(as_loop *loop);
/* Makes a blocking wait return; async-signal-safe, from any thread. */
void as_loop_wakeup(as_loop *loop);
/* The descriptor that wakes a waiting loop when any bytes are written to it (signal.set_wakeup_fd).
 */
int as_loop_wakeup_fd(const as_loop *loop);

/* The hook `alarm` is called in about `ms` milliseconds; a later call moves it. */
void as_loop_set_alarm(as_loop *loop, uint32_t ms);

/* Accepts all who wait in the queue and closes the listening sockets; closes busy connections
 * behind their answer, and idle ones when no request came for `idle` milliseconds: 0 closes them
 * now, more loses no request that is under way when somebody else goes on accepting. A connection
 * that was just made has a second for its first request in any case. */
void as_loop_drain(as_loop *loop, uint32_t idle);
/* Tells the gateway of every request that still runs (on_shutdown, or on_eof): streams, long polls
 * and tunnels end. */
void as_loop_disconnect(as_loop *loop);
/* In a child of the process that owns the loop, right behind fork: lets go of all sockets, so that
 * they close when the owner closes them. Whatever the child does with the loop then ends it, but
 * for as_loop_free, which does nothing. */
void as_loop_forked(as_loop *loop);
/* What the health path says from now on. */
void as_loop_set_healthy(as_loop *loop, bool healthy);
/* The hook `marked` is called when so many requests, counted from the first, were seen. */
void as_loop_mark(as_loop *loop, uint64_t requests);
/* Cuts all connections now; returns how many exchanges were cut. */
unsigned as_loop_abort_all(as_loop *loop);

typedef struct as_loop_stats {
    uint32_t connections, requests; /* now */
    uint64_t connections_total, requests_total;
    uint64_t overloaded_total; /* requests refused for limit_concurrency */
    uint64_t spool_full_total; /* … with 503 for limit_body_spool */
    bool accepting;
} as_loop_stats;
void as_loop_get_stats(const as_loop *loop, as_loop_stats *stats);

#endif

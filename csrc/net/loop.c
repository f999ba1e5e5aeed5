#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "net/conn.h"
#include "net/listener.h"
#include "net/loop_internal.h"

#define POOL_BLOCKS 64u /* of AS_BUF_BLOCK bytes are kept for the next writers */
#define TOLD_QUIET 60000u /* milliseconds between two lines about the same limit */
#define COARSE 10 /* milliseconds that the coarse clock may be behind: who wakes earlier comes twice */
#define POLL_ROUNDS 8u  /* in one as_loop_poll, before the driver gets its turn */
#define EVENTS 256        /* sockets that are looked at together */

/* --- time ------------------------------------------------------------------------------------- */

uint64_t as__loop_now(as_loop *loop) {
    return loop->now = as_coarse_milliseconds();
}

void as__loop_tick_date(as_loop *loop) {
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME_COARSE, &ts);
    as_response_defaults_tick(&loop->defaults, (int64_t)ts.tv_sec);
}

/* --- hooks ------------------------------------------------------------------------------------ */

void as__loop_again(as_loop *loop) {
    loop->again = true;
    if (loop->polling || loop->woken) {
        return;
    }
    loop->woken = true;
    if (loop->config.wake != NULL) {
        loop->config.wake(loop->config.ctx);
    }
}

void as__loop_timer(as_loop *loop) {
    if (loop->polling) {
        return; /* as_loop_poll looks at its end */
    }
    uint64_t due = as__wheel_due(&loop->wheel);
    bool sooner = due < loop->timer_told;
    loop->timer_told = due;
    if (sooner && loop->config.timer != NULL) {
        loop->config.timer(loop->config.ctx);
    }
}

void as__loop_notice(as_loop *loop, as_notice_level level, const char *text) {
    if (loop->config.notice != NULL) {
        loop->config.notice(loop->config.ctx, level, text);
    }
}

void as__loop_conn_gone(as_loop *loop) {
    if (!loop->env.draining) {
        as__listeners_resume(loop);
    }
}

/* Once, and then no more than once a minute, with how many it were. */
static void tell_refused(as_loop *loop, as_told *told, uint64_t refused, const char *limit,
                         uint64_t value, const char *what) {
    if (refused == told->refused || loop->now < told->quiet) {
        return;
    }
    char text[160];
    (void)snprintf(text, sizeof(text),
                   "%s reached: %" PRIu64 " %s; requests answered with 503: %" PRIu64, limit, value,
                   what, refused - told->refused);
    *told = (as_told){.refused = refused, .quiet = loop->now + TOLD_QUIET};
    as__loop_notice(loop, AS_NOTICE_WARNING, text);
}

static void tell_limits(as_loop *loop) {
    const as_limits *limits = &loop->limits;
    tell_refused(loop, &loop->overloaded_told, loop->env.overloaded, "limit_concurrency",
                 limits->limit_concurrency, "requests in flight");
    tell_refused(loop, &loop->spool_full_told, loop->env.spool_full, "limit_body_spool",
                 limits->limit_body_spool, "bytes of request bodies in files");
}

static void tell_marked(as_loop *loop) {
    if (loop->env.marked) {
        loop->env.marked = false;
        if (loop->config.marked != NULL) {
            loop->config.marked(loop->config.ctx);
        }
    }
}

static void tell_drained(as_loop *loop) {
    if (loop->env.draining && loop->nconns == 0 && !loop->drained_told) {
        loop->drained_told = true;
        if (loop->config.drained != NULL) {
            loop->config.drained(loop->config.ctx);
        }
    }
}

/* --- life ------------------------------------------------------------------------------------- */

static void on_wakeup(uv_poll_t *handle, int status, int events) {
    (void)status;
    (void)events;
    char bytes[64];
    ssize_t n = read(AS_OWNER(handle, as_loop, wakeup)->wakeup_fds[0], bytes, sizeof(bytes));
    (void)n; /* it only had to end the wait */
}

static int init_wakeup(as_loop *loop) {
    if (pipe2(loop->wakeup_fds, O_NONBLOCK | O_CLOEXEC) != 0) {
        return -errno;
    }
    int err = uv_poll_init(&loop->uv, &loop->wakeup, loop->wakeup_fds[0]);
    if (err == 0) {
        err = uv_poll_start(&loop->wakeup, UV_READABLE, on_wakeup);
    }
    return err;
}

static as_err copy_health_path(as_loop *loop, as_slice path) {
    if (path.n == 0) {
        return AS_OK;
    }
    char *copy = malloc(path.n);
    if (copy == NULL) {
        return AS_E_NOMEM;
    }
    memcpy(copy, path.p, path.n);
    loop->env.health_path = (as_slice){copy, path.n};
    loop->health_path = copy;
    return AS_OK;
}

static void fini_env(as_loop *loop) {
    as_h1_env_fini(&loop->env);
    as_response_defaults_fini(&loop->defaults);
    free(loop->health_path);
}

static as_err init_env(as_loop *loop, const as_loop_config *config) {
    as_err err =
        as_response_defaults_init(&loop->defaults, loop->limits.server_header,
                                  loop->limits.date_header, config->headers, config->nheaders);
    if (err != AS_OK) {
        return err;
    }
    loop->env = (as_h1_env){
        .limits = &loop->limits,
        .handlers = config->handlers,
        .ctx = config->ctx,
        .forwarding = config->forwarding,
        .defaults = &loop->defaults,
        .pool = &loop->pool,
        .timed = config->timed,
        .copy_heads = config->copy_heads,
        .notify = as__conn_notify,
        .flush = as__conn_flush,
        .lend = as__conn_lend,
        .reclaim = as__conn_reclaim,
        .flush_soon = as__conn_flush_soon,
        .set_alarm = as__conn_set_alarm,
    };
    err = as_h1_env_init(&loop->env);
    if (err == AS_OK) {
        err = copy_health_path(loop, config->health_path);
    }
    if (err != AS_OK) {
        fini_env(loop);
    }
    return err;
}

static void init_fields(as_loop *loop, const as_loop_config *config) {
    loop->config = *config;
    loop->config.headers = NULL;
    loop->config.nheaders = 0;
    loop->limits = config->limits;
    loop->epoll_fd = loop->wakeup_fds[0] = loop->wakeup_fds[1] = -1;
    loop->timer_told = AS_TIMEOUT_NEVER;
    loop->yield_fd = -1;
    as__link_init(&loop->conns);
    as__link_init(&loop->todo);
    as__link_init(&loop->greedy);
    as__link_init(&loop->gone);
    as__link_init(&loop->listeners);
    as__timeout_init(&loop->accept_retry);
    as__timeout_init(&loop->alarm);
    as__timeout_init(&loop->tls_watch);
    as__link_init(&loop->handshakes);
    as__wheel_init(&loop->wheel, as__loop_now(loop));
    as_buf_pool_init(&loop->pool, POOL_BLOCKS);
}

/* libuv's descriptor is one among the sockets. */
static int init_epoll(as_loop *loop) {
    struct epoll_event wanted = {.events = EPOLLIN, .data.ptr = NULL};
    loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll_fd < 0 ||
        epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, uv_backend_fd(&loop->uv), &wanted) != 0) {
        return -errno;
    }
    return 0;
}

/* Waits until libuv has let go of every closed handle, and until its threads are done. */
static void close_uv(as_loop *loop) {
    if (loop->epoll_fd >= 0) {
        (void)close(loop->epoll_fd);
    }
    while (uv_loop_close(&loop->uv) == UV_EBUSY) {
        (void)uv_run(&loop->uv, UV_RUN_DEFAULT);
    }
    for (int i = 0; i < 2; i++) {
        if (loop->wakeup_fds[i] >= 0) {
            (void)close(loop->wakeup_fds[i]);
        }
    }
}

as_loop *as_loop_new(const as_loop_config *config) {
    int err = -ENOMEM;
    as_loop *loop = calloc(1, sizeof(*loop));
    if (loop == NULL) {
        goto failed;
    }
    init_fields(loop, config);
    loop->read_buf = malloc(AS_READ_BUFFER);
    loop->late = as__late_new();
    if (loop->read_buf == NULL || loop->late == NULL || init_env(loop, config) != AS_OK) {
        goto failed_memory;
    }
    err = uv_loop_init(&loop->uv);
    if (err != 0) {
        goto failed_uv;
    }
    err = init_epoll(loop);
    if (err == 0) {
        err = init_wakeup(loop);
    }
    if (err != 0) {
        goto failed_wakeup;
    }
    as__loop_tick_date(loop);
    (void)uv_run(&loop->uv, UV_RUN_NOWAIT); /* the kernel gets to know the wakeup's descriptor */
    return loop;

failed_wakeup:
    if (loop->wakeup.type == UV_POLL) {
        uv_close((uv_handle_t *)&loop->wakeup, NULL);
    }
    close_uv(loop);
failed_uv:
    fini_env(loop);
failed_memory:
    as__late_free(loop->late, NULL);
    free(loop->read_buf);
    as_buf_pool_fini(&loop->pool);
    free(loop);
failed:
    errno = -err;
    return NULL;
}

static void run_todo(as_loop *loop);
static void run_greedy(as_loop *loop);

/* In a child nothing is freed: what would be closed and told belongs to the parent, its set of
 * sockets and its threads among it, and the memory goes with the child. */
void as_loop_free(as_loop *loop) {
    if (loop == NULL || loop->forked) {
        return;
    }
    loop->closing = true;
    loop->polling = true; /* handlers run below: nothing may poll or wake from here on */
    loop->env.draining = true;
    as__listeners_close(loop);
    while (loop->nconns > 0) {
        (void)as__conn_cut_all(loop);
        run_todo(loop);
        run_greedy(loop);
    }
    as__conn_free_gone(loop);
    uv_close((uv_handle_t *)&loop->wakeup, NULL);
    close_uv(loop);
    as__listeners_free(loop);
    fini_env(loop);
    as__late_free(loop->late, &loop->pool);
    as_buf_pool_fini(&loop->pool);
    free(loop->tls_scratch);
    free(loop->read_buf);
    free(loop);
}

as_err as_loop_listen(as_loop *loop, int fd, as_tls_context *tls) {
    return as__listener_open(loop, fd, tls);
}

as_err as_loop_balance(as_loop *loop, void *memory, size_t size) {
    return as__listeners_balance(loop, memory, size);
}

void as_loop_set_tls(as_loop *loop, as_tls_context *tls) {
    as__listeners_set_tls(loop, tls);
}

/* --- forked children -------------------------------------------------------------------------- */

/* The numbers stay taken: whoever believes that a socket is his closes nothing else. */
void as_loop_forked(as_loop *loop) {
    loop->forked = true;
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0) {
        as__conn_forked_all(loop, null);
        as__listeners_forked(loop, null);
        (void)close(null);
    }
}

void as__end_child(void) {
    static const char text[] =
        "asgiserver: a forked child of the application has returned into the "
        "server, and is ended; a child has to end by os._exit\n";
    ssize_t n = write(STDERR_FILENO, text, sizeof(text) - 1);
    (void)n;
    _exit(1);
}

static void end_if_forked(const as_loop *loop) {
    if (loop->forked) {
        as__end_child();
    }
}

/* --- polling ---------------------------------------------------------------------------------- */

/* One batch: what is queued meanwhile waits for the next one. */
static void run_todo(as_loop *loop) {
    as_link batch, *todo;
    as__list_move(&loop->todo, &batch);
    while ((todo = as__list_pop(&batch)) != NULL) {
        as__conn_work(todo);
    }
}

static void expire(as_timeout *timeout, void *arg) {
    as_loop *loop = arg;
    if (timeout == &loop->accept_retry) {
        as__listeners_resume(loop);
    } else if (timeout == &loop->tls_watch) {
        as__listeners_check_tls(loop);
    } else if (timeout == &loop->alarm) {
        loop->config.alarm(loop->config.ctx);
    } else {
        as__conn_expire(timeout);
    }
}

int as_loop_fd(const as_loop *loop) {
    return loop->epoll_fd;
}

/* Who took all that it may take at once, and whose handshakes of TLS go on: they wait for each
 * other, and nobody else does for longer than this takes. */
static void run_greedy(as_loop *loop) {
    as_link *next;
    uint64_t now = as_microseconds(), end = as__turn_greedy_until(&loop->turn, now);
    while (now < end && (next = as__list_pop(&loop->greedy)) != NULL) {
        loop->turn.crowded = loop->turn.crowded || as__link_linked(&loop->greedy);
        as__turn_slice(&loop->env, now);
        as__conn_work(next);
        now = as_microseconds();
    }
    as__conn_work_late(loop);
}

/* Some that are ready; `more`: all were greedy, and behind them there may be others. True: libuv
 * has something to do, too. */
static bool look_at_sockets(as_loop *loop, bool *more) {
    struct epoll_event events[EVENTS];
    bool uv_is_ready = false;
    int served = 0, n = epoll_wait(loop->epoll_fd, events, EVENTS, 0);
    if (n < 0 && errno != EINTR) {
        abort(); /* the application has closed it: nothing can be served any more, and libuv says so
                    too */
    }
    if (n > AS_CROWD) {
        as__turn_divide(&loop->turn, (unsigned)n);
    }
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr != NULL) {
            served += as__conn_event(events[i].data.ptr, events[i].events);
        } else {
            uv_is_ready = true;
        }
    }
    *more = n == EVENTS && served == 0;
    return uv_is_ready;
}

/* Who is not looked at is still ready the next time, and is told of first then. True: libuv has
 * something to do, too. */
static bool run_sockets(as_loop *loop) {
    bool uv_is_ready = false, more = true;
    for (unsigned i = 0; i <= loop->nconns / EVENTS && more; i++) {
        uv_is_ready |= look_at_sockets(loop, &more);
    }
    return uv_is_ready;
}

/* Timeouts are judged by the time before the sockets were looked at: what a client sent in time is
 * seen first, however long a handler kept the loop busy. */
static void poll_once(as_loop *loop) {
    end_if_forked(loop);
    uint64_t now = as__loop_now(loop);
    bool changed =
        loop->again; /* a watcher of libuv's may have: the kernel learns it when it runs */
    loop->again = false;
    if (run_sockets(loop) || changed) {
        (void)uv_run(&loop->uv, UV_RUN_NOWAIT);
    }
    run_todo(loop);
    as__conn_work_late(loop); /* also answers to connections that are new */
    as__wheel_advance(&loop->wheel, now, expire, loop);
}

/* Not inlined: bench/icount.py counts what is below this name. */
__attribute__((noinline)) void as_loop_poll(as_loop *loop) {
    if (loop->polling) {
        loop->again = true;
        return;
    }
    loop->polling = true;
    loop->woken = false;
    as__loop_tick_date(loop);
    as__turn_begin(&loop->turn, &loop->env);
    unsigned round = 0;
    do {
        poll_once(loop);
    } while (loop->again && ++round < POLL_ROUNDS && !loop->env.marked);
    if (as__link_linked(&loop->greedy)) {
        run_greedy(loop);
    }
    loop->polling = false;
    as__conn_free_gone(loop);
    end_if_forked(loop);
    if (loop->again || as__link_linked(&loop->greedy)) {
        as__loop_again(loop);
    }
    as__loop_timer(loop);
    tell_limits(loop);
    tell_marked(loop);
    tell_drained(loop);
}

uint64_t as_loop_due(const as_loop *loop) {
    return as__wheel_due(&loop->wheel);
}

int as_loop_timeout(const as_loop *loop) {
    uint64_t due = as__wheel_due(&loop->wheel), now = as_coarse_milliseconds();
    if (due == AS_TIMEOUT_NEVER) {
        return -1;
    }
    return due > now ? (int)(due - now + COARSE) : 0;
}

/* --- running ---------------------------------------------------------------------------------- */

static void wait_for_events(as_loop *loop, int longest) {
    struct pollfd fd = {.fd = loop->epoll_fd, .events = POLLIN};
    int timeout = loop->woken ? 0 : as_loop_timeout(loop);
    if (longest >= 0 && (timeout < 0 || timeout > longest)) {
        timeout = longest;
    }
    (void)poll(&fd, 1, timeout);
}

void as_loop_run(as_loop *loop, bool (*before_wait)(void *ctx), bool (*after_wait)(void *ctx),
                 int longest) {
    void *ctx = loop->config.ctx;
    while (!loop->stopping && !loop->drained_told) {
        if (before_wait != NULL && !before_wait(ctx)) {
            break;
        }
        wait_for_events(loop, longest);
        if (after_wait != NULL && !after_wait(ctx)) {
            break;
        }
        as_loop_poll(loop);
    }
    loop->stopping = false;
}

void as_loop_stop(as_loop *loop) {
    loop->stopping = true;
}

int as_loop_wakeup_fd(const as_loop *loop) {
    return loop->wakeup_fds[1];
}

void as_loop_wakeup(as_loop *loop) {
    end_if_forked(loop);
    int error = errno; /* a signal handler must leave it alone */
    ssize_t n = write(loop->wakeup_fds[1], "", 1);
    (void)n; /* a full pipe wakes as well */
    errno = error;
}

void as_loop_set_alarm(as_loop *loop, uint32_t ms) {
    uint64_t now = as__loop_now(loop);
    as__timeout_set(&loop->wheel, &loop->alarm, now, now + ms);
    as__loop_timer(loop);
}

/* --- stopping --------------------------------------------------------------------------------- */

/* The hook `wake` may do anything, also cut connections. So it is called before the list of them is
 * gone through, and not from within. */

void as_loop_drain(as_loop *loop, uint32_t idle) {
    if (loop->env.draining && idle >= loop->drain_idle) {
        return;
    }
    if (!loop->env.draining) {
        as__listeners_drain(loop);
    }
    loop->env.draining = true;
    loop->drain_idle = idle;
    as__loop_again(loop);
    as__conn_drain_all(loop);
}

void as_loop_disconnect(as_loop *loop) {
    as__loop_again(loop);
    as__conn_disconnect_all(loop);
}

void as_loop_set_healthy(as_loop *loop, bool healthy) {
    loop->env.unhealthy = !healthy;
}

void as_loop_mark(as_loop *loop, uint64_t requests) {
    loop->env.requests_mark = requests;
}

unsigned as_loop_abort_all(as_loop *loop) {
    end_if_forked(loop);
    as__loop_again(loop);
    as__conn_flush_late(loop);
    unsigned exchanges = as__conn_cut_all(loop);
    if (!loop->polling) {
        loop->polling = true;
        run_todo(loop);
        loop->polling = false;
    }
    return exchanges;
}

void as_loop_get_stats(const as_loop *loop, as_loop_stats *stats) {
    *stats = (as_loop_stats){
        .connections = loop->nconns,
        .requests = loop->env.requests,
        .connections_total = loop->conns_total,
        .requests_total = loop->env.requests_total,
        .overloaded_total = loop->env.overloaded,
        .spool_full_total = loop->env.spool_full,
        .accepting =
            !loop->accept_paused && !loop->env.draining && as__link_linked(&loop->listeners),
    };
}

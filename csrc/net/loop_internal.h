/* The loop as the files of this ring see it. */
#ifndef AS_NET_LOOP_INTERNAL_H
#define AS_NET_LOOP_INTERNAL_H

#include <uv.h>

#include "http/http1.h"
#include "net/balance.h"
#include "net/late.h"
#include "net/list.h"
#include "net/loop.h"
#include "net/timeout.h"
#include "net/turn.h"

#define AS_READ_BUFFER ((size_t)64 * 1024) /* bytes; one for all connections of a loop */

/* What the log knows of a limit that bites. */
typedef struct as_told {
    uint64_t refused; /* requests, when it heard of them last */
    uint64_t quiet;   /* until then it is not told again, milliseconds */
} as_told;

struct as_loop {
    int epoll_fd; /* the sockets of connections, and what libuv waits on: that is `uv` ready, too */
    uv_loop_t uv; /* listeners, the wakeup, what threads have done */
    as_loop_config config; /* `headers` is not valid any more */
    as_limits limits;
    as_h1_env env;
    as_response_defaults defaults;
    as_buf_pool pool;
    as_wheel wheel;
    as_turn turn;
    uint64_t now;        /* milliseconds; as__loop_now refreshes it */
    uint64_t timer_told; /* as_loop_due as the driver knows it: from the hook, or after its poll */
    char *read_buf;
    char *health_path; /* the bytes of env.health_path */

    as_link conns; /* as_conn.all */
    uint32_t nconns;
    uint64_t conns_total;
    as_link todo;      /* as_conn.todo: as__conn_work is due */
    as_link greedy;    /* as_conn.todo: likewise, behind all others */
    as_link gone;      /* as_conn.all: closed, to be freed when the turn is over */
    as_late *late;     /* answers that leave at the end of this turn */
    as_link listeners; /* as_listener.link; also closed ones, whose names connections point to */
    as_timeout accept_retry, alarm;
    as_balance balance; /* with other processes */
    uv_poll_t yield;    /* of a timer: accepting goes on when it is readable */
    int yield_fd;       /* -1: it shares with nobody */

    /* Only where a listener is TLS. */
    char *tls_scratch;  /* AS_TLS_RECORD bytes for all connections; else NULL */
    as_link handshakes; /* those under way, the oldest first: as_handshake.open */
    uint32_t nhandshakes;
    as_timeout tls_watch; /* files are looked at */
    uint32_t nreadings;   /* … and read, by other threads */

    uv_poll_t wakeup;
    int wakeup_fds[2]; /* a pipe, so that a signal handler of Python's may write to it */

    bool polling;        /* as_loop_poll is on the stack */
    bool closing;        /* as_loop_free is */
    bool again;          /* one more round is due: a watcher changed, or somebody asked for it */
    bool woken;          /* the hook `wake` was called and no poll came since */
    bool stopping;       /* as_loop_stop was called */
    bool forked;         /* this is a child: the loop is its parent's */
    uint32_t drain_idle; /* milliseconds for idle connections while draining */
    as_told overloaded_told, spool_full_told; /* of env.overloaded and env.spool_full */
    bool drained_told;                        /* the hook `drained` was called */
    bool accept_paused;
    bool accept_noticed; /* the log knows that accepting stopped */
};

/* Refreshes and returns loop->now. A handler may have taken long since the last time. */
uint64_t as__loop_now(as_loop *loop);
/* The Date that answers bear is that of now: before every read, because a handler may have taken
 * long. */
void as__loop_tick_date(as_loop *loop);
/* Another round of as_loop_poll is needed: a watcher changed or work was queued. */
void as__loop_again(as_loop *loop);
/* A timeout may have been set outside of as_loop_poll: tells the driver, if it is to come sooner.
 */
void as__loop_timer(as_loop *loop);
/* A connection is gone: accepting can go on, or draining may be over. */
void as__loop_conn_gone(as_loop *loop);
/* The application forked, and its child returned to where the server goes on. */
_Noreturn void as__end_child(void);
void as__loop_notice(as_loop *loop, as_notice_level level, const char *text);

#endif

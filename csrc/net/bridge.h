/* Carries exchanges from a loop's thread to threads that answer them, and the answers back. Knows
 * no Python.
 *
 * The loop's thread never waits for another one, but for a lock that is held for a few
 * instructions. It hands over a request that is here in full as an as_remote; one of the hands,
 * threads of the bridge's user, takes it and answers through `remote->ex`, an exchange like any
 * other. What is written there is gathered, published when a piece of the response is to leave, and
 * repeated on the real exchange by the loop's thread. A hand that writes more than the client takes
 * waits in as_remote_wait.
 *
 * WHO CALLS WHAT
 *   loop    on the loop's thread, or on the only one left when that has ended
 *   hand    on the thread that has taken the remote
 *   any     from any thread
 *
 * Owner: whoever made the bridge. It outlives the loop's thread, the loop, and every hand. */
#ifndef AS_NET_BRIDGE_H
#define AS_NET_BRIDGE_H

#include <pthread.h>

#include "base/spool.h"
#include "http/exchange.h"
#include "net/list.h"
#include "net/loop.h"

#define AS_REMOTE_SERVER ((size_t)112) /* bytes of an address, or the path of a Unix socket */

typedef struct as_bridge as_bridge;

/* A thread that answers. Made by it, and gone when it is. */
typedef struct as_hand {
    pthread_cond_t wake;
    struct as_hand *next; /* of those that rest */
    bool resting;         /* waits for a request */
    bool called;          /* was woken for one, and has not come for it yet */
} as_hand;

typedef enum as_remote_state {
    AS_REMOTE_GATHERS, /* with the loop's thread: its body comes in */
    AS_REMOTE_QUEUED,
    AS_REMOTE_TAKEN /* with a hand, until that releases `ex` */
} as_remote_state;

/* A request on its way. */
typedef struct as_remote {
    as_exchange ex; /* the hand's; has no interim responses, no trailers and a body that is here */
    as_spool body;  /* the loop's until it is queued, then the hand's */
    as_bridge *bridge;
    as_exchange *real; /* the loop's */
    as_conn_info info; /* copies, which stay when the connection is gone: of the connection's, */
    as_conn_info told; /* and of what a proxy tells */
    char server[AS_REMOTE_SERVER];
    uint8_t state; /* as_remote_state */
    bool failed;   /* loop: the real exchange takes no more */

    /* The hand's own: what is not published yet. */
    as_buf out;
    size_t out_last;    /* where its last record begins */
    uint64_t out_bytes; /* of body */

    /* Under the bridge's lock. */
    as_link link; /* in the queue, or among those that the loop must look at */
    as_hand *hand;
    as_buf published;
    bool finished; /* the hand has let go */
    bool lost;     /* there was no memory to publish */

    /* The loop's: what it accepted of these. */
    as_buf replayed;
    bool last; /* nothing will be published any more */
    bool cut;

    /* Written under the lock, read without. */
    _Atomic bool gone;       /* the client has left, or the connection was cut */
    _Atomic bool clogged;    /* the client does not take what was sent */
    _Atomic uint64_t unsent; /* bytes of body that were published and not repeated */
} as_remote;

/* `high`: bytes that may wait for the client before as_remote_wait waits. `released`: for the
 * loop's thread, called with `ctx` when the answer to a real exchange is through, before that is
 * released. NULL: no memory. */
as_bridge *as_bridge_new(uint64_t high, void (*released)(void *ctx, const as_exchange *ex),
                         void *ctx);
void as_bridge_free(as_bridge *bridge);

/* --- the loop's thread ------------------------------------------------------------------------ */

/* The loop's thread begins and ends to serve as_bridge_call. */
void as_bridge_open(as_bridge *bridge, as_loop *loop);
void as_bridge_end(as_bridge *bridge);
/* For as_loop_run's hooks: repeats what was published, and makes sure that what is published during
 * the wait ends it. */
void as_bridge_before_wait(as_bridge *bridge);
void as_bridge_after_wait(as_bridge *bridge);
/* The loop is freed, or will not run again: hands that still come find nobody. */
void as_bridge_close(as_bridge *bridge);

/* For the handler on_request: a remote that gathers, ex->gateway. NULL: no memory. `spools` lives
 * as long as the bridge. */
as_remote *as_remote_new(as_bridge *bridge, as_exchange *ex, as_spools *spools);
/* The body is here: one of the hands may take it. */
void as_remote_queue(as_remote *remote);
/* on_abort and on_drain. */
void as_remote_abort(as_remote *remote);
void as_remote_drained(as_remote *remote);
/* Of a remote that was not queued: it is gone, the exchange released. */
void as_remote_drop(as_remote *remote);

/* --- hands ------------------------------------------------------------------------------------ */

as_err as_hand_init(as_hand *hand);
void as_hand_fini(as_hand *hand);
/* A request, or NULL; never waits. */
as_remote *as_bridge_take(as_bridge *bridge, as_hand *hand);
/* Waits until there may be something to take or to collect. False: nothing will come any more. */
bool as_bridge_wait(as_bridge *bridge, as_hand *hand);
/* Lets go of bodies that were sent: runs their `drop`. */
void as_bridge_collect(as_bridge *bridge);

/* as_remote_wait would not wait. */
bool as_remote_is_ready(const as_remote *remote);
/* Publishes, and waits until the client has taken enough, or has left. */
void as_remote_wait(as_remote *remote);

/* In a child of the process, right behind fork: a hand that comes back there ends the child. */
void as_bridge_forked(as_bridge *bridge);

/* --- any thread ------------------------------------------------------------------------------- */

/* Runs `fn` on the loop's thread and waits for that. False: that thread does not run, and `fn` was
 * not called. */
bool as_bridge_call(as_bridge *bridge, void (*fn)(void *arg), void *arg);
/* Between as_bridge_open and as_bridge_end. */
bool as_bridge_is_open(as_bridge *bridge);
/* Hands are to end: what is queued is not taken. */
void as_bridge_dismiss(as_bridge *bridge);
bool as_bridge_dismissed(as_bridge *bridge);

#endif

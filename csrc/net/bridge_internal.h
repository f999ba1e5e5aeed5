/* What bridge.c (queues, waiting, waking) and remote.c (what a hand writes, and its repetition)
 * share. */
#ifndef AS_NET_BRIDGE_INTERNAL_H
#define AS_NET_BRIDGE_INTERNAL_H

#include <stdatomic.h>

#include "net/bridge.h"
#include "net/loop_internal.h"

/* Somebody's bytes that the output queue refers to. They go back to a hand to be dropped. */
typedef struct as_loan {
    as_bytes bytes;
    unsigned refs; /* the loop's */
    as_bridge *bridge;
    struct as_loan *next; /* in as_bridge.returned */
} as_loan;

typedef struct as_call as_call;

struct as_bridge {
    uint64_t high;
    void (*released)(void *ctx, const as_exchange *ex);
    void *ctx;

    pthread_mutex_t lock; /* over all that follows, but where it says otherwise */
    as_link queue;        /* as_remote.link: waiting for a hand, the oldest first */
    as_link posts;        /* as_remote.link: something was published */
    as_hand *resting;     /* the last to come first: its caches are warm */
    bool called;          /* a hand was woken and has not come yet; it wakes the next one */
    bool dismissed;
    bool closed; /* nobody looks at posts any more */
    bool forked; /* this is a child; written when it has one thread, read without the lock */
    as_loop *loop;
    bool open;     /* the loop's thread runs */
    bool sleeping; /* it waits, or is about to, and must be woken */
    as_call *calls, **last_call;
    pthread_cond_t called_back;

    _Atomic(as_loan *) returned; /* without the lock */

    as_remote *free; /* the loop's: for reuse, by link.next */
    unsigned nfree;
};

/* A child ends here: who holds the lock, or is waited for, is not there. */
static inline void as__bridge_lock(as_bridge *bridge) {
    if (bridge->forked) {
        as__end_child();
    }
    (void)pthread_mutex_lock(&bridge->lock);
}

static inline void as__bridge_unlock(as_bridge *bridge) {
    (void)pthread_mutex_unlock(&bridge->lock);
}

/* --- bridge.c --------------------------------------------------------------------------------- */

/* With the lock held: the loop's thread looks at what was posted. */
void as__bridge_wake_loop(as_bridge *bridge);
/* The last reference to a loan is gone. On the loop's thread. */
void as__bridge_return(as_loan *loan);

/* --- remote.c --------------------------------------------------------------------------------- */

/* With the lock held: takes what was published out of its hands. */
void as__remote_accept(as_remote *remote);
/* Repeats that, and frees a remote whose last it was. */
void as__remote_replay(as_remote *remote);
void as__remote_free(as_remote *remote);

#endif

#include <stdlib.h>

#include "net/bridge_internal.h"

struct as_call {
    void (*fn)(void *arg);
    void *arg;
    bool done;
    as_call *next;
};

/* --- making ----------------------------------------------------------------------------------- */

as_bridge *as_bridge_new(uint64_t high, void (*released)(void *ctx, const as_exchange *ex),
                         void *ctx) {
    as_bridge *b = calloc(1, sizeof(*b));
    if (b == NULL) {
        return NULL;
    }
    b->high = high;
    b->released = released;
    b->ctx = ctx;
    as__link_init(&b->queue);
    as__link_init(&b->posts);
    b->last_call = &b->calls;
    if (pthread_mutex_init(&b->lock, NULL) != 0) {
        free(b);
        return NULL;
    }
    if (pthread_cond_init(&b->called_back, NULL) != 0) {
        (void)pthread_mutex_destroy(&b->lock);
        free(b);
        return NULL;
    }
    return b;
}

void as_bridge_free(as_bridge *b) {
    if (b == NULL) {
        return;
    }
    while (b->free != NULL) {
        as_remote *remote = b->free;
        b->free = (as_remote *)(void *)remote->link.next;
        as_buf_fini(&remote->out, NULL);
        as_buf_fini(&remote->published, NULL);
        as_buf_fini(&remote->replayed, NULL);
        free(remote);
    }
    (void)pthread_cond_destroy(&b->called_back);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
}

as_err as_hand_init(as_hand *hand) {
    *hand = (as_hand){0};
    return pthread_cond_init(&hand->wake, NULL) == 0 ? AS_OK : AS_E_NOMEM;
}

void as_hand_fini(as_hand *hand) {
    (void)pthread_cond_destroy(&hand->wake);
}

void as_bridge_forked(as_bridge *b) {
    b->forked = true;
}

/* --- waking ----------------------------------------------------------------------------------- */

/* One hand at a time: with more in the queue it wakes the next one when it comes. So a burst that
 * one hand is through with before another had come costs one waking. */
static void wake_hand(as_bridge *b) {
    as_hand *hand = b->resting;
    if (hand == NULL || b->called) {
        return;
    }
    b->resting = hand->next;
    b->called = hand->called = true;
    hand->resting = false;
    (void)pthread_cond_signal(&hand->wake);
}

static void come(as_bridge *b, as_hand *hand) {
    if (hand->called) {
        hand->called = b->called = false;
    }
}

void as__bridge_wake_loop(as_bridge *b) {
    if (b->sleeping) {
        b->sleeping = false;
        as_loop_wakeup(b->loop); /* under the lock, within which the loop is not freed */
    }
}

/* --- the queue -------------------------------------------------------------------------------- */

void as_remote_queue(as_remote *remote) {
    as_bridge *b = remote->bridge;
    as__bridge_lock(b);
    remote->state = AS_REMOTE_QUEUED;
    as__list_push(&b->queue, &remote->link);
    wake_hand(b);
    as__bridge_unlock(b);
}

as_remote *as_bridge_take(as_bridge *b, as_hand *hand) {
    as__bridge_lock(b);
    come(b, hand);
    as_link *link = b->dismissed ? NULL : as__list_pop(&b->queue);
    as_remote *remote = link != NULL ? AS_OWNER(link, as_remote, link) : NULL;
    if (remote != NULL) {
        remote->state = AS_REMOTE_TAKEN;
        remote->hand = hand;
        if (as__link_linked(&b->queue)) {
            wake_hand(b);
        }
    }
    as__bridge_unlock(b);
    return remote;
}

bool as_bridge_wait(as_bridge *b, as_hand *hand) {
    as__bridge_lock(b);
    come(b, hand);
    if (!b->dismissed && !as__link_linked(&b->queue) && atomic_load(&b->returned) == NULL) {
        hand->next = b->resting;
        b->resting = hand;
        hand->resting = true;
        while (hand->resting) {
            (void)pthread_cond_wait(&hand->wake, &b->lock);
        }
    }
    bool going = !b->dismissed;
    as__bridge_unlock(b);
    return going;
}

void as_bridge_dismiss(as_bridge *b) {
    as__bridge_lock(b);
    b->dismissed = true;
    while (b->resting != NULL) {
        as_hand *hand = b->resting;
        b->resting = hand->next;
        hand->resting = false;
        (void)pthread_cond_signal(&hand->wake);
    }
    as__bridge_unlock(b);
}

bool as_bridge_dismissed(as_bridge *b) {
    as__bridge_lock(b);
    bool dismissed = b->dismissed;
    as__bridge_unlock(b);
    return dismissed;
}

/* --- bodies that were sent -------------------------------------------------------------------- */

void as__bridge_return(as_loan *loan) {
    as_bridge *b = loan->bridge;
    loan->next = atomic_load(&b->returned);
    while (!atomic_compare_exchange_weak(&b->returned, &loan->next, loan)) {
    }
}

void as_bridge_collect(as_bridge *b) {
    if (atomic_load(&b->returned) == NULL) {
        return;
    }
    as_loan *loan = atomic_exchange(&b->returned, NULL);
    while (loan != NULL) {
        as_loan *next = loan->next;
        loan->bytes.drop(loan->bytes.owner);
        free(loan);
        loan = next;
    }
}

/* --- the loop's thread ------------------------------------------------------------------------ */

/* Also for what a stranger asked: calls run between what was published and the next wait. */
static void run_calls(as_bridge *b) {
    as__bridge_lock(b);
    while (b->calls != NULL) {
        as_call *call = b->calls;
        b->calls = call->next;
        if (b->calls == NULL) {
            b->last_call = &b->calls;
        }
        as__bridge_unlock(b);
        call->fn(call->arg);
        as__bridge_lock(b);
        call->done = true;
        (void)pthread_cond_broadcast(&b->called_back);
    }
    as__bridge_unlock(b);
}

/* What is posted from here on waits for the next time: the sockets have their turn as well. */
static void replay_posts(as_bridge *b) {
    as_link posts, *link;
    as__bridge_lock(b);
    b->sleeping = false;
    as__list_move(&b->posts, &posts);
    while ((link = as__list_pop(&posts)) != NULL) {
        as_remote *remote = AS_OWNER(link, as_remote, link);
        as__remote_accept(remote);
        as__bridge_unlock(b);
        as__remote_replay(remote);
        as__bridge_lock(b);
    }
    as__bridge_unlock(b);
}

void as_bridge_open(as_bridge *b, as_loop *loop) {
    as__bridge_lock(b);
    b->loop = loop;
    b->open = true;
    as__bridge_unlock(b);
}

void as_bridge_end(as_bridge *b) {
    bool more = true;
    while (more) {
        replay_posts(b);
        run_calls(b);
        as__bridge_lock(b);
        more = b->calls != NULL;
        b->open = more;
        as__bridge_unlock(b);
    }
}

void as_bridge_before_wait(as_bridge *b) {
    replay_posts(b);
    run_calls(b);
    as__bridge_lock(b);
    if (atomic_load(&b->returned) != NULL) {
        wake_hand(b);
    }
    b->sleeping = true;
    if (as__link_linked(&b->posts) || b->calls != NULL) {
        as__bridge_wake_loop(b); /* they came just now: the sockets are looked at first */
    }
    as__bridge_unlock(b);
}

void as_bridge_after_wait(as_bridge *b) {
    replay_posts(b);
}

void as_bridge_close(as_bridge *b) {
    if (b->forked) {
        return; /* all of it is the parent's */
    }
    replay_posts(b);
    as__bridge_lock(b);
    b->closed = true;
    as__bridge_unlock(b);
    replay_posts(b);
}

/* --- calls ------------------------------------------------------------------------------------ */

bool as_bridge_is_open(as_bridge *b) {
    as__bridge_lock(b);
    bool open = b->open;
    as__bridge_unlock(b);
    return open;
}

bool as_bridge_call(as_bridge *b, void (*fn)(void *arg), void *arg) {
    as_call call = {.fn = fn, .arg = arg};
    as__bridge_lock(b);
    bool open = b->open;
    if (open) {
        *b->last_call = &call;
        b->last_call = &call.next;
        as__bridge_wake_loop(b);
        while (!call.done) {
            (void)pthread_cond_wait(&b->called_back, &b->lock);
        }
    }
    as__bridge_unlock(b);
    return open;
}

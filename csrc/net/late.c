/* A slot is FREE, or LENT to the thread, which makes it WRITING and then WRITTEN. To take it back
 * is to make LENT FREE, or to wait for WRITTEN: the socket never blocks, so that is soon.
 *
 * The thread looks every TICK milliseconds, and leaves what has come since its last look to
 * the loop. When nothing has been put for a while it sleeps until it is woken. */
#include "net/late.h"

#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/thread.h"

#define TICK 2u /* milliseconds between two looks of the thread; bytes wait two of them at most */
#define SLOTS 64u
#define BUDGET ((uint64_t)1000) /* microseconds that the first ones wait while handlers are quick */
#define CLOCK_EVERY 4u          /* answers from one look at the clock to the next; of SLOTS */
#define QUIET 16u               /* looks without anything new, then the thread sleeps */
#define STACK ((size_t)128 * 1024) /* bytes */

enum { FREE, LENT, WRITING, WRITTEN };

typedef struct slot {
    atomic_uint state;
    atomic_uint tick; /* of the thread, when it was lent */
    as_transport transport;
    as_buf buf;
    size_t off;
    ssize_t result; /* of the thread's write */
    void *owner;
} slot;

struct as_late {
    slot slots[SLOTS];
    unsigned count, top; /* slots in use; the first that is behind all of them */
    uint64_t since;      /* microseconds, when the first CLOCK_EVERY had been put */
    pid_t pid;           /* of the process that has the thread; 0: none yet */
    bool failed;         /* it could not be started */

    pthread_t thread;
    pthread_mutex_t lock; /* of `closing`, and for the conditions' sake */
    pthread_cond_t wake;
    bool closing;
    atomic_bool ticking; /* the thread looks by itself */
    atomic_uint tick, puts;
};

/* --- the thread ------------------------------------------------------------------------------- */

static void write_slot(slot *s) {
    unsigned expected = LENT;
    if (atomic_compare_exchange_strong_explicit(&s->state, &expected, WRITING, memory_order_acquire,
                                                memory_order_relaxed)) {
        struct iovec vec = {s->buf.data + s->off, s->buf.len - s->off};
        s->result = s->transport.ops->writev(&s->transport, &vec, 1);
        atomic_store_explicit(&s->state, WRITTEN, memory_order_release);
    }
}

/* What was lent before the last look. A slot may change hands meanwhile: to write its new bytes now
 * is early, and right. */
static void look(as_late *late, unsigned tick) {
    for (unsigned i = 0; i < SLOTS; i++) {
        slot *s = &late->slots[i];
        if (atomic_load_explicit(&s->state, memory_order_acquire) == LENT &&
            atomic_load_explicit(&s->tick, memory_order_relaxed) != tick) {
            write_slot(s);
        }
    }
}

static bool has_lent(as_late *late) {
    for (unsigned i = 0; i < SLOTS; i++) {
        if (atomic_load(&late->slots[i].state) == LENT) {
            return true;
        }
    }
    return false;
}

/* With the lock; until the time has come, or the end. */
static void pause_for_tick(as_late *late) {
    struct timespec at = as_moment_in(TICK);
    while (!late->closing && pthread_cond_timedwait(&late->wake, &late->lock, &at) == 0) {
    }
}

/* With the lock. What is lent while it falls asleep is seen here, or sees that it sleeps. */
static void sleep_until_woken(as_late *late) {
    atomic_store(&late->ticking, false);
    if (has_lent(late)) {
        atomic_store(&late->ticking, true);
    }
    while (!late->closing && !atomic_load(&late->ticking)) {
        (void)pthread_cond_wait(&late->wake, &late->lock);
    }
}

static void *run(void *arg) {
    as_late *late = arg;
    unsigned quiet = 0, seen = 0;
    (void)pthread_mutex_lock(&late->lock);
    while (!late->closing) {
        pause_for_tick(late);
        (void)pthread_mutex_unlock(&late->lock);
        unsigned tick = atomic_fetch_add(&late->tick, 1);
        look(late, tick);
        unsigned puts = atomic_load_explicit(&late->puts, memory_order_relaxed);
        quiet = puts == seen ? quiet + 1 : 0;
        seen = puts;
        (void)pthread_mutex_lock(&late->lock);
        if (quiet > QUIET) {
            sleep_until_woken(late);
            quiet = 0;
        }
    }
    (void)pthread_mutex_unlock(&late->lock);
    return NULL;
}

static bool start_thread(as_late *late) {
    if (late->failed) {
        return false;
    }
    atomic_store(&late->ticking, true); /* before it can say otherwise */
    late->failed = as_thread_start(&late->thread, STACK, run, late) != 0;
    if (late->failed) {
        atomic_store(&late->ticking, false);
        return false;
    }
    late->pid = getpid();
    return true;
}

bool as__late_guard(as_late *late) {
    if (atomic_load(&late->ticking)) {
        return true;
    }
    if (late->pid == 0) {
        return start_thread(late);
    }
    (void)pthread_mutex_lock(&late->lock);
    atomic_store(&late->ticking, true);
    (void)pthread_cond_signal(&late->wake);
    (void)pthread_mutex_unlock(&late->lock);
    return true;
}

/* --- slots ------------------------------------------------------------------------------------ */

bool as__late_any(const as_late *late) {
    return late->count > 0;
}

/* Where there are few at a time the clock is not looked at. */
bool as__late_is_due(as_late *late) {
    if (late->count % CLOCK_EVERY != 0) {
        return late->top == SLOTS;
    }
    uint64_t now = as_microseconds();
    if (late->count == CLOCK_EVERY) {
        late->since = now;
    }
    return now > late->since + BUDGET;
}

unsigned as__late_put(as_late *late, const as_transport *transport, as_buf *buf, size_t off,
                      void *owner) {
    if (late->top == SLOTS) {
        return 0;
    }
    slot *s = &late->slots[late->top++];
    s->transport = *transport;
    s->buf = *buf;
    s->off = off;
    s->owner = owner;
    atomic_store_explicit(&s->tick, atomic_load_explicit(&late->tick, memory_order_relaxed),
                          memory_order_relaxed);
    *buf = (as_buf){0};
    unsigned puts = atomic_load_explicit(&late->puts, memory_order_relaxed);
    atomic_store_explicit(&late->puts, puts + 1, memory_order_relaxed);
    late->count++;
    atomic_store(&s->state, LENT);
    return late->top;
}

static ssize_t take_back(slot *s) {
    unsigned state = LENT;
    if (atomic_compare_exchange_strong_explicit(&s->state, &state, FREE, memory_order_acquire,
                                                memory_order_acquire)) {
        return 0;
    }
    while (state == WRITING) {
        (void)sched_yield();
        state = atomic_load_explicit(&s->state, memory_order_acquire);
    }
    atomic_store_explicit(&s->state, FREE, memory_order_relaxed);
    return s->result;
}

ssize_t as__late_take(as_late *late, unsigned number, as_buf *buf, size_t *off) {
    slot *s = &late->slots[number - 1];
    ssize_t result = take_back(s);
    *buf = s->buf;
    *off = s->off;
    s->buf = (as_buf){0};
    s->owner = NULL;
    late->count--;
    while (late->top > 0 && late->slots[late->top - 1].owner == NULL) {
        late->top--;
    }
    return result;
}

void *as__late_next(const as_late *late, unsigned *at) {
    while (*at < late->top) {
        void *owner = late->slots[(*at)++].owner;
        if (owner != NULL) {
            return owner;
        }
    }
    return NULL;
}

/* --- life ------------------------------------------------------------------------------------- */

as_late *as__late_new(void) {
    as_late *late = calloc(1, sizeof(*late));
    if (late == NULL || as_cond_init(&late->wake) != 0) {
        free(late);
        return NULL;
    }
    (void)pthread_mutex_init(&late->lock, NULL); /* on Linux it cannot fail */
    return late;
}

/* A forked child has no thread, and no use for its lock. */
void as__late_free(as_late *late, as_buf_pool *pool) {
    if (late == NULL) {
        return;
    }
    if (late->pid == getpid()) {
        (void)pthread_mutex_lock(&late->lock);
        late->closing = true;
        (void)pthread_cond_signal(&late->wake);
        (void)pthread_mutex_unlock(&late->lock);
        (void)pthread_join(late->thread, NULL);
    }
    for (unsigned i = 0; i < SLOTS; i++) {
        as_buf_fini(&late->slots[i].buf, pool);
    }
    free(late);
}

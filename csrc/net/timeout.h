/* Timeouts of one loop: a wheel of coarse ticks.
 *
 * Made for deadlines that are pushed on far more often than they are met: a later deadline is only
 * stored, and the wheel looks at it when the slot of the earlier one comes up. A timeout never
 * fires early, and late by at most one tick. Times are milliseconds of one monotonic clock. */
#ifndef AS_NET_TIMEOUT_H
#define AS_NET_TIMEOUT_H

#include <stdbool.h>
#include <stdint.h>

#include "net/list.h"

#define AS_WHEEL_TICK 250u  /* milliseconds */
#define AS_WHEEL_SLOTS 256u /* later deadlines go around more than once */
#define AS_TIMEOUT_NEVER UINT64_MAX

/* In the hands of its owner, who removes it before it goes. */
typedef struct as_timeout {
    as_link link;
    uint64_t deadline; /* AS_TIMEOUT_NEVER: none */
    uint32_t tick;     /* of the slot that it is in; its lower half */
} as_timeout;

typedef struct as_wheel {
    as_link slots[AS_WHEEL_SLOTS];
    uint64_t tick;  /* the last one that was handled */
    uint64_t next;  /* where the first timeout is, or was before it was removed; if there is any */
    uint32_t count; /* timeouts in slots, cleared ones too until their slot comes up */
} as_wheel;

void as__wheel_init(as_wheel *wheel, uint64_t now);
/* Calls `expire` for every timeout whose deadline has come; it is out of the wheel then. `expire`
 * may set, clear and remove any timeout. */
void as__wheel_advance(as_wheel *wheel, uint64_t now,
                       void (*expire)(as_timeout *timeout, void *arg), void *arg);
/* When as__wheel_advance is due; AS_TIMEOUT_NEVER: nothing can time out. */
uint64_t as__wheel_due(const as_wheel *wheel);

void as__timeout_init(as_timeout *timeout);
void as__timeout_set(as_wheel *wheel, as_timeout *timeout, uint64_t now, uint64_t deadline);
/* It will not fire. Costs a store: it leaves the wheel when its slot comes up. */
static inline void as__timeout_clear(as_timeout *timeout) {
    timeout->deadline = AS_TIMEOUT_NEVER;
}
void as__timeout_remove(as_wheel *wheel, as_timeout *timeout);

#endif

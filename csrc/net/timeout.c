#include "net/timeout.h"

/* The first tick at which `deadline` has passed. */
static uint32_t deadline_tick(uint64_t deadline) {
    return (uint32_t)((deadline + AS_WHEEL_TICK - 1) / AS_WHEEL_TICK);
}

static uint32_t now_tick(uint64_t now) {
    return (uint32_t)(now / AS_WHEEL_TICK);
}

void as__wheel_init(as_wheel *wheel, uint64_t now) {
    for (unsigned i = 0; i < AS_WHEEL_SLOTS; i++) {
        as__link_init(&wheel->slots[i]);
    }
    wheel->tick = now_tick(now);
    wheel->count = 0;
}

/* Into the slot of its deadline, or into the farthest one. */
static void insert(as_wheel *wheel, as_timeout *timeout) {
    uint32_t tick = deadline_tick(timeout->deadline);
    if ((int32_t)(tick - wheel->tick) <= 0) {
        tick = wheel->tick + 1;
    } else if (tick - wheel->tick >= AS_WHEEL_SLOTS) {
        tick = wheel->tick + AS_WHEEL_SLOTS - 1;
    }
    timeout->tick = tick;
    as__list_push(&wheel->slots[tick % AS_WHEEL_SLOTS], &timeout->link);
    wheel->count++;
}

void as__timeout_init(as_timeout *timeout) {
    as__link_init(&timeout->link);
    timeout->deadline = AS_TIMEOUT_NEVER;
    timeout->tick = 0;
}

void as__timeout_set(as_wheel *wheel, as_timeout *timeout, uint64_t now, uint64_t deadline) {
    timeout->deadline = deadline;
    if (as__link_linked(&timeout->link)) {
        if ((int32_t)(deadline_tick(deadline) - timeout->tick) >= 0) {
            return;
        }
        as__timeout_remove(wheel, timeout);
        timeout->deadline = deadline;
    }
    if (wheel->count == 0) {
        wheel->tick = now_tick(now); /* nobody advances an empty wheel */
    }
    insert(wheel, timeout);
}

void as__timeout_remove(as_wheel *wheel, as_timeout *timeout) {
    if (as__link_linked(&timeout->link)) {
        as__link_remove(&timeout->link);
        wheel->count--;
    }
    timeout->deadline = AS_TIMEOUT_NEVER;
}

/* One slot: fires what is due, and moves on what was pushed on since it was put there. */
static void advance_slot(as_wheel *wheel, uint64_t now,
                         void (*expire)(as_timeout *timeout, void *arg), void *arg) {
    as_link due, *link;
    as__list_move(&wheel->slots[wheel->tick % AS_WHEEL_SLOTS], &due);
    while ((link = as__list_pop(&due)) != NULL) {
        as_timeout *timeout = AS_OWNER(link, as_timeout, link);
        wheel->count--;
        if (timeout->deadline <= now) {
            timeout->deadline = AS_TIMEOUT_NEVER;
            expire(timeout, arg);
        } else if (timeout->deadline != AS_TIMEOUT_NEVER) {
            insert(wheel, timeout);
        }
    }
}

void as__wheel_advance(as_wheel *wheel, uint64_t now,
                       void (*expire)(as_timeout *timeout, void *arg), void *arg) {
    uint32_t target = now_tick(now);
    if ((int32_t)(target - wheel->tick) <= 0) {
        return;
    }
    if (target - wheel->tick > AS_WHEEL_SLOTS) {
        wheel->tick = target - AS_WHEEL_SLOTS; /* once around sees every slot */
    }
    while (wheel->tick != target && wheel->count > 0) {
        wheel->tick++;
        advance_slot(wheel, now, expire, arg);
    }
    wheel->tick = target;
}

int as__wheel_wait(const as_wheel *wheel, uint64_t now) {
    if (wheel->count == 0) {
        return -1;
    }
    uint64_t next = ((uint64_t)now_tick(now) + 1) * AS_WHEEL_TICK;
    return (int32_t)(now_tick(now) - wheel->tick) > 0 ? 0 : (int)(next - now);
}

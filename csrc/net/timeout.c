#include "net/timeout.h"

/* The first tick at which `deadline` has passed. */
static uint64_t deadline_tick(uint64_t deadline) {
    return (deadline + AS_WHEEL_TICK - 1) / AS_WHEEL_TICK;
}

static uint64_t now_tick(uint64_t now) {
    return now / AS_WHEEL_TICK;
}

static as_link *slot_of(as_wheel *wheel, uint64_t tick) {
    return &wheel->slots[tick % AS_WHEEL_SLOTS];
}

void as__wheel_init(as_wheel *wheel, uint64_t now) {
    for (unsigned i = 0; i < AS_WHEEL_SLOTS; i++) {
        as__link_init(&wheel->slots[i]);
    }
    wheel->tick = wheel->next = now_tick(now);
    wheel->count = 0;
}

/* Into the slot of its deadline, or into the farthest one. */
static void insert(as_wheel *wheel, as_timeout *timeout) {
    uint64_t tick = deadline_tick(timeout->deadline);
    if (tick <= wheel->tick) {
        tick = wheel->tick + 1;
    } else if (tick - wheel->tick >= AS_WHEEL_SLOTS) {
        tick = wheel->tick + AS_WHEEL_SLOTS - 1;
    }
    timeout->tick = (uint32_t)tick;
    as__list_push(slot_of(wheel, tick), &timeout->link);
    if (wheel->count++ == 0 || tick < wheel->next) {
        wheel->next = tick;
    }
}

void as__timeout_init(as_timeout *timeout) {
    as__link_init(&timeout->link);
    timeout->deadline = AS_TIMEOUT_NEVER;
    timeout->tick = 0;
}

void as__timeout_set(as_wheel *wheel, as_timeout *timeout, uint64_t now, uint64_t deadline) {
    timeout->deadline = deadline;
    if (as__link_linked(&timeout->link)) {
        if ((int32_t)((uint32_t)deadline_tick(deadline) - timeout->tick) >= 0) {
            return;
        }
        as__timeout_remove(wheel, timeout);
        timeout->deadline = deadline;
    }
    /* Nobody advances a wheel while nothing is due. */
    uint64_t tick = now_tick(now);
    if (wheel->count == 0 || (tick > wheel->tick && tick < wheel->next)) {
        wheel->tick = tick;
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
    as__list_move(slot_of(wheel, wheel->tick), &due);
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

/* Behind the ticks that were handled: where to look next. */
static void find_next(as_wheel *wheel) {
    wheel->next = wheel->tick + 1;
    while (wheel->count > 0 && !as__link_linked(slot_of(wheel, wheel->next))) {
        wheel->next++;
    }
}

void as__wheel_advance(as_wheel *wheel, uint64_t now,
                       void (*expire)(as_timeout *timeout, void *arg), void *arg) {
    uint64_t target = now_tick(now);
    if (target <= wheel->tick) {
        return;
    }
    if (wheel->count == 0 || target < wheel->next) {
        wheel->tick = target; /* there is nothing in between */
        return;
    }
    /* Once around sees every slot. */
    wheel->tick = target - wheel->next < AS_WHEEL_SLOTS ? wheel->next - 1 : target - AS_WHEEL_SLOTS;
    while (wheel->tick < target && wheel->count > 0) {
        wheel->tick++;
        advance_slot(wheel, now, expire, arg);
    }
    if (wheel->tick < target) { /* not so if the last one was set anew, and the clock went on */
        wheel->tick = target;
    }
    find_next(wheel);
}

uint64_t as__wheel_due(const as_wheel *wheel) {
    return wheel->count > 0 ? wheel->next * AS_WHEEL_TICK : AS_TIMEOUT_NEVER;
}

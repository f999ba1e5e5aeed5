/* The timer wheel: nothing fires early, nothing more than a tick late, whatever happens in between.
 */
#undef NDEBUG
#include <assert.h>
#include <stddef.h>
#include <stdlib.h>

#include "net/timeout.h"

typedef struct entry {
    as_timeout timeout;
    unsigned fired;
    uint64_t fired_at;
    /* what the entry does when it fires */
    struct entry *removes, *sets;
    uint64_t sets_after;
} entry;

typedef struct wheel_clock {
    as_wheel wheel;
    uint64_t now;
} wheel_clock;

static void expire(as_timeout *timeout, void *arg) {
    entry *e = AS_OWNER(timeout, entry, timeout);
    wheel_clock *c = arg;
    e->fired++;
    e->fired_at = c->now;
    assert(!as__link_linked(&timeout->link));
    if (e->removes != NULL) {
        as__timeout_remove(&c->wheel, &e->removes->timeout);
    }
    if (e->sets != NULL) {
        as__timeout_set(&c->wheel, &e->sets->timeout, c->now, c->now + e->sets_after);
    }
}

static void start(wheel_clock *c, uint64_t now) {
    c->now = now;
    as__wheel_init(&c->wheel, now);
}

static entry *make(entry *e) {
    *e = (entry){0};
    as__timeout_init(&e->timeout);
    return e;
}

static void set(wheel_clock *c, entry *e, uint64_t after) {
    as__timeout_set(&c->wheel, &e->timeout, c->now, c->now + after);
}

/* The clock goes on in steps of `step`. */
static void pass(wheel_clock *c, uint64_t time, uint64_t step) {
    for (uint64_t end = c->now + time; c->now < end;) {
        c->now += step;
        as__wheel_advance(&c->wheel, c->now, expire, c);
    }
}

static void test_empty_wheel_waits_for_nothing(void) {
    wheel_clock c;
    start(&c, 1000003);
    assert(as__wheel_due(&c.wheel) == AS_TIMEOUT_NEVER);
    pass(&c, 1000000, 777);
    assert(as__wheel_due(&c.wheel) == AS_TIMEOUT_NEVER);
}

static void test_fires_once_on_time(void) {
    static const uint64_t times[] = {1, 249, 250, 251, 5000, 63999, 64000, 64001, 300000, 86400000};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        wheel_clock c;
        entry e;
        start(&c, 123457 + i);
        uint64_t from = c.now;
        set(&c, make(&e), times[i]);
        pass(&c, times[i] + 10 * AS_WHEEL_TICK, 10);
        assert(e.fired == 1);
        assert(e.fired_at >= from + times[i]);
        assert(e.fired_at < from + times[i] + AS_WHEEL_TICK + 10);
        assert(as__wheel_due(&c.wheel) == AS_TIMEOUT_NEVER);
    }
}

/* Advances the wheel when it is due, and never else; how often that is. */
static unsigned follow(wheel_clock *c, uint64_t until) {
    unsigned polls = 0;
    for (uint64_t due; (due = as__wheel_due(&c->wheel)) <= until; polls++) {
        assert(due > c->now);
        c->now = due;
        as__wheel_advance(&c->wheel, c->now, expire, c);
    }
    return polls;
}

static void test_deadline_that_has_come(void) {
    wheel_clock c;
    entry now, past;
    start(&c, 40 * AS_WHEEL_TICK);
    set(&c, make(&now), 0);
    as__timeout_set(&c.wheel, &make(&past)->timeout, c.now, c.now - 3 * AS_WHEEL_TICK);
    assert(as__wheel_due(&c.wheel) == c.now + AS_WHEEL_TICK);
    assert(now.fired == 0 && past.fired == 0);
    pass(&c, AS_WHEEL_TICK, AS_WHEEL_TICK);
    assert(now.fired == 1 && past.fired == 1);
}

static void test_is_due_at_the_deadline_alone(void) {
    static const uint64_t times[] = {1, 1000, 63000};
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        wheel_clock c;
        entry e;
        start(&c, 99);
        set(&c, make(&e), times[i]);
        assert(follow(&c, 10000000) == 1);
        uint64_t deadline = 99 + times[i];
        assert(e.fired == 1 && e.fired_at >= deadline && e.fired_at < deadline + AS_WHEEL_TICK);
    }
}

/* Beyond the farthest slot once around is waited for first. */
static void test_is_due_once_around(void) {
    wheel_clock c;
    entry e;
    start(&c, 99);
    set(&c, make(&e), 200000);
    assert(follow(&c, 10000000) == 4 && e.fired == 1);
}

static void test_is_due_sooner(void) {
    wheel_clock c;
    entry far, near;
    start(&c, 5);
    set(&c, make(&far), 60000);
    uint64_t due = as__wheel_due(&c.wheel);
    c.now += 40000; /* nobody advances it meanwhile */
    set(&c, make(&near), 30000);
    assert(as__wheel_due(&c.wheel) == due); /* `near` is behind it */
    as__timeout_remove(&c.wheel, &near.timeout);
    set(&c, &near, 1000);
    assert(as__wheel_due(&c.wheel) > c.now && as__wheel_due(&c.wheel) < due);
    assert(follow(&c, 100000) == 2 && near.fired == 1 && far.fired == 1);
}

/* A handler takes long, and then sets the only timeout. */
static void expire_slowly(as_timeout *timeout, void *arg) {
    wheel_clock *c = arg;
    c->now += 100 * AS_WHEEL_TICK;
    expire(timeout, arg);
}

static void test_the_clock_goes_on_meanwhile(void) {
    wheel_clock c;
    entry first, second;
    start(&c, 5);
    set(&c, make(&first), 500);
    make(&second);
    first.sets = &second;
    first.sets_after = 1000;
    c.now += 1000;
    uint64_t began = c.now;
    as__wheel_advance(&c.wheel, c.now, expire_slowly, &c);
    assert(first.fired == 1 && second.fired == 0 && c.now > began);
    assert(follow(&c, c.now + 10000) == 1 && second.fired == 1);
}

static void test_a_wheel_that_was_empty_for_long(void) {
    wheel_clock c;
    entry e;
    start(&c, 0);
    c.now = 100000000; /* nobody advances it meanwhile */
    set(&c, make(&e), 1000);
    assert(as__wheel_due(&c.wheel) > c.now);
    pass(&c, 999, 9);
    assert(e.fired == 0);
    pass(&c, 300, 9);
    assert(e.fired == 1);
}

static void test_later_deadline_is_only_stored(void) {
    wheel_clock c;
    entry e;
    start(&c, 5);
    set(&c, make(&e), 5000);
    uint32_t tick = e.timeout.tick;
    pass(&c, 2000, 100);
    set(&c, &e, 5000);
    assert(e.timeout.tick == tick && c.wheel.count == 1);
    pass(&c, 4999, 1);
    assert(e.fired == 0);
    pass(&c, 251, 1);
    assert(e.fired == 1);
}

static void test_earlier_deadline(void) {
    wheel_clock c;
    entry e;
    start(&c, 5);
    set(&c, make(&e), 600000);
    set(&c, &e, 500);
    assert(c.wheel.count == 1);
    pass(&c, 499, 1);
    assert(e.fired == 0);
    pass(&c, 251, 1);
    assert(e.fired == 1);
}

static void test_cleared_and_removed(void) {
    wheel_clock c;
    entry cleared, removed, again;
    start(&c, 5);
    set(&c, make(&cleared), 500);
    set(&c, make(&removed), 500);
    set(&c, make(&again), 500);
    as__timeout_clear(&cleared.timeout);
    as__timeout_remove(&c.wheel, &removed.timeout);
    as__timeout_remove(&c.wheel, &removed.timeout); /* harmless */
    as__timeout_clear(&again.timeout);
    set(&c, &again, 2000);
    assert(c.wheel.count == 2);
    pass(&c, 1000, 50);
    assert(c.wheel.count == 1); /* the cleared one is gone, too */
    pass(&c, 1500, 50);
    assert(cleared.fired == 0 && removed.fired == 0 && again.fired == 1);
    assert(as__wheel_due(&c.wheel) == AS_TIMEOUT_NEVER);
}

static void test_expire_may_do_anything(void) {
    wheel_clock c;
    entry a, b, d, e;
    start(&c, 5);
    set(&c, make(&a), 500);
    set(&c, make(&b), 500); /* same slot: `a` removes it while it is being looked at */
    set(&c, make(&d), 500);
    make(&e);
    a.removes = &b;
    d.removes = &a; /* which has fired */
    d.sets = &e;
    d.sets_after = 0; /* due at once: fires with the next tick, not in an endless loop */
    e.sets = &a;
    e.sets_after = 1000;
    a.sets = NULL;
    pass(&c, 1001, 25);
    assert(a.fired == 1 && b.fired == 0 && d.fired == 1 && e.fired == 1);
    a.removes = NULL;
    pass(&c, 1500, 25);
    assert(a.fired == 2 && as__wheel_due(&c.wheel) == AS_TIMEOUT_NEVER);
}

static void test_a_jump_of_the_clock(void) {
    wheel_clock c;
    entry near, far, later;
    start(&c, 5);
    set(&c, make(&near), 100);
    set(&c, make(&far), 1000000);
    set(&c, make(&later), 100000000);
    c.now += 2000000; /* the process was suspended */
    assert(as__wheel_due(&c.wheel) <= c.now);
    as__wheel_advance(&c.wheel, c.now, expire, &c);
    assert(near.fired == 1 && far.fired == 1 && later.fired == 0);
    assert(as__wheel_due(&c.wheel) > c.now);
    c.now += 100000000;
    as__wheel_advance(&c.wheel, c.now, expire, &c);
    assert(later.fired == 1);
}

static void test_random(void) {
    enum { COUNT = 200, STEPS = 200000 };
    static entry entries[COUNT];
    static uint64_t deadlines[COUNT]; /* what ought to happen; 0: nothing */
    wheel_clock c;
    start(&c, 77777);
    srand(1);
    for (int i = 0; i < COUNT; i++) {
        make(&entries[i]);
    }
    for (int step = 0; step < STEPS; step++) {
        int i = rand() % COUNT;
        unsigned fired = entries[i].fired;
        assert(fired == 0);
        switch (rand() % 4) {
        case 0:
            as__timeout_clear(&entries[i].timeout);
            deadlines[i] = 0;
            break;
        case 1:
            as__timeout_remove(&c.wheel, &entries[i].timeout);
            deadlines[i] = 0;
            break;
        default: {
            uint64_t after = (uint64_t)(rand() % 2 ? rand() % 3000 : rand() % 200000);
            set(&c, &entries[i], after);
            deadlines[i] = c.now + after;
        }
        }
        c.now += (uint64_t)(rand() % 40);
        as__wheel_advance(&c.wheel, c.now, expire, &c);
        for (int k = 0; k < COUNT; k++) {
            if (entries[k].fired != 0) {
                assert(entries[k].fired == 1 && deadlines[k] != 0 && deadlines[k] <= c.now);
                entries[k].fired = 0;
                deadlines[k] = 0;
            }
            assert(deadlines[k] == 0 || deadlines[k] + AS_WHEEL_TICK + 40 > c.now);
        }
    }
}

int main(void) {
    test_empty_wheel_waits_for_nothing();
    test_fires_once_on_time();
    test_deadline_that_has_come();
    test_is_due_at_the_deadline_alone();
    test_is_due_once_around();
    test_is_due_sooner();
    test_the_clock_goes_on_meanwhile();
    test_a_wheel_that_was_empty_for_long();
    test_later_deadline_is_only_stored();
    test_earlier_deadline();
    test_cleared_and_removed();
    test_expire_may_do_anything();
    test_a_jump_of_the_clock();
    test_random();
    return 0;
}

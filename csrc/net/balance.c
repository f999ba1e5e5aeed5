#include "net/balance.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/types.h>
#include <unistd.h>

/* What another process may have more, before it counts as clearly more: some, and a quarter. */
#define SLACK 1u
#define SHARE 4u

struct as_seat {
    _Alignas(AS_SEAT_SIZE) _Atomic pid_t pid; /* 0: free */
    _Atomic uint32_t connections;
};
_Static_assert(sizeof(as_seat) == AS_SEAT_SIZE, "a seat is one cache line");

static bool is_dead(pid_t pid) {
    return kill(pid, 0) != 0 && errno == ESRCH;
}

static bool take(as_seat *seat) {
    pid_t holder = atomic_load(&seat->pid);
    if (holder != 0 && !is_dead(holder)) {
        return false;
    }
    return atomic_compare_exchange_strong(&seat->pid, &holder, getpid());
}

void as__balance_join(as_balance *balance, void *memory, size_t size) {
    as_seat *seats = memory;
    for (size_t i = 0, n = size / sizeof(*seats); i < n; i++) {
        if (take(&seats[i])) {
            *balance = (as_balance){.seats = seats, .mine = &seats[i], .nseats = n};
            as__balance_tell(balance, 0);
            return;
        }
    }
}

void as__balance_leave(as_balance *balance) {
    if (balance->mine != NULL) {
        atomic_store(&balance->mine->pid, 0);
    }
    *balance = (as_balance){0};
}

void as__balance_tell(const as_balance *balance, uint32_t connections) {
    if (balance->mine != NULL) {
        atomic_store_explicit(&balance->mine->connections, connections, memory_order_relaxed);
    }
}

static uint32_t with_slack(uint32_t connections) {
    uint64_t sum = (uint64_t)connections + connections / SHARE + SLACK;
    return sum < UINT32_MAX ? (uint32_t)sum : UINT32_MAX;
}

/* The fewest connections that another process has. */
static uint32_t least(const as_balance *balance) {
    uint32_t fewest = UINT32_MAX;
    for (const as_seat *seat = balance->seats; seat < balance->seats + balance->nseats; seat++) {
        if (seat == balance->mine || atomic_load_explicit(&seat->pid, memory_order_relaxed) == 0) {
            continue;
        }
        uint32_t n = atomic_load_explicit(&seat->connections, memory_order_relaxed);
        fewest = n < fewest ? n : fewest;
    }
    return fewest;
}

bool as__balance_may_accept(const as_balance *balance, uint32_t connections) {
    return balance->mine == NULL || connections < balance->granted ||
           connections < with_slack(least(balance));
}

void as__balance_waited(as_balance *balance, uint32_t connections) {
    balance->granted = with_slack(connections);
}

void as__balance_rest(as_balance *balance) {
    balance->granted = 0;
}

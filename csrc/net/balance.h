/* Spreads new connections over the processes that accept from the same sockets.
 *
 * The kernel wakes them all, and the first to run would take whatever waits: a burst of clients,
 * who then stay with one process while the others idle. So each tells in shared memory how many
 * connections it has, and one that has clearly more than another leaves new ones to it for a
 * moment. After that it takes some all the same: the other may be busy, or hang.
 *
 * The shared memory begins as zeros, as mmap gives it. A process that dies without a word leaves
 * its seat to the next one. */
#ifndef AS_NET_BALANCE_H
#define AS_NET_BALANCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/loop.h"

typedef struct as_seat as_seat;

/* One process's view. All zeros: it shares with nobody. */
typedef struct as_balance {
    as_seat *seats, *mine;
    size_t nseats;
    uint32_t granted; /* connections up to which the others were given their chance */
} as_balance;

/* Takes a seat in `memory` of `size` bytes, which must stay. Where all are taken, it shares with
 * nobody. */
void as__balance_join(as_balance *balance, void *memory, size_t size);
/* Takes no more part: it accepts no more connections. */
void as__balance_leave(as_balance *balance);
/* It has so many connections now. */
void as__balance_tell(const as_balance *balance, uint32_t connections);
/* Whether the next connection is for a process that has so many. If not, it is to be left to the
 * others until as__balance_waited was called. */
bool as__balance_may_accept(const as_balance *balance, uint32_t connections);
/* The others had their chance; with so many connections it may take some more. */
void as__balance_waited(as_balance *balance, uint32_t connections);
/* Nobody waits to be accepted. */
void as__balance_rest(as_balance *balance);

#endif

/* A turn of the loop, and what one connection may do in it before the others have theirs: much
 * while it is alone, less where several have something to do.
 *
 * Who does all of it, and wants more, is greedy: it queues in as_loop.greedy, and is served behind
 * those who are not, until it was modest so many times. */
#ifndef AS_NET_TURN_H
#define AS_NET_TURN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "http/http1.h"

#define AS_CROWD 4 /* connections that have something to do at once, and each all that it wants */
#define AS_READ_ROUNDS 8u /* full read buffers */

/* One call of as_loop_poll. */
typedef struct as_turn {
    uint64_t began;    /* microseconds */
    uint32_t read_max; /* bytes that each may read where it is crowded */
    bool crowded;      /* several have something to do: each may take less at once */
} as_turn;

/* A connection's part in it. */
typedef struct as_share {
    uint32_t room;  /* bytes that may be written in this turn */
    uint8_t greedy; /* events until it is modest; 0: it is */
} as_share;

void as__turn_begin(as_turn *turn, as_h1_env *env);
/* `n` connections are ready together, more than AS_CROWD. */
void as__turn_divide(as_turn *turn, unsigned n);
/* Until when greedy ones are served, microseconds. */
uint64_t as__turn_greedy_until(const as_turn *turn, uint64_t now);
/* One of them begins. */
void as__turn_slice(as_h1_env *env, uint64_t now);

/* What it may do begins anew; `counts`: as an event that may make it modest. */
void as__share_begin(as_share *share, const as_turn *turn, bool counts);
void as__share_mark_greedy(as_share *share);
/* Bytes of a read: bounded, so that one client cannot keep the others waiting. */
size_t as__share_read_size(const as_share *share, const as_turn *turn);
/* Whether it may read on, having filled so many buffers; it is greedy, if not. */
bool as__share_may_read_on(as_share *share, const as_turn *turn, const as_h1_env *env,
                           unsigned rounds);
/* Bytes of a single write. */
uint32_t as__share_write_size(const as_share *share);
/* So many were written: it is greedy, if that was all that it may. */
void as__share_wrote(as_share *share, uint64_t n);

#endif

#include "net/turn.h"

#include "base/clock.h"
#include "net/loop_internal.h"

/* For all. */
#define TURN_TIME 1000u   /* microseconds for requests that follow others at once */
#define GREEDY_TIME 1000u /* … for the greedy ones, behind all others, or half as long as those had */
#define GREEDY_SLICE 250u /* … for requests of one of them */
#define SHARED_READ 1048576u /* bytes that a crowd reads, as far as the next two allow it */
#define READ_MOST 16384u     /* of one in a crowd: a small body, too */
#define READ_LEAST 8192u     /* a usual head, and more */

/* For one. */
#define WRITE_MAX ((uint32_t)(1024 + 64) * 1024) /* bytes written: a MiB with its head */
#define WRITE_CROWDED ((uint32_t)64 * 1024)      /* … where others wait */
#define WRITE_GREEDY ((uint32_t)256 * 1024)      /* … by who goes behind them */
#define WRITE_LEAST ((uint32_t)16 * 1024)        /* in a single call */
#define MODEST_TIMES 7u

void as__turn_begin(as_turn *turn, as_h1_env *env) {
    *turn = (as_turn){.began = as_microseconds(), .read_max = READ_MOST};
    env->turn_end = turn->began + TURN_TIME;
    env->turn_over = false;
}

void as__turn_divide(as_turn *turn, unsigned n) {
    uint32_t part = SHARED_READ / n;
    turn->crowded = true;
    turn->read_max = part > READ_MOST ? READ_MOST : part < READ_LEAST ? READ_LEAST : part;
}

uint64_t as__turn_greedy_until(const as_turn *turn, uint64_t now) {
    uint64_t others = now - turn->began;
    return now + (others / 2 > GREEDY_TIME ? others / 2 : GREEDY_TIME);
}

void as__turn_slice(as_h1_env *env, uint64_t now) {
    env->turn_end = now + GREEDY_SLICE;
    env->turn_over = false;
}

void as__share_begin(as_share *share, const as_turn *turn, bool counts) {
    share->room = !turn->crowded ? WRITE_MAX : share->greedy == 0 ? WRITE_CROWDED : WRITE_GREEDY;
    if (share->greedy > 0 && counts) {
        share->greedy--;
    }
}

void as__share_mark_greedy(as_share *share) {
    share->greedy = MODEST_TIMES + 1;
}

size_t as__share_read_size(const as_share *share, const as_turn *turn) {
    return turn->crowded && share->greedy == 0 ? turn->read_max : AS_READ_BUFFER;
}

bool as__share_may_read_on(as_share *share, const as_turn *turn, const as_h1_env *env,
                           unsigned rounds) {
    if (rounds < AS_READ_ROUNDS && (!turn->crowded || share->greedy > 0) &&
        as_microseconds() < env->turn_end) {
        return true;
    }
    as__share_mark_greedy(share);
    return false;
}

uint32_t as__share_write_size(const as_share *share) {
    return share->room > WRITE_LEAST ? share->room : WRITE_LEAST;
}

void as__share_wrote(as_share *share, uint64_t n) {
    share->room = n < share->room ? share->room - (uint32_t)n : 0;
    if (share->room == 0) {
        as__share_mark_greedy(share);
    }
}

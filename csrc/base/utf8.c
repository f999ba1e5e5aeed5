/* A state machine whose step is one shift: the row of a byte holds the next state for each state,
 * and a state is the place in the row where its successor stands. The rows do not depend on each
 * other, so that a processor loads several of them ahead. */
#include "base/utf8.h"

/* What may follow, by Unicode's table 3-7 (RFC 3629, 4). */
enum {
    WHOLE = 0,      /* any first byte */
    ONE = 6,        /* 80..BF, the last one */
    TWO = 12,       /* 80..BF, then ONE */
    THREE = 18,     /* 80..BF, then TWO */
    BEHIND_E0 = 24, /* A0..BF, then ONE: shorter forms exist for what is less */
    BEHIND_ED = 30, /* 80..9F, then ONE: beyond are the surrogates */
    BEHIND_F0 = 36, /* 90..BF, then TWO: shorter forms */
    BEHIND_F4 = 42, /* 80..8F, then TWO: beyond is more than U+10FFFF */
    WRONG = 48,     /* for good */
    STATE_BITS = 63
};

#define AT(state, next) ((uint64_t)(next) << (state))
#define FIRST(next)                                                                                    \
    (AT(WHOLE, next) | AT(ONE, WRONG) | AT(TWO, WRONG) | AT(THREE, WRONG) | AT(BEHIND_E0, WRONG) |     \
     AT(BEHIND_ED, WRONG) | AT(BEHIND_F0, WRONG) | AT(BEHIND_F4, WRONG) | AT(WRONG, WRONG))
#define LATER(e0, ed, f0, f4)                                                                          \
    (AT(WHOLE, WRONG) | AT(ONE, WHOLE) | AT(TWO, ONE) | AT(THREE, TWO) | AT(BEHIND_E0, e0) |           \
     AT(BEHIND_ED, ed) | AT(BEHIND_F0, f0) | AT(BEHIND_F4, f4) | AT(WRONG, WRONG))

static const uint64_t rows[256] = {
    [0x00 ... 0x7f] = FIRST(WHOLE),
    [0x80 ... 0x8f] = LATER(WRONG, ONE, WRONG, TWO),
    [0x90 ... 0x9f] = LATER(WRONG, ONE, TWO, WRONG),
    [0xa0 ... 0xbf] = LATER(ONE, WRONG, TWO, WRONG),
    [0xc0 ... 0xc1] = FIRST(WRONG), /* overlong forms of ASCII */
    [0xc2 ... 0xdf] = FIRST(ONE),
    [0xe0] = FIRST(BEHIND_E0),
    [0xe1 ... 0xec] = FIRST(TWO),
    [0xed] = FIRST(BEHIND_ED),
    [0xee ... 0xef] = FIRST(TWO),
    [0xf0] = FIRST(BEHIND_F0),
    [0xf1 ... 0xf3] = FIRST(THREE),
    [0xf4] = FIRST(BEHIND_F4),
    [0xf5 ... 0xff] = FIRST(WRONG),
};

enum { BLOCK = 32 }; /* bytes that are looked at together */

/* A register of any target that has such. */
typedef uint64_t lane __attribute__((vector_size(16)));

/* The bytes of a block, one over the other. */
static lane fold(const char *p) {
    lane a, b;
    memcpy(&a, p, sizeof(a));
    memcpy(&b, p + sizeof(a), sizeof(b));
    return a | b;
}

static bool is_ascii(lane folded) {
    return ((folded[0] | folded[1]) & UINT64_C(0x8080808080808080)) == 0;
}

static bool is_ascii_block(const char *p) {
    return is_ascii(fold(p));
}

/* Most texts are ASCII. */
static void skip_ascii(as_slice *text) {
    while (text->n >= 2 * BLOCK && is_ascii(fold(text->p) | fold(text->p + BLOCK))) {
        text->p += 2 * BLOCK;
        text->n -= 2 * BLOCK;
    }
}

/* `beyond` is set by a byte that is not ASCII. */
static uint64_t walk(uint64_t state, const char *p, size_t n, as_utf8 *beyond) {
    unsigned char all = 0;
    for (size_t i = 0; i < n; i++) {
        all |= (unsigned char)p[i];
        state = rows[(unsigned char)p[i]] >> (state & STATE_BITS);
    }
    *beyond |= all > 0x7f ? AS_UTF8_BEYOND : 0;
    return state & STATE_BITS;
}

bool as_utf8_feed(as_utf8 *at, as_slice text) {
    uint64_t state = *at & STATE_BITS;
    as_utf8 beyond = *at & AS_UTF8_BEYOND;
    if (state == WHOLE) {
        skip_ascii(&text);
    }
    while (text.n >= BLOCK) {
        if (state != WHOLE || !is_ascii_block(text.p)) {
            state = walk(state, text.p, BLOCK, &beyond);
            if (state == WRONG) {
                return false;
            }
        }
        text.p += BLOCK;
        text.n -= BLOCK;
    }
    state = walk(state, text.p, text.n, &beyond);
    *at = (as_utf8)(state | beyond);
    return state != WRONG;
}

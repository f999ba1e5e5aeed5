/* UTF-8 in parts (RFC 3629): bytes are given as they come, and the first one that no valid text can
 * have at its place is noticed at once. */
#ifndef AS_BASE_UTF8_H
#define AS_BASE_UTF8_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* Where in a character the text so far ends, and whether it is ASCII; begins as 0. */
typedef uint8_t as_utf8;
#define AS_UTF8_BEYOND ((as_utf8)64) /* a byte of it is not ASCII */

/* False when the text so far begins no UTF-8; nothing may be fed after that. */
bool as_utf8_feed(as_utf8 *at, as_slice text);

/* Whether the text so far ends with a whole character. */
static inline bool as_utf8_complete(as_utf8 at) {
    return (at & ~AS_UTF8_BEYOND) == 0;
}

static inline bool as_utf8_is_ascii(as_utf8 at) {
    return at == 0;
}

static inline bool as_utf8_valid(as_slice text) {
    as_utf8 at = 0;
    return as_utf8_feed(&at, text) && as_utf8_complete(at);
}

#endif

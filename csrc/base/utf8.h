/* UTF-8 in parts (RFC 3629): bytes are given as they come, and the first one that no valid text can
 * have at its place is noticed at once. */
#ifndef AS_BASE_UTF8_H
#define AS_BASE_UTF8_H

#include <stdbool.h>
#include <stdint.h>

#include "base/slice.h"

/* Where in a character the text so far ends; begins as 0. */
typedef uint8_t as_utf8;

/* False when the text so far begins no UTF-8; nothing may be fed after that. */
bool as_utf8_feed(as_utf8 *at, as_slice text);

/* Whether the text so far ends with a whole character. */
static inline bool as_utf8_complete(as_utf8 at) {
    return at == 0;
}

static inline bool as_utf8_valid(as_slice text) {
    as_utf8 at = 0;
    return as_utf8_feed(&at, text) && as_utf8_complete(at);
}

#endif

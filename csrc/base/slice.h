/* Borrowed bytes: a pointer and a length. A slice never owns what it points to. */
#ifndef AS_BASE_SLICE_H
#define AS_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

typedef struct as_slice {
    const char *p;
    size_t n;
} as_slice;

#define AS_SLICE(literal) ((as_slice){(literal), sizeof(literal) - 1})

static inline char as_lower(char c) {
    return (c >= 'A' && c <= 'Z') ? (char)(c | 0x20) : c;
}

static inline bool as_slice_eq(as_slice a, as_slice b) {
    return a.n == b.n && memcmp(a.p, b.p, a.n) == 0;
}

/* Equality of ASCII text without regard to case (RFC 9110, 5.1: field names). */
static inline bool as_slice_ieq(as_slice a, as_slice b) {
    if (a.n != b.n) {
        return false;
    }
    for (size_t i = 0; i < a.n; i++) {
        if (as_lower(a.p[i]) != as_lower(b.p[i])) {
            return false;
        }
    }
    return true;
}

#endif

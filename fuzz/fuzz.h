/* What the targets share: a check that ends the process, an input that is read from its beginning,
 * a log that two runs must agree on, and the ways of cutting bytes into parts. */
#ifndef AS_FUZZ_H
#define AS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/slice.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MUST(condition)                                                                                \
    do {                                                                                               \
        if (!(condition)) {                                                                            \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                            \
            abort();                                                                                   \
        }                                                                                              \
    } while (0)

/* A slice as an initializer. */
#define TEXT(text) {(text), sizeof(text) - 1}

/* --- the input ------------------------------------------------------------------------------ */

typedef struct input {
    const uint8_t *p;
    size_t n;
} input;

/* 0 behind the end. */
static inline uint8_t take_byte(input *in) {
    if (in->n == 0) {
        return 0;
    }
    in->n--;
    return *in->p++;
}

static inline as_slice take_bytes(input *in, size_t n) {
    n = n < in->n ? n : in->n;
    as_slice bytes = {(const char *)in->p, n};
    in->p += n;
    in->n -= n;
    return bytes;
}

/* A byte that says how many follow. */
static inline as_slice take_string(input *in) {
    uint8_t n = take_byte(in);
    return take_bytes(in, n);
}

/* --- the log -------------------------------------------------------------------------------- */

static inline void put(as_buf *log, const void *p, size_t n) {
    MUST(as_buf_append(log, NULL, p, n) == AS_OK);
}

static inline void put_slice(as_buf *log, as_slice s) {
    put(log, s.p, s.n);
}

static inline void put_text(as_buf *log, const char *text) {
    put(log, text, strlen(text));
}

static inline void put_number(as_buf *log, int64_t n) {
    char text[32];
    put(log, text, (size_t)snprintf(text, sizeof(text), " %lld ", (long long)n));
}

static inline as_slice logged(const as_buf *log) {
    return (as_slice){log->len > 0 ? log->data : "", log->len};
}

static inline void must_agree(const char *what, const as_buf *a, const as_buf *b) {
    if (!as_slice_eq(logged(a), logged(b))) {
        fprintf(stderr, "%s differ:\n--- one\n%.*s\n--- the other\n%.*s\n---\n", what, (int)a->len,
                logged(a).p, (int)b->len, logged(b).p);
        abort();
    }
}

/* --- parts ---------------------------------------------------------------------------------- */

enum { WHOLE = 0, BYTES = 1 }; /* ways to cut; any other number: parts of different lengths */

/* The length of the next part of `left` bytes, at least one. */
static inline size_t next_part(uint32_t *cut, size_t left) {
    size_t n = *cut == WHOLE ? left : *cut == BYTES ? 1 : 1 + (*cut >> 8) % 37;
    *cut = *cut > BYTES ? (*cut * 1103515245 + 12345) | 2 : *cut;
    return n < left ? n : left;
}

/* From a byte of the input: neither of the first two. */
static inline uint32_t cut_of(uint8_t choice) {
    return (choice + 1u) * 2654435761u | 2;
}

/* Memory of just that size, so that a sanitizer sees who reads beyond. */
static inline char *copy_exactly(const void *p, size_t n) {
    char *copy = malloc(n > 0 ? n : 1);
    MUST(copy != NULL);
    if (n > 0) {
        memcpy(copy, p, n);
    }
    return copy;
}

#endif

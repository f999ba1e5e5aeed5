/* The time since some beginning, which no step of the clock on the wall changes. */
#ifndef AS_BASE_CLOCK_H
#define AS_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t as_microseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static inline uint64_t as_milliseconds(void) {
    return as_microseconds() / 1000;
}

/* Some behind, but no dearer than a call of a function. */
static inline uint64_t as_coarse_milliseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

#endif

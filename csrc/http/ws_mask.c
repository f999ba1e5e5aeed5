#include "http/ws_internal.h"

/* A register of any target that has such. */
typedef uint32_t lanes __attribute__((vector_size(16)));

static void unmask_lanes(char *p, uint32_t mask) {
    lanes x;
    memcpy(&x, p, sizeof(x));
    x ^= mask; /* in each lane */
    memcpy(p, &x, sizeof(x));
}

static void unmask_block(char *p, uint32_t mask) {
    unmask_lanes(p, mask);
    unmask_lanes(p + sizeof(lanes), mask);
    unmask_lanes(p + 2 * sizeof(lanes), mask);
    unmask_lanes(p + 3 * sizeof(lanes), mask);
}

static void unmask_word(char *p, uint32_t mask) {
    uint32_t x;
    memcpy(&x, p, sizeof(x));
    x ^= mask;
    memcpy(p, &x, sizeof(x));
}

/* The mask as it stands in memory, moved on by `n` bytes. */
static uint32_t rotate(uint32_t mask, size_t n) {
    unsigned char twice[8];
    memcpy(twice, &mask, 4);
    memcpy(twice + 4, &mask, 4);
    memcpy(&mask, twice + n % 4, 4);
    return mask;
}

uint32_t as__ws_unmask(char *p, size_t n, uint32_t mask) {
    size_t i = 0;
    for (; i + 4 * sizeof(lanes) <= n; i += 4 * sizeof(lanes)) {
        unmask_block(p + i, mask);
    }
    for (; i + sizeof(lanes) <= n; i += sizeof(lanes)) {
        unmask_lanes(p + i, mask);
    }
    for (; i + sizeof(mask) <= n; i += sizeof(mask)) {
        unmask_word(p + i, mask);
    }
    unsigned char bytes[sizeof(mask)];
    memcpy(bytes, &mask, sizeof(mask));
    for (size_t at = 0; i < n; i++, at++) {
        p[i] = (char)(p[i] ^ bytes[at]);
    }
    return n % sizeof(mask) == 0 ? mask : rotate(mask, n);
}

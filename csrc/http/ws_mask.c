#include "http/ws_internal.h"

/* As wide as the target's registers, or several of them: the compiler splits it. */
typedef uint32_t lanes __attribute__((vector_size(32)));

static void unmask_lanes(char *p, uint32_t mask) {
    lanes x;
    memcpy(&x, p, sizeof(x));
    x ^= mask; /* in each lane */
    memcpy(p, &x, sizeof(x));
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

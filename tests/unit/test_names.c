/* The table of field names: every row is found in any case, and nothing else is. When a row that
 * was added has no slot of its own, this prints the multipliers and slots to put into names.c. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/names.h"

static unsigned failures;

static void expect(const char *p, size_t n, as_name_id id) {
    char *exact = malloc(n); /* so that a sanitizer sees a read behind the name */
    if (n > 0) {
        memcpy(exact, p, n);
    }
    as_name_id found = as_name_find(exact, n);
    free(exact);
    if (found != id) {
        fprintf(stderr, "%.*s: row %d, expected %d\n", (int)n, p, (int)found, (int)id);
        failures++;
    }
}

/* What a comparison with every row finds. */
static as_name_id find_slowly(const char *p, size_t n) {
    for (int row = 1; row < AS_NAME_COUNT; row++) {
        if (as_slice_ieq(as_name_text((as_name_id)row), (as_slice){p, n})) {
            return (as_name_id)row;
        }
    }
    return AS_NAME_OTHER;
}

static void test_row(as_name_id id) {
    as_slice text = as_name_text(id);
    char other[64];
    expect(text.p, text.n, id);
    for (size_t i = 0; i < text.n; i++) {
        other[i] = (char)(text.p[i] >= 'a' && text.p[i] <= 'z' ? text.p[i] & ~0x20 : text.p[i]);
    }
    expect(other, text.n, id);
    for (size_t bit = 0; bit < 8 * text.n; bit++) { /* each bit of each byte counts */
        memcpy(other, text.p, text.n);
        other[bit / 8] = (char)(other[bit / 8] ^ (1 << bit % 8));
        expect(other, text.n, find_slowly(other, text.n));
    }
    memcpy(other, text.p, text.n);
    other[text.n] = 'x';
    expect(other, text.n + 1, AS_NAME_OTHER);
    expect(text.p, text.n - 1, find_slowly(text.p, text.n - 1));
}

/* --- new slots ------------------------------------------------------------------------------ */

static unsigned slot_of(as_slice s, const unsigned *factors) {
    const unsigned char *p = (const unsigned char *)s.p;
    return ((unsigned)s.n * factors[0] + p[0] * factors[1] + p[s.n / 2] * factors[2] +
            p[s.n - 2] * factors[3] + p[s.n - 1] * factors[4]) &
           255;
}

static bool fill(unsigned char *slots, const unsigned *factors) {
    memset(slots, 0, 256);
    for (int row = 1; row < AS_NAME_COUNT; row++) {
        unsigned slot = slot_of(as_name_text((as_name_id)row), factors);
        if (slots[slot] != 0) {
            return false;
        }
        slots[slot] = (unsigned char)row;
    }
    return true;
}

static void print_slots(void) {
    static const char *const ids[] = {"OTHER",
#define X(id, text) #id,
                                      AS_NAMES(X)
#undef X
    };
    unsigned char slots[256];
    unsigned factors[5];
    for (unsigned tries = 0; tries < 20000000; tries++) {
        for (int i = 0; i < 5; i++) {
            factors[i] = 1 + (unsigned)rand() % 255;
        }
        if (fill(slots, factors)) {
            printf("factors: length %u, first %u, middle %u, last but one %u, last %u\n",
                   factors[0], factors[1], factors[2], factors[3], factors[4]);
            for (int i = 0; i < 256; i++) {
                if (slots[i] != 0) {
                    printf("    [%d] = AS_NAME_%s,\n", i, ids[slots[i]]);
                }
            }
            return;
        }
    }
    printf("no factors found: the table in names.c needs more slots\n");
}

int main(void) {
    for (int row = 1; row < AS_NAME_COUNT; row++) {
        test_row((as_name_id)row);
    }
    expect("", 0, AS_NAME_OTHER);
    expect("x", 1, AS_NAME_OTHER);
    expect("a-name-that-is-longer-than-any-row-of-the-table", 47, AS_NAME_OTHER);
    if (as_name_text(AS_NAME_OTHER).n != 0 || as_name_text(AS_NAME_COUNT).n != 0) {
        fprintf(stderr, "a row that is none has a text\n");
        failures++;
    }
    if (failures > 0) {
        print_slots();
    }
    return failures == 0 ? 0 : 1;
}

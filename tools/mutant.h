/* Part of every file of the mutants' build (tools/mutate.py): whether a rule is the one that is
 * switched off, and which of them said something. */
#ifndef AS_TOOLS_MUTANT_H
#define AS_TOOLS_MUTANT_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

enum { AS__MUTANTS = 4096 };

typedef struct as__case {
    int number, label;
} as__case;

static int as__mutant;
static bool as__mutants_seen[AS__MUTANTS];

__attribute__((constructor)) static void as__mutant_begin(void) {
    const char *number = getenv("AS_MUTANT");
    as__mutant = number != NULL ? atoi(number) : 0;
}

__attribute__((destructor)) static void as__mutant_end(void) {
    const char *path = getenv("AS_MUTANT_SEEN");
    FILE *file = path != NULL ? fopen(path, "a") : NULL;
    for (int i = 0; file != NULL && i < AS__MUTANTS; i++) {
        if (as__mutants_seen[i]) {
            (void)fprintf(file, "%d\n", i);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

__attribute__((unused)) static bool as__mutant_off(int number, bool refuses) {
    as__mutants_seen[number] |= refuses;
    return refuses && as__mutant != number;
}

__attribute__((unused)) static bool as__mutant_on(int number, bool accepts) {
    as__mutants_seen[number] |= !accepts;
    return accepts || as__mutant == number;
}

/* -1, which is no case, for the one that is switched off. */
__attribute__((unused)) static int as__mutant_case(int value, const as__case *cases, int n) {
    for (int i = 0; i < n; i++) {
        if (cases[i].label == value) {
            as__mutants_seen[cases[i].number] = true;
            return as__mutant == cases[i].number ? -1 : value;
        }
    }
    return value;
}

#endif

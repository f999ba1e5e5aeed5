/* Limits, timeouts and switches that the rings below Python read. The rows come from the one table
 * of options, asgiserver/options.py: its rows that name a field here are generated into
 * limits.gen.h at build time as LIMIT(type, field, default).
 *
 * Units: bytes; times are milliseconds. 0 means "no limit" where the option's help says so. */
#ifndef AS_BASE_LIMITS_H
#define AS_BASE_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "limits.gen.h" /* AS_LIMITS(X): X(type, field, default) */

typedef struct as_limits {
#define X(type, field, default_value) type field;
    AS_LIMITS(X)
#undef X
} as_limits;

/* Sets every field to the table's default. */
void as_limits_init(as_limits *limits);
/* Sets the field `name` from `value`; false when the table has no such field. */
bool as_limits_set(as_limits *limits, const char *name, uint64_t value);

#endif

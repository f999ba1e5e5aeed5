#include "base/limits.h"

#include <string.h>

void as_limits_init(as_limits *limits) {
#define X(type, field, default_value) limits->field = (type)(default_value);
    AS_LIMITS(X)
#undef X
}

bool as_limits_set(as_limits *limits, const char *name, uint64_t value) {
#define X(type, field, default_value)                                                                  \
    if (strcmp(name, #field) == 0) {                                                                   \
        limits->field = (type)value;                                                                   \
        return true;                                                                                   \
    }
    AS_LIMITS(X)
#undef X
    return false;
}

#include "base/err.h"

typedef struct error_row {
    unsigned status;
    const char *text;
} error_row;

#define X(name, status, text) {status, text},
static const error_row errors[] = {{0, "no error"}, AS_ERRORS(X)};
#undef X

#define ERROR_COUNT (sizeof(errors) / sizeof(errors[0]))

static unsigned row_of(as_err err) {
    unsigned row = 0u - (unsigned)err;
    return row < ERROR_COUNT ? row : AS_ERR_INDEX_IO;
}

unsigned as_err_status(as_err err) {
    return errors[row_of(err)].status;
}

const char *as_err_text(as_err err) {
    return errors[row_of(err)].text;
}

/* wsgi.file_wrapper (PEP 3333, "Optional Platform-Specific File Handling"): an iterable over a
 * file-like object that leaves by sendfile where that sends the same bytes as read() would. */
#ifndef AS_GATEWAY_WSGI_FILE_H
#define AS_GATEWAY_WSGI_FILE_H

#include <sys/types.h>

#include "gateway/gateway.h"

/* Makes the type; NULL with an exception. */
PyTypeObject *as__file_wrapper_make_type(PyObject *module);

/* The built-in file types, whose read() is known to give what their descriptor gives. */
typedef struct as_file_types {
    PyObject *file_io, *buffered_reader, *buffered_random;
} as_file_types;

int as__file_types_init(as_file_types *types); /* -1 with an exception */
void as__file_types_fini(as_file_types *types);

/* Looks whether the rest of the wrapped file can leave by sendfile. True: `*fd` is a descriptor of
 * the caller's own, and `*n` (> 0) bytes from `*off` are there. False: the wrapper must be
 * iterated. Sets no exception. */
bool as__file_wrapper_open(const as_file_types *types, PyObject *wrapper, int *fd, off_t *off,
                           uint64_t *n);

#endif

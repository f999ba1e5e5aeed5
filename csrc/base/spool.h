/* Bytes that are gathered in memory and move to an unlinked temporary file when they grow beyond a
 * bound: request bodies. A zeroed spool with `fd` -1 and a bound is an empty one. */
#ifndef AS_BASE_SPOOL_H
#define AS_BASE_SPOOL_H

#include <stdint.h>

#include "base/buf.h"

typedef struct as_spool {
    as_buf memory;
    int fd;              /* the file, that holds all; -1: none */
    uint64_t size;       /* bytes in all */
    uint64_t memory_max; /* beyond it: the file */
} as_spool;

void as_spool_init(as_spool *spool, uint64_t memory_max);
void as_spool_fini(as_spool *spool);
/* AS_E_NOMEM, or AS_E_IO with errno set when the file cannot be made or written (a full disk). */
as_err as_spool_append(as_spool *spool, as_slice data);

/* An empty unlinked file in $TMPDIR, /tmp or /var/tmp; -1: errno tells. */
int as_open_temporary_file(void);
/* AS_E_IO: errno tells. */
as_err as_write_all(int fd, as_slice data);

#endif

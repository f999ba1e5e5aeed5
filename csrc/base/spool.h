/* Bytes that are gathered in memory and move to an unlinked temporary file when they grow beyond a
 * bound: request bodies. All files together have a bound as well.
 *
 * What is in files is counted on one thread, the one that gathers; it is given back with the file,
 * on any. */
#ifndef AS_BASE_SPOOL_H
#define AS_BASE_SPOOL_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/buf.h"

/* What all spools of a server share. Lives as long as its maker and every file of it. */
typedef struct as_spools {
    uint64_t memory_max;     /* bytes of one body; beyond it: a file */
    uint64_t files_max;      /* bytes of all files; 0: no matter how many */
    _Atomic uint64_t filled; /* of those: how many there are now */
    _Atomic uint32_t refs;
} as_spools;

as_spools *as_spools_new(uint64_t memory_max, uint64_t files_max); /* NULL: no memory */
void as_spools_unref(as_spools *spools);
/* Whether a body of `size` bytes, that is to come, could be kept as things are. Nothing is held for
 * it: a client that only announces a body takes no room from others. AS_E_SPOOL_*. */
as_err as_spools_expect(const as_spools *spools, uint64_t size);

/* The file of one body. */
typedef struct as_spool_file {
    as_spools *spools; /* borrowed, where there is a file owned */
    int fd;            /* -1: none */
    uint64_t size;     /* bytes in it, which count for `spools` */
} as_spool_file;

void as_spool_file_init(as_spool_file *file, as_spools *spools);
/* Makes the file where there is none. AS_E_SPOOL_LARGE: this body will never fit; AS_E_SPOOL_FULL:
 * beside the others it does not now; AS_E_IO with errno set: the file cannot be made or written (a
 * full disk). */
as_err as_spool_file_append(as_spool_file *file, as_slice data);
void as_spool_file_close(as_spool_file *file);

typedef struct as_spool {
    as_buf memory;
    as_spool_file file; /* which holds all, where there is one */
    uint64_t size;      /* bytes in all */
} as_spool;

void as_spool_init(as_spool *spool, as_spools *spools);
void as_spool_fini(as_spool *spool);
/* AS_E_NOMEM, or what as_spool_file_append says. */
as_err as_spool_append(as_spool *spool, as_slice data);

/* An empty unlinked file in $TMPDIR, /tmp or /var/tmp; -1: errno tells. */
int as_open_temporary_file(void);
/* AS_E_IO: errno tells. */
as_err as_write_all(int fd, as_slice data);

#endif

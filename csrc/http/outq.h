/* What a protocol has written and the kernel has not yet taken: bytes, in order.
 *
 * Small writes gather in one buffer, so that all answers of one read leave in one system call.
 * Large bodies are queued by reference, files by range. The bytes of an open response head stay
 * behind `held` until its first body chunk decides how it ends; they are never sent and can be
 * taken back. */
#ifndef AS_HTTP_OUTQ_H
#define AS_HTTP_OUTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/buf.h"

/* Somebody else's bytes. `hold` is called only when the bytes must outlive the call that passed
 * them, `drop` once for each `hold`. Both may run Python. A NULL `hold`: the bytes are copied
 * instead. */
typedef struct as_bytes {
    const char *p;
    size_t n;
    void *owner;
    void (*hold)(void *owner);
    void (*drop)(void *owner);
} as_bytes;

typedef struct as_seg as_seg; /* a full buffer, a reference or a file range */

typedef struct as_outq {
    as_seg *first, *last; /* before `buf` */
    as_buf buf;
    size_t buf_off; /* bytes of `buf` already taken */
    size_t held;    /* bytes at the end of `buf` that may not leave yet */
    uint64_t size;  /* bytes in all, held ones left out */
    as_buf_pool *pool;
} as_outq;

#define AS_OUTQ_COPY_MAX ((size_t)8 * 1024) /* up to here a body is copied behind its head */

void as_outq_init(as_outq *q, as_buf_pool *pool);
void as_outq_fini(as_outq *q); /* drops everything; may run Python through `drop` */

/* The buffer to append to directly; call as_outq_commit with the bytes added. */
as_err as_outq_reserve(as_outq *q, size_t n, char **at);
void as_outq_commit(as_outq *q, size_t n);
as_err as_outq_append(as_outq *q, const char *p, size_t n);
as_err as_outq_append_bytes(as_outq *q, as_bytes bytes);
/* `fd` is owned by the queue from here on, also when the call fails. */
as_err as_outq_append_file(as_outq *q, int fd, off_t off, uint64_t n);

/* Bytes put behind as_outq_reserve that are held. What is appended while some are held must be
 * held. */
void as_outq_hold(as_outq *q, size_t n);
/* The held bytes may leave. */
void as_outq_release(as_outq *q);
/* The held bytes are taken back. */
void as_outq_take_back(as_outq *q);
/* Before the held bytes; these may leave. */
as_err as_outq_insert(as_outq *q, const char *p, size_t n);

/* All of it as one buffer, whose bytes from `*off` on are to leave: the queue is empty then. False:
 * it is more than that, or a part is held. */
bool as_outq_detach(as_outq *q, as_buf *buf, size_t *off);
/* Takes over such a buffer, in front of everything. AS_E_NOMEM: it is lost. */
as_err as_outq_attach(as_outq *q, as_buf buf, size_t off);

/* What to send next: up to `max` vectors, or a file range (then *nvec is 0). False: nothing. */
typedef struct as_out {
    struct iovec vec[16];
    int nvec;
    int fd;
    off_t off;
    uint64_t n; /* bytes of vec, or of the file range */
} as_out;
bool as_outq_peek(const as_outq *q, as_out *out);
/* The first `n` bytes were taken; memory that is empty goes back. May run Python through `drop`. */
void as_outq_taken(as_outq *q, uint64_t n);

#endif

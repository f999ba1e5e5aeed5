/* A growable byte buffer, and a pool of such buffers' memory.
 *
 * A zeroed `as_buf` is an empty buffer that holds no memory. With a pool (NULL: none) its first
 * `AS_BUF_BLOCK` bytes come from the pool and go back there, so that the buffers of connections
 * that are busy for a moment cost no malloc. */
#ifndef AS_BASE_BUF_H
#define AS_BASE_BUF_H

#include <stddef.h>

#include "base/err.h"
#include "base/slice.h"

#define AS_BUF_BLOCK ((size_t)16 * 1024) /* bytes of a pooled block */

typedef struct as_buf_pool {
    void *free; /* a linked list through the blocks themselves */
    unsigned count, max;
} as_buf_pool;

typedef struct as_buf {
    char *data;
    size_t len, cap;
} as_buf;

void as_buf_pool_init(as_buf_pool *pool, unsigned max_blocks);
void as_buf_pool_fini(as_buf_pool *pool);

/* Room for `extra` more bytes behind `len`. AS_E_NOMEM leaves the buffer as it was. */
as_err as_buf_reserve(as_buf *buf, as_buf_pool *pool, size_t extra);
as_err as_buf_append(as_buf *buf, as_buf_pool *pool, const char *p, size_t n);
/* Drops the first `n` bytes. */
void as_buf_consume(as_buf *buf, size_t n);
/* Gives the memory back; the buffer is empty and usable. */
void as_buf_fini(as_buf *buf, as_buf_pool *pool);

#endif

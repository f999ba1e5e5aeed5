#include "base/buf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST ((size_t)256) /* bytes of a buffer without a pool */

void as_buf_pool_init(as_buf_pool *pool, unsigned max_blocks) {
    *pool = (as_buf_pool){.max = max_blocks};
}

void as_buf_pool_fini(as_buf_pool *pool) {
    while (pool->free != NULL) {
        void *block = pool->free;
        memcpy(&pool->free, block, sizeof(pool->free));
        free(block);
    }
    pool->count = 0;
}

static char *pool_take(as_buf_pool *pool) {
    if (pool->free == NULL) {
        return malloc(AS_BUF_BLOCK);
    }
    void *block = pool->free;
    memcpy(&pool->free, block, sizeof(pool->free)); /* its first bytes are the link */
    pool->count--;
    return block;
}

/* Every block of that size may go to the pool, wherever it came from. */
static void give_back(char *data, size_t cap, as_buf_pool *pool) {
    if (pool == NULL || cap != AS_BUF_BLOCK || pool->count >= pool->max) {
        free(data);
        return;
    }
    memcpy(data, &pool->free, sizeof(pool->free));
    pool->free = data;
    pool->count++;
}

/* Doubles, so that appending byte by byte stays linear. */
static as_err grow(as_buf *buf, as_buf_pool *pool, size_t needed) {
    size_t cap = buf->cap != 0 ? buf->cap : SMALLEST;
    while (cap < needed) {
        if (cap > SIZE_MAX / 2) {
            return AS_E_NOMEM;
        }
        cap *= 2;
    }
    /* Not realloc: a pooled block stays in the pool, and only the used part is copied. */
    char *data = malloc(cap);
    if (data == NULL) {
        return AS_E_NOMEM;
    }
    if (buf->len > 0) {
        memcpy(data, buf->data, buf->len);
    }
    if (buf->data != NULL) {
        give_back(buf->data, buf->cap, pool);
    }
    buf->data = data;
    buf->cap = cap;
    return AS_OK;
}

as_err as_buf_reserve(as_buf *buf, as_buf_pool *pool, size_t extra) {
    if (extra <= buf->cap - buf->len) {
        return AS_OK;
    }
    if (extra > SIZE_MAX - buf->len) {
        return AS_E_NOMEM;
    }
    if (pool != NULL && buf->cap == 0 && extra <= AS_BUF_BLOCK) {
        buf->data = pool_take(pool);
        if (buf->data == NULL) {
            return AS_E_NOMEM;
        }
        buf->cap = AS_BUF_BLOCK;
        return AS_OK;
    }
    return grow(buf, pool, buf->len + extra);
}

as_err as_buf_append(as_buf *buf, as_buf_pool *pool, const char *p, size_t n) {
    if (n == 0) {
        return AS_OK;
    }
    as_err err = as_buf_reserve(buf, pool, n);
    if (err == AS_OK) {
        memcpy(buf->data + buf->len, p, n);
        buf->len += n;
    }
    return err;
}

void as_buf_consume(as_buf *buf, size_t n) {
    if (n == 0) {
        return;
    }
    buf->len -= n;
    memmove(buf->data, buf->data + n, buf->len);
}

void as_buf_fini(as_buf *buf, as_buf_pool *pool) {
    if (buf->data != NULL) {
        give_back(buf->data, buf->cap, pool);
    }
    *buf = (as_buf){0};
}

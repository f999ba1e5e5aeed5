/* Heads that repeat. Clients send the same bytes again and again; a head that is, byte for byte,
 * one that was parsed and checked before is that head, and neither is done again. One cache serves
 * the connections of a loop, which share their limits and so would judge alike.
 *
 * A head gets in when it comes for the second time, and only if it may stay in memory: whole by
 * itself (no body), without a query, with none but the fields of AS_REPEATED_NAMES. */
#ifndef AS_HTTP_HEAD_CACHE_H
#define AS_HTTP_HEAD_CACHE_H

#include <stddef.h>

#include "http/head.h"

/* At most so many heads of so many bytes and field lines are kept: 180 KB. */
#define AS_HEAD_CACHE_SETS 16u
#define AS_HEAD_CACHE_WAYS 4u
#define AS_HEAD_CACHE_BYTES 2048u
#define AS_HEAD_CACHE_FIELDS 32u

typedef struct as_head_cache as_head_cache;

/* NULL: no memory. */
as_head_cache *as_head_cache_new(void);
/* NULL is allowed. Heads that others hold live on. */
void as_head_cache_free(as_head_cache *cache);
/* The head that the `n` bytes at `p` begin with, borrowed from the cache; NULL: it is not there. */
as_head *as_head_cache_find(const as_head_cache *cache, const char *p, size_t n);
/* A head that was parsed and checked, as it was received. */
void as_head_cache_offer(as_head_cache *cache, as_head *head);

#endif

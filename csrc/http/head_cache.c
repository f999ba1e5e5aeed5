#include "http/head_cache.h"

#include <stdlib.h>
#include <string.h>

#define LEAST 24u /* bytes of a head: what its set is told by */

/* Which heads came lately is remembered by a number; two that share one cost a copy in vain. */
typedef struct head_set {
    as_head *heads[AS_HEAD_CACHE_WAYS];
    uint32_t seen[AS_HEAD_CACHE_WAYS];
    uint8_t next_head, next_seen; /* whose place is taken next */
} head_set;

struct as_head_cache {
    head_set sets[AS_HEAD_CACHE_SETS];
};

as_head_cache *as_head_cache_new(void) {
    return calloc(1, sizeof(as_head_cache));
}

void as_head_cache_free(as_head_cache *cache) {
    for (size_t i = 0; cache != NULL && i < AS_HEAD_CACHE_SETS; i++) {
        for (size_t way = 0; way < AS_HEAD_CACHE_WAYS; way++) {
            as_head_unref(cache->sets[i].heads[way]);
        }
    }
    free(cache);
}

static uint64_t load(const char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof(x));
    return x;
}

static uint64_t mix(uint64_t hash, uint64_t x) {
    return (hash ^ x) * UINT64_C(0x9e3779b97f4a7c15);
}

/* Method and target, as a rule: how long the head is, is not known yet. */
static uint64_t hash_beginning(const char *p) {
    return mix(mix(mix(load(p), 0) >> 7, load(p + 8)) >> 7, load(p + 16));
}

static size_t set_of(uint64_t hash) {
    return (size_t)(hash >> 32) % AS_HEAD_CACHE_SETS;
}

as_head *as_head_cache_find(const as_head_cache *cache, const char *p, size_t n) {
    if (n < LEAST) {
        return NULL;
    }
    const head_set *set = &cache->sets[set_of(hash_beginning(p))];
    for (size_t way = 0; way < AS_HEAD_CACHE_WAYS && set->heads[way] != NULL; way++) {
        as_head *head = set->heads[way];
        if (head->len <= n && memcmp(head->base, p, head->len) == 0) {
            return head;
        }
    }
    return NULL;
}

/* ---- what gets in ---- */

#define BIT(id) | UINT64_C(1) << AS_NAME_##id
static const uint64_t repeated = 0 AS_REPEATED_NAMES(BIT);
static const uint64_t framing = 0 BIT(CONTENT_LENGTH) BIT(TRANSFER_ENCODING) BIT(UPGRADE);
#undef BIT

_Static_assert(AS_NAME_COUNT <= 64, "a bit for each");

static bool may_be_kept(const as_head *head) {
    if (head->len < LEAST || head->len > AS_HEAD_CACHE_BYTES ||
        head->nfields > AS_HEAD_CACHE_FIELDS || head->forwarded || head->query.len > 0) {
        return false;
    }
    uint64_t others = ~repeated | framing;
    for (uint32_t i = 0; i < head->nfields; i++) {
        if ((others >> head->fields[i].name_id & 1) != 0) {
            return false;
        }
    }
    return true;
}

/* True from the second time on. */
static bool was_seen(head_set *set, uint32_t number) {
    for (size_t i = 0; i < AS_HEAD_CACHE_WAYS; i++) {
        if (set->seen[i] == number) {
            return true;
        }
    }
    set->seen[set->next_seen] = number;
    set->next_seen = (uint8_t)((set->next_seen + 1) % AS_HEAD_CACHE_WAYS);
    return false;
}

static uint64_t hash_whole(const as_head *head) {
    uint64_t hash = head->len;
    for (uint32_t at = 0; at + 8 <= head->len; at += 8) {
        hash = mix(hash, load(head->base + at)) >> 1;
    }
    return mix(hash, load(head->base + head->len - 8));
}

void as_head_cache_offer(as_head_cache *cache, as_head *head) {
    if (!may_be_kept(head)) {
        return;
    }
    head_set *set = &cache->sets[set_of(hash_beginning(head->base))];
    if (!was_seen(set, (uint32_t)(hash_whole(head) >> 32))) {
        return;
    }
    as_head *kept = as_head_keep(head);
    if (kept != NULL) {
        as_head_unref(set->heads[set->next_head]);
        set->heads[set->next_head] = kept;
        set->next_head = (uint8_t)((set->next_head + 1) % AS_HEAD_CACHE_WAYS);
    }
}

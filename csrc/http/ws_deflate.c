/* permessage-deflate (RFC 7692) with zlib.
 *
 * Between two messages all that a context of DEFLATE knows is its window: a message ends at the end
 * of a block and of a byte (7.2.1). So a connection keeps no context, but what was said lately, at
 * most a window of it and only where takeover was agreed on; the env has the contexts, and each
 * message begins with such a history as the dictionary. docs/decisions/websocket-codec.md has the
 * figures. */
#include <limits.h>
#include <stdlib.h>
#include <zlib.h>

#include "http/ws_internal.h"

enum {
    BITS_LEAST = 9, /* zlib's deflater cannot do less */
    BITS_MOST = 12, /* of ours: a window of 4 KiB */
    LEVEL = 4,      /* the least with lazy matching */
    MEMORY_LEVEL = 5,
    INFLATE_BITS = 15
};

#define PIECE ((size_t)1 << 30)         /* zlib counts in unsigned int */
#define KEPT ((size_t)64 * 1024) /* bytes of output memory that stay for the next message */

/* 7.2.1: the end of an empty stored block, which is left out on the wire. */
static const as_slice tail = {"\x00\x00\xff\xff", 4};

/* `state` of a z_stream is NULL until it is first needed. */
struct as__ws_zlib {
    z_stream inflater;
    z_stream deflaters[BITS_MOST - BITS_LEAST + 1];
};

/* --- contexts ------------------------------------------------------------------------------- */

static struct as__ws_zlib *contexts(as_ws_env *env) {
    if (env->zlib == NULL) {
        env->zlib = calloc(1, sizeof(*env->zlib));
    }
    return env->zlib;
}

/* NULL: no memory. */
static z_stream *fresh_inflater(as_ws_env *env) {
    z_stream *z = contexts(env) != NULL ? &env->zlib->inflater : NULL;
    if (z == NULL) {
        return NULL;
    }
    int status = z->state != NULL ? inflateReset(z) : inflateInit2(z, -INFLATE_BITS);
    return status == Z_OK ? z : NULL;
}

static z_stream *fresh_deflater(as_ws_env *env, int bits) {
    z_stream *z = contexts(env) != NULL ? &env->zlib->deflaters[bits - BITS_LEAST] : NULL;
    if (z == NULL) {
        return NULL;
    }
    int status = z->state != NULL
                     ? deflateReset(z)
                     : deflateInit2(z, LEVEL, Z_DEFLATED, -bits, MEMORY_LEVEL, Z_DEFAULT_STRATEGY);
    return status == Z_OK ? z : NULL;
}

void as__ws_zlib_free(struct as__ws_zlib *zlib) {
    if (zlib == NULL) {
        return;
    }
    (void)inflateEnd(&zlib->inflater);
    for (size_t i = 0; i < sizeof(zlib->deflaters) / sizeof(zlib->deflaters[0]); i++) {
        (void)deflateEnd(&zlib->deflaters[i]);
    }
    free(zlib);
}

/* zlib leaves what it is given as input alone. */
static Bytef *input(const char *p) {
    return (Bytef *)(uintptr_t)p;
}

static void give_piece(z_stream *z, as_slice *data) {
    z->next_in = input(data->p);
    z->avail_in = (uInt)(data->n < PIECE ? data->n : PIECE);
    *data = (as_slice){data->p + z->avail_in, data->n - z->avail_in};
}

/* --- history -------------------------------------------------------------------------------- */

void as__ws_history_free(as__ws_history *history) {
    if (history != NULL) {
        as_buf_fini(&history->in, NULL);
        as_buf_fini(&history->out, NULL);
        free(history);
    }
}

static as_err make_history(as__ws_history **history) {
    if (*history == NULL) {
        *history = calloc(1, sizeof(**history));
    }
    return *history != NULL ? AS_OK : AS_E_NOMEM;
}

/* Keeps the last `size` bytes, a power of two, in no more memory than what there is to remember. */
static as_err remember(as_buf *past, size_t size, as_slice data) {
    if (data.n > size) {
        data = (as_slice){data.p + (data.n - size), size};
    }
    size_t kept = past->len < size - data.n ? past->len : size - data.n;
    as_buf_consume(past, past->len - kept);
    return as_buf_append(past, NULL, data.p, data.n);
}

/* --- output --------------------------------------------------------------------------------- */

static void empty(as_buf *out, as_buf_pool *pool) {
    if (out->cap > KEPT) {
        as_buf_fini(out, pool);
    }
    out->len = 0;
}

static as_slice whole(const as_buf *out) {
    return out->len > 0 ? (as_slice){out->data, out->len} : AS_SLICE("");
}

/* Lets zlib write behind what is there, but at most up to `max` bytes and one. */
static as_err offer_room(z_stream *z, as_buf *out, as_buf_pool *pool, uint64_t max) {
    if (out->len == out->cap) {
        as_err err = as_buf_reserve(out, pool, AS_BUF_BLOCK);
        if (err != AS_OK) {
            return err;
        }
    }
    size_t room = out->cap - out->len;
    uint64_t allowed = max - out->len;
    room = room > allowed ? (size_t)allowed + 1 : room;
    z->next_out = (Bytef *)out->data + out->len;
    z->avail_out = (uInt)(room < PIECE ? room : PIECE);
    return AS_OK;
}

static void take_output(const z_stream *z, as_buf *out) {
    out->len = (size_t)((char *)z->next_out - out->data);
}

/* --- inflating ------------------------------------------------------------------------------ */

typedef struct inflation {
    z_stream *z;
    as_buf *out;
    as_buf_pool *pool;
    uint64_t max;
    bool at_end; /* behind a whole block and at a whole byte: a message may end here */
} inflation;

static as_err inflate_status(int status) {
    bool fine = status == Z_OK || status == Z_STREAM_END || status == Z_BUF_ERROR;
    return fine ? AS_OK : status == Z_MEM_ERROR ? AS_E_NOMEM : AS_E_WS_PROTOCOL;
}

/* As much as there is room for. */
static as_err inflate_some(inflation *at) {
    as_err err = offer_room(at->z, at->out, at->pool, at->max);
    if (err != AS_OK) {
        return err;
    }
    int status = inflate(at->z, Z_SYNC_FLUSH);
    take_output(at->z, at->out);
    if (at->out->len > at->max) {
        return AS_E_WS_LARGE;
    }
    if (status != Z_BUF_ERROR) { /* which says that nothing has happened */
        /* zlib.h: 128 right behind a block, and the number of bits left of the last byte. */
        at->at_end = status == Z_STREAM_END || (at->z->data_type & ~64) == 128;
    }
    /* 7.2.3.4: a last block ends nothing but itself. The window stays as it is: filling it anew for
     * each of many such blocks, two bytes long, would cost too much. */
    if (status == Z_STREAM_END) {
        status = inflateResetKeep(at->z);
    }
    return inflate_status(status);
}

static as_err inflate_all(inflation *at, as_slice data) {
    as_err err = AS_OK;
    while (err == AS_OK && data.n > 0) {
        give_piece(at->z, &data);
        do {
            err = inflate_some(at);
        } while (err == AS_OK && (at->z->avail_in > 0 || at->z->avail_out == 0));
    }
    return err;
}

static as_err inflate_message(inflation *at, as_slice data) {
    as_err err = inflate_all(at, data);
    /* Without its tail a message has no end, unless the sender was too generous. */
    if (err == AS_OK && !at->at_end) {
        err = inflate_all(at, tail);
    }
    return err != AS_OK ? err : at->at_end ? AS_OK : AS_E_WS_PROTOCOL;
}

static as_err inflate_with(as_ws_env *env, as_buf *before, as_slice data, uint64_t max) {
    z_stream *z = fresh_inflater(env);
    if (z == NULL) {
        return AS_E_NOMEM;
    }
    if (before != NULL && before->len > 0 &&
        inflateSetDictionary(z, input(before->data), (uInt)before->len) != Z_OK) {
        return AS_E_NOMEM;
    }
    inflation at = {.z = z,
                    .out = &env->inflated,
                    .pool = env->pool,
                    .max = max,
                    .at_end = true}; /* of an empty message, that is */
    return inflate_message(&at, data);
}

as_err as__ws_inflate(as_ws_env *env, as__ws_history **history, const as_ws_deflate_params *params,
                      as_slice data, uint64_t max, as_slice *out) {
    as_buf *before = NULL;
    if (!params->client_no_takeover) {
        if (make_history(history) != AS_OK) {
            return AS_E_NOMEM;
        }
        before = &(*history)->in;
    }
    empty(&env->inflated, env->pool);
    as_err err = inflate_with(env, before, data, max);
    if (err == AS_OK) {
        *out = whole(&env->inflated);
        err = before != NULL ? remember(before, (size_t)1 << params->client_bits, *out) : AS_OK;
    }
    return err;
}

/* --- deflating ------------------------------------------------------------------------------ */

static as_err deflate_piece(as_ws_env *env, z_stream *z, int flush) {
    do {
        as_err err = offer_room(z, &env->deflated, env->pool, UINT64_MAX);
        if (err != AS_OK) {
            return err;
        }
        (void)deflate(z, flush); /* with room it cannot fail */
        take_output(z, &env->deflated);
    } while (z->avail_out == 0);
    return AS_OK;
}

static as_err deflate_message(as_ws_env *env, z_stream *z, as_slice data) {
    as_err err;
    do {
        give_piece(z, &data);
        err = deflate_piece(env, z, data.n > 0 ? Z_NO_FLUSH : Z_SYNC_FLUSH);
    } while (err == AS_OK && data.n > 0);
    return err;
}

static as_err deflate_with(as_ws_env *env, const as_buf *before, int bits, as_slice data) {
    z_stream *z = fresh_deflater(env, bits);
    if (z == NULL) {
        return AS_E_NOMEM;
    }
    if (before != NULL && before->len > 0 &&
        deflateSetDictionary(z, input(before->data), (uInt)before->len) != Z_OK) {
        return AS_E_NOMEM;
    }
    return deflate_message(env, z, data);
}

as_err as__ws_deflate(as_ws_env *env, as__ws_history **history, const as_ws_deflate_params *params,
                      as_slice data, as_slice *out) {
    int bits = params->server_bits < BITS_MOST ? params->server_bits : BITS_MOST;
    as_buf *before = NULL;
    if (!params->server_no_takeover) {
        if (make_history(history) != AS_OK) {
            return AS_E_NOMEM;
        }
        before = &(*history)->out;
    }
    empty(&env->deflated, env->pool);
    as_err err = deflate_with(env, before, bits, data);
    if (err == AS_OK) {
        *out = (as_slice){env->deflated.data, env->deflated.len - tail.n}; /* 7.2.1 */
        err = before != NULL ? remember(before, (size_t)1 << bits, data) : AS_OK;
    }
    return err;
}

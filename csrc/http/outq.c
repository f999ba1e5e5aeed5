#include "http/outq.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef enum seg_kind { SEG_BUFFER, SEG_BYTES, SEG_FILE } seg_kind;

struct as_seg {
    as_seg *next;
    seg_kind kind;
    union {
        as_buf buf;
        as_bytes bytes;
        int fd;
    };
    uint64_t off; /* the first byte that is not taken yet */
    uint64_t end; /* behind the last one */
};

void as_outq_init(as_outq *q, as_buf_pool *pool) {
    *q = (as_outq){.pool = pool};
}

/* --- segments ------------------------------------------------------------------------------- */

static void push(as_outq *q, as_seg *seg) {
    seg->next = NULL;
    if (q->last != NULL) {
        q->last->next = seg;
    } else {
        q->first = seg;
    }
    q->last = seg;
}

/* The first segment is through. It leaves the queue before `drop` may run Python. */
static void pop(as_outq *q) {
    as_seg *seg = q->first;
    q->first = seg->next;
    if (q->first == NULL) {
        q->last = NULL;
    }
    switch (seg->kind) {
    case SEG_BUFFER:
        as_buf_fini(&seg->buf, q->pool);
        break;
    case SEG_BYTES:
        seg->bytes.drop(seg->bytes.owner);
        break;
    case SEG_FILE:
        (void)close(seg->fd);
        break;
    }
    free(seg);
}

void as_outq_fini(as_outq *q) {
    while (q->first != NULL) {
        pop(q);
    }
    as_buf_fini(&q->buf, q->pool);
    as_outq_init(q, q->pool);
}

/* Makes what may leave of `buf` a segment; `buf` goes on with the held bytes alone. */
static as_err seal(as_outq *q) {
    size_t end = q->buf.len - q->held;
    if (end == q->buf_off) {
        return AS_OK;
    }
    as_seg *seg = malloc(sizeof(*seg));
    as_buf rest = {0};
    if (seg == NULL ||
        (q->held > 0 && as_buf_append(&rest, q->pool, q->buf.data + end, q->held) != AS_OK)) {
        free(seg);
        return AS_E_NOMEM;
    }
    seg->kind = SEG_BUFFER;
    seg->buf = q->buf;
    seg->buf.len = end;
    seg->off = q->buf_off;
    seg->end = end;
    push(q, seg);
    q->buf = rest;
    q->buf_off = 0;
    return AS_OK;
}

/* --- appending ------------------------------------------------------------------------------ */

static as_err make_room(as_outq *q, size_t n) {
    if (q->buf_off > 0) {
        as_buf_consume(&q->buf, q->buf_off);
        q->buf_off = 0;
        if (q->buf.cap - q->buf.len >= n) {
            return AS_OK;
        }
    }
    /* A block that is well filled leaves as it is; copying it into a larger one gains nothing. */
    if (q->buf.len - q->held >= AS_BUF_BLOCK / 2 && seal(q) != AS_OK) {
        return AS_E_NOMEM;
    }
    return as_buf_reserve(&q->buf, q->pool, n);
}

as_err as_outq_reserve(as_outq *q, size_t n, char **at) {
    if (q->buf.cap - q->buf.len < n && make_room(q, n) != AS_OK) {
        return AS_E_NOMEM;
    }
    *at = q->buf.data + q->buf.len;
    return AS_OK;
}

void as_outq_commit(as_outq *q, size_t n) {
    q->buf.len += n;
    q->size += n;
}

as_err as_outq_append(as_outq *q, const char *p, size_t n) {
    char *at;
    if (n == 0) {
        return AS_OK;
    }
    as_err err = as_outq_reserve(q, n, &at);
    if (err == AS_OK) {
        memcpy(at, p, n);
        as_outq_commit(q, n);
    }
    return err;
}

as_err as_outq_append_bytes(as_outq *q, as_bytes bytes) {
    if (bytes.n <= AS_OUTQ_COPY_MAX || bytes.hold == NULL) {
        return as_outq_append(q, bytes.p, bytes.n);
    }
    as_seg *seg = malloc(sizeof(*seg));
    if (seg == NULL || seal(q) != AS_OK) {
        free(seg);
        return AS_E_NOMEM;
    }
    seg->kind = SEG_BYTES;
    seg->bytes = bytes;
    seg->off = 0;
    seg->end = bytes.n;
    push(q, seg);
    q->size += bytes.n;
    bytes.hold(bytes.owner);
    return AS_OK;
}

as_err as_outq_append_file(as_outq *q, int fd, off_t off, uint64_t n) {
    as_seg *seg = n > 0 ? malloc(sizeof(*seg)) : NULL;
    if (seg == NULL || seal(q) != AS_OK) {
        free(seg);
        (void)close(fd);
        return n > 0 ? AS_E_NOMEM : AS_OK;
    }
    seg->kind = SEG_FILE;
    seg->fd = fd;
    seg->off = (uint64_t)off;
    seg->end = (uint64_t)off + n;
    push(q, seg);
    q->size += n;
    return AS_OK;
}

/* --- held bytes ----------------------------------------------------------------------------- */

void as_outq_hold(as_outq *q, size_t n) {
    q->buf.len += n;
    q->held += n;
}

void as_outq_release(as_outq *q) {
    q->size += q->held;
    q->held = 0;
}

/* A buffer that nothing is left in gives its memory back. */
static void release_empty(as_outq *q) {
    if (q->buf_off == q->buf.len) {
        as_buf_fini(&q->buf, q->pool);
        q->buf_off = 0;
    }
}

void as_outq_take_back(as_outq *q) {
    q->buf.len -= q->held;
    q->held = 0;
    release_empty(q);
}

as_err as_outq_insert(as_outq *q, const char *p, size_t n) {
    char *end;
    as_err err = as_outq_reserve(q, n, &end);
    if (err != AS_OK) {
        return err;
    }
    char *at = end - q->held;
    memmove(at + n, at, q->held);
    memcpy(at, p, n);
    as_outq_commit(q, n);
    return AS_OK;
}

/* --- the whole ------------------------------------------------------------------------------ */

bool as_outq_detach(as_outq *q, as_buf *buf, size_t *off) {
    if (q->first != NULL || q->held > 0 || q->size == 0) {
        return false;
    }
    *buf = q->buf;
    *off = q->buf_off;
    as_outq_init(q, q->pool);
    return true;
}

static as_err push_front(as_outq *q, as_buf buf, size_t off) {
    as_seg *seg = malloc(sizeof(*seg));
    if (seg == NULL) {
        return AS_E_NOMEM;
    }
    *seg = (as_seg){.next = q->first, .kind = SEG_BUFFER, .buf = buf, .off = off, .end = buf.len};
    q->first = seg;
    if (q->last == NULL) {
        q->last = seg;
    }
    return AS_OK;
}

as_err as_outq_attach(as_outq *q, as_buf buf, size_t off) {
    size_t n = buf.len - off;
    if (n > 0 && q->first == NULL && q->buf.data == NULL) {
        q->buf = buf;
        q->buf_off = off;
    } else if (n == 0 || push_front(q, buf, off) != AS_OK) {
        as_buf_fini(&buf, q->pool);
        return n == 0 ? AS_OK : AS_E_NOMEM;
    }
    q->size += n;
    return AS_OK;
}

/* --- sending -------------------------------------------------------------------------------- */

static const char *seg_data(const as_seg *seg) {
    return seg->kind == SEG_BUFFER ? seg->buf.data : seg->bytes.p;
}

static void add_vector(as_out *out, const char *p, uint64_t n) {
    out->vec[out->nvec++] = (struct iovec){(void *)(uintptr_t)p, (size_t)n};
    out->n += n;
}

bool as_outq_peek(const as_outq *q, as_out *out) {
    const int max = (int)(sizeof(out->vec) / sizeof(out->vec[0]));
    const as_seg *seg = q->first;
    out->nvec = 0;
    out->n = 0;
    out->fd = -1;
    if (seg != NULL && seg->kind == SEG_FILE) {
        out->fd = seg->fd;
        out->off = (off_t)seg->off;
        out->n = seg->end - seg->off;
        return true;
    }
    for (; seg != NULL && seg->kind != SEG_FILE && out->nvec < max; seg = seg->next) {
        add_vector(out, seg_data(seg) + seg->off, seg->end - seg->off);
    }
    size_t end = q->buf.len - q->held;
    if (seg == NULL && out->nvec < max && end > q->buf_off) {
        add_vector(out, q->buf.data + q->buf_off, end - q->buf_off);
    }
    return out->nvec > 0;
}

void as_outq_taken(as_outq *q, uint64_t n) {
    q->size -= n;
    while (n > 0 && q->first != NULL) {
        as_seg *seg = q->first;
        uint64_t left = seg->end - seg->off;
        if (n < left) {
            seg->off += n;
            return;
        }
        n -= left;
        seg->off = seg->end;
        pop(q);
    }
    q->buf_off += (size_t)n;
    release_empty(q);
}

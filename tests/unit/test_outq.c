/* The output queue: what is appended leaves once, in order, however little is taken at a time. */
#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "http/outq.h"

#define TOTAL_MAX ((size_t)1 << 20)

static char expected[TOTAL_MAX], got[TOTAL_MAX];
static size_t nexpected, ngot;

static unsigned random_state = 1;

static unsigned random_below(unsigned n) {
    random_state = random_state * 1103515245u + 12345u;
    return (random_state >> 16) % n;
}

/* --- owners --------------------------------------------------------------------------------- */

typedef struct owner {
    int held;
    char *data;
} owner;

static void hold(void *p) {
    ((owner *)p)->held++;
}

static void drop(void *p) {
    owner *o = p;
    if (--o->held == 0) {
        free(o->data); /* a read behind this is seen by a sanitizer */
        o->data = NULL;
    }
}

/* --- taking --------------------------------------------------------------------------------- */

static void take(as_outq *q, uint64_t most) {
    as_out out;
    if (!as_outq_peek(q, &out)) {
        assert(q->size == 0);
        return;
    }
    assert(out.n > 0 && out.n <= q->size);
    uint64_t n = most < out.n ? most : out.n, copied = 0, size = q->size;
    if (out.nvec == 0) {
        assert(pread(out.fd, got + ngot, (size_t)n, out.off) == (ssize_t)n);
        copied = n;
    }
    for (int i = 0; i < out.nvec && copied < n; i++) {
        size_t part = out.vec[i].iov_len;
        part = part < n - copied ? part : (size_t)(n - copied);
        memcpy(got + ngot + copied, out.vec[i].iov_base, part);
        copied += part;
    }
    assert(copied == n);
    ngot += (size_t)n;
    as_outq_taken(q, n);
    assert(q->size == size - n);
}

static void take_all(as_outq *q) {
    while (q->size > 0) {
        take(q, UINT64_MAX);
    }
    as_out out;
    assert(!as_outq_peek(q, &out));
    assert(nexpected == ngot && memcmp(expected, got, ngot) == 0);
    nexpected = ngot = 0;
}

/* --- at random ------------------------------------------------------------------------------ */

static const char *more_expected(size_t n) {
    char *at = expected + nexpected;
    for (size_t i = 0; i < n; i++) {
        at[i] = (char)random_below(256);
    }
    nexpected += n;
    return at;
}

static void append_reference(as_outq *q, owner *o, size_t n) {
    assert(o->held == 0);
    o->data = malloc(n);
    memcpy(o->data, more_expected(n), n);
    assert(as_outq_append_bytes(q, (as_bytes){o->data, n, o, hold, drop}) == AS_OK);
    assert(o->held == (n > AS_OUTQ_COPY_MAX));
    if (o->held == 0) {
        free(o->data);
    }
}

static void append_file(as_outq *q, size_t n) {
    char path[] = "/tmp/test_outq.XXXXXX";
    int fd = mkstemp(path);
    assert(fd >= 0 && unlink(path) == 0);
    assert(write(fd, "skipped", 7) == 7 && write(fd, more_expected(n), n) == (ssize_t)n);
    assert(as_outq_append_file(q, fd, 7, n) == AS_OK);
    if (n == 0) {
        assert(fcntl(fd, F_GETFD) < 0); /* it was taken over */
    }
}

static void append_something(as_outq *q, owner *o) {
    char *at;
    size_t n;
    switch (random_below(6)) {
    case 0:
        append_file(q, random_below(3) * 1000);
        break;
    case 1:
        append_reference(q, o, AS_OUTQ_COPY_MAX - 2 + random_below(2000));
        break;
    case 2:
        n = random_below(300);
        assert(as_outq_reserve(q, n + 50, &at) == AS_OK);
        memcpy(at, more_expected(n), n);
        as_outq_commit(q, n);
        break;
    default:
        n = random_below(5000);
        assert(as_outq_append(q, more_expected(n), n) == AS_OK);
        break;
    }
}

/* Somebody else has it for a while, and takes some; what is appended meanwhile comes behind it. */
static void lend(as_outq *q, owner *o) {
    as_buf buf;
    size_t off;
    uint64_t size = q->size;
    if (!as_outq_detach(q, &buf, &off)) {
        assert(size == 0 || q->first != NULL);
        return;
    }
    assert(q->size == 0 && buf.len - off == size);
    size_t n = random_below((unsigned)size + 1);
    memcpy(got + ngot, buf.data + off, n);
    ngot += n;
    if (random_below(2) == 0) {
        append_something(q, o);
    }
    uint64_t behind = q->size;
    assert(as_outq_attach(q, buf, off + n) == AS_OK);
    assert(q->size == size - n + behind);
}

static void test_random(as_buf_pool *pool) {
    as_outq q;
    as_outq_init(&q, pool);
    for (int round = 0; round < 300; round++) {
        owner owners[20] = {{0}}, lenders[20] = {{0}};
        for (int i = 0; i < 20; i++) {
            append_something(&q, &owners[i]);
            if (random_below(3) == 0) {
                lend(&q, &lenders[i]);
            }
            if (random_below(2) == 0) {
                take(&q, 1 + random_below(10000));
            }
        }
        take_all(&q);
        for (int i = 0; i < 20; i++) {
            assert(owners[i].held == 0 && lenders[i].held == 0);
        }
        assert(q.first == NULL && q.last == NULL);
    }
    assert(q.buf.data == NULL); /* an empty queue holds no memory */
    as_outq_fini(&q);
}

/* --- held bytes ----------------------------------------------------------------------------- */

static void put_held(as_outq *q, const char *p, size_t n) {
    char *at;
    assert(as_outq_reserve(q, n, &at) == AS_OK);
    memcpy(at, p, n);
    as_outq_hold(q, n);
}

/* `before` bytes that may leave, of which some have, then held ones in pieces. */
static void test_held(as_buf_pool *pool, size_t before, size_t taken, size_t held) {
    static char data[60000];
    as_outq q;
    as_outq_init(&q, pool);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (char)(i * 13);
    }
    assert(as_outq_append(&q, data, before) == AS_OK);
    take(&q, taken);
    for (size_t at = 0; at < held; at += 500) {
        put_held(&q, data + at, held - at < 500 ? held - at : 500);
        assert(q.size == before - taken);
    }
    take(&q, before);
    assert(q.size == 0 && q.held == held);
    assert(as_outq_insert(&q, "first", 5) == AS_OK && q.size == 5);
    as_outq_release(&q);
    assert(q.size == held + 5);
    memcpy(expected, data, before);
    memcpy(expected + before, "first", 5);
    memcpy(expected + before + 5, data, held);
    nexpected = before + 5 + held;
    take_all(&q);
    as_buf buf;
    size_t off;
    put_held(&q, data, 100);
    assert(!as_outq_detach(&q, &buf, &off));
    as_outq_take_back(&q);
    assert(q.size == 0 && q.held == 0 && q.buf.data == NULL);
    as_outq_fini(&q);
}

/* --- the end -------------------------------------------------------------------------------- */

static void test_fini(void) {
    as_outq q;
    owner o = {0};
    as_outq_init(&q, NULL);
    append_reference(&q, &o, 20000);
    append_file(&q, 10);
    assert(as_outq_append(&q, "x", 1) == AS_OK && o.held == 1);
    put_held(&q, "y", 1);
    as_outq_fini(&q);
    assert(o.held == 0 && q.first == NULL && q.size == 0);
    as_outq_fini(&q);
    nexpected = 0;
}

int main(void) {
    as_buf_pool pool;
    as_buf_pool_init(&pool, 2);
    test_random(NULL);
    test_random(&pool);
    static const size_t sizes[] = {1, 100, 8191, 8192, 16384, 20000, 40000};
    const size_t n = sizeof(sizes) / sizeof(sizes[0]);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++) {
            test_held(&pool, sizes[i], sizes[i] / 2, sizes[j]);
            test_held(NULL, sizes[i], sizes[i], sizes[j]);
        }
    }
    test_fini();
    as_buf_pool_fini(&pool);
    return 0;
}

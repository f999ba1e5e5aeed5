/* Buffers, their pool, and what happens when memory runs out. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/limits.h"

/* Bytes of a known sequence, in pieces of growing size. */
static void append_pieces(as_buf *buf, as_buf_pool *pool, size_t total) {
    char piece[997];
    for (size_t at = 0, n; at < total; at += n) {
        n = at % sizeof(piece) + 1;
        n = n < total - at ? n : total - at;
        for (size_t i = 0; i < n; i++) {
            piece[i] = (char)((at + i) * 7);
        }
        assert(as_buf_append(buf, pool, piece, n) == AS_OK);
    }
}

static void check_pieces(const as_buf *buf, size_t from, size_t total) {
    assert(buf->len == total - from);
    for (size_t i = 0; i < buf->len; i++) {
        assert(buf->data[i] == (char)((from + i) * 7));
    }
}

static void test_append(as_buf_pool *pool) {
    as_buf buf = {0};
    append_pieces(&buf, pool, 100000);
    check_pieces(&buf, 0, 100000);
    as_buf_consume(&buf, 0);
    as_buf_consume(&buf, 12345);
    check_pieces(&buf, 12345, 100000);
    as_buf_consume(&buf, buf.len);
    assert(buf.len == 0);
    as_buf_fini(&buf, pool);
    assert(buf.data == NULL && buf.len == 0 && buf.cap == 0);
    append_pieces(&buf, pool, 10);
    check_pieces(&buf, 0, 10);
    as_buf_fini(&buf, pool);
    as_buf_fini(&buf, pool);
}

static void test_pool(void) {
    as_buf_pool pool;
    as_buf bufs[4] = {{0}};
    as_buf_pool_init(&pool, 2);
    for (int i = 0; i < 4; i++) {
        assert(as_buf_append(&bufs[i], &pool, "x", 1) == AS_OK);
        assert(bufs[i].cap == AS_BUF_BLOCK);
    }
    char *last = bufs[1].data;
    for (int i = 0; i < 4; i++) {
        as_buf_fini(&bufs[i], &pool);
    }
    assert(pool.count == 2); /* and no more */
    assert(as_buf_append(&bufs[0], &pool, "y", 1) == AS_OK && bufs[0].data == last);
    assert(as_buf_append(&bufs[0], &pool, bufs[0].data, 1) == AS_OK);
    assert(as_buf_reserve(&bufs[0], &pool, AS_BUF_BLOCK) == AS_OK); /* its block goes back */
    assert(pool.count == 2 && bufs[0].len == 2 && memcmp(bufs[0].data, "yy", 2) == 0);
    as_buf_fini(&bufs[0], &pool);
    as_buf_pool_fini(&pool);
    assert(pool.count == 0 && pool.free == NULL);
}

static void test_no_memory(void) {
    as_buf buf = {0};
    assert(as_buf_append(&buf, NULL, "abc", 3) == AS_OK);
    assert(as_buf_reserve(&buf, NULL, SIZE_MAX) == AS_E_NOMEM);
    assert(as_buf_reserve(&buf, NULL, SIZE_MAX - 3) == AS_E_NOMEM);
    assert(as_buf_reserve(&buf, NULL, SIZE_MAX / 2) == AS_E_NOMEM);
    assert(buf.len == 3 && memcmp(buf.data, "abc", 3) == 0);
    as_buf_fini(&buf, NULL);
}

static void test_errors(void) {
    assert(as_err_status(AS_E_BODY_LARGE) == 413 && as_err_status(AS_OK) == 0);
    assert(as_err_status(AS_E_CLOSED) == 0 && strlen(as_err_text(AS_E_CLOSED)) > 0);
    assert(strlen(as_err_text((as_err)12345)) > 0 && strlen(as_err_text((as_err)-12345)) > 0);
}

static void test_limits(void) {
    as_limits limits;
    as_limits_init(&limits);
    assert(limits.limit_request_line == 8190 && limits.date_header);
    assert(as_limits_set(&limits, "limit_request_body", UINT64_C(1) << 40));
    assert(limits.limit_request_body == UINT64_C(1) << 40);
    assert(as_limits_set(&limits, "date_header", 0) && !limits.date_header);
    assert(!as_limits_set(&limits, "limit_", 1) && !as_limits_set(&limits, "", 1));
}

int main(void) {
    as_buf_pool pool;
    as_buf_pool_init(&pool, 3);
    test_append(NULL);
    test_append(&pool);
    as_buf_pool_fini(&pool);
    test_pool();
    test_no_memory();
    test_errors();
    test_limits();
    return 0;
}

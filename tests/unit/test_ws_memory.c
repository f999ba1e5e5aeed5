/* Memory of WebSockets: how much there is of it and when, and what happens when there is no more.
 * The linker puts the functions below in the place of libc's for this test (meson.build). */
#include <malloc.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "http/websocket.h"
#include "ws_corpus.h"

static unsigned failures;
static size_t live;                     /* bytes that are allocated */
static size_t until_failure = SIZE_MAX; /* allocations that succeed */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void __wrap_free(void *p);

static bool is_allowed(void) {
    return until_failure == SIZE_MAX || (until_failure > 0 && until_failure-- > 0);
}

void *__wrap_malloc(size_t n) {
    void *p = is_allowed() ? __real_malloc(n) : NULL;
    live += p != NULL ? malloc_usable_size(p) : 0;
    return p;
}

void *__wrap_calloc(size_t n, size_t size) {
    void *p = is_allowed() ? __real_calloc(n, size) : NULL;
    live += p != NULL ? malloc_usable_size(p) : 0;
    return p;
}

void __wrap_free(void *p) {
    live -= p != NULL ? malloc_usable_size(p) : 0;
    __real_free(p);
}

static void fail(const char *what, size_t n) {
    fprintf(stderr, "%s: %zu\n", what, n);
    failures++;
}

/* --- no memory ------------------------------------------------------------------------------ */

static const as_ws_deflate_params agreed = {true, false, false, 12, 12};

/* Byte by byte: a message in fragments, control frames between them, two compressed messages. */
#define BEGINNING                                                                                      \
    FRAME("\x01", "\x83", "Hel")                                                                       \
    FRAME("\x89", "\x82", "hi")                                                                        \
    FRAME("\x80", "\x82", "lo") FRAME("\xc1", "\x87", "\xf2\x48\xcd\xc9\xc9\x07\x00")
static const char conversation[] = BEGINNING /* of which the next one needs the last one */
    FRAME("\xc1", "\x85", "\xf2\x00\x11\x00\x00") FRAME("\x88", "\x82", "\x03\xe8");

static as_err listen(as_ws *ws, size_t n, unsigned *events) {
    char byte;
    as_ws_event event;
    as_err err = AS_OK;
    for (size_t i = 0; i < n && err == AS_OK; i++) {
        byte = conversation[i];
        as_ws_input in = {&byte, 1};
        while ((err = as_ws_next(ws, &in, &event)) == AS_OK && event.kind != AS_WS_NOTHING) {
            ++*events;
        }
    }
    return err;
}

static as_err talk(as_ws *ws) {
    as_slice out;
    as_err err = as_ws_deflate(ws, AS_SLICE(BYTES_100), &out);
    return err == AS_OK ? as_ws_deflate(ws, AS_SLICE(BYTES_100), &out) : err;
}

/* True when all of it went well. */
static bool converse(size_t allocations) {
    unsigned events = 0;
    until_failure = allocations;
    as_ws_env *env = as_ws_env_new(NULL);
    as_ws *ws = env != NULL ? as_ws_new(env, &agreed, 0) : NULL;
    as_err err = ws != NULL ? listen(ws, sizeof(conversation) - 1, &events) : AS_E_NOMEM;
    err = err == AS_OK ? talk(ws) : err;
    as_ws_free(ws);
    as_ws_env_free(env);
    until_failure = SIZE_MAX;
    if (err != AS_OK && err != AS_E_NOMEM) {
        fail("another error", (size_t)-err);
    }
    if (err == AS_OK && events != 5) {
        fail("events", events);
    }
    if (live != 0) {
        fail("bytes are lost", live);
    }
    return err == AS_OK;
}

static void test_no_memory(void) {
    size_t n = 0;
    while (!converse(n) && n < 100) {
        n++;
    }
    if (n < 8 || n == 100) {
        fail("allocations", n);
    }
}

/* --- how much ------------------------------------------------------------------------------- */

/* A message of 1 GiB is announced; `n` bytes of it come, in parts. */
static void test_partial(size_t n, size_t part, as_buf_pool *pool) {
    static char bytes[1000000];
    as_ws_env *env = as_ws_env_new(pool);
    as_ws *ws = as_ws_new(env, &(as_ws_deflate_params){0}, 0);
    as_ws_event event;
    as_ws_input in = {memcpy(bytes, "\x82\xff\0\0\0\0\x40\0\0\0\0\0\0\0", 14), 14};
    (void)as_ws_next(ws, &in, &event);
    size_t before = live;
    for (size_t at = 0; at < n; at += part) {
        in = (as_ws_input){bytes, part};
        (void)as_ws_next(ws, &in, &event);
    }
    /* It doubles, and a block that it has outgrown may lie in the pool. */
    size_t most = (n < 128 ? 256 : 2 * n + part) + 64 + (pool != NULL ? AS_BUF_BLOCK : 0);
    if (live - before > most) {
        fail("bytes for a part of a message", live - before);
    }
    as_ws_free(ws);
    as_ws_env_free(env);
}

static void test_partials(void) {
    static const size_t sizes[] = {1, 100, 1000, 2000, 3000, 20000, 1000000};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        as_buf_pool pool;
        as_buf_pool_init(&pool, 2);
        test_partial(sizes[i], 1, NULL);
        test_partial(sizes[i], sizes[i], NULL);
        test_partial(sizes[i], 1000 < sizes[i] ? 1000 : 1, &pool);
        as_buf_pool_fini(&pool);
    }
}

/* Idle, there is the struct and, with takeover, what was said lately. */
static void test_idle(bool takeover, size_t most) {
    as_ws_deflate_params params = {true, !takeover, !takeover, 12, 12};
    unsigned events = 0;
    as_ws_env *env = as_ws_env_new(NULL);
    size_t before = live;
    as_ws *first = as_ws_new(env, &params, 0);
    if (live - before > 128 + 16) {
        fail("bytes of a new one", live - before);
    }
    (void)listen(first, sizeof(BEGINNING) - 1, &events);
    (void)talk(first); /* the env has now what it needs */
    before = live;
    as_ws *ws = as_ws_new(env, &params, 0);
    (void)listen(ws, sizeof(BEGINNING) - 1, &events);
    (void)talk(ws);
    if (live - before > most || events != 6) {
        fail("bytes of an idle one", live - before);
    }
    as_ws_free(first);
    as_ws_free(ws);
    as_ws_env_free(env);
}

int main(void) {
    test_no_memory();
    test_partials();
    test_idle(false, 128 + 16);
    test_idle(true, 1024);
    return failures == 0 ? 0 : 1;
}

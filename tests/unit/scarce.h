/* An allocator that fails when it is told to, in the place of libc's: the linker puts it there
 * (`scarce` in meson.build), so that what is tested is the very code of a release. It knows the
 * calls of this executable and of the static libraries in it; OpenSSL and zlib are handed its
 * functions. libuv is left alone: it calls abort() where its table of watchers cannot grow.
 *
 * Blocks are counted whether or not anything fails, so that what is lost shows as a difference. */
#ifndef AS_TESTS_SCARCE_H
#define AS_TESTS_SCARCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <zlib.h>

typedef struct scarce_state {
    size_t blocks;  /* that are allocated */
    bool watching;  /* allocations count now: it is the server's turn */
    size_t count;   /* so many did */
    size_t fail_at; /* which of them fails, from 1 on; 0: none */
    bool lasting;   /* all later ones, too */
} scarce_state;

static scarce_state scarce;

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void __real_free(void *p);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);
void __wrap_free(void *p);

static bool scarce_fails(void) {
    if (!scarce.watching) {
        return false;
    }
    scarce.count++;
    return scarce.fail_at != 0 &&
           (scarce.count == scarce.fail_at || (scarce.lasting && scarce.count > scarce.fail_at));
}

void *__wrap_malloc(size_t n) {
    void *p = scarce_fails() ? NULL : __real_malloc(n);
    scarce.blocks += p != NULL;
    return p;
}

void *__wrap_calloc(size_t n, size_t size) {
    void *p = scarce_fails() ? NULL : __real_calloc(n, size);
    scarce.blocks += p != NULL;
    return p;
}

void *__wrap_realloc(void *p, size_t n) {
    void *fresh = scarce_fails() ? NULL : __real_realloc(p, n);
    scarce.blocks += p == NULL && fresh != NULL;
    return fresh;
}

void __wrap_free(void *p) {
    scarce.blocks -= p != NULL;
    __real_free(p);
}

char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t n);

char *__wrap_strndup(const char *text, size_t n) {
    char *copy = malloc(strnlen(text, n) + 1);
    if (copy != NULL) {
        n = strnlen(text, n);
        memcpy(copy, text, n);
        copy[n] = '\0';
    }
    return copy;
}

char *__wrap_strdup(const char *text) {
    return __wrap_strndup(text, SIZE_MAX);
}

/* --- OpenSSL ---------------------------------------------------------------------------------- */

static void *scarce_ssl_malloc(size_t n, const char *file, int line) {
    (void)file;
    (void)line;
    return n > 0 ? malloc(n) : NULL;
}

static void scarce_ssl_free(void *p, const char *file, int line) {
    (void)file;
    (void)line;
    free(p);
}

static void *scarce_ssl_realloc(void *p, size_t n, const char *file, int line) {
    if (n == 0) {
        scarce_ssl_free(p, file, line);
        return NULL;
    }
    return realloc(p, n);
}

/* Before OpenSSL's first own allocation. */
static bool scarce_openssl(void) {
    return CRYPTO_set_mem_functions(scarce_ssl_malloc, scarce_ssl_realloc, scarce_ssl_free) == 1;
}

/* --- zlib ------------------------------------------------------------------------------------- */

static voidpf scarce_zalloc(voidpf opaque, uInt n, uInt size) {
    (void)opaque;
    return calloc(n, size);
}

static void scarce_zfree(voidpf opaque, voidpf p) {
    (void)opaque;
    free(p);
}

int __real_inflateInit2_(z_stream *z, int bits, const char *version, int size);
int __real_deflateInit2_(z_stream *z, int level, int method, int bits, int memory, int strategy,
                         const char *version, int size);
int __wrap_inflateInit2_(z_stream *z, int bits, const char *version, int size);
int __wrap_deflateInit2_(z_stream *z, int level, int method, int bits, int memory, int strategy,
                         const char *version, int size);

int __wrap_inflateInit2_(z_stream *z, int bits, const char *version, int size) {
    z->zalloc = scarce_zalloc;
    z->zfree = scarce_zfree;
    return __real_inflateInit2_(z, bits, version, size);
}

int __wrap_deflateInit2_(z_stream *z, int level, int method, int bits, int memory, int strategy,
                         const char *version, int size) {
    z->zalloc = scarce_zalloc;
    z->zfree = scarce_zfree;
    return __real_deflateInit2_(z, level, method, bits, memory, strategy, version, size);
}

#endif

/* Where request bodies are kept: what goes to files, what all files together may hold, and that it
 * is given back. */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/spool.h"

#define MEMORY 1000u
#define FILES 10000u
#define THREADS 2
#define ROUNDS 300

static char bytes[FILES + 1];

static as_err add(as_spool *spool, size_t n) {
    return as_spool_append(spool, (as_slice){bytes, n});
}

static uint64_t filled(as_spools *spools) {
    return atomic_load(&spools->filled);
}

static void test_memory_counts_for_nothing(void) {
    as_spools *spools = as_spools_new(MEMORY, FILES);
    as_spool spool;
    as_spool_init(&spool, spools);
    assert(add(&spool, 0) == AS_OK && add(&spool, MEMORY) == AS_OK);
    assert(spool.file.fd < 0 && spool.size == MEMORY && filled(spools) == 0);
    as_spool_fini(&spool);
    assert(atomic_load(&spools->refs) == 1);
    as_spools_unref(spools);
    as_spools_unref(NULL);
}

static void test_a_file_holds_all(void) {
    as_spools *spools = as_spools_new(MEMORY, FILES);
    as_spool spool;
    struct stat found;
    char text[8] = {0};
    as_spool_init(&spool, spools);
    assert(as_spool_append(&spool, AS_SLICE("first ")) == AS_OK && add(&spool, MEMORY) == AS_OK);
    assert(as_spool_append(&spool, AS_SLICE("x")) == AS_OK);
    assert(fstat(spool.file.fd, &found) == 0 && found.st_nlink == 0);
    assert(found.st_size == 7 + MEMORY && spool.size == 7 + MEMORY && filled(spools) == 7 + MEMORY);
    assert(pread(spool.file.fd, text, 6, 0) == 6 && strcmp(text, "first ") == 0);
    assert(spool.memory.len == 0);
    as_spool_fini(&spool);
    assert(filled(spools) == 0 && atomic_load(&spools->refs) == 1);
    as_spool_fini(&spool); /* nothing is given back twice */
    assert(filled(spools) == 0 && atomic_load(&spools->refs) == 1);
    as_spools_unref(spools);
}

/* The last byte that has room, and the first that has none. */
static void test_beside_others(void) {
    as_spools *spools = as_spools_new(MEMORY, FILES);
    as_spool first, second;
    as_spool_init(&first, spools);
    as_spool_init(&second, spools);
    assert(add(&first, 6000) == AS_OK && add(&second, 4000) == AS_OK && filled(spools) == FILES);
    assert(add(&first, 1) == AS_E_SPOOL_FULL && add(&second, 1) == AS_E_SPOOL_FULL);
    assert(filled(spools) == FILES && first.size == 6000);
    as_spool small;
    as_spool_init(&small, spools);
    assert(add(&small, MEMORY) == AS_OK); /* no matter of the files */
    assert(add(&small, 1) == AS_E_SPOOL_FULL && small.file.fd < 0);
    as_spool_fini(&small);
    as_spool_fini(&second);
    assert(filled(spools) == 6000);
    assert(add(&first, 4000) == AS_OK && filled(spools) == FILES);
    as_spool_fini(&first);
    assert(filled(spools) == 0);
    as_spools_unref(spools);
}

static void test_alone(void) {
    as_spools *spools = as_spools_new(MEMORY, FILES);
    as_spool spool, other;
    as_spool_init(&spool, spools);
    as_spool_init(&other, spools);
    assert(add(&other, 2000) == AS_OK);
    assert(add(&spool, FILES + 1) == AS_E_SPOOL_LARGE);
    assert(add(&spool, 8000) == AS_OK);
    assert(add(&spool, 2001) == AS_E_SPOOL_LARGE); /* not when the other is gone, either */
    assert(add(&spool, 2000) == AS_E_SPOOL_FULL);
    as_spool_fini(&other);
    assert(add(&spool, 2001) == AS_E_SPOOL_LARGE && add(&spool, 2000) == AS_OK);
    as_spool_fini(&spool);
    as_spools_unref(spools);
}

static void test_what_is_announced(void) {
    as_spools *spools = as_spools_new(MEMORY, FILES);
    as_spool spool;
    as_spool_init(&spool, spools);
    assert(as_spools_expect(spools, FILES) == AS_OK && filled(spools) == 0);
    assert(as_spools_expect(spools, FILES + 1) == AS_E_SPOOL_LARGE);
    assert(as_spools_expect(spools, UINT64_MAX) == AS_E_SPOOL_LARGE);
    assert(add(&spool, 5000) == AS_OK);
    assert(as_spools_expect(spools, 5000) == AS_OK);
    assert(as_spools_expect(spools, 5001) == AS_E_SPOOL_FULL);
    assert(add(&spool, 5000) == AS_OK);
    assert(as_spools_expect(spools, MEMORY) == AS_OK);
    assert(as_spools_expect(spools, MEMORY + 1) == AS_E_SPOOL_FULL);
    as_spool_fini(&spool);
    as_spools_unref(spools);
}

static void test_no_limit(void) {
    as_spools *spools = as_spools_new(0, 0);
    as_spool spool;
    as_spool_init(&spool, spools);
    assert(as_spools_expect(spools, UINT64_MAX) == AS_OK);
    assert(add(&spool, FILES) == AS_OK && add(&spool, FILES) == AS_OK);
    assert(spool.file.fd >= 0 && filled(spools) == 2 * FILES);
    as_spool_fini(&spool);
    assert(filled(spools) == 0);
    as_spools_unref(spools);
}

/* As the application may keep what a server, which is gone, has given to it. */
static void test_a_file_outlives_its_server(void) {
    as_spools *spools = as_spools_new(0, FILES);
    as_spool_file file, taken;
    as_spool_file_init(&file, spools);
    assert(as_spool_file_append(&file, AS_SLICE("bytes")) == AS_OK);
    taken = file;
    file.fd = -1;
    as_spool_file_close(&file);
    as_spools_unref(spools);
    assert(filled(taken.spools) == 5);
    as_spool_file_close(&taken);
}

/* A disk that takes a part: all of it comes back. */
static void test_a_full_disk(void) {
    struct rlimit before, full = {.rlim_cur = 1500, .rlim_max = RLIM_INFINITY};
    assert(getrlimit(RLIMIT_FSIZE, &before) == 0);
    full.rlim_max = before.rlim_max;
    as_spools *spools = as_spools_new(MEMORY, FILES);
    as_spool spool;
    as_spool_init(&spool, spools);
    assert(signal(SIGXFSZ, SIG_IGN) != SIG_ERR && setrlimit(RLIMIT_FSIZE, &full) == 0);
    assert(add(&spool, 500) == AS_OK && add(&spool, 5000) == AS_E_IO && errno == EFBIG);
    assert(setrlimit(RLIMIT_FSIZE, &before) == 0);
    as_spool_fini(&spool);
    assert(filled(spools) == 0);
    as_spools_unref(spools);
}

static void test_no_file(void) {
    struct rlimit before, none;
    assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    as_spools *spools = as_spools_new(MEMORY, FILES);
    as_spool spool;
    as_spool_init(&spool, spools);
    assert(setrlimit(RLIMIT_NOFILE, &none) == 0);
    assert(add(&spool, 5000) == AS_E_IO && errno == EMFILE);
    assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
    as_spool_fini(&spool);
    assert(filled(spools) == 0 && atomic_load(&spools->refs) == 1);
    as_spools_unref(spools);
}

/* --- threads ---------------------------------------------------------------------------------- */

typedef struct shelf {
    _Atomic(as_spool_file *) file; /* what was given to a thread */
    atomic_bool over;
} shelf;

/* What a thread that answers does: the body's file ends there. */
static void *close_files(void *arg) {
    shelf *from = arg;
    bool over;
    do {
        over = atomic_load(&from->over); /* before the last look */
        as_spool_file *file = atomic_exchange(&from->file, NULL);
        if (file != NULL) {
            as_spool_file_close(file);
            free(file);
        } else {
            (void)sched_yield();
        }
    } while (!over);
    return NULL;
}

static void test_given_back_on_other_threads(void) {
    as_spools *spools = as_spools_new(0, FILES);
    shelf shelves[THREADS] = {0};
    pthread_t threads[THREADS];
    unsigned kept = 0;
    for (int i = 0; i < THREADS; i++) {
        assert(pthread_create(&threads[i], NULL, close_files, &shelves[i]) == 0);
    }
    while (kept < ROUNDS) {
        as_spool_file *file = malloc(sizeof(*file));
        as_spool_file_init(file, spools);
        as_err err = as_spool_file_append(file, (as_slice){bytes, FILES / 2});
        assert(err == AS_OK || err == AS_E_SPOOL_FULL);
        assert(filled(spools) <= FILES);
        as_spool_file *none = NULL;
        bool given = err == AS_OK &&
                     atomic_compare_exchange_strong(&shelves[kept % THREADS].file, &none, file);
        kept += given;
        if (!given) {
            as_spool_file_close(file);
            free(file);
            (void)sched_yield();
        }
    }
    for (int i = 0; i < THREADS; i++) {
        atomic_store(&shelves[i].over, true);
        assert(pthread_join(threads[i], NULL) == 0);
    }
    assert(filled(spools) == 0 && atomic_load(&spools->refs) == 1);
    as_spools_unref(spools);
}

int main(void) {
    memset(bytes, 'x', sizeof(bytes));
    test_memory_counts_for_nothing();
    test_a_file_holds_all();
    test_beside_others();
    test_alone();
    test_what_is_announced();
    test_no_limit();
    test_a_file_outlives_its_server();
    test_a_full_disk();
    test_no_file();
    test_given_back_on_other_threads();
    return 0;
}

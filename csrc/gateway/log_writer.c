/* Two buffers: one gathers while the other is being written. The caller only ever waits for the
 * lock, which is held for the time of a copy.
 *
 * After each write the thread naps before it looks for more. Under load the lines of many turns of
 * the loop leave together then, and the caller finds the thread awake: no system call for it. */
#include "gateway/log_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/thread.h"

#define NAP 10u                              /* milliseconds between two writes */
#define LOOK_EVERY 100                       /* milliseconds, while nobody reads: was it closed? */
#define WAIT_PART 100u                       /* milliseconds, of those for the last lines */
#define STACK ((size_t)256 * 1024)           /* bytes of the thread's stack */
#define KEEP ((size_t)128 * 1024)            /* bytes of an empty buffer that is kept */
#define PIECE_OF_FILE ((size_t)256 * 1024)   /* bytes of one write; a pipe's are PIPE_BUF */

struct as_log_writer {
    pthread_mutex_t lock; /* of everything down to `failing` */
    pthread_cond_t wake;  /* the thread waits */
    pthread_cond_t done;  /* as_log_writer_free waits */
    as_buf waiting;
    as_slice writing; /* lines in the thread's hands */
    uint64_t dropped; /* lines, of the present trouble */
    int error;        /* errno of its last failure */
    bool asleep, closing, ended;
    bool abandoned; /* the thread frees the writer */
    bool failing;   /* the trouble's error was told, or is about to be */
    bool over;      /* lines are written again */
    atomic_bool tell;

    pthread_t thread;
    pid_t pid; /* of the process that has the thread; 0: none yet */
    int fd;    /* a duplicate of the caller's */
    bool torn; /* the thread's own: a failed write left half a line */
};

/* --- small things --------------------------------------------------------------------------- */

static uint64_t count_lines(as_slice s) {
    uint64_t lines = 0;
    const char *p = s.p, *end = s.n > 0 ? s.p + s.n : s.p;
    while (p < end && (p = memchr(p, '\n', (size_t)(end - p))) != NULL) {
        lines++;
        p++;
    }
    return lines;
}

static as_slice all_of(const as_buf *buf) {
    return (as_slice){buf->data, buf->len};
}

static void empty(as_buf *buf) {
    buf->len = 0;
    if (buf->cap > KEEP) {
        as_buf_fini(buf, NULL);
    }
}

/* With the lock. */
static void drop(as_log_writer *w, uint64_t lines, int error) {
    w->dropped += lines;
    w->over = false;
    if (error != 0) {
        w->error = error;
        if (!w->failing) {
            w->failing = true;
            atomic_store_explicit(&w->tell, true, memory_order_relaxed);
        }
    }
}

static void dispose(as_log_writer *w) {
    as_buf_fini(&w->waiting, NULL);
    (void)close(w->fd);
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_cond_destroy(&w->done);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

/* --- the thread ----------------------------------------------------------------------------- */

static bool is_abandoned(as_log_writer *w) {
    (void)pthread_mutex_lock(&w->lock);
    bool abandoned = w->abandoned;
    (void)pthread_mutex_unlock(&w->lock);
    return abandoned;
}

/* Waits until a write would not block; false: the writer was given up meanwhile. */
static bool wait_writable(as_log_writer *w) {
    struct pollfd fd = {.fd = w->fd, .events = POLLOUT};
    int ready;
    do {
        ready = poll(&fd, 1, LOOK_EVERY);
        if (is_abandoned(w)) {
            return false;
        }
    } while (ready <= 0);
    return true;
}

/* All of it, or an errno. */
static int write_piece(as_log_writer *w, const char *p, size_t n) {
    while (n > 0) {
        if (!wait_writable(w)) {
            return ECANCELED;
        }
        ssize_t got = write(w->fd, p, n);
        if (got > 0) {
            w->torn = p[got - 1] != '\n';
            p += got;
            n -= (size_t)got;
        } else if (got == 0 || errno == EAGAIN) {
            (void)poll(NULL, 0, (int)NAP); /* poll said otherwise */
        } else if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

/* As many whole lines as `most` bytes hold; a longer line alone. */
static size_t whole_lines(const char *p, size_t n, size_t most) {
    if (n <= most) {
        return n;
    }
    const char *end = memrchr(p, '\n', most);
    if (end == NULL) {
        end = memchr(p + most, '\n', n - most);
    }
    return end != NULL ? (size_t)(end + 1 - p) : n;
}

/* Several processes may write to the same place: a piece of whole lines is one write, which is not
 * mixed with others' (O_APPEND; PIPE_BUF). */
static void write_lines(as_log_writer *w, as_slice lines) {
    struct stat st;
    bool is_file = fstat(w->fd, &st) == 0 && S_ISREG(st.st_mode), abandoned = false;
    size_t most = is_file ? PIECE_OF_FILE : PIPE_BUF;
    while (lines.n > 0 && !abandoned) {
        size_t n = whole_lines(lines.p, lines.n, most);
        int error = w->torn ? write_piece(w, "\n", 1) : 0;
        error = error == 0 ? write_piece(w, lines.p, n) : error;
        (void)pthread_mutex_lock(&w->lock);
        if (error != 0) {
            drop(w, count_lines((as_slice){lines.p, n}), error);
        }
        lines = (as_slice){lines.p + n, lines.n - n};
        w->writing = lines;
        abandoned = w->abandoned;
        (void)pthread_mutex_unlock(&w->lock);
    }
}

/* With the lock: trouble is over when all that waited was written. */
static void look_whether_over(as_log_writer *w, uint64_t dropped_before) {
    if (w->dropped > 0 && w->dropped == dropped_before && w->waiting.len == 0) {
        w->over = true;
        atomic_store_explicit(&w->tell, true, memory_order_relaxed);
    }
}

static void nap(as_log_writer *w) {
    struct timespec end = as_moment_in(NAP);
    while (!w->closing && pthread_cond_timedwait(&w->wake, &w->lock, &end) != ETIMEDOUT) {
    }
}

static void *run(void *arg) {
    as_log_writer *w = arg;
    as_buf lines = {0};
    (void)pthread_mutex_lock(&w->lock);
    while (!w->abandoned) {
        while (w->waiting.len == 0 && !w->closing) {
            w->asleep = true;
            (void)pthread_cond_wait(&w->wake, &w->lock);
        }
        w->asleep = false;
        if (w->waiting.len == 0) {
            break;
        }
        as_buf batch = w->waiting;
        w->waiting = lines;
        lines = batch;
        w->writing = all_of(&lines);
        uint64_t dropped = w->dropped;
        (void)pthread_mutex_unlock(&w->lock);
        write_lines(w, all_of(&lines));
        empty(&lines);
        (void)pthread_mutex_lock(&w->lock);
        look_whether_over(w, dropped);
        nap(w);
    }
    as_buf_fini(&lines, NULL);
    w->ended = true;
    bool abandoned = w->abandoned;
    (void)pthread_cond_signal(&w->done);
    (void)pthread_mutex_unlock(&w->lock);
    if (abandoned) {
        dispose(w);
    }
    return NULL;
}

/* --- for the owner -------------------------------------------------------------------------- */

static int init_lock(as_log_writer *w) {
    int error = pthread_mutex_init(&w->lock, NULL);
    if (error == 0) {
        error = as_cond_init(&w->wake);
    }
    return error == 0 ? as_cond_init(&w->done) : error;
}

/* 0 or an errno. */
static int start_thread(as_log_writer *w) {
    int error = as_thread_start(&w->thread, STACK, run, w);
    w->pid = error == 0 ? getpid() : 0;
    return error;
}

as_log_writer *as_log_writer_new(int fd) {
    as_log_writer *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        return NULL;
    }
    int error = init_lock(w);
    w->fd = error == 0 ? fcntl(fd, F_DUPFD_CLOEXEC, 3) : -1;
    if (w->fd < 0) {
        errno = error != 0 ? error : errno;
        free(w);
        return NULL;
    }
    return w;
}

void as_log_writer_put(as_log_writer *w, as_buf *lines) {
    int error = w->pid == 0 ? start_thread(w) : 0;
    (void)pthread_mutex_lock(&w->lock);
    if (error != 0) {
        drop(w, count_lines(all_of(lines)), error);
    } else if (w->waiting.len == 0) {
        as_buf before = w->waiting;
        w->waiting = *lines;
        *lines = before;
    } else if (w->waiting.len + lines->len > AS_LOG_WAITING ||
               as_buf_append(&w->waiting, NULL, lines->data, lines->len) != AS_OK) {
        drop(w, count_lines(all_of(lines)), 0);
    }
    if (w->asleep) {
        w->asleep = false;
        (void)pthread_cond_signal(&w->wake);
    }
    (void)pthread_mutex_unlock(&w->lock);
    empty(lines);
}

int as_log_writer_reopen(as_log_writer *w, int fd) {
    return dup3(fd, w->fd, O_CLOEXEC) < 0 ? -1 : 0;
}

bool as_log_writer_has_trouble(const as_log_writer *w) {
    return atomic_load_explicit(&w->tell, memory_order_relaxed);
}

void as_log_writer_take_trouble(as_log_writer *w, as_log_trouble *trouble) {
    (void)pthread_mutex_lock(&w->lock);
    atomic_store_explicit(&w->tell, false, memory_order_relaxed);
    *trouble = (as_log_trouble){w->dropped, w->error, w->over};
    if (w->over) {
        w->dropped = 0;
        w->error = 0;
        w->failing = w->over = false;
    }
    (void)pthread_mutex_unlock(&w->lock);
}

/* With the lock. In parts: a process that stands still for longer than all of them has lost only
 * one when it goes on, and the thread has the others. */
static void await_end(as_log_writer *w, unsigned wait) {
    while (!w->ended && wait > 0) {
        unsigned part = wait < WAIT_PART ? wait : WAIT_PART;
        struct timespec end = as_moment_in(part);
        while (!w->ended && pthread_cond_timedwait(&w->done, &w->lock, &end) != ETIMEDOUT) {
        }
        wait -= part;
    }
}

uint64_t as_log_writer_free(as_log_writer *w, unsigned wait) {
    if (w == NULL) {
        return 0;
    }
    if (w->pid == 0 || w->pid != getpid()) {
        /* No thread; or it is the parent process's, as is what it has not written yet. Its lock may
         * be held for ever here. */
        uint64_t lost = w->pid == 0 ? w->dropped : 0;
        as_buf_fini(&w->waiting, NULL);
        (void)close(w->fd);
        free(w);
        return lost;
    }
    (void)pthread_mutex_lock(&w->lock);
    w->closing = true;
    (void)pthread_cond_signal(&w->wake);
    await_end(w, wait);
    bool ended = w->ended;
    w->abandoned = !ended;
    uint64_t lost = w->dropped;
    if (!ended) {
        lost += count_lines(w->writing) + count_lines(all_of(&w->waiting));
    }
    pthread_t thread = w->thread;
    (void)pthread_mutex_unlock(&w->lock);
    if (ended) {
        (void)pthread_join(thread, NULL);
        dispose(w);
    } else {
        (void)pthread_detach(thread);
    }
    return lost;
}

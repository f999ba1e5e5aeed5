/* Makes calls of libc fail, in a process that has this preloaded (LD_PRELOAD), as a file that it
 * shares with a test says (FAULTS; tests/support/faults.py writes it). For tests alone.
 *
 * A rule concerns one kind of call: every Nth of those that it is about fails with an errno, or
 * moves no more than a few bytes; `left` times in all. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* In the order of faults.py. */
enum { ACCEPT, RECV, SEND, SENDFILE, PREAD, WRITE, OPEN, BIND, WAIT, ALLOCATE, CALLS };

typedef struct rule {
    _Atomic int32_t every; /* 0: none fails */
    int32_t error;         /* errno; 0: `most` alone */
    int32_t most;          /* bytes that the call moves, 0: as many as it would */
    _Atomic int32_t left;  /* times */
    _Atomic uint32_t seen, failed;
} rule;

typedef struct shared {
    rule rules[CALLS];
    _Atomic int64_t realtime; /* seconds that CLOCK_REALTIME is off by */
} shared;

static shared *faults;

/* Between a client's bytes that came and what is sent to it, on this thread, at most until it
 * waits: allocations are the core's, or of what it called. */
static _Thread_local bool working;
/* Once faults_poll was called: no others than those within count. */
static _Thread_local enum { ANYWHERE, WITHIN, OUTSIDE } place;

__attribute__((constructor)) static void map(void) {
    const char *path = getenv("FAULTS");
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd >= 0) {
        void *at = mmap(NULL, sizeof(shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        faults = at != MAP_FAILED ? at : NULL;
        (void)close(fd);
    }
}

/* The rule that this call is to follow, or NULL. */
static const rule *strikes(int call) {
    rule *r = faults != NULL ? &faults->rules[call] : NULL;
    int32_t every = r != NULL ? r->every : 0;
    if (every == 0 || ++r->seen % (uint32_t)every != 0) {
        return NULL;
    }
    if (r->left-- <= 0) {
        r->left = 0;
        return NULL;
    }
    r->failed++;
    return r;
}

static bool fails(const rule *r) {
    if (r != NULL && r->error != 0) {
        errno = r->error;
        return true;
    }
    return false;
}

static size_t at_most(const rule *r, size_t n) {
    return r != NULL && r->most > 0 && (size_t)r->most < n ? (size_t)r->most : n;
}

static bool is_client(int fd) {
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    return getpeername(fd, (struct sockaddr *)&address, &len) == 0 && address.ss_family == AF_INET;
}

static bool is_file(int fd) {
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

#define NEXT(name) ((__typeof__(&(name)))next(#name, &name##_next))

static void *next(const char *name, void **found) {
    if (*found == NULL) {
        *found = dlsym(RTLD_NEXT, name);
    }
    return *found;
}

#define DECLARE(name) static void *name##_next
DECLARE(accept4);
DECLARE(recv);
DECLARE(send);
DECLARE(sendmsg);
DECLARE(sendfile64);
DECLARE(pread64);
DECLARE(write);
DECLARE(open64);
DECLARE(mkostemp64);
DECLARE(bind);
DECLARE(epoll_wait);
DECLARE(epoll_pwait);
DECLARE(clock_gettime);

/* --- sockets ---------------------------------------------------------------------------------- */

/* EINTR and ECONNABORTED are of a client that is gone; all other errors leave it in the queue. */
int accept4(int fd, struct sockaddr *address, socklen_t *len, int flags) {
    const rule *r = strikes(ACCEPT);
    if (r != NULL && r->error == ECONNABORTED) {
        int gone = NEXT(accept4)(fd, address, len, flags);
        if (gone < 0) {
            return gone;
        }
        (void)close(gone);
    }
    return fails(r) ? -1 : NEXT(accept4)(fd, address, len, flags);
}

ssize_t recv(int fd, void *buf, size_t n, int flags) {
    const rule *r = is_client(fd) ? strikes(RECV) : NULL;
    if (fails(r)) {
        return -1;
    }
    ssize_t got = NEXT(recv)(fd, buf, at_most(r, n), flags);
    working = got > 0;
    return got;
}

ssize_t send(int fd, const void *buf, size_t n, int flags) {
    working = false;
    const rule *r = is_client(fd) ? strikes(SEND) : NULL;
    return fails(r) ? -1 : NEXT(send)(fd, buf, at_most(r, n), flags);
}

ssize_t sendmsg(int fd, const struct msghdr *msg, int flags) {
    working = false;
    const rule *r = is_client(fd) ? strikes(SEND) : NULL;
    if (fails(r)) {
        return -1;
    }
    if (r != NULL && msg->msg_iovlen > 0) {
        size_t n = at_most(r, msg->msg_iov[0].iov_len);
        return NEXT(send)(fd, msg->msg_iov[0].iov_base, n, flags);
    }
    return NEXT(sendmsg)(fd, msg, flags);
}

ssize_t sendfile64(int out, int in, off64_t *off, size_t n) {
    const rule *r = strikes(SENDFILE);
    return fails(r) ? -1 : NEXT(sendfile64)(out, in, off, at_most(r, n));
}

/* --- files ------------------------------------------------------------------------------------ */

ssize_t pread64(int fd, void *buf, size_t n, off64_t off) {
    const rule *r = is_file(fd) ? strikes(PREAD) : NULL;
    return fails(r) ? -1 : NEXT(pread64)(fd, buf, at_most(r, n), off);
}

ssize_t write(int fd, const void *buf, size_t n) {
    bool concerned = faults != NULL && faults->rules[WRITE].every != 0 && is_file(fd);
    const rule *r = concerned ? strikes(WRITE) : NULL;
    return fails(r) ? -1 : NEXT(write)(fd, buf, at_most(r, n));
}

/* What only this process makes, or appends to. */
int open64(const char *path, int flags, ...) {
    va_list more;
    va_start(more, flags);
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(more, mode_t) : 0;
    va_end(more);
    const rule *r = (flags & (O_EXCL | O_APPEND)) != 0 ? strikes(OPEN) : NULL;
    return fails(r) ? -1 : NEXT(open64)(path, flags, mode);
}

int mkostemp64(char *template, int flags) {
    return fails(strikes(OPEN)) ? -1 : NEXT(mkostemp64)(template, flags);
}

/* A Unix socket is a file, too. */
int bind(int fd, const struct sockaddr *address, socklen_t len) {
    const rule *r = address->sa_family == AF_UNIX ? strikes(BIND) : NULL;
    return fails(r) ? -1 : NEXT(bind)(fd, address, len);
}

/* --- waiting and clocks ----------------------------------------------------------------------- */

int epoll_wait(int fd, struct epoll_event *events, int most, int timeout) {
    working = false;
    return fails(strikes(WAIT)) ? -1 : NEXT(epoll_wait)(fd, events, most, timeout);
}

int epoll_pwait(int fd, struct epoll_event *events, int most, int timeout, const sigset_t *mask) {
    working = false;
    return fails(strikes(WAIT)) ? -1 : NEXT(epoll_pwait)(fd, events, most, timeout, mask);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = NEXT(clock_gettime)(clock, now);
    if (faults != NULL && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        now->tv_sec += faults->realtime;
    }
    return result;
}

time_t time(time_t *at) {
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    if (at != NULL) {
        *at = now.tv_sec;
    }
    return now.tv_sec;
}

/* --- memory ----------------------------------------------------------------------------------- */

/* glibc's own names: dlsym would allocate. */
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);

/* Calls a callable of Python's without arguments: the core's poll. asyncio, which goes on behind
 * it, has its memory. */
void *faults_poll(void *callable);

void *faults_poll(void *callable) {
    static void *call;
    if (call == NULL) {
        call = dlsym(RTLD_DEFAULT, "PyObject_CallNoArgs");
    }
    place = WITHIN;
    void *result = ((void *(*)(void *))call)(callable);
    place = OUTSIDE;
    return result;
}

static bool is_scarce(void) {
    return working && place != OUTSIDE && strikes(ALLOCATE) != NULL;
}

void *malloc(size_t n) {
    return is_scarce() ? NULL : __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
    return is_scarce() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    return is_scarce() ? NULL : __libc_realloc(p, n);
}

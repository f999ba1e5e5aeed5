/* The writer of log lines: it never makes its caller wait, and loses only what it counts. */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "gateway/log_writer.h"

#define LONG_WAIT 20000u /* milliseconds: for what must happen */

static void put(as_log_writer *w, const char *text) {
    as_buf lines = {0};
    assert(as_buf_append(&lines, NULL, text, strlen(text)) == AS_OK);
    as_log_writer_put(w, &lines);
    assert(lines.len == 0);
    as_buf_fini(&lines, NULL);
}

static uint64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* A file that is gone when it is closed; its name for opening it again. */
static int temporary(char name[64]) {
    snprintf(name, 64, "/tmp/test_log_writer.XXXXXX");
    int fd = mkstemp(name);
    assert(fd >= 0 && fcntl(fd, F_SETFL, O_APPEND) == 0);
    return fd;
}

static void check_file(const char *name, const char *expected) {
    char got[256] = {0};
    int fd = open(name, O_RDONLY);
    assert(fd >= 0 && read(fd, got, sizeof(got) - 1) >= 0);
    if (strcmp(got, expected) != 0) {
        fprintf(stderr, "%s, expected %s\n", got, expected);
        abort();
    }
    close(fd);
}

static as_log_trouble await_trouble(as_log_writer *w) {
    as_log_trouble trouble;
    uint64_t end = now_ms() + LONG_WAIT;
    while (!as_log_writer_has_trouble(w)) {
        assert(now_ms() < end);
        usleep(1000);
    }
    as_log_writer_take_trouble(w, &trouble);
    assert(!as_log_writer_has_trouble(w));
    return trouble;
}

/* What was put is there when it is freed, in order; the descriptor stays the caller's. */
static void test_file(void) {
    char name[64];
    int fd = temporary(name);
    as_log_writer *w = as_log_writer_new(fd);
    assert(w != NULL);
    put(w, "one\n");
    put(w, "two\nthree\n");
    assert(as_log_writer_free(w, LONG_WAIT) == 0);
    check_file(name, "one\ntwo\nthree\n");
    assert(write(fd, "", 0) == 0);
    close(fd);
    unlink(name);
}

static void test_never_used(void) {
    as_log_writer *w = as_log_writer_new(1);
    assert(w != NULL);
    assert(as_log_writer_free(w, 0) == 0);
    assert(as_log_writer_new(12345) == NULL && errno == EBADF);
    assert(as_log_writer_free(NULL, 0) == 0);
}

static void test_reopen(void) {
    char first[64], second[64];
    int fd = temporary(first), next = temporary(second);
    as_log_writer *w = as_log_writer_new(fd);
    assert(as_log_writer_reopen(w, next) == 0); /* before there is a thread */
    assert(as_log_writer_reopen(w, fd) == 0);
    put(w, "old\n");
    uint64_t end = now_ms() + LONG_WAIT;
    while (lseek(fd, 0, SEEK_END) == 0) {
        assert(now_ms() < end);
        usleep(1000);
    }
    assert(as_log_writer_reopen(w, next) == 0);
    put(w, "new\n");
    assert(as_log_writer_reopen(w, 12345) == -1 && errno == EBADF);
    assert(as_log_writer_free(w, LONG_WAIT) == 0);
    check_file(first, "old\n");
    check_file(second, "new\n");
    close(fd);
    close(next);
    unlink(first);
    unlink(second);
}

/* Lines of one length, so that a torn or mixed one is seen. */
static void fill(char *line, size_t n, char c) {
    memset(line, c, n);
    line[n - 1] = '\n';
    line[n] = 0;
}

static size_t read_lines(int fd, size_t width) {
    static char data[4 * 1024 * 1024];
    size_t n = 0;
    ssize_t got;
    while ((got = read(fd, data + n, sizeof(data) - n)) > 0) {
        n += (size_t)got;
    }
    assert(n % width == 0);
    for (size_t i = 0; i < n; i += width) {
        assert(data[i + width - 1] == '\n' && memchr(data + i, '\n', width - 1) == NULL);
    }
    return n / width;
}

/* Nobody reads: nothing waits, what does not fit is counted; later, all that was kept comes. */
static void test_pipe_that_nobody_reads(bool nonblocking) {
    char line[1001];
    int fds[2];
    assert(pipe(fds) == 0);
    if (nonblocking) {
        assert(fcntl(fds[1], F_SETFL, O_NONBLOCK) == 0);
    }
    as_log_writer *w = as_log_writer_new(fds[1]);
    close(fds[1]);
    fill(line, 1000, 'x');
    uint64_t start = now_ms();
    for (int i = 0; i < 4000; i++) {
        put(w, line);
    }
    assert(now_ms() - start < LONG_WAIT);
    pid_t child = fork();
    assert(child >= 0);
    if (child == 0) {
        /* A child inherits no thread: it frees without waiting, and writes nothing. */
        assert(as_log_writer_free(w, LONG_WAIT) == 0);
        _exit(0);
    }
    int status;
    assert(waitpid(child, &status, 0) == child && status == 0);
    /* The reader begins: trouble ends when all that waited is written. */
    size_t lines = 0;
    char data[1000];
    as_log_trouble trouble;
    uint64_t end = now_ms() + LONG_WAIT;
    assert(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0);
    while (!as_log_writer_has_trouble(w)) {
        assert(now_ms() < end);
        ssize_t n = read(fds[0], data, sizeof(data));
        assert(n == (ssize_t)sizeof(data) || (n < 0 && errno == EAGAIN));
        lines += n > 0;
    }
    as_log_writer_take_trouble(w, &trouble);
    assert(trouble.over && trouble.error == 0 && trouble.dropped > 0);
    lines += read_lines(fds[0], 1000); /* up to here: there is room again */
    put(w, line);
    assert(as_log_writer_free(w, LONG_WAIT) == 0);
    lines += read_lines(fds[0], 1000);
    assert(lines + trouble.dropped == 4001);
    assert(lines >= AS_LOG_WAITING / 1000);
    close(fds[0]);
}

/* Freed while nobody reads: that takes no longer than asked for, and the loss is told. */
static void test_free_of_a_stuck_writer(void) {
    char line[1001];
    int fds[2];
    assert(pipe(fds) == 0);
    as_log_writer *w = as_log_writer_new(fds[1]);
    fill(line, 1000, 'x');
    for (int i = 0; i < 200; i++) {
        put(w, line);
    }
    uint64_t start = now_ms();
    struct pollfd room = {.fd = fds[1], .events = POLLOUT};
    while (poll(&room, 1, 0) == 1) { /* the thread has nothing in hand when the pipe is full */
        assert(now_ms() - start < LONG_WAIT);
        usleep(1000);
    }
    close(fds[1]);
    uint64_t lost = as_log_writer_free(w, 50);
    assert(now_ms() - start < 2 * LONG_WAIT);
    /* The thread lets go of the pipe by itself; then this reads to the end. */
    assert(read_lines(fds[0], 1000) + lost == 200 && lost > 0);
    close(fds[0]);
}

static char state_of(pid_t pid) {
    char name[64], text[256] = {0};
    snprintf(name, sizeof(name), "/proc/%d/stat", (int)pid);
    int fd = open(name, O_RDONLY);
    assert(fd >= 0 && read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    return strrchr(text, ')')[2];
}

/* The time in which a process stands still is not its thread's. */
static void test_free_in_a_process_that_stands_still(void) {
    enum { WAIT = 3000 };
    char line[1001];
    int fds[2];
    assert(pipe(fds) == 0);
    fill(line, 1000, 'x');
    pid_t pid = fork();
    assert(pid >= 0);
    if (pid == 0) {
        as_log_writer *w = as_log_writer_new(fds[1]);
        close(fds[0]);
        close(fds[1]);
        for (int i = 0; i < 200; i++) {
            put(w, line);
        }
        _exit((int)as_log_writer_free(w, WAIT));
    }
    close(fds[1]);
    struct pollfd written = {.fd = fds[0], .events = POLLIN};
    assert(poll(&written, 1, LONG_WAIT) == 1);
    while (state_of(pid) != 'S') { /* it waits for its thread, which waits for a reader */
        usleep(1000);
    }
    assert(kill(pid, SIGSTOP) == 0);
    usleep((WAIT + 300) * 1000);
    assert(kill(pid, SIGCONT) == 0);
    uint64_t read = read_lines(fds[0], 1000);
    int status;
    assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert(read == 200);
    close(fds[0]);
}

static void test_reader_that_left(void) {
    int fds[2];
    assert(pipe(fds) == 0);
    as_log_writer *w = as_log_writer_new(fds[1]);
    close(fds[1]);
    close(fds[0]);
    put(w, "one\ntwo\n");
    as_log_trouble trouble = await_trouble(w);
    assert(!trouble.over && trouble.error == EPIPE);
    put(w, "three\n");
    assert(as_log_writer_free(w, LONG_WAIT) == 3);
}

/* A full disk: told once, counted, and over when there is room. */
static void test_full_disk(void) {
    char name[64];
    int full = open("/dev/full", O_WRONLY), fd = temporary(name);
    if (full < 0) {
        return; /* a system without it */
    }
    as_log_writer *w = as_log_writer_new(full);
    put(w, "one\ntwo\n");
    as_log_trouble trouble = await_trouble(w);
    assert(!trouble.over && trouble.error == ENOSPC && trouble.dropped == 2);
    put(w, "three\n");
    uint64_t end = now_ms() + LONG_WAIT;
    while (trouble.dropped < 3) { /* it fails, too, and that is not told again */
        usleep(1000);
        assert(now_ms() < end && !as_log_writer_has_trouble(w));
        as_log_writer_take_trouble(w, &trouble);
    }
    assert(!as_log_writer_has_trouble(w));
    assert(as_log_writer_reopen(w, fd) == 0);
    put(w, "four\n");
    trouble = await_trouble(w);
    assert(trouble.over && trouble.error == ENOSPC);
    assert(as_log_writer_free(w, LONG_WAIT) == 0);
    assert(trouble.dropped == 3);
    check_file(name, "four\n");
    close(full);
    close(fd);
    unlink(name);
}

int main(void) {
    assert(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
    test_file();
    test_never_used();
    test_reopen();
    test_pipe_that_nobody_reads(false);
    test_pipe_that_nobody_reads(true);
    test_free_of_a_stuck_writer();
    test_free_in_a_process_that_stands_still();
    test_reader_that_left();
    test_full_disk();
    return 0;
}

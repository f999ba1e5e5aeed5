/* Bytes that are to leave later: each of them once, in order, soon enough, whoever writes them. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "net/late.h"

#define SLOTS 64u

/* The transport writes to [0]; the client is [1]. */
static as_transport connect_pair(int fds[2]) {
    as_transport transport;
    assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    as_tcp_transport_init(&transport, fds[0]);
    return transport;
}

static void close_pair(const int fds[2]) {
    assert(close(fds[0]) == 0);
    assert(close(fds[1]) == 0);
}

static unsigned put(as_late *late, const as_transport *transport, const char *text, void *owner) {
    as_buf buf = {0};
    assert(as_buf_append(&buf, NULL, text, strlen(text)) == AS_OK);
    unsigned slot = as__late_put(late, transport, &buf, 0, owner);
    assert(slot == 0 || buf.data == NULL);
    as_buf_fini(&buf, NULL);
    return slot;
}

/* What as__late_take says of a slot, whose buffer must be `text`. */
static ssize_t take(as_late *late, unsigned slot, const char *text) {
    as_buf buf;
    size_t off;
    ssize_t result = as__late_take(late, slot, &buf, &off);
    assert(off == 0 && buf.len == strlen(text) && memcmp(buf.data, text, buf.len) == 0);
    as_buf_fini(&buf, NULL);
    return result;
}

static bool is_readable(int fd, int ms) {
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    return poll(&pfd, 1, ms) == 1;
}

static void nap(long microseconds) {
    struct timespec time = {.tv_nsec = microseconds * 1000};
    (void)nanosleep(&time, NULL);
}

static void test_taken_back_before_the_thread_looks(void) {
    int fds[2];
    as_transport transport = connect_pair(fds);
    as_late *late = as__late_new();
    assert(!as__late_any(late));
    unsigned slot = put(late, &transport, "answer", fds);
    assert(slot == 1 && as__late_any(late));
    assert(take(late, slot, "answer") == 0);
    assert(!as__late_any(late));
    assert(!is_readable(fds[1], 0));
    as__late_free(late, NULL);
    close_pair(fds);
}

static void test_the_thread_writes(void) {
    int fds[2];
    char got[16];
    as_transport transport = connect_pair(fds);
    as_late *late = as__late_new();
    for (int i = 0; i < 3; i++) { /* the third time it has fallen asleep before */
        unsigned slot = put(late, &transport, "answer", fds);
        assert(as__late_guard(late));
        assert(is_readable(fds[1], 10000));
        assert(read(fds[1], got, sizeof(got)) == 6 && memcmp(got, "answer", 6) == 0);
        assert(take(late, slot, "answer") == 6);
        if (i == 1) {
            nap(200000);
        }
    }
    as__late_free(late, NULL);
    close_pair(fds);
}

static bool no_threads;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *arg) {
    return no_threads ? EAGAIN : __real_pthread_create(thread, attributes, run, arg);
}

/* Then nobody may count on it, not later either. */
static void test_no_thread_can_be_made(void) {
    as_late *late = as__late_new();
    no_threads = true;
    assert(!as__late_guard(late));
    assert(!as__late_guard(late));
    no_threads = false;
    as__late_free(late, NULL);
}

/* What the thread hears of the kernel. */
static ssize_t result_of_thread(const as_transport *transport) {
    as_late *late = as__late_new();
    ssize_t result = 0;
    for (int i = 0; i < 1000 && result == 0; i++) {
        unsigned slot = put(late, transport, "answer", late);
        assert(as__late_guard(late));
        nap(10000);
        result = take(late, slot, "answer");
    }
    as__late_free(late, NULL);
    return result;
}

static void test_the_client_has_left(void) {
    int fds[2];
    as_transport transport = connect_pair(fds);
    assert(close(fds[1]) == 0);
    assert(result_of_thread(&transport) == AS_E_RESET);
    assert(close(fds[0]) == 0);
}

static void test_no_socket(void) {
    as_transport transport;
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert(fd >= 0);
    as_tcp_transport_init(&transport, fd);
    assert(result_of_thread(&transport) == AS_E_IO);
    assert(close(fd) == 0);
}

static void test_slots(void) {
    int fds[2], owners[SLOTS];
    unsigned slots[SLOTS], at = 0;
    as_transport transport = connect_pair(fds);
    as_late *late = as__late_new();
    for (unsigned i = 0; i < SLOTS; i++) {
        slots[i] = put(late, &transport, "x", &owners[i]);
        assert(slots[i] == i + 1);
    }
    assert(as__late_is_due(late));
    assert(put(late, &transport, "x", fds) == 0); /* full */
    assert(take(late, slots[7], "x") == 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        if (i != 7) {
            assert(as__late_next(late, &at) == &owners[i]);
        }
    }
    assert(as__late_next(late, &at) == NULL);
    for (unsigned i = SLOTS; i-- > 8;) {
        assert(take(late, slots[i], "x") == 0);
    }
    assert(put(late, &transport, "x", fds) == 8); /* those at the end are free again */
    as__late_free(late, NULL);                    /* drops the others */
    close_pair(fds);
}

static void test_due_by_time(void) {
    int fds[2];
    as_transport transport = connect_pair(fds);
    as_late *late = as__late_new();
    bool due = false;
    for (unsigned i = 0; i < 16 && !due; i++) {
        (void)put(late, &transport, "x", fds);
        due = as__late_is_due(late);
        assert(!due || i > 3);
        nap(1000);
    }
    assert(due);
    as__late_free(late, NULL);
    close_pair(fds);
}

static ssize_t write_slowly(as_transport *transport, const struct iovec *vec, int nvec) {
    nap(3000);
    return writev(transport->fd, vec, nvec);
}

/* The thread and the owner meet at every point: what one has not written the other writes. */
static void test_each_byte_once(void) {
    int fds[2];
    as_transport transport = connect_pair(fds);
    as_transport_ops slow = *transport.ops;
    slow.writev = write_slowly;
    transport.ops = &slow;
    as_late *late = as__late_new();
    char text[24], got[24];
    for (unsigned i = 0; i < 500; i++) {
        (void)snprintf(text, sizeof(text), "answer %u", i);
        unsigned slot = put(late, &transport, text, fds);
        assert(as__late_guard(late));
        nap(i % 64 == 0 ? 50000 : (long)(i * 37 % 8000));
        ssize_t sent = take(late, slot, text);
        if (sent == 0) {
            assert(write(fds[0], text, strlen(text)) == (ssize_t)strlen(text));
        }
        assert(sent == 0 || sent == (ssize_t)strlen(text));
        assert(read(fds[1], got, sizeof(got)) == (ssize_t)strlen(text));
        assert(memcmp(got, text, strlen(text)) == 0);
        assert(!is_readable(fds[1], 0));
    }
    as__late_free(late, NULL);
    close_pair(fds);
}

static void test_a_forked_child_has_no_thread(void) {
    int fds[2], status;
    as_transport transport = connect_pair(fds);
    as_late *late = as__late_new();
    (void)put(late, &transport, "answer", fds);
    assert(as__late_guard(late));
    pid_t child = fork();
    if (child == 0) {
        as__late_free(late, NULL);
        _exit(0);
    }
    assert(waitpid(child, &status, 0) == child && status == 0);
    as__late_free(late, NULL);
    close_pair(fds);
}

int main(void) {
    test_taken_back_before_the_thread_looks();
    test_the_thread_writes();
    test_no_thread_can_be_made();
    test_the_client_has_left();
    test_no_socket();
    test_slots();
    test_due_by_time();
    test_each_byte_once();
    test_a_forked_child_has_no_thread();
    return 0;
}

/* The bridge: a loop on a thread of its own, hands that answer, and real sockets. What the hands do
 * is asked for by the target of a request. */
#include "sockets.h"

#include <netinet/tcp.h>
#include <stdatomic.h>
#include <stdio.h>

#include "net/bridge.h"

#define HIGH ((size_t)64 * 1024)
#define LARGE ((size_t)2 * 1024 * 1024)
#define HANDS_MAX 8

typedef struct loan {
    atomic_int held;
} loan;

typedef struct server {
    as_loop *loop;
    as_bridge *bridge;
    as_spools spools;
    int fd;
    struct sockaddr_in address;
    unsigned nhands;
    pthread_t loop_thread, hands[HANDS_MAX];
    char *large;
    loan loan;
    atomic_uint answered, released, left; /* left: hands that saw their client leave */
    atomic_bool held, let_go;
    pthread_barrier_t meeting; /* of all hands */
} server;

static void nap(void) {
    (void)poll(NULL, 0, 1);
}

#define WAIT_FOR(condition)                                                                            \
    for (int waited = 0; !(condition); waited++) {                                                     \
        assert(waited < PATIENCE);                                                                     \
        nap();                                                                                         \
    }

/* --- hands ------------------------------------------------------------------------------------ */

static void hold(void *owner) {
    atomic_fetch_add(&((loan *)owner)->held, 1);
}

static void drop(void *owner) {
    atomic_fetch_sub(&((loan *)owner)->held, 1);
}

static as_err give(as_exchange *ex, const char *p, size_t n, bool more) {
    return as_exchange_body(ex, (as_bytes){.p = p, .n = n}, more);
}

static void begin(as_exchange *ex, unsigned status) {
    (void)as_exchange_head_begin(ex, status, AS_SLICE(""));
    (void)as_exchange_head_field(ex, AS_SLICE("x-y"), AS_SLICE("z"));
}

static void answer_file(server *s, as_exchange *ex) {
    char path[] = "/tmp/test_bridge_XXXXXX";
    int fd = mkstemp(path);
    assert(fd >= 0 && unlink(path) == 0 && write(fd, s->large, HIGH) == (ssize_t)HIGH);
    begin(ex, 200);
    assert(as_exchange_file(ex, fd, 1, HIGH - 1, false) == AS_OK);
}

/* More than a client takes at a time, until it is enough or nobody takes it. */
static void answer_stream(server *s, as_remote *remote, unsigned pieces) {
    as_exchange *ex = &remote->ex;
    begin(ex, 200);
    for (unsigned i = 0; i < pieces; i++) {
        as_bytes piece = {s->large, HIGH, &s->loan, hold, drop};
        as_err err = as_exchange_body(ex, piece, true);
        if (err == AS_OK) {
            err = as_exchange_flush(ex);
        }
        as_remote_wait(remote);
        if (err != AS_OK || as_exchange_flush(ex) != AS_OK) {
            atomic_fetch_add(&s->left, 1);
            return;
        }
    }
    assert(give(ex, "", 0, false) == AS_OK);
}

/* What an exchange refuses, it refuses here as well. */
static void answer_wrongly(as_exchange *ex) {
    assert(give(ex, "x", 1, true) == AS_E_RESPONSE_STATE);
    assert(as_exchange_head_begin(ex, 99, AS_SLICE("")) == AS_E_RESPONSE_STATUS);
    begin(ex, 500);
    assert(as_exchange_head_field(ex, AS_SLICE("a b"), AS_SLICE("")) == AS_E_RESPONSE_NAME);
    assert(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("\n")) == AS_E_RESPONSE_VALUE);
    as_exchange_head_abandon(ex);
    begin(ex, 201);
    assert(as_exchange_head_field(ex, AS_SLICE("content-length"), AS_SLICE("4")) == AS_OK);
    assert(give(ex, "12345", 5, false) == AS_E_RESPONSE_LONG);
    assert(give(ex, "123", 3, false) == AS_E_RESPONSE_SHORT);
    assert(give(ex, "12", 2, true) == AS_OK && give(ex, "3", 1, true) == AS_OK);
    assert(give(ex, "4", 1, false) == AS_OK);
    assert(give(ex, "5", 1, false) == AS_E_RESPONSE_STATE);
}

static void answer(server *s, as_remote *remote) {
    as_exchange *ex = &remote->ex;
    as_slice target = as_head_slice(ex->head, ex->head->target);
    char name = target.p[1];
    if (name == 'l') { /* large */
        begin(ex, 200);
        as_bytes body = {s->large, LARGE, &s->loan, hold, drop};
        assert(as_exchange_body(ex, body, false) <= AS_OK);
    } else if (name == 'f') {
        answer_file(s, ex);
    } else if (name == 's') {
        answer_stream(s, remote, 20);
    } else if (name == 'e') { /* endless */
        answer_stream(s, remote, UINT32_MAX);
    } else if (name == 'w') {
        answer_wrongly(ex);
    } else if (name == 'c') { /* cut */
        begin(ex, 200);
        assert(give(ex, "half", 4, true) == AS_OK);
    } else if (name == 'h') { /* held */
        atomic_store(&s->held, true);
        WAIT_FOR(atomic_load(&s->let_go));
        begin(ex, 200);
        (void)give(ex, "late", 4, false);
    } else if (name == 'm') { /* meet */
        (void)pthread_barrier_wait(&s->meeting);
        begin(ex, 200);
        (void)give(ex, "met", 3, false);
    } else if (name == 'k') { /* kept in a file */
        assert(remote->body.file.fd >= 0 && remote->body.size == LARGE);
        begin(ex, 200);
        assert(give(ex, "kept", 4, false) <= AS_OK);
    } else { /* the body */
        assert(remote->body.file.fd < 0);
        begin(ex, 200);
        assert(give(ex, remote->body.memory.data, (size_t)remote->body.size, false) <= AS_OK);
    }
    atomic_fetch_add(&s->answered, 1);
    as_exchange_release(ex);
}

static void *run_hand(void *arg) {
    server *s = arg;
    as_hand hand;
    assert(as_hand_init(&hand) == AS_OK);
    bool going = true;
    while (going) {
        as_remote *remote = as_bridge_take(s->bridge, &hand);
        as_bridge_collect(s->bridge);
        if (remote != NULL) {
            answer(s, remote);
        } else {
            going = as_bridge_wait(s->bridge, &hand);
        }
    }
    as_hand_fini(&hand);
    return NULL;
}

/* --- the loop's thread ------------------------------------------------------------------------ */

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    server *s = ctx;
    as_remote *remote = as_remote_new(s->bridge, ex, &s->spools);
    assert(remote != NULL && as_spool_append(&remote->body, body) == AS_OK);
    if (ex->req == AS_REQ_DONE) {
        as_remote_queue(remote);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    (void)ctx;
    assert(as_spool_append(&((as_remote *)ex->gateway)->body, data) == AS_OK);
}

static void on_end(void *ctx, as_exchange *ex) {
    (void)ctx;
    as_remote_queue(ex->gateway);
}

static void on_eof(void *ctx, as_exchange *ex) {
    (void)ctx;
    (void)ex;
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    (void)ctx;
    (void)why;
    as_remote_abort(ex->gateway);
}

static void on_drain(void *ctx, as_exchange *ex) {
    (void)ctx;
    as_remote_drained(ex->gateway);
}

static const as_handlers handlers = {
    .on_request = on_request,
    .on_body = on_body,
    .on_end = on_end,
    .on_eof = on_eof,
    .on_abort = on_abort,
    .on_drain = on_drain,
};

static void released(void *ctx, const as_exchange *ex) {
    assert(ex->head != NULL);
    atomic_fetch_add(&((server *)ctx)->released, 1);
}

static bool before_wait(void *ctx) {
    as_bridge_before_wait(((server *)ctx)->bridge);
    return true;
}

static bool after_wait(void *ctx) {
    as_bridge_after_wait(((server *)ctx)->bridge);
    return true;
}

static void *run_loop(void *arg) {
    server *s = arg;
    as_loop_run(s->loop, before_wait, after_wait, -1);
    as_bridge_end(s->bridge);
    return NULL;
}

/* --- starting and stopping -------------------------------------------------------------------- */

static server *start(unsigned nhands) {
    server *s = calloc(1, sizeof(*s));
    s->large = malloc(LARGE);
    memset(s->large, 'x', LARGE);
    as_loop_config config = {.handlers = &handlers, .ctx = s};
    as_limits_init(&config.limits);
    config.limits.limit_write_buffer = (uint32_t)HIGH;
    s->spools.memory_max = HIGH;
    atomic_store(&s->spools.refs, 1);
    s->fd = listen_on_loopback(&s->address, 64);
    s->loop = loop_on(s->fd, &config, NULL);
    s->bridge = as_bridge_new(HIGH, released, s);
    assert(s->bridge != NULL);
    as_bridge_open(s->bridge, s->loop);
    assert(pthread_create(&s->loop_thread, NULL, run_loop, s) == 0);
    s->nhands = nhands;
    assert(pthread_barrier_init(&s->meeting, NULL, nhands) == 0);
    for (unsigned i = 0; i < nhands; i++) {
        assert(pthread_create(&s->hands[i], NULL, run_hand, s) == 0);
    }
    return s;
}

static void cut_and_stop(void *loop) {
    (void)as_loop_abort_all(loop);
    as_loop_stop(loop);
}

static void free_loop(server *s) {
    as_loop_free(s->loop);
    as_bridge_close(s->bridge);
}

/* `early`: the loop is freed while hands still answer. */
static void stop(server *s, bool early) {
    assert(as_bridge_call(s->bridge, cut_and_stop, s->loop));
    assert(pthread_join(s->loop_thread, NULL) == 0);
    assert(!as_bridge_call(s->bridge, cut_and_stop, s->loop));
    if (early) {
        free_loop(s);
    }
    atomic_store(&s->let_go, true);
    as_bridge_dismiss(s->bridge);
    for (unsigned i = 0; i < s->nhands; i++) {
        assert(pthread_join(s->hands[i], NULL) == 0);
    }
    if (!early) {
        free_loop(s);
    }
    as_bridge_collect(s->bridge);
    assert(atomic_load(&s->loan.held) == 0);
    as_bridge_free(s->bridge);
    assert(atomic_load(&s->spools.filled) == 0 && atomic_load(&s->spools.refs) == 1);
    (void)pthread_barrier_destroy(&s->meeting);
    (void)close(s->fd);
    free(s->large);
    free(s);
}

/* --- clients ---------------------------------------------------------------------------------- */

static int dial(const server *s) {
    struct timeval patience = {.tv_sec = PATIENCE / 1000};
    int fd = connect_to_address(&s->address);
    assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)) == 0);
    return fd;
}

static void ask(int fd, const char *method, const char *target) {
    char text[256];
    int n = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nHost: a\r\n\r\n", method, target);
    assert(write(fd, text, (size_t)n) == n);
}

/* Reads until `end` has come; how many bytes. */
static size_t read_until(int fd, const char *end) {
    static _Thread_local char text[65536];
    size_t all = 0, kept = 0, n = strlen(end);
    for (;;) {
        ssize_t got = read(fd, text + kept, sizeof(text) - kept);
        assert(got > 0);
        all += (size_t)got;
        kept += (size_t)got;
        if (kept >= n && memcmp(text + kept - n, end, n) == 0) {
            return all;
        }
        if (kept > n) { /* the end may have come in part */
            memmove(text, text + kept - n, n);
            kept = n;
        }
    }
}

static size_t read_bytes(int fd, size_t n) {
    static _Thread_local char bytes[65536];
    size_t all = 0;
    while (all < n) {
        ssize_t got = read(fd, bytes, n - all < sizeof(bytes) ? n - all : sizeof(bytes));
        if (got <= 0) {
            break;
        }
        all += (size_t)got;
    }
    return all;
}

/* --- tests ------------------------------------------------------------------------------------ */

static void test_pipelined(void) {
    server *s = start(4);
    int fd = dial(s);
    for (int i = 0; i < 50; i++) {
        char text[128], end[32];
        int n = snprintf(text, sizeof(text),
                         "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n%04d", i);
        assert(write(fd, text, (size_t)n) == n);
        if (i % 10 == 9) {
            (void)snprintf(end, sizeof(end), "\r\n\r\n%04d", i);
            (void)read_until(fd, end);
        }
    }
    (void)close(fd);
    WAIT_FOR(atomic_load(&s->released) == 50);
    stop(s, false);
}

static void begin_upload(const server *s, int fd, size_t n) {
    static const char head[] = "POST /kept HTTP/1.1\r\nHost: a\r\nContent-Length: 2097152\r\n\r\n";
    assert(write(fd, head, strlen(head)) == (ssize_t)strlen(head));
    while (n > 0) {
        ssize_t done = write(fd, s->large, n);
        assert(done > 0);
        n -= (size_t)done;
    }
}

/* Their files count until the hand has answered, or the client has left. */
static void test_large_bodies(void) {
    server *s = start(1);
    int fd = dial(s), leaves = dial(s);
    begin_upload(s, leaves, 3 * HIGH);
    WAIT_FOR(atomic_load(&s->spools.filled) == 3 * HIGH);
    begin_upload(s, fd, LARGE);
    (void)read_until(fd, "kept");
    WAIT_FOR(atomic_load(&s->spools.filled) == 3 * HIGH);
    close_by_reset(leaves);
    WAIT_FOR(atomic_load(&s->spools.filled) == 0);
    begin_upload(s, fd, LARGE);
    close_by_reset(fd);
    WAIT_FOR(atomic_load(&s->spools.filled) == 0);
    stop(s, false);
}

static void test_kinds(void) {
    server *s = start(2);
    int fd = dial(s);
    ask(fd, "GET", "/wrongly");
    (void)read_until(fd, "\r\n\r\n1234");
    ask(fd, "HEAD", "/large");
    (void)read_until(fd, "content-length: 2097152\r\n\r\n");
    ask(fd, "GET", "/file");
    assert(read_bytes(fd, HIGH) == HIGH); /* the head, and most of it */
    (void)close(fd);
    fd = dial(s);
    ask(fd, "GET", "/stream");
    assert(read_until(fd, "0\r\n\r\n") > 20 * HIGH);
    ask(fd, "GET", "/cut");
    assert(read_bytes(fd, LARGE) < 1000); /* and the end */
    (void)close(fd);
    stop(s, false);
}

/* What was sent is dropped by a hand, without another request. */
static void test_loans_come_back(void) {
    server *s = start(2);
    int fd = dial(s);
    ask(fd, "GET", "/large");
    assert(read_bytes(fd, LARGE) == LARGE);
    WAIT_FOR(atomic_load(&s->loan.held) == 0);
    (void)close(fd);
    stop(s, false);
}

static void ask_to_meet(void *fds) {
    for (int i = 0; i < 4; i++) {
        ask(((int *)fds)[i], "GET", "/meet");
    }
}

/* Requests that come in one turn of the loop wake as many hands as there are, one after another. */
static void test_a_burst(void) {
    server *s = start(4);
    int fds[4];
    for (int i = 0; i < 4; i++) {
        fds[i] = dial(s);
    }
    for (int round = 0; round < 20; round++) {
        assert(as_bridge_call(s->bridge, ask_to_meet, fds)); /* the loop finds all four at once */
        for (int i = 0; i < 4; i++) {
            (void)read_until(fds[i], "met");
        }
    }
    for (int i = 0; i < 4; i++) {
        (void)close(fds[i]);
    }
    stop(s, false);
}

static void test_a_client_leaves(void) {
    server *s = start(1);
    int fd = dial(s);
    ask(fd, "GET", "/endless");
    assert(read_bytes(fd, LARGE) == LARGE);
    close_by_reset(fd);
    WAIT_FOR(atomic_load(&s->left) == 1);
    WAIT_FOR(atomic_load(&s->released) == 1);
    fd = dial(s);
    ask(fd, "GET", "/held");
    WAIT_FOR(atomic_load(&s->held));
    int queued = dial(s);
    ask(queued, "GET", "/endless"); /* is never taken */
    close_by_reset(queued);
    atomic_store(&s->let_go, true);
    (void)read_until(fd, "late");
    (void)close(fd);
    stop(s, false);
}

static void test_stopping(bool early) {
    server *s = start(3);
    int held = dial(s), endless = dial(s), queued[4];
    ask(held, "GET", "/held");
    ask(endless, "GET", "/endless");
    assert(read_bytes(endless, HIGH) == HIGH);
    WAIT_FOR(atomic_load(&s->held));
    for (int i = 0; i < 4; i++) {
        queued[i] = dial(s);
        ask(queued[i], "GET", "/held");
    }
    stop(s, early);
    (void)close(held);
    (void)close(endless);
    for (int i = 0; i < 4; i++) {
        (void)close(queued[i]);
    }
}

static void *run_client(void *arg) {
    server *s = arg;
    for (int i = 0; i < 15; i++) {
        int fd = dial(s);
        ask(fd, "GET", "/wrongly");
        (void)read_until(fd, "\r\n\r\n1234");
        ask(fd, "GET", "/large");
        ask(fd, "GET", "/stream");
        if (i % 3 == 0) {
            (void)read_bytes(fd, 100000);
            close_by_reset(fd);
        } else {
            (void)read_until(fd, "\r\n0\r\n\r\n");
            (void)close(fd);
        }
    }
    return NULL;
}

static void test_many(void) {
    server *s = start(HANDS_MAX);
    pthread_t clients[8];
    for (int i = 0; i < 8; i++) {
        assert(pthread_create(&clients[i], NULL, run_client, s) == 0);
    }
    for (int i = 0; i < 8; i++) {
        assert(pthread_join(clients[i], NULL) == 0);
    }
    stop(s, false);
}

int main(void) {
    test_pipelined();
    test_large_bodies();
    test_kinds();
    test_loans_come_back();
    test_a_burst();
    test_a_client_leaves();
    test_stopping(false);
    test_stopping(true);
    test_many();
    return 0;
}

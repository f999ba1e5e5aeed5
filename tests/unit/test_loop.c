/* The loop with its listeners and connections, driven by hand from the thread that also is the
 * client: real sockets, a gateway of this file, and no wait but for what has to come. */
#include "sockets.h"

#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* --- the server side -------------------------------------------------------------------------- */

typedef enum mode {
    ANSWER,          /* at once */
    HOLD,            /* the test answers */
    STREAM,          /* `stream_left` bytes without a length, as fast as on_drain allows */
    PAUSE,           /* reads no body, and holds */
    NEST,            /* polls from inside of the handler, then answers */
    DRAIN,           /* stops the server from inside of the handler, then answers */
    ABORT_ALL,       /* cuts everything from inside of the handler */
    ABORT_SECOND,    /* the same with the second request, the first is answered */
    NO_ROOM,         /* for the body beside others */
    FILE_ANSWER,     /* `file_size` bytes of an unlinked file */
    TUNNEL,          /* upgrades, and echoes; alarms in `alarm_ms` */
    MEANWHILE,       /* the client `other` asks, too, then as ANSWER */
    MEANWHILE_DRAIN, /* … as DRAIN */
} mode;

typedef struct server {
    as_loop_config config;
    as_loop *loop;
    int fd;
    struct sockaddr_in address;
    mode mode;
    as_exchange *held;
    uint64_t stream_left, stream_max_pending;
    off_t file_size, file_missing;
    char client[64], server[128];
    uint16_t client_port, server_port;
    bool is_unix;
    unsigned requests, aborts, closes, drains, eofs, ends, refused;
    uint64_t body_bytes, bytes_before; /* … the last request */
    uint32_t alarm_ms;
    unsigned alarms;
    as_err abort_why, refused_why;
    unsigned wakes, timers, drained, marks;
    int other;         /* of MEANWHILE: a client's descriptor */
    bool cuts_on_wake; /* once */
    char notices[512];
} server;

static char chunk[16 * 1024];

static void stream(server *s, as_exchange *ex) {
    while (s->stream_left > 0 && as_exchange_pending(ex) <= s->config.limits.limit_write_buffer) {
        size_t n = s->stream_left < sizeof(chunk) ? (size_t)s->stream_left : sizeof(chunk);
        s->stream_left -= n;
        assert(as_exchange_body(ex, (as_bytes){.p = chunk, .n = n}, s->stream_left > 0) == AS_OK);
    }
    if (as_exchange_pending(ex) > s->stream_max_pending) {
        s->stream_max_pending = as_exchange_pending(ex);
    }
    if (s->stream_left == 0) {
        as_exchange_release(ex);
        s->held = NULL;
    }
}

static void answer_file(server *s, as_exchange *ex) {
    char path[] = "/tmp/test_loop_XXXXXX";
    int fd = mkstemp(path);
    assert(fd >= 0 && unlink(path) == 0 && ftruncate(fd, s->file_size) == 0);
    assert(as_exchange_head_begin(ex, 200, (as_slice){0}) == AS_OK);
    assert(as_exchange_file(ex, fd, 0, (uint64_t)(s->file_size + s->file_missing), false) == AS_OK);
    as_exchange_release(ex);
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    server *s = ctx;
    s->requests++;
    s->bytes_before = s->body_bytes;
    s->body_bytes += body.n;
    (void)snprintf(s->client, sizeof(s->client), "%s", ex->info->client);
    (void)snprintf(s->server, sizeof(s->server), "%s", ex->info->server);
    s->client_port = ex->info->client_port;
    s->server_port = ex->info->server_port;
    s->is_unix = ex->info->is_unix;
    switch (s->mode) {
    case NEST:
        as_loop_poll(s->loop);
        as_loop_poll(s->loop);
        answer_hello(ex);
        break;
    case MEANWHILE:
    case MEANWHILE_DRAIN:
        assert(send(s->other, GET, strlen(GET), MSG_NOSIGNAL) == (ssize_t)strlen(GET));
        if (s->mode == MEANWHILE) {
            answer_hello(ex);
            s->mode = ANSWER;
            break;
        }
        s->mode = DRAIN;
        __attribute__((fallthrough));
    case DRAIN:
        as_loop_drain(s->loop, 0);
        answer_hello(ex);
        break;
    case ABORT_SECOND:
        if (s->requests < 2) {
            answer_hello(ex);
            break;
        }
        __attribute__((fallthrough));
    case ABORT_ALL:
        s->held = ex;
        assert(as_loop_abort_all(s->loop) > 0);
        break;
    case STREAM:
        s->held = ex;
        assert(as_exchange_head_begin(ex, 200, (as_slice){0}) == AS_OK);
        stream(s, ex);
        break;
    case PAUSE:
        as_exchange_pause(ex);
        s->held = ex;
        break;
    case HOLD:
        s->held = ex;
        break;
    case NO_ROOM:
        assert(as_exchange_refuse(ex, AS_E_SPOOL_FULL) == AS_OK);
        as_exchange_release(ex);
        break;
    case FILE_ANSWER:
        answer_file(s, ex);
        break;
    case TUNNEL:
        s->held = ex;
        assert(as_exchange_upgrade(ex, NULL, 0) == AS_OK);
        as_exchange_set_alarm(ex, s->alarm_ms);
        break;
    default:
        answer_hello(ex);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    server *s = ctx;
    s->body_bytes += data.n;
    if (s->mode == TUNNEL) {
        assert(as_exchange_body(ex, (as_bytes){.p = data.p, .n = data.n}, true) == AS_OK);
    }
}

static void on_alarm(void *ctx, as_exchange *ex) {
    ((server *)ctx)->alarms++;
}

static void on_end(void *ctx, as_exchange *ex) {
    ((server *)ctx)->ends++;
}

static void on_eof(void *ctx, as_exchange *ex) {
    ((server *)ctx)->eofs++;
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    server *s = ctx;
    s->aborts++;
    s->abort_why = why;
    if (s->held == ex) {
        s->held = NULL;
    }
    as_exchange_release(ex);
}

static void on_drain(void *ctx, as_exchange *ex) {
    server *s = ctx;
    s->drains++;
    if (s->mode == STREAM) {
        stream(s, ex);
    }
}

static void on_close(void *ctx, as_conn_info *info) {
    ((server *)ctx)->closes++;
}

static void on_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                       uint64_t offset) {
    server *s = ctx;
    s->refused++;
    s->refused_why = why;
}

static void wake(void *ctx) {
    server *s = ctx;
    s->wakes++;
    if (s->cuts_on_wake) {
        s->cuts_on_wake = false;
        (void)as_loop_abort_all(s->loop);
    }
}

static void timer(void *ctx) {
    ((server *)ctx)->timers++;
}

static void drained(void *ctx) {
    ((server *)ctx)->drained++;
}

static void marked(void *ctx) {
    ((server *)ctx)->marks++;
}

static void notice(void *ctx, as_notice_level level, const char *text) {
    assert(level == AS_NOTICE_WARNING);
    server *s = ctx;
    size_t n = strlen(s->notices);
    (void)snprintf(s->notices + n, sizeof(s->notices) - n, "%s\n", text);
}

static const as_handlers handlers = {
    .on_request = on_request,
    .on_body = on_body,
    .on_end = on_end,
    .on_eof = on_eof,
    .on_abort = on_abort,
    .on_drain = on_drain,
    .on_close = on_close,
    .on_refused = on_refused,
    .on_alarm = on_alarm,
};

static void prepare(server *s, mode what) {
    *s = (server){.fd = -1, .mode = what};
    s->config = (as_loop_config){
        .handlers = &handlers,
        .ctx = s,
        .wake = wake,
        .timer = timer,
        .drained = drained,
        .notice = notice,
    };
    as_limits_init(&s->config.limits);
}

static void serve_on(server *s, int fd) {
    s->fd = fd;
    s->loop = loop_on(fd, &s->config, NULL);
}

static void start(server *s) {
    serve_on(s, listen_on_loopback(&s->address, 128));
}

static void stop(server *s) {
    as_loop_free(s->loop);
    s->loop = NULL;
    assert(close(s->fd) == 0); /* stayed ours */
}

static as_loop_stats stats(const server *s) {
    as_loop_stats result;
    as_loop_get_stats(s->loop, &result);
    return result;
}

static bool turn(server *s, int limit) {
    return turn_loop(s->loop, limit);
}

/* Waits until something is ready, and lets the loop see it. */
static void await_event(server *s, bool handle) {
    struct pollfd fd = {.fd = as_loop_fd(s->loop), .events = POLLIN};
    assert(poll(&fd, 1, PATIENCE) == 1);
    if (handle) {
        as_loop_poll(s->loop);
    }
}

/* --- the client side -------------------------------------------------------------------------- */

typedef struct client {
    int fd;
    heard got;
    bool eof, reset;
} client;

static int connect_fd(const server *s) {
    int fd = connect_to_address(&s->address);
    unblock(fd);
    return fd;
}

static client connect_to(const server *s) {
    return (client){.fd = connect_fd(s)};
}

static void drain_now(as_loop *loop) {
    as_loop_drain(loop, 0);
}

static void abort_now(as_loop *loop) {
    (void)as_loop_abort_all(loop);
}

/* Reads what is there; true when `n` bytes or the end have come. */
static bool got(client *c, size_t n) {
    char buf[65536];
    ssize_t r;
    while ((r = recv(c->fd, buf, sizeof(buf), 0)) > 0) {
        hear(&c->got, buf, (size_t)r);
    }
    c->eof = c->eof || r == 0;
    c->reset = c->reset || (r < 0 && errno != EAGAIN);
    return c->got.len >= n || c->eof || c->reset;
}

static unsigned count_of(client *c, const char *what) {
    (void)got(c, 0);
    return count_heard(&c->got, what);
}

/* Waits for it without the loop's help. */
static bool arrives(client *c, const char *what, unsigned n) {
    struct pollfd fd = {.fd = c->fd, .events = POLLIN};
    while (count_of(c, what) < n && !c->eof && !c->reset && poll(&fd, 1, PATIENCE) == 1) {
    }
    return count_of(c, what) == n;
}

static bool ended(client *c) {
    (void)got(c, SIZE_MAX);
    return c->eof || c->reset;
}

static void say(client *c, const char *text) {
    assert(send(c->fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text));
}

/* A connection on which this was said. */
static client asked(const server *s, const char *text) {
    client c = connect_to(s);
    say(&c, text);
    return c;
}

static void hang_up(client *c) {
    (void)close(c->fd);
    free(c->got.data);
    c->got.data = NULL;
}

static void reset(client *c) {
    close_by_reset(c->fd);
    free(c->got.data);
}

/* --- requests and answers --------------------------------------------------------------------- */

static void test_answers(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    assert(strncmp(c.got.data, "HTTP/1.1 200 OK\r\n", 17) == 0);
    assert(strcmp(s.client, "127.0.0.1") == 0 && strcmp(s.server, "127.0.0.1") == 0);
    struct sockaddr_in own;
    socklen_t len = sizeof(own);
    assert(getsockname(c.fd, (struct sockaddr *)&own, &len) == 0);
    assert(s.client_port == ntohs(own.sin_port));
    assert(s.server_port == ntohs(s.address.sin_port) && !s.is_unix);
    for (int i = 0; i < 24; i++) {
        say(&c, GET);
    }
    UNTIL(&s, count_of(&c, "hello") == 25);
    say(&c, GET_CLOSE);
    UNTIL(&s, ended(&c));
    assert(c.eof && count_of(&c, "hello") == 26);
    UNTIL(&s, stats(&s).connections == 0);
    assert(s.closes == 1 && s.aborts == 0);
    assert(stats(&s).connections_total == 1 && stats(&s).requests_total == 26);
    hang_up(&c);
    stop(&s);
}

/* What came with the connection is looked at in the turn that accepts it, and answered. */
static void test_request_is_there_at_once(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    as_loop_poll(s.loop); /* the kernel gets to know the listener */
    client c = asked(&s, GET_CLOSE);
    await_event(&s, true);
    assert(s.requests == 1 && stats(&s).connections == 0); /* though the client has not closed */
    UNTIL(&s, ended(&c));
    assert(c.eof && count_of(&c, "hello") == 1);
    hang_up(&c);

    c = connect_to(&s);
    say(&c, GET);
    await_event(&s, true);
    assert(s.requests == 2 && stats(&s).connections == 1);
    assert(arrives(&c, "hello", 1));
    say(&c, GET_CLOSE GET); /* whoever goes on nevertheless is read, and gets no reset */
    UNTIL(&s, ended(&c));
    assert(c.eof && count_of(&c, "hello") == 2 && stats(&s).connections == 1);
    hang_up(&c);
    UNTIL(&s, stats(&s).connections == 0);
    stop(&s);
}

/* The driver may call as_loop_drain anywhere: nothing is read, and no handler runs, before the next
 * poll. */
static void test_request_of_the_last_moment(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = asked(&s, GET);
    as_loop_drain(s.loop, 0);
    assert(s.requests == 0 && stats(&s).connections == 1 && s.wakes > 0);
    as_loop_poll(s.loop);
    assert(s.requests == 1);
    UNTIL(&s, ended(&c));
    assert(c.eof && count_of(&c, "hello") == 1);
    hang_up(&c);
    stop(&s);
}

static void test_half_closed_client_is_answered(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = asked(&s, GET);
    assert(shutdown(c.fd, SHUT_WR) == 0);
    UNTIL(&s, s.eofs == 1);
    for (int i = 0; i < 20; i++) {
        assert(as_loop_timeout(s.loop) < 0 || !turn(&s, 1)); /* the end of file does not spin */
    }
    assert(s.held != NULL);
    answer_hello(s.held);
    UNTIL(&s, ended(&c));
    assert(c.eof && count_of(&c, "hello") == 1 && s.aborts == 0);
    hang_up(&c);
    stop(&s);
}

static void test_answer_from_outside_leaves_at_once(void) {
    server s;
    prepare(&s, HOLD);
    s.config.limits.timeout_request_head = 300;
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, s.held != NULL);
    assert(stats(&s).requests == 1);
    /* let what was cleared leave the wheel, so that `timer` has to be called again */
    UNTIL(&s, as_loop_timeout(s.loop) < 0);
    unsigned wakes = s.wakes, timers = s.timers;
    answer_hello(s.held);
    assert(arrives(&c, "hello", 1));
    assert(s.wakes == wakes);
    assert(s.timers == timers + 1 && as_loop_timeout(s.loop) >= 0);
    assert(stats(&s).requests == 0);
    /* the next one waits behind a request that runs: answering must wake the loop, once */
    say(&c, GET);
    s.held = NULL;
    UNTIL(&s, s.held != NULL);
    say(&c, GET GET);
    await_event(&s, true);
    wakes = s.wakes;
    s.mode = ANSWER;
    answer_hello(s.held);
    assert(s.wakes == wakes + 1);
    as_loop_poll(s.loop);
    assert(arrives(&c, "hello", 4));
    hang_up(&c);
    stop(&s);
}

static void test_nested_poll(void) {
    server s;
    prepare(&s, NEST);
    start(&s);
    client c = asked(&s, GET GET);
    UNTIL(&s, count_of(&c, "hello") == 2);
    assert(s.requests == 2);
    hang_up(&c);
    stop(&s);
}

static void test_large_answer_to_a_slow_reader(void) {
    server s;
    prepare(&s, STREAM);
    s.stream_left = 20 * 1000 * 1000;
    start(&s);
    client c = asked(&s, "GET / HTTP/1.0\r\n\r\n");
    UNTIL(&s, s.requests == 1);
    while (turn(&s, 20)) {
    }
    assert(s.stream_left > 0 && s.held != NULL); /* waits for the reader */
    UNTIL(&s, ended(&c));
    assert(c.eof && s.drains > 0 && s.aborts == 0);
    const char *body = strstr(c.got.data, "\r\n\r\n");
    assert(body != NULL && c.got.len - (size_t)(body + 4 - c.got.data) == 20 * 1000 * 1000);
    assert(s.stream_max_pending <= s.config.limits.limit_write_buffer + 2 * sizeof(chunk));
    hang_up(&c);
    stop(&s);
}

static void test_file(void) {
    server s;
    prepare(&s, FILE_ANSWER);
    s.file_size = 30 * 1000 * 1000 + 7;
    start(&s);
    client c = asked(&s, GET GET_CLOSE);
    UNTIL(&s, ended(&c));
    assert(c.eof && c.got.len > 2 * (size_t)s.file_size &&
           c.got.len < 2 * (size_t)s.file_size + 1000);
    hang_up(&c);
    stop(&s);
}

/* Shorter by then than the answer says. */
static void test_file_shrinks(void) {
    server s;
    prepare(&s, FILE_ANSWER);
    s.file_size = 1000;
    s.file_missing = 1;
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, ended(&c));
    assert(c.reset && stats(&s).connections == 0);
    hang_up(&c);
    stop(&s);
}

/* --- clients that leave ----------------------------------------------------------------------- */

static void test_reset_while_busy(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, s.held != NULL);
    reset(&c);
    UNTIL(&s, s.aborts == 1);
    assert(s.closes == 1 && stats(&s).connections == 0 && stats(&s).requests == 0);
    stop(&s);
}

static void test_reset_behind_a_half_close(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = asked(&s, GET);
    assert(shutdown(c.fd, SHUT_WR) == 0);
    UNTIL(&s, s.eofs == 1);
    reset(&c);
    UNTIL(&s, s.aborts == 1);
    stop(&s);
}

static void test_reset_while_the_body_is_paused(void) {
    server s;
    prepare(&s, PAUSE);
    start(&s);
    client c = asked(&s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n");
    UNTIL(&s, s.held != NULL);
    ssize_t n;
    size_t sent = 0;
    do { /* until it is not read any more */
        n = send(c.fd, chunk, sizeof(chunk), MSG_NOSIGNAL);
        sent += n > 0 ? (size_t)n : 0;
        assert(sent < 90000000);
    } while (turn(&s, 20) || n > 0);
    assert(s.body_bytes == 0);
    reset(&c);
    UNTIL(&s, s.aborts == 1);
    stop(&s);
}

static void test_urgent_data_is_nothing(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, s.held != NULL);
    assert(send(c.fd, "!", 1, MSG_OOB) == 1);
    while (turn(&s, 20)) {
    }
    assert(s.aborts == 0);
    answer_hello(s.held);
    UNTIL(&s, count_of(&c, "hello") == 1);
    hang_up(&c);
    stop(&s);
}

static void test_idle_clients_come_and_go(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = connect_to(&s), d = connect_to(&s);
    UNTIL(&s, stats(&s).connections == 2);
    hang_up(&c);
    reset(&d);
    UNTIL(&s, stats(&s).connections == 0);
    assert(s.closes == 2 && s.aborts == 0 && s.refused == 0);
    stop(&s);
}

/* --- timeouts --------------------------------------------------------------------------------- */

static void test_keep_alive_runs_out(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.timeout_keep_alive = 300;
    start(&s);
    client c = connect_to(&s);
    int64_t from = now_ms();
    say(&c, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    UNTIL(&s, ended(&c));
    assert(c.eof && now_ms() - from >= 290);
    UNTIL(&s, as_loop_timeout(s.loop) < 0); /* nothing wakes an idle server */
    assert(s.refused == 0 && s.timers >= 1);
    hang_up(&c);
    stop(&s);
}

static void test_silent_and_dripping_clients(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.timeout_request_head = 300;
    s.config.limits.limit_request_head = 1 << 24; /* a fast machine drips fast */
    start(&s);
    client silent = connect_to(&s), dripping = connect_to(&s);
    const char *request = "GET / HTTP/1.1\r\nHost: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    int64_t give_up = now_ms() + PATIENCE;
    for (size_t i = 0; !ended(&dripping); i++) {
        assert(now_ms() < give_up);
        char byte = i < strlen(request) ? request[i] : 'a';
        (void)send(dripping.fd, &byte, 1, MSG_NOSIGNAL);
        turn(&s, 20);
    }
    assert(strncmp(dripping.got.data, "HTTP/1.1 408 ", 13) == 0);
    UNTIL(&s, ended(&silent));
    assert(silent.got.len == 0 && silent.eof);
    hang_up(&dripping);
    hang_up(&silent);
    stop(&s);
}

static void test_body_stalls(void) {
    server s;
    prepare(&s, HOLD);
    s.config.limits.timeout_request_body = 300;
    start(&s);
    client c = asked(&s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    int64_t until = now_ms() + 1000;
    while (now_ms() < until) { /* progress keeps it alive */
        say(&c, "x");
        turn(&s, 100);
    }
    assert(s.aborts == 0 && s.body_bytes > 0);
    UNTIL(&s, s.aborts == 1);
    assert(s.abort_why == AS_E_TIMEOUT_BODY);
    UNTIL(&s, ended(&c));
    hang_up(&c);
    stop(&s);
}

static void test_reader_stalls(void) {
    server s;
    prepare(&s, STREAM);
    s.stream_left = UINT64_MAX;
    s.config.limits.timeout_write = 300;
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, s.aborts == 1);
    assert(s.abort_why == AS_E_TIMEOUT_WRITE);
    UNTIL(&s, ended(&c));
    assert(c.reset);
    hang_up(&c);
    stop(&s);
}

/* For `ms` milliseconds a client gives a byte, or takes up to `n`, 20 times a second; true: it was
 * not cut. */
static bool survives(server *s, client *c, size_t n, int64_t ms) {
    static char bytes[256 * 1024];
    int64_t now = now_ms(), until = now + ms;
    for (int64_t next = now; s->aborts == 0 && (now = now_ms()) < until;) {
        if (now >= next) {
            next = now + 50;
            (void)(n == 0 ? send(c->fd, "x", 1, MSG_NOSIGNAL) : recv(c->fd, bytes, n, 0));
        }
        turn(s, (int)(next - now));
    }
    return s->aborts == 0;
}

static bool slow_body_survives(uint32_t rate) {
    server s;
    prepare(&s, HOLD);
    s.config.limits.timeout_request_body = 300;
    s.config.limits.min_body_rate = rate;
    start(&s);
    client c = asked(&s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    bool alive = survives(&s, &c, 0, 1500);
    assert(alive || s.abort_why == AS_E_TIMEOUT_BODY);
    hang_up(&c);
    stop(&s);
    return alive;
}

static bool slow_reader_survives(uint32_t rate) {
    server s;
    prepare(&s, STREAM);
    s.stream_left = UINT64_MAX;
    s.config.limits.timeout_write = 300;
    s.config.limits.min_write_rate = rate;
    start(&s);
    client c = asked(&s, GET);
    bool alive = survives(&s, &c, 256 * (size_t)1024, 1500);
    assert(alive || s.abort_why == AS_E_TIMEOUT_WRITE);
    hang_up(&c);
    stop(&s);
    return alive;
}

/* The client is never silent for long, and far from the rates in between. */
static void test_least_rates(void) {
    assert(slow_body_survives(0) && slow_body_survives(1) && !slow_body_survives(500));
    assert(slow_reader_survives(0) && slow_reader_survives(10000));
    assert(!slow_reader_survives(UINT32_MAX));
}

/* --- tunnels ---------------------------------------------------------------------------------- */

static void start_tunnel_with(server *s, client *c, uint32_t timeout_write) {
    prepare(s, TUNNEL);
    s->config.limits.timeout_write = timeout_write;
    start(s);
    *c = connect_to(s);
}

static void start_tunnel(server *s, client *c) {
    start_tunnel_with(s, c, PATIENCE);
}

static void test_tunnel(void) {
    server s;
    client c;
    start_tunnel(&s, &c);
    say(&c, GET "hello");
    UNTIL(&s, count_of(&c, "hello") == 1);
    assert(strncmp(c.got.data, "HTTP/1.1 101 ", 13) == 0 && stats(&s).requests == 1);
    /* from outside: one wake for any number of writes, and none that flushes by itself */
    unsigned wakes = s.wakes;
    for (int i = 0; i < 3; i++) {
        assert(as_exchange_body(s.held, (as_bytes){.p = "more", .n = 4}, true) == AS_OK);
        as_exchange_flush_soon(s.held);
    }
    assert(s.wakes == wakes + 1 && count_of(&c, "more") == 0);
    as_loop_poll(s.loop);
    assert(arrives(&c, "more", 3));
    assert(as_exchange_body(s.held, (as_bytes){.p = "now", .n = 3}, true) == AS_OK);
    assert(as_exchange_flush(s.held) == AS_OK && arrives(&c, "now", 1));
    assert(as_exchange_end(s.held) == AS_OK);
    as_exchange_release(s.held);
    s.held = NULL;
    UNTIL(&s, ended(&c));
    assert(c.eof && stats(&s).requests == 0);
    say(&c, "dropped");
    hang_up(&c);
    UNTIL(&s, stats(&s).connections == 0);
    assert(s.aborts == 0 && s.eofs == 0);
    stop(&s);
}

static void test_tunnel_ends_with_the_client(void) {
    server s;
    client c;
    start_tunnel(&s, &c);
    say(&c, GET "x");
    UNTIL(&s, s.body_bytes == 1);
    assert(shutdown(c.fd, SHUT_WR) == 0);
    UNTIL(&s, s.eofs == 1);
    assert(!ended(&c) && s.aborts == 0);
    reset(&c);
    UNTIL(&s, s.aborts == 1);
    stop(&s);
}

static void test_alarm(void) {
    server s;
    client c;
    start_tunnel(&s, &c);
    s.alarm_ms = 300;
    say(&c, GET);
    int64_t before = now_ms();
    UNTIL(&s, s.alarms == 1);
    assert(now_ms() - before >= 300);
    UNTIL(&s, as_loop_timeout(s.loop) < 0); /* once */
    assert(s.alarms == 1);
    as_exchange_set_alarm(s.held, 300);
    unsigned timers = s.timers;
    as_exchange_set_alarm(s.held, 0);
    as_exchange_set_alarm(s.held, 600);
    assert(s.timers == timers && timers > 0);
    before = now_ms();
    UNTIL(&s, s.alarms == 2);
    assert(now_ms() - before >= 600);
    assert(arrives(&c, "101", 1));
    hang_up(&c);
    UNTIL(&s, s.eofs == 1);
    stop(&s);
}

static void test_alarm_waits_for_what_is_unsent(void) {
    server s;
    client c;
    start_tunnel_with(&s, &c, 0);
    s.alarm_ms = 1;
    say(&c, GET);
    UNTIL(&s, s.held != NULL);
    while (as_exchange_pending(s.held) < 1000000) {
        assert(as_exchange_body(s.held, (as_bytes){.p = chunk, .n = sizeof(chunk)}, true) == AS_OK);
        (void)as_exchange_flush(s.held);
        (void)turn(&s, 0); /* in one, only so much is written */
    }
    unsigned alarms = s.alarms;
    as_exchange_set_alarm(s.held, 1);
    int64_t until = now_ms() + 800;
    while (now_ms() < until) {
        (void)turn(&s, 50);
    }
    assert(s.alarms == alarms && as_exchange_pending(s.held) > 0);
    UNTIL(&s, (got(&c, SIZE_MAX), s.alarms == alarms + 1));
    assert(as_exchange_pending(s.held) == 0);
    hang_up(&c);
    stop(&s);
}

static void test_tunnel_reader_stalls(void) {
    server s;
    client c;
    start_tunnel_with(&s, &c, 300);
    say(&c, GET);
    UNTIL(&s, s.held != NULL);
    for (int i = 0; i < 1000; i++) {
        assert(as_exchange_body(s.held, (as_bytes){.p = chunk, .n = sizeof(chunk)}, true) == AS_OK);
    }
    assert(as_exchange_flush(s.held) == AS_OK);
    UNTIL(&s, s.aborts == 1);
    assert(s.abort_why == AS_E_TIMEOUT_WRITE);
    hang_up(&c);
    stop(&s);
}

/* --- turns ------------------------------------------------------------------------------------ */

enum { CROWD = 8 };

/* As much as is taken. */
static void flood(client *crowd) {
    for (int i = 0; i < CROWD; i++) {
        while (send(crowd[i].fd, chunk, sizeof(chunk), MSG_NOSIGNAL) > 0) {
        }
    }
}

static void connect_crowd(server *s, client *crowd) {
    for (int i = 0; i < CROWD; i++) {
        crowd[i] = connect_to(s);
    }
    UNTIL(s, stats(s).connections >= CROWD);
}

static void ask_together(client *crowd, const char *request) {
    for (int i = 0; i < CROWD; i++) {
        say(&crowd[i], request);
    }
}

static void test_who_floods_goes_last(void) {
    server s;
    client crowd[CROWD];
    prepare(&s, HOLD);
    start(&s);
    client modest = connect_to(&s);
    connect_crowd(&s, crowd);
    UNTIL(&s, stats(&s).connections == CROWD + 1);
    ask_together(crowd, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n");
    UNTIL(&s, s.requests == CROWD);
    for (int i = 0; i < 3; i++) {
        flood(crowd);
        await_event(&s, true);
    }
    flood(crowd);
    say(&modest, GET);
    uint64_t before = s.body_bytes;
    await_event(&s, true);
    assert(s.requests == CROWD + 1 && s.bytes_before == before);
    assert(s.body_bytes > before); /* they go on in the same turn, and in the next */
    for (int i = 0; i < CROWD; i++) {
        reset(&crowd[i]);
    }
    reset(&modest);
    UNTIL(&s, s.aborts == CROWD + 1);
    stop(&s);
}

/* Beside others, a large answer leaves in parts. */
static void test_who_asks_for_much_waits_for_others(void) {
    server s;
    client crowd[CROWD];
    prepare(&s, FILE_ANSWER);
    s.file_size = 1000000;
    start(&s);
    connect_crowd(&s, crowd);
    ask_together(crowd, GET);
    await_event(&s, true);
    assert(s.requests == CROWD);
    for (int i = 0; i < CROWD; i++) {
        (void)got(&crowd[i], SIZE_MAX);
        assert(crowd[i].got.len > 0 && crowd[i].got.len <= 100000);
    }
    for (int i = 0; i < CROWD; i++) {
        UNTIL(&s, got(&crowd[i], 1000000));
        hang_up(&crowd[i]);
    }
    UNTIL(&s, stats(&s).connections == 0);
    stop(&s);
}

/* --- closing ---------------------------------------------------------------------------------- */

static void test_refused_upload_is_answered(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.limit_request_body = 1000;
    start(&s);
    client c = asked(&s, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n");
    /* a client that sends all of it before it reads */
    for (size_t left = 8000000; left > 0;) {
        ssize_t n = send(c.fd, chunk, left < sizeof(chunk) ? left : sizeof(chunk), MSG_NOSIGNAL);
        assert(n >= 0 || errno == EAGAIN);
        left -= n > 0 ? (size_t)n : 0;
        turn(&s, n > 0 ? 0 : 20);
    }
    UNTIL(&s, ended(&c));
    assert(c.eof && strncmp(c.got.data, "HTTP/1.1 413 ", 13) == 0);
    hang_up(&c);
    UNTIL(&s, stats(&s).connections == 0);
    stop(&s);
}

static void test_lingering_ends(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.timeout_linger = 300;
    start(&s);
    client c = connect_to(&s);
    say(&c, "GET / HTTP/1.1\r\n\r\n"); /* no Host */
    UNTIL(&s, ended(&c));
    assert(c.eof && strncmp(c.got.data, "HTTP/1.1 400 ", 13) == 0);
    UNTIL(&s, stats(&s).connections == 0); /* though the client never closes */
    hang_up(&c);
    stop(&s);
}

/* Each byte prolongs it, but not for ever. */
static void test_lingering_ends_for_who_sends_on(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.timeout_linger = 100;
    start(&s);
    client c = connect_to(&s);
    say(&c, "GET / HTTP/1.1\r\n\r\n"); /* no Host */
    UNTIL(&s, ended(&c));
    assert(c.eof);
    int64_t from = now_ms();
    UNTIL(&s, (send(c.fd, "x", 1, MSG_NOSIGNAL), stats(&s).connections == 0));
    assert(now_ms() - from > 1000);
    hang_up(&c);
    stop(&s);
}

static void test_aborted_answer_looks_broken(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = connect_to(&s);
    say(&c, "GET / HTTP/1.0\r\n\r\n"); /* its end is the connection's */
    UNTIL(&s, s.held != NULL);
    assert(as_exchange_head_begin(s.held, 200, (as_slice){0}) == AS_OK);
    assert(as_exchange_body(s.held, (as_bytes){.p = "part", .n = 4}, true) == AS_OK);
    UNTIL(&s, count_of(&c, "part") == 1);
    as_exchange_abort(s.held);
    as_exchange_release(s.held);
    UNTIL(&s, ended(&c));
    assert(c.reset && s.aborts == 0);
    hang_up(&c);
    stop(&s);
}

/* --- no room for more ------------------------------------------------------------------------- */

static void test_connection_limit(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.limit_connections = 2;
    start(&s);
    client c[3];
    for (int i = 0; i < 3; i++) {
        c[i] = connect_to(&s);
        say(&c[i], GET);
    }
    UNTIL(&s, count_of(&c[0], "hello") == 1 && count_of(&c[1], "hello") == 1);
    UNTIL(&s, !stats(&s).accepting);
    assert(stats(&s).connections == 2 && count_of(&c[2], "hello") == 0);
    assert(strstr(s.notices, "stopped") != NULL);
    say(&c[0], GET); /* served on */
    UNTIL(&s, count_of(&c[0], "hello") == 2);
    hang_up(&c[1]);
    UNTIL(&s, count_of(&c[2], "hello") == 1);
    assert(stats(&s).accepting);
    hang_up(&c[0]);
    hang_up(&c[2]);
    stop(&s);
}

static void test_out_of_descriptors(void) {
    enum { CLIENTS = 20 };
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = connect_to(&s);
        say(&c[i], GET);
    }
    struct rlimit old, low;
    assert(getrlimit(RLIMIT_NOFILE, &old) == 0);
    low = old;
    int highest = dup(0);
    (void)close(highest);
    low.rlim_cur = (rlim_t)highest + 5; /* five of them can be accepted */
    assert(setrlimit(RLIMIT_NOFILE, &low) == 0);
    UNTIL(&s, stats(&s).connections == 5 && !stats(&s).accepting);
    unsigned busy = 0;
    for (int64_t until = now_ms() + 600; now_ms() < until;) {
        busy += turn(&s, 50);
    }
    assert(busy < 20); /* tries again now and then */
    unsigned served = 0;
    for (int i = 0; i < CLIENTS; i++) {
        served += count_of(&c[i], "hello");
    }
    assert(served == 5 && strstr(s.notices, "too many open files") != NULL);
    assert(strstr(strstr(s.notices, "stopped") + 1, "stopped") == NULL); /* said once */
    say(&c[0], GET);
    UNTIL(&s, count_of(&c[0], "hello") == 2);
    for (int i = 1; i < CLIENTS; i++) { /* one that goes lets another one in */
        UNTIL(&s, count_of(&c[i], "hello") == 1);
        hang_up(&c[i]);
    }
    UNTIL(&s, stats(&s).accepting && strstr(s.notices, "goes on") != NULL);
    assert(setrlimit(RLIMIT_NOFILE, &old) == 0);
    hang_up(&c[0]);
    stop(&s);
}

/* As two processes on one socket, of which one hangs in the end. */
static void test_connections_are_shared(void) {
    enum { CLIENTS = 40 };
    static _Alignas(AS_SEAT_SIZE) char seats[2 * AS_SEAT_SIZE];
    server here, there;
    prepare(&here, ANSWER);
    start(&here);
    prepare(&there, ANSWER);
    serve_on(&there, dup(here.fd));
    assert(as_loop_balance(here.loop, seats, sizeof(seats)) == AS_OK);
    assert(as_loop_balance(there.loop, seats, sizeof(seats)) == AS_OK);
    client c[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        c[i] = connect_to(&here);
    }
    as_loop_poll(here.loop);
    assert(stats(&here).connections == 1); /* the other one has none */
    as_loop_poll(there.loop);
    assert(stats(&there).connections == 2);
    UNTIL(&here, stats(&here).connections == CLIENTS - 2); /* it had its chance */
    assert(stats(&there).connections == 2);
    for (int i = 0; i < CLIENTS; i++) {
        hang_up(&c[i]);
    }
    UNTIL(&here, stats(&here).connections == 0);
    UNTIL(&there, stats(&there).connections == 0);
    as_loop_drain(there.loop, 0); /* takes no more part */
    for (int i = 0; i < 2; i++) {
        c[i] = connect_to(&here);
    }
    as_loop_poll(here.loop);
    assert(stats(&here).connections == 2);
    hang_up(&c[0]);
    hang_up(&c[1]);
    stop(&there);
    stop(&here);
}

/* --- stopping --------------------------------------------------------------------------------- */

static void test_drain(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client idle = connect_to(&s), busy = connect_to(&s), sent = connect_to(&s);
    say(&idle, GET);
    say(&sent, GET);
    UNTIL(&s, count_of(&idle, "hello") == 1 && count_of(&sent, "hello") == 1);
    s.mode = HOLD;
    say(&busy, GET);
    UNTIL(&s, s.held != NULL);
    s.mode = ANSWER;
    say(&sent, GET); /* is in the socket already when the server stops */
    await_event(&s, false);
    unsigned wakes = s.wakes;
    as_loop_drain(s.loop, 0);
    assert(s.wakes == wakes + 1 && s.drained == 0);
    UNTIL(&s, ended(&idle) && ended(&sent));
    assert(idle.eof && sent.eof && count_of(&sent, "hello") == 2);
    assert(!stats(&s).accepting && s.drained == 0 && !ended(&busy));
    answer_hello(s.held);
    UNTIL(&s, ended(&busy));
    assert(busy.eof && count_of(&busy, "hello") == 1);
    assert(strstr(busy.got.data, "onnection: close") != NULL);
    UNTIL(&s, s.drained == 1);
    assert(s.aborts == 0);
    hang_up(&idle);
    hang_up(&busy);
    hang_up(&sent);
    stop(&s);
}

/* Its head has promised that the connection stays. */
static void test_drain_in_the_middle_of_an_answer(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, s.held != NULL);
    assert(as_exchange_head_begin(s.held, 200, (as_slice){0}) == AS_OK);
    assert(as_exchange_body(s.held, (as_bytes){.p = "part", .n = 4}, true) == AS_OK);
    as_loop_drain(s.loop, 0);
    as_loop_poll(s.loop);
    assert(arrives(&c, "part", 1) && !ended(&c));
    assert(as_exchange_end(s.held) == AS_OK);
    as_exchange_release(s.held);
    int64_t from = now_ms();
    UNTIL(&s, s.drained == 1 && ended(&c));
    assert(c.eof && s.aborts == 0);
    assert(now_ms() - from < s.config.limits.timeout_keep_alive);
    hang_up(&c);
    stop(&s);
}

static void test_drain_of_nothing_and_from_a_handler(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    as_loop_drain(s.loop, 0);
    assert(s.drained == 0 && s.wakes > 0);
    as_loop_poll(s.loop);
    as_loop_poll(s.loop);
    assert(s.drained == 1);
    stop(&s);

    prepare(&s, DRAIN);
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, ended(&c) && s.drained == 1);
    assert(c.eof && count_of(&c, "hello") == 1);
    hang_up(&c);
    stop(&s);
}

/* Somebody else accepts: a request that is under way on an idle connection is still answered. */
static void test_drain_leaves_idle_clients_time(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client asks = connect_to(&s), silent = connect_to(&s), fresh = connect_to(&s);
    say(&asks, GET);
    say(&silent, GET);
    UNTIL(&s, count_of(&asks, "hello") == 1 && count_of(&silent, "hello") == 1);
    int theirs = dup(s.fd);
    as_loop_drain(s.loop, 600);
    client late = connect_to(&s); /* in the queue: it is not for us any more */
    for (int i = 0; i < 5; i++) {
        as_loop_poll(s.loop);
    }
    assert(!ended(&asks) && !ended(&silent) && !ended(&fresh));
    say(&asks, GET);
    say(&fresh, GET);
    UNTIL(&s, ended(&asks) && ended(&fresh));
    assert(asks.eof && count_of(&asks, "hello") == 2 && count_of(&fresh, "hello") == 1);
    assert(count_of(&asks, "onnection: close") == 1 && count_of(&fresh, "onnection: close") == 1);
    int64_t from = now_ms();
    UNTIL(&s, ended(&silent) && s.drained == 1);
    assert(silent.eof && now_ms() - from < 5000); /* not timeout_keep_alive */
    hang_up(&asks);
    hang_up(&silent);
    hang_up(&fresh);
    hang_up(&late);
    assert(close(theirs) == 0);
    stop(&s);
}

/* They have connected: closing the socket before they are accepted would reset them. */
static void test_drain_serves_the_queue(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = asked(&s, GET);
    as_loop_drain(s.loop, 0);
    UNTIL(&s, ended(&c) && s.drained == 1);
    assert(c.eof && count_of(&c, "hello") == 1);
    hang_up(&c);
    stop(&s);
}

/* Whoever comes later is refused: in a queue that nobody serves he would be reset in the end. */
static void test_drain_refuses_at_once(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    struct stat before, after;
    assert(fstat(s.fd, &before) == 0 && S_ISSOCK(before.st_mode));
    as_loop_drain(s.loop, 0);
    int late = socket(AF_INET, SOCK_STREAM, 0);
    assert(connect(late, (struct sockaddr *)&s.address, sizeof(s.address)) != 0);
    assert(errno == ECONNREFUSED && close(late) == 0);
    assert(fstat(s.fd, &after) == 0 && !S_ISSOCK(after.st_mode)); /* the number is still taken */
    stop(&s);
}

/* The request comes when the loop has looked at the sockets, and before it judges who is idle. */
static void test_drain_sees_the_last_moment(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client idle = connect_to(&s), busy = connect_to(&s);
    say(&idle, GET);
    UNTIL(&s, count_of(&idle, "hello") == 1);
    s.mode = MEANWHILE_DRAIN;
    s.other = idle.fd;
    say(&busy, GET);
    UNTIL(&s, ended(&idle) && ended(&busy) && s.drained == 1);
    assert(idle.eof && count_of(&idle, "hello") == 2 && count_of(&busy, "hello") == 1);
    hang_up(&idle);
    hang_up(&busy);
    stop(&s);
}

/* The same at the end of timeout_keep_alive. */
static void test_idle_until_the_last_moment(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.timeout_keep_alive = 300;
    start(&s);
    client idle = connect_to(&s), busy = connect_to(&s);
    say(&idle, GET);
    UNTIL(&s, count_of(&idle, "hello") == 1);
    int64_t from = now_ms();
    while (now_ms() - from < 900) { /* what is due is due when the loop next looks */
        (void)poll(NULL, 0, 50);
    }
    s.mode = MEANWHILE;
    s.other = idle.fd;
    say(&busy, GET);
    UNTIL(&s, count_of(&busy, "hello") == 1 && count_of(&idle, "hello") == 2);
    UNTIL(&s, ended(&idle) && ended(&busy));
    assert(idle.eof && busy.eof);
    hang_up(&idle);
    hang_up(&busy);
    stop(&s);
}

/* The driver's hook may do anything, also while all connections are being told something. */
static void test_cut_while_all_are_told(void) {
    void (*const tells[])(as_loop *loop) = {drain_now, as_loop_disconnect, abort_now};
    for (size_t i = 0; i < sizeof(tells) / sizeof(*tells); i++) {
        server s;
        prepare(&s, ANSWER);
        start(&s);
        client c[3];
        for (int k = 0; k < 3; k++) {
            c[k] = connect_to(&s);
            say(&c[k], GET);
            UNTIL(&s, count_of(&c[k], "hello") == 1);
        }
        s.mode = HOLD;
        for (int k = 0; k < 3; k++) {
            s.held = NULL;
            say(&c[k], GET);
            UNTIL(&s, s.held != NULL);
        }
        s.cuts_on_wake = true;
        tells[i](s.loop);
        assert(!s.cuts_on_wake && s.aborts == 3 && stats(&s).connections == 0);
        as_loop_poll(s.loop);
        for (int k = 0; k < 3; k++) {
            hang_up(&c[k]);
        }
        stop(&s);
    }
}

/* What ends a child that is forked is none of the parent's business. */
static void test_a_forked_child_frees_nothing(void) {
    server s;
    int status;
    prepare(&s, ANSWER);
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    pid_t child = fork();
    if (child == 0) {
        as_loop_forked(s.loop);
        as_loop_free(s.loop);
        _exit(0);
    }
    assert(waitpid(child, &status, 0) == child && status == 0);
    as_loop_poll(s.loop);
    as_loop_wakeup(s.loop);
    await_event(&s, true);
    say(&c, GET);
    await_event(&s, true);
    assert(arrives(&c, "hello", 2) && s.closes == 0);
    client next = connect_to(&s);
    await_event(&s, true);
    assert(stats(&s).connections == 2);
    hang_up(&next);
    hang_up(&c);
    stop(&s);
}

/* Their first request may be under way: they have a little time, and no more. */
static void test_drain_waits_for_newcomers(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client accepted = connect_to(&s), silent = connect_to(&s), slow = connect_to(&s);
    UNTIL(&s, stats(&s).connections == 3);
    client queued = connect_to(&s);
    as_loop_drain(s.loop, 0);
    for (int i = 0; i < 5; i++) {
        as_loop_poll(s.loop);
    }
    assert(!ended(&accepted) && !ended(&queued));
    say(&accepted, GET);
    say(&queued, GET);
    say(&slow, "GET / HTTP/1.1\r\n");
    UNTIL(&s, ended(&accepted) && ended(&queued));
    assert(accepted.eof && count_of(&accepted, "hello") == 1);
    assert(queued.eof && count_of(&queued, "hello") == 1);
    int64_t from = now_ms();
    UNTIL(&s, ended(&silent));
    assert(silent.eof && now_ms() - from < s.config.limits.timeout_request_head / 2);
    say(&slow, "Host: x\r\n\r\n"); /* what has begun has the usual time */
    UNTIL(&s, ended(&slow) && s.drained == 1);
    assert(slow.eof && count_of(&slow, "hello") == 1);
    hang_up(&slow);
    hang_up(&accepted);
    hang_up(&queued);
    hang_up(&silent);
    stop(&s);
}

static void test_disconnect(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = connect_to(&s), idle = connect_to(&s);
    say(&c, GET);
    UNTIL(&s, s.held != NULL && stats(&s).connections == 2);
    assert(s.eofs == 0);
    as_loop_disconnect(s.loop);
    UNTIL(&s, s.eofs == 1);
    as_loop_disconnect(s.loop); /* told once */
    as_loop_poll(s.loop);
    assert(s.eofs == 1 && !ended(&c) && !ended(&idle));
    answer_hello(s.held); /* writing goes on being allowed */
    UNTIL(&s, count_of(&c, "hello") == 1);
    hang_up(&c);
    hang_up(&idle);
    stop(&s);
}

static void test_mark(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.marked = marked;
    start(&s);
    as_loop_mark(s.loop, 3);
    client c = asked(&s, GET GET);
    UNTIL(&s, count_of(&c, "hello") == 2);
    assert(s.marks == 0);
    say(&c, GET GET);
    UNTIL(&s, count_of(&c, "hello") == 4);
    assert(s.marks == 1);
    hang_up(&c);
    stop(&s);
}

#define HEALTH "GET /health HTTP/1.1\r\nHost: a\r\n\r\n"

static void test_health(void) {
    server s;
    prepare(&s, HOLD);
    s.config.health_path = AS_SLICE("/health");
    s.config.limits.limit_concurrency = 1;
    start(&s);
    client busy = connect_to(&s), c = connect_to(&s);
    say(&busy, GET);
    UNTIL(&s, s.held != NULL);
    say(&c, HEALTH "HEAD /health?x HTTP/1.1\r\nHost: a\r\n\r\n");
    UNTIL(&s, count_of(&c, "HTTP/1.1 200 OK") == 2); /* also where a limit is reached */
    assert(count_of(&c, "OK\n") == 1 && s.requests == 1 && stats(&s).requests == 1);
    as_loop_set_healthy(s.loop, false);
    say(&c, HEALTH);
    UNTIL(&s, count_of(&c, "HTTP/1.1 503 ") == 1 && count_of(&c, "stopping\n") == 1);
    as_loop_set_healthy(s.loop, true);
    say(&c, HEALTH);
    UNTIL(&s, count_of(&c, "HTTP/1.1 200 OK") == 3);
    as_loop_drain(s.loop, 10000); /* others may serve in its place */
    say(&c, HEALTH);
    UNTIL(&s, ended(&c));
    assert(c.eof && count_of(&c, "HTTP/1.1 200 OK") == 4 && count_of(&c, "connection: close") == 1);
    s.mode = ANSWER;
    answer_hello(s.held);
    UNTIL(&s, ended(&busy));
    hang_up(&busy);
    hang_up(&c);
    stop(&s);
}

static void test_overload_is_told_once(void) {
    server s;
    prepare(&s, HOLD);
    s.config.limits.limit_concurrency = 1;
    start(&s);
    client busy = asked(&s, GET);
    UNTIL(&s, s.held != NULL);
    for (int i = 0; i < 3; i++) {
        client c = asked(&s, GET);
        UNTIL(&s, ended(&c));
        assert(count_of(&c, "HTTP/1.1 503 ") == 1 && count_of(&c, "retry-after: 1") == 1);
        hang_up(&c);
    }
    assert(stats(&s).overloaded_total == 3 && s.refused == 0);
    const char *told = strstr(s.notices, "limit_concurrency reached: 1 ");
    assert(told != NULL && strstr(told + 1, "limit_concurrency") == NULL);
    hang_up(&busy);
    stop(&s);
}

/* Of each limit by itself. */
static void test_a_full_spool_is_told_once(void) {
    server s;
    prepare(&s, NO_ROOM);
    s.config.limits.limit_body_spool = 5000;
    start(&s);
    for (int i = 0; i < 3; i++) {
        client c = asked(&s, GET);
        UNTIL(&s, ended(&c));
        assert(count_of(&c, "HTTP/1.1 503 ") == 1 && count_of(&c, "retry-after: 1") == 1);
        hang_up(&c);
    }
    assert(stats(&s).spool_full_total == 3 && stats(&s).overloaded_total == 0 && s.refused == 0);
    const char *told = strstr(s.notices, "limit_body_spool reached: 5000 bytes ");
    assert(told != NULL && strstr(told, "answered with 503: 1") != NULL);
    assert(strstr(told + 1, "limit_") == NULL);
    stop(&s);
}

/* It is idle whether or not it has ever asked: an idle client costs no place. */
static void test_idle_clients_cost_no_slot(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.limits.limit_concurrency = 1;
    start(&s);
    client clients[8];
    for (int i = 0; i < 8; i++) {
        clients[i] = connect_to(&s);
        say(&clients[i], GET);
        UNTIL(&s, count_of(&clients[i], "hello") == 1);
    }
    assert(stats(&s).connections == 8 && stats(&s).overloaded_total == 0);
    for (int i = 0; i < 8; i++) {
        hang_up(&clients[i]);
    }
    stop(&s);
}

static void test_abort_all(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client idle = connect_to(&s), busy = connect_to(&s);
    say(&busy, GET);
    UNTIL(&s, s.held != NULL && stats(&s).connections == 2);
    assert(as_loop_abort_all(s.loop) == 1);
    assert(s.aborts == 1 && s.abort_why == AS_E_SHUTDOWN);
    UNTIL(&s, ended(&busy) && ended(&idle));
    assert(busy.reset && idle.eof && stats(&s).connections == 0);
    hang_up(&idle);
    hang_up(&busy);
    stop(&s);

    prepare(&s, ANSWER); /* from inside of a handler: behind it */
    s.mode = ABORT_ALL;
    start(&s);
    client c = asked(&s, GET);
    UNTIL(&s, ended(&c));
    assert(c.reset && s.aborts == 1 && s.held == NULL);
    hang_up(&c);
    stop(&s);

    prepare(&s, ANSWER); /* what was answered before in the same turn has been answered */
    s.mode = ABORT_SECOND;
    start(&s);
    client first = connect_to(&s), second = connect_to(&s);
    UNTIL(&s, stats(&s).connections == 2);
    say(&first, GET);
    say(&second, GET);
    UNTIL(&s, ended(&first) && ended(&second));
    assert(first.eof && count_of(&first, "hello") == 1);
    assert(second.reset && s.aborts == 1);
    hang_up(&first);
    hang_up(&second);
    stop(&s);
}

static void test_free_in_any_state(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client clients[4];
    for (int i = 0; i < 4; i++) {
        clients[i] = connect_to(&s);
    }
    say(&clients[0], GET GET);
    UNTIL(&s, s.held != NULL);
    say(&clients[1], "GET / HT");
    say(&clients[2], "GET / HTTP/1.1\r\n\r\n");
    UNTIL(&s, count_of(&clients[2], "400") >= 1 && stats(&s).connections == 4);
    stop(&s);
    assert(s.aborts == 1 && s.closes == 4);
    for (int i = 0; i < 4; i++) {
        hang_up(&clients[i]);
    }
    prepare(&s, ANSWER);
    start(&s);
    stop(&s); /* not once polled */
}

/* --- addresses -------------------------------------------------------------------------------- */

static void test_no_delay_is_inherited(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = connect_to(&s); /* the loop is not polled: we accept ourselves */
    int fd = accept(s.fd, NULL, NULL), on = 0;
    socklen_t len = sizeof(on);
    assert(fd >= 0 && getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on != 0);
    (void)close(fd);
    hang_up(&c);
    stop(&s);
}

static void test_wildcard_tells_the_address_reached(void) {
    server s;
    prepare(&s, ANSWER);
    serve_on(&s, listen_on_host(INADDR_ANY, &s.address, 128));
    s.address.sin_addr.s_addr = htonl(0x7f000003);
    client c = asked(&s, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    assert(strcmp(s.server, "127.0.0.3") == 0 && s.server_port == ntohs(s.address.sin_port));
    hang_up(&c);
    stop(&s);
}

static void test_ipv6(void) {
    server s;
    prepare(&s, ANSWER);
    struct sockaddr_in6 any = {.sin6_family = AF_INET6};
    socklen_t len = sizeof(any);
    int fd = socket(AF_INET6, SOCK_STREAM, 0), off = 0;
    if (fd < 0 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off)) != 0 ||
        bind(fd, (struct sockaddr *)&any, len) != 0) {
        (void)close(fd);
        return; /* a machine without IPv6 */
    }
    assert(listen(fd, 8) == 0 && getsockname(fd, (struct sockaddr *)&any, &len) == 0);
    start(&s);
    assert(as_loop_listen(s.loop, fd, NULL) == AS_OK);
    s.address.sin_port = any.sin6_port;
    client mapped = asked(&s, GET);
    UNTIL(&s, count_of(&mapped, "hello") == 1);
    assert(strcmp(s.client, "127.0.0.1") == 0 && strcmp(s.server, "127.0.0.1") == 0);
    any.sin6_addr = in6addr_loopback;
    client c = {.fd = socket(AF_INET6, SOCK_STREAM, 0)};
    if (connect(c.fd, (struct sockaddr *)&any, len) == 0) {
        assert(fcntl(c.fd, F_SETFL, O_NONBLOCK) == 0);
        say(&c, GET);
        UNTIL(&s, count_of(&c, "hello") == 1);
        assert(strcmp(s.client, "::1") == 0 && strcmp(s.server, "::1") == 0);
    }
    hang_up(&c);
    hang_up(&mapped);
    stop(&s);
    (void)close(fd);
}

static void test_unix_socket(void) {
    server s;
    prepare(&s, ANSWER);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char folder[] = "/tmp/test_loop_XXXXXX";
    assert(mkdtemp(folder) != NULL);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", folder);
    int fd = listen_at((struct sockaddr *)&address, sizeof(address), 128);
    start(&s);
    assert(as_loop_listen(s.loop, fd, NULL) == AS_OK);
    client c = {.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    assert(connect(c.fd, (struct sockaddr *)&address, sizeof(address)) == 0);
    assert(fcntl(c.fd, F_SETFL, O_NONBLOCK) == 0);
    say(&c, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    assert(s.is_unix && s.client[0] == '\0' && strcmp(s.server, address.sun_path) == 0);
    s.mode = HOLD; /* a half-close and a close can be told apart here */
    say(&c, GET);
    UNTIL(&s, s.held != NULL);
    assert(shutdown(c.fd, SHUT_WR) == 0);
    UNTIL(&s, s.eofs == 1);
    while (turn(&s, 20)) {
    }
    assert(s.aborts == 0);
    hang_up(&c);
    UNTIL(&s, s.aborts == 1);
    UNTIL(&s, stats(&s).connections == 0);
    stop(&s);
    (void)close(fd);
    assert(unlink(address.sun_path) == 0 && rmdir(folder) == 0);
}

/* A socket without a file: its name begins with a NUL. */
static void test_abstract_socket(void) {
    server s;
    prepare(&s, ANSWER);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "test_loop_%d", getpid());
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    int fd = listen_at((struct sockaddr *)&address, len, 128);
    start(&s);
    assert(as_loop_listen(s.loop, fd, NULL) == AS_OK);
    client c = {.fd = socket(AF_UNIX, SOCK_STREAM, 0)};
    assert(connect(c.fd, (struct sockaddr *)&address, len) == 0);
    unblock(c.fd);
    say(&c, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    assert(s.is_unix && s.server[0] == '@' && strcmp(s.server + 1, address.sun_path + 1) == 0);
    hang_up(&c);
    stop(&s);
    (void)close(fd);
}

static void test_what_cannot_be_listened_on(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert(file >= 0 && as_loop_listen(s.loop, file, NULL) == AS_E_IO);
    assert(as_loop_listen(s.loop, s.fd, NULL) == AS_E_IO); /* once more */
    client c = asked(&s, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    hang_up(&c);
    stop(&s);
    (void)close(file);
}

/* --- as_loop_run ------------------------------------------------------------------------------ */

static unsigned waits, waited;

static bool before_wait(void *ctx) {
    waits++;
    return true;
}

static bool after_wait(void *ctx) {
    waited++;
    return ((server *)ctx)->requests == 0;
}

static void *wake_up(void *arg) {
    server *s = arg;
    as_loop_wakeup(s->loop);
    return NULL;
}

static bool until_woken(void *ctx) {
    return false;
}

static void test_run(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.wake = s.config.timer = s.config.drained = NULL;
    start(&s);
    client c = asked(&s, GET);
    as_loop_run(s.loop, before_wait, after_wait, -1); /* until after_wait has seen the request */
    assert(s.requests == 1 && waits == waited && waits >= 2);
    pthread_t thread;
    assert(pthread_create(&thread, NULL, wake_up, &s) == 0);
    as_loop_run(s.loop, NULL, until_woken, -1);
    assert(pthread_join(thread, NULL) == 0);
    as_loop_stop(s.loop);
    as_loop_run(s.loop, NULL, NULL, -1);
    hang_up(&c);
    as_loop_drain(s.loop, 0);
    as_loop_run(s.loop, NULL, NULL, -1); /* returns when all is drained */
    assert(stats(&s).connections == 0);
    stop(&s);
}

#define RUN(test)                                                                                      \
    do {                                                                                               \
        (void)fprintf(stderr, "%s\n", #test);                                                          \
        test();                                                                                        \
    } while (0)

int main(void) {
    (void)alarm(120);
    (void)signal(SIGPIPE, SIG_IGN);
    RUN(test_answers);
    RUN(test_request_is_there_at_once);
    RUN(test_request_of_the_last_moment);
    RUN(test_half_closed_client_is_answered);
    RUN(test_answer_from_outside_leaves_at_once);
    RUN(test_nested_poll);
    RUN(test_large_answer_to_a_slow_reader);
    RUN(test_file);
    RUN(test_file_shrinks);
    RUN(test_reset_while_busy);
    RUN(test_reset_behind_a_half_close);
    RUN(test_reset_while_the_body_is_paused);
    RUN(test_urgent_data_is_nothing);
    RUN(test_idle_clients_come_and_go);
    RUN(test_keep_alive_runs_out);
    RUN(test_silent_and_dripping_clients);
    RUN(test_body_stalls);
    RUN(test_reader_stalls);
    RUN(test_least_rates);
    RUN(test_tunnel);
    RUN(test_tunnel_ends_with_the_client);
    RUN(test_alarm);
    RUN(test_alarm_waits_for_what_is_unsent);
    RUN(test_tunnel_reader_stalls);
    RUN(test_who_floods_goes_last);
    RUN(test_who_asks_for_much_waits_for_others);
    RUN(test_refused_upload_is_answered);
    RUN(test_lingering_ends);
    RUN(test_lingering_ends_for_who_sends_on);
    RUN(test_aborted_answer_looks_broken);
    RUN(test_connection_limit);
    RUN(test_out_of_descriptors);
    RUN(test_connections_are_shared);
    RUN(test_drain);
    RUN(test_drain_in_the_middle_of_an_answer);
    RUN(test_drain_of_nothing_and_from_a_handler);
    RUN(test_drain_leaves_idle_clients_time);
    RUN(test_drain_serves_the_queue);
    RUN(test_drain_refuses_at_once);
    RUN(test_drain_sees_the_last_moment);
    RUN(test_idle_until_the_last_moment);
    RUN(test_cut_while_all_are_told);
    RUN(test_a_forked_child_frees_nothing);
    RUN(test_drain_waits_for_newcomers);
    RUN(test_disconnect);
    RUN(test_mark);
    RUN(test_health);
    RUN(test_overload_is_told_once);
    RUN(test_a_full_spool_is_told_once);
    RUN(test_idle_clients_cost_no_slot);
    RUN(test_abort_all);
    RUN(test_free_in_any_state);
    RUN(test_no_delay_is_inherited);
    RUN(test_wildcard_tells_the_address_reached);
    RUN(test_ipv6);
    RUN(test_unix_socket);
    RUN(test_abstract_socket);
    RUN(test_what_cannot_be_listened_on);
    RUN(test_run);
    return 0;
}

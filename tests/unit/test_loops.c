/* Several loops in several threads of one process: they share nothing. For ThreadSanitizer above
 * all (make tsan), which sees what is shared all the same. */
#include "sockets.h"

#include <pthread.h>
#include <stdio.h>

#define LOOPS 4
#define CONNECTIONS 20
#define REQUESTS 20

typedef struct server {
    as_loop *loop;
    int fd;
    struct sockaddr_in address;
    pthread_t thread;
    unsigned requests;
} server;

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    (void)body;
    ((server *)ctx)->requests++;
    answer_hello(ex);
}

static void nothing(void *ctx, as_exchange *ex) {
    (void)ctx;
    (void)ex;
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    (void)ctx;
    (void)why;
    as_exchange_release(ex);
}

static const as_handlers handlers = {
    .on_request = on_request,
    .on_eof = nothing,
    .on_drain = nothing,
    .on_abort = on_abort,
};

static bool goes_on(void *ctx) {
    as_loop_stats stats;
    as_loop_get_stats(((server *)ctx)->loop, &stats);
    return stats.connections_total < CONNECTIONS || stats.connections > 0;
}

/* Made, run and freed on its own thread. */
static void *serve(void *arg) {
    server *s = arg;
    as_loop_config config = {.handlers = &handlers, .ctx = s};
    as_limits_init(&config.limits);
    s->loop = loop_on(s->fd, &config, NULL);
    as_loop_run(s->loop, goes_on, NULL, 100);
    as_loop_free(s->loop);
    return NULL;
}

static void start(server *s) {
    *s = (server){.fd = -1};
    s->fd = listen_on_loopback(&s->address, CONNECTIONS);
    assert(pthread_create(&s->thread, NULL, serve, s) == 0);
}

static void await_answer(int fd) {
    char text[1024];
    size_t n = 0;
    while (n < 5 || memcmp(text + n - 5, "hello", 5) != 0) {
        ssize_t got = recv(fd, text + n, sizeof(text) - n, 0);
        assert(got > 0);
        n += (size_t)got;
    }
}

static void ask(const server *servers) {
    for (int i = 0; i < CONNECTIONS; i++) {
        for (int at = 0; at < LOOPS; at++) {
            int fd = connect_to_address(&servers[at].address);
            for (int request = 0; request < REQUESTS; request++) {
                assert(send(fd, GET, sizeof(GET) - 1, MSG_NOSIGNAL) == sizeof(GET) - 1);
                await_answer(fd);
            }
            assert(close(fd) == 0);
        }
    }
}

int main(void) {
    server servers[LOOPS];
    for (int i = 0; i < LOOPS; i++) {
        start(&servers[i]);
    }
    ask(servers);
    for (int i = 0; i < LOOPS; i++) {
        assert(pthread_join(servers[i].thread, NULL) == 0);
        assert(servers[i].requests == CONNECTIONS * REQUESTS && close(servers[i].fd) == 0);
    }
    return 0;
}

/* The benchmark's floor: one constant answer from the rings below Python, so that what a request
 * costs on top of this is Python's and the interface's part. Who asks for WebSocket gets each
 * message back.
 *
 *     floor [--host ADDRESS] [--port N] [--timeout-keep-alive SECONDS] [--plain-fields none]
 *           [--tls CERTIFICATE KEY]
 *
 * Prints the port that it listens on; ends on SIGINT and SIGTERM. `--plain-fields none` leaves out
 * the Date and Server fields. */
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http/websocket.h"
#include "http/ws_handshake.h"
#include "net/loop.h"

#define BACKLOG 2048

static as_loop *server_loop; /* for the signal handler */
static volatile sig_atomic_t stopped;

/* --- the gateway ------------------------------------------------------------------------------ */

static as_ws_env *ws_env;

static void leave(as_exchange *ex) {
    as_ws_free(ex->gateway);
    ex->gateway = NULL;
    as_exchange_release(ex); /* aborts what is not complete */
}

static void open_websocket(as_exchange *ex) {
    as_ws_handshake handshake;
    if (as_ws_handshake_read(ex->head, false, &handshake) != AS_OK ||
        (ex->gateway = as_ws_new(ws_env, &handshake.deflate, 0)) == NULL) {
        as_exchange_release(ex);
        return;
    }
    const as_slice pairs[] = {
        AS_SLICE("upgrade"),
        AS_SLICE("websocket"),
        AS_SLICE("sec-websocket-accept"),
        {handshake.accept, sizeof(handshake.accept)},
    };
    if (as_exchange_upgrade(ex, pairs, sizeof(pairs) / sizeof(*pairs)) != AS_OK) {
        leave(ex);
    }
}

static void send_frame(as_exchange *ex, as_ws_opcode opcode, as_slice data) {
    char header[AS_WS_FRAME_HEADER_MAX];
    size_t n = as_ws_frame_header(header, opcode, false, data.n);
    (void)as_exchange_body(ex, (as_bytes){.p = header, .n = n}, true);
    (void)as_exchange_body(ex, (as_bytes){.p = data.p, .n = data.n}, true);
}

static void on_data(void *ctx, as_exchange *ex, as_slice data) {
    as_ws_input in = {(char *)(uintptr_t)data.p, data.n};
    as_ws_event event;
    as_err err = AS_OK;
    while (ex->gateway != NULL) {
        err = as_ws_next(ex->gateway, &in, &event);
        if (err != AS_OK || event.kind == AS_WS_NOTHING) {
            break;
        }
        if (event.kind == AS_WS_MESSAGE_TEXT || event.kind == AS_WS_MESSAGE_BINARY) {
            send_frame(ex, event.kind == AS_WS_MESSAGE_TEXT ? AS_WS_TEXT : AS_WS_BINARY,
                       event.data);
        } else if (event.kind == AS_WS_GOT_CLOSE) {
            send_frame(ex, AS_WS_CLOSE, AS_SLICE("\x03\xe8"));
            (void)as_exchange_end(ex);
            leave(ex);
        }
    }
    if (err != AS_OK) {
        leave(ex);
    }
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    if (ex->head->upgrade && as_ws_is_asked_for(ex->head)) {
        open_websocket(ex);
        return;
    }
    as_slice hello = AS_SLICE("Hello, World!");
    (void)as_exchange_head_begin(ex, 200, (as_slice){0});
    (void)as_exchange_head_field(ex, AS_SLICE("content-type"), AS_SLICE("text/plain"));
    (void)as_exchange_body(ex, (as_bytes){.p = hello.p, .n = hello.n}, false);
    as_exchange_release(ex);
}

static void on_event(void *ctx, as_exchange *ex) {}

/* Of WebSockets only: a request is answered before anything else can happen to it. */
static void on_eof(void *ctx, as_exchange *ex) {
    leave(ex);
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    leave(ex);
}

static void on_close(void *ctx, as_conn_info *info) {}

static void on_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                       uint64_t offset) {
    (void)fprintf(stderr, "%s:%u refused at byte %llu: %s\n", info->client, info->client_port,
                  (unsigned long long)offset, as_err_text(why));
}

static const as_handlers handlers = {
    .on_request = on_request,
    .on_body = on_data,
    .on_end = on_event,
    .on_eof = on_eof,
    .on_abort = on_abort,
    .on_drain = on_event,
    .on_close = on_close,
    .on_refused = on_refused,
};

static void notice(void *ctx, as_notice_level level, const char *text) {
    (void)fprintf(stderr, "%s\n", text);
}

/* --- the process ------------------------------------------------------------------------------ */

static void on_signal(int signal_number) {
    stopped = 1;
    as_loop_wakeup(server_loop);
}

static bool goes_on(void *ctx) {
    return !stopped;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static int listen_on(const char *host, uint16_t port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    socklen_t len = sizeof(address);
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) {
        errno = EINVAL;
        fail(host);
    }
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, (struct sockaddr *)&address, len) != 0 || listen(fd, BACKLOG) != 0 ||
        getsockname(fd, (struct sockaddr *)&address, &len) != 0) {
        fail("listen");
    }
    (void)printf("%u\n", ntohs(address.sin_port));
    (void)fflush(stdout);
    return fd;
}

static void usage(void) {
    (void)fprintf(stderr, "usage: floor [--host ADDRESS] [--port N] "
                          "[--timeout-keep-alive SECONDS] [--plain-fields none] "
                          "[--tls CERTIFICATE KEY]\n");
    exit(2);
}

static unsigned long number(const char *text, unsigned long max) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0 || value > max) {
        usage();
    }
    return value;
}

static as_tls_context *make_tls(const char *certfile, const char *keyfile) {
    as_tls_settings settings = {
        .certfile = certfile,
        .keyfile = keyfile,
        .min_version = AS_TLS_1_2,
        .alpn = AS_SLICE("\x08http/1.1"),
    };
    as_tls_context *context;
    char why[AS_TLS_WHY] = "out of memory";
    if (as_tls_context_new(&settings, &context, why) != AS_OK) {
        (void)fprintf(stderr, "%s\n", why);
        exit(1);
    }
    return context;
}

static void run(const as_loop_config *config, int fd, as_tls_context *tls) {
    server_loop = as_loop_new(config);
    ws_env = as_ws_env_new(NULL);
    if (server_loop == NULL || ws_env == NULL) {
        fail("as_loop_new");
    }
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    as_err err = as_loop_listen(server_loop, fd, tls);
    if (err != AS_OK) {
        (void)fprintf(stderr, "as_loop_listen: %s\n", as_err_text(err));
        exit(1);
    }
    as_loop_run(server_loop, goes_on, goes_on, -1);
    as_loop_free(server_loop);
    as_ws_env_free(ws_env);
}

int main(int argc, char **argv) {
    as_loop_config config = {.handlers = &handlers, .notice = notice};
    as_limits_init(&config.limits);
    const char *host = "127.0.0.1";
    uint16_t port = 0;
    as_tls_context *tls = NULL;
    for (int i = 1; i < argc; i += 2) {
        const char *option = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(option, "--host") == 0) {
            host = value;
        } else if (strcmp(option, "--port") == 0) {
            port = (uint16_t)number(value, UINT16_MAX);
        } else if (strcmp(option, "--timeout-keep-alive") == 0) {
            config.limits.timeout_keep_alive = 1000u * (uint32_t)number(value, UINT32_MAX / 1000u);
        } else if (strcmp(option, "--plain-fields") == 0 && strcmp(value, "none") == 0) {
            config.limits.server_header = config.limits.date_header = false;
        } else if (strcmp(option, "--tls") == 0 && i + 2 < argc) {
            tls = make_tls(value, argv[++i + 1]);
        } else {
            usage();
        }
    }
    int fd = listen_on(host, port);
    run(&config, fd, tls);
    as_tls_context_unref(tls);
    (void)close(fd);
    return 0;
}

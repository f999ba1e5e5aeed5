/* TLS on real sockets: a client of OpenSSL against the loop, both driven by hand from one thread.
 * The client works on memory, and this file carries its bytes to the socket: whole or in pieces.
 * Certificates are made here, in a folder that goes again. */
#ifndef AS_TESTS_TLS_SIDES_H
#define AS_TESTS_TLS_SIDES_H

#include "sockets.h"

#include <dirent.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "net/tls.h"
#include "pair.h"

#define DAY 86400L

/* With the test's name, for the one that hangs. */
#define RUN(test)                                                                                      \
    do {                                                                                               \
        (void)fprintf(stderr, "%s\n", #test);                                                          \
        test();                                                                                        \
    } while (0)

static char folder[64];

/* --- certificates ----------------------------------------------------------------------------- */

/* In a few buffers that take turns: a call may use some of them. */
static inline const char *path_of(const char *name, const char *suffix) {
    static char buffers[8][128];
    static unsigned turn;
    char *out = buffers[turn++ % 8];
    (void)snprintf(out, sizeof(buffers[0]), "%s/%s%s", folder, name, suffix);
    return out;
}

/* NAME.crt and NAME.key for the host `san`. */
static inline void make_files(const char *name, const char *san) {
    pair p = make_pair(name, san, NULL, -DAY, DAY);
    write_pair(&p, path_of(name, ".crt"), path_of(name, ".key"), NULL);
    free_pair(&p);
}

static inline void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "we");
    assert(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static inline void make_folder(void) {
    (void)snprintf(folder, sizeof(folder), "/tmp/test_tls_XXXXXX");
    assert(mkdtemp(folder) != NULL);
    make_files("main", "DNS:main.test");
    make_files("other", "DNS:other.test");
}

static void remove_tree(const char *path) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    assert(dir != NULL);
    while ((entry = readdir(dir)) != NULL) {
        char sub[512];
        (void)snprintf(sub, sizeof(sub), "%s/%s", path, entry->d_name);
        if (entry->d_name[0] != '.' && unlink(sub) != 0) {
            remove_tree(sub);
        }
    }
    (void)closedir(dir);
    assert(rmdir(path) == 0);
}

/* --- the server side -------------------------------------------------------------------------- */

typedef enum mode { ANSWER, HOLD, STREAM, FILE_ANSWER, PAUSE } mode;

typedef struct server {
    as_loop_config config;
    as_tls_settings settings;
    as_loop *loop;
    as_tls_context *context;
    int fd;
    struct sockaddr_in address;
    mode mode;
    as_exchange *held;
    uint64_t stream_at, stream_end;
    unsigned requests, aborts, eofs, closes, refused, wakes;
    uint64_t body_bytes;
    as_err abort_why, refused_why;
    char refused_detail[128], client[64];
    bool is_tls;
    as_tls_info told; /* of the last request: numbers, and the pointers below */
    char told_name[64], told_subject[128], told_version[16];
    char notices[1024];
} server;

/* A stream whose every byte tells where it is. */
static inline char byte_at(uint64_t at) {
    return (char)('!' + (at * 2654435761u >> 16) % 90);
}

static inline void fill(char *out, uint64_t at, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = byte_at(at + i);
    }
}

static inline void nothing(void *owner) {}

/* In pieces of all sizes, small ones to be copied and large ones to be referred to. */
static inline void stream(server *s, as_exchange *ex) {
    static const size_t sizes[] = {1, 7, 300, 16384, 5, 9000, 16385, 40000, 4097, 100000};
    static unsigned turn;
    while (s->stream_at < s->stream_end &&
           as_exchange_pending(ex) <= s->config.limits.limit_write_buffer) {
        size_t n = sizes[turn++ % 10];
        n = n < s->stream_end - s->stream_at ? n : (size_t)(s->stream_end - s->stream_at);
        char *p = malloc(n);
        fill(p, s->stream_at, n);
        s->stream_at += n;
        as_bytes bytes = {.p = p, .n = n, .owner = p, .hold = nothing, .drop = free};
        if (n <= AS_OUTQ_COPY_MAX) {
            bytes.hold = NULL;
        }
        assert(as_exchange_body(ex, bytes, s->stream_at < s->stream_end) == AS_OK);
        if (n <= AS_OUTQ_COPY_MAX) {
            free(p);
        }
    }
    if (s->stream_at == s->stream_end) {
        as_exchange_release(ex);
        s->held = NULL;
    }
}

static inline void answer_file(server *s, as_exchange *ex) {
    char path[] = "/tmp/test_tls_XXXXXX";
    int fd = mkstemp(path);
    size_t n = (size_t)s->stream_end;
    char *bytes = malloc(n);
    fill(bytes, 0, n);
    assert(fd >= 0 && unlink(path) == 0 && write(fd, bytes, n) == (ssize_t)n);
    free(bytes);
    assert(as_exchange_head_begin(ex, 200, (as_slice){0}) == AS_OK);
    assert(as_exchange_file(ex, fd, 0, n, false) == AS_OK);
    as_exchange_release(ex);
}

static inline void note_connection(server *s, const as_conn_info *info) {
    s->is_tls = info->is_tls;
    (void)snprintf(s->client, sizeof(s->client), "%s", info->client);
    const as_tls_info *told = as_tls_describe(info->tls);
    assert(told != NULL && told == as_tls_describe(info->tls));
    s->told = *told;
    (void)snprintf(s->told_name, sizeof(s->told_name), "%s",
                   told->server_name != NULL ? told->server_name : "");
    (void)snprintf(s->told_subject, sizeof(s->told_subject), "%s",
                   told->client_subject != NULL ? told->client_subject : "");
    (void)snprintf(s->told_version, sizeof(s->told_version), "%s", told->version_name);
    assert(strncmp(told->server_cert, "-----BEGIN CERTIFICATE-----\n", 28) == 0);
}

static inline void on_request(void *ctx, as_exchange *ex, as_slice body) {
    server *s = ctx;
    s->requests++;
    s->body_bytes += body.n;
    note_connection(s, ex->info);
    switch (s->mode) {
    case HOLD:
        s->held = ex;
        break;
    case PAUSE:
        as_exchange_pause(ex);
        s->held = ex;
        break;
    case STREAM:
        s->held = ex;
        assert(as_exchange_head_begin(ex, 200, (as_slice){0}) == AS_OK);
        stream(s, ex);
        break;
    case FILE_ANSWER:
        answer_file(s, ex);
        break;
    default:
        answer_hello(ex);
    }
}

static inline void on_body(void *ctx, as_exchange *ex, as_slice data) {
    ((server *)ctx)->body_bytes += data.n;
}

static inline void on_end(void *ctx, as_exchange *ex) {}

static inline void on_eof(void *ctx, as_exchange *ex) {
    ((server *)ctx)->eofs++;
}

static inline void on_abort(void *ctx, as_exchange *ex, as_err why) {
    server *s = ctx;
    s->aborts++;
    s->abort_why = why;
    s->held = NULL;
    as_exchange_release(ex);
}

static inline void on_drain(void *ctx, as_exchange *ex) {
    server *s = ctx;
    if (s->mode == STREAM) {
        stream(s, ex);
    }
}

static inline void on_close(void *ctx, as_conn_info *info) {
    ((server *)ctx)->closes++;
}

static inline void on_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                              uint64_t offset) {
    server *s = ctx;
    s->refused++;
    s->refused_why = why;
    (void)snprintf(s->refused_detail, sizeof(s->refused_detail), "%.*s", (int)detail.n, detail.p);
}

static inline void wake(void *ctx) {
    ((server *)ctx)->wakes++;
}

static inline void notice(void *ctx, as_notice_level level, const char *text) {
    server *s = ctx;
    size_t n = strlen(s->notices);
    (void)snprintf(s->notices + n, sizeof(s->notices) - n, "%s%s\n",
                   level == AS_NOTICE_ERROR ? "error: " : "", text);
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
};

static inline as_tls_settings usual_settings(void) {
    static char certfile[128], keyfile[128];
    (void)snprintf(certfile, sizeof(certfile), "%s", path_of("main", ".crt"));
    (void)snprintf(keyfile, sizeof(keyfile), "%s", path_of("main", ".key"));
    return (as_tls_settings){
        .certfile = certfile,
        .keyfile = keyfile,
        .min_version = AS_TLS_1_2,
        .alpn = {"\x08http/1.1", 9},
    };
}

static inline void prepare(server *s, mode what) {
    *s = (server){.fd = -1, .mode = what, .settings = usual_settings()};
    s->config = (as_loop_config){.handlers = &handlers, .ctx = s, .notice = notice};
    as_limits_init(&s->config.limits);
    s->config.limits.timeout_keep_alive = 10 * PATIENCE; /* nothing ends by waiting for it */
}

static inline as_tls_context *make_context(const as_tls_settings *settings) {
    as_tls_context *context = NULL;
    char why[AS_TLS_WHY] = "";
    as_err err = as_tls_context_new(settings, &context, why);
    if (err != AS_OK) {
        (void)fprintf(stderr, "%s\n", why);
    }
    assert(err == AS_OK && context != NULL);
    return context;
}

static inline void start(server *s) {
    s->fd = listen_on_loopback(&s->address, 512);
    int large = 400000; /* what a client says at once arrives at once */
    assert(setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof(large)) == 0);
    s->context = make_context(&s->settings);
    s->loop = loop_on(s->fd, &s->config, s->context);
}

static inline void stop(server *s) {
    as_loop_free(s->loop);
    as_tls_context_unref(s->context);
    assert(close(s->fd) == 0);
    assert(ERR_peek_error() == 0); /* OpenSSL's queue of this thread is clean */
}

static inline void turn(server *s, int limit) {
    (void)turn_loop(s->loop, limit);
}

static inline uint32_t connections(const server *s) {
    as_loop_stats stats;
    as_loop_get_stats(s->loop, &stats);
    return stats.connections;
}

/* --- the client side -------------------------------------------------------------------------- */

typedef struct client {
    server *s;
    SSL_CTX *ctx;
    SSL *ssl;
    BIO *in, *out; /* the SSL's */
    int fd;
    size_t piece; /* bytes sent at once, a turn of the loop behind each; 0: all */
    heard got;
    bool done;             /* with the handshake */
    bool notified;         /* close_notify came */
    bool eof, reset;       /* of the socket */
    bool lazy;             /* reads nothing from the socket */
    unsigned long failure; /* OpenSSL's */
} client;

static inline int connect_fd(const server *s) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert(fd >= 0);
    int small = 16384;
    assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
    assert(connect(fd, (const struct sockaddr *)&s->address, sizeof(s->address)) == 0);
    assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

static inline client client_on(server *s, int fd, int version) {
    client c = {.s = s, .fd = fd, .ctx = SSL_CTX_new(TLS_client_method())};
    assert(c.ctx != NULL && SSL_CTX_set_min_proto_version(c.ctx, version) == 1);
    assert(SSL_CTX_set_max_proto_version(c.ctx, version) == 1);
    c.ssl = SSL_new(c.ctx);
    c.in = BIO_new(BIO_s_mem());
    c.out = BIO_new(BIO_s_mem());
    assert(c.ssl != NULL && c.in != NULL && c.out != NULL);
    (void)BIO_set_mem_eof_return(c.in, -1);
    SSL_set_bio(c.ssl, c.in, c.out);
    SSL_set_connect_state(c.ssl);
    return c;
}

static inline client connect_to(server *s, int version) {
    return client_on(s, connect_fd(s), version);
}

static inline void send_out(client *c) {
    char *bytes;
    size_t n;
    while (!c->reset && (n = (size_t)BIO_get_mem_data(c->out, &bytes)) > 0) {
        size_t part = c->piece != 0 && c->piece < n ? c->piece : n;
        ssize_t sent = send(c->fd, bytes, part, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            return;
        }
        c->reset = c->reset || sent < 0;
        for (ssize_t left = sent; left > 0;) {
            char drop[4096];
            left -= BIO_read(c->out, drop, left < 4096 ? (int)left : 4096);
        }
        if (c->piece != 0) {
            turn(c->s, 0);
        }
    }
}

static inline void receive_in(client *c) {
    char buf[65536];
    ssize_t n;
    while (!c->lazy && (n = recv(c->fd, buf, sizeof(buf), 0)) != 0) {
        if (n < 0) {
            c->reset = c->reset || errno != EAGAIN;
            return;
        }
        assert(BIO_write(c->in, buf, (int)n) == (int)n);
    }
    c->eof = c->eof || !c->lazy;
}

static inline void note_failure(client *c, int result) {
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_SSL && c->failure == 0) {
        c->failure = ERR_peek_error();
    }
    c->notified = c->notified || error == SSL_ERROR_ZERO_RETURN;
    ERR_clear_error();
}

static inline void read_data(client *c) {
    char buf[16384];
    int n;
    while ((n = SSL_read(c->ssl, buf, sizeof(buf))) > 0) {
        hear(&c->got, buf, (size_t)n);
    }
    note_failure(c, n);
}

/* Goes on as far as it can now. */
static inline void pump(client *c) {
    send_out(c);
    receive_in(c);
    ERR_clear_error();
    if (!c->done) {
        int result = SSL_do_handshake(c->ssl);
        c->done = result == 1;
        if (result != 1) {
            note_failure(c, result);
        }
    }
    if (c->done) {
        read_data(c);
    }
    send_out(c);
}

static inline bool established(client *c) {
    pump(c);
    return c->done;
}

static inline bool ended(client *c) {
    pump(c);
    return c->eof || c->reset;
}

static inline unsigned count_of(client *c, const char *what) {
    pump(c);
    return count_heard(&c->got, what);
}

static inline void say_bytes(client *c, const char *p, size_t n) {
    size_t written;
    assert(SSL_write_ex(c->ssl, p, n, &written) == 1 && written == n);
    pump(c);
}

/* In small records and full ones by turns, so that the server's buffer is full in the middle of
 * one. */
static inline void say_mixed(client *c, const char *p, size_t n) {
    for (size_t at = 0, turns = 0, written; at < n; at += written, turns++) {
        size_t size = turns % 14 < 10 ? 1000 : AS_TLS_RECORD;
        size = size < n - at ? size : n - at;
        assert(SSL_write_ex(c->ssl, p + at, size, &written) == 1 && written == size);
    }
    pump(c);
}

static inline void say(client *c, const char *text) {
    say_bytes(c, text, strlen(text));
}

/* As if all had been said: else OpenSSL would not take the session up again. */
static inline void hang_up(client *c) {
    SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    (void)close(c->fd);
    free(c->got.data);
}

/* A connection whose handshake is over; on which this was said; that was answered a request. */
static inline client established_to(server *s, int version) {
    client c = connect_to(s, version);
    UNTIL(s, established(&c));
    return c;
}

static inline client asked(server *s, int version, const char *text) {
    client c = established_to(s, version);
    say(&c, text);
    return c;
}

static inline client served(server *s, int version) {
    client c = asked(s, version, GET);
    UNTIL(s, count_of(&c, "hello") == 1);
    return c;
}

static inline X509 *certificate_of(const client *c) {
    return SSL_get0_peer_certificate(c->ssl);
}

#endif

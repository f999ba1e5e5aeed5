/* TLS on real sockets: a client of OpenSSL against the loop, both driven by hand from one thread.
 * The client works on memory, and this file carries its bytes to the socket: whole or in pieces.
 * Certificates are made here, in a folder that goes again. */
#include "sockets.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/tls.h"
#include "pair.h"

#define DAY 86400L

static char folder[64];

/* --- certificates ----------------------------------------------------------------------------- */

/* In a few buffers that take turns: a call may use some of them. */
static const char *path_of(const char *name, const char *suffix) {
    static char buffers[8][128];
    static unsigned turn;
    char *out = buffers[turn++ % 8];
    (void)snprintf(out, sizeof(buffers[0]), "%s/%s%s", folder, name, suffix);
    return out;
}

/* NAME.crt and NAME.key for the host `san`. */
static void make_files(const char *name, const char *san) {
    pair p = make_pair(name, san, NULL, -DAY, DAY);
    write_pair(&p, path_of(name, ".crt"), path_of(name, ".key"), NULL);
    free_pair(&p);
}

static void write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "we");
    assert(file != NULL && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void make_folder(void) {
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
static char byte_at(uint64_t at) {
    return (char)('!' + (at * 2654435761u >> 16) % 90);
}

static void fill(char *out, uint64_t at, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = byte_at(at + i);
    }
}

static void nothing(void *owner) {}

/* In pieces of all sizes, small ones to be copied and large ones to be referred to. */
static void stream(server *s, as_exchange *ex) {
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

static void answer_file(server *s, as_exchange *ex) {
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

static void note_connection(server *s, const as_conn_info *info) {
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

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
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

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    ((server *)ctx)->body_bytes += data.n;
}

static void on_end(void *ctx, as_exchange *ex) {}

static void on_eof(void *ctx, as_exchange *ex) {
    ((server *)ctx)->eofs++;
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    server *s = ctx;
    s->aborts++;
    s->abort_why = why;
    s->held = NULL;
    as_exchange_release(ex);
}

static void on_drain(void *ctx, as_exchange *ex) {
    server *s = ctx;
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
    (void)snprintf(s->refused_detail, sizeof(s->refused_detail), "%.*s", (int)detail.n, detail.p);
}

static void wake(void *ctx) {
    ((server *)ctx)->wakes++;
}

static void notice(void *ctx, as_notice_level level, const char *text) {
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

static as_tls_settings usual_settings(void) {
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

static void prepare(server *s) {
    *s = (server){.fd = -1, .settings = usual_settings()};
    s->config = (as_loop_config){.handlers = &handlers, .ctx = s, .notice = notice};
    as_limits_init(&s->config.limits);
    s->config.limits.timeout_keep_alive = 10 * PATIENCE; /* nothing ends by waiting for it */
}

static as_tls_context *make_context(const as_tls_settings *settings) {
    as_tls_context *context = NULL;
    char why[AS_TLS_WHY] = "";
    as_err err = as_tls_context_new(settings, &context, why);
    if (err != AS_OK) {
        (void)fprintf(stderr, "%s\n", why);
    }
    assert(err == AS_OK && context != NULL);
    return context;
}

static void start(server *s) {
    s->fd = listen_on_loopback(&s->address, 512);
    int large = 400000; /* what a client says at once arrives at once */
    assert(setsockopt(s->fd, SOL_SOCKET, SO_RCVBUF, &large, sizeof(large)) == 0);
    s->context = make_context(&s->settings);
    s->loop = as_loop_new(&s->config);
    assert(s->loop != NULL && as_loop_listen(s->loop, s->fd, s->context) == AS_OK);
}

static void stop(server *s) {
    as_loop_free(s->loop);
    as_tls_context_unref(s->context);
    assert(close(s->fd) == 0);
    assert(ERR_peek_error() == 0); /* OpenSSL's queue of this thread is clean */
}

static void turn(server *s, int limit) {
    (void)turn_loop(s->loop, limit);
}

static uint32_t connections(const server *s) {
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

static int connect_fd(const server *s) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert(fd >= 0);
    int small = 16384;
    assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
    assert(connect(fd, (const struct sockaddr *)&s->address, sizeof(s->address)) == 0);
    assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    return fd;
}

static client client_on(server *s, int fd, int version) {
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

static client connect_to(server *s, int version) {
    return client_on(s, connect_fd(s), version);
}

static void send_out(client *c) {
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

static void receive_in(client *c) {
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

static void note_failure(client *c, int result) {
    int error = SSL_get_error(c->ssl, result);
    if (error == SSL_ERROR_SSL && c->failure == 0) {
        c->failure = ERR_peek_error();
    }
    c->notified = c->notified || error == SSL_ERROR_ZERO_RETURN;
    ERR_clear_error();
}

static void read_data(client *c) {
    char buf[16384];
    int n;
    while ((n = SSL_read(c->ssl, buf, sizeof(buf))) > 0) {
        hear(&c->got, buf, (size_t)n);
    }
    note_failure(c, n);
}

/* Goes on as far as it can now. */
static void pump(client *c) {
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

static bool established(client *c) {
    pump(c);
    return c->done;
}

static bool ended(client *c) {
    pump(c);
    return c->eof || c->reset;
}

static unsigned count_of(client *c, const char *what) {
    pump(c);
    return count_heard(&c->got, what);
}

static void say_bytes(client *c, const char *p, size_t n) {
    size_t written;
    assert(SSL_write_ex(c->ssl, p, n, &written) == 1 && written == n);
    pump(c);
}

/* In small records and full ones by turns, so that the server's buffer is full in the middle of
 * one. */
static void say_mixed(client *c, const char *p, size_t n) {
    for (size_t at = 0, turns = 0, written; at < n; at += written, turns++) {
        size_t size = turns % 14 < 10 ? 1000 : AS_TLS_RECORD;
        size = size < n - at ? size : n - at;
        assert(SSL_write_ex(c->ssl, p + at, size, &written) == 1 && written == size);
    }
    pump(c);
}

static void say(client *c, const char *text) {
    say_bytes(c, text, strlen(text));
}

/* As if all had been said: else OpenSSL would not take the session up again. */
static void hang_up(client *c) {
    SSL_set_shutdown(c->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(c->ssl);
    SSL_CTX_free(c->ctx);
    (void)close(c->fd);
    free(c->got.data);
}

/* One connection through to an answered request. */
static client served(server *s, int version) {
    client c = connect_to(s, version);
    UNTIL(s, established(&c));
    say(&c, GET);
    UNTIL(s, count_of(&c, "hello") == 1);
    return c;
}

static X509 *certificate_of(const client *c) {
    return SSL_get0_peer_certificate(c->ssl);
}

/* --- handshakes ------------------------------------------------------------------------------- */

static void test_versions(void) {
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        server s;
        prepare(&s);
        start(&s);
        client c = served(&s, version);
        assert(s.is_tls && s.told.version == version && s.told.cipher != 0);
        assert(strcmp(s.told_version, SSL_get_version(c.ssl)) == 0);
        assert(s.told.nclient_chain == 0 && s.told_subject[0] == '\0');
        say(&c, GET GET);
        UNTIL(&s, count_of(&c, "hello") == 3);
        hang_up(&c);
        UNTIL(&s, connections(&s) == 0);
        assert(s.refused == 0 && s.closes == 1);
        stop(&s);
    }
}

static void test_version_below_the_least(void) {
    server s;
    prepare(&s);
    s.settings.min_version = AS_TLS_1_3;
    start(&s);
    client c = connect_to(&s, TLS1_2_VERSION);
    UNTIL(&s, ended(&c));
    assert(!c.done && ERR_GET_REASON(c.failure) == SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
    UNTIL(&s, s.refused == 1);
    assert(s.refused_why == AS_E_TLS_HANDSHAKE && strstr(s.refused_detail, "protocol") != NULL);
    hang_up(&c);
    stop(&s);
}

static void test_bytes_one_by_one(void) {
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        server s;
        prepare(&s);
        start(&s);
        client c = connect_to(&s, version);
        c.piece = 1;
        UNTIL(&s, established(&c));
        say(&c, GET);
        say(&c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabcdef");
        UNTIL(&s, count_of(&c, "hello") == 2);
        assert(s.body_bytes == 6);
        hang_up(&c);
        stop(&s);
    }
}

static void test_renegotiation_is_refused(void) {
    server s;
    prepare(&s);
    start(&s);
    client c = served(&s, TLS1_2_VERSION);
    assert(SSL_renegotiate(c.ssl) == 1);
    c.done = false;
    UNTIL(&s, (pump(&c), c.failure != 0));
    assert(ERR_GET_REASON(c.failure) == SSL_R_NO_RENEGOTIATION);
    hang_up(&c);
    stop(&s);
}

/* RFC 8446, 4.6.3: the answer to it is written while the server only wants to read. */
static void test_key_update(void) {
    server s;
    prepare(&s);
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    for (unsigned i = 2; i < 6; i++) {
        assert(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
        say(&c, GET);
        UNTIL(&s, count_of(&c, "hello") == i);
    }
    hang_up(&c);
    stop(&s);
}

static void test_handshake_runs_out_of_time(void) {
    server s;
    prepare(&s);
    s.config.limits.timeout_tls_handshake = 300;
    start(&s);
    int silent = connect_fd(&s), stuck = connect_fd(&s);
    assert(send(stuck, "\x16\x03\x01\x02", 4, MSG_NOSIGNAL) == 4);
    UNTIL(&s, connections(&s) == 2);
    UNTIL(&s, connections(&s) == 0);
    assert(s.refused == 1 && s.refused_why == AS_E_TIMEOUT_HANDSHAKE);
    (void)close(silent);
    (void)close(stuck);
    stop(&s);
}

static void test_head_has_its_own_time(void) {
    server s;
    prepare(&s);
    s.config.limits.timeout_request_head = 300;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    say(&c, "GET / HT");
    UNTIL(&s, ended(&c));
    assert(count_of(&c, "HTTP/1.1 408 ") == 1 && c.notified);
    hang_up(&c);
    stop(&s);
}

static void test_crowd(void) {
    server s;
    prepare(&s);
    s.config.limits.limit_tls_handshakes = 2;
    start(&s);
    client open = served(&s, TLS1_3_VERSION); /* does not count any more */
    client first = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, connections(&s) == 2);
    client second = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, connections(&s) == 3);
    client third = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, s.refused == 1 && connections(&s) == 3);
    assert(s.refused_why == AS_E_TLS_CROWD);
    UNTIL(&s, ended(&first));
    UNTIL(&s, established(&second));
    UNTIL(&s, established(&third));
    say(&open, GET);
    UNTIL(&s, count_of(&open, "hello") == 2);
    hang_up(&open);
    hang_up(&first);
    hang_up(&second);
    hang_up(&third);
    stop(&s);
}

/* All say their first word before the server looks; one that is open already is served. */
static void test_flood(void) {
    enum { CLIENTS = 150 };
    server s;
    prepare(&s);
    start(&s);
    client open = served(&s, TLS1_3_VERSION);
    client *clients = calloc(CLIENTS, sizeof(*clients));
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_to(&s, TLS1_3_VERSION);
        pump(&clients[i]);
    }
    say(&open, GET);
    as_loop_poll(s.loop);
    assert(count_of(&open, "hello") == 2);
    int pending = 0;
    for (int i = 0; i < CLIENTS; i++) {
        pending += !established(&clients[i]);
    }
    assert(pending > 0); /* a poll does not do them all */
    for (int i = 0; i < CLIENTS; i++) {
        UNTIL(&s, established(&clients[i]));
        say(&clients[i], GET);
    }
    for (int i = 0; i < CLIENTS; i++) {
        UNTIL(&s, count_of(&clients[i], "hello") == 1);
        hang_up(&clients[i]);
    }
    assert(s.refused == 0);
    free(clients);
    hang_up(&open);
    stop(&s);
}

static void test_free_in_any_state(void) {
    server s;
    prepare(&s);
    s.mode = HOLD;
    start(&s);
    client busy = connect_to(&s, TLS1_3_VERSION), begun = connect_to(&s, TLS1_3_VERSION);
    client idle = connect_to(&s, TLS1_2_VERSION), silent = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&busy) && established(&idle));
    say(&busy, GET);
    pump(&begun);
    UNTIL(&s, s.held != NULL && connections(&s) == 4);
    stop(&s);
    assert(s.aborts == 1 && s.closes == 4);
    hang_up(&busy);
    hang_up(&begun);
    hang_up(&idle);
    hang_up(&silent);
    prepare(&s);
    start(&s);
    stop(&s); /* not once polled */
}

/* --- what is no TLS --------------------------------------------------------------------------- */

static size_t read_all(server *s, int fd, char *out, size_t max) {
    size_t n = 0;
    ssize_t got = -1;
    UNTIL(s, (got = recv(fd, out + n, max - 1 - n, 0)) == 0 || (got < 0 && errno != EAGAIN) ||
                 (got > 0 && (n += (size_t)got, false)));
    out[n] = '\0';
    return n;
}

static void test_plain_http(void) {
    server s;
    prepare(&s);
    start(&s);
    for (int i = 0; i < 2; i++) {
        int fd = connect_fd(&s);
        const char *request = i == 0 ? GET : "post";
        char text[2048];
        assert(send(fd, request, strlen(request), MSG_NOSIGNAL) > 0);
        assert(read_all(&s, fd, text, sizeof(text)) > 0);
        assert(strncmp(text, "HTTP/1.1 400 ", 13) == 0);
        assert(strstr(text, "onnection: close") != NULL);
        assert(strstr(text, "plain HTTP request sent to a TLS port") != NULL);
        assert(s.refused == (unsigned)i + 1 && s.refused_why == AS_E_TLS_PLAIN);
        assert(s.requests == 0);
        (void)close(fd);
    }
    UNTIL(&s, connections(&s) == 0);
    stop(&s);
}

static void test_garbage(void) {
    static const char *const garbage[] = {"\x80\x2e\x01", "\x01", "\xff\xff", "\x16garbage",
                                          "\x16\x03\x01\x00\x05hello"};
    server s;
    prepare(&s);
    start(&s);
    for (unsigned i = 0; i < 5; i++) {
        int fd = connect_fd(&s);
        char text[256];
        assert(send(fd, garbage[i], strlen(garbage[i]) + (i == 4 ? 7 : 0), MSG_NOSIGNAL) > 0);
        (void)read_all(&s, fd, text, sizeof(text));
        assert(s.refused == i + 1);
        assert(s.refused_why == (i < 3 ? AS_E_TLS_NONE : AS_E_TLS_HANDSHAKE));
        (void)close(fd);
    }
    UNTIL(&s, connections(&s) == 0);
    stop(&s);
}

static void test_broken_record(void) {
    server s;
    prepare(&s);
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    assert(send(c.fd, "\x17\x03\x03\x00\x14xxxxxxxxxxxxxxxxxxxx", 25, MSG_NOSIGNAL) == 25);
    UNTIL(&s, s.refused == 1 && connections(&s) == 0);
    assert(s.refused_why == AS_E_TLS_RECORD);
    hang_up(&c);
    stop(&s);
}

static void test_leaving_in_the_handshake(void) {
    server s;
    prepare(&s);
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    pump(&c);
    UNTIL(&s, connections(&s) == 1);
    hang_up(&c);
    int fd = connect_fd(&s);
    (void)close(fd);
    UNTIL(&s, connections(&s) == 0);
    assert(s.refused == 0); /* scanners do so all the time */
    stop(&s);
}

static void test_proxy_header_comes_first(void) {
    server s;
    prepare(&s);
    as_trust trust = {0};
    assert(as_trust_add(&trust, "\x7f\0\0\1", 4, 32) == AS_OK);
    s.config.proxy_protocol = AS_PROXY_AUTO;
    s.config.proxy_trust = &trust;
    start(&s);
    const char header[] = "PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    int fd = connect_fd(&s);
    assert(send(fd, header, strlen(header), MSG_NOSIGNAL) > 0);
    client c = client_on(&s, fd, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    say(&c, GET);
    UNTIL(&s, count_of(&c, "hello") == 1);
    assert(strcmp(s.client, "192.0.2.7") == 0 && s.is_tls);
    hang_up(&c);
    stop(&s);
    as_trust_fini(&trust);
}

/* --- data ------------------------------------------------------------------------------------- */

/* More than is read at once waits in OpenSSL while the socket has nothing to tell. */
static void test_pipelined_requests_that_wait(void) {
    enum { REQUESTS = 12000 };
    server s;
    prepare(&s);
    s.mode = HOLD;
    s.config.limits.limit_pipeline = 1024;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    size_t n = strlen(GET);
    char *all = malloc(n * REQUESTS);
    for (size_t i = 0; i < REQUESTS; i++) {
        memcpy(all + i * n, GET, n);
    }
    say_mixed(&c, all, n * REQUESTS);
    free(all);
    UNTIL(&s, s.held != NULL);
    for (int i = 0; i < 20; i++) {
        pump(&c);
        turn(&s, 1);
    }
    assert(s.requests == 1);
    s.mode = ANSWER;
    answer_hello(s.held);
    UNTIL(&s, count_of(&c, "hello") == REQUESTS);
    hang_up(&c);
    stop(&s);
}

/* The same where nothing is in the way: a few bytes are left when the read buffer is full. */
static void test_rest_of_a_full_buffer(void) {
    static const char head[] = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 75000\r\n\r\n";
    server s;
    prepare(&s);
    s.mode = HOLD;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    size_t n = strlen(head) + 75000;
    char *text = calloc(1, n);
    memcpy(text, head, strlen(head));
    say_mixed(&c, text, n);
    free(text);
    UNTIL(&s, s.body_bytes == 75000);
    answer_hello(s.held);
    UNTIL(&s, count_of(&c, "hello") == 1);
    hang_up(&c);
    stop(&s);
}

static void test_paused_body_goes_on(void) {
    enum { BODY = 600000 };
    server s;
    prepare(&s);
    s.mode = PAUSE;
    start(&s);
    client c = connect_to(&s, TLS1_2_VERSION);
    UNTIL(&s, established(&c));
    say(&c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n\r\n");
    UNTIL(&s, s.held != NULL);
    char *body = calloc(1, BODY);
    say_mixed(&c, body, BODY);
    free(body);
    for (int i = 0; i < 20; i++) {
        pump(&c);
        turn(&s, 1);
    }
    assert(s.body_bytes < BODY);
    as_exchange_resume(s.held);
    UNTIL(&s, (pump(&c), s.body_bytes == BODY));
    answer_hello(s.held);
    UNTIL(&s, count_of(&c, "hello") == 1);
    hang_up(&c);
    stop(&s);
}

/* The body behind the head is byte for byte what was written. */
static void check_stream(const client *c, uint64_t n, bool chunked) {
    const char *at = strstr(c->got.data, "\r\n\r\n");
    assert(at != NULL);
    at += 4;
    uint64_t seen = 0;
    while (seen < n) {
        uint64_t size = n;
        if (chunked) {
            size = strtoull(at, (char **)&at, 16);
            at += 2;
        }
        for (uint64_t i = 0; i < size; i++, seen++, at++) {
            assert(*at == byte_at(seen));
        }
        at += chunked ? 2 : 0;
    }
}

static void test_large_answers_to_a_slow_reader(void) {
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        server s;
        prepare(&s);
        s.mode = STREAM;
        s.stream_end = 6000000;
        start(&s);
        client c = connect_to(&s, version);
        UNTIL(&s, established(&c));
        c.lazy = true;
        say(&c, GET);
        for (int i = 0; i < 30; i++) {
            turn(&s, 1);
        }
        assert(s.held != NULL && s.stream_at < s.stream_end);
        c.lazy = false;
        UNTIL(&s,
              (pump(&c), s.held == NULL) && c.got.len > 6000000 && count_of(&c, "\r\n0\r\n\r\n"));
        check_stream(&c, s.stream_end, true);
        s.mode = ANSWER;
        say(&c, GET);
        UNTIL(&s, (pump(&c), strstr(c.got.data + c.got.len - 5, "hello") != NULL));
        hang_up(&c);
        stop(&s);
    }
}

static void test_file(void) {
    server s;
    prepare(&s);
    s.mode = FILE_ANSWER;
    s.stream_end = 3000001;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    c.lazy = true;
    say(&c, GET);
    for (int i = 0; i < 30; i++) {
        turn(&s, 1);
    }
    c.lazy = false;
    UNTIL(&s, (pump(&c), c.got.len > 3000001));
    check_stream(&c, s.stream_end, false);
    s.mode = ANSWER;
    say(&c, GET);
    UNTIL(&s, (pump(&c), strstr(c.got.data + c.got.len - 5, "hello") != NULL));
    hang_up(&c);
    stop(&s);
}

static void test_stalled_reader_is_cut(void) {
    server s;
    prepare(&s);
    s.mode = STREAM;
    s.stream_end = UINT64_MAX;
    s.config.limits.timeout_write = 300;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    c.lazy = true;
    say(&c, GET);
    UNTIL(&s, s.aborts == 1);
    assert(s.refused_why == AS_E_TIMEOUT_WRITE);
    c.lazy = false;
    UNTIL(&s, ended(&c));
    assert(c.reset && !c.notified);
    hang_up(&c);
    stop(&s);
}

/* --- ends ------------------------------------------------------------------------------------- */

static void test_we_say_goodbye(void) {
    server s;
    prepare(&s);
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    say(&c, GET_CLOSE);
    UNTIL(&s, ended(&c)); /* behind an answer */
    assert(count_of(&c, "hello") == 1 && c.notified && c.eof && !c.reset);
    hang_up(&c);
    client idle = served(&s, TLS1_2_VERSION);
    as_loop_drain(s.loop, 0);
    UNTIL(&s, ended(&idle)); /* without one */
    assert(idle.notified && idle.eof && !idle.reset);
    hang_up(&idle);
    stop(&s);
}

/* The client's goodbye came with its request, and waits in OpenSSL: it keeps nobody awake. */
static void test_lingering_rests(void) {
    server s;
    prepare(&s);
    s.config.wake = wake;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    size_t n;
    assert(SSL_write_ex(c.ssl, GET_CLOSE, strlen(GET_CLOSE), &n) == 1);
    assert(SSL_shutdown(c.ssl) == 0);
    UNTIL(&s, count_of(&c, "hello") == 1 && c.eof);
    turn(&s, 1);
    unsigned before = s.wakes;
    for (int i = 0; i < 10; i++) {
        turn(&s, 1);
    }
    assert(s.wakes == before && connections(&s) == 1);
    hang_up(&c);
    UNTIL(&s, connections(&s) == 0);
    stop(&s);
}

static void test_client_says_goodbye(void) {
    server s;
    prepare(&s);
    s.mode = HOLD;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    say(&c, GET);
    UNTIL(&s, s.held != NULL);
    assert(SSL_shutdown(c.ssl) == 0); /* the socket stays open */
    UNTIL(&s, (pump(&c), s.eofs == 1));
    answer_hello(s.held);
    UNTIL(&s, count_of(&c, "hello") == 1 && ended(&c));
    assert(c.notified && !c.reset && s.aborts == 0);
    hang_up(&c);
    s.mode = ANSWER;
    client together = connect_to(&s, TLS1_2_VERSION); /* with the request, in one read */
    UNTIL(&s, established(&together));
    size_t n;
    assert(SSL_write_ex(together.ssl, GET, strlen(GET), &n) == 1);
    assert(SSL_shutdown(together.ssl) == 0);
    UNTIL(&s, count_of(&together, "hello") == 1 && ended(&together));
    assert(together.notified && s.refused == 0);
    hang_up(&together);
    UNTIL(&s, connections(&s) == 0);
    stop(&s);
}

/* The end of the socket without one: HTTP's own framing tells what is whole. */
static void test_client_is_cut_off(void) {
    server s;
    prepare(&s);
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    assert(shutdown(c.fd, SHUT_WR) == 0);
    UNTIL(&s, connections(&s) == 0);
    assert(s.refused == 0);
    hang_up(&c);
    s.mode = HOLD;
    client half = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&half));
    say(&half, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    UNTIL(&s, s.held != NULL);
    assert(shutdown(half.fd, SHUT_WR) == 0);
    UNTIL(&s, s.aborts == 1);
    assert(s.abort_why == AS_E_TRUNCATED && s.refused_why == AS_E_TRUNCATED);
    hang_up(&half);
    stop(&s);
}

static void test_cut_answer_looks_cut(void) {
    server s;
    prepare(&s);
    s.mode = HOLD;
    start(&s);
    client c = connect_to(&s, TLS1_3_VERSION);
    UNTIL(&s, established(&c));
    say(&c, GET);
    UNTIL(&s, s.held != NULL);
    assert(as_exchange_head_begin(s.held, 200, (as_slice){0}) == AS_OK);
    assert(as_exchange_body(s.held, (as_bytes){.p = "part", .n = 4}, true) == AS_OK);
    UNTIL(&s, count_of(&c, "part") == 1);
    as_exchange_abort(s.held);
    as_exchange_release(s.held);
    UNTIL(&s, ended(&c));
    assert(c.reset && !c.notified);
    hang_up(&c);
    stop(&s);
}

/* --- names and protocols ---------------------------------------------------------------------- */

static bool asks(server *s, const char *name, const char *gets) {
    client c = connect_to(s, TLS1_3_VERSION);
    if (name != NULL) {
        assert(SSL_set_tlsext_host_name(c.ssl, name) == 1);
    }
    UNTIL(s, established(&c));
    bool good = X509_check_host(certificate_of(&c), gets, 0, 0, NULL) == 1;
    say(&c, GET);
    UNTIL(s, count_of(&c, "hello") == 1);
    assert(strcmp(s->told_name, name != NULL ? name : "") == 0);
    BIO *text = BIO_new_mem_buf(s->told.server_cert, -1);
    X509 *told = PEM_read_bio_X509(text, NULL, NULL, NULL);
    assert(told != NULL && X509_cmp(told, certificate_of(&c)) == 0);
    X509_free(told);
    BIO_free(text);
    hang_up(&c);
    return good;
}

static void make_sni_folder(const char *sni) {
    assert(mkdir(sni, 0700) == 0);
    char path[160], key[160];
    pair a = make_pair("a", "DNS:a.test,DNS:*.a.test", NULL, -DAY, DAY);
    (void)snprintf(path, sizeof(path), "%s/a.crt", sni);
    (void)snprintf(key, sizeof(key), "%s/a.key", sni);
    write_pair(&a, path, key, NULL);
    free_pair(&a);
    pair b = make_pair("b.test", NULL, NULL, -DAY, DAY); /* by its common name */
    (void)snprintf(path, sizeof(path), "%s/b.pem", sni);
    write_pair(&b, path, path, NULL);
    free_pair(&b);
    (void)snprintf(path, sizeof(path), "%s/c.cer", sni);
    write_text(path, "nonsense\n");
    (void)snprintf(path, sizeof(path), "%s/README", sni);
    write_text(path, "not looked at\n");
}

static void test_server_names(void) {
    char sni[128];
    (void)snprintf(sni, sizeof(sni), "%s", path_of("sni", ""));
    make_sni_folder(sni);
    server s;
    prepare(&s);
    s.settings.sni_dir = sni;
    start(&s);
    size_t n;
    const as_tls_certificate *rows = as_tls_context_certificates(s.context, &n);
    assert(n == 3 && strcmp(rows[0].names[0], "main.test") == 0 && rows[1].nnames == 2);
    const char *warnings = as_tls_context_warnings(s.context);
    assert(strstr(warnings, "c.cer: no certificate") != NULL && strchr(warnings, '\n') == NULL);
    assert(asks(&s, NULL, "main.test") && asks(&s, "main.test", "main.test"));
    assert(asks(&s, "unknown.test", "main.test"));
    assert(asks(&s, "a.test", "a.test") && asks(&s, "A.TEST", "a.test"));
    assert(asks(&s, "www.a.test", "www.a.test") && asks(&s, "Www.A.test", "a.test"));
    assert(asks(&s, "x.www.a.test", "main.test")); /* an asterisk is one label */
    assert(asks(&s, "b.test", "b.test"));
    stop(&s);
}

static void test_alpn(void) {
    static const struct {
        const char *offered;
        const char *chosen; /* NULL: refused */
    } cases[] = {{"\x08http/1.1", "http/1.1"},
                 {"\x02h2\x08http/1.1", "http/1.1"},
                 {"", ""},
                 {"\x02h2", NULL}};
    server s;
    prepare(&s);
    start(&s);
    for (unsigned i = 0; i < 4; i++) {
        client c = connect_to(&s, i % 2 ? TLS1_2_VERSION : TLS1_3_VERSION);
        const char *offered = cases[i].offered;
        assert(SSL_set_alpn_protos(c.ssl, (const unsigned char *)offered,
                                   (unsigned)strlen(offered)) == 0);
        const unsigned char *chosen;
        unsigned n;
        if (cases[i].chosen != NULL) {
            UNTIL(&s, established(&c));
            SSL_get0_alpn_selected(c.ssl, &chosen, &n);
            assert(n == strlen(cases[i].chosen) && memcmp(chosen, cases[i].chosen, n) == 0);
        } else {
            UNTIL(&s, ended(&c));
            assert(ERR_GET_REASON(c.failure) == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL);
        }
        hang_up(&c);
    }
    stop(&s);
}

/* --- sessions --------------------------------------------------------------------------------- */

/* Another connection with the session of `c`; true: it was taken up. */
static bool resumes(server *s, client *c) {
    SSL_SESSION *session = SSL_get1_session(c->ssl);
    assert(session != NULL && SSL_SESSION_has_ticket(session));
    client again = connect_to(s, SSL_version(c->ssl));
    assert(SSL_set_session(again.ssl, session) == 1);
    UNTIL(s, established(&again));
    say(&again, GET);
    UNTIL(s, count_of(&again, "hello") == 1);
    bool resumed = SSL_session_reused(again.ssl) == 1;
    SSL_SESSION_free(session);
    hang_up(&again);
    return resumed;
}

static void test_sessions(void) {
    unsigned char key[AS_TLS_TICKET_KEY] = "a key that two workers share";
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        server one, two, stranger;
        prepare(&one);
        prepare(&two);
        prepare(&stranger);
        one.settings.ticket_key = two.settings.ticket_key = key;
        start(&one);
        start(&two);
        start(&stranger);
        client c = served(&one, version);
        assert(!SSL_session_reused(c.ssl));
        assert(resumes(&one, &c));
        assert(resumes(&two, &c));
        assert(!resumes(&stranger, &c));
        hang_up(&c);
        stop(&one);
        stop(&two);
        stop(&stranger);
    }
}

/* --- clients' certificates -------------------------------------------------------------------- */

static void show_certificate(client *c, const pair *p) {
    assert(SSL_use_certificate(c->ssl, p->certificate) == 1);
    assert(SSL_use_PrivateKey(c->ssl, p->key) == 1);
}

static void test_client_certificates(void) {
    pair ca = make_pair("authority", NULL, NULL, -DAY, DAY);
    pair good = make_pair("ren\xc3\xa9, the client", NULL, &ca, -DAY, DAY);
    pair stranger = make_pair("stranger", NULL, NULL, -DAY, DAY);
    write_pair(&ca, path_of("ca", ".crt"), path_of("ca", ".key"), NULL);
    char ca_file[128];
    (void)snprintf(ca_file, sizeof(ca_file), "%s", path_of("ca", ".crt"));
    for (int verify = AS_TLS_VERIFY_OPTIONAL; verify <= AS_TLS_VERIFY_REQUIRED; verify++) {
        server s;
        prepare(&s);
        s.settings.ca_certs = ca_file;
        s.settings.verify = (as_tls_verify)verify;
        start(&s);
        client c = connect_to(&s, TLS1_3_VERSION);
        show_certificate(&c, &good);
        UNTIL(&s, established(&c));
        say(&c, GET);
        UNTIL(&s, count_of(&c, "hello") == 1);
        assert(s.told.nclient_chain == 1);
        assert(strcmp(s.told_subject, "CN=ren\\C3\\A9\\, the client") == 0);
        assert(resumes(&s, &c) && strcmp(s.told_subject, "CN=ren\\C3\\A9\\, the client") == 0);
        hang_up(&c);
        client bad = connect_to(&s, TLS1_2_VERSION);
        show_certificate(&bad, &stranger);
        UNTIL(&s, ended(&bad));
        assert(!bad.done && s.refused_why == AS_E_TLS_HANDSHAKE);
        assert(strcmp(s.refused_detail, "self-signed certificate") == 0);
        hang_up(&bad);
        client none = connect_to(&s, TLS1_2_VERSION);
        UNTIL(&s, ended(&none) || none.done);
        assert(none.done == (verify == AS_TLS_VERIFY_OPTIONAL));
        hang_up(&none);
        stop(&s);
    }
    free_pair(&ca);
    free_pair(&good);
    free_pair(&stranger);
}

/* A client of TLS 1.3 has sent its request before it hears that it is not let in. Bytes that nobody
 * reads would make the end of the connection a reset, which destroys the alert. */
static void test_alert_arrives(void) {
    pair ca = make_pair("authority", NULL, NULL, -DAY, DAY);
    write_pair(&ca, path_of("ca", ".crt"), path_of("ca", ".key"), NULL);
    free_pair(&ca);
    server s;
    prepare(&s);
    s.settings.ca_certs = path_of("ca", ".crt");
    s.settings.verify = AS_TLS_VERIFY_REQUIRED;
    start(&s);
    for (int i = 0; i < 20; i++) {
        client c = connect_to(&s, TLS1_3_VERSION);
        UNTIL(&s, (receive_in(&c), SSL_do_handshake(c.ssl)) == 1 || (send_out(&c), false));
        c.done = true;
        size_t n;
        char *body = calloc(1, 100000);
        assert(SSL_write_ex(c.ssl, GET, strlen(GET), &n) == 1);
        assert(SSL_write_ex(c.ssl, body, 100000, &n) == 1);
        free(body);
        UNTIL(&s, ended(&c));
        assert(c.eof && !c.reset);
        assert(ERR_GET_REASON(c.failure) == SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED);
        hang_up(&c);
    }
    assert(s.requests == 0 && s.refused == 20);
    stop(&s);
}

/* --- other certificates while it runs --------------------------------------------------------- */

static bool shows(server *s, const char *name) {
    client c = connect_to(s, TLS1_3_VERSION);
    UNTIL(s, established(&c));
    bool good = X509_check_host(certificate_of(&c), name, 0, 0, NULL) == 1;
    hang_up(&c);
    return good;
}

static void test_files_change(void) {
    make_files("live", "DNS:old.test");
    char certfile[128], keyfile[128];
    (void)snprintf(certfile, sizeof(certfile), "%s", path_of("live", ".crt"));
    (void)snprintf(keyfile, sizeof(keyfile), "%s", path_of("live", ".key"));
    server s;
    prepare(&s);
    s.settings.certfile = certfile;
    s.settings.keyfile = keyfile;
    s.settings.reload_interval = 100;
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    assert(shows(&s, "old.test") && s.notices[0] == '\0');
    write_text(keyfile, "half a file\n");
    UNTIL(&s, strstr(s.notices, "error: TLS: cannot reload, the old certificates stay: ") != NULL);
    assert(strstr(s.notices, "live.key: no usable private key") != NULL);
    assert(shows(&s, "old.test"));
    int64_t from = now_ms();
    UNTIL(&s, now_ms() - from > 1200); /* several looks: it is said once */
    const char *told = strstr(s.notices, "cannot reload");
    assert(strstr(told + 1, "cannot reload") == NULL);
    make_files("live", "DNS:new.test");
    UNTIL(&s, strstr(s.notices, "\nTLS: reloaded ") != NULL);
    assert(shows(&s, "new.test"));
    say(&c, GET); /* goes on with what it has */
    UNTIL(&s, count_of(&c, "hello") == 2);
    assert(resumes(&s, &c)); /* the key of the tickets stays */
    hang_up(&c);
    stop(&s);
}

static void test_another_context(void) {
    server s;
    prepare(&s);
    start(&s);
    client c = served(&s, TLS1_2_VERSION);
    assert(shows(&s, "main.test"));
    char certfile[128], keyfile[128];
    (void)snprintf(certfile, sizeof(certfile), "%s", path_of("other", ".crt"));
    (void)snprintf(keyfile, sizeof(keyfile), "%s", path_of("other", ".key"));
    as_tls_settings settings = usual_settings();
    settings.certfile = certfile;
    settings.keyfile = keyfile;
    as_tls_context *other = make_context(&settings);
    as_loop_set_tls(s.loop, other);
    as_tls_context_unref(other);
    assert(shows(&s, "other.test"));
    say(&c, GET);
    UNTIL(&s, count_of(&c, "hello") == 2);
    hang_up(&c);
    stop(&s);
}

/* --- settings that cannot be ------------------------------------------------------------------ */

static void refuses(as_tls_settings settings, const char *reason) {
    as_tls_context *context = NULL;
    char why[AS_TLS_WHY] = "";
    assert(as_tls_context_new(&settings, &context, why) == AS_E_TLS_SETTINGS && context == NULL);
    if (strstr(why, reason) == NULL || strchr(why, '\n') != NULL) {
        (void)fprintf(stderr, "got \"%s\", expected \"%s\"\n", why, reason);
        abort();
    }
    assert(ERR_peek_error() == 0);
}

static void test_files_that_cannot_be_used(void) {
    pair late = make_pair("late", NULL, NULL, -2 * DAY, -DAY);
    pair early = make_pair("early", NULL, NULL, DAY, 2 * DAY);
    pair secret = make_pair("secret", NULL, NULL, -DAY, DAY);
    write_pair(&late, path_of("late", ".crt"), path_of("late", ".key"), NULL);
    write_pair(&early, path_of("early", ".crt"), path_of("early", ".key"), NULL);
    write_pair(&secret, path_of("secret", ".crt"), path_of("secret", ".key"), "open sesame");
    free_pair(&late);
    free_pair(&early);
    free_pair(&secret);
    write_text(path_of("empty", ".pem"), "");
    as_tls_settings usual = usual_settings(), s = usual;
    s.certfile = path_of("missing", ".crt");
    refuses(s, "missing.crt: No such file");
    s.certfile = folder;
    refuses(s, ": Is a directory");
    s.certfile = path_of("empty", ".pem");
    refuses(s, "empty.pem: no certificate in PEM form");
    s.certfile = path_of("main", ".key");
    refuses(s, "main.key: no certificate in PEM form");
    s = usual;
    s.keyfile = NULL;
    refuses(s, "main.crt: no usable private key in PEM form");
    s.keyfile = path_of("other", ".key");
    refuses(s, "other.key: the private key does not belong to the certificate in ");
    s.certfile = path_of("late", ".crt");
    s.keyfile = path_of("late", ".key");
    refuses(s, "late.crt: the certificate has expired at 20");
    s.certfile = path_of("early", ".crt");
    s.keyfile = path_of("early", ".key");
    refuses(s, "early.crt: the certificate is not valid before 20");
    s.certfile = path_of("secret", ".crt");
    s.keyfile = path_of("secret", ".key");
    refuses(s, "secret.key: the private key is encrypted, and no password is given");
    s.password = AS_SLICE("open barley");
    refuses(s, "secret.key: wrong password");
    s.password = AS_SLICE("open sesame");
    as_tls_context_unref(make_context(&s));
}

static void test_rules_that_cannot_be(void) {
    as_tls_settings usual = usual_settings(), s = usual;
    s.ciphers = "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-NONSENSE";
    refuses(s, "unknown cipher: ECDHE-NONSENSE");
    s.ciphers = "TLS_NONSENSE";
    refuses(s, "unknown cipher: TLS_NONSENSE");
    s.ciphers = "HIGH:!aNULL:@SECLEVEL=1:TLS_CHACHA20_POLY1305_SHA256";
    as_tls_context_unref(make_context(&s));
    s = usual;
    s.min_version = 0x0301;
    refuses(s, "min_version must be 0x0303 (TLS 1.2) or 0x0304: 0x0301");
    s = usual;
    s.verify = AS_TLS_VERIFY_REQUIRED;
    refuses(s, "ca_certs must say who signs them");
    s.ca_certs = path_of("main", ".key");
    refuses(s, "main.key: no certificate in PEM form");
    s.ca_certs = path_of("missing", ".pem");
    refuses(s, "missing.pem: No such file");
    s = usual;
    s.sni_dir = path_of("missing", "");
    refuses(s, "missing: No such file");
    char bare[128];
    (void)snprintf(bare, sizeof(bare), "%s", path_of("bare", ""));
    assert(mkdir(bare, 0700) == 0);
    s.sni_dir = bare;
    refuses(s, "bare: no usable pair of certificate and key");
}

static void test_ciphers(void) {
    server s;
    prepare(&s);
    s.settings.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305:TLS_CHACHA20_POLY1305_SHA256";
    start(&s);
    client c = served(&s, TLS1_2_VERSION), d = served(&s, TLS1_3_VERSION);
    assert(strcmp(SSL_get_cipher(c.ssl), "ECDHE-ECDSA-CHACHA20-POLY1305") == 0);
    assert(strcmp(SSL_get_cipher(d.ssl), "TLS_CHACHA20_POLY1305_SHA256") == 0);
    assert(s.told.cipher == 0x1303);
    hang_up(&c);
    hang_up(&d);
    stop(&s);
}

#define RUN(test)                                                                                      \
    do {                                                                                               \
        (void)fprintf(stderr, "%s\n", #test);                                                          \
        test();                                                                                        \
    } while (0)

int main(void) {
    (void)alarm(240);
    (void)signal(SIGPIPE, SIG_IGN);
    make_folder();
    RUN(test_versions);
    RUN(test_version_below_the_least);
    RUN(test_bytes_one_by_one);
    RUN(test_renegotiation_is_refused);
    RUN(test_key_update);
    RUN(test_handshake_runs_out_of_time);
    RUN(test_head_has_its_own_time);
    RUN(test_crowd);
    RUN(test_flood);
    RUN(test_free_in_any_state);
    RUN(test_plain_http);
    RUN(test_garbage);
    RUN(test_broken_record);
    RUN(test_leaving_in_the_handshake);
    RUN(test_proxy_header_comes_first);
    RUN(test_pipelined_requests_that_wait);
    RUN(test_rest_of_a_full_buffer);
    RUN(test_paused_body_goes_on);
    RUN(test_large_answers_to_a_slow_reader);
    RUN(test_file);
    RUN(test_stalled_reader_is_cut);
    RUN(test_we_say_goodbye);
    RUN(test_lingering_rests);
    RUN(test_client_says_goodbye);
    RUN(test_client_is_cut_off);
    RUN(test_cut_answer_looks_cut);
    RUN(test_server_names);
    RUN(test_alpn);
    RUN(test_sessions);
    RUN(test_client_certificates);
    RUN(test_alert_arrives);
    RUN(test_files_change);
    RUN(test_another_context);
    RUN(test_files_that_cannot_be_used);
    RUN(test_rules_that_cannot_be);
    RUN(test_ciphers);
    remove_tree(folder);
    return 0;
}

/* Every allocation of the server fails in turn: once, or from there on until the client has what it
 * gets. A request is answered as it would be, or its one connection ends in a way that shows that
 * the answer is not the whole; nothing is lost; and the next client is served.
 *
 * Loop, gateway and client are driven by hand on one thread, so that each run allocates in the same
 * order. Only the server's turns count (scarce.h).
 *
 *   test_no_memory [JSON [SPARSE [NAME]]]
 *
 * JSON: the results' file; SPARSE: one of so many allocations fails, 1: each; NAME: a scenario. */
#include "sockets.h"

#include <signal.h>
#include <stdio.h>

#include <openssl/err.h>
#include <openssl/ssl.h>

#include "http/forwarded.h"
#include "http/ws_handshake.h"
#include "net/bridge.h"
#include "net/tls.h"
#include "pair.h"
#include "scarce.h"
#include "ws_corpus.h"

#define LARGE ((size_t)300 * 1000)
#define RUNS_MOST 400u /* of a scenario, where not each allocation is to fail */
#define QUIET 10000    /* milliseconds in which something has to happen */
#define DAY 86400L

#define REQUEST(line) line " HTTP/1.1\r\nHost: a\r\n\r\n"
#define HELLO REQUEST("GET /hello")

/* --- the scenarios ---------------------------------------------------------------------------- */

typedef struct scenario {
    const char *name;
    as_slice bytes;  /* what the client says */
    as_slice end;    /* behind which it has got everything; empty: the end of the connection */
    as_slice second; /* what it says then */
    bool in_pieces;  /* byte by byte */
    bool bridged;    /* answered by a hand */
    bool tls, proxied;
    bool unframed; /* the end of the connection is the end of the answer */
    bool tunnel;
} scenario;

#define TEN(x) x x x x x x x x x x
#define CHUNKED                                                                                        \
    "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"                         \
    "5;x=y\r\nhello\r\n6\r\n world\r\n0\r\nTrailer-Field: 1\r\n\r\n"
#define UPGRADE                                                                                        \
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"                  \
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"                 \
    "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
#define FRAMES                                                                                         \
    TEXT("\x85", "Hello")                                                                              \
    FRAME("\x01", "\x83", "Hel")                                                                       \
    FRAME("\x89", "\x82", "hi")                                                                        \
    FRAME("\x80", "\x82", "lo")                                                                        \
    FRAME("\xc1", "\x87", "\xf2\x48\xcd\xc9\xc9\x07\x00")                                              \
    FRAME("\xc1", "\x85", "\xf2\x00\x11\x00\x00") FRAME("\x88", "\x82", "\x03\xe8")
#define PROXY_V1 "PROXY TCP4 192.0.2.1 192.0.2.2 1000 2000\r\n"
#define FIELDS_40 TEN("X-Field: 1\r\n") TEN("X-Field: 2\r\n") TEN("X-Field: 3\r\n") TEN("X-Field: 4\r\n")

static const scenario scenarios[] = {
    {"request", .bytes = RAW(HELLO), .end = RAW("hello")},
    {"pipelined", .bytes = RAW(TEN(HELLO) REQUEST("GET /last")), .end = RAW("last")},
    {"held", .bytes = RAW(REQUEST("GET /held") TEN(HELLO) REQUEST("GET /last")),
     .end = RAW("last")},
    {"in pieces", .bytes = RAW("GET /last HTTP/1.1\r\nHost: a\r\n" FIELDS_40 "\r\n"),
     .end = RAW("last"), .in_pieces = true},
    {"chunked body", .bytes = RAW(CHUNKED REQUEST("GET /last")), .end = RAW("last")},
    {"chunked body in pieces", .bytes = RAW(CHUNKED REQUEST("GET /last")), .end = RAW("last"),
     .in_pieces = true},
    {"100 Continue",
     .bytes =
         RAW("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"),
     .end = RAW("100 Continue\r\n\r\n"), .second = RAW("hello")},
    {"large", .bytes = RAW(REQUEST("GET /large") REQUEST("GET /last")), .end = RAW("last")},
    {"stream", .bytes = RAW(REQUEST("GET /stream") REQUEST("GET /last")), .end = RAW("last")},
    {"stream to 1.0", .bytes = RAW("GET /stream HTTP/1.0\r\n\r\n"), .unframed = true},
    {"file", .bytes = RAW(REQUEST("GET /file") REQUEST("GET /last")), .end = RAW("last")},
    {"health", .bytes = RAW(REQUEST("GET /health") REQUEST("GET /last")), .end = RAW("last")},
    {"refused", .bytes = RAW("GET / HTTP/1.1\r\n\r\n")},
    {"forwarded",
     .bytes = RAW("GET /last HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.2.1\r\n"
                  "X-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\n\r\n"),
     .end = RAW("last")},
    {"PROXY protocol", .bytes = RAW(PROXY_V1 REQUEST("GET /last")), .end = RAW("last"),
     .in_pieces = true, .proxied = true},
    {"WebSocket", .bytes = RAW(UPGRADE), .end = RAW("\r\n\r\n"), .second = RAW(FRAMES),
     .tunnel = true},
    {"WebSocket in pieces", .bytes = RAW(UPGRADE), .end = RAW("\r\n\r\n"), .second = RAW(FRAMES),
     .in_pieces = true, .tunnel = true},
    {"bridge", .bytes = RAW(TEN(HELLO) REQUEST("GET /last")), .end = RAW("last"), .bridged = true},
    {"bridge: body", .bytes = RAW(CHUNKED REQUEST("GET /last")), .end = RAW("last"),
     .bridged = true},
    {"bridge: large", .bytes = RAW(REQUEST("GET /large") REQUEST("GET /last")), .end = RAW("last"),
     .bridged = true},
    {"bridge: stream", .bytes = RAW(REQUEST("GET /stream") REQUEST("GET /last")),
     .end = RAW("last"), .bridged = true},
    {"bridge: file", .bytes = RAW(REQUEST("GET /file") REQUEST("GET /last")), .end = RAW("last"),
     .bridged = true},
    {"TLS", .bytes = RAW(HELLO REQUEST("GET /large") REQUEST("GET /last")), .end = RAW("last"),
     .tls = true},
    {"TLS: bridge", .bytes = RAW(HELLO REQUEST("GET /last")), .end = RAW("last"), .tls = true,
     .bridged = true},
};

/* --- the server ------------------------------------------------------------------------------- */

typedef struct server {
    const scenario *what;
    as_loop_config config;
    as_forwarding forwarding;
    as_loop *loop;
    as_bridge *bridge;
    as_spools spools; /* whose files are none */
    as_hand hand;
    int fd;
    struct sockaddr_in address;
    as_exchange *held; /* answered at the end of the turn */
    as_ws_env *env;
    int loans;
    unsigned notices;
} server;

static char large[LARGE];
static as_tls_context *context;
static int64_t clock_offset; /* milliseconds */

int __real_clock_gettime(clockid_t clock, struct timespec *now);
int __wrap_clock_gettime(clockid_t clock, struct timespec *now);

/* Half a second that the server lets pass before it accepts again need not pass here. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *now) {
    int result = __real_clock_gettime(clock, now);
    now->tv_sec += clock_offset / 1000;
    return result;
}

static void hold(void *owner) {
    ++*(int *)owner;
}

static void drop(void *owner) {
    --*(int *)owner;
}

static bool is(const as_exchange *ex, const char *path) {
    return as_slice_eq(as_head_slice(ex->head, ex->head->path), (as_slice){path, strlen(path)});
}

static as_err give(as_exchange *ex, as_slice data, bool more) {
    return as_exchange_body(ex, (as_bytes){.p = data.p, .n = data.n}, more);
}

static as_err begin(as_exchange *ex) {
    as_err err = as_exchange_head_begin(ex, 200, AS_SLICE(""));
    if (err == AS_OK) {
        err = as_exchange_head_field(ex, AS_SLICE("x-y"), AS_SLICE("z"));
    }
    return err;
}

static as_err give_loan(server *s, as_exchange *ex, bool more) {
    as_bytes loan = {large, LARGE, &s->loans, hold, drop};
    return as_exchange_body(ex, loan, more);
}

/* Small pieces, borrowed ones, and a trailer where the bridge does not stand in between. */
static as_err give_stream(server *s, as_exchange *ex) {
    as_err err = give(ex, AS_SLICE("one"), true);
    err = err != AS_OK ? err : as_exchange_flush(ex);
    err = err != AS_OK ? err : give(ex, (as_slice){large, 20000}, true);
    err = err != AS_OK ? err : give_loan(s, ex, true);
    err = err != AS_OK ? err : give(ex, AS_SLICE("two"), true);
    if (s->bridge != NULL) {
        return err != AS_OK ? err : give(ex, AS_SLICE(""), false);
    }
    err = err != AS_OK ? err : as_exchange_trailer(ex, AS_SLICE("x-trailer"), AS_SLICE("1"));
    return err != AS_OK ? err : as_exchange_end(ex);
}

static as_err give_file(as_exchange *ex) {
    int fd = as_open_temporary_file();
    if (fd < 0 || as_write_all(fd, (as_slice){large, LARGE}) != AS_OK) {
        return AS_E_IO;
    }
    return as_exchange_file(ex, fd, 1, LARGE - 1, false);
}

static as_err respond(server *s, as_exchange *ex, as_slice body) {
    as_err err = begin(ex);
    if (err != AS_OK) {
        return err;
    }
    if (is(ex, "/large")) {
        return give_loan(s, ex, false);
    }
    if (is(ex, "/stream")) {
        return give_stream(s, ex);
    }
    if (is(ex, "/file")) {
        return give_file(ex);
    }
    return give(ex,
                is(ex, "/echo")   ? body
                : is(ex, "/last") ? AS_SLICE("last")
                                  : AS_SLICE("hello"),
                false);
}

/* As the gateways do: a head that has not left is taken back for an answer that says what is
 * wrong. */
static void give_up(as_exchange *ex) {
    as_exchange_head_abandon(ex);
    (void)as_exchange_refuse(ex, AS_E_NOMEM);
    as_exchange_release(ex);
}

static void answer(server *s, as_exchange *ex, as_slice body) {
    if (respond(s, ex, body) != AS_OK && s->bridge == NULL) {
        give_up(ex);
    } else {
        as_exchange_release(ex);
    }
}

/* --- WebSocket -------------------------------------------------------------------------------- */

static as_err send_frame(as_exchange *ex, as_ws_opcode opcode, bool compressed, as_slice data) {
    char header[AS_WS_FRAME_HEADER_MAX];
    size_t n = as_ws_frame_header(header, opcode, compressed, data.n);
    as_err err = give(ex, (as_slice){header, n}, true);
    return err != AS_OK ? err : give(ex, data, opcode != AS_WS_CLOSE);
}

static as_err answer_event(as_exchange *ex, as_ws *ws, const as_ws_event *event) {
    as_slice data = event->data, deflated;
    as_err err;
    switch (event->kind) {
    case AS_WS_GOT_PING:
        return send_frame(ex, AS_WS_PONG, false, data);
    case AS_WS_GOT_CLOSE:
        return send_frame(ex, AS_WS_CLOSE, false, AS_SLICE("\x03\xe8"));
    default:
        err = as_ws_deflate(ws, data, &deflated);
        return err != AS_OK ? err : send_frame(ex, AS_WS_TEXT, true, deflated);
    }
}

static void end_tunnel(as_exchange *ex) {
    as_ws_free(ex->gateway);
    as_exchange_release(ex);
}

static void on_tunnel(as_exchange *ex, as_slice data) {
    as_ws_input in = {(char *)(uintptr_t)data.p, data.n};
    as_ws_event event = {.kind = AS_WS_NOTHING};
    as_err err;
    while ((err = as_ws_next(ex->gateway, &in, &event)) == AS_OK && event.kind != AS_WS_NOTHING) {
        err = answer_event(ex, ex->gateway, &event);
        if (err != AS_OK || event.kind == AS_WS_GOT_CLOSE) {
            break;
        }
    }
    if (err != AS_OK || event.kind == AS_WS_GOT_CLOSE) {
        end_tunnel(ex);
    }
}

static void begin_tunnel(server *s, as_exchange *ex) {
    as_ws_handshake handshake;
    as_err err = as_ws_handshake_read(ex->head, true, &handshake);
    if (err == AS_OK && s->env == NULL) {
        s->env = as_ws_env_new(NULL);
    }
    as_ws *ws = err == AS_OK && s->env != NULL ? as_ws_new(s->env, &handshake.deflate, 0) : NULL;
    as_slice pairs[2] = {AS_SLICE("sec-websocket-accept"),
                         {handshake.accept, sizeof(handshake.accept)}};
    if (ws == NULL || (err = as_exchange_upgrade(ex, pairs, 2)) != AS_OK) {
        as_ws_free(ws);
        assert(err == AS_OK || err == AS_E_NOMEM);
        give_up(ex);
        return;
    }
    ex->gateway = ws;
    as_exchange_set_alarm(ex, 1000 * 1000);
}

/* --- the gateway ------------------------------------------------------------------------------ */

static void drop_body(as_exchange *ex) {
    if (ex->gateway != NULL) {
        as_spool_fini(ex->gateway);
        free(ex->gateway);
        ex->gateway = NULL;
    }
}

static void take_in(server *s, as_exchange *ex, as_slice data) {
    if (as_spool_append(ex->gateway, data) != AS_OK) {
        drop_body(ex);
        give_up(ex);
    } else if (ex->req == AS_REQ_DONE) {
        as_spool *spool = ex->gateway;
        ex->gateway = NULL;
        answer(s, ex, (as_slice){spool->memory.data, spool->memory.len});
        as_spool_fini(spool);
        free(spool);
    }
}

static void on_bridged(server *s, as_exchange *ex, as_slice body) {
    as_remote *remote = as_remote_new(s->bridge, ex, &s->spools);
    if (remote == NULL) {
        (void)as_exchange_refuse(ex, AS_E_NOMEM);
        as_exchange_release(ex);
    } else if (as_spool_append(&remote->body, body) != AS_OK) {
        as_remote_drop(remote);
    } else if (ex->req == AS_REQ_DONE) {
        as_remote_queue(remote);
    }
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    server *s = ctx;
    if (s->bridge != NULL) {
        on_bridged(s, ex, body);
    } else if (is(ex, "/ws")) {
        begin_tunnel(s, ex);
    } else if (is(ex, "/held")) {
        s->held = ex;
    } else if (is(ex, "/echo")) {
        as_spool *spool = malloc(sizeof(*spool));
        if (spool == NULL) {
            give_up(ex);
            return;
        }
        ex->gateway = spool;
        as_spool_init(spool, &s->spools);
        as_exchange_want_body(ex);
        take_in(s, ex, body);
    } else {
        answer(s, ex, body);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    server *s = ctx;
    if (s->bridge != NULL) {
        if (as_spool_append(&((as_remote *)ex->gateway)->body, data) != AS_OK) {
            as_remote_drop(ex->gateway);
        }
    } else if (ex->status == 101) {
        on_tunnel(ex, data);
    } else {
        take_in(s, ex, data);
    }
}

static void on_end(void *ctx, as_exchange *ex) {
    server *s = ctx;
    if (s->bridge != NULL) {
        as_remote_queue(ex->gateway);
    } else {
        take_in(s, ex, AS_SLICE(""));
    }
}

static void on_eof(void *ctx, as_exchange *ex) {
    (void)ctx;
    if (ex->status == 101) {
        end_tunnel(ex);
    }
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    server *s = ctx;
    (void)why;
    if (s->bridge != NULL) {
        as_remote_abort(ex->gateway);
    } else if (ex->status == 101) {
        end_tunnel(ex);
    } else {
        if (s->held == ex) {
            s->held = NULL;
        }
        drop_body(ex);
        as_exchange_release(ex);
    }
}

static void on_drain(void *ctx, as_exchange *ex) {
    server *s = ctx;
    if (s->bridge != NULL) {
        as_remote_drained(ex->gateway);
    }
}

static const as_handlers handlers = {
    .on_request = on_request,
    .on_body = on_body,
    .on_end = on_end,
    .on_eof = on_eof,
    .on_abort = on_abort,
    .on_drain = on_drain,
};

static void notice(void *ctx, as_notice_level level, const char *text) {
    (void)level;
    assert(strlen(text) > 0);
    ((server *)ctx)->notices++;
}

static void released(void *ctx, const as_exchange *ex) {
    (void)ctx;
    assert(ex != NULL);
}

/* --- its turns -------------------------------------------------------------------------------- */

static void run_hand(server *s) {
    as_remote *remote;
    while ((remote = as_bridge_take(s->bridge, &s->hand)) != NULL) {
        answer(s, &remote->ex, (as_slice){remote->body.memory.data, remote->body.memory.len});
    }
    as_bridge_collect(s->bridge);
}

/* The loop's thread and the hand, one after the other. */
static void turn(server *s, int limit) {
    struct pollfd fd = {.fd = as_loop_fd(s->loop), .events = POLLIN};
    (void)poll(&fd, 1, limit);
    scarce.watching = true;
    as_loop_poll(s->loop);
    if (s->held != NULL) {
        as_exchange *ex = s->held;
        s->held = NULL;
        answer(s, ex, AS_SLICE(""));
        as_loop_poll(s->loop);
    }
    if (s->bridge != NULL) {
        run_hand(s);
        as_bridge_before_wait(s->bridge);
        as_loop_poll(s->loop);
        as_bridge_after_wait(s->bridge);
        as_bridge_collect(s->bridge);
    }
    scarce.watching = false;
    as_loop_stats stats;
    as_loop_get_stats(s->loop, &stats);
    if (!stats.accepting) {
        clock_offset += 1000;
    }
}

static const as_slice extra[] = {RAW("x-extra"), RAW("1")};

static bool start(server *s, const scenario *what) {
    *s = (server){.what = what, .fd = -1};
    s->config = (as_loop_config){
        .handlers = &handlers, .ctx = s, .notice = notice, .forwarding = &s->forwarding};
    s->spools.memory_max = LARGE;
    as_limits_init(&s->config.limits);
    s->config.limits.date_header = false;
    s->config.limits.limit_write_buffer = 3 * LARGE; /* nobody waits for the client */
    s->config.copy_heads = s->config.timed = true;
    s->config.health_path = AS_SLICE("/health");
    s->config.headers = extra;
    s->config.nheaders = 2;
    bool watching = scarce.watching;
    scarce.watching = false; /* this is the test's own */
    assert(as_trust_add(&s->forwarding.trust, "\x7f\0\0", 4, 8) == AS_OK);
    scarce.watching = watching;
    s->forwarding.fields = true;
    if (what->proxied) {
        s->config.proxy_protocol = AS_PROXY_AUTO;
        s->config.proxy_trust = &s->forwarding.trust;
    }
    s->fd = listen_on_loopback(&s->address, 16);
    s->loop = as_loop_new(&s->config);
    bool fine =
        s->loop != NULL && as_loop_listen(s->loop, s->fd, what->tls ? context : NULL) == AS_OK;
    if (fine && what->bridged) {
        s->bridge = as_bridge_new(3 * LARGE, released, s);
        fine = s->bridge != NULL;
        if (fine) {
            assert(as_hand_init(&s->hand) == AS_OK);
            as_bridge_open(s->bridge, s->loop);
        }
    }
    return fine;
}

static void stop(server *s) {
    if (s->bridge != NULL) {
        run_hand(s);
        as_bridge_end(s->bridge);
    }
    as_loop_free(s->loop);
    if (s->bridge != NULL) {
        as_bridge_close(s->bridge);
        as_bridge_collect(s->bridge);
        as_hand_fini(&s->hand);
        as_bridge_free(s->bridge);
    }
    as_ws_env_free(s->env);
    as_trust_fini(&s->forwarding.trust);
    assert(close(s->fd) == 0);
    assert(s->loans == 0);
}

/* --- the client ------------------------------------------------------------------------------- */

typedef struct client {
    int fd;
    SSL *ssl; /* NULL: plain */
    size_t said;
    char *data;
    size_t len;
    bool eof, reset;
} client;

static SSL_CTX *client_ctx;
static char buffers[2][4 * LARGE]; /* of the run that is compared with, and of this one */

static client dial(const server *s, char *data) {
    client c = {.fd = connect_to_address(&s->address), .data = data};
    unblock(c.fd);
    if (s->what->tls) {
        c.ssl = SSL_new(client_ctx);
        assert(c.ssl != NULL && SSL_set_fd(c.ssl, c.fd) == 1);
        SSL_set_connect_state(c.ssl);
    }
    return c;
}

static void hang_up(client *c) {
    SSL_free(c->ssl);
    (void)close(c->fd);
}

static void note_ssl_end(client *c, int result) {
    int why = SSL_get_error(c->ssl, result);
    if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
        c->eof = why == SSL_ERROR_ZERO_RETURN;
        c->reset = !c->eof;
    }
    ERR_clear_error();
}

/* Whatever goes now; true when something went. */
static bool say(client *c, const char *p, size_t n) {
    size_t sent = 0;
    if (n == 0 || c->eof || c->reset) {
        return false;
    }
    if (c->ssl != NULL) {
        int result = SSL_write_ex(c->ssl, p, n, &sent);
        if (result != 1) {
            note_ssl_end(c, result);
        }
    } else {
        ssize_t k = send(c->fd, p, n, MSG_NOSIGNAL);
        c->reset = c->reset || (k < 0 && errno != EAGAIN);
        sent = k > 0 ? (size_t)k : 0;
    }
    c->said += sent;
    return sent > 0;
}

static bool listen_to(client *c) {
    size_t before = c->len, room = sizeof(buffers[0]) - c->len, got = 0;
    while (!c->eof && !c->reset && room > 0) {
        if (c->ssl != NULL) {
            int result = SSL_read_ex(c->ssl, c->data + c->len, room, &got);
            if (result != 1) {
                note_ssl_end(c, result);
                break;
            }
        } else {
            ssize_t k = recv(c->fd, c->data + c->len, room, 0);
            c->eof = k == 0;
            c->reset = k < 0 && errno != EAGAIN;
            if (k <= 0) {
                break;
            }
            got = (size_t)k;
        }
        c->len += got;
        room -= got;
    }
    return c->len != before || c->eof || c->reset;
}

static bool has(const client *c, as_slice end) {
    return end.n > 0 && c->len >= end.n && memcmp(c->data + c->len - end.n, end.p, end.n) == 0;
}

/* Without what the server was made to believe. */
static int64_t real_ms(void) {
    return now_ms() - clock_offset;
}

/* Says `bytes`, and drives the server until `end`, or the end of the connection, has come. False:
 * neither comes. */
static bool converse(server *s, client *c, as_slice bytes, as_slice end) {
    int64_t until = real_ms() + QUIET;
    c->said = 0;
    while (!c->eof && !c->reset && (c->said < bytes.n || !has(c, end))) {
        size_t left = bytes.n - c->said;
        bool moved = say(c, bytes.p + c->said, s->what->in_pieces && left > 1 ? 1 : left);
        turn(s, moved || left > 0 ? 0 : 1);
        if (listen_to(c) || moved) {
            until = real_ms() + QUIET;
        } else if (real_ms() > until) {
            return false;
        }
    }
    return true;
}

/* --- the judge -------------------------------------------------------------------------------- */

typedef struct result {
    unsigned cases, whole, refused, cut, lost;
} result;

static const char *run_name;
static size_t run_at;
static unsigned run_mode;

static void tell(const client *c, const char *what) {
    (void)fprintf(stderr, "%s, allocation %zu, mode %u: %s\n", run_name, run_at, run_mode, what);
    size_t from = c != NULL && c->len > 200 ? c->len - 200 : 0;
    if (c != NULL) {
        (void)fprintf(stderr, "  %zu bytes, %s, the last: %.*s\n", c->len,
                      c->eof     ? "ended"
                      : c->reset ? "reset"
                                 : "open",
                      (int)(c->len - from), c->data + from);
    }
}

static size_t common(const client *a, const client *b) {
    size_t n = 0;
    while (n < a->len && n < b->len && a->data[n] == b->data[n]) {
        n++;
    }
    return n;
}

/* What came is all of what comes otherwise, or a part of it and then the server's own answer, or a
 * part that is seen to be one. */
static bool judge(const scenario *what, const client *usual, const client *c, result *r) {
    static const char refusal[] = "HTTP/1.1 503 ";
    size_t n = common(usual, c);
    if (n == usual->len && n == c->len) {
        r->whole++;
        return true;
    }
    if (n < c->len) {
        size_t back = n < sizeof("HTTP/1.1 ") - 1 ? n : sizeof("HTTP/1.1 ") - 1;
        const char *at = c->data + n - back;
        bool fine = (size_t)(c->data + c->len - at) >= sizeof(refusal) - 1 &&
                    memcmp(at, refusal, sizeof(refusal) - 1) == 0;
        r->refused += fine;
        return fine;
    }
    r->cut++;
    return c->reset || (c->eof && (!what->unframed || n == 0));
}

/* OpenSSL keeps what its errors were told with, for each thread: that is not lost. */
static size_t blocks_now(void) {
    OPENSSL_thread_stop();
    return scarce.blocks;
}

static unsigned open_files(void) {
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++) {
        n += fcntl(fd, F_GETFD) != -1;
    }
    return n;
}

static bool next_is_served(server *s) {
    static char bytes[sizeof(buffers[0])];
    client c = dial(s, bytes);
    bool fine = true;
    if (s->what->proxied) {
        fine = converse(s, &c, AS_SLICE(PROXY_V1 HELLO), AS_SLICE("hello"));
    } else {
        fine = converse(s, &c, AS_SLICE(HELLO), AS_SLICE("hello"));
    }
    fine = fine && has(&c, AS_SLICE("hello"));
    if (!fine) {
        tell(&c, "the next client is not served");
    }
    hang_up(&c);
    return fine;
}

enum { ONCE, LASTING, TO_THE_END, MODES };

/* One run in which the `at`-th allocation fails; 0: none. */
static bool run(const scenario *what, size_t at, unsigned mode, client *c) {
    server s;
    bool fine = start(&s, what);
    assert(fine);
    *c = dial(&s, c->data);
    scarce.count = 0;
    scarce.fail_at = at;
    scarce.lasting = mode != ONCE;
    fine = converse(&s, c, what->bytes, what->end);
    if (fine && what->second.n > 0) {
        fine = converse(&s, c, what->second, what->tunnel ? (as_slice){"", 0} : AS_SLICE("hello"));
    }
    if (!fine) {
        tell(c, "neither an answer nor an end");
    }
    if (mode != TO_THE_END) {
        scarce.fail_at = 0;
        size_t count = scarce.count;
        fine = next_is_served(&s) && fine;
        scarce.count = count;
    }
    hang_up(c);
    scarce.watching = true;
    stop(&s);
    scarce.watching = false;
    scarce.fail_at = 0;
    return fine;
}

static void run_and_judge(const scenario *what, const client *usual, result *r) {
    client c = {.data = buffers[1]};
    size_t blocks = blocks_now();
    unsigned files = open_files();
    r->cases++;
    bool fine = run(what, run_at, run_mode, &c);
    if (!judge(what, usual, &c, r)) {
        tell(&c, "neither whole nor seen to be broken");
        fine = false;
    }
    if (ERR_peek_error() != 0) { /* somebody else's call would take it for its own */
        tell(NULL, "an error stays in OpenSSL's queue");
        fine = false;
    }
    if (blocks_now() != blocks) {
        tell(NULL, "blocks are lost");
        (void)fprintf(stderr, "  %zu, and %zu before\n", scarce.blocks, blocks);
        fine = false;
    }
    if (open_files() != files) {
        tell(NULL, "descriptors are lost");
        fine = false;
    }
    r->lost += !fine;
}

static result run_all(const scenario *what, size_t sparse) {
    client usual = {.data = buffers[0]};
    result r = {0};
    run_name = what->name;
    run_at = 0;
    for (int i = 0; i < 2; i++) { /* the first time makes what libraries keep */
        assert(run(what, 0, ONCE, &usual));
    }
    size_t count = scarce.count;
    assert(count > 0 && usual.len > 0 && (what->end.n == 0 || !usual.reset));
    size_t step = sparse != 0 ? sparse : 1 + MODES * count / RUNS_MOST;
    for (run_at = 1; run_at <= count; run_at += step) {
        for (run_mode = 0; run_mode < MODES; run_mode++) {
            run_and_judge(what, &usual, &r);
        }
    }
    (void)printf("%-24s %6zu allocations, %5u runs: %u whole, %u refused, %u cut, %u lost\n",
                 what->name, count, r.cases, r.whole, r.refused, r.cut, r.lost);
    return r;
}

/* --- starting --------------------------------------------------------------------------------- */

/* What cannot start says so, and leaves nothing behind. */
static result run_starts(const scenario *what) {
    result r = {0};
    bool fine = false;
    run_name = "start";
    run_mode = 0;
    for (run_at = 1; !fine; run_at++) {
        server s;
        size_t blocks = blocks_now();
        unsigned files = open_files();
        scarce = (scarce_state){.blocks = blocks, .watching = true, .fail_at = run_at};
        fine = start(&s, what);
        scarce.watching = false;
        stop(&s);
        r.cases++;
        r.whole += fine;
        r.refused += !fine;
        if (blocks_now() != blocks || open_files() != files) {
            tell(NULL, "blocks or descriptors are lost");
            r.lost++;
        }
    }
    (void)printf("%-24s %u runs: %u lost\n", run_name, r.cases, r.lost);
    return r;
}

/* --- TLS -------------------------------------------------------------------------------------- */

static char certfile[64], keyfile[64];

static void make_tls(void) {
    as_tls_settings settings = {.certfile = certfile,
                                .keyfile = keyfile,
                                .min_version = AS_TLS_1_2,
                                .alpn = {"\x08http/1.1", 9}};
    char why[AS_TLS_WHY];
    pair p = make_pair("a", "DNS:a", NULL, -DAY, DAY);
    write_pair(&p, certfile, keyfile, NULL);
    free_pair(&p);
    assert(as_tls_context_new(&settings, &context, why) == AS_OK);
    client_ctx = SSL_CTX_new(TLS_client_method());
    assert(client_ctx != NULL);
}

/* A context from files: there is none, and a reason, or there is one. */
static result run_contexts(size_t sparse) {
    as_tls_settings settings = {
        .certfile = certfile, .keyfile = keyfile, .min_version = AS_TLS_1_2};
    result r = {0};
    size_t count = 0;
    run_name = "TLS context";
    run_mode = 0;
    for (run_at = 0; run_at <= count;
         run_at += 1 + (sparse != 0 ? sparse - 1 : count / RUNS_MOST)) {
        as_tls_context *made = NULL;
        char why[AS_TLS_WHY] = "";
        size_t blocks = blocks_now();
        scarce.count = 0;
        scarce.fail_at = run_at;
        scarce.lasting = false;
        scarce.watching = true;
        as_err err = as_tls_context_new(&settings, &made, why);
        scarce.watching = false;
        ERR_clear_error();
        count = run_at == 0 ? scarce.count : count;
        bool fine = err == AS_OK ? made != NULL
                                 : made == NULL && (err == AS_E_NOMEM ||
                                                    (err == AS_E_TLS_SETTINGS && *why != '\0'));
        as_tls_context_unref(made);
        r.cases++;
        r.whole += err == AS_OK;
        r.refused += err != AS_OK;
        if (!fine || blocks_now() != blocks) {
            tell(NULL, why);
            (void)fprintf(stderr, "  %zu blocks, and %zu before\n", scarce.blocks, blocks);
            r.lost++;
        }
    }
    (void)printf("%-24s %6zu allocations, %5u runs: %u whole, %u refused, %u lost\n", run_name,
                 count, r.cases, r.whole, r.refused, r.lost);
    return r;
}

/* --- all of it -------------------------------------------------------------------------------- */

static unsigned write_result(FILE *out, const char *name, const result *r) {
    static bool begun;
    if (out != NULL) {
        (void)fprintf(
            out, "%s\n  {\"name\": \"core: %s\", \"cases\": %u, \"survived\": %u, \"lost\": %u}",
            begun ? "," : "[", name, r->cases, r->cases - r->lost, r->lost);
        begun = true;
    }
    return r->lost;
}

int main(int argc, char **argv) {
    FILE *out = argc > 1 ? fopen(argv[1], "we") : NULL;
    size_t sparse = argc > 2 ? strtoul(argv[2], NULL, 10) : 0;
    char folder[] = "/tmp/test_no_memory_XXXXXX";
    unsigned lost = 0;
    assert(scarce_openssl() && signal(SIGPIPE, SIG_IGN) != SIG_ERR && mkdtemp(folder) != NULL);
    (void)snprintf(certfile, sizeof(certfile), "%s/a.crt", folder);
    (void)snprintf(keyfile, sizeof(keyfile), "%s/a.key", folder);
    memset(large, 'x', sizeof(large));
    make_tls();
    for (size_t i = 0; i < sizeof(scenarios) / sizeof(*scenarios); i++) {
        if (argc <= 3 || strcmp(argv[3], scenarios[i].name) == 0) {
            result r = run_all(&scenarios[i], sparse);
            lost += write_result(out, scenarios[i].name, &r);
        }
    }
    result r = run_starts(&scenarios[0]);
    lost += write_result(out, "start", &r);
    r = run_contexts(sparse);
    lost += write_result(out, "TLS context", &r);
    if (out != NULL) {
        (void)fprintf(out, "\n]\n");
        assert(fclose(out) == 0);
    }
    as_tls_context_unref(context);
    SSL_CTX_free(client_ctx);
    assert(unlink(certfile) == 0 && unlink(keyfile) == 0 && rmdir(folder) == 0);
    return lost == 0 ? 0 : 1;
}

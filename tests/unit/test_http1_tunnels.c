/* Exchanges that were upgraded: bytes that are not HTTP. */
#include "http1_world.h"

#define UPGRADE "GET /t HTTP/1.1\r\n" H "Connection: upgrade\r\nUpgrade: t\r\n\r\n"
#define UPGRADED "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nUpgrade: t\r\n\r\n"

static const as_slice upgrade_pairs[] = {{"Upgrade", 7}, {" t ", 3}};

static void upgrade(world *w, as_exchange *ex) {
    CHECK(as_exchange_upgrade(ex, upgrade_pairs, 2) == AS_OK);
}

static void upgrade_at_once(world *w, as_exchange *ex, as_slice body) {
    CHECK(body.n == 0);
    w->ex = ex;
    upgrade(w, ex);
    CHECK(strcmp(text_of(&w->events), "request ") == 0); /* nothing comes from inside of the call */
    CHECK(as_exchange_body(ex, bytes_of("<"), true) == AS_OK);
}

static void echo(world *w, as_exchange *ex, as_slice data) {
    (void)w;
    CHECK(as_exchange_body(ex, (as_bytes){data.p, data.n, NULL, NULL, NULL}, true) == AS_OK);
    if (data.n > 0 && data.p[data.n - 1] == '.') {
        CHECK(as_exchange_end(ex) == AS_OK);
    }
}

static void end_tunnel(world *w, as_exchange *ex) {
    (void)w;
    if (ex->req == AS_REQ_DONE) { /* else it is the server who ends */
        CHECK(as_exchange_end(ex) == AS_OK);
    }
}

static const script tunneling = {
    .on_request = upgrade_at_once, .on_body = echo, .on_eof = end_tunnel};
static const script tunneling_late = {.on_request = keep, .on_body = echo, .on_eof = end_tunnel};

static void echo_two(world *w, as_exchange *ex, as_slice data) {
    size_t n = data.n < 2 ? data.n : 2;
    echo(w, ex, (as_slice){data.p, n});
    as_exchange_pause(ex);
    ex->untaken = data.n - n;
}

static const script tunneling_by_two = {.on_body = echo_two, .on_eof = end_tunnel};

static void echo_two_without_pause(world *w, as_exchange *ex, as_slice data) {
    size_t n = data.n < 2 ? data.n : 2;
    echo(w, ex, (as_slice){data.p, n});
    ex->untaken = data.n - n;
}

static const script tunneling_in_turns = {.on_body = echo_two_without_pause, .on_eof = end_tunnel};

/* A world whose exchange is a tunnel, with nothing sent yet. */
static world *tunnel_new(void) {
    world *w = world_new();
    w->script = &tunneling_late;
    feeds(w, UPGRADE);
    upgrade(w, w->ex);
    drain(w);
    same("out", &w->out, UPGRADED);
    text_clear(&w->out);
    text_clear(&w->events);
    return w;
}

static void test_tunnel_bytes(void) {
    current = "bytes behind the handshake belong to the tunnel";
    world *w = world_new();
    w->script = &tunneling;
    feeds(w, UPGRADE "GET / HTTP/1.1\r\n\r\n");
    CHECK(phase(w) == AS_H1_TUNNEL && as_h1_wants_read(&w->h1));
    CHECK(w->ex->req == AS_REQ_BODY && w->ex->received == 18 && w->ex->status == 101);
    feed(w, "\0\r\n", 3);
    same("events", &w->events, "request body body ");
    CHECK(w->out.n == strlen(UPGRADED "<GET / HTTP/1.1\r\n\r\n") + 3);
    CHECK(w->env.requests == 1 && w->ex->sent == 22);
    as_h1_eof(&w->h1);
    drain(w);
    same("events", &w->events, "request body body eof ");
    CHECK(phase(w) == AS_H1_CLOSING && w->env.requests == 0 && w->aborted == 0);
    world_free(w);

    current = "byte by byte, and upgraded late";
    w = world_new();
    w->script = &tunneling_late;
    for (const char *p = UPGRADE "abc"; *p != '\0'; p++) {
        feed(w, p, 1);
    }
    same("events", &w->events, "request ");
    CHECK(phase(w) == AS_H1_BUSY);
    upgrade(w, w->ex);
    same("events", &w->events, "request ");
    CHECK(w->notified == 1);
    resume(w);
    same("out", &w->out, UPGRADED "abc");
    feeds(w, "d.");
    same("out", &w->out, UPGRADED "abcd.");
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1) && w->ex->res == AS_RES_DONE);
    feeds(w, GET); /* dropped */
    same("events", &w->events, "request body body ");
    CHECK(as_exchange_body(w->ex, no_bytes, true) == AS_E_RESPONSE_STATE);
    release(w);
    world_free(w);
}

static void test_tunnel_turns(void) {
    current = "what a handler leaves without a pause waits for a turn";
    world *w = tunnel_new();
    w->script = &tunneling_in_turns;
    feeds(w, "abcde");
    same("out", &w->out, "ab");
    CHECK(w->h1.yielded && as_h1_wants_read(&w->h1) && w->ex->received == 2);
    resume(w);
    same("out", &w->out, "abcd");
    CHECK(w->h1.yielded);
    as_h1_eof(&w->h1);
    drain(w);
    same("out", &w->out, "abcde");
    same("events", &w->events, "body body body eof ");
    CHECK(!w->h1.yielded && phase(w) == AS_H1_CLOSING);
    world_free(w);

    current = "a tunnel that is over has no turn";
    w = tunnel_new();
    w->script = &tunneling_in_turns;
    feeds(w, "a.cde");
    drain(w);
    same("out", &w->out, "a.");
    CHECK(!w->h1.yielded && phase(w) == AS_H1_CLOSING);
    world_free(w);
}

static void test_tunnel_flow(void) {
    current = "pause and resume";
    world *w = tunnel_new();
    as_exchange_pause(w->ex);
    CHECK(!as_h1_wants_read(&w->h1));
    feeds(w, "abc");
    as_h1_eof(&w->h1);
    same("events", &w->events, "");
    as_exchange_resume(w->ex);
    same("events", &w->events, "");
    resume(w);
    same("events", &w->events, "body eof ");
    same("out", &w->out, "abc");
    as_h1_eof(&w->h1);
    as_h1_resume(&w->h1);
    same("events", &w->events, "body eof ");
    world_free(w);

    current = "what a handler leaves comes again";
    w = tunnel_new();
    w->script = &tunneling_by_two;
    feeds(w, "abcde");
    same("out", &w->out, "ab");
    CHECK(w->ex->received == 2 && !as_h1_wants_read(&w->h1));
    as_h1_eof(&w->h1);
    same("events", &w->events, "body ");
    for (int i = 0; i < 2; i++) {
        as_exchange_resume(w->ex);
        resume(w);
    }
    same("events", &w->events, "body body body eof ");
    same("out", &w->out, "abcde");
    world_free(w);

    current = "bytes leave when they are told to";
    w = tunnel_new();
    w->notified = 0;
    CHECK(as_exchange_body(w->ex, bytes_of("a"), true) == AS_OK);
    CHECK(w->notified == 0 && as_exchange_pending(w->ex) == 1);
    as_exchange_flush_soon(w->ex);
    CHECK(w->notified == 0 && w->soon == 1);
    CHECK(as_exchange_flush(w->ex) == AS_OK && w->notified == 1);
    CHECK(as_exchange_body(w->ex, bytes_of("b"), false) == AS_OK && w->notified == 2);
    CHECK(as_exchange_flush(w->ex) == AS_E_RESPONSE_STATE);
    drain(w);
    same("out", &w->out, "ab");
    world_free(w);

    current = "on_drain in a tunnel";
    w = tunnel_new();
    w->stuck = true;
    for (int i = 0; i < 3; i++) {
        char chunk[40000];
        memset(chunk, 'x', sizeof(chunk));
        CHECK(as_exchange_body(w->ex, (as_bytes){chunk, sizeof(chunk), NULL, NULL, NULL}, true) ==
              AS_OK);
    }
    CHECK(as_exchange_pending(w->ex) == 120000);
    resume(w);
    same("events", &w->events, "");
    w->stuck = false;
    drain(w);
    resume(w);
    same("events", &w->events, "drain ");
    world_free(w);
}

static void test_tunnel_calls(void) {
    current = "what is no call for a tunnel";
    world *w = tunnel_new();
    as_exchange *ex = w->ex;
    CHECK(as_exchange_upgrade(ex, upgrade_pairs, 2) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_refuse(ex, AS_E_WS_METHOD) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_interim(ex, 103, NULL, 0) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_trailer(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_file(ex, dup(0), 0, 1, true) == AS_E_RESPONSE_STATE);
    as_exchange_head_abandon(ex);
    as_exchange_want_body(ex);
    CHECK(w->h1.out.size == 0);
    as_exchange_set_alarm(ex, 5);
    CHECK(w->alarm == 5);
    as_h1_timeout(&w->h1); /* no phase of a tunnel's */
    as_h1_alarm(&w->h1);
    as_h1_disconnect(&w->h1);
    same("events", &w->events, "alarm eof ");
    as_exchange_abort(ex);
    CHECK(phase(w) == AS_H1_DEAD && w->aborted == 0);
    CHECK(as_exchange_body(ex, no_bytes, true) == AS_E_CLOSED);
    CHECK(as_exchange_flush(ex) == AS_E_CLOSED);
    as_exchange_set_alarm(ex, 7);
    as_exchange_flush_soon(ex);
    CHECK(w->alarm == 5 && w->soon == 0);
    release(w);
    world_free(w);

    current = "the end of the server has a handler of its own";
    w = tunnel_new();
    w->handlers.on_shutdown = on_shutdown;
    as_h1_disconnect(&w->h1);
    as_h1_eof(&w->h1);
    drain(w);
    same("events", &w->events, "shutdown eof ");
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);

    current = "a tunnel that is let go, or whose connection breaks";
    w = tunnel_new();
    release(w);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests == 0);
    world_free(w);
    w = tunnel_new();
    world_reconnect(w);
    CHECK(w->aborted == 1 && w->ex == NULL);
    world_free(w);
}

/* Nothing is written, and an ordinary answer can be given. */
static void check_no_upgrade(const char *name, const char *request, const as_slice *pairs,
                             as_err why) {
    current = name;
    world *w = world_new();
    w->script = &keeping;
    feeds(w, request);
    CHECK(as_exchange_upgrade(w->ex, pairs, 2) == why);
    CHECK(w->h1.out.size == 0 && w->ex->res == AS_RES_START && w->ex->status == 0);
    nothing(w);
    release(w);
    world_free(w);
}

static void test_no_tunnel(void) {
    static const as_slice bad_name[] = {{"a b", 3}, {"x", 1}},
                          bad_value[] = {{"a", 1}, {"x\ny", 3}};
    check_no_upgrade("a name that is none", UPGRADE, bad_name, AS_E_RESPONSE_NAME);
    check_no_upgrade("a value with a line end", UPGRADE, bad_value, AS_E_RESPONSE_VALUE);
    check_no_upgrade("HTTP/1.0", GET_10, upgrade_pairs, AS_E_RESPONSE_STATE);
    check_no_upgrade("a body that has not come",
                     "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nab", upgrade_pairs,
                     AS_E_RESPONSE_STATE);

    current = "refused by the gateway";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    CHECK(as_exchange_refuse(w->ex, AS_E_WS_VERSION) == AS_OK && w->ex->status == 426);
    as_exchange_set_alarm(w->ex, 1);
    as_exchange_flush_soon(w->ex);
    release(w);
    drain(w);
    same("out", &w->out,
         "HTTP/1.1 426 Upgrade Required\r\ncontent-type: text/plain; charset=utf-8\r\n"
         "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
         "content-length: 35\r\nconnection: close\r\n\r\n"
         "version of WebSocket not supported\n");
    CHECK(phase(w) == AS_H1_CLOSING && w->refused.n == 0 && w->alarm == 0 && w->soon == 0);
    world_free(w);
}

int main(void) {
    test_tunnel_bytes();
    test_tunnel_flow();
    test_tunnel_turns();
    test_tunnel_calls();
    test_no_tunnel();
    return failures == 0 ? 0 : 1;
}

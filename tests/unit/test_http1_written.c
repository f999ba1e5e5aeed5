/* What is written for the calls that a gateway makes on an exchange. */
#include "http1_world.h"

typedef struct answer_row {
    const char *name, *request;
    void (*answer)(world *w);
    const char *out;
    as_h1_phase after;
} answer_row;

static void whole(world *w) {
    begin(w, 200);
    field(w, "X-A", " b ");
    body(w, "hello", false);
}
static void declared(world *w) {
    begin(w, 200);
    field(w, "Content-Length", "5");
    body(w, "he", true);
    body(w, "", true);
    body(w, "llo", false);
}
static void streamed(world *w) {
    begin(w, 200);
    body(w, "", true);
    body(w, "0123456789abcdefg", true);
    body(w, "", true);
    body(w, "h", false);
}
static void streamed_then_end(world *w) {
    begin(w, 200);
    body(w, "x", true);
    CHECK(as_exchange_end(w->ex) == AS_OK);
}
static void no_content(world *w) {
    begin(w, 204);
    CHECK(w->ex->no_body);
    field(w, "content-length", "3");
    body(w, "abc", false);
}
static void not_modified(world *w) {
    begin(w, 304);
    field(w, "content-length", "3");
    field(w, "etag", "\"x\"");
    body(w, "", false);
}
static void head_streamed(world *w) {
    begin(w, 200);
    CHECK(w->ex->no_body);
    body(w, "x", true);
    body(w, "", false);
}
static void closing(world *w) {
    begin(w, 200);
    field(w, "connection", "x, Close");
    body(w, "x", false);
}
static void hop_by_hop(world *w) {
    begin(w, 200);
    field(w, "Transfer-Encoding", "chunked");
    field(w, "Keep-Alive", "timeout=5");
    field(w, "Proxy-Connection", "keep-alive");
    field(w, "TE", "trailers");
    field(w, "Connection", "keep-alive, upgrade");
    field(w, "Upgrade", "h2c");
    body(w, "x", false);
}
static void reason(world *w) {
    CHECK(as_exchange_head_begin(w->ex, 299, AS_SLICE("Very Fine")) == AS_OK);
    body(w, "x", false);
}
static void unknown_status(world *w) {
    begin(w, 599);
    body(w, "x", false);
}
static void abandoned(world *w) {
    begin(w, 200);
    field(w, "content-length", "77");
    field(w, "connection", "close");
    as_exchange_head_abandon(w->ex);
    CHECK(w->ex->res == AS_RES_START && w->ex->status == 0);
    begin(w, 404);
    body(w, "", false);
}
static void trailers(world *w) {
    begin(w, 200);
    w->ex->trailers = true;
    body(w, "x", true);
    static const char *const forbidden[] = {
        "Content-Length", "Transfer-Encoding", "Host", "Connection", "Trailer", "TE", "Keep-Alive",
        "Upgrade"};
    for (size_t i = 0; i < ROWS(forbidden); i++) {
        as_slice name = {forbidden[i], strlen(forbidden[i])};
        CHECK(as_exchange_trailer(w->ex, name, AS_SLICE("1")) == AS_E_RESPONSE_NAME);
    }
    CHECK(as_exchange_trailer(w->ex, AS_SLICE("X-Sum"), AS_SLICE("1")) == AS_OK);
    CHECK(as_exchange_trailer(w->ex, AS_SLICE("X-T"), AS_SLICE("2\n")) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_body(w->ex, bytes_of("y"), true) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_end(w->ex) == AS_OK);
}
static void no_trailers(world *w) {
    begin(w, 200);
    field(w, "content-length", "1");
    body(w, "x", true);
    CHECK(as_exchange_trailer(w->ex, AS_SLICE("X-Sum"), AS_SLICE("1")) == AS_OK);
    CHECK(as_exchange_end(w->ex) == AS_OK);
}
static void hints(world *w) {
    as_slice pairs[] = {AS_SLICE("link"), AS_SLICE("</a>"), AS_SLICE("link"), AS_SLICE("</b>")};
    as_slice bad[] = {AS_SLICE("link"), AS_SLICE("</a>\r\nx: y")};
    CHECK(as_exchange_interim(w->ex, 103, pairs, 4) == AS_OK);
    CHECK(as_exchange_interim(w->ex, 103, bad, 2) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_interim(w->ex, 99, pairs, 4) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_interim(w->ex, 101, pairs, 4) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_interim(w->ex, 200, pairs, 4) == AS_E_RESPONSE_STATUS);
    nothing(w);
}
static void file_part(world *w) {
    char path[] = "/tmp/test_http1.XXXXXX";
    int fd = mkstemp(path);
    CHECK(fd >= 0 && unlink(path) == 0 && write(fd, "0123456789", 10) == 10);
    begin(w, 200);
    CHECK(as_exchange_file(w->ex, dup(fd), 2, 3, true) == AS_OK);
    CHECK(as_exchange_file(w->ex, dup(fd), 2, 0, true) == AS_OK);
    CHECK(as_exchange_file(w->ex, fd, 9, 1, false) == AS_OK);
}

static const answer_row answer_rows[] = {
    {"whole", GET, whole, "HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 5\r\n\r\nhello",
     AS_H1_IDLE},
    {"nothing", GET, nothing, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", AS_H1_IDLE},
    {"declared", GET, declared, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", AS_H1_IDLE},
    {"streamed", GET, streamed,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
     "11\r\n0123456789abcdefg\r\n1\r\nh\r\n0\r\n\r\n",
     AS_H1_IDLE},
    {"streamed, then its end", GET, streamed_then_end,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", AS_H1_IDLE},
    {"streamed, 1.0", GET_10_KEEP, streamed,
     "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n0123456789abcdefgh", AS_H1_CLOSING},
    {"whole, 1.0", GET_10, nothing,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", AS_H1_CLOSING},
    {"whole, 1.0 keep-alive", GET_10_KEEP, nothing,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", AS_H1_IDLE},
    {"the client closes", GET_CLOSE, nothing,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", AS_H1_CLOSING},
    {"the application closes", GET, closing,
     "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\nx", AS_H1_CLOSING},
    {"HEAD, whole", HEAD, whole, "HTTP/1.1 200 OK\r\nX-A: b\r\ncontent-length: 5\r\n\r\n",
     AS_H1_IDLE},
    {"HEAD, declared", HEAD, declared, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", AS_H1_IDLE},
    {"HEAD, streamed", HEAD, head_streamed, "HTTP/1.1 200 OK\r\n\r\n", AS_H1_IDLE},
    {"204", GET, no_content, "HTTP/1.1 204 No Content\r\n\r\n", AS_H1_IDLE},
    {"304", GET, not_modified,
     "HTTP/1.1 304 Not Modified\r\netag: \"x\"\r\ncontent-length: 3\r\n\r\n", AS_H1_IDLE},
    {"hop by hop", GET, hop_by_hop, "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", AS_H1_IDLE},
    {"a reason", GET, reason, "HTTP/1.1 299 Very Fine\r\ncontent-length: 1\r\n\r\nx", AS_H1_IDLE},
    {"an unknown status", GET, unknown_status, "HTTP/1.1 599 \r\ncontent-length: 1\r\n\r\nx",
     AS_H1_IDLE},
    {"abandoned", GET, abandoned, "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
     AS_H1_IDLE},
    {"trailers", GET, trailers,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX-Sum: 1\r\n\r\n",
     AS_H1_IDLE},
    {"trailers of a counted body", GET, no_trailers,
     "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", AS_H1_IDLE},
    {"early hints", GET, hints,
     "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n"
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
     AS_H1_IDLE},
    {"early hints, 1.0", GET_10_KEEP, hints,
     "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: keep-alive\r\n\r\n", AS_H1_IDLE},
    {"file", GET, file_part,
     "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n234\r\n1\r\n9\r\n0\r\n\r\n",
     AS_H1_IDLE},
    {"file, 1.0", GET_10, file_part, "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n2349",
     AS_H1_CLOSING},
    {"file, HEAD", HEAD, file_part, "HTTP/1.1 200 OK\r\n\r\n", AS_H1_IDLE},
};

/* From within the handler, and later from outside of it. */
static void (*answer_now)(world *w);

static void answer_within(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    w->ex = ex;
    answer_now(w);
    release(w);
}

static const script answering = {.on_request = answer_within};

static void test_answers(void) {
    for (size_t i = 0; i < ROWS(answer_rows); i++) {
        const answer_row *r = &answer_rows[i];
        current = r->name;
        world *w = world_new();
        w->script = &answering;
        answer_now = r->answer;
        feeds(w, r->request);
        same("at once", &w->out, r->out);
        CHECK(phase(w) == r->after && w->notified == 0);
        world_free(w);

        w = world_new();
        w->script = &keeping;
        feeds(w, r->request);
        CHECK(phase(w) == AS_H1_BUSY && as_h1_wants_read(&w->h1) && w->env.requests == 1);
        r->answer(w);
        drain(w);
        same("later", &w->out, r->out);
        CHECK(phase(w) == r->after && w->notified > 0);
        CHECK(w->ex->proto == NULL); /* a task behind the answer holds nobody up */
        release(w);
        CHECK(w->env.requests == 0);
        world_free(w);
    }
}

static void test_wrong_calls(void) {
    current = "calls in a wrong state or with wrong arguments";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    as_exchange *ex = w->ex;
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_body(ex, no_bytes, true) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_end(ex) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_trailer(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_begin(ex, 199, AS_SLICE("")) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_head_begin(ex, 1000, AS_SLICE("")) == AS_E_RESPONSE_STATUS);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("a\r\nb")) == AS_E_RESPONSE_VALUE);
    begin(w, 200);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_interim(ex, 103, NULL, 0) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_field(ex, AS_SLICE(""), AS_SLICE("b")) == AS_E_RESPONSE_NAME);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a b"), AS_SLICE("b")) == AS_E_RESPONSE_NAME);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a\n"), AS_SLICE("b")) == AS_E_RESPONSE_NAME);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b\r\nc: d")) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), (as_slice){"b\0c", 3}) == AS_E_RESPONSE_VALUE);
    CHECK(as_exchange_head_field(ex, AS_SLICE("Content-Length"), AS_SLICE("+1")) ==
          AS_E_RESPONSE_LENGTH);
    CHECK(as_exchange_head_field(ex, AS_SLICE("Content-Length"),
                                 AS_SLICE("18446744073709551616")) == AS_E_RESPONSE_LENGTH);
    field(w, "content-length", "3");
    CHECK(as_exchange_head_field(ex, AS_SLICE("Content-Length"), AS_SLICE("3")) ==
          AS_E_RESPONSE_LENGTH);
    CHECK(as_exchange_body(ex, bytes_of("abcd"), true) == AS_E_RESPONSE_LONG);
    CHECK(as_exchange_body(ex, bytes_of("ab"), false) == AS_E_RESPONSE_SHORT);
    CHECK(ex->res == AS_RES_HEAD && w->h1.out.size == 0);
    body(w, "ab", true);
    CHECK(as_exchange_head_field(ex, AS_SLICE("a"), AS_SLICE("b")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_body(ex, bytes_of("cd"), true) == AS_E_RESPONSE_LONG);
    CHECK(as_exchange_end(ex) == AS_E_RESPONSE_SHORT);
    body(w, "c", false);
    CHECK(as_exchange_body(ex, no_bytes, false) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_end(ex) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_RESPONSE_STATE);
    CHECK(as_exchange_pending(ex) == 0);
    as_exchange_want_body(ex);
    as_exchange_pause(ex);
    as_exchange_resume(ex);
    as_exchange_head_abandon(ex);
    as_exchange_abort(ex);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc");
    world_free(w);
}

static void dated(world *w) {
    begin(w, 200);
    field(w, "Date", "never");
    body(w, "", false);
}
static void served(world *w) {
    begin(w, 200);
    field(w, "Server", "other");
    body(w, "", false);
}

static void check_defaults(world *w, void (*answer_it)(world *w), const char *out) {
    text_clear(&w->out);
    w->script = &answering;
    answer_now = answer_it;
    feeds(w, GET);
    same("out", &w->out, out);
}

static void test_defaults(void) {
    current = "the server's own field lines";
    static const as_slice extra[] = {{"x-a", 3}, {"b", 1}};
    world *w = world_new();
    as_response_defaults_fini(&w->defaults);
    CHECK(as_response_defaults_init(&w->defaults, true, true, extra, 2) == AS_OK);
    as_response_defaults_tick(&w->defaults, 784111777);
    check_defaults(w, nothing,
                   "HTTP/1.1 200 OK\r\nserver: asgiserver\r\n"
                   "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nx-a: b\r\ncontent-length: 0\r\n\r\n");
    check_defaults(w, dated,
                   "HTTP/1.1 200 OK\r\nDate: never\r\nserver: asgiserver\r\nx-a: b\r\n"
                   "content-length: 0\r\n\r\n");
    check_defaults(w, served,
                   "HTTP/1.1 200 OK\r\nServer: other\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                   "x-a: b\r\ncontent-length: 0\r\n\r\n");
    world_free(w);
}

/* The answer says that it is the last one. */
static void answer_last(world *w) {
    nothing(w);
    release(w);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);
}

/* What makes a response the last one, and what does not; all say so in the head. */
static void test_last_responses(void) {
    current = "the gateway wants no further request";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    w->ex->close = true;
    answer_last(w);

    current = "no time for a further request";
    w = world_new();
    w->script = &keeping;
    w->limits.timeout_keep_alive = 0;
    feeds(w, GET);
    answer_last(w);

    current = "a response that begins before its request's body has come";
    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 30;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 31\r\n\r\n");
    CHECK(as_exchange_head_begin(w->ex, 200, AS_SLICE("")) == AS_OK);
    CHECK(as_exchange_body(w->ex, (as_bytes){.p = "part", .n = 4}, true) == AS_OK);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n");
    feeds(w, "0123456789012345678901234567890");
    CHECK(as_exchange_body(w->ex, (as_bytes){.p = ""}, false) == AS_OK);
    release(w);
    drain(w);
    CHECK(phase(w) == AS_H1_IDLE);
    world_free(w);
}

/* Only who said that nothing follows, and held to it, is not waited for behind the last answer. */
static void test_who_lingers(void) {
    static const struct {
        const char *request, *later; /* later: while the application works */
        void (*answer)(world *w);
        bool tls, lingers;
    } rows[] = {
        {GET_CLOSE, "", nothing, false, false},
        {GET_CLOSE, "", streamed, false, false},
        {GET_10, "", nothing, false, true},   /* it said nothing */
        {GET_CLOSE, "", nothing, true, true}, /* TLS sends more than requests */
        {GET_CLOSE GET, "", nothing, false, true},
        {GET_CLOSE, GET, nothing, false, true},
        {GET_10 "\r\n", "", nothing, false, true},
        {GET, "", closing, false, true}, /* the client knows nothing of it yet */
        {GET_10_KEEP, "", closing, false, true},
        {"POST / HTTP/1.1\r\n" H "Connection: close\r\nContent-Length: 2\r\n\r\nhi", "", nothing,
         false, true},
        {"GET / HTTP/1.1\r\n" H "Connection: close, upgrade\r\nUpgrade: t\r\n\r\n", "", nothing,
         false, true},
        {"GET / HTTP/1.1\r\n" H "Upgrade: websocket\r\n\r\n", "", nothing, false, true},
    };
    for (size_t i = 0; i < ROWS(rows); i++) {
        current = rows[i].request;
        world *w = world_new();
        w->script = &keeping;
        w->info.is_tls = rows[i].tls;
        feeds(w, rows[i].request);
        feeds(w, rows[i].later);
        rows[i].answer(w);
        release(w);
        CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1) == rows[i].lingers);
        world_free(w);
    }
}

/* Bodies by reference: held once, dropped once. */
static int held;

static void hold_owner(void *owner) {
    (void)owner;
    held++;
}

static void drop_owner(void *owner) {
    (void)owner;
    held--;
}

static void test_references(void) {
    current = "bodies by reference";
    static const char big[100000];
    world *w = world_new();
    w->script = &keeping;
    as_bytes data = {big, sizeof(big), NULL, hold_owner, drop_owner};
    for (int i = 0; i < 3; i++) {
        w->stuck = i == 2;
        feeds(w, GET);
        begin(w, 200);
        CHECK(as_exchange_body(w->ex, data, true) == AS_OK);
        CHECK(as_exchange_body(w->ex, data, false) == AS_OK);
        CHECK(held == 2);
        release(w);
        drain(w);
        CHECK(held == (i == 2 ? 2 : 0));
    }
    world_free(w);
    CHECK(held == 0);
}

int main(void) {
    test_answers();
    test_wrong_calls();
    test_defaults();
    test_last_responses();
    test_who_lingers();
    test_references();
    return failures == 0 ? 0 : 1;
}

/* The course of a connection of HTTP/1: pipelining, flow control, ends, what a proxy tells. */
#include "http1_world.h"

static void test_pipelining(void) {
    current = "pipelining behind a busy exchange";
    world *w = world_new();
    w->script = &keeping;
    w->limits.limit_pipeline = 100;
    feeds(w, GET GET GET);
    CHECK(phase(w) == AS_H1_BUSY && w->env.requests_total == 1 && as_h1_wants_read(&w->h1));
    feeds(w, GET GET);
    CHECK(!as_h1_wants_read(&w->h1));
    for (int i = 0; i < 5; i++) {
        CHECK(w->ex != NULL && w->env.requests_total == (uint64_t)i + 1);
        nothing(w);
        release(w);
        resume(w);
    }
    CHECK(phase(w) == AS_H1_IDLE && as_h1_wants_read(&w->h1));
    CHECK(w->env.requests == 0 && w->h1.pending.len == 0);
    world_free(w);
}

/* What waits is moved to the front of its memory when there is no room behind it. */
static void test_pipelining_goes_on(void) {
    current = "pipelining behind requests that have been read";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET GET GET);
    nothing(w);
    release(w);
    resume(w);
    CHECK(w->env.requests_total == 2 && w->h1.pending_off > 0);
    unsigned sent = 3;
    for (; w->h1.pending_off > 0; sent++) {
        feeds(w, GET);
    }
    CHECK(sent > 4);
    for (; w->ex != NULL; resume(w)) {
        nothing(w);
        release(w);
    }
    CHECK(w->env.requests_total == sent && w->refused.n == 0 && phase(w) == AS_H1_IDLE);
    world_free(w);
}

/* Requests that follow one another at once: with the turn over, some, and then one for each call.
 */
static void test_turns(void) {
    current = "pipelined requests have a turn";
    world *w = world_new();
    uint64_t begun = 0;
    w->env.turn_end = 1; /* long ago */
    for (int i = 0; i < 10; i++) {
        feeds(w, GET GET GET GET);
        begun += w->h1.yielded ? 0 : 4;
    }
    CHECK(begun > 0 && begun < 40 && w->h1.yielded && phase(w) == AS_H1_BUSY);
    uint64_t before = w->env.requests_total;
    resume(w);
    resume(w);
    CHECK(w->env.requests_total == before + 2 && w->h1.yielded);
    w->env.turn_over = false; /* the next turn */
    w->env.turn_end = UINT64_MAX;
    as_h1_eof(&w->h1);
    CHECK(w->env.requests_total == 40 && !w->h1.yielded && phase(w) == AS_H1_CLOSING);
    world_free(w);

    current = "one request at a time waits for nobody";
    w = world_new();
    w->env.turn_end = 1;
    w->env.turn_over = true;
    feeds(w, GET);
    feeds(w, GET);
    CHECK(w->env.requests_total == 2 && !w->h1.yielded && phase(w) == AS_H1_IDLE);
    world_free(w);
}

static void test_endless_empty_lines(void) {
    current = "empty lines have the size of a head";
    world *w = world_new();
    w->limits.limit_request_head = 100;
    for (int i = 0; i < 50; i++) {
        feeds(w, "\r\n");
    }
    CHECK(phase(w) == AS_H1_IDLE && w->refused.n == 0);
    feeds(w, "\r\n");
    CHECK(phase(w) == AS_H1_CLOSING && strncmp(text_of(&w->out), "HTTP/1.1 400 ", 13) == 0);
    world_free(w);
}

/* A client that sends requests and reads no answers costs no more than a bound. */
static void big_answer(world *w, as_exchange *ex, as_slice data) {
    static const char big[50000];
    (void)w;
    (void)data;
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
    CHECK(as_exchange_body(ex, (as_bytes){big, sizeof(big), NULL, NULL, NULL}, false) == AS_OK);
    as_exchange_release(ex);
    w->ex = NULL;
}

static void test_unread_answers(void) {
    current = "answers that nobody reads";
    static const script bigs = {.on_request = big_answer};
    world *w = world_new();
    w->script = &bigs;
    w->stuck = true;
    for (int i = 0; i < 100; i++) {
        feeds(w, GET);
    }
    CHECK(w->h1.out.size < 200000);
    w->stuck = false;
    drain(w);
    for (int i = 0; i < 100; i++) {
        resume(w);
    }
    CHECK(w->env.requests_total == 100 && phase(w) == AS_H1_IDLE);
    world_free(w);
}

static void test_drain_level(void) {
    current = "on_drain";
    world *w = world_new();
    w->script = &keeping;
    w->limits.limit_write_buffer = 1000;
    feeds(w, GET);
    begin(w, 200);
    char data[1200];
    memset(data, 'x', sizeof(data));
    w->stuck = true;
    CHECK(as_exchange_body(w->ex, (as_bytes){data, sizeof(data), NULL, NULL, NULL}, true) == AS_OK);
    CHECK(as_exchange_pending(w->ex) > 1000);
    as_outq_taken(&w->h1.out, w->h1.out.size - 500);
    as_h1_resume(&w->h1);
    CHECK(strstr(text_of(&w->events), "drain") == NULL);
    as_outq_taken(&w->h1.out, w->h1.out.size - 200);
    as_h1_resume(&w->h1);
    CHECK(strstr(text_of(&w->events), "drain") != NULL);
    world_free(w);
}

static void pause_first(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    w->ex = ex;
    as_exchange_pause(ex);
}

static void pause_again(world *w, as_exchange *ex, as_slice data) {
    (void)w;
    (void)data;
    as_exchange_pause(ex);
}

static void test_body_flow(void) {
    current = "a paused body";
    static const script pausing = {pause_first, pause_again, NULL, NULL, NULL};
    world *w = world_new();
    w->script = &pausing;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 10\r\n\r\n01");
    CHECK(phase(w) == AS_H1_BUSY && !as_h1_wants_read(&w->h1));
    feeds(w, "23");
    feeds(w, "456");
    same("events", &w->events, "request ");
    as_exchange_resume(w->ex);
    CHECK(w->notified > 0 && phase(w) == AS_H1_BODY);
    resume(w);
    same("events", &w->events, "request body ");
    as_exchange_resume(w->ex);
    feeds(w, "789" GET);
    as_exchange_resume(w->ex);
    resume(w);
    same("events", &w->events, "request body body end ");
    CHECK(strstr(text_of(&w->request), "0123456789") != NULL);
    CHECK(w->ex->received == 10 && phase(w) == AS_H1_BUSY && w->env.requests_total == 1);
    nothing(w);
    release(w);
    resume(w);
    CHECK(w->env.requests_total == 2);
    world_free(w);
}

static void test_continue(void) {
    current = "100-continue";
#define EXPECTING(length) "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: " length "\r\n\r\n"
    world *w = world_new();
    w->script = &keeping;
    feeds(w, EXPECTING("2"));
    CHECK(phase(w) == AS_H1_BUSY && w->ex->wants_continue);
    as_exchange_want_body(w->ex);
    as_exchange_want_body(w->ex);
    CHECK(phase(w) == AS_H1_BODY && w->notified > 0);
    drain(w);
    same("continue", &w->out, "HTTP/1.1 100 Continue\r\n\r\n");
    feeds(w, "hi");
    same("events", &w->events, "request body end ");
    nothing(w);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE);

    drain(w);
    text_clear(&w->out); /* the head is begun, but the body's bytes decide over it */
    feeds(w, EXPECTING("2"));
    begin(w, 200);
    as_exchange_want_body(w->ex);
    drain(w);
    same("before the held head", &w->out, "HTTP/1.1 100 Continue\r\n\r\n");
    feeds(w, "hi");
    body(w, "ok", false);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE);

    drain(w);
    text_clear(&w->out);
    feeds(w, EXPECTING("2")); /* never asked for: nobody knows whether it will be sent */
    nothing(w);
    release(w);
    drain(w);
    same("unasked", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
    world_free(w);

    w = world_new(); /* not even a body that would be skipped: it may not come */
    w->script = &keeping;
    w->limits.limit_body_discard = 100;
    feeds(w, "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    nothing(w);
    release(w);
    drain(w);
    same("small", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, "POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n");
    CHECK(w->ex->wants_continue);
    feeds(w, "0\r\n\r\n"); /* a body without a byte was sent, too */
    CHECK(!w->ex->wants_continue);
    nothing(w);
    release(w);
    drain(w);
    same("empty", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    CHECK(phase(w) == AS_H1_IDLE);
    world_free(w);
}

static void test_refused_head(void) {
    current = "HEAD in a request line that is refused";
    for (cut how = CUT_WHOLE; how <= CUT_BYTES; how++) {
        world *w = world_new();
        static const char raw[] = "HEAD /\x02 HTTP/1.1\r\n" H "\r\n";
        feed_cut(w, raw, sizeof(raw) - 1, how, 0);
        drain(w);
        const char *end = strstr(text_of(&w->out), "\r\n\r\n");
        CHECK(strncmp(text_of(&w->out), "HTTP/1.1 400 ", 13) == 0 && end != NULL && end[4] == '\0');
        world_free(w);
    }
}

static void test_unread_body(void) {
    current = "a body that the application does not read";
    static const char post[] = "POST / HTTP/1.1\r\n" H "Content-Length: 31\r\n\r\n";
    static const char last[] = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    world *w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 31;
    feeds(w, post);
    nothing(w);
    release(w);
    CHECK(phase(w) == AS_H1_BODY);
    feeds(w, "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n\n" + 0);
    CHECK(w->env.requests_total == 1);
    world_free(w);

    static const char *const early[] = {post, CHUNKED "5\r\nhello\r\n"};
    for (size_t i = 0; i < 2; i++) {
        w = world_new();
        w->script = &keeping;
        feeds(w, early[i]);
        nothing(w);
        release(w);
        drain(w);
        same("early", &w->out, last);
        CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
        feeds(w, GET);
        CHECK(w->env.requests_total == 1);
        world_free(w);
    }

    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 31;
    feeds(w, post);
    nothing(w);
    release(w);
    feeds(w, "GET /evil HTTP/1.1\r\nHost: x\r\n\r\n");
    CHECK(phase(w) == AS_H1_IDLE && w->env.requests_total == 1);
    feeds(w, GET);
    CHECK(w->env.requests_total == 2);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 30;
    feeds(w, post);
    nothing(w);
    release(w);
    drain(w);
    same("too much", &w->out, last);
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
    world_free(w);

    w = world_new();
    w->script = &keeping;
    w->limits.limit_body_discard = 30;
    feeds(w, CHUNKED "5\r\nhello\r\n");
    nothing(w);
    release(w);
    feeds(w, "5\r\nhello\r\n");
    CHECK(phase(w) == AS_H1_BODY);
    feeds(w, "5\r\nhello\r\n50\r\n01234567890123456789012345678901234567890123456789");
    CHECK(phase(w) == AS_H1_CLOSING && as_h1_wants_linger(&w->h1));
    world_free(w);
}

static void test_abort(void) {
    current = "abort";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    begin(w, 200);
    body(w, "x", true);
    as_exchange_abort(w->ex);
    CHECK(phase(w) == AS_H1_DEAD && w->notified > 0 && w->ex->aborted && w->aborted == 0);
    CHECK(as_exchange_body(w->ex, bytes_of("x"), false) == AS_E_CLOSED);
    CHECK(as_exchange_flush(w->ex) == AS_E_CLOSED && as_exchange_lend(w->ex) == AS_E_CLOSED);
    as_exchange_yield(w->ex);
    CHECK(!w->h1.above_high);
    release(w);
    CHECK(w->env.requests == 0);
    world_free(w);

    current = "released without an answer";
    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    release(w);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests == 0);
    world_free(w);

    current = "the connection goes";
    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    begin(w, 200);
    world_reconnect(w);
    CHECK(w->aborted == 1 && w->abort_why == AS_E_CLOSED && w->ex == NULL && w->env.requests == 0);
    world_free(w);

    current = "the connection goes, a background task stays";
    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    nothing(w);
    as_exchange *ex = w->ex;
    world_reconnect(w);
    CHECK(ex->proto == NULL && ex->head != NULL && ex->head->nfields == 1 && w->aborted == 0);
    CHECK(ex->info == NULL || ex->info != &w->info);
    release(w);
    world_free(w);
}

/* Ways for an application to leave while the connection is inside of a handler. */
static void abort_within(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    w->ex = ex;
    as_exchange_abort(ex);
    CHECK(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_CLOSED);
}
static void release_within(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    as_exchange_release(ex);
    w->ex = NULL;
}
static void answer_in_body(world *w, as_exchange *ex, as_slice data) {
    (void)data;
    answer(ex);
    w->ex = NULL;
}

static void test_within_handlers(void) {
    current = "leaving within a handler";
    static const script aborting = {.on_request = abort_within};
    static const script releasing = {.on_request = release_within};
    static const script early = {.on_body = answer_in_body};
    static const script abort_later = {.on_body = abort_within};
    world *w = world_new();
    w->script = &aborting;
    feeds(w, GET GET);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests_total == 1 && w->ex->head->nfields == 1);
    world_free(w);
    w = world_new();
    w->script = &releasing;
    feeds(w, GET GET);
    CHECK(phase(w) == AS_H1_DEAD && w->env.requests_total == 1 && w->env.requests == 0);
    world_free(w);
    w = world_new();
    w->script = &abort_later;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\n");
    feeds(w, "abc" GET);
    same("events", &w->events, "request body ");
    CHECK(phase(w) == AS_H1_DEAD);
    world_free(w);
    w = world_new(); /* the answer comes before the end of the body */
    w->script = &early;
    w->limits.limit_body_discard = 3;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\n");
    feeds(w, "abc");
    CHECK(phase(w) == AS_H1_BODY);
    feeds(w, "def");
    same("events", &w->events, "request body ");
    CHECK(phase(w) == AS_H1_IDLE);
    world_free(w);
}

/* RFC 9110, 7.8: both fields ask for it. */
static void test_asking_for_an_upgrade(void) {
    static const struct {
        const char *fields;
        bool asks;
    } rows[] = {{"Connection: x, Upgrade\r\nUpgrade: x\r\n", true},
                {"Connection: upgrade\r\n", false},
                {"Upgrade: x\r\n", false}};
    for (size_t i = 0; i < ROWS(rows); i++) {
        current = rows[i].fields;
        world *w = world_new();
        w->script = &keeping;
        feeds(w, "GET / HTTP/1.1\r\n" H);
        feeds(w, rows[i].fields);
        feeds(w, "\r\n");
        CHECK(w->ex->head->upgrade == rows[i].asks);
        nothing(w);
        release(w);
        world_free(w);
    }
}

static void test_broken_body(void) {
    current = "a body that breaks";
    world *w = world_new();
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    feeds(w, "nonsense");
    check_closing(w, "400 ");
    CHECK(w->aborted == 1 && w->abort_why == AS_E_CHUNK && w->ex == NULL);
    world_free(w);

    w = world_new(); /* the head of an answer is begun: it is taken back */
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    begin(w, 200);
    feeds(w, "nonsense");
    check_closing(w, "400 ");
    world_free(w);

    w = world_new(); /* half an answer is out: only a cut tells the client */
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    begin(w, 200);
    body(w, "x", true);
    feeds(w, "nonsense");
    CHECK(phase(w) == AS_H1_DEAD && w->aborted == 1);
    world_free(w);

    w = world_new(); /* the answer is complete: there is none to the rest */
    w->script = &keeping;
    feeds(w, CHUNKED "1\r\nx\r\n");
    nothing(w);
    release(w);
    feeds(w, "nonsense");
    check_closing(w, "200 ");
    world_free(w);
}

static void test_eof(void) {
    current = "end of file";
    world *w = world_new();
    as_h1_eof(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING && w->refused.n == 0); /* a probe */
    world_free(w);

    w = world_new();
    feeds(w, "\r\n");
    as_h1_eof(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING && w->refused.n == 0);
    world_free(w);

    w = world_new();
    feeds(w, GET "GET / HT");
    CHECK(phase(w) == AS_H1_HEAD);
    as_h1_eof(&w->h1);
    drain(w);
    check_closing(w, "200 400 ");
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\nabc");
    as_h1_eof(&w->h1);
    drain(w);
    check_closing(w, "400 ");
    CHECK(w->aborted == 1 && w->abort_why == AS_E_TRUNCATED);
    world_free(w);

    w = world_new(); /* a half-closed client waits for its answers */
    w->script = &keeping;
    feeds(w, GET GET);
    as_h1_eof(&w->h1);
    CHECK(phase(w) == AS_H1_BUSY && !as_h1_wants_read(&w->h1));
    same("events", &w->events, "request eof ");
    nothing(w);
    release(w);
    resume(w);
    same("events", &w->events, "request eof request eof ");
    nothing(w);
    release(w);
    resume(w);
    CHECK(phase(w) == AS_H1_CLOSING && w->aborted == 0);
    world_free(w);
}

static void test_timeouts(void) {
    current = "timeouts";
    world *w = world_new();
    as_h1_timeout(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING && w->h1.out.size == 0 && w->refused.n == 0);
    world_free(w);

    w = world_new();
    feeds(w, "GET / HTTP/1.1\r\nHo");
    as_h1_timeout(&w->h1);
    drain(w);
    check_closing(w, "408 ");
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\nabc");
    CHECK(phase(w) == AS_H1_BODY);
    as_h1_timeout(&w->h1);
    drain(w);
    check_closing(w, "408 ");
    CHECK(w->aborted == 1 && w->abort_why == AS_E_TIMEOUT_BODY);
    world_free(w);

    w = world_new(); /* the rest of a body that nobody waits for */
    w->script = &keeping;
    w->limits.limit_body_discard = 6;
    feeds(w, "POST / HTTP/1.1\r\n" H "Content-Length: 6\r\n\r\nabc");
    nothing(w);
    release(w);
    CHECK(phase(w) == AS_H1_BODY);
    drain(w);
    text_clear(&w->out);
    as_h1_timeout(&w->h1);
    drain(w);
    CHECK(phase(w) == AS_H1_CLOSING && w->out.n == 0 && w->refused.n == 0);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, GET);
    as_h1_timeout(&w->h1); /* nothing is expected of the client */
    CHECK(phase(w) == AS_H1_BUSY);
    world_free(w);
}

static void test_draining(void) {
    current = "draining";
    world *w = world_new();
    feeds(w, GET);
    w->env.draining = true;
    as_h1_drain(&w->h1);
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);

    w = world_new();
    w->script = &keeping;
    feeds(w, GET GET);
    w->env.draining = true;
    as_h1_drain(&w->h1);
    CHECK(phase(w) == AS_H1_BUSY);
    nothing(w);
    release(w);
    drain(w);
    same("out", &w->out, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    CHECK(phase(w) == AS_H1_CLOSING && w->env.requests_total == 1);
    world_free(w);

    w = world_new(); /* the head is out already */
    w->script = &keeping;
    feeds(w, GET);
    begin(w, 200);
    body(w, "x", true);
    w->env.draining = true;
    as_h1_drain(&w->h1);
    CHECK(phase(w) == AS_H1_BUSY);
    body(w, "x", false);
    release(w);
    CHECK(phase(w) == AS_H1_IDLE); /* it did not say that it is the last */
    feeds(w, GET);
    nothing(w);
    release(w);
    drain(w);
    CHECK(strstr(text_of(&w->out), "content-length: 0\r\nconnection: close\r\n\r\n") != NULL);
    CHECK(phase(w) == AS_H1_CLOSING);
    world_free(w);
}

/* --- behind a proxy ------------------------------------------------------------------------- */

static void describe_info(const as_exchange *ex, text *out) {
    const as_head *head = ex->head;
    const as_conn_info *info = ex->info;
    as_slice host = as_head_slice(head, head->host), prefix = as_head_slice(head, head->prefix);
    text_addf(out, "%s%s %s %u %s %u [%.*s] [%.*s]", info->via != NULL ? "via " : "",
              info->is_unix ? "unix" : "inet", info->client, info->client_port,
              info->is_tls ? "https" : "http", info->server_port, (int)host.n, host.p,
              (int)prefix.n, prefix.p);
}

#define NOTHING_TOLD "unix  0 http 8000 [] []"

static const struct {
    const char *fields, *told;
} forwarded_rows[] = {
    {"X: y\r\n", NOTHING_TOLD},
    {"X-Forwarded-For: 198.51.100.7:99\r\n", "via inet 198.51.100.7 99 http 8000 [] []"},
    {"X-Forwarded-For: 2001:db8::1\r\n", "via inet 2001:db8::1 0 http 8000 [] []"},
    {"X-Forwarded-For: evil\r\n", NOTHING_TOLD},
    {"X-Forwarded-Proto: https\r\n", "via unix  0 https 8000 [] []"},
    {"X-Forwarded-Proto: http\r\n", "via unix  0 http 8000 [] []"},
    {"X-Forwarded-Host: b\r\n", "via unix  0 http 80 [b] []"},
    {"X-Forwarded-Host: b\r\nX-Forwarded-Proto: https\r\n", "via unix  0 https 443 [b] []"},
    {"X-Forwarded-Host: b:81\r\n", "via unix  0 http 81 [b] []"},
    {"X-Forwarded-Port: 82\r\n", "via unix  0 http 82 [] []"},
    {"X-Forwarded-Prefix: /p\r\n", "via unix  0 http 8000 [] [/p]"},
    {"Forwarded: for=198.51.100.7;proto=https\r\n", "via inet 198.51.100.7 0 https 8000 [] []"},
};

static void check_forwarded(const as_forwarding *forwarding, bool trusted, const char *fields,
                            const char *told) {
    current = fields;
    text got = {NULL, 0};
    world *w = world_new();
    w->script = &keeping;
    w->env.forwarding = forwarding;
    w->info = (as_conn_info){
        .server = "/run/x", .server_port = 8000, .is_unix = true, .trusted = trusted};
    feeds(w, "GET / HTTP/1.1\r\n" H);
    feeds(w, fields);
    feeds(w, "\r\n");
    if (w->ex != NULL) {
        describe_info(w->ex, &got);
        nothing(w);
        release(w);
    } else {
        statuses(&w->out, &got);
    }
    same("told", &got, told);
    text_clear(&got);
    world_free(w);
}

static void test_forwarding(void) {
    static const as_scheme_field ssl = {{"X-FORWARDED-SSL", 15}, {"on", 2}};
    as_forwarding forwarding = {.fields = true};
    for (size_t i = 0; i < ROWS(forwarded_rows); i++) {
        check_forwarded(&forwarding, true, forwarded_rows[i].fields, forwarded_rows[i].told);
        check_forwarded(&forwarding, false, forwarded_rows[i].fields, NOTHING_TOLD);
        check_forwarded(NULL, true, forwarded_rows[i].fields, NOTHING_TOLD);
    }
    forwarding.schemes = &ssl;
    forwarding.nschemes = 1;
    check_forwarded(&forwarding, true, "X-Forwarded-Ssl: on\r\n", "via unix  0 https 8000 [] []");
    check_forwarded(&forwarding, true, "X-Forwarded-Ssl: on\r\nX-Forwarded-Ssl: off\r\n", "400 ");
}

int main(void) {
    test_pipelining();
    test_pipelining_goes_on();
    test_turns();
    test_endless_empty_lines();
    test_unread_answers();
    test_drain_level();
    test_body_flow();
    test_continue();
    test_refused_head();
    test_unread_body();
    test_abort();
    test_within_handlers();
    test_forwarding();
    test_asking_for_an_upgrade();
    test_broken_body();
    test_eof();
    test_timeouts();
    test_draining();
    return failures == 0 ? 0 : 1;
}

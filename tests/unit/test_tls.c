/* TLS on the wire: handshakes, what is no TLS, data in both directions, and the ends of
 * connections. */
#include "tls_sides.h"

#include <signal.h>

/* --- handshakes ------------------------------------------------------------------------------- */

static void test_versions(void) {
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        server s;
        prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
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
        prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
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

/* So many without data that is asked for, and no more: not of those that are there at once. */
static void test_a_flood_of_key_updates(unsigned updates, bool is_cut) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    for (unsigned i = 0; i < updates; i++) {
        assert(SSL_key_update(c.ssl, SSL_KEY_UPDATE_REQUESTED) == 1);
        assert(SSL_do_handshake(c.ssl) == 1);
    }
    if (is_cut) {
        UNTIL(&s, (pump(&c), connections(&s) == 0));
        assert(s.refused == 1 && s.refused_why == AS_E_TLS_FLOOD);
    } else {
        say(&c, GET);
        UNTIL(&s, count_of(&c, "hello") == 2);
    }
    hang_up(&c);
    stop(&s);
}

/* Whoever asks for new keys now and then may do so for ever. */
static void test_key_updates_with_data_between(void) {
    server s;
    prepare(&s, ANSWER);
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    for (unsigned i = 2; i < 100; i++) {
        assert(SSL_key_update(c.ssl, SSL_KEY_UPDATE_NOT_REQUESTED) == 1);
        say(&c, GET);
        UNTIL(&s, count_of(&c, "hello") == i);
    }
    hang_up(&c);
    stop(&s);
}

static void test_handshake_runs_out_of_time(void) {
    server s;
    prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
    s.config.limits.timeout_request_head = 300;
    start(&s);
    client c = asked(&s, TLS1_3_VERSION, "GET / HT");
    UNTIL(&s, ended(&c));
    assert(count_of(&c, "HTTP/1.1 408 ") == 1 && c.notified);
    hang_up(&c);
    stop(&s);
}

static void test_crowd(void) {
    server s;
    prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
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
    prepare(&s, HOLD);
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
    prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    assert(send(c.fd, "\x17\x03\x03\x00\x14xxxxxxxxxxxxxxxxxxxx", 25, MSG_NOSIGNAL) == 25);
    UNTIL(&s, s.refused == 1 && connections(&s) == 0);
    assert(s.refused_why == AS_E_TLS_RECORD);
    hang_up(&c);
    stop(&s);
}

/* The transport alone: nothing has come, and nothing may leave. */
static void test_before_the_handshake(void) {
    as_tls_settings settings = usual_settings();
    as_tls_context *context = make_context(&settings);
    char *scratch = malloc(AS_TLS_RECORD);
    char text[] = "plain";
    int fds[2], eof = 0;
    as_transport t;
    assert(scratch != NULL && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    assert(as_tls_transport_init(&t, fds[0], context, scratch) == AS_OK);
    struct iovec vec = {text, sizeof(text)};
    assert(t.ops->read(&t, text, sizeof(text), &eof) == 0 && !eof);
    assert(t.ops->writev(&t, &vec, 1) == 0 && t.handshaking && !as_tls_begun(as_tls_of(&t)));
    t.ops->close(&t, false);
    assert(recv(fds[1], text, sizeof(text), 0) == 0);
    assert(close(fds[1]) == 0);
    as_tls_context_unref(context);
    free(scratch);
}

static void test_leaving_in_the_handshake(void) {
    server s;
    prepare(&s, ANSWER);
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
    prepare(&s, ANSWER);
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
    prepare(&s, HOLD);
    s.config.limits.limit_pipeline = 1024;
    start(&s);
    client c = established_to(&s, TLS1_3_VERSION);
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
    UNTIL(&s, (pump(&c), s.requests == REQUESTS)); /* to count the answers takes longer */
    UNTIL(&s, count_of(&c, "hello") == REQUESTS);
    hang_up(&c);
    stop(&s);
}

/* The same where nothing is in the way: a few bytes are left when the read buffer is full. */
static void test_rest_of_a_full_buffer(void) {
    static const char head[] = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 75000\r\n\r\n";
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = established_to(&s, TLS1_3_VERSION);
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
    prepare(&s, PAUSE);
    start(&s);
    client c =
        asked(&s, TLS1_2_VERSION, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 600000\r\n\r\n");
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
        prepare(&s, STREAM);
        s.stream_end = 6000000;
        start(&s);
        client c = established_to(&s, version);
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

static void append(server *s, size_t n) {
    char piece[20000];
    fill(piece, s->stream_at, n);
    assert(as_exchange_body(s->held, (as_bytes){.p = piece, .n = n}, true) == AS_OK);
    s->stream_at += n;
}

/* What a socket does not take is copied elsewhere when more comes, and its old place used again. */
static void test_what_waits_moves(void) {
    for (unsigned i = 0; i < 20; i++) {
        server s;
        prepare(&s, HOLD);
        start(&s);
        client c = connect_to(&s, i % 2 == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
        client other = connect_to(&s, TLS1_3_VERSION);
        UNTIL(&s, established(&c) && established(&other));
        c.lazy = true;
        say(&c, GET);
        UNTIL(&s, s.held != NULL);
        assert(as_exchange_head_begin(s.held, 200, (as_slice){0}) == AS_OK);
        do {
            append(&s, 1000 + 100 * i);
            turn(&s, 0);
        } while (as_exchange_pending(s.held) == 0);
        for (int j = 0; j < 20; j++) {
            append(&s, 20000);
        }
        s.mode = ANSWER;
        say(&other, GET GET GET);
        UNTIL(&s, count_of(&other, "hello") == 3);
        c.lazy = false;
        UNTIL(&s, (pump(&c), as_exchange_pending(s.held) == 0));
        assert(as_exchange_body(s.held, (as_bytes){0}, false) == AS_OK);
        as_exchange_release(s.held);
        UNTIL(&s, count_of(&c, "\r\n0\r\n\r\n") == 1);
        check_stream(&c, s.stream_at, true);
        hang_up(&c);
        hang_up(&other);
        stop(&s);
    }
}

static void test_file(void) {
    server s;
    prepare(&s, FILE_ANSWER);
    s.stream_end = 3000001;
    start(&s);
    client c = established_to(&s, TLS1_3_VERSION);
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
    prepare(&s, STREAM);
    s.stream_end = UINT64_MAX;
    s.config.limits.timeout_write = 300;
    start(&s);
    client c = established_to(&s, TLS1_3_VERSION);
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
    prepare(&s, ANSWER);
    start(&s);
    client c = asked(&s, TLS1_3_VERSION, GET_CLOSE);
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

/* Also where the last bytes of an answer fill the socket. */
static void test_goodbye_waits_for_the_socket(void) {
    for (unsigned i = 0; i < 200; i++) {
        server s;
        prepare(&s, STREAM);
        s.stream_end = 60000 + (uint64_t)i * 1000;
        start(&s);
        int small = 4096; /* accepted sockets have it, too */
        assert(setsockopt(s.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
        client c = established_to(&s, i % 2 == 0 ? TLS1_2_VERSION : TLS1_3_VERSION);
        c.lazy = true;
        say(&c, GET_CLOSE);
        if (i % 3 == 0) {
            assert(SSL_shutdown(c.ssl) == 0); /* the client is finished before */
            send_out(&c);
        }
        for (int j = 0; j < 5; j++) {
            turn(&s, 1);
        }
        c.lazy = false;
        UNTIL(&s, ended(&c));
        assert(c.notified && c.eof && !c.reset);
        check_stream(&c, s.stream_end, count_of(&c, "chunked") > 0);
        hang_up(&c);
        stop(&s);
    }
}

/* A little of what is there; true at its end. */
static bool ended_slowly(client *c) {
    char buf[8000];
    ssize_t n = recv(c->fd, buf, sizeof(buf), 0);
    c->eof = n == 0;
    c->reset = n < 0 && errno != EAGAIN;
    if (n > 0) {
        assert(BIO_write(c->in, buf, (int)n) == (int)n);
        read_data(c);
    }
    return c->eof || c->reset;
}

/* … and what the client sends meanwhile takes nothing of the answer from it. */
static void test_goodbye_waits_while_the_client_sends(void) {
    static const char body[200000];
    for (unsigned i = 0; i < 40; i++) {
        server s;
        prepare(&s, STREAM);
        s.stream_end = 70000 + (uint64_t)i * 1000;
        start(&s);
        int small = 32768;
        assert(setsockopt(s.fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)) == 0);
        client c = established_to(&s, TLS1_3_VERSION);
        c.lazy = true;
        say(&c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
        for (int j = 0; j < 5; j++) {
            turn(&s, 1);
        }
        say_bytes(&c, body, sizeof(body));
        UNTIL(&s, ended_slowly(&c));
        assert(c.notified && !c.reset);
        check_stream(&c, s.stream_end, count_of(&c, "chunked") > 0);
        hang_up(&c);
        stop(&s);
    }
}

/* The client's goodbye came with its request, and waits in OpenSSL: it keeps nobody awake. */
static void test_lingering_rests(void) {
    server s;
    prepare(&s, ANSWER);
    s.config.wake = wake;
    start(&s);
    client c = established_to(&s, TLS1_3_VERSION);
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
    prepare(&s, HOLD);
    start(&s);
    client c = asked(&s, TLS1_3_VERSION, GET);
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
    prepare(&s, ANSWER);
    start(&s);
    client c = served(&s, TLS1_3_VERSION);
    assert(shutdown(c.fd, SHUT_WR) == 0);
    UNTIL(&s, connections(&s) == 0);
    assert(s.refused == 0);
    hang_up(&c);
    s.mode = HOLD;
    client half =
        asked(&s, TLS1_3_VERSION, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc");
    UNTIL(&s, s.held != NULL);
    assert(shutdown(half.fd, SHUT_WR) == 0);
    UNTIL(&s, s.aborts == 1);
    assert(s.abort_why == AS_E_TRUNCATED && s.refused_why == AS_E_TRUNCATED);
    hang_up(&half);
    stop(&s);
}

static void test_cut_answer_looks_cut(void) {
    server s;
    prepare(&s, HOLD);
    start(&s);
    client c = asked(&s, TLS1_3_VERSION, GET);
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

int main(void) {
    (void)alarm(240);
    (void)signal(SIGPIPE, SIG_IGN);
    make_folder();
    RUN(test_versions);
    RUN(test_version_below_the_least);
    RUN(test_bytes_one_by_one);
    RUN(test_renegotiation_is_refused);
    RUN(test_key_update);
    test_a_flood_of_key_updates(30, false);
    test_a_flood_of_key_updates(1000, true);
    RUN(test_key_updates_with_data_between);
    RUN(test_handshake_runs_out_of_time);
    RUN(test_head_has_its_own_time);
    RUN(test_crowd);
    RUN(test_flood);
    RUN(test_free_in_any_state);
    RUN(test_plain_http);
    RUN(test_garbage);
    RUN(test_broken_record);
    RUN(test_before_the_handshake);
    RUN(test_leaving_in_the_handshake);
    RUN(test_proxy_header_comes_first);
    RUN(test_pipelined_requests_that_wait);
    RUN(test_rest_of_a_full_buffer);
    RUN(test_paused_body_goes_on);
    RUN(test_large_answers_to_a_slow_reader);
    RUN(test_what_waits_moves);
    RUN(test_file);
    RUN(test_stalled_reader_is_cut);
    RUN(test_we_say_goodbye);
    RUN(test_goodbye_waits_for_the_socket);
    RUN(test_goodbye_waits_while_the_client_sends);
    RUN(test_lingering_rests);
    RUN(test_client_says_goodbye);
    RUN(test_client_is_cut_off);
    RUN(test_cut_answer_looks_cut);
    remove_tree(folder);
    return 0;
}

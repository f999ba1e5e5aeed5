/* What proxies tell, through the whole of HTTP/1: a peer that is not trusted changes nothing; a
 * client's address is one, in its usual form; and whatever somebody wrote in front of what the
 * last proxy added, the client is the one that this proxy saw.
 *
 * The first two bytes of an input choose whom to trust, and what a line is called; the rest is that
 * line's value, cut at line ends into several. */
#include <arpa/inet.h>

#include "connection.h"
#include "http/forwarded.h"

enum { CHOICES = 2 };

typedef struct outcome {
    unsigned requests;
    char client[64];
    uint16_t client_port, server_port;
    bool is_tls, is_told;
    as_buf host, prefix;
} outcome;

typedef struct world {
    connection c;
    outcome seen;
} world;

/* --- what the application sees --------------------------------------------------------------- */

static void check_prefix(as_slice prefix) {
    MUST(prefix.n == 0 || (prefix.n > 1 && prefix.p[0] == '/' && prefix.p[prefix.n - 1] != '/'));
    for (size_t i = 0; i + 1 < prefix.n; i++) {
        MUST(prefix.p[i] != '/' || prefix.p[i + 1] != '/');
    }
    MUST(prefix.n == 0 || (memchr(prefix.p, '%', prefix.n) == NULL &&
                           memmem(prefix.p, prefix.n, "/../", 4) == NULL));
}

static void check_client(const as_conn_info *info) {
    unsigned char bytes[16];
    MUST(memchr(info->client, '\0', sizeof(info->client)) != NULL);
    MUST(inet_pton(AF_INET, info->client, bytes) == 1 ||
         inet_pton(AF_INET6, info->client, bytes) == 1);
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    world *w = ctx;
    const as_head *head = ex->head;
    outcome *seen = &w->seen;
    (void)body;
    if (seen->requests++ == 0) {
        seen->is_told = ex->info != &w->c.info;
        MUST(seen->is_told == (ex->info->via != NULL));
        strcpy(seen->client, ex->info->client);
        seen->client_port = ex->info->client_port;
        seen->server_port = ex->info->server_port;
        seen->is_tls = ex->info->is_tls;
        put_slice(&seen->host, as_head_slice(head, head->host));
        put_slice(&seen->prefix, as_head_slice(head, head->prefix));
        MUST(head->host.off + head->host.len <= head->len);
        MUST(head->prefix.off + head->prefix.len <= head->len);
        check_prefix(logged(&seen->prefix));
        check_client(ex->info);
    }
    MUST(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
    MUST(as_exchange_body(ex, (as_bytes){.p = ""}, false) == AS_OK);
    as_exchange_release(ex);
}

/* --- a request ------------------------------------------------------------------------------ */

static const char *const names[] = {"X-Forwarded-For",  "Forwarded",        "X-Forwarded-Proto",
                                    "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix"};

static void put_line(as_buf *to, const char *name, as_slice value) {
    put_text(to, name);
    put_text(to, ": ");
    for (size_t i = 0; i < value.n; i++) {
        char c = value.p[i];
        bool fits = c == '\t' || (unsigned char)c >= ' ';
        put(to, fits && c != 0x7f ? &c : " ", 1);
    }
    put_text(to, "\r\n");
}

/* `value` in as many lines as it has, then `last` in one of its own if it is not empty. */
static void put_request(as_buf *to, uint8_t choice, as_slice value, const char *last) {
    put_text(to, "GET / HTTP/1.1\r\nHost: a\r\n");
    for (unsigned i = choice; value.n > 0; i += choice >> 4) {
        const char *end = memchr(value.p, '\n', value.n);
        size_t n = end != NULL ? (size_t)(end - value.p) : value.n;
        put_line(to, names[i % 6], (as_slice){value.p, n});
        n += end != NULL;
        value = (as_slice){value.p + n, value.n - n};
    }
    put_text(to, last);
    put_text(to, "\r\n");
}

static outcome run(const as_forwarding *forwarding, bool trusted, as_slice request, uint32_t cut) {
    static const as_handlers handlers = {.on_request = on_request};
    world *w = calloc(1, sizeof(*w));
    MUST(w != NULL);
    connection_init(&w->c, &handlers);
    w->c.env.forwarding = forwarding;
    w->c.info.trusted = trusted;
    w->c.info.client_port = 1000;
    w->c.info.server_port = 80;
    connection_feed(&w->c, request, cut, false);
    outcome seen = w->seen;
    MUST(seen.requests <= 1 && (seen.requests == 1) == (w->c.refused == AS_OK));
    connection_fini(&w->c);
    free(w);
    return seen;
}

static void forget(outcome *seen) {
    as_buf_fini(&seen->host, NULL);
    as_buf_fini(&seen->prefix, NULL);
}

static void must_be_same(outcome a, outcome b) {
    MUST(a.requests == b.requests && a.is_told == b.is_told && a.is_tls == b.is_tls);
    MUST(strcmp(a.client, b.client) == 0 && a.client_port == b.client_port &&
         a.server_port == b.server_port);
    must_agree("hosts", &a.host, &b.host);
    must_agree("prefixes", &a.prefix, &b.prefix);
}

/* --- what must hold ------------------------------------------------------------------------- */

static void must_change_nothing(outcome seen) {
    MUST(!seen.is_told && strcmp(seen.client, "192.0.2.1") == 0 && seen.client_port == 1000);
    MUST(!seen.is_tls && seen.server_port == 80 && seen.host.len == 0 && seen.prefix.len == 0);
    forget(&seen);
}

/* The trusted proxy saw 203.0.113.7, which nobody trusts, and wrote so behind the rest. Or somebody
 * wrote what cannot be read: what is before it does not count, be the next hop trusted or not. */
static void try_last_hop(const as_forwarding *forwarding, as_slice value) {
    static const struct {
        uint8_t name;
        const char *lines, *client;
    } rows[] = {
        {0, "X-Forwarded-For: 203.0.113.7\r\n", "203.0.113.7"},
        {1, "Forwarded: for=203.0.113.7;proto=https\r\n", "203.0.113.7"},
        {0, "X-Forwarded-For: evil, 10.0.0.1\r\n", "10.0.0.1"},
        {1, "Forwarded: evil\r\nForwarded: for=10.0.0.1;proto=https\r\n", "10.0.0.1"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        as_buf request = {0};
        /* that field alone: X-Forwarded-* are in place of Forwarded where both are there */
        put_request(&request, rows[i].name, value, rows[i].lines);
        outcome seen = run(forwarding, true, logged(&request), WHOLE);
        MUST(seen.requests == 0 || strcmp(seen.client, rows[i].client) == 0);
        MUST(seen.requests == 0 || seen.is_tls == (rows[i].name == 1));
        as_buf_fini(&request, NULL);
        forget(&seen);
    }
}

/* It is so if the proxy appends to the line, but for what makes the whole line unreadable. */
static void try_same_line(const as_forwarding *forwarding, as_slice value) {
    static const char *const added[] = {", 203.0.113.7", ", for=203.0.113.7"};
    for (unsigned i = 0; i < 2; i++) {
        as_buf request = {0}, line = {0};
        const char *end = memchr(value.p, '\n', value.n);
        put(&line, value.p, end != NULL ? (size_t)(end - value.p) : value.n);
        put_text(&line, added[i]);
        put_text(&request, "GET / HTTP/1.1\r\nHost: a\r\n");
        put_line(&request, names[i], logged(&line));
        put_text(&request, "\r\n");
        outcome seen = run(forwarding, true, logged(&request), WHOLE);
        MUST(seen.requests == 0 || strcmp(seen.client, "203.0.113.7") == 0 ||
             (i == 1 && strcmp(seen.client, "192.0.2.1") == 0));
        as_buf_fini(&line, NULL);
        as_buf_fini(&request, NULL);
        forget(&seen);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const uint8_t proxy[4] = {192, 0, 2, 1}, net[4] = {10, 0, 0, 0}, any[16] = {0x20, 1};
    static const as_scheme_field schemes[] = {{{"x-forwarded-proto", 17}, {"https", 5}},
                                              {{"x-forwarded-port", 16}, {"443", 3}}};
    if (size < CHOICES) {
        return 0;
    }
    as_forwarding forwarding = {.fields = true};
    MUST(as_trust_add(&forwarding.trust, proxy, 4, 32) == AS_OK);
    MUST(as_trust_add(&forwarding.trust, net, 4, 8) == AS_OK);
    MUST(as_trust_add(&forwarding.trust, any, 16, 16) == AS_OK);
    char *exact = copy_exactly(data + CHOICES, size - CHOICES);
    as_slice value = {exact, size - CHOICES};
    try_last_hop(&forwarding, value);
    try_same_line(&forwarding, value);
    if (data[0] & 1) {
        forwarding.schemes = schemes;
        forwarding.nschemes = 2;
    }
    forwarding.fields = (data[0] & 2) == 0;
    as_buf request = {0};
    put_request(&request, data[1], value, "");
    must_change_nothing(run(&forwarding, false, logged(&request), WHOLE));
    outcome whole = run(&forwarding, true, logged(&request), WHOLE),
            cut = run(&forwarding, true, logged(&request), BYTES);
    must_be_same(whole, cut);
    forget(&whole);
    forget(&cut);
    as_buf_fini(&request, NULL);
    free(exact);
    as_trust_fini(&forwarding.trust);
    return 0;
}

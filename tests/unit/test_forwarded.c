/* What a trusted proxy tells. Trusted are 10.0.0.0/8 and 2001:db8:f::/48; each row is a head's
 * field lines and what must come of them. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/forwarded.h"
#include "http/response.h"

static unsigned failures;

typedef struct row {
    const char *fields;   /* lines with LF behind each but the last */
    const char *expected; /* client port | scheme | host port | prefix; see describe() */
} row;

#define FOR "X-Forwarded-For: "
#define FWD "Forwarded: "

static const row rows[] = {
    /* X-Forwarded-For: one hop */
    {FOR "192.0.2.1", "192.0.2.1"},
    {"x-forwarded-for:192.0.2.1", "192.0.2.1"},
    {FOR "192.0.2.1:4096", "192.0.2.1:4096"},
    {FOR "2001:db8::1", "2001:db8::1"},
    {FOR "2001:DB8:0::1", "2001:db8::1"},
    {FOR "[2001:db8::1]", "2001:db8::1"},
    {FOR "[2001:db8::1]:4096", "2001:db8::1:4096"},
    {FOR "::ffff:192.0.2.1", "192.0.2.1"},
    {FOR "[::ffff:192.0.2.1]:80", "192.0.2.1:80"},
    {FOR "192.0.2.1,", "192.0.2.1"},
    {FOR ",\t192.0.2.1 , ,", "192.0.2.1"},
    {FOR "10.1.1.1", "10.1.1.1"}, /* a proxy that asks for itself */
    {FOR "", ""},
    {FOR ", ,", ""},
    /* several hops: the right-most one that is not trusted */
    {FOR "192.0.2.1, 10.0.0.1", "192.0.2.1"},
    {FOR "192.0.2.1, 10.0.0.1, 10.0.0.2", "192.0.2.1"},
    {FOR "192.0.2.1,192.0.2.2", "192.0.2.2"},
    {FOR "192.0.2.1, 192.0.2.2, 10.0.0.1", "192.0.2.2"},
    {FOR "127.0.0.1, 192.0.2.2", "192.0.2.2"},
    {FOR "10.0.0.9, 192.0.2.2", "192.0.2.2"},
    {FOR "10.0.0.9, 192.0.2.2, 10.0.0.1", "192.0.2.2"},
    {FOR "10.0.0.3, 10.0.0.2, 10.0.0.1", "10.0.0.3"},
    {FOR "192.0.2.1, 2001:db8:f::1", "192.0.2.1"},
    {FOR "192.0.2.1, [2001:db8:f::1]:80", "192.0.2.1"},
    {FOR "192.0.2.1, ::ffff:10.0.0.1", "192.0.2.1"},
    {FOR "192.0.2.1, 2001:db8:e::1", "2001:db8:e::1"},
    {FOR "192.0.2.1:1, 10.0.0.1:2", "192.0.2.1:1"},
    {FOR "192.0.2.1, 11.0.0.1", "11.0.0.1"},
    /* several lines */
    {FOR "192.0.2.1\n" FOR "10.0.0.1", "192.0.2.1"},
    {FOR "192.0.2.1\n" FOR "192.0.2.2", "192.0.2.2"},
    {FOR "192.0.2.1\nHost: x\n" FOR "192.0.2.2, 10.0.0.2\n" FOR "10.0.0.1", "192.0.2.2"},
    {FOR "192.0.2.1\n" FOR, "192.0.2.1"},
    /* malformed: nothing to the left of it counts */
    {FOR "evil", ""},
    {FOR "unknown", ""},
    {FOR "_hidden", ""},
    {FOR "192.0.2.1, evil", ""},
    {FOR "192.0.2.1, evil, 10.0.0.1", "10.0.0.1"},
    {FOR "192.0.2.1, unknown, 10.0.0.2, 10.0.0.1", "10.0.0.2"},
    {FOR "192.0.2.1, evil, 192.0.2.2, 10.0.0.1", "192.0.2.2"},
    {FOR "evil, 192.0.2.1", "192.0.2.1"},
    {FOR "evil\n" FOR "192.0.2.1", "192.0.2.1"},
    {FOR "192.0.2.1\n" FOR "evil", ""},
    {FOR "192.0.2.256", ""},
    {FOR "192.0.2", ""},
    {FOR "192.0.2.1:", ""},
    {FOR "192.0.2.1:x", ""},
    {FOR "192.0.2.1:65536", ""},
    {FOR "192.0.2.1:123456", ""},
    {FOR "192.0.2.1:-1", ""},
    {FOR "192.0.2.01", ""},
    {FOR "192.0.2.1 192.0.2.2", ""},
    {FOR "192.0.2.1; 192.0.2.2", ""},
    {FOR "\"192.0.2.1\"", ""},
    {FOR "[192.0.2.1]", ""},
    {FOR "[2001:db8::1", ""},
    {FOR "2001:db8::1]", ""},
    {FOR "[2001:db8::1]80", ""},
    {FOR "[2001:db8::1]:", ""},
    {FOR "[]", ""},
    {FOR "[", ""},
    {FOR ":80", ""},
    {FOR "fe80::1%eth0", ""},
    {FOR "10.0.0.0/8", ""},
    {FOR "<script>", ""},
    {FOR "localhost", ""},
    /* X-Forwarded-Proto: the last element */
    {"X-Forwarded-Proto: https", "|https"},
    {"X-Forwarded-Proto: HTTPS", "|https"},
    {"X-Forwarded-Proto: http", "|http"},
    {"X-Forwarded-Proto: wss", "|https"},
    {"X-Forwarded-Proto: ws", "|http"},
    {"X-Forwarded-Proto: https, http", "|http"},
    {"X-Forwarded-Proto: http, https", "|https"},
    {"X-Forwarded-Proto: https,", "|https"},
    {"X-Forwarded-Proto: https\nX-Forwarded-Proto: http", "|http"},
    {"X-Forwarded-Proto: https\nX-Forwarded-Proto:", "|https"},
    {"X-Forwarded-Proto: https, evil", ""},
    {"X-Forwarded-Proto: httpss", ""},
    {"X-Forwarded-Proto: https://", ""},
    {"X-Forwarded-Proto: \"https\"", ""},
    {"X-Forwarded-Proto: ftp", ""},
    {"X-Forwarded-Proto:", ""},
    {FOR "192.0.2.1, 10.0.0.1\nX-Forwarded-Proto: https", "192.0.2.1|https"},
    {FOR "evil\nX-Forwarded-Proto: https", "|https"},
    {FOR "192.0.2.1\nX-Forwarded-Proto: evil", "192.0.2.1"},
    /* X-Forwarded-Host, X-Forwarded-Port */
    {"X-Forwarded-Host: example.org", "||example.org"},
    {"X-Forwarded-Host: example.org:8443", "||example.org 8443"},
    {"X-Forwarded-Host: [2001:db8::1]:8443", "||2001:db8::1 8443"},
    {"X-Forwarded-Host: [2001:db8::1]", "||2001:db8::1"},
    {"X-Forwarded-Host: evil, example.org", "||example.org"},
    {"X-Forwarded-Host: example.org:8443\nX-Forwarded-Port: 443", "||example.org 443"},
    {"X-Forwarded-Port: 443", "|| 443"},
    {"X-Forwarded-Port: 80, 443", "|| 443"},
    {"X-Forwarded-Port: 0", ""},
    {"X-Forwarded-Port: 65536", ""},
    {"X-Forwarded-Port: 000443", ""},
    {"X-Forwarded-Port: 443x", ""},
    {"X-Forwarded-Port: +443", ""},
    {"X-Forwarded-Port:", ""},
    {"X-Forwarded-Host: example.org:65536", ""},
    {"X-Forwarded-Host: example.org:x", ""},
    {"X-Forwarded-Host: exam ple.org", ""},
    {"X-Forwarded-Host: example.org/path", ""},
    {"X-Forwarded-Host: user@example.org", ""},
    {"X-Forwarded-Host: [::1", ""},
    {"X-Forwarded-Host: :80", ""},
    {"X-Forwarded-Host:", ""},
    /* X-Forwarded-Prefix */
    {"X-Forwarded-Prefix: /api", "|||/api"},
    {"X-Forwarded-Prefix: /api/", "|||/api"},
    {"X-Forwarded-Prefix: /api/v1.2", "|||/api/v1.2"},
    {"X-Forwarded-Prefix: /evil, /api", "|||/api"},
    {"X-Forwarded-Prefix: /a~b_c-d@e:f;g=h+i*j!k$l&m'n(o)", "|||/a~b_c-d@e:f;g=h+i*j!k$l&m'n(o)"},
    {"X-Forwarded-Prefix: /...", "|||/..."},
    {"X-Forwarded-Prefix: /.hidden", "|||/.hidden"},
    {"X-Forwarded-Prefix: /", ""},
    {"X-Forwarded-Prefix:", ""},
    {"X-Forwarded-Prefix: api", ""},
    {"X-Forwarded-Prefix: //evil.example", ""},
    {"X-Forwarded-Prefix: /a//b", ""},
    {"X-Forwarded-Prefix: /a//", ""},
    {"X-Forwarded-Prefix: /..", ""},
    {"X-Forwarded-Prefix: /a/../b", ""},
    {"X-Forwarded-Prefix: /./a", ""},
    {"X-Forwarded-Prefix: /a%2f", ""},
    {"X-Forwarded-Prefix: /a?b", ""},
    {"X-Forwarded-Prefix: /a#b", ""},
    {"X-Forwarded-Prefix: /a b", ""},
    {"X-Forwarded-Prefix: /a\\b", ""},
    {"X-Forwarded-Prefix: /a\tb", ""},
    {"X-Forwarded-Prefix: /a{b", ""},
    {"X-Forwarded-Prefix: /caf\xc3\xa9", ""},
    {"X-Forwarded-Prefix: https://evil.example/", ""},
    /* Forwarded */
    {FWD "for=192.0.2.1", "192.0.2.1"},
    {FWD "For=192.0.2.1;PROTO=https;by=203.0.113.43", "192.0.2.1|https"},
    {FWD "for=\"192.0.2.1:4096\"", "192.0.2.1:4096"},
    {FWD "for=\"[2001:db8::1]\"", "2001:db8::1"},
    {FWD "for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17:4711"},
    {FWD "for=\"[2001:db8::1]:_port\"", "2001:db8::1"},
    {FWD "for=192.0.2.1, for=10.0.0.1", "192.0.2.1"},
    {FWD "for=192.0.2.1,for=\"192.0.2.2\" , for=10.0.0.1", "192.0.2.2"},
    {FWD "for=192.0.2.1\n" FWD "for=10.0.0.1", "192.0.2.1"},
    {FWD "for=192.0.2.1\n" FWD "for=192.0.2.2", "192.0.2.2"},
    {FWD "for=10.0.0.2, for=10.0.0.1;proto=https", "10.0.0.2"},
    {FWD "for=192.0.2.1;proto=https, for=10.0.0.1;proto=http", "192.0.2.1|https"},
    {FWD "for=192.0.2.1;proto=https, for=192.0.2.2", "192.0.2.2"},
    {FWD "proto=https", "|https"},
    {FWD "proto=https;by=_x, for=10.0.0.1", "10.0.0.1|https"},
    {FWD "for=unknown;proto=https", "|https"},
    {FWD "for=_hidden, for=10.0.0.1", "10.0.0.1"},
    /* what is wrong is where the walk begins anew: with all that the next hop tells */
    {FWD "for=192.0.2.1, for=evil, for=10.0.0.1;proto=https", "10.0.0.1|https"},
    {FWD "for=192.0.2.1, evil\n" FWD "for=10.0.0.1;proto=https", "10.0.0.1|https"},
    {FWD "for=192.0.2.1, for=_hidden;proto=https, for=10.0.0.2, for=10.0.0.1", "10.0.0.2|https"},
    {FWD "for=\"_SEVKISEK:80\"", ""},
    {FWD "for=\"unknown:80\";proto=https", "|https"},
    {FWD "for=192.0.2.1;host=example.org", "192.0.2.1||example.org"},
    {FWD "for=192.0.2.1;host=\"example.org:8443\";proto=https", "192.0.2.1|https|example.org 8443"},
    {FWD "for=192.0.2.1;host=\"a b\"", "192.0.2.1"},
    {FWD "for=192.0.2.1;proto=ftp", "192.0.2.1"},
    {FWD "for=192.0.2.1;secret=\"a, for=192.0.2.9; \\\" \\\\\"", "192.0.2.1"},
    {FWD ";for=192.0.2.1;", "192.0.2.1"},
    {FWD "for=192.0.2.1 ; proto=https", "192.0.2.1|https"},
    {FWD ",, for=192.0.2.1 ,,", "192.0.2.1"},
    {FWD "for=192.0.2.1;proto=http;new=thing", "192.0.2.1|http"},
    {FWD "", ""},
    {FWD ";", ""},
    /* malformed */
    {FWD "192.0.2.1", ""},
    {FWD "for", ""},
    {FWD "for=", ""},
    {FWD "=192.0.2.1", ""},
    {FWD "for =192.0.2.1", ""},
    {FWD "for= 192.0.2.1", ""},
    {FWD "for=192.0.2.1:80", ""},
    {FWD "for=2001:db8::1", ""},
    {FWD "for=[2001:db8::1]", ""},
    {FWD "for=\"2001:db8::1\"", ""},
    {FWD "for=\"[192.0.2.1]\"", ""},
    {FWD "for=\"192.0.2.1", ""},
    {FWD "for=\"", ""},
    {FWD "for=\"\"", ""},
    {FWD "for=\"192.0.2.1\\", ""},
    {FWD "for=\"192.0.2.1\"x", ""},
    {FWD "for=\"192.0.\\2.1\"", ""},
    {FWD "for=192.0.2.1 for=192.0.2.2", ""},
    {FWD "for=192.0.2.1;for=192.0.2.2", ""},
    {FWD "for=192.0.2.1;proto=https;proto=http", ""},
    {FWD "for=evil;proto=https", ""},
    {FWD "for=_", ""},
    {FWD "for=_;proto=https", ""},
    {FWD "for=\"_a!b\";proto=https", ""},
    {FWD "x=;proto=https", ""},
    {FWD "f(o=x;proto=https", ""},
    {FWD "for=\"192.0.2.1:65536\"", ""},
    {FWD "for=192.0.2.1;proto=https;", "192.0.2.1|https"},
    {FWD "for=192.0.2.1, evil, for=10.0.0.1", ""},
    {FWD "for=192.0.2.1, for=evil, for=10.0.0.1", "10.0.0.1"},
    {FWD "for=192.0.2.1, for=evil;proto=https, for=192.0.2.2", "192.0.2.2"},
    /* a client that wants the proxy's own element inside of its string */
    {FWD "for=192.0.2.9;x=\", for=192.0.2.1", ""},
    {FWD "for=192.0.2.9;x=\", for=\"192.0.2.1\"", ""},
    {FWD "for=192.0.2.9;x=\"\n" FWD "for=192.0.2.1", "192.0.2.1"},
    {FWD "for=192.0.2.9;x=\"\n" FWD "for=10.0.0.1", "10.0.0.1"},
    /* both */
    {FWD "for=192.0.2.9;proto=https\n" FOR "192.0.2.1", "192.0.2.1"},
    {FOR "192.0.2.1\n" FWD "for=192.0.2.9;proto=https", "192.0.2.1"},
    {FOR "evil\n" FWD "for=192.0.2.9;proto=https", ""},
    {"X-Forwarded-Proto: http\n" FWD "for=192.0.2.9;proto=https", "|http"},
    {"X-Forwarded-Host: a\n" FWD "for=192.0.2.9;host=b", "||a"},
    {"X-Forwarded-Port: 443\n" FWD "for=192.0.2.1;host=a", "192.0.2.1||a 443"},
    {"X-Forwarded-Prefix: /api\n" FWD "for=192.0.2.1", "192.0.2.1|||/api"},
    {FOR "192.0.2.1\nX-Forwarded-Proto: https\nX-Forwarded-Host: a:1\nX-Forwarded-Port: 2\n"
         "X-Forwarded-Prefix: /p",
     "192.0.2.1|https|a 2|/p"},
    /* what is none of ours */
    {"X_Forwarded_For: 192.0.2.1\nX-Forwarded-For-2: 192.0.2.1\nForwarded-For: 192.0.2.1\n"
     "X-Forwarded: for=192.0.2.1\nX-Real-IP: 192.0.2.1\nClient-IP: 192.0.2.1\nVia: 1.1 x",
     ""},
};

/* --- heads ---------------------------------------------------------------------------------- */

#define FIELDS 16

typedef struct request {
    as_head head;
    as_field fields[FIELDS];
    char bytes[512];
} request;

/* Offsets from the lines; `n` of their bytes, the last line ending with them. */
static void make_request(request *r, const char *lines, size_t n) {
    memset(r, 0, sizeof(*r));
    memcpy(r->bytes, lines, n);
    r->head = (as_head){.base = r->bytes, .len = (uint32_t)n, .fields = r->fields};
    char *line = r->bytes, *end = r->bytes + n;
    while (line < end) {
        char *lf = memchr(line, '\n', (size_t)(end - line)), *stop = lf != NULL ? lf : end;
        char *colon = memchr(line, ':', (size_t)(stop - line));
        if (colon != NULL) {
            as_slice value = as_trim((as_slice){colon + 1, (size_t)(stop - colon) - 1});
            r->fields[r->head.nfields++] = (as_field){
                .name_off = (uint32_t)(line - r->bytes),
                .name_len = (uint16_t)(colon - line),
                .name_id = (uint16_t)as_name_find(line, (size_t)(colon - line)),
                .value_off = (uint32_t)(value.n > 0 ? value.p - r->bytes : colon + 1 - r->bytes),
                .value_len = (uint32_t)value.n,
            };
        }
        line = lf != NULL ? lf + 1 : end;
    }
    r->head.forwarded = true;
}

static void describe(const as_head *head, const as_forwarded *found, char *out, size_t room) {
    static const char *const schemes[] = {"", "http", "https"};
    char client[AS_ADDRESS_TEXT], client_port[16] = "", port[16] = "";
    as_address_format(&found->client, client);
    if (found->client_port != 0) {
        (void)snprintf(client_port, sizeof(client_port), ":%u", found->client_port);
    }
    if (found->port != 0) {
        (void)snprintf(port, sizeof(port), " %u", found->port);
    }
    (void)snprintf(out, room, "%s%s|%s|%.*s%s|%.*s", client, client_port, schemes[found->scheme],
                   (int)found->host.len, head->base + found->host.off, port, (int)found->prefix.len,
                   head->base + found->prefix.off);
    size_t n = strlen(out);
    while (n > 0 && out[n - 1] == '|') {
        out[--n] = '\0';
    }
}

static void trust_network(as_forwarding *forwarding, const char *address, unsigned prefix) {
    as_address parsed;
    if (!as_address_parse((as_slice){address, strlen(address)}, &parsed) ||
        as_trust_add(&forwarding->trust, parsed.bytes, parsed.n, prefix) != AS_OK) {
        fprintf(stderr, "%s is no network\n", address);
        failures++;
    }
}

static void test_rows(const as_forwarding *forwarding) {
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        request r;
        as_forwarded found;
        char text[300];
        make_request(&r, rows[i].fields, strlen(rows[i].fields));
        as_err err = as_forwarded_read(forwarding, &r.head, &found);
        describe(&r.head, &found, text, sizeof(text));
        if (err != AS_OK || strcmp(text, rows[i].expected) != 0) {
            fprintf(stderr, "%s\n  expected %s\n  found    %s\n", rows[i].fields, rows[i].expected,
                    text);
            failures++;
        }
    }
}

static bool is_inside(const as_head *head, as_span span) {
    return span.len == 0 || (size_t)span.off + span.len <= head->len;
}

/* Cut anywhere, and with any byte replaced, there is some answer, and it lies within the head. A
 * sanitizer sees a read behind it. */
static void test_damaged(const as_forwarding *forwarding) {
    static const char bytes[] = "\"\\,;=:[]% \t_./0\xff";
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t n = strlen(rows[i].fields);
        request *r = malloc(sizeof(*r));
        for (size_t cut = 0; cut < n; cut++) {
            as_forwarded found;
            make_request(r, rows[i].fields, cut);
            (void)as_forwarded_read(forwarding, &r->head, &found);
            for (const char *byte = bytes; *byte != '\0'; byte++) {
                make_request(r, rows[i].fields, n);
                r->bytes[cut] = r->bytes[cut] != '\n' ? *byte : '\n';
                (void)as_forwarded_read(forwarding, &r->head, &found);
                if (!is_inside(&r->head, found.host) || !is_inside(&r->head, found.prefix)) {
                    fprintf(stderr, "%s: outside of the head\n", rows[i].fields);
                    failures++;
                }
            }
        }
        free(r);
    }
}

/* --- everybody trusted, nobody trusted ------------------------------------------------------ */

static void expect(const as_forwarding *forwarding, const char *fields, as_err err,
                   const char *expected) {
    request r;
    as_forwarded found;
    char text[300];
    make_request(&r, fields, strlen(fields));
    as_err got = as_forwarded_read(forwarding, &r.head, &found);
    describe(&r.head, &found, text, sizeof(text));
    if (got != err || (err == AS_OK && strcmp(text, expected) != 0)) {
        fprintf(stderr, "%s\n  expected %s\n  found    %s (%s)\n", fields, expected, text,
                as_err_text(got));
        failures++;
    }
}

static void test_everybody(void) {
    as_forwarding all = {.fields = true};
    trust_network(&all, "0.0.0.0", 0);
    trust_network(&all, "::", 0);
    expect(&all, FOR "192.0.2.1, 192.0.2.2, 2001:db8::1", AS_OK, "192.0.2.1");
    expect(&all, FOR "evil, 192.0.2.2, 192.0.2.3", AS_OK, "192.0.2.2");
    as_trust_fini(&all.trust);
}

static void test_off(void) {
    as_forwarding off = {.fields = false};
    expect(&off, FOR "192.0.2.1\nX-Forwarded-Proto: https\nX-Forwarded-Prefix: /p", AS_OK, "");
}

/* --- gunicorn's secure_scheme_headers ------------------------------------------------------- */

static void test_schemes(void) {
    static const as_scheme_field fields[] = {
        {{"X-FORWARDED-PROTOCOL", 20}, {"ssl", 3}},
        {{"X-FORWARDED-PROTO", 17}, {"https", 5}},
        {{"X-FORWARDED-SSL", 15}, {"on", 2}},
    };
    as_forwarding forwarding = {.schemes = fields, .nschemes = 3};
    expect(&forwarding, "Host: x", AS_OK, "");
    expect(&forwarding, "X-Forwarded-Proto: https", AS_OK, "|https");
    expect(&forwarding, "x-forwarded-ssl: on", AS_OK, "|https");
    expect(&forwarding, "X-Forwarded-Ssl: off", AS_OK, "|http");
    expect(&forwarding, "X-Forwarded-Proto: HTTPS", AS_OK, "|http");
    expect(&forwarding, "X-Forwarded-Ssl: on\nX-Forwarded-Proto: https", AS_OK, "|https");
    expect(&forwarding, "X-Forwarded-Ssl: off\nX-Forwarded-Proto: http", AS_OK, "|http");
    expect(&forwarding, "X-Forwarded-Ssl: on\nX-Forwarded-Proto: http", AS_E_SCHEME, "");
    expect(&forwarding, "X-Forwarded-Proto: https\nX-Forwarded-Proto: http", AS_E_SCHEME, "");
    expect(&forwarding, FOR "192.0.2.1\n" FWD "for=192.0.2.1;proto=https", AS_OK, "");
    forwarding.fields = true;
    expect(&forwarding, FOR "192.0.2.1\nX-Forwarded-Ssl: on", AS_OK, "192.0.2.1|https");
    expect(&forwarding, FWD "for=192.0.2.1;proto=https", AS_OK, "192.0.2.1");
    expect(&forwarding, "X-Forwarded-Proto: wss", AS_OK, "|http");
}

int main(void) {
    as_forwarding forwarding = {.fields = true};
    trust_network(&forwarding, "10.0.0.0", 8);
    trust_network(&forwarding, "2001:db8:f::", 48);
    test_rows(&forwarding);
    test_damaged(&forwarding);
    as_trust_fini(&forwarding.trust);
    test_everybody();
    test_off();
    test_schemes();
    return failures == 0 ? 0 : 1;
}

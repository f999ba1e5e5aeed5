/* Handshakes: each row is a request's field lines beside the usual ones, and what must come of it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "http/response.h"
#include "http/ws_handshake.h"

static unsigned failures;

static void fail(const char *what, const char *lines, const char *got) {
    fprintf(stderr, "%s: %s\n  got %s\n", what, lines, got);
    failures++;
}

/* --- heads ---------------------------------------------------------------------------------- */

#define FIELDS 16

typedef struct request {
    as_head head;
    as_field fields[FIELDS];
    char bytes[1024];
} request;

/* `lines`: a method, then field lines, each behind a LF. */
static void make_request(request *r, const char *lines) {
    size_t n = strlen(lines), method = strcspn(lines, "\n");
    memset(r, 0, sizeof(*r));
    memcpy(r->bytes, lines, n);
    r->head = (as_head){.base = r->bytes,
                        .len = (uint32_t)n,
                        .fields = r->fields,
                        .method = {0, (uint32_t)method},
                        .minor = 1,
                        .upgrade = true};
    for (char *line = r->bytes + method; line < r->bytes + n;) {
        line++;
        char *stop = line + strcspn(line, "\n"), *colon = memchr(line, ':', (size_t)(stop - line));
        as_slice value = as_trim((as_slice){colon + 1, (size_t)(stop - colon) - 1});
        r->fields[r->head.nfields++] = (as_field){
            .name_off = (uint32_t)(line - r->bytes),
            .name_len = (uint16_t)(colon - line),
            .name_id = (uint16_t)as_name_find(line, (size_t)(colon - line)),
            .value_off = (uint32_t)(value.n > 0 ? value.p - r->bytes : colon + 1 - r->bytes),
            .value_len = (uint32_t)value.n,
        };
        line = stop;
    }
}

/* --- which requests ask for it --------------------------------------------------------------- */

static const struct {
    const char *lines;
    bool asks;
} asking[] = {
    {"GET\nUpgrade: websocket", true},
    {"POST\nUpgrade: websocket", true},
    {"GET\nupgrade:WebSocket", true},
    {"GET\nUpgrade: h2c, websocket", true},
    {"GET\nUpgrade: h2c\nHost: a\nUpgrade: WEBSOCKET ,", true},
    {"GET\nUpgrade: h2c", false},
    {"GET\nUpgrade:", false},
    {"GET\nUpgrade: websockets", false},
    {"GET\nUpgrade: websocket/13", false},
    {"GET\nX-Upgrade: websocket", false},
    {"GET", false},
};

static void test_asking(void) {
    request r;
    for (size_t i = 0; i < sizeof(asking) / sizeof(asking[0]); i++) {
        make_request(&r, asking[i].lines);
        if (as_ws_is_asked_for(&r.head) != asking[i].asks) {
            fail("asking", asking[i].lines, asking[i].asks ? "no" : "yes");
        }
        r.head.upgrade = false; /* no Connection: upgrade */
        if (as_ws_is_asked_for(&r.head)) {
            fail("without Connection", asking[i].lines, "yes");
        }
        r.head.upgrade = true;
        r.head.minor = 0;
        if (as_ws_is_asked_for(&r.head)) {
            fail("HTTP/1.0", asking[i].lines, "yes");
        }
    }
}

/* --- judging -------------------------------------------------------------------------------- */

#define KEY "\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
#define VERSION "\nSec-WebSocket-Version: 13"
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define WITH_KEY(key) "GET" VERSION "\nSec-WebSocket-Key:" key
#define PROTOCOL "\nSec-WebSocket-Protocol:"
#define EXTENSIONS "\nSec-WebSocket-Extensions:"

static const struct {
    const char *lines;
    as_err err;
    const char *accept;
} judged[] = {
    {"GET" KEY VERSION, AS_OK, ACCEPT}, /* RFC 6455, 1.3 */
    {"GET" VERSION KEY "\nCookie: a", AS_OK, ACCEPT},
    {"GET\nsec-websocket-key:dGhlIHNhbXBsZSBub25jZQ==\nSEC-WEBSOCKET-VERSION: 13", AS_OK, ACCEPT},
    {WITH_KEY("x3JJHMbDL1EzLkh9GBhXDw=="), AS_OK, "HSmrc0sMlYUkAGmm5OPpG2HaGWk="},
    {WITH_KEY("AAAAAAAAAAAAAAAAAAAAAA=="), AS_OK, "ICX+Yqv66kxgM0FcWaLWlFLwTAI="},
    {WITH_KEY("/+/+/+/+/+/+/+/+/+/+/w=="), AS_OK, NULL},
    /* 4.2.1: a GET */
    {"POST" KEY VERSION, AS_E_WS_METHOD, NULL},
    {"HEAD" KEY VERSION, AS_E_WS_METHOD, NULL},
    {"get" KEY VERSION, AS_E_WS_METHOD, NULL},
    {"PUT", AS_E_WS_METHOD, NULL},
    /* 4.4: versions */
    {"GET" KEY, AS_E_WS_VERSION, NULL},
    {"GET", AS_E_WS_VERSION, NULL},
    {"GET" KEY "\nSec-WebSocket-Version: 8", AS_E_WS_VERSION, NULL},
    {"GET\nSec-WebSocket-Version: 0", AS_E_WS_VERSION, NULL},
    {"GET" KEY "\nSec-WebSocket-Version: 13, 8", AS_E_WS_VERSION, NULL},
    {"GET" KEY "\nSec-WebSocket-Version: 013", AS_E_WS_VERSION, NULL},
    {"GET" KEY "\nSec-WebSocket-Version:", AS_E_WS_VERSION, NULL},
    {"GET" KEY VERSION VERSION, AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION "\nSec-WebSocket-Version: 8", AS_E_WS_HANDSHAKE, NULL},
    /* the key: once, base64 of 16 bytes */
    {"GET" VERSION, AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY KEY VERSION, AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY(""), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZQ"), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZQ="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZQ==="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZQ=A"), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZQA="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZQAA"), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZR=="), AS_E_WS_HANDSHAKE, NULL}, /* not canonical */
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZI=="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZf=="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub2-jZQ=="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBs=SBub25jZQ=="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBs ZSBub25jZQ="), AS_E_WS_HANDSHAKE, NULL},
    {WITH_KEY("dGhlIHNhbXBsZSBub25jZQ==, x"), AS_E_WS_HANDSHAKE, NULL},
    /* the grammar of the rest (9.1, 4.3), also where it is not wanted */
    {"GET" KEY VERSION PROTOCOL " chat, superchat", AS_OK, ACCEPT},
    {"GET" KEY VERSION PROTOCOL " a b", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION PROTOCOL " a, b/c", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION PROTOCOL " a" PROTOCOL " \"b\"", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS, AS_OK, ACCEPT},
    {"GET" KEY VERSION EXTENSIONS " ,, ,", AS_OK, ACCEPT},
    {"GET" KEY VERSION EXTENSIONS " foo, bar; baz=2; quux=\"a\"", AS_OK, ACCEPT},
    {"GET" KEY VERSION EXTENSIONS " foo bar", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo;", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " ; a", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; =a", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=b=c", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=\"b", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=\"", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=\"b\\", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=\"\"", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=\"b c\"", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo; a=\"b\"c", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " foo" EXTENSIONS " b@r", AS_E_WS_HANDSHAKE, NULL},
    {"GET" KEY VERSION EXTENSIONS " permessage-deflate, ;", AS_E_WS_HANDSHAKE, NULL},
};

static void test_judging(void) {
    request r;
    as_ws_handshake shake;
    for (size_t i = 0; i < sizeof(judged) / sizeof(judged[0]); i++) {
        for (int wanted = 0; wanted < 2; wanted++) {
            make_request(&r, judged[i].lines);
            as_err err = as_ws_handshake_read(&r.head, wanted != 0, &shake);
            if (err != judged[i].err) {
                fail("judging", judged[i].lines, as_err_text(err));
            } else if (judged[i].accept != NULL &&
                       memcmp(shake.accept, judged[i].accept, 28) != 0) {
                fail("accept", judged[i].lines, "another one");
            }
        }
    }
}

/* A value ends where it ends, whatever stands behind it. */
static void test_end_of_value(void) {
    request r;
    as_ws_handshake shake;
    make_request(&r, "GET" KEY VERSION EXTENSIONS " foo;a");
    r.fields[r.head.nfields - 1].value_len -= 2;
    if (as_ws_handshake_read(&r.head, true, &shake) != AS_OK) {
        fail("end of the value", "foo", "what is behind it");
    }
}

static void test_bodies(void) {
    static const struct {
        as_body_kind kind;
        uint64_t length;
        as_err err;
    } rows[] = {{AS_BODY_NONE, 0, AS_OK},
                {AS_BODY_LENGTH, 0, AS_OK},
                {AS_BODY_LENGTH, 1, AS_E_WS_HANDSHAKE},
                {AS_BODY_CHUNKED, 0, AS_E_WS_HANDSHAKE}};
    request r;
    as_ws_handshake shake;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        make_request(&r, "GET" KEY VERSION);
        r.head.body = rows[i].kind;
        r.head.content_length = rows[i].length;
        if (as_ws_handshake_read(&r.head, true, &shake) != rows[i].err) {
            fail("body", "", "another error");
        }
    }
}

/* --- permessage-deflate (RFC 7692, 7.1) ------------------------------------------------------ */

#define PMD "permessage-deflate"
#define S_NO "; server_no_context_takeover"
#define C_NO "; client_no_context_takeover"
#define S_BITS "; server_max_window_bits"
#define C_BITS "; client_max_window_bits"

static const struct {
    const char *offers; /* behind the field's name */
    const char *answer;
} negotiated[] = {
    {"", ""},
    {" " PMD, PMD},
    {"\tPerMessage-Deflate ", PMD},
    {" x-webkit-deflate-frame", ""},
    {" permessage-deflates", ""},
    {" " PMD S_NO, PMD S_NO},
    {" " PMD C_NO, PMD C_NO},
    {" " PMD C_NO S_NO, PMD S_NO C_NO},
    {" " PMD ";CLIENT_NO_CONTEXT_TAKEOVER", PMD C_NO},
    {" " PMD C_BITS, PMD C_BITS "=12"}, /* what browsers say */
    {" " PMD C_BITS "=15", PMD C_BITS "=12"},
    {" " PMD C_BITS "=12", PMD C_BITS "=12"},
    {" " PMD C_BITS "=11", PMD C_BITS "=11"},
    {" " PMD C_BITS "=9", PMD C_BITS "=9"},
    {" " PMD C_BITS "=8", PMD C_BITS "=8"},
    {" " PMD S_BITS "=15", PMD S_BITS "=12"},
    {" " PMD S_BITS "=10", PMD S_BITS "=10"},
    {" " PMD S_BITS "=9", PMD S_BITS "=9"},
    {" " PMD S_BITS "=8", ""}, /* zlib has no such window */
    {" " PMD S_NO S_BITS "=9" C_NO C_BITS "=10", PMD S_NO C_NO S_BITS "=9" C_BITS "=10"},
    {" " PMD S_NO S_BITS "=15" C_NO C_BITS "=15", PMD S_NO C_NO S_BITS "=12" C_BITS "=12"},
    /* space and quotes */
    {PMD ";client_max_window_bits=10", PMD C_BITS "=10"},
    {" " PMD "\t ;\tclient_max_window_bits = 10 ", PMD C_BITS "=10"},
    {" " PMD C_BITS "=\"10\"", PMD C_BITS "=10"},
    {" " PMD C_BITS "=\"1\\0\"", PMD C_BITS "=10"},
    {" " PMD C_BITS "=\"10\"" S_BITS "=\"11\", foo", PMD S_BITS "=11" C_BITS "=10"},
    /* several offers: the first one that can be agreed to */
    {" foo, " PMD, PMD},
    {" " PMD S_NO ", " PMD, PMD S_NO},
    {" " PMD S_BITS "=8, " PMD S_BITS "=10, " PMD, PMD S_BITS "=10"},
    {" " PMD S_BITS "=8, " PMD, PMD},
    {" " PMD S_BITS "=8" EXTENSIONS " bar; baz, " PMD C_BITS, PMD C_BITS "=12"},
    {" foo; a=\", " PMD "\"", NULL},
    {" ,," PMD ",,", PMD},
    {EXTENSIONS " " PMD, PMD},
    /* unknown, twice, or with a value that is wrong: that offer is declined */
    {" " PMD "; foo", ""},
    {" " PMD "; foo=1", ""},
    {" " PMD "; foo, " PMD S_NO, PMD S_NO},
    {" " PMD S_NO S_NO, ""},
    {" " PMD C_NO C_NO ", " PMD, PMD},
    {" " PMD S_BITS "=10" S_BITS "=10", ""},
    {" " PMD C_BITS C_BITS "=10", ""},
    {" " PMD S_NO "=1", ""},
    {" " PMD S_NO "=10", ""}, /* which is right for another one */
    {" " PMD C_NO "=true", ""},
    {" " PMD S_BITS, ""},
    {" " PMD S_BITS "=7", ""},
    {" " PMD S_BITS "=7" C_NO C_BITS, ""},
    {" " PMD S_BITS "=16", ""},
    {" " PMD S_BITS "=0", ""},
    {" " PMD S_BITS "=08", ""},
    {" " PMD S_BITS "=010", ""},
    {" " PMD S_BITS "=1000000000000000000000010", ""},
    {" " PMD S_BITS "=+9", ""},
    {" " PMD S_BITS "=a", ""},
    {" " PMD C_BITS "=7", ""},
    {" " PMD C_BITS "=16", ""},
    {" " PMD C_BITS "=100", ""},
    {" " PMD C_BITS "=x", ""},
    {" " PMD C_BITS "=09", ""},
    {" " PMD C_BITS "=\"\\09\"", ""},
};

static void test_negotiation(void) {
    request r;
    char lines[512], answer[AS_WS_EXTENSION_MAX + 1];
    as_ws_handshake shake;
    for (size_t i = 0; i < sizeof(negotiated) / sizeof(negotiated[0]); i++) {
        const char *expected = negotiated[i].answer;
        (void)snprintf(lines, sizeof(lines), "GET" KEY VERSION EXTENSIONS "%s",
                       negotiated[i].offers);
        make_request(&r, lines);
        as_err err = as_ws_handshake_read(&r.head, true, &shake);
        answer[as_ws_extensions_write(&shake.deflate, answer)] = '\0';
        if (err != (expected != NULL ? AS_OK : AS_E_WS_HANDSHAKE) ||
            strcmp(answer, expected != NULL ? expected : "") != 0) {
            fail("negotiation", negotiated[i].offers, answer);
        }
        (void)as_ws_handshake_read(&r.head, false, &shake);
        if (shake.deflate.on || as_ws_extensions_write(&shake.deflate, answer) != 0) {
            fail("not wanted", negotiated[i].offers, "agreed on");
        }
    }
}

/* --- subprotocols --------------------------------------------------------------------------- */

static const struct {
    const char *lines;
    const char *protocols; /* with a space behind each */
} offered[] = {
    {"GET", ""},
    {"GET" PROTOCOL, ""},
    {"GET" PROTOCOL " ,\t, ", ""},
    {"GET" PROTOCOL "chat", "chat "},
    {"GET" PROTOCOL " chat, superchat ,x", "chat superchat x "},
    {"GET" PROTOCOL ",a,,b,", "a b "},
    {"GET\nHost: a" PROTOCOL " a,b"
     "\nOrigin: c,d" PROTOCOL PROTOCOL " e",
     "a b e "},
    {"GET" PROTOCOL "a" PROTOCOL "A", "a A "},
};

static void test_protocols(void) {
    request r;
    for (size_t i = 0; i < sizeof(offered) / sizeof(offered[0]); i++) {
        char got[128] = "";
        size_t n = 0;
        uint64_t at = 0;
        as_slice protocol;
        make_request(&r, offered[i].lines);
        while (as_ws_next_protocol(&r.head, &at, &protocol)) {
            n += (size_t)snprintf(got + n, sizeof(got) - n, "%.*s ", (int)protocol.n, protocol.p);
        }
        if (strcmp(got, offered[i].protocols) != 0 ||
            as_ws_next_protocol(&r.head, &at, &protocol)) {
            fail("protocols", offered[i].lines, got);
        }
    }
}

int main(void) {
    test_asking();
    test_judging();
    test_end_of_value();
    test_bodies();
    test_negotiation();
    test_protocols();
    return failures == 0 ? 0 : 1;
}

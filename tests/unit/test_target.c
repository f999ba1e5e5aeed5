/* Request targets (RFC 9112, 3.2), hosts (RFC 3986, 3.2.2), percent decoding. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "http/target.h"

static unsigned failures;

static void fail(const char *what, const char *text) {
    fprintf(stderr, "%s: %s\n", what, text);
    failures++;
}

static bool span_is(const as_head *head, as_span span, const char *expected) {
    as_slice got = as_head_slice(head, span);
    return as_slice_eq(got, (as_slice){expected, strlen(expected)}) &&
           span.off + span.len <= head->len;
}

/* --- targets -------------------------------------------------------------------------------- */

typedef struct target_row {
    const char *method, *target, *path, *query, *authority;
} target_row;

static const target_row targets[] = {
    {"GET", "/", "/", "", ""},
    {"GET", "/a/b?c=d", "/a/b", "c=d", ""},
    {"GET", "/?", "/", "", ""},
    {"GET", "/a?b?c", "/a", "b?c", ""},
    {"GET", "//a//b", "//a//b", "", ""},
    {"GET", "/a:b@c", "/a:b@c", "", ""},
    {"GET", "/%zz%", "/%zz%", "", ""},
    {"GET", "/\"<>\\^`{|}[]", "/\"<>\\^`{|}[]", "", ""},
    {"GET", "http://a", "/", "", "a"},
    {"GET", "http://a/", "/", "", "a"},
    {"GET", "HtTp://A:80/b?c", "/b", "c", "A:80"},
    {"GET", "https://a?b", "/", "b", "a"},
    {"GET", "http://[::1]:8/x", "/x", "", "[::1]:8"},
    {"GET", "http://a:/x", "/x", "", "a:"},
    {"OPTIONS", "*", "", "", ""},
    {"OPTIONS", "/x", "/x", "", ""},
};

static const target_row bad_targets[] = {
    {"GET", "", 0, 0, 0},
    {"GET", "*", 0, 0, 0},
    {"OPTIONS", "**", 0, 0, 0},
    {"OPTIONS", "*?a", 0, 0, 0},
    {"GET", "a", 0, 0, 0},
    {"GET", "?a", 0, 0, 0},
    {"GET", "a:80", 0, 0, 0},
    {"GET", "/a#b", 0, 0, 0},
    {"GET", "#", 0, 0, 0},
    {"GET", "/a b", 0, 0, 0},
    {"GET", "/\t", 0, 0, 0},
    {"GET", "/\x7f", 0, 0, 0},
    {"GET", "/\x80", 0, 0, 0},
    {"GET", "/\n", 0, 0, 0},
    {"GET", "http:", 0, 0, 0},
    {"GET", "http:/a", 0, 0, 0},
    {"GET", "http://", 0, 0, 0},
    {"GET", "http:///a", 0, 0, 0},
    {"GET", "http://?a", 0, 0, 0},
    {"GET", "ftp://a/", 0, 0, 0},
    {"GET", "http://a@b/", 0, 0, 0},
    {"GET", "http://a:b/", 0, 0, 0},
    {"GET", "http://[::1/", 0, 0, 0},
    {"GET", "http://a\\b/", 0, 0, 0},
    {"GET", "http://a/#", 0, 0, 0},
    {"GET", "httpx://a/", 0, 0, 0},
    {"GET", "http://:80/", 0, 0, 0},
};

static as_err split(const target_row *row, as_head *head, char *bytes, size_t room) {
    int n = snprintf(bytes, room, "%s %s", row->method, row->target);
    uint32_t method = (uint32_t)strlen(row->method);
    *head = (as_head){.base = bytes, .len = (uint32_t)n};
    head->method = (as_span){0, method};
    head->target = (as_span){method + 1, (uint32_t)n - method - 1};
    return as_target_split(head);
}

static void test_targets(void) {
    char bytes[256];
    as_head head;
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        const target_row *row = &targets[i];
        if (split(row, &head, bytes, sizeof(bytes)) != AS_OK ||
            !span_is(&head, head.path, row->path) || !span_is(&head, head.query, row->query) ||
            !span_is(&head, head.authority, row->authority)) {
            fail("target", row->target);
        }
    }
    for (size_t i = 0; i < sizeof(bad_targets) / sizeof(bad_targets[0]); i++) {
        if (split(&bad_targets[i], &head, bytes, sizeof(bytes)) != AS_E_TARGET) {
            fail("bad target", bad_targets[i].target);
        }
    }
    (void)split(&targets[0], &head, bytes, sizeof(bytes));
    head.target.len = 0;
    if (as_target_split(&head) != AS_E_TARGET) {
        fail("bad target", "(nothing, in front of a slash)");
    }
}

/* --- hosts ---------------------------------------------------------------------------------- */

static const char *const hosts[] = {
    "",       "a",        "a:",       "a:80",    "a:99999", "www.example.com", "127.0.0.1:8000",
    "[::1]",  "[::1]:80", "[v1.a:b]", "a_b-c~d", "a,b",     "!$&'()*+,;=",     "%41b%7e",
    "a%20:1", ".",        "xn--a",
};

static const char *const bad_hosts[] = {
    ":80",   ":",      "a:b",    "a:-1",     "a:+1",  "a:8 ",  "a:80:81", "::1",  "[::1",
    "[]",    "[::1]x", "[::1]8", "[::1]:x",  "[a/b]", "[a]b]", "a b",     " a",   "a/b",
    "a?b",   "a#b",    "a@b",    "a\\b",     "<a>",   "\"a\"", "a%",      "a%4",  "a%zz",
    "a\x80", "a\x7f",  "a\n",    "http://a", "a^b",   "a|b",   "a]",      "a[b]",
};

static void test_hosts(void) {
    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        if (!as_host_valid((as_slice){hosts[i], strlen(hosts[i])})) {
            fail("host", hosts[i]);
        }
    }
    for (size_t i = 0; i < sizeof(bad_hosts) / sizeof(bad_hosts[0]); i++) {
        size_t n = strlen(bad_hosts[i]);
        char *exact = malloc(n);
        memcpy(exact, bad_hosts[i], n);
        if (as_host_valid((as_slice){exact, n})) {
            fail("bad host", bad_hosts[i]);
        }
        free(exact);
    }
    if (as_host_valid((as_slice){"a\0b", 3})) {
        fail("bad host", "with NUL");
    }
}

/* --- percent decoding ----------------------------------------------------------------------- */

static const struct {
    const char *in, *out;
    bool plain;
} paths[] = {
    {"", "", true},
    {"/a+b", "/a+b", true},
    {"/%41%6a%4A", "/AjJ", false},
    {"%", "%", false},
    {"%4", "%4", false},
    {"%4g", "%4g", false},
    {"%%41", "%A", false},
    {"%2541", "%41", false},
    {"/\xc3", "/\xc3", false},
    {"%ff%FE", "\xff\xfe", false},
};

static void test_decoding(void) {
    for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        size_t n = strlen(paths[i].in);
        char *in = malloc(n), *out = malloc(n);
        if (n > 0) {
            memcpy(in, paths[i].in, n);
        }
        size_t got = as_percent_decode((as_slice){in, n}, out);
        if (got != strlen(paths[i].out) || (got > 0 && memcmp(out, paths[i].out, got) != 0) ||
            as_path_is_plain((as_slice){in, n}) != paths[i].plain) {
            fail("decoding", paths[i].in);
        }
        free(in);
        free(out);
    }
    char nul[2];
    if (as_percent_decode(AS_SLICE("%00"), nul) != 1 || nul[0] != '\0') {
        fail("decoding", "NUL");
    }
}

int main(void) {
    test_targets();
    test_hosts();
    test_decoding();
    return failures == 0 ? 0 : 1;
}

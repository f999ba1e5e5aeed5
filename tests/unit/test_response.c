/* Dates, reasons, what a token and a field value are, the server's own field lines. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "http/response.h"

static unsigned failures;

static void check(bool ok, const char *what) {
    if (!ok) {
        fprintf(stderr, "failed: %s\n", what);
        failures++;
    }
}

static as_slice slice(const char *p) {
    return (as_slice){p, strlen(p)};
}

/* Against the C library, in the C locale, over four centuries. */
static void test_dates(void) {
    char got[30] = {0}, expected[64];
    for (int64_t t = 0; t < (int64_t)400 * 366 * 86400; t += 86400 * 3 + 11 * 3600 + 7 * 60 + 53) {
        time_t seconds = (time_t)t;
        struct tm tm;
        as_format_date(got, t);
        strftime(expected, sizeof(expected), "%a, %d %b %Y %H:%M:%S GMT", gmtime_r(&seconds, &tm));
        if (strcmp(got, expected) != 0) {
            fprintf(stderr, "date: %s, expected %s\n", got, expected);
            failures++;
            return;
        }
    }
    as_format_date(got, 951782400 - 1);
    check(strcmp(got, "Mon, 28 Feb 2000 23:59:59 GMT") == 0, "28 February 2000");
    as_format_date(got, 951782400);
    check(strcmp(got, "Tue, 29 Feb 2000 00:00:00 GMT") == 0, "29 February 2000");
}

static void test_reasons(void) {
    check(as_slice_eq(as_status_reason(200), slice("OK")), "200");
    check(as_slice_eq(as_status_reason(431), slice("Request Header Fields Too Large")), "431");
    check(as_slice_eq(as_status_reason(511), slice("Network Authentication Required")), "511");
    static const unsigned unknown[] = {0, 99, 104, 299, 419, 512, 999, 4294967295u};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        check(as_status_reason(unknown[i]).n == 0, "an unknown status");
    }
}

static void test_tokens(void) {
    for (int c = 0; c < 256; c++) {
        char byte = (char)c;
        bool tchar = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                     (c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL);
        check(as_is_token((as_slice){&byte, 1}) == tchar, "a byte of a token");
        char value[] = {'a', byte, 'b'};
        bool valid = c == '\t' || (c >= 0x20 && c != 0x7f);
        check(as_is_field_value((as_slice){value, 3}) == valid, "a byte of a field value");
    }
    for (int c = 0; c < 256; c++) { /* in values longer than a word, at each place */
        bool valid = c == '\t' || (c >= 0x20 && c != 0x7f);
        for (size_t at = 1; at < 21; at++) { /* not the last: no space there */
            char value[] = "\x80value of 22 bytes: \xff.";
            value[at] = (char)c;
            check(as_is_field_value((as_slice){value, sizeof(value) - 1}) == valid,
                  "a byte of a long field value");
        }
    }
    check(!as_is_token(slice("")), "an empty token");
    check(as_is_field_value(slice("")), "an empty value");
    check(!as_is_field_value(slice(" a")) && !as_is_field_value(slice("a\t")), "space at an end");
    check(
        !as_is_field_value(slice("a value that is longer than any vector of bytes is\n, and more")),
        "a line feed in a long value");
}

static void test_defaults(void) {
    static const as_slice extra[] = {{"x-a", 3}, {"1", 1}, {"x-b", 3}, {"", 0}};
    as_response_defaults d;
    check(as_response_defaults_init(&d, true, true, extra, 4) == AS_OK, "defaults");
    as_response_defaults_tick(&d, 784111777);
    static const char all[] = "server: asgiserver\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
                              "x-a: 1\r\nx-b: \r\n";
    check(d.len == sizeof(all) - 1 && memcmp(d.block, all, d.len) == 0, "all defaults");
    as_response_defaults_tick(&d, 784111778);
    check(memcmp(d.block + d.date_off, "Sun, 06 Nov 1994 08:49:38 GMT", 29) == 0, "a second later");
    as_response_defaults_fini(&d);
    check(as_response_defaults_init(&d, false, false, NULL, 0) == AS_OK && d.len == 0,
          "no defaults");
    as_response_defaults_tick(&d, 784111777);
    as_response_defaults_fini(&d);
    check(as_response_defaults_init(&d, false, true, NULL, 0) == AS_OK && d.len == 37, "only Date");
    as_response_defaults_fini(&d);
}

/* Lines that are kept are told apart by every byte. */
static void test_lines(void) {
    static as_line lines[AS_LINES];
    char name[] = "content-type", value[] = "text/plain; charset=utf-8";
    as_slice n = {name, sizeof(name) - 1}, v = {value, sizeof(value) - 1};
    as_line *line = as__find_line(lines, n, v);
    check(line != NULL && !as__line_is(line, n, v), "an empty table has no line");
    as__keep_line(line, n, v);
    check(as__line_is(as__find_line(lines, n, v), n, v), "the same line");
    for (size_t i = 0; i < n.n + v.n; i++) {
        char *byte = i < n.n ? name + i : value + i - n.n;
        *byte ^= 1;
        check(!as__line_is(line, n, v), "a line that differs in one byte");
        check(!as__line_is(as__find_line(lines, n, v), n, v), "and where it would be looked for");
        *byte ^= 1;
    }
    check(!as__line_is(line, n, (as_slice){value, v.n - 1}), "a shorter value");
    check(!as__line_is(line, (as_slice){name, n.n - 1}, v), "a shorter name");
    as_line other = {0};
    as__keep_line(&other, slice("aa"), slice("b"));
    check(!as__line_is(&other, slice("a"), slice(" ")), "another cut of the same bytes");
    check(as__find_line(lines, slice("Set-Cookie"), v) == NULL, "a secret");
    check(as__find_line(lines, n, slice("")) == NULL, "an empty value");
    char large[sizeof(line->text)];
    memset(large, 'a', sizeof(large));
    check(as__find_line(lines, n, (as_slice){large, sizeof(large) - n.n - 3}) == NULL, "too long");
    check(as__find_line(lines, n, (as_slice){large, sizeof(large) - n.n - 4}) != NULL, "the most");
}

int main(void) {
    test_lines();
    test_dates();
    test_reasons();
    test_tokens();
    test_defaults();
    return failures == 0 ? 0 : 1;
}

/* The formats of the access log: atoms, presets, escaping, and what is refused. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gateway/access_format.h"

static unsigned failures;

static void fail(const char *what, const char *got, const char *expected) {
    fprintf(stderr, "%s:\n  got      %s\n  expected %s\n", what, got, expected);
    failures++;
}

/* --- a request ------------------------------------------------------------------------------ */

typedef struct request {
    const char *method, *target, *path, *query; /* path and query: within target, or NULL */
    const char *fields[9];                      /* name, value, … NULL */
    int minor;
    unsigned status;
    uint64_t sent;
    const char *answer; /* the response head */
    bool is_unix;
} request;

static as_span span_of(char *base, const char *text) {
    static const char nothing[] = "";
    const char *found = strstr(base, text != NULL ? text : nothing);
    return (as_span){(uint32_t)(found - base), (uint32_t)(text != NULL ? strlen(text) : 0)};
}

static char *append(char *at, const char *text, as_span *span, const char *base) {
    span->off = (uint32_t)(at - base);
    span->len = (uint32_t)strlen(text);
    memcpy(at, text, span->len + 1);
    return at + span->len;
}

/* Expands `text` for the request into `line`; false: the format is refused, `line` says why. */
static bool expand(const char *text, bool colors, const request *r, const as_access_moment *moment,
                   char *line, size_t size) {
    char problem[AS_ACCESS_PROBLEM];
    as_slice slice = {text, text != NULL ? strlen(text) : 0};
    as_access_format *format = as_access_format_new(slice, colors, problem);
    if (format == NULL) {
        snprintf(line, size, "%s", problem);
        return false;
    }
    char base[2048], *at = base;
    as_field fields[4];
    as_head head = {.base = base, .fields = fields, .minor = (uint8_t)r->minor};
    at = append(at, r->method, &head.method, base);
    at = append(at, r->target, &head.target, base);
    if (r->path != NULL) {
        head.path = span_of(base + head.target.off, r->path);
        head.path.off += head.target.off;
    }
    if (r->query != NULL) {
        head.query = span_of(base + head.target.off, r->query);
        head.query.off += head.target.off;
    }
    for (int i = 0; r->fields[i] != NULL; i += 2) {
        as_span name, value;
        at = append(at, r->fields[i], &name, base);
        at = append(at, r->fields[i + 1], &value, base);
        as_name_id id = as_name_find(r->fields[i], name.len);
        fields[head.nfields++] =
            (as_field){name.off, (uint16_t)name.len, (uint16_t)id, value.off, value.len};
    }
    as_conn_info info = {.client = "10.1.2.3", .client_port = 5000, .is_unix = r->is_unix};
    as_exchange ex = {.head = &head, .info = &info, .status = (uint16_t)r->status, .sent = r->sent};
    char answer[512];
    if (r->answer != NULL && (as_access_format_needs(format) & AS_ACCESS_RESPONSE_HEAD) != 0) {
        (void)snprintf(answer, sizeof(answer), "%s", r->answer);
        ex.head_copy = answer;
    }
    as_buf out = {0};
    bool ok = as_access_format_add(format, &ex, moment, &out) == AS_OK;
    /* a second line follows the first, and is the same */
    size_t first = out.len;
    ok = ok && as_access_format_add(format, &ex, moment, &out) == AS_OK && out.len == 2 * first &&
         memcmp(out.data, out.data + first, first) == 0 && out.data[first - 1] == '\n';
    if (!ok) {
        fail(text, "no line", "two equal lines");
    }
    snprintf(line, size, "%.*s", (int)first - 1, out.data);
    as_buf_fini(&out, NULL);
    as_access_format_free(format);
    return true;
}

static const as_access_moment moment = {
    .seconds = 951782399, .nanoseconds = 7654321, .duration = 12345678};

static const request plain = {
    .method = "GET",
    .target = "/a/b?c=d",
    .path = "/a/b",
    .query = "c=d",
    .fields = {"Referer", "http://x/", "User-Agent", "curl/8", "X-Two", "1", "x-two", "2"},
    .minor = 1,
    .status = 200,
    .sent = 42,
    .answer = "HTTP/1.1 200 OK\r\nServer: us\r\ncontent-length:42\r\nX-A: 1\r\nx-a: 2\r\n\r\n",
};

static const request bare = {
    .method = "OPTIONS", .target = "*", .minor = 0, .status = 299, .is_unix = true};

static const request hostile = {
    .method = "GET",
    .target = "/\"\\\x1b[31m\xff",
    .path = "/\"\\\x1b[31m\xff",
    .fields = {"User-Agent", "a\x7f\"\xc3\xa9\t", "Authorization", "Basic YQpiOng="},
    .minor = 1,
    .status = 404,
};

static const request with_user = {
    .method = "GET",
    .target = "/",
    .path = "/",
    .fields = {"Authorization", "basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
    .minor = 1,
    .status = 200,
};

static const request with_token = {
    .method = "GET",
    .target = "/",
    .path = "/",
    .fields = {"Authorization", "Bearer QWxhZGRpbjpvcGVuIHNlc2FtZQ=="},
    .minor = 1,
    .status = 200,
};

static const request with_all_digits = {
    .method = "GET",
    .target = "/",
    .path = "/",
    .fields = {"Authorization", "Basic Pz8/fn5+OTk6eA=="},
    .minor = 1,
    .status = 200,
};

static const request without_colon = {
    .method = "GET",
    .target = "/",
    .path = "/",
    .fields = {"Authorization", "Basic QWxhZGRpbg=="},
    .minor = 1,
    .status = 200,
};

#define CLF "[28/Feb/2000:23:59:59 +0000]"

static const struct {
    const char *format;
    const request *request;
    const char *line;
} lines[] = {
    {"uvicorn", &plain, "INFO:     10.1.2.3:5000 - \"GET /a/b?c=d HTTP/1.1\" 200 OK"},
    {"uvicorn", &bare, "INFO:     unix - \"OPTIONS * HTTP/1.0\" 299"},
    {"common", &plain, "10.1.2.3 - - " CLF " \"GET /a/b?c=d HTTP/1.1\" 200 42"},
    {"common", &bare, "- - - " CLF " \"OPTIONS * HTTP/1.0\" 299 -"},
    {"combined", &plain,
     "10.1.2.3 - - " CLF " \"GET /a/b?c=d HTTP/1.1\" 200 42 \"http://x/\" \"curl/8\""},
    {"combined", &hostile,
     "10.1.2.3 - a\\x0ab " CLF
     " \"GET /\\x22\\x5c\\x1b[31m\\xff HTTP/1.1\" 404 - \"-\" \"a\\x7f\\x22\\xc3\\xa9\\x09\""},
    {"json", &plain,
     "{\"time\":\"2000-02-28T23:59:59.007Z\",\"client\":\"10.1.2.3\",\"method\":\"GET\","
     "\"path\":\"/a/b\",\"query\":\"c=d\",\"version\":\"1.1\",\"status\":200,\"bytes\":42,"
     "\"duration_us\":12345678,\"referer\":\"http://x/\",\"user_agent\":\"curl/8\"}"},
    {"json", &bare,
     "{\"time\":\"2000-02-28T23:59:59.007Z\",\"client\":null,\"method\":\"OPTIONS\",\"path\":\"*\","
     "\"query\":\"\",\"version\":\"1.0\",\"status\":299,\"bytes\":0,\"duration_us\":12345678,"
     "\"referer\":null,\"user_agent\":null}"},
    {"json", &hostile,
     "{\"time\":\"2000-02-28T23:59:59.007Z\",\"client\":\"10.1.2.3\",\"method\":\"GET\","
     "\"path\":\"/\\\"\\\\\\u001b[31m\\u00ff\",\"query\":\"\",\"version\":\"1.1\",\"status\":404,"
     "\"bytes\":0,\"duration_us\":12345678,\"referer\":null,"
     "\"user_agent\":\"a\\u007f\\\"\\u00c3\\u00a9\\u0009\"}"},
    {NULL, &plain, "10.1.2.3:5000\tGET\t/a/b?c=d\t1.1\t200"},
    {NULL, &hostile, "10.1.2.3:5000\tGET\t/\\x22\\x5c\\x1b[31m\\xff\t1.1\t404"},
    {"%(h)s %(l)s %(u)s", &plain, "10.1.2.3 - -"},
    {"%(t)s", &plain, CLF},
    {"%(r)s|%(m)s|%(U)s|%(q)s|%(H)s", &plain, "GET /a/b?c=d HTTP/1.1|GET|/a/b|c=d|HTTP/1.1"},
    {"%(m)s|%(U)s|%(q)s|%(H)s", &bare, "OPTIONS|*||HTTP/1.0"},
    {"%(q)s", &bare, ""},
    {"%(s)s %(B)s %(b)s", &plain, "200 42 42"},
    {"%(s)d %(B)d %(b)s", &bare, "299 0 -"},
    {"%(f)s %(a)s", &plain, "http://x/ curl/8"},
    {"%(f)s %(a)s", &bare, "- -"},
    {"%(T)s %(D)s %(M)s %(L)s", &plain, "12 12345678 12345 12.345678"},
    {"%({x-two}i)s %({X-TWO}i)s %({none}i)s %({user-agent}i)s", &plain, "1, 2 1, 2 - curl/8"},
    {"%({server}o)s %({Content-Length}o)s %({x-a}o)s %({x}o)s", &plain, "us 42 1, 2 -"},
    {"%({REMOTE_ADDR}e)s:%({remote_port}e)s", &plain, "10.1.2.3:5000"},
    {"%({REMOTE_ADDR}e)s:%({REMOTE_PORT}e)s", &bare, "-:-"},
    {"%({REQUEST_METHOD}e)s %({RAW_URI}e)s %({REQUEST_URI}e)s", &plain, "GET /a/b?c=d /a/b?c=d"},
    {"%({QUERY_STRING}e)s %({SERVER_PROTOCOL}e)s", &plain, "c=d HTTP/1.1"},
    {"%({HTTP_X_TWO}e)s %({HTTP_REFERER}e)s %({CONTENT_TYPE}e)s", &plain, "1, 2 http://x/ -"},
    {"%({CONTENT_LENGTH}e)s", &plain, "-"},
    {"%(u)s", &with_user, "Aladdin"},
    {"%(u)s", &with_all_digits, "???~~~99"},
    {"%(u)s", &with_token, "-"},
    {"%(u)s", &without_colon, "-"},
    {"100 %% %(s)s%(s)s%%", &plain, "100 % 200200%"},
    {"caf\xc3\xa9\t%(m)s ", &plain, "caf\xc3\xa9\tGET "},
};

static void test_lines(void) {
    char got[2048];
    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        const char *name = lines[i].format != NULL ? lines[i].format : "(record)";
        if (!expand(lines[i].format, false, lines[i].request, &moment, got, sizeof(got)) ||
            strcmp(got, lines[i].line) != 0) {
            fail(name, got, lines[i].line);
        }
    }
}

static void test_pid(void) {
    char got[64], expected[64];
    snprintf(expected, sizeof(expected), "<%ld>", (long)getpid());
    if (!expand("%(p)s", false, &plain, &moment, got, sizeof(got)) || strcmp(got, expected) != 0) {
        fail("%(p)s", got, expected);
    }
}

static void test_colors(void) {
    static const struct {
        unsigned status;
        const char *line;
    } rows[] = {
        {204, "\033[32m204 No Content\033[0m"},
        {304, "\033[33m304 Not Modified\033[0m"},
        {500, "\033[31m500 Internal Server Error\033[0m"},
    };
    char got[512], expected[512];
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        request r = plain;
        r.status = rows[i].status;
        snprintf(
            expected, sizeof(expected),
            "\033[32mINFO\033[0m:     10.1.2.3:5000 - \"\033[1mGET /a/b?c=d HTTP/1.1\033[0m\" %s",
            rows[i].line);
        if (!expand("uvicorn", true, &r, &moment, got, sizeof(got)) || strcmp(got, expected) != 0) {
            fail("colours", got, expected);
        }
    }
}

static const struct {
    const char *format, *problem;
} refused[] = {
    {"", "has no %(…)s"},
    {"combind", "combind is none of uvicorn, common, combined and json"},
    {"%(Z)s", "there is no %(Z)s"},
    {"%(status)s", "there is no %(status)s"},
    {"%()s", "there is no %()s"},
    {"%(s)", "%(s) is not complete"},
    {"%(s", "%(s is not complete"},
    {"%(s)s %", "a % alone"},
    {"100 % %(s)s", "a % alone"},
    {"%(h)d", "wants an s"},
    {"%(s)x", "wants an s"},
    {"%({a}i)d", "wants an s"},
    {"%({}i)s", "there is no %({}i)s"},
    {"%({a b}i)s", "no name of a header"},
    {"%({a:}o)s", "no name of a header"},
    {"%({PATH_INFO}e)s", "%({PATH_INFO}e)s: the access log knows only"},
    {"%({wsgi.url_scheme}e)s", "knows only"},
    {"%({HTTP_}e)s", "knows only"},
    {"%(s)s\n", "control character 10"},
    {"\x1b[31m%(s)s", "control character 27"},
};

static void test_refused(void) {
    char got[2048];
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
        if (expand(refused[i].format, false, &plain, &moment, got, sizeof(got)) ||
            strstr(got, refused[i].problem) == NULL) {
            fail(refused[i].format, got, refused[i].problem);
        }
    }
}

/* Every byte in every place that a stranger fills. */
static void test_every_byte(void) {
    static const char *const formats[] = {"uvicorn", "combined", "json", NULL,
                                          "%(U)s %(q)s %({x}i)s %({y}o)s %(u)s"};
    for (int byte = 1; byte < 256; byte++) {
        char target[] = {'/', (char)byte, 0}, answer[64], got[2048];
        snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nY: a%cb\r\n\r\n",
                 byte == '\r' || byte == '\n' ? ' ' : byte);
        request r = {.method = target + 1,
                     .target = target,
                     .path = target,
                     .query = target + 1,
                     .fields = {"x", target, "User-Agent", target, "Referer", target},
                     .minor = 1,
                     .status = 200,
                     .answer = answer};
        for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
            if (formats[i] != NULL && strcmp(formats[i], "uvicorn") == 0) {
                r.method = "GET"; /* which is one of llhttp's, there */
            }
            (void)expand(formats[i], false, &r, &moment, got, sizeof(got));
            r.method = target + 1;
            for (const char *p = got; *p != 0; p++) {
                if (!isprint((unsigned char)*p) && !(formats[i] == NULL && *p == '\t')) {
                    fail("a byte that is not printable", got, formats[i]);
                    break;
                }
            }
        }
    }
}

/* Seconds are cached: an earlier and a later one are seen, and what was asked for is. */
static void test_time(void) {
    static const struct {
        int64_t seconds;
        const char *line;
    } rows[] = {
        {0, "[01/Jan/1970:00:00:00 +0000]"},
        {951782399, CLF},
        {951782400, "[29/Feb/2000:00:00:00 +0000]"},
        {951782399, CLF},
    };
    char problem[AS_ACCESS_PROBLEM];
    as_access_format *format = as_access_format_new(AS_SLICE("%(t)s"), false, problem);
    as_head head = {.base = ""};
    as_conn_info info = {.client = "::1"};
    as_exchange ex = {.head = &head, .info = &info, .status = 200};
    as_buf out = {0};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        out.len = 0;
        as_access_moment at = {.seconds = rows[i].seconds};
        if (as_access_format_add(format, &ex, &at, &out) != AS_OK ||
            strncmp(out.data, rows[i].line, out.len - 1) != 0) {
            fail("time", out.data, rows[i].line);
        }
    }
    as_buf_fini(&out, NULL);
    as_access_format_free(format);
    setenv("TZ", "Test+03:30", 1); /* west of Greenwich */
    tzset();
    char got[128];
    if (!expand("%(t)s", false, &plain, &moment, got, sizeof(got)) ||
        strcmp(got, "[28/Feb/2000:20:29:59 -0330]") != 0) {
        fail("local time", got, "[28/Feb/2000:20:29:59 -0330]");
    }
}

static void test_needs(void) {
    static const struct {
        const char *format;
        unsigned needs;
    } rows[] = {
        {"uvicorn", 0},
        {NULL, 0},
        {"common", AS_ACCESS_TIME},
        {"json", AS_ACCESS_TIME | AS_ACCESS_DURATION},
        {"%(D)s", AS_ACCESS_DURATION},
        {"%({x}o)s", AS_ACCESS_RESPONSE_HEAD},
        {"%({x}i)s %(s)s", 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char problem[AS_ACCESS_PROBLEM];
        const char *text = rows[i].format;
        as_access_format *format =
            as_access_format_new((as_slice){text, text != NULL ? strlen(text) : 0}, false, problem);
        if (format == NULL || as_access_format_needs(format) != rows[i].needs) {
            fail("needs", text, "something else");
        }
        as_access_format_free(format);
    }
}

int main(void) {
    setenv("TZ", "UTC", 1);
    tzset();
    test_lines();
    test_pid();
    test_colors();
    test_refused();
    test_every_byte();
    test_needs();
    test_time();
    return failures == 0 ? 0 : 1;
}

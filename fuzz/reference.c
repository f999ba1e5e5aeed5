#include "reference.h"

#include <stdbool.h>

/* --- bytes and lines ------------------------------------------------------------------------ */

static bool is_digit(char c) {
    return c >= '0' && c <= '9';
}

static bool is_tchar(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
           (c != '\0' && strchr("!#$%&'*+-.^_`|~", c) != NULL);
}

static bool is_tokens(as_slice s) {
    for (size_t i = 0; i < s.n; i++) {
        if (!is_tchar(s.p[i])) {
            return false;
        }
    }
    return s.n > 0;
}

/* RFC 9110, 5.5: VCHAR, obs-text, and space between. */
static bool is_value_byte(char c) {
    return (unsigned char)c >= 0x80 || c == '\t' || (c >= ' ' && c < 0x7f);
}

static as_slice strip(as_slice s) {
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s = (as_slice){s.p + 1, s.n - 1};
    }
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) {
        s.n--;
    }
    return s;
}

/* A line ends with CRLF, and has no other CR or LF. */
static reading take_line(as_slice *bytes, as_slice *line) {
    for (size_t i = 0; i < bytes->n; i++) {
        if (bytes->p[i] == '\n') {
            return READ_BAD;
        }
        if (bytes->p[i] == '\r') {
            if (i + 1 == bytes->n) {
                return READ_MORE;
            }
            if (bytes->p[i + 1] != '\n') {
                return READ_BAD;
            }
            *line = (as_slice){bytes->p, i};
            *bytes = (as_slice){bytes->p + i + 2, bytes->n - i - 2};
            return READ_ALL;
        }
    }
    return READ_MORE;
}

/* --- field lines ---------------------------------------------------------------------------- */

typedef struct framing {
    unsigned lengths, codings;
    uint64_t length;
    bool chunked; /* the only coding */
    bool closes;
} framing;

static bool read_number(as_slice digits, unsigned base, uint64_t *out) {
    uint64_t n = 0;
    for (size_t i = 0; i < digits.n; i++) {
        char c = (char)(digits.p[i] | (base == 16 ? 0x20 : 0));
        unsigned digit = is_digit(digits.p[i])                ? (unsigned)(digits.p[i] - '0')
                         : base == 16 && c >= 'a' && c <= 'f' ? (unsigned)(c - 'a') + 10
                                                              : 99;
        if (digit >= base || n > (UINT64_MAX - digit) / base) {
            return false;
        }
        n = n * base + digit;
    }
    *out = n;
    return digits.n > 0;
}

static bool read_field(as_slice line, framing *f, as_buf *fields) {
    const char *colon = memchr(line.p, ':', line.n);
    if (colon == NULL) {
        return false;
    }
    as_slice name = {line.p, (size_t)(colon - line.p)};
    as_slice value = strip((as_slice){colon + 1, line.n - name.n - 1});
    for (size_t i = name.n + 1; i < line.n; i++) {
        if (!is_value_byte(line.p[i])) {
            return false;
        }
    }
    if (as_slice_ieq(name, AS_SLICE("content-length"))) {
        f->lengths++;
        if (!read_number(value, 10, &f->length)) {
            return false;
        }
    } else if (as_slice_ieq(name, AS_SLICE("transfer-encoding"))) {
        f->codings++;
        f->chunked = as_slice_ieq(value, AS_SLICE("chunked"));
    } else if (as_slice_ieq(name, AS_SLICE("connection"))) {
        f->closes = f->closes || as_slice_ieq(value, AS_SLICE("close"));
    }
    if (fields != NULL) {
        put_slice(fields, name);
        put_text(fields, ": ");
        put_slice(fields, value);
        put_text(fields, "\n");
    }
    return is_tokens(name);
}

/* Up to the empty line. */
static reading read_fields(as_slice *bytes, framing *f, as_buf *fields) {
    as_slice line;
    reading got;
    while ((got = take_line(bytes, &line)) == READ_ALL && line.n > 0) {
        if (!read_field(line, f, fields)) {
            return READ_BAD;
        }
    }
    return got;
}

/* --- bodies --------------------------------------------------------------------------------- */

static reading take_counted(as_slice *bytes, uint64_t n, as_buf *body) {
    if (bytes->n < n) {
        return READ_MORE;
    }
    put(body, bytes->p, (size_t)n);
    *bytes = (as_slice){bytes->p + n, bytes->n - (size_t)n};
    return READ_ALL;
}

/* What may follow a chunk's size: extensions, whose form is not looked at. */
static bool is_extension(as_slice rest) {
    rest = strip(rest);
    for (size_t i = 0; i < rest.n; i++) {
        if (!is_value_byte(rest.p[i])) {
            return false;
        }
    }
    return rest.n == 0 || rest.p[0] == ';';
}

static reading take_chunked(as_slice *bytes, as_buf *body, as_buf *trailers) {
    for (;;) {
        as_slice line, digits;
        uint64_t size;
        reading got = take_line(bytes, &line);
        if (got != READ_ALL) {
            return got;
        }
        digits = (as_slice){line.p, 0};
        while (digits.n < line.n && (is_digit(line.p[digits.n]) || is_tchar(line.p[digits.n]))) {
            digits.n++;
        }
        if (!read_number(digits, 16, &size) ||
            !is_extension((as_slice){line.p + digits.n, line.n - digits.n})) {
            return READ_BAD;
        }
        if (size == 0) {
            framing ignored = {0};
            return read_fields(bytes, &ignored, trailers);
        }
        got = take_counted(bytes, size, body);
        if (got == READ_ALL) {
            got = take_line(bytes, &line);
        }
        if (got != READ_ALL || line.n > 0) {
            return got == READ_ALL ? READ_BAD : got;
        }
    }
}

reading reference_read_chunked(as_slice bytes, as_buf *body, size_t *size) {
    size_t n = bytes.n;
    reading got = take_chunked(&bytes, body, NULL);
    *size = n - bytes.n;
    return got;
}

/* --- requests ------------------------------------------------------------------------------- */

/* method SP request-target SP HTTP-version (3) */
static bool read_request_line(as_slice line, reference_request *out) {
    const char *first = memchr(line.p, ' ', line.n);
    if (first == NULL || line.n < 10) {
        return false;
    }
    out->method = (as_slice){line.p, (size_t)(first - line.p)};
    as_slice version = {line.p + line.n - 9, 9};
    if (version.p <= first + 1 || memcmp(version.p, " HTTP/1.", 8) != 0 ||
        (version.p[8] != '0' && version.p[8] != '1')) {
        return false;
    }
    out->target = (as_slice){first + 1, (size_t)(version.p - first) - 1};
    out->minor = (unsigned)(version.p[8] - '0');
    for (size_t i = 0; i < out->target.n; i++) {
        if (out->target.p[i] <= ' ' || out->target.p[i] >= 0x7f) {
            return false;
        }
    }
    return is_tokens(out->method);
}

reading reference_read(as_slice bytes, reference_request *out) {
    framing f = {0};
    as_slice line;
    size_t n = bytes.n;
    reading got;
    do {
        got = take_line(&bytes, &line); /* 2.2: empty lines in front */
    } while (got == READ_ALL && line.n == 0);
    if (got != READ_ALL) {
        return got;
    }
    if (!read_request_line(line, out)) {
        return READ_BAD;
    }
    got = read_fields(&bytes, &f, NULL);
    if (got != READ_ALL) {
        return got;
    }
    if (f.lengths + f.codings > 1 || (f.codings == 1 && (!f.chunked || out->minor == 0))) {
        return READ_BAD; /* 6.3 */
    }
    got = f.chunked ? take_chunked(&bytes, &out->body, NULL)
                    : take_counted(&bytes, f.length, &out->body);
    out->size = n - bytes.n;
    return got;
}

/* --- responses ------------------------------------------------------------------------------ */

static bool read_status_line(as_slice line, unsigned *status) {
    uint64_t number;
    if (line.n < 13 || memcmp(line.p, "HTTP/1.1 ", 9) != 0 || line.p[12] != ' ' ||
        !read_number((as_slice){line.p + 9, 3}, 10, &number) || number < 100) {
        return false;
    }
    *status = (unsigned)number;
    for (size_t i = 13; i < line.n; i++) {
        if (!is_value_byte(line.p[i])) {
            return false;
        }
    }
    return true;
}

reading reference_read_response(as_slice bytes, bool is_head, bool ended, reference_response *out) {
    framing f = {0};
    as_slice line;
    size_t n = bytes.n;
    *out = (reference_response){0};
    reading got = take_line(&bytes, &line);
    if (got == READ_ALL && !read_status_line(line, &out->status)) {
        return READ_BAD;
    }
    if (got == READ_ALL) {
        got = read_fields(&bytes, &f, &out->fields);
    }
    if (got != READ_ALL) {
        return got;
    }
    out->closes = f.closes;
    bool no_body = is_head || out->status < 200 || out->status == 204 || out->status == 304;
    if (f.lengths + f.codings > 1 || (f.codings == 1 && !f.chunked) ||
        ((out->status < 200 || out->status == 204) && f.lengths + f.codings > 0)) {
        return READ_BAD; /* RFC 9110, 8.6; RFC 9112, 6.1 */
    }
    if (!no_body && f.chunked) {
        got = take_chunked(&bytes, &out->body, &out->trailers);
    } else if (!no_body && f.lengths == 1) {
        got = take_counted(&bytes, f.length, &out->body);
    } else if (!no_body) {
        out->until_close = true;
        (void)take_counted(&bytes, bytes.n, &out->body);
        got = ended ? READ_ALL : READ_MORE;
    }
    out->size = n - bytes.n;
    return got;
}

void reference_response_fini(reference_response *response) {
    as_buf_fini(&response->fields, NULL);
    as_buf_fini(&response->body, NULL);
    as_buf_fini(&response->trailers, NULL);
}

#include "http/response.h"

#include <stdlib.h>
#include <string.h>

#include "http/names.h"

/* --- status lines --------------------------------------------------------------------------- */

/* RFC 9110, 15, and the registry of status codes. */
#define STATUS_CODES(X)                                                                                \
    X(100, "Continue")                                                                                 \
    X(101, "Switching Protocols")                                                                      \
    X(102, "Processing")                                                                               \
    X(103, "Early Hints")                                                                              \
    X(200, "OK")                                                                                       \
    X(201, "Created")                                                                                  \
    X(202, "Accepted")                                                                                 \
    X(203, "Non-Authoritative Information")                                                            \
    X(204, "No Content")                                                                               \
    X(205, "Reset Content")                                                                            \
    X(206, "Partial Content")                                                                          \
    X(207, "Multi-Status")                                                                             \
    X(208, "Already Reported")                                                                         \
    X(226, "IM Used")                                                                                  \
    X(300, "Multiple Choices")                                                                         \
    X(301, "Moved Permanently")                                                                        \
    X(302, "Found")                                                                                    \
    X(303, "See Other")                                                                                \
    X(304, "Not Modified")                                                                             \
    X(305, "Use Proxy")                                                                                \
    X(307, "Temporary Redirect")                                                                       \
    X(308, "Permanent Redirect")                                                                       \
    X(400, "Bad Request")                                                                              \
    X(401, "Unauthorized")                                                                             \
    X(402, "Payment Required")                                                                         \
    X(403, "Forbidden")                                                                                \
    X(404, "Not Found")                                                                                \
    X(405, "Method Not Allowed")                                                                       \
    X(406, "Not Acceptable")                                                                           \
    X(407, "Proxy Authentication Required")                                                            \
    X(408, "Request Timeout")                                                                          \
    X(409, "Conflict")                                                                                 \
    X(410, "Gone")                                                                                     \
    X(411, "Length Required")                                                                          \
    X(412, "Precondition Failed")                                                                      \
    X(413, "Content Too Large")                                                                        \
    X(414, "URI Too Long")                                                                             \
    X(415, "Unsupported Media Type")                                                                   \
    X(416, "Range Not Satisfiable")                                                                    \
    X(417, "Expectation Failed")                                                                       \
    X(418, "I'm a Teapot")                                                                             \
    X(421, "Misdirected Request")                                                                      \
    X(422, "Unprocessable Content")                                                                    \
    X(423, "Locked")                                                                                   \
    X(424, "Failed Dependency")                                                                        \
    X(425, "Too Early")                                                                                \
    X(426, "Upgrade Required")                                                                         \
    X(428, "Precondition Required")                                                                    \
    X(429, "Too Many Requests")                                                                        \
    X(431, "Request Header Fields Too Large")                                                          \
    X(451, "Unavailable For Legal Reasons")                                                            \
    X(500, "Internal Server Error")                                                                    \
    X(501, "Not Implemented")                                                                          \
    X(502, "Bad Gateway")                                                                              \
    X(503, "Service Unavailable")                                                                      \
    X(504, "Gateway Timeout")                                                                          \
    X(505, "HTTP Version Not Supported")                                                               \
    X(506, "Variant Also Negotiates")                                                                  \
    X(507, "Insufficient Storage")                                                                     \
    X(508, "Loop Detected")                                                                            \
    X(510, "Not Extended")                                                                             \
    X(511, "Network Authentication Required")

#define FIRST_STATUS 100u
#define BEFORE_REASON (sizeof("HTTP/1.1 200 ") - 1)

/* Whole lines, by status - FIRST_STATUS. */
static const as_slice status_lines[] = {
#define X(status, reason)                                                                              \
    [status - FIRST_STATUS] = {"HTTP/1.1 " #status " " reason "\r\n",                                  \
                               sizeof("HTTP/1.1 " #status " " reason "\r\n") - 1},
    STATUS_CODES(X)
#undef X
};

static as_slice status_line(unsigned status) {
    unsigned row = status - FIRST_STATUS;
    return row < sizeof(status_lines) / sizeof(status_lines[0]) ? status_lines[row]
                                                                : (as_slice){NULL, 0};
}

as_slice as_status_reason(unsigned status) {
    as_slice line = status_line(status);
    return line.n == 0 ? AS_SLICE("")
                       : (as_slice){line.p + BEFORE_REASON, line.n - BEFORE_REASON - 2};
}

/* --- what is valid -------------------------------------------------------------------------- */

/* RFC 9110, 5.6.2: tchar. */
/* clang-format off */
static const bool token_bytes[256] = {
    ['!'] = 1, ['#'] = 1, ['$'] = 1, ['%'] = 1, ['&'] = 1, ['\''] = 1, ['*'] = 1, ['+'] = 1,
    ['-'] = 1, ['.'] = 1, ['^'] = 1, ['_'] = 1, ['`'] = 1, ['|'] = 1, ['~'] = 1,
    ['0'] = 1, ['1'] = 1, ['2'] = 1, ['3'] = 1, ['4'] = 1, ['5'] = 1, ['6'] = 1, ['7'] = 1,
    ['8'] = 1, ['9'] = 1,
    ['A'] = 1, ['B'] = 1, ['C'] = 1, ['D'] = 1, ['E'] = 1, ['F'] = 1, ['G'] = 1, ['H'] = 1,
    ['I'] = 1, ['J'] = 1, ['K'] = 1, ['L'] = 1, ['M'] = 1, ['N'] = 1, ['O'] = 1, ['P'] = 1,
    ['Q'] = 1, ['R'] = 1, ['S'] = 1, ['T'] = 1, ['U'] = 1, ['V'] = 1, ['W'] = 1, ['X'] = 1,
    ['Y'] = 1, ['Z'] = 1,
    ['a'] = 1, ['b'] = 1, ['c'] = 1, ['d'] = 1, ['e'] = 1, ['f'] = 1, ['g'] = 1, ['h'] = 1,
    ['i'] = 1, ['j'] = 1, ['k'] = 1, ['l'] = 1, ['m'] = 1, ['n'] = 1, ['o'] = 1, ['p'] = 1,
    ['q'] = 1, ['r'] = 1, ['s'] = 1, ['t'] = 1, ['u'] = 1, ['v'] = 1, ['w'] = 1, ['x'] = 1,
    ['y'] = 1, ['z'] = 1,
};
/* clang-format on */

bool as_is_token(as_slice s) {
    for (size_t i = 0; i < s.n; i++) {
        if (!token_bytes[(unsigned char)s.p[i]]) {
            return false;
        }
    }
    return s.n > 0;
}

static bool is_space(char c) {
    return c == ' ' || c == '\t';
}

#define EACH_BYTE(x) (0x0101010101010101u * (uint64_t)(x))

/* Not 0: some byte of the eight is a control, the tab among them, or 0x7f. A carry out of a byte
 * can only follow such a one. */
static uint64_t controls_of_8(const char *p) {
    uint64_t x;
    memcpy(&x, p, sizeof(x));
    uint64_t del = x ^ EACH_BYTE(0x7f);
    return (((x - EACH_BYTE(0x20)) & ~x) | ((del - EACH_BYTE(1)) & ~del)) & EACH_BYTE(0x80);
}

static bool is_value_byte(char c) {
    unsigned char byte = (unsigned char)c;
    return (byte >= 0x20 && byte != 0x7f) || byte == '\t';
}

/* RFC 9110, 5.5: printable ASCII, spaces and tabs within, and bytes from 0x80 on. */
bool as_is_field_value(as_slice s) {
    size_t i = 0;
    while (i < s.n) {
        if (s.n - i >= 8 && controls_of_8(s.p + i) == 0) {
            i += 8;
        } else if (is_value_byte(s.p[i])) {
            i++; /* the last bytes, or those up to a tab */
        } else {
            return false;
        }
    }
    return s.n == 0 || (!is_space(s.p[0]) && !is_space(s.p[s.n - 1]));
}

as_slice as_trim(as_slice s) {
    while (s.n > 0 && is_space(s.p[s.n - 1])) {
        s.n--;
    }
    while (s.n > 0 && is_space(s.p[0])) {
        s.p++;
        s.n--;
    }
    return s;
}

bool as_is_forbidden_trailer(as_slice name) {
    switch (as_name_find(name.p, name.n)) {
    case AS_NAME_CONTENT_LENGTH:
    case AS_NAME_TRANSFER_ENCODING:
    case AS_NAME_HOST:
    case AS_NAME_CONNECTION:
    case AS_NAME_TRAILER:
    case AS_NAME_TE:
    case AS_NAME_KEEP_ALIVE:
    case AS_NAME_UPGRADE:
        return true;
    default:
        return false;
    }
}

bool as_parse_length(as_slice s, uint64_t *length) {
    uint64_t value = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned digit = (unsigned)(unsigned char)s.p[i] - '0';
        if (digit > 9 || value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *length = value;
    return s.n > 0;
}

bool as_list_next(as_slice *list, as_slice *member) {
    if (list->p == NULL) {
        return false;
    }
    const char *comma = memchr(list->p, ',', list->n);
    size_t n = comma != NULL ? (size_t)(comma - list->p) : list->n;
    *member = as_trim((as_slice){list->p, n});
    *list = comma != NULL ? (as_slice){comma + 1, list->n - n - 1} : (as_slice){NULL, 0};
    return true;
}

/* --- numbers and dates ---------------------------------------------------------------------- */

/* The decimal digits, at most 20, without an end. */
static size_t format_number(char *out, uint64_t n) {
    char digits[20];
    size_t i = sizeof(digits);
    do {
        digits[--i] = (char)('0' + n % 10);
        n /= 10;
    } while (n > 0);
    memcpy(out, digits + i, sizeof(digits) - i);
    return sizeof(digits) - i;
}

size_t as__format_chunk_line(char *out, uint64_t n) {
    size_t digits = 1;
    while (digits < 16 && n >> (4 * digits) != 0) {
        digits++;
    }
    for (size_t i = 0; i < digits; i++) {
        out[i] = "0123456789abcdef"[n >> (4 * (digits - 1 - i)) & 15];
    }
    out[digits] = '\r';
    out[digits + 1] = '\n';
    return digits + 2;
}

static void put_digits(char *out, unsigned n, unsigned digits) {
    while (digits-- > 0) {
        out[digits] = (char)('0' + n % 10);
        n /= 10;
    }
}

/* Days since 1970-01-01 as a date of the Gregorian calendar, by eras of 400 years that begin on a
 * 1st of March, so that the leap day is the last one of a year. */
static void civil_date(int64_t days, unsigned *year, unsigned *month, unsigned *day) {
    int64_t shifted = days + 719468; /* since 0000-03-01 */
    int64_t era = (shifted >= 0 ? shifted : shifted - 146096) / 146097;
    unsigned of_era = (unsigned)(shifted - era * 146097);
    unsigned year_of_era = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    unsigned of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned shifted_month = (5 * of_year + 2) / 153;
    *day = of_year - (153 * shifted_month + 2) / 5 + 1;
    *month = shifted_month < 10 ? shifted_month + 3 : shifted_month - 9;
    *year = (unsigned)(year_of_era + era * 400) + (*month <= 2);
}

#define DAY 86400
#define DATE_LENGTH 29

void as_format_date(char out[29], int64_t unix_time) {
    static const char week_days[] = "ThuFriSatSunMonTueWed", /* 1970-01-01 was a Thursday */
        months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    int64_t days = unix_time >= 0 ? unix_time / DAY : (unix_time - (DAY - 1)) / DAY;
    unsigned second = (unsigned)(unix_time - days * DAY), year, month, day;
    civil_date(days, &year, &month, &day);
    memcpy(out, "Thu, 01 Jan 1970 00:00:00 GMT", DATE_LENGTH);
    memcpy(out, week_days + 3 * (((days % 7) + 7) % 7), 3);
    put_digits(out + 5, day, 2);
    memcpy(out + 8, months + 3 * (month - 1), 3);
    put_digits(out + 12, year, 4);
    put_digits(out + 17, second / 3600, 2);
    put_digits(out + 20, second / 60 % 60, 2);
    put_digits(out + 23, second % 60, 2);
}

/* --- the fields that every response gets ---------------------------------------------------- */

static char *put(char *at, const char *p, size_t n) {
    if (n > 0) {
        memcpy(at, p, n);
    }
    return at + n;
}

static char *put_field(char *at, as_slice name, as_slice value) {
    at = put(at, name.p, name.n);
    at = put(at, ": ", 2);
    at = put(at, value.p, value.n);
    return put(at, "\r\n", 2);
}

static size_t field_size(as_slice name, as_slice value) {
    return name.n + value.n + 4;
}

#define SERVER_LINE AS_SLICE("server: asgiserver\r\n")
#define DATE_NAME AS_SLICE("date: ")
#define DATE_LINE AS_SLICE("date: Thu, 01 Jan 1970 00:00:00 GMT\r\n")

as_err as_response_defaults_init(as_response_defaults *d, bool server, bool date,
                                 const as_slice *extra, size_t nextra) {
    *d = (as_response_defaults){0};
    d->server_len = server ? SERVER_LINE.n : 0;
    d->date_line_off = d->server_len;
    d->date_line_len = date ? DATE_LINE.n : 0;
    d->date_off = date ? d->date_line_off + DATE_NAME.n : 0;
    d->len = d->server_len + d->date_line_len;
    for (size_t i = 0; i + 1 < nextra; i += 2) {
        d->len += field_size(extra[i], extra[i + 1]);
    }
    d->block = malloc(d->len + 1); /* an empty block is one, too */
    if (d->block == NULL) {
        return AS_E_NOMEM;
    }
    char *at = put(d->block, SERVER_LINE.p, d->server_len);
    at = put(at, DATE_LINE.p, d->date_line_len);
    for (size_t i = 0; i + 1 < nextra; i += 2) {
        at = put_field(at, extra[i], extra[i + 1]);
    }
    return AS_OK;
}

void as_response_defaults_fini(as_response_defaults *d) {
    free(d->block);
    *d = (as_response_defaults){0};
}

void as_response_defaults_tick(as_response_defaults *d, int64_t unix_time) {
    if (d->date_off != 0 && d->second != unix_time) {
        as_format_date(d->block + d->date_off, unix_time);
        d->second = unix_time;
    }
}

static char *put_defaults(char *at, const as_response_defaults *d, uint8_t seen) {
    if ((seen & (AS_SEEN_DATE | AS_SEEN_SERVER)) == 0) {
        return put(at, d->block, d->len);
    }
    size_t rest = d->date_line_off + d->date_line_len;
    if ((seen & AS_SEEN_SERVER) == 0) {
        at = put(at, d->block + d->server_off, d->server_len);
    }
    if ((seen & AS_SEEN_DATE) == 0) {
        at = put(at, d->block + d->date_line_off, d->date_line_len);
    }
    return put(at, d->block + rest, d->len - rest);
}

/* --- writing -------------------------------------------------------------------------------- */

as_err as__write_status_line(as_outq *q, unsigned status, as_slice reason) {
    char *start;
    as_slice line = status_line(status);
    as_err err = as_outq_reserve(q, line.n + BEFORE_REASON + reason.n + 2, &start);
    if (err != AS_OK) {
        return err;
    }
    char *at = start;
    if (line.n > 0 && (reason.n == 0 || as_slice_eq(reason, as_status_reason(status)))) {
        at = put(at, line.p, line.n);
    } else {
        at = put(at, "HTTP/1.1 ", 9);
        put_digits(at, status, 3);
        at[3] = ' '; /* RFC 9112, 4: it stays where the reason is empty */
        at = put(at + 4, reason.p, reason.n);
        at = put(at, "\r\n", 2);
    }
    as_outq_hold(q, (size_t)(at - start));
    return AS_OK;
}

as_err as__write_field(as_outq *q, as_slice name, as_slice value) {
    char *at;
    as_err err = as_outq_reserve(q, field_size(name, value), &at);
    if (err == AS_OK) {
        (void)put_field(at, name, value);
        as_outq_hold(q, field_size(name, value));
    }
    return err;
}

as_line *as__find_line(as_line *lines, as_slice name, as_slice value) {
    if (name.n == 0 || value.n == 0 || field_size(name, value) > sizeof(lines->text) ||
        as_slice_ieq(name, AS_SLICE("set-cookie"))) {
        return NULL;
    }
    /* Enough to spread the fields of usual responses. */
    unsigned char first = (unsigned char)name.p[0], last = (unsigned char)value.p[value.n - 1];
    size_t hash = name.n + 5 * value.n + 3 * (size_t)first + 7 * (size_t)last;
    return &lines[hash % AS_LINES];
}

bool as__line_is(const as_line *line, as_slice name, as_slice value) {
    return line->name_len == name.n && line->value_len == value.n &&
           memcmp(line->text, name.p, name.n) == 0 &&
           memcmp(line->text + name.n + 2, value.p, value.n) == 0;
}

void as__keep_line(as_line *line, as_slice name, as_slice value) {
    line->name_len = (uint8_t)name.n;
    line->value_len = (uint8_t)value.n;
    (void)put_field(line->text, name, value);
}

as_err as__write_line(as_outq *q, const as_line *line) {
    char *at;
    size_t n = (size_t)line->name_len + line->value_len + 4;
    as_err err = as_outq_reserve(q, sizeof(line->text), &at);
    if (err == AS_OK) {
        memcpy(at, line->text, sizeof(line->text)); /* of a size that the compiler knows */
        as_outq_hold(q, n);
    }
    return err;
}

#define LENGTH_NAME AS_SLICE("content-length: ")
#define CODING_LINE AS_SLICE("transfer-encoding: chunked\r\n")
#define CLOSE_LINE AS_SLICE("connection: close\r\n")
#define KEEP_ALIVE_LINE AS_SLICE("connection: keep-alive\r\n")

/* More than all of those together. */
#define OWN_LINES ((size_t)128)

as_err as__write_head_end(as_outq *q, const as_response_defaults *d, const as_head_end *end,
                          size_t room) {
    char *start;
    as_err err = as_outq_reserve(q, d->len + OWN_LINES + room, &start);
    if (err != AS_OK) {
        return err;
    }
    char *at = put_defaults(start, d, end->seen);
    if (end->has_length) {
        at = put(at, LENGTH_NAME.p, LENGTH_NAME.n);
        at += format_number(at, end->length);
        at = put(at, "\r\n", 2);
    }
    if (end->chunked) {
        at = put(at, CODING_LINE.p, CODING_LINE.n);
    }
    if (end->close) {
        at = put(at, CLOSE_LINE.p, CLOSE_LINE.n);
    } else if (end->keep_alive) {
        at = put(at, KEEP_ALIVE_LINE.p, KEEP_ALIVE_LINE.n);
    }
    at = put(at, "\r\n", 2);
    as_outq_hold(q, (size_t)(at - start));
    return AS_OK;
}

/* A format is a row of pieces, each with the function that puts it. The atoms are gunicorn's; the
 * presets uvicorn and json are one piece each, because theirs is not the syntax of atoms. */
#include "gateway/access_format.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "http/names.h"
#include "http/response.h"

typedef struct line line;
typedef struct piece piece;

struct piece {
    void (*put)(line *l, const piece *p);
    as_slice text; /* literal bytes, or the name of a field */
    uint16_t name_id;
};

struct as_access_format {
    unsigned needs;
    bool colors;
    char pid[16]; /* "<123>" */
    char *text;   /* what the pieces' slices point into */
    int64_t clf_second, iso_second;
    char clf[96], iso[32]; /* those seconds, as they are written */
    size_t npieces;
    piece pieces[];
};

/* One line that is being made. */
struct line {
    as_access_format *format;
    const as_exchange *ex;
    const as_access_moment *moment;
    as_buf *out;
    bool failed; /* no memory: nothing more is put */
};

/* --- bytes ---------------------------------------------------------------------------------- */

/* Room for `n` bytes, which may be 0, NULL: none. */
static char *room(line *l, size_t n) {
    if (!l->failed && as_buf_reserve(l->out, NULL, n + 1) != AS_OK) {
        l->failed = true;
    }
    return l->failed ? NULL : l->out->data + l->out->len;
}

static void put(line *l, as_slice s) {
    char *at = room(l, s.n);
    if (at != NULL && s.n > 0) {
        memcpy(at, s.p, s.n);
        l->out->len += s.n;
    }
}

static void put_c(line *l, const char *text) {
    put(l, (as_slice){text, strlen(text)});
}

static const char hex[] = "0123456789abcdef";

static char *copy(char *at, as_slice s) {
    memcpy(at, s.p, s.n);
    return at + s.n;
}

/* Bytes from a stranger, as \xNN where they could steer a terminal or fake a line. Up to 4 bytes
 * for each. */
static char *copy_escaped(char *at, as_slice s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            *at++ = (char)c;
        } else {
            *at++ = '\\';
            *at++ = 'x';
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        }
    }
    return at;
}

/* The inside of a JSON string: bytes are Latin-1 (RFC 9110, 5.5), the result is ASCII. Up to 6
 * bytes for each. */
static char *copy_json(char *at, as_slice s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c == '"' || c == '\\') {
            *at++ = '\\';
            *at++ = (char)c;
        } else if (c >= 0x20 && c < 0x7f) {
            *at++ = (char)c;
        } else {
            at = copy(at, AS_SLICE("\\u00"));
            *at++ = hex[c >> 4];
            *at++ = hex[c & 15];
        }
    }
    return at;
}

static void put_escaped(line *l, as_slice s) {
    char *at = room(l, 4 * s.n);
    if (at != NULL) {
        l->out->len += (size_t)(copy_escaped(at, s) - at);
    }
}

static void put_json(line *l, as_slice s) {
    char *at = room(l, 6 * s.n);
    if (at != NULL) {
        l->out->len += (size_t)(copy_json(at, s) - at);
    }
}

#define DIGITS 20 /* of a uint64_t */

/* Decimal, with leading zeros up to `width`, at most DIGITS. */
static char *copy_number(char *at, uint64_t value, int width) {
    char digits[DIGITS];
    int n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0 || n < width);
    while (n > 0) {
        *at++ = digits[--n];
    }
    return at;
}

static void put_number(line *l, uint64_t value, int width) {
    char *at = room(l, DIGITS);
    if (at != NULL) {
        l->out->len += (size_t)(copy_number(at, value, width) - at);
    }
}

/* --- what a request has --------------------------------------------------------------------- */

static as_slice client_of(const as_exchange *ex) {
    return (as_slice){ex->info->client, strlen(ex->info->client)};
}

static as_slice version_of(const as_exchange *ex) {
    return ex->head->minor == 1 ? AS_SLICE("HTTP/1.1") : AS_SLICE("HTTP/1.0");
}

/* "*" has no path. */
static as_slice path_of(const as_exchange *ex) {
    return as_head_slice(ex->head, ex->head->path.len > 0 ? ex->head->path : ex->head->target);
}

static char *copy_client(char *at, const as_conn_info *info) {
    if (info->is_unix) {
        return copy(at, AS_SLICE("unix"));
    }
    at = copy(at, (as_slice){info->client, strlen(info->client)});
    *at++ = ':';
    return copy_number(at, info->client_port, 0);
}

size_t as_format_client(const as_conn_info *info, char *out) {
    return (size_t)(copy_client(out, info) - out);
}

/* The next value of a request field behind *at; false: there is none. */
static bool next_field(const as_head *head, const piece *p, uint32_t *at, as_slice *value) {
    while (*at < head->nfields) {
        const as_field *field = &head->fields[(*at)++];
        if (field->name_id == p->name_id &&
            (p->name_id != AS_NAME_OTHER || as_slice_ieq(as_field_name(head, field), p->text))) {
            *value = as_field_value(head, field);
            return true;
        }
    }
    return false;
}

/* The next value of a response field; shortens `head`, which begins with the status line. */
static bool next_copied_field(as_slice *head, as_slice name, as_slice *value) {
    const char *end;
    while ((end = memchr(head->p, '\n', head->n)) != NULL) {
        size_t n = (size_t)(end + 1 - head->p);
        *head = (as_slice){end + 1, head->n - n};
        if (head->n > name.n && head->p[name.n] == ':' &&
            as_slice_ieq((as_slice){head->p, name.n}, name)) {
            const char *cr = memchr(head->p, '\r', head->n);
            *value = as_trim((as_slice){head->p + name.n + 1, (size_t)(cr - head->p) - name.n - 1});
            return true;
        }
    }
    return false;
}

/* Both kinds of seconds are written anew only when they change. */
static const char *clf_time(line *l) {
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    as_access_format *f = l->format;
    if (f->clf_second != l->moment->seconds) {
        time_t seconds = (time_t)l->moment->seconds;
        struct tm tm = {0};
        (void)localtime_r(&seconds, &tm);
        long minutes = labs(tm.tm_gmtoff) / 60;
        (void)snprintf(f->clf, sizeof(f->clf), "[%02d/%s/%d:%02d:%02d:%02d %c%02ld%02ld]",
                       tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min,
                       tm.tm_sec, tm.tm_gmtoff < 0 ? '-' : '+', minutes / 60, minutes % 60);
        f->clf_second = l->moment->seconds;
    }
    return f->clf;
}

static const char *iso_time(line *l) {
    as_access_format *f = l->format;
    if (f->iso_second != l->moment->seconds) {
        time_t seconds = (time_t)l->moment->seconds;
        struct tm tm = {0};
        (void)gmtime_r(&seconds, &tm);
        (void)strftime(f->iso, sizeof(f->iso), "%Y-%m-%dT%H:%M:%S", &tm);
        f->iso_second = l->moment->seconds;
    }
    return f->iso;
}

/* --- atoms ---------------------------------------------------------------------------------- */

static void put_text(line *l, const piece *p) {
    put(l, p->text);
}

static void put_dash(line *l, const piece *p) {
    (void)p;
    put(l, AS_SLICE("-"));
}

static void put_address(line *l, const piece *p) {
    (void)p;
    put(l, l->ex->info->is_unix ? AS_SLICE("-") : client_of(l->ex));
}

static void put_client_port(line *l, const piece *p) {
    if (l->ex->info->is_unix) {
        put_dash(l, p);
    } else {
        put_number(l, l->ex->info->client_port, 0);
    }
}

static void put_time(line *l, const piece *p) {
    (void)p;
    put_c(l, clf_time(l));
}

static void put_method(line *l, const piece *p) {
    (void)p;
    put_escaped(l, as_head_slice(l->ex->head, l->ex->head->method));
}

static void put_target(line *l, const piece *p) {
    (void)p;
    put_escaped(l, as_head_slice(l->ex->head, l->ex->head->target));
}

static void put_path(line *l, const piece *p) {
    (void)p;
    put_escaped(l, path_of(l->ex));
}

static void put_query(line *l, const piece *p) {
    (void)p;
    put_escaped(l, as_head_slice(l->ex->head, l->ex->head->query));
}

static void put_protocol(line *l, const piece *p) {
    (void)p;
    put(l, version_of(l->ex));
}

static void put_request_line(line *l, const piece *p) {
    put_method(l, p);
    put(l, AS_SLICE(" "));
    put_target(l, p);
    put(l, AS_SLICE(" "));
    put_protocol(l, p);
}

static void put_status(line *l, const piece *p) {
    (void)p;
    put_number(l, l->ex->status, 0);
}

static void put_bytes(line *l, const piece *p) {
    (void)p;
    put_number(l, l->ex->sent, 0);
}

static void put_bytes_clf(line *l, const piece *p) {
    if (l->ex->sent > 0) {
        put_bytes(l, p);
    } else {
        put_dash(l, p);
    }
}

static void put_seconds(line *l, const piece *p) {
    (void)p;
    put_number(l, l->moment->duration / 1000000, 0);
}

static void put_milliseconds(line *l, const piece *p) {
    (void)p;
    put_number(l, l->moment->duration / 1000, 0);
}

static void put_microseconds(line *l, const piece *p) {
    (void)p;
    put_number(l, l->moment->duration, 0);
}

static void put_decimal_seconds(line *l, const piece *p) {
    put_seconds(l, p);
    put(l, AS_SLICE("."));
    put_number(l, l->moment->duration % 1000000, 6);
}

static void put_pid(line *l, const piece *p) {
    (void)p;
    put_c(l, l->format->pid);
}

/* Several lines of one name are one list (RFC 9110, 5.3). */
static void put_request_field(line *l, const piece *p) {
    uint32_t at = 0;
    as_slice value;
    if (!next_field(l->ex->head, p, &at, &value)) {
        put_dash(l, p);
        return;
    }
    put_escaped(l, value);
    while (next_field(l->ex->head, p, &at, &value)) {
        put(l, AS_SLICE(", "));
        put_escaped(l, value);
    }
}

static void put_response_field(line *l, const piece *p) {
    const char *copy = l->ex->head_copy;
    as_slice head = {copy, copy != NULL ? strlen(copy) : 0}, value;
    if (!next_copied_field(&head, p->text, &value)) {
        put_dash(l, p);
        return;
    }
    put_escaped(l, value);
    while (next_copied_field(&head, p->text, &value)) {
        put(l, AS_SLICE(", "));
        put_escaped(l, value);
    }
}

static int base64_value(char c) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* The user of Basic credentials (RFC 7617), up to the colon; false: they are none. */
static bool put_basic_user(line *l, as_slice credentials) {
    if (credentials.n < 6 || !as_slice_ieq((as_slice){credentials.p, 6}, AS_SLICE("basic "))) {
        return false;
    }
    as_slice text = as_trim((as_slice){credentials.p + 6, credentials.n - 6});
    unsigned bits = 0, nbits = 0;
    size_t start = l->out->len;
    for (size_t i = 0; i < text.n && text.p[i] != '='; i++) {
        int value = base64_value(text.p[i]);
        if (value < 0) {
            break;
        }
        bits = bits << 6 | (unsigned)value;
        nbits += 6;
        if (nbits >= 8) {
            nbits -= 8;
            char c = (char)(bits >> nbits & 0xff);
            if (c == ':') {
                return l->out->len > start;
            }
            put_escaped(l, (as_slice){&c, 1});
        }
    }
    l->out->len = start; /* no colon: whatever it is */
    return false;
}

static void put_user(line *l, const piece *p) {
    uint32_t at = 0;
    as_slice value;
    if (!next_field(l->ex->head, p, &at, &value) || !put_basic_user(l, value)) {
        put_dash(l, p);
    }
}

/* --- presets of one piece ------------------------------------------------------------------- */

/* Green, yellow, red as the status asks for. */
static as_slice status_color(unsigned status) {
    if (status < 300) {
        return AS_SLICE("\033[32m");
    }
    return status < 400 ? AS_SLICE("\033[33m") : AS_SLICE("\033[31m");
}

/* INFO:     127.0.0.1:50000 - "GET /path HTTP/1.1" 200 OK */
static void put_uvicorn(line *l, const piece *p) {
    (void)p;
    const as_exchange *ex = l->ex;
    bool colors = l->format->colors;
    as_slice method = as_head_slice(ex->head, ex->head->method);
    as_slice target = as_head_slice(ex->head, ex->head->target);
    as_slice reason = as_status_reason(ex->status);
    char *at = room(l, 160 + AS_CLIENT_TEXT + method.n + reason.n + 4 * target.n);
    if (at == NULL) {
        return;
    }
    char *start = at;
    at = copy(at, colors ? AS_SLICE("\033[32mINFO\033[0m:     ") : AS_SLICE("INFO:     "));
    at = copy_client(at, ex->info);
    at = copy(at, colors ? AS_SLICE(" - \"\033[1m") : AS_SLICE(" - \""));
    at = copy(at, method);
    *at++ = ' ';
    at = copy_escaped(at, target);
    *at++ = ' ';
    at = copy(at, version_of(ex));
    at = copy(at, colors ? AS_SLICE("\033[0m\" ") : AS_SLICE("\" "));
    if (colors) {
        at = copy(at, status_color(ex->status));
    }
    at = copy_number(at, ex->status, 0);
    if (reason.n > 0) {
        *at++ = ' ';
        at = copy(at, reason);
    }
    if (colors) {
        at = copy(at, AS_SLICE("\033[0m"));
    }
    l->out->len += (size_t)(at - start);
}

/* No value has a tab in it. */
static void put_record(line *l, const piece *p) {
    char *at = room(l, AS_CLIENT_TEXT);
    if (at != NULL) {
        l->out->len += as_format_client(l->ex->info, at);
    }
    put(l, AS_SLICE("\t"));
    put_method(l, p);
    put(l, AS_SLICE("\t"));
    put_target(l, p);
    put(l, l->ex->head->minor == 1 ? AS_SLICE("\t1.1\t") : AS_SLICE("\t1.0\t"));
    put_status(l, p);
}

static void put_json_string(line *l, as_slice key, as_slice value) {
    put(l, key);
    put(l, AS_SLICE("\""));
    put_json(l, value);
    put(l, AS_SLICE("\""));
}

static void put_json_field(line *l, as_slice key, as_name_id id) {
    const piece field = {.name_id = (uint16_t)id};
    uint32_t at = 0;
    as_slice value;
    if (next_field(l->ex->head, &field, &at, &value)) {
        put_json_string(l, key, value);
    } else {
        put(l, key);
        put(l, AS_SLICE("null"));
    }
}

static void put_json_object(line *l, const piece *p) {
    const as_exchange *ex = l->ex;
    put(l, AS_SLICE("{\"time\":\""));
    put_c(l, iso_time(l));
    put(l, AS_SLICE("."));
    put_number(l, l->moment->nanoseconds / 1000000, 3);
    put(l, AS_SLICE("Z\""));
    if (ex->info->is_unix) {
        put(l, AS_SLICE(",\"client\":null"));
    } else {
        put_json_string(l, AS_SLICE(",\"client\":"), client_of(ex));
    }
    put_json_string(l, AS_SLICE(",\"method\":"), as_head_slice(ex->head, ex->head->method));
    put_json_string(l, AS_SLICE(",\"path\":"), path_of(ex));
    put_json_string(l, AS_SLICE(",\"query\":"), as_head_slice(ex->head, ex->head->query));
    put(l,
        ex->head->minor == 1 ? AS_SLICE(",\"version\":\"1.1\"") : AS_SLICE(",\"version\":\"1.0\""));
    put(l, AS_SLICE(",\"status\":"));
    put_status(l, p);
    put(l, AS_SLICE(",\"bytes\":"));
    put_bytes(l, p);
    put(l, AS_SLICE(",\"duration_us\":"));
    put_microseconds(l, p);
    put_json_field(l, AS_SLICE(",\"referer\":"), AS_NAME_REFERER);
    put_json_field(l, AS_SLICE(",\"user_agent\":"), AS_NAME_USER_AGENT);
    put(l, AS_SLICE("}"));
}

/* --- the tables ----------------------------------------------------------------------------- */

typedef struct atom {
    const char *name;
    void (*put)(line *l, const piece *p);
    unsigned needs;
    as_name_id field; /* that it reads */
    bool is_number;   /* %(…)d is the same as %(…)s */
} atom;

static const atom atoms[] = {
    {"h", put_address, 0, 0, false},
    {"l", put_dash, 0, 0, false},
    {"u", put_user, 0, AS_NAME_AUTHORIZATION, false},
    {"t", put_time, AS_ACCESS_TIME, 0, false},
    {"r", put_request_line, 0, 0, false},
    {"m", put_method, 0, 0, false},
    {"U", put_path, 0, 0, false},
    {"q", put_query, 0, 0, false},
    {"H", put_protocol, 0, 0, false},
    {"s", put_status, 0, 0, true},
    {"B", put_bytes, 0, 0, true},
    {"b", put_bytes_clf, 0, 0, false},
    {"f", put_request_field, 0, AS_NAME_REFERER, false},
    {"a", put_request_field, 0, AS_NAME_USER_AGENT, false},
    {"T", put_seconds, AS_ACCESS_DURATION, 0, true},
    {"D", put_microseconds, AS_ACCESS_DURATION, 0, true},
    {"M", put_milliseconds, AS_ACCESS_DURATION, 0, true},
    {"L", put_decimal_seconds, AS_ACCESS_DURATION, 0, false},
    {"p", put_pid, 0, 0, false},
};

/* %({…}e)s: what of a WSGI environ can be told from the request alone, beside HTTP_…. */
static const atom variables[] = {
    {"REMOTE_ADDR", put_address, 0, 0, false},
    {"REMOTE_PORT", put_client_port, 0, 0, false},
    {"REQUEST_METHOD", put_method, 0, 0, false},
    {"REQUEST_URI", put_target, 0, 0, false},
    {"RAW_URI", put_target, 0, 0, false},
    {"QUERY_STRING", put_query, 0, 0, false},
    {"SERVER_PROTOCOL", put_protocol, 0, 0, false},
    {"CONTENT_TYPE", put_request_field, 0, AS_NAME_CONTENT_TYPE, false},
    {"CONTENT_LENGTH", put_request_field, 0, AS_NAME_CONTENT_LENGTH, false},
};

typedef struct preset {
    const char *name;
    const char *text;                     /* as atoms */
    void (*put)(line *l, const piece *p); /* or one piece */
    unsigned needs;
} preset;

#define COMMON "%(h)s %(l)s %(u)s %(t)s \"%(r)s\" %(s)s %(b)s"

static const preset presets[] = {
    {"uvicorn", NULL, put_uvicorn, 0},
    {"common", COMMON, NULL, 0},
    {"combined", COMMON " \"%(f)s\" \"%(a)s\"", NULL, 0},
    {"json", NULL, put_json_object, AS_ACCESS_TIME | AS_ACCESS_DURATION},
};

static const preset record = {"", NULL, put_record, 0};

/* --- compiling ------------------------------------------------------------------------------ */

typedef struct compiler {
    as_access_format *format;
    char *problem;
} compiler;

__attribute__((format(printf, 2, 3))) static bool fail(compiler *c, const char *format, ...) {
    va_list args;
    va_start(args, format);
    (void)vsnprintf(c->problem, AS_ACCESS_PROBLEM, format, args);
    va_end(args);
    return false;
}

static piece *add_piece(compiler *c, void (*put_piece)(line *l, const piece *p), as_slice text) {
    piece *p = &c->format->pieces[c->format->npieces++];
    *p = (piece){.put = put_piece, .text = text};
    return p;
}

/* Lower case letters, and '-' for '_': the name of a field. */
static void name_piece(piece *p, char *name, size_t n) {
    for (size_t i = 0; i < n; i++) {
        name[i] = name[i] == '_' ? '-' : as_lower(name[i]);
    }
    p->text = (as_slice){name, n};
    p->name_id = (uint16_t)as_name_find(name, n);
}

static const atom *find(const atom *table, size_t n, as_slice name, bool any_case) {
    for (size_t i = 0; i < n; i++) {
        as_slice row = {table[i].name, strlen(table[i].name)};
        if (any_case ? as_slice_ieq(row, name) : as_slice_eq(row, name)) {
            return &table[i];
        }
    }
    return NULL;
}

#define SHOWN(s) (int)((s).n < 60 ? (s).n : 60), (s).p

static bool add_atom(compiler *c, const atom *found, char conversion, as_slice name) {
    if (conversion != 's' && !(conversion == 'd' && found->is_number)) {
        return fail(c, "%%(%.*s) wants an s behind it", SHOWN(name));
    }
    add_piece(c, found->put, name)->name_id = (uint16_t)found->field;
    c->format->needs |= found->needs;
    return true;
}

/* {name}i, {name}o, {name}e; the braces' inside is `name`. */
static bool add_named(compiler *c, char *name, size_t n, char kind, char conversion) {
    as_slice shown = {name, n};
    if (conversion != 's') {
        return fail(c, "%%({%.*s}%c) wants an s behind it", SHOWN(shown), kind);
    }
    if (kind == 'e') {
        const atom *variable =
            find(variables, sizeof(variables) / sizeof(variables[0]), shown, true);
        if (variable != NULL) {
            return add_atom(c, variable, conversion, shown);
        }
        if (n <= 5 || !as_slice_ieq((as_slice){name, 5}, AS_SLICE("HTTP_"))) {
            return fail(c,
                        "%%({%.*s}e)s: the access log knows only HTTP_… and a few others of the "
                        "variables",
                        SHOWN(shown));
        }
        name += 5;
        n -= 5;
    }
    if (!as_is_token((as_slice){name, n})) {
        return fail(c, "%%({%.*s}%c)s: that is no name of a header", SHOWN(shown), kind);
    }
    if (kind == 'o') {
        c->format->needs |= AS_ACCESS_RESPONSE_HEAD;
        add_piece(c, put_response_field, (as_slice){name, n});
    } else if (kind == 'e') {
        name_piece(add_piece(c, put_request_field, (as_slice){name, n}), name, n);
    } else {
        piece *p = add_piece(c, put_request_field, (as_slice){name, n});
        p->name_id = (uint16_t)as_name_find(name, n);
    }
    return true;
}

/* From behind "%(" to the conversion; *at moves behind it. */
static bool compile_atom(compiler *c, char **at, const char *end) {
    char *name = *at;
    char *close = memchr(name, ')', (size_t)(end - name));
    if (close == NULL || close + 1 == end) {
        return fail(c, "%%(%.*s is not complete", SHOWN(((as_slice){name, (size_t)(end - name)})));
    }
    as_slice text = {name, (size_t)(close - name)};
    char conversion = close[1];
    *at = close + 2;
    if (text.n > 3 && name[0] == '{' && name[text.n - 2] == '}' &&
        strchr("ioe", name[text.n - 1]) != NULL) {
        return add_named(c, name + 1, text.n - 3, name[text.n - 1], conversion);
    }
    const atom *found = find(atoms, sizeof(atoms) / sizeof(atoms[0]), text, false);
    if (found == NULL) {
        return fail(c, "there is no %%(%.*s)s", SHOWN(text));
    }
    return add_atom(c, found, conversion, text);
}

static bool compile(compiler *c, char *at, const char *end) {
    char *literal = at;
    while (at < end) {
        if (*at != '%') {
            at++;
            continue;
        }
        if (at > literal) {
            add_piece(c, put_text, (as_slice){literal, (size_t)(at - literal)});
        }
        at++;
        if (at < end && *at == '(') {
            at++;
            if (!compile_atom(c, &at, end)) {
                return false;
            }
            literal = at;
        } else if (at < end && *at == '%') {
            literal = at++; /* the second one begins the next literal */
        } else {
            return fail(c, "a %% alone is written %%%%");
        }
    }
    if (at > literal) {
        add_piece(c, put_text, (as_slice){literal, (size_t)(at - literal)});
    }
    return true;
}

static bool check_text(compiler *c, as_slice text) {
    bool has_atom = false;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char byte = (unsigned char)text.p[i];
        if ((byte < 0x20 && byte != '\t') || byte == 0x7f) {
            return fail(c, "a line cannot hold the control character %u", byte);
        }
        has_atom = has_atom || (byte == '%' && i + 1 < text.n && text.p[i + 1] == '(');
    }
    return has_atom || fail(c,
                            "%.*s is none of uvicorn, common, combined and json, and has no "
                            "%%(…)s in it",
                            SHOWN(text));
}

static const preset *find_preset(as_slice name) {
    if (name.p == NULL) {
        return &record;
    }
    for (size_t i = 0; i < sizeof(presets) / sizeof(presets[0]); i++) {
        if (as_slice_eq(name, (as_slice){presets[i].name, strlen(presets[i].name)})) {
            return &presets[i];
        }
    }
    return NULL;
}

/* Each '%' begins at most one piece, and one literal is before it. */
static size_t most_pieces(as_slice text) {
    size_t n = 1;
    for (size_t i = 0; i < text.n; i++) {
        n += text.p[i] == '%' ? 2 : 0;
    }
    return n;
}

static as_access_format *format_alloc(as_slice text) {
    as_access_format *f = calloc(1, sizeof(*f) + most_pieces(text) * sizeof(piece));
    if (f == NULL || (f->text = malloc(text.n + 1)) == NULL) {
        free(f);
        return NULL;
    }
    if (text.n > 0) {
        memcpy(f->text, text.p, text.n);
    }
    f->clf_second = f->iso_second = INT64_MIN;
    (void)snprintf(f->pid, sizeof(f->pid), "<%ld>", (long)getpid());
    return f;
}

as_access_format *as_access_format_new(as_slice text, bool colors,
                                       char problem[AS_ACCESS_PROBLEM]) {
    compiler c = {.problem = problem};
    const preset *found = find_preset(text);
    if (found != NULL) {
        text = (as_slice){found->text, found->text != NULL ? strlen(found->text) : 0};
    } else if (!check_text(&c, text)) {
        return NULL;
    }
    c.format = format_alloc(text);
    if (c.format == NULL) {
        (void)fail(&c, "no memory");
        return NULL;
    }
    c.format->colors = colors;
    if (found != NULL && found->put != NULL) {
        add_piece(&c, found->put, text);
        c.format->needs = found->needs;
    } else if (!compile(&c, c.format->text, c.format->text + text.n)) {
        as_access_format_free(c.format);
        return NULL;
    }
    return c.format;
}

void as_access_format_free(as_access_format *format) {
    if (format != NULL) {
        free(format->text);
        free(format);
    }
}

unsigned as_access_format_needs(const as_access_format *format) {
    return format->needs;
}

as_err as_access_format_add(as_access_format *format, const as_exchange *ex,
                            const as_access_moment *moment, as_buf *out) {
    line l = {.format = format, .ex = ex, .moment = moment, .out = out};
    size_t start = out->len;
    for (size_t i = 0; i < format->npieces; i++) {
        format->pieces[i].put(&l, &format->pieces[i]);
    }
    put(&l, AS_SLICE("\n"));
    if (l.failed) {
        out->len = start;
        return AS_E_NOMEM;
    }
    return AS_OK;
}

#include "http/target.h"

/* What a byte may be part of. RFC 3986 has less for a target, but clients send all of printable
 * ASCII. The '%' in a host is looked at apart (RFC 3986, 3.2.2). */
enum {
    TARGET = 1, /* a request target: printable ASCII but '#' */
    HOST = 2,   /* a reg-name: unreserved, sub-delims */
    HEX = 4,
    LITERAL = 8, /* the inside of an IP literal: unreserved, sub-delims, ':' */
};

#define HL (TARGET | HOST | LITERAL)
/* clang-format off */
static const uint8_t kinds[256] = {
    ['!'] = HL, ['"'] = TARGET, ['$'] = HL, ['%'] = TARGET, ['&'] = HL, ['\''] = HL, ['('] = HL,
    [')'] = HL, ['*'] = HL, ['+'] = HL, [','] = HL, ['-'] = HL, ['.'] = HL, ['/'] = TARGET,
    ['0'] = HL | HEX, ['1'] = HL | HEX, ['2'] = HL | HEX, ['3'] = HL | HEX, ['4'] = HL | HEX,
    ['5'] = HL | HEX, ['6'] = HL | HEX, ['7'] = HL | HEX, ['8'] = HL | HEX, ['9'] = HL | HEX,
    [':'] = TARGET | LITERAL, [';'] = HL, ['<'] = TARGET, ['='] = HL, ['>'] = TARGET, ['?'] = TARGET,
    ['@'] = TARGET,
    ['A'] = HL | HEX, ['B'] = HL | HEX, ['C'] = HL | HEX, ['D'] = HL | HEX, ['E'] = HL | HEX,
    ['F'] = HL | HEX, ['G'] = HL, ['H'] = HL, ['I'] = HL, ['J'] = HL, ['K'] = HL, ['L'] = HL,
    ['M'] = HL, ['N'] = HL, ['O'] = HL, ['P'] = HL, ['Q'] = HL, ['R'] = HL, ['S'] = HL, ['T'] = HL,
    ['U'] = HL, ['V'] = HL, ['W'] = HL, ['X'] = HL, ['Y'] = HL, ['Z'] = HL,
    ['['] = TARGET, ['\\'] = TARGET, [']'] = TARGET, ['^'] = TARGET, ['_'] = HL, ['`'] = TARGET,
    ['a'] = HL | HEX, ['b'] = HL | HEX, ['c'] = HL | HEX, ['d'] = HL | HEX, ['e'] = HL | HEX,
    ['f'] = HL | HEX, ['g'] = HL, ['h'] = HL, ['i'] = HL, ['j'] = HL, ['k'] = HL, ['l'] = HL,
    ['m'] = HL, ['n'] = HL, ['o'] = HL, ['p'] = HL, ['q'] = HL, ['r'] = HL, ['s'] = HL, ['t'] = HL,
    ['u'] = HL, ['v'] = HL, ['w'] = HL, ['x'] = HL, ['y'] = HL, ['z'] = HL,
    ['{'] = TARGET, ['|'] = TARGET, ['}'] = TARGET, ['~'] = HL,
};
/* clang-format on */
#undef HL

static bool is(char c, unsigned kind) {
    return (kinds[(unsigned char)c] & kind) != 0;
}

static bool all(as_slice s, unsigned kind) {
    for (size_t i = 0; i < s.n; i++) {
        if (!is(s.p[i], kind)) {
            return false;
        }
    }
    return true;
}

/* --- hosts ---------------------------------------------------------------------------------- */

static bool is_port(as_slice s) {
    for (size_t i = 0; i < s.n; i++) {
        if (s.p[i] < '0' || s.p[i] > '9') {
            return false;
        }
    }
    return true; /* RFC 3986, 3.2.3: port = *DIGIT */
}

/* Nothing, or a colon and a port. */
static bool is_port_part(as_slice s) {
    return s.n == 0 || (s.p[0] == ':' && is_port((as_slice){s.p + 1, s.n - 1}));
}

static bool is_literal(as_slice host) {
    const char *end = memchr(host.p, ']', host.n);
    if (end == NULL) {
        return false;
    }
    as_slice inside = {host.p + 1, (size_t)(end - host.p) - 1};
    return inside.n > 0 && all(inside, LITERAL) &&
           is_port_part((as_slice){end + 1, host.n - inside.n - 2});
}

bool as_host_valid(as_slice host) {
    if (host.n > 0 && host.p[0] == '[') {
        return is_literal(host);
    }
    for (size_t i = 0; i < host.n; i++) {
        if (is(host.p[i], HOST)) {
            continue;
        }
        if (host.p[i] == '%' && host.n - i > 2 && is(host.p[i + 1], HEX) &&
            is(host.p[i + 2], HEX)) {
            i += 2;
            continue;
        }
        /* no port without a host */
        return i > 0 && is_port_part((as_slice){host.p + i, host.n - i});
    }
    return true;
}

/* --- request targets ------------------------------------------------------------------------ */

/* A part of head->target, from its byte `from` up to its byte `to`. */
static as_span part(const as_head *head, size_t from, size_t to) {
    return (as_span){head->target.off + (uint32_t)from, (uint32_t)(to - from)};
}

/* What begins at `from` is a path with or without a query. */
static void split_path(as_head *head, as_slice target, size_t from) {
    const char *mark = memchr(target.p + from, '?', target.n - from);
    size_t end = mark != NULL ? (size_t)(mark - target.p) : target.n;
    head->path = part(head, from, end);
    head->query = mark != NULL ? part(head, end + 1, target.n) : part(head, target.n, target.n);
}

/* The bytes of "http://" or "https://" in front, else 0. */
static size_t scheme_length(as_slice target) {
    static const as_slice schemes[] = {{"http://", 7}, {"https://", 8}};
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t n = schemes[i].n;
        if (target.n >= n && as_slice_ieq((as_slice){target.p, n}, schemes[i])) {
            return n;
        }
    }
    return 0;
}

/* RFC 9112, 3.2.2. RFC 9110, 4.2: an http URI has a host, and no userinfo. */
static as_err split_absolute(as_head *head, as_slice target, size_t scheme) {
    size_t end = scheme;
    while (end < target.n && target.p[end] != '/' && target.p[end] != '?') {
        end++;
    }
    if (end == scheme || !as_host_valid((as_slice){target.p + scheme, end - scheme})) {
        return AS_E_TARGET;
    }
    head->authority = part(head, scheme, end);
    split_path(head, target, end);
    if (head->path.len == 0) {
        head->path = part(head, scheme - 1, scheme); /* RFC 9110, 4.2.3: "/", that of "//" */
    }
    return AS_OK;
}

as_err as_target_split(as_head *head) {
    as_slice target = as_head_slice(head, head->target);
    head->authority = (as_span){head->target.off, 0};
    if (target.n == 0 || !all(target, TARGET)) {
        return AS_E_TARGET;
    }
    if (target.p[0] == '/') {
        split_path(head, target, 0);
        return AS_OK;
    }
    if (target.n == 1 && target.p[0] == '*') {
        head->path = head->query = part(head, 1, 1);
        /* RFC 9112, 3.2.4: the asterisk-form is for OPTIONS alone */
        return as_slice_eq(as_head_slice(head, head->method), AS_SLICE("OPTIONS")) ? AS_OK
                                                                                   : AS_E_TARGET;
    }
    size_t scheme = scheme_length(target);
    return scheme != 0 ? split_absolute(head, target, scheme) : AS_E_TARGET;
}

/* --- percent decoding ----------------------------------------------------------------------- */

static unsigned hex_value(char c) {
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)(as_lower(c) - 'a') + 10;
}

size_t as_percent_decode(as_slice in, char *out) {
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        char c = in.p[i];
        if (c == '%' && in.n - i > 2 && is(in.p[i + 1], HEX) && is(in.p[i + 2], HEX)) {
            c = (char)(hex_value(in.p[i + 1]) << 4 | hex_value(in.p[i + 2]));
            i += 2;
        }
        out[n++] = c;
    }
    return n;
}

bool as_path_is_plain(as_slice path) {
    for (size_t i = 0; i < path.n; i++) {
        if (path.p[i] == '%' || (unsigned char)path.p[i] >= 0x80) {
            return false;
        }
    }
    return true;
}

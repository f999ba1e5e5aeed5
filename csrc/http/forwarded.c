#include "http/forwarded.h"

#include <stdlib.h>

#include "http/response.h"
#include "http/target.h"

/* --- values --------------------------------------------------------------------------------- */

static as_slice from(as_slice s, size_t at) {
    return (as_slice){s.p + at, s.n - at};
}

static bool is_in(char c, const char *set) {
    return c != '\0' && strchr(set, c) != NULL;
}

static bool is_alphanumeric(char c) {
    char lower = as_lower(c);
    return (lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9');
}

/* 1*5DIGIT up to 65535. */
static bool parse_port(as_slice text, uint16_t *port) {
    uint64_t value;
    if (text.n > 5 || !as_parse_length(text, &value) || value > UINT16_MAX) {
        return false;
    }
    *port = (uint16_t)value;
    return true;
}

static as_scheme parse_scheme(as_slice text) {
    if (as_slice_ieq(text, AS_SLICE("https")) || as_slice_ieq(text, AS_SLICE("wss"))) {
        return AS_SCHEME_HTTPS;
    }
    if (as_slice_ieq(text, AS_SLICE("http")) || as_slice_ieq(text, AS_SLICE("ws"))) {
        return AS_SCHEME_HTTP;
    }
    return AS_SCHEME_NONE;
}

/* "name", "name:port", "[name]" or "[name]:port"; `port` stays empty without one. */
static bool split_port(as_slice text, as_slice *name, as_slice *port) {
    const char *end;
    bool literal = text.n > 0 && text.p[0] == '[';
    *port = from(text, text.n);
    if (literal) {
        text = from(text, 1);
        end = memchr(text.p, ']', text.n);
    } else {
        end = memchr(text.p, ':', text.n);
        end = end != NULL ? end : text.p + text.n;
    }
    if (end == NULL) {
        return false;
    }
    *name = (as_slice){text.p, (size_t)(end - text.p)};
    as_slice rest = from(text, name->n + literal);
    if (rest.n > 0) {
        *port = from(rest, 1);
    }
    return rest.n == 0 || (rest.p[0] == ':' && port->n > 0);
}

/* RFC 7239, 6.3: a name or a port that tells nothing. */
static bool is_hidden(as_slice text) {
    for (size_t i = 0; i < text.n; i++) {
        if (!is_alphanumeric(text.p[i]) && !is_in(text.p[i], "._-")) {
            return false;
        }
    }
    return text.n > 1 && text.p[0] == '_';
}

/* An address with or without a port; an IPv6 one in brackets. */
static bool parse_node(as_slice text, as_forwarded *hop) {
    as_slice name, port;
    if (!split_port(text, &name, &port) || !as_address_parse(name, &hop->client)) {
        return false;
    }
    bool literal = text.p[0] == '[', has_colon = memchr(name.p, ':', name.n) != NULL;
    return literal == has_colon &&
           (port.n == 0 || is_hidden(port) || parse_port(port, &hop->client_port));
}

static as_span span_in(const as_head *head, as_slice s) {
    return (as_span){(uint32_t)(s.p - head->base), (uint32_t)s.n};
}

static void set_host(const as_head *head, as_slice text, as_forwarded *out) {
    as_slice name, port;
    uint16_t number = 0;
    if (text.n > 0 && as_host_valid(text) && split_port(text, &name, &port) &&
        (port.n == 0 || parse_port(port, &number))) {
        out->host = span_in(head, name);
        out->port = number;
    }
}

/* Segments behind slashes; see the header. */
static bool is_prefix(as_slice path) {
    size_t dots = 0, n = 0; /* of the segment so far: dots, bytes */
    if (path.n == 0 || path.p[0] != '/') {
        return false;
    }
    for (size_t i = 1; i <= path.n; i++) {
        char c = i < path.n ? path.p[i] : '/';
        if (c == '/') {
            if (n == dots && n <= 2) { /* "", "." or ".." */
                return false;
            }
            n = dots = 0;
            continue;
        }
        if (!is_alphanumeric(c) && !is_in(c, "-._~!$&'()*+;=:@")) {
            return false;
        }
        n++;
        dots += c == '.';
    }
    return true;
}

static void set_prefix(const as_head *head, as_slice path, as_forwarded *out) {
    if (path.n > 0 && path.p[path.n - 1] == '/') {
        path.n--;
    }
    if (is_prefix(path)) {
        out->prefix = span_in(head, path);
    }
}

/* --- the walk ------------------------------------------------------------------------------- */

/* Hops come from the left; what is to be found is what a walk from the right would end at. */
typedef struct walk {
    const as_trust *trust;
    as_forwarded end; /* so far */
    bool begun;       /* it is a hop, not yet the peer */
} walk;

/* Nothing so far counts. */
static void walk_forget(walk *w) {
    w->end = (as_forwarded){0};
    w->begun = false;
}

/* A hop without an address is one whose client is not known. */
static void walk_take(walk *w, const as_forwarded *hop) {
    bool is_proxy = hop->client.n > 0 && as_trust_has(w->trust, &hop->client);
    if (!w->begun || !is_proxy) {
        w->end = *hop;
        w->begun = true;
    } else if (w->end.client.n == 0) {
        w->end.client = hop->client;
        w->end.client_port = hop->client_port;
    }
}

/* --- X-Forwarded-* -------------------------------------------------------------------------- */

static void walk_addresses(walk *w, as_slice list) {
    as_slice member;
    while (as_list_next(&list, &member)) {
        as_forwarded hop = {0};
        if (member.n == 0) {
            continue;
        }
        if (as_address_parse(member, &hop.client) || parse_node(member, &hop)) {
            walk_take(w, &hop);
        } else {
            walk_forget(w);
        }
    }
}

/* The last member of all lines of a field. */
static void keep_last(as_slice list, as_slice *last) {
    as_slice member;
    while (as_list_next(&list, &member)) {
        if (member.n > 0) {
            *last = member;
        }
    }
}

typedef struct last_members {
    as_slice proto, host, port, prefix;
    bool replaces_forwarded;
} last_members;

static void read_field(as_name_id id, as_slice value, walk *w, last_members *last) {
    switch (id) {
    case AS_NAME_X_FORWARDED_FOR:
        last->replaces_forwarded = true;
        walk_addresses(w, value);
        break;
    case AS_NAME_X_FORWARDED_PROTO:
        last->replaces_forwarded = true;
        keep_last(value, &last->proto);
        break;
    case AS_NAME_X_FORWARDED_HOST:
        last->replaces_forwarded = true;
        keep_last(value, &last->host);
        break;
    case AS_NAME_X_FORWARDED_PORT:
        keep_last(value, &last->port);
        break;
    case AS_NAME_X_FORWARDED_PREFIX:
        keep_last(value, &last->prefix);
        break;
    default:
        break;
    }
}

/* --- Forwarded (RFC 7239, 4) ---------------------------------------------------------------- */

static as_slice skip_space(as_slice s) {
    while (s.n > 0 && (s.p[0] == ' ' || s.p[0] == '\t')) {
        s = from(s, 1);
    }
    return s;
}

/* A quoted string with its quotes. Quoted pairs stay as they are: nothing of ours needs one. */
static size_t quoted_length(as_slice s) {
    for (size_t i = 1; i < s.n; i++) {
        if (s.p[i] == '"') {
            return i + 1;
        }
        i += s.p[i] == '\\';
    }
    return 0;
}

/* token "=" ( token / quoted-string ) */
static bool read_pair(as_slice *rest, as_slice *name, as_slice *value) {
    const char *equals = memchr(rest->p, '=', rest->n);
    if (equals == NULL) {
        return false;
    }
    *name = (as_slice){rest->p, (size_t)(equals - rest->p)};
    *rest = from(*rest, name->n + 1);
    size_t n = 0;
    if (rest->n > 0 && rest->p[0] == '"') {
        n = quoted_length(*rest);
        *value = (as_slice){rest->p + 1, n >= 2 ? n - 2 : 0};
    } else {
        while (n < rest->n && !is_in(rest->p[n], " \t;,")) {
            n++;
        }
        *value = (as_slice){rest->p, n};
        if (!as_is_token(*value)) {
            return false;
        }
    }
    *rest = from(*rest, n);
    return n > 0 && as_is_token(*name);
}

typedef struct element {
    as_forwarded hop;
    unsigned pairs;
    bool has_for, has_proto, has_host;
    bool bad; /* well-formed, but not to be believed */
} element;

/* RFC 7239, 4: a parameter occurs once. True the first time. */
static bool first(element *e, bool *seen) {
    e->bad = e->bad || *seen;
    *seen = true;
    return !e->bad;
}

static void set_parameter(const as_head *head, element *e, as_slice name, as_slice value) {
    as_slice node, port;
    if (as_slice_ieq(name, AS_SLICE("for")) && first(e, &e->has_for)) {
        bool unknown = split_port(value, &node, &port) &&
                       (as_slice_ieq(node, AS_SLICE("unknown")) || is_hidden(node));
        e->bad = !unknown && !parse_node(value, &e->hop);
    } else if (as_slice_ieq(name, AS_SLICE("proto")) && first(e, &e->has_proto)) {
        e->hop.scheme = parse_scheme(value);
    } else if (as_slice_ieq(name, AS_SLICE("host")) && first(e, &e->has_host)) {
        set_host(head, value, &e->hop);
    }
}

/* Up to a comma or the end; false for bad syntax. */
static bool read_element(const as_head *head, as_slice *rest, element *e) {
    for (;;) {
        as_slice name, value;
        *rest = skip_space(*rest);
        if (rest->n > 0 && !is_in(rest->p[0], ";,")) {
            if (!read_pair(rest, &name, &value)) {
                return false;
            }
            e->pairs++;
            set_parameter(head, e, name, value);
            *rest = skip_space(*rest);
        }
        if (rest->n == 0 || rest->p[0] == ',') {
            return true;
        }
        if (rest->p[0] != ';') {
            return false;
        }
        *rest = from(*rest, 1);
    }
}

static void walk_elements(const as_head *head, walk *w, as_slice rest) {
    while (rest.n > 0) {
        element e = {0};
        if (!read_element(head, &rest, &e)) {
            walk_forget(w);
            return;
        }
        if (e.bad) {
            walk_forget(w);
        } else if (e.pairs > 0) {
            walk_take(w, &e.hop);
        }
        rest = rest.n > 0 ? from(rest, 1) : rest;
    }
}

/* --- all of it ------------------------------------------------------------------------------ */

static as_forwarded read_fields(const as_trust *trust, const as_head *head) {
    walk w = {.trust = trust};
    last_members last = {0};
    for (uint32_t i = 0; i < head->nfields; i++) {
        const as_field *field = &head->fields[i];
        read_field((as_name_id)field->name_id, as_field_value(head, field), &w, &last);
    }
    for (uint32_t i = 0; !last.replaces_forwarded && i < head->nfields; i++) {
        const as_field *field = &head->fields[i];
        if (field->name_id == AS_NAME_FORWARDED) {
            walk_elements(head, &w, as_field_value(head, field));
        }
    }
    as_forwarded found = w.end;
    if (last.replaces_forwarded) {
        found.scheme = parse_scheme(last.proto);
        set_host(head, last.host, &found);
    }
    uint16_t port;
    if (parse_port(last.port, &port) && port != 0) {
        found.port = port;
    }
    set_prefix(head, last.prefix, &found);
    return found;
}

static as_err read_schemes(const as_forwarding *forwarding, const as_head *head, as_scheme *out) {
    *out = AS_SCHEME_NONE;
    for (uint32_t i = 0; i < head->nfields; i++) {
        const as_field *field = &head->fields[i];
        for (size_t at = 0; at < forwarding->nschemes; at++) {
            const as_scheme_field *row = &forwarding->schemes[at];
            if (!as_slice_ieq(row->name, as_field_name(head, field))) {
                continue;
            }
            bool secure = as_slice_eq(row->value, as_field_value(head, field));
            as_scheme scheme = secure ? AS_SCHEME_HTTPS : AS_SCHEME_HTTP;
            if (*out != AS_SCHEME_NONE && *out != scheme) {
                return AS_E_SCHEME;
            }
            *out = scheme;
        }
    }
    return AS_OK;
}

as_err as_forwarded_read(const as_forwarding *forwarding, const as_head *head, as_forwarded *out) {
    *out = (as_forwarded){0};
    if (forwarding->fields && head->forwarded) {
        *out = read_fields(&forwarding->trust, head);
    }
    return forwarding->nschemes > 0 ? read_schemes(forwarding, head, &out->scheme) : AS_OK;
}

static bool is_nothing(const as_forwarded *found) {
    return found->client.n == 0 && found->scheme == AS_SCHEME_NONE && found->port == 0 &&
           found->host.len == 0 && found->prefix.len == 0;
}

static as_err apply(const as_forwarded *found, as_exchange *ex) {
    if (ex->own == NULL && (ex->own = malloc(sizeof(*ex->own))) == NULL) {
        return AS_E_NOMEM;
    }
    as_conn_info *info = ex->own;
    *info = *ex->info;
    info->gateway = NULL;
    info->tls = NULL;
    info->via = ex->info;
    ex->info = info;
    if (found->client.n > 0) {
        as_address_format(&found->client, info->client);
        info->client_port = found->client_port;
        info->is_unix = false;
    }
    if (found->scheme != AS_SCHEME_NONE) {
        info->is_tls = found->scheme == AS_SCHEME_HTTPS;
    }
    if (found->port != 0) {
        info->server_port = found->port;
    } else if (found->host.len > 0) {
        info->server_port = info->is_tls ? 443 : 80;
    }
    ex->head->host = found->host;
    ex->head->prefix = found->prefix;
    return AS_OK;
}

as_err as_forward(const as_forwarding *forwarding, as_exchange *ex) {
    as_forwarded found;
    as_err err = as_forwarded_read(forwarding, ex->head, &found);
    return err == AS_OK && !is_nothing(&found) ? apply(&found, ex) : err;
}

/* From bytes to request heads and bodies, and every rule that they must keep.
 *
 * WHO ENFORCES WHAT (sections are RFC 9112's; tests/unit/test_http1.c and tests/cases try each)
 *
 *   llhttp 9, strict:
 *     2.2     CRLF and nothing else at the end of a line
 *     3       the bytes of methods, targets (roughly) and versions
 *     5       the bytes of names and values; no space around names; no obs-fold
 *     6       Content-Length beside Transfer-Encoding, repeated, not a number, overflowing
 *     7.1     sizes, with overflow; the form of extensions and trailers; CRLF behind data
 *   ours:
 *     2.2     bare CR or LF in empty lines before a request, and how many of them
 *     2.3     versions but 1.0 and 1.1: 505; HTTP/0.9's simple request (llhttp takes "GET /"): 400
 *     3       single spaces; protocols but HTTP (llhttp takes RTSP and ICE); a long line: 414
 *     3.1     a method that nobody knows: 501, but 400 in a malformed line; CONNECT: 501
 *     3.2     the form of the target, Host (http/target.c, check_host)
 *     5       the size of a head, the number of field lines: 431; white space around values
 *     6       all of it again: a smuggled request is what a mistake would cost. One "chunked",
 *             not in HTTP/1.0; other codings: 501
 *     7.1     the size of a body: 413; bytes that only frame it; trailers that frame or route
 *     9.3     persistence: llhttp is started anew for every request, and not asked
 *     RFC 9110, 7.8: Upgrade is ignored (llhttp would stop at it), but a request for WebSocket that
 *             gets none is its connection's last; 10.1.1: expectations
 *
 * llhttp parses heads and chunked bodies; bodies of known length are counted here. It is paused at
 * the end of a head and of a body, so that no handler ever runs on top of it. */
#include <stdlib.h>
#include <string.h>

#include "http/h1_internal.h"
#include "http/target.h"

#define FIRST_FIELDS 32u

/* --- the scratch head ----------------------------------------------------------------------- */

struct as_h1_scratch *as__h1_scratch_new(void) {
    struct as_h1_scratch *scratch = calloc(1, sizeof(*scratch));
    as_field *fields = malloc(FIRST_FIELDS * sizeof(*fields));
    if (scratch == NULL || fields == NULL) {
        free(scratch);
        free(fields);
        return NULL;
    }
    scratch->head.fields = fields;
    scratch->cap = FIRST_FIELDS;
    return scratch;
}

void as__h1_scratch_free(struct as_h1_scratch *scratch) {
    if (scratch != NULL) {
        as_buf_fini(&scratch->bytes, NULL);
        free(scratch->head.fields);
        free(scratch);
    }
}

static struct as_h1_scratch *scratch_of(const as_h1 *h1) {
    return h1->saved != NULL ? h1->saved : h1->env->scratch;
}

/* Where in the head `at`, a byte of this read, is. */
static uint32_t offset_of(const struct as_h1_scratch *s, const char *at) {
    return (uint32_t)(s->bytes.len + (size_t)(at - s->from));
}

/* Keeps this read's bytes for the next one, and the scratch with them. */
static as_err save(as_h1 *h1, const char *end) {
    struct as_h1_scratch *s = scratch_of(h1);
    if (h1->saved == NULL) {
        struct as_h1_scratch *fresh = as__h1_scratch_new();
        if (fresh == NULL) {
            return AS_E_NOMEM;
        }
        h1->saved = s;
        h1->env->scratch = fresh;
    }
    as_err err = as_buf_append(&s->bytes, NULL, s->from, (size_t)(end - s->from));
    s->from = end;
    return err;
}

static as_err grow_fields(struct as_h1_scratch *s) {
    uint32_t cap = s->cap * 2;
    as_field *fields = realloc(s->head.fields, cap * sizeof(*fields));
    if (fields == NULL) {
        return AS_E_NOMEM;
    }
    s->head.fields = fields;
    s->cap = cap;
    return AS_OK;
}

/* --- what llhttp calls ---------------------------------------------------------------------- */

/* A callback that finds fault stops llhttp with this; h1->failure has the reason. */
#define STOP (-1)

static int fail(as_h1 *h1, as_err why) {
    h1->failure = why;
    return STOP;
}

/* A span may come in pieces, each going on where the last one ended. */
static int extend(as_h1 *h1, as_span *span, const char *at, size_t n) {
    uint32_t off = offset_of(scratch_of(h1), at);
    if (span->len == 0) {
        span->off = off;
    } else if (span->off + span->len != off) {
        return fail(h1, AS_E_FIELD);
    }
    span->len += (uint32_t)n;
    return 0;
}

static int on_method(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = parser->data;
    as_head *head = &scratch_of(h1)->head;
    head->is_head = parser->method == HTTP_HEAD; /* known with its last byte */
    return extend(h1, &head->method, at, n);
}

static int on_url(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = parser->data;
    return extend(h1, &scratch_of(h1)->head.target, at, n);
}

static int on_url_complete(llhttp_t *parser) {
    /* "GET /" without a version: llhttp takes it for 0.9, and says so before any version is read.
     */
    return parser->http_minor == 9 ? fail(parser->data, AS_E_REQUEST_LINE) : 0;
}

static int on_protocol(llhttp_t *parser, const char *at, size_t n) {
    return n > 0 && (at[0] == 'R' || at[0] == 'I') ? fail(parser->data, AS_E_REQUEST_LINE) : 0;
}

static int on_version_complete(llhttp_t *parser) {
    as_h1 *h1 = parser->data;
    scratch_of(h1)->line_done = true;
    bool known = parser->http_major == 1 && parser->http_minor <= 1;
    return known ? 0 : fail(h1, AS_E_VERSION);
}

/* Trailers are dropped, but are no way around the limits of a head. */
static int on_trailer_bytes(as_h1 *h1, size_t n) {
    h1->parser->trailer_bytes += n;
    return h1->parser->trailer_bytes > h1->env->limits->limit_request_head
               ? fail(h1, AS_E_HEAD_LARGE)
               : 0;
}

/* Their names are looked at: those that frame or route a message are none (RFC 9110, 6.5.1), and
 * somebody in front of us may have read them as fields. */
static int on_trailer_name(as_h1 *h1, const char *at, size_t n) {
    if (h1->parser->trailer_len == 0 &&
        ++h1->parser->trailers > h1->env->limits->limit_request_fields) {
        return fail(h1, AS_E_FIELDS_MANY);
    }
    size_t room = sizeof(h1->parser->trailer) - h1->parser->trailer_len;
    memcpy(h1->parser->trailer + h1->parser->trailer_len, at, n < room ? n : room);
    h1->parser->trailer_len = (uint8_t)(h1->parser->trailer_len + (n < room ? n : room));
    return on_trailer_bytes(h1, n);
}

static int on_trailer_complete(as_h1 *h1) {
    bool forbidden =
        as_is_forbidden_trailer((as_slice){h1->parser->trailer, h1->parser->trailer_len});
    h1->parser->trailer_len = 0;
    return forbidden ? fail(h1, AS_E_TRAILER) : 0;
}

static int new_field(as_h1 *h1, struct as_h1_scratch *s, const char *at) {
    if (s->head.nfields >= h1->env->limits->limit_request_fields) {
        return fail(h1, AS_E_FIELDS_MANY);
    }
    if (s->head.nfields == s->cap && grow_fields(s) != AS_OK) {
        return fail(h1, AS_E_NOMEM);
    }
    s->head.fields[s->head.nfields++] = (as_field){.name_off = offset_of(s, at)};
    s->in_name = true;
    return 0;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = parser->data;
    if (h1->trailing) {
        return on_trailer_name(h1, at, n);
    }
    struct as_h1_scratch *s = scratch_of(h1);
    if (!s->in_name && new_field(h1, s, at) != 0) {
        return STOP;
    }
    as_field *field = &s->head.fields[s->head.nfields - 1];
    if (n > (size_t)(UINT16_MAX - field->name_len)) {
        return fail(h1, AS_E_HEAD_LARGE);
    }
    field->name_len = (uint16_t)(field->name_len + n);
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = parser->data;
    if (h1->trailing) {
        return on_trailer_bytes(h1, n);
    }
    if (n == 0) {
        return 0;
    }
    struct as_h1_scratch *s = scratch_of(h1);
    as_field *field = &s->head.fields[s->head.nfields - 1];
    as_span value = {field->value_off, field->value_len};
    int stop = extend(h1, &value, at, n);
    field->value_off = value.off;
    field->value_len = value.len;
    return stop;
}

/* The whole line, with its end. */
static uint32_t line_length(const as_field *field) {
    uint32_t end = field->value_len > 0 ? field->value_off + field->value_len
                                        : field->name_off + field->name_len + 1;
    return end + 2 - field->name_off;
}

static int on_header_value_complete(llhttp_t *parser) {
    as_h1 *h1 = parser->data;
    if (h1->trailing) {
        return on_trailer_complete(h1);
    }
    struct as_h1_scratch *s = scratch_of(h1);
    s->in_name = false;
    uint32_t limit = h1->env->limits->limit_request_field_size;
    if (limit != 0 && line_length(&s->head.fields[s->head.nfields - 1]) > limit) {
        return fail(h1, AS_E_FIELD_LARGE);
    }
    return 0;
}

static int on_headers_complete(llhttp_t *parser) {
    parser->upgrade = 0; /* RFC 9110, 7.8: a server may ignore it; the request goes on as usual */
    return HPE_PAUSED;
}

/* Chunks of a read are moved together, so that the gateway gets them as one. The bytes that llhttp
 * has not seen yet are behind both. Their chunk's size has been judged by on_chunk_header. */
static int on_body(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = parser->data;
    h1->body_seen += n;
    if (h1->env->gathered.n == 0) {
        h1->env->gathered.p = at;
    } else {
        memmove((char *)(uintptr_t)h1->env->gathered.p + h1->env->gathered.n, at, n);
    }
    h1->env->gathered.n += n;
    return 0;
}

#define LINE_SLACK 16    /* bytes of a chunk's two line ends, its size, and a little more */
#define DATA_SLACK 1024u /* for extensions: as many bytes as the data, up to this */

static int on_chunk_header(llhttp_t *parser) {
    as_h1 *h1 = parser->data;
    uint64_t size = parser->content_length, limit = h1->env->limits->limit_request_body;
    if (limit != 0 && size > limit - h1->body_seen) {
        return fail(h1, AS_E_BODY_LARGE); /* before the first byte of it */
    }
    h1->trailing = size == 0;
    h1->parser->slack += LINE_SLACK + (int64_t)(size < DATA_SLACK ? size : DATA_SLACK);
    return 0;
}

static int on_message_complete(llhttp_t *parser) {
    (void)parser;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_method = on_method,
    .on_url = on_url,
    .on_url_complete = on_url_complete,
    .on_protocol = on_protocol,
    .on_version_complete = on_version_complete,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_body = on_body,
    .on_chunk_header = on_chunk_header,
    .on_message_complete = on_message_complete,
};

/* --- what llhttp refuses -------------------------------------------------------------------- */

static bool reason_is(const llhttp_t *parser, const char *reason) {
    return parser->reason != NULL && strcmp(parser->reason, reason) == 0;
}

/* In a request line, else in field lines. */
static as_err form_error(const as_h1 *h1) {
    if (h1->state == AS_H1_AT_CHUNKS) {
        return h1->trailing ? AS_E_TRAILER : AS_E_CHUNK;
    }
    return scratch_of(h1)->line_done ? AS_E_FIELD : AS_E_REQUEST_LINE;
}

static as_err parser_error(const as_h1 *h1, llhttp_errno_t code) {
    if (h1->failure != AS_OK) {
        return h1->failure;
    }
    switch (code) {
    case HPE_INVALID_URL:
        return AS_E_TARGET;
    case HPE_INVALID_VERSION:
        /* a version that nobody has, or something that is none */
        return reason_is(&h1->parser->llhttp, "Invalid HTTP version") ? AS_E_VERSION
                                                                      : AS_E_REQUEST_LINE;
    case HPE_INVALID_CONSTANT: /* llhttp knows methods of RTSP and ICE */
        return reason_is(&h1->parser->llhttp, "Invalid method for HTTP/x.x request")
                   ? AS_E_METHOD
                   : form_error(h1);
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return reason_is(&h1->parser->llhttp, "Duplicate Content-Length") ? AS_E_LENGTH
                                                                          : AS_E_LENGTH_AND_CODING;
    case HPE_INVALID_CONTENT_LENGTH:
        return AS_E_LENGTH;
    case HPE_INVALID_TRANSFER_ENCODING:
        return reason_is(&h1->parser->llhttp,
                         "Transfer-Encoding can't be present with Content-Length")
                   ? AS_E_LENGTH_AND_CODING
                   : AS_E_CODING;
    case HPE_INVALID_CHUNK_SIZE:
        return AS_E_CHUNK;
    default:
        return form_error(h1);
    }
}

static as_h1_got refuse_parsed(as_h1 *h1, llhttp_errno_t code, uint64_t offset) {
    const char *reason = h1->failure == AS_OK ? llhttp_get_error_reason(&h1->parser->llhttp) : NULL;
    if (reason == NULL) {
        reason = "";
    }
    as__h1_refuse(h1, parser_error(h1, code), (as_slice){reason, strlen(reason)}, offset);
    return AS_H1_GOT_ERROR;
}

/* --- methods that llhttp does not know ------------------------------------------------------ */

/* method SP request-target SP HTTP-version CRLF (RFC 9112, 3). */
static bool is_request_line(as_slice line) {
    const char *space = memchr(line.p, ' ', line.n);
    static const as_slice tail = {" HTTP/1.", 8};
    size_t behind = space != NULL ? line.n - (size_t)(space - line.p) - 1 : 0;
    if (behind <= tail.n + 3) { /* the tail, a digit, CR, LF, and no target before them */
        return false;
    }
    as_slice target = {space + 1, behind - tail.n - 3};
    for (size_t i = 0; i < target.n; i++) {
        if (target.p[i] <= ' ' || target.p[i] >= 0x7f) {
            return false;
        }
    }
    char digit = line.p[line.n - 3];
    return as_slice_eq((as_slice){target.p + target.n, tail.n}, tail) && digit >= '0' &&
           digit <= '9' && line.p[line.n - 2] == '\r';
}

/* The method's bytes so far are a token, or a whole one with its space. */
static bool may_be_method(as_slice line) {
    const char *space = memchr(line.p, ' ', line.n);
    return as_is_token((as_slice){line.p, space != NULL ? (size_t)(space - line.p) : line.n});
}

/* RFC 9112, 3: 501 for a method that is not known, 400 for a line that is none. The rest of the
 * line has to come before that can be told. */
static as_h1_got judge_method(as_h1 *h1, char **p, char *end) {
    struct as_h1_scratch *s = scratch_of(h1);
    uint32_t limit = h1->env->limits->limit_request_line + 2;
    char *lf = memchr(*p, '\n', (size_t)(end - *p));
    char *until = lf != NULL ? lf + 1 : end;
    if (save(h1, until) != AS_OK) {
        as__h1_refuse(h1, AS_E_NOMEM, AS_SLICE(""), 0);
        return AS_H1_GOT_ERROR;
    }
    *p = until;
    as_slice line = {s->bytes.data, s->bytes.len};
    as_err why = AS_OK;
    if (!may_be_method(line)) {
        why = AS_E_REQUEST_LINE;
    } else if (line.n > limit) {
        why = AS_E_TARGET_LONG;
    } else if (lf != NULL) {
        why = is_request_line(line) ? AS_E_METHOD : AS_E_REQUEST_LINE;
    }
    if (why == AS_OK) {
        return AS_H1_GOT_PART;
    }
    as__h1_refuse(h1, why, (as_slice){line.p, line.n < 32 ? line.n : 32}, 0);
    return AS_H1_GOT_ERROR;
}

/* --- the rules of a head -------------------------------------------------------------------- */

/* What the field lines say together. */
typedef struct findings {
    as_field *host;
    bool has_length;
    bool has_coding;
    bool chunked; /* the last coding so far */
    bool unknown_coding;
    bool close, keep_alive, upgrade; /* of Connection */
    bool has_upgrade, names_websocket;
    bool expect_other;
    const as_field *at; /* where something is wrong */
} findings;

static as_err find_host(as_head *head, as_field *field, findings *found) {
    if (found->host != NULL) {
        return AS_E_HOST_MANY;
    }
    found->host = field;
    return as_host_valid(as_field_value(head, field)) ? AS_OK : AS_E_HOST;
}

static as_err find_length(as_head *head, as_field *field, findings *found) {
    if (found->has_length) {
        return AS_E_LENGTH;
    }
    found->has_length = true;
    return as_parse_length(as_field_value(head, field), &head->content_length) ? AS_OK
                                                                               : AS_E_LENGTH;
}

/* RFC 9112, 6.1 and 7: codings are a list over all lines; only the last one may be "chunked". */
static as_err find_coding(as_head *head, as_field *field, findings *found) {
    as_slice list = as_field_value(head, field), coding;
    found->has_coding = true;
    while (as_list_next(&list, &coding)) {
        if (found->chunked || !as_is_token(coding)) {
            return AS_E_CODING;
        }
        if (as_slice_ieq(coding, AS_SLICE("chunked"))) {
            found->chunked = true;
        } else {
            found->unknown_coding = true;
        }
    }
    return AS_OK;
}

static void find_connection(as_head *head, as_field *field, findings *found) {
    as_slice list = as_field_value(head, field), option;
    while (as_list_next(&list, &option)) {
        if (as_slice_ieq(option, AS_SLICE("keep-alive"))) {
            found->keep_alive = true;
        } else if (as_slice_ieq(option, AS_SLICE("close"))) {
            found->close = true;
        } else if (as_slice_ieq(option, AS_SLICE("upgrade"))) {
            found->upgrade = true;
        }
    }
}

/* Some that stand before servers take what follows a request for WebSocket for the tunnel's,
 * whatever the answer is, and look into the word no closer than this. So nothing that follows is
 * read as a request, unless there is a tunnel. */
static void find_upgrade(as_head *head, as_field *field, findings *found) {
    as_slice value = as_field_value(head, field), word = AS_SLICE("websocket");
    found->has_upgrade = true;
    for (size_t i = 0; i + word.n <= value.n && !found->names_websocket; i++) {
        found->names_websocket = as_slice_ieq((as_slice){value.p + i, word.n}, word);
    }
}

static as_err find_expectations(as_head *head, as_field *field) {
    as_slice list = as_field_value(head, field), expectation;
    if (head->minor == 0) {
        return AS_OK; /* RFC 9110, 10.1.1: ignored in HTTP/1.0 */
    }
    while (as_list_next(&list, &expectation)) {
        if (as_slice_ieq(expectation, AS_SLICE("100-continue"))) {
            head->expect_continue = true;
        } else if (expectation.n > 0) {
            return AS_E_EXPECT;
        }
    }
    return AS_OK;
}

static as_err find(as_head *head, as_field *field, findings *found) {
    switch (field->name_id) {
    case AS_NAME_HOST:
        return find_host(head, field, found);
    case AS_NAME_CONTENT_LENGTH:
        return find_length(head, field, found);
    case AS_NAME_TRANSFER_ENCODING:
        return find_coding(head, field, found);
    case AS_NAME_CONNECTION:
        find_connection(head, field, found);
        return AS_OK;
    case AS_NAME_UPGRADE:
        find_upgrade(head, field, found);
        return AS_OK;
    case AS_NAME_EXPECT:
        return find_expectations(head, field);
    case AS_NAME_FORWARDED:
    case AS_NAME_X_FORWARDED_FOR:
    case AS_NAME_X_FORWARDED_PROTO:
    case AS_NAME_X_FORWARDED_HOST:
    case AS_NAME_X_FORWARDED_PORT:
    case AS_NAME_X_FORWARDED_PREFIX:
        head->forwarded = true;
        return AS_OK;
    default:
        return AS_OK;
    }
}

static as_err check_fields(as_head *head, findings *found) {
    for (uint32_t i = 0; i < head->nfields; i++) {
        as_field *field = &head->fields[i];
        if (field->name_len == 0) {
            return AS_E_FIELD;
        }
        as_slice value = as_trim(as_field_value(head, field));
        if (value.n == 0) {
            value.p = head->base + field->name_off + field->name_len;
        }
        field->value_off = (uint32_t)(value.p - head->base);
        field->value_len = (uint32_t)value.n;
        field->name_id = (uint16_t)as_name_find(head->base + field->name_off, field->name_len);
        found->at = field;
        as_err err = find(head, field, found);
        if (err != AS_OK) {
            return err;
        }
    }
    found->at = NULL;
    return AS_OK;
}

static as_err check_framing(as_head *head, const findings *found) {
    if (found->has_coding) {
        if (found->has_length) {
            return AS_E_LENGTH_AND_CODING;
        }
        if (head->minor == 0) {
            return AS_E_CODING; /* RFC 9112, 6.1: HTTP/1.0 has none; who sends it cannot be trusted
                                 */
        }
        if (found->unknown_coding || !found->chunked) {
            return AS_E_CODING_UNKNOWN;
        }
        head->body = AS_BODY_CHUNKED;
    } else {
        head->body = found->has_length ? AS_BODY_LENGTH : AS_BODY_NONE;
    }
    return AS_OK;
}

/* RFC 9112, 3.2, 3.2.2: the target's authority replaces that of Host. */
static as_err check_host(as_head *head, const findings *found) {
    if (found->host == NULL) {
        return head->minor == 0 ? AS_OK : AS_E_HOST_MISSING;
    }
    if (head->authority.len > 0) {
        found->host->value_off = head->authority.off;
        found->host->value_len = head->authority.len;
    }
    return AS_OK;
}

/* RFC 9112, 3: method SP request-target SP HTTP-version CRLF, and nothing between; llhttp takes
 * more. */
static as_err check_line(const as_head *head) {
    uint32_t end = head->target.off + head->target.len;
    bool plain = head->method.off == 0 && head->target.off == head->method.len + 1 &&
                 head->len - end > 11 && memcmp(head->base + end, " HTTP/1.", 8) == 0 &&
                 memcmp(head->base + end + 9, "\r\n", 2) == 0;
    return plain ? AS_OK : AS_E_REQUEST_LINE;
}

static as_err check_head(const as_h1 *h1, as_head *head, findings *found) {
    as_err err = check_line(head);
    if (err == AS_OK) {
        err = h1->parser->llhttp.method == HTTP_CONNECT ? AS_E_METHOD : as_target_split(head);
    }
    if (err == AS_OK) {
        err = check_fields(head, found);
    }
    if (err == AS_OK) {
        err = check_framing(head, found);
    }
    if (err == AS_OK) {
        err = check_host(head, found);
    }
    if (err != AS_OK) {
        return err;
    }
    uint64_t limit = h1->env->limits->limit_request_body;
    if (head->body == AS_BODY_LENGTH && limit != 0 && head->content_length > limit) {
        return AS_E_BODY_LARGE;
    }
    bool has_body = head->body == AS_BODY_CHUNKED || head->content_length > 0;
    head->expect_continue = head->expect_continue && has_body;
    bool persists = !found->close && (head->minor > 0 || found->keep_alive); /* RFC 9112, 9.3 */
    head->keep_alive = persists && !found->names_websocket;
    head->leaves = found->close && !found->has_upgrade && head->body == AS_BODY_NONE; /* 9.6 */
    head->upgrade = found->upgrade && found->has_upgrade;
    return AS_OK;
}

/* Says what was wrong: the value of a field line, the target, or nothing. */
static as_h1_got refuse_head(as_h1 *h1, as_head *head, as_err why, const as_field *field) {
    as_span where = {0, 0};
    if (why == AS_E_TARGET) {
        where = head->target;
    } else if (why == AS_E_METHOD) {
        where = head->method;
    } else if (field != NULL) {
        where = (as_span){field->value_off, field->value_len};
    }
    as_slice detail = as_head_slice(head, where);
    detail.n = detail.n < 80 ? detail.n : 80;
    as__h1_refuse(h1, why, detail, where.off);
    return AS_H1_GOT_ERROR;
}

/* --- parsing a head ------------------------------------------------------------------------- */

/* The loop keeps one: only a request that comes in parts needs one of its own for longer. */
static bool take_parser(as_h1 *h1) {
    if (h1->parser == NULL) {
        h1->parser = h1->env->parser;
        h1->env->parser = NULL;
    }
    return h1->parser != NULL || (h1->parser = malloc(sizeof(*h1->parser))) != NULL;
}

bool as__h1_begin_head(as_h1 *h1) {
    struct as_h1_scratch *s = h1->env->scratch;
    if (!take_parser(h1)) {
        return false;
    }
    llhttp_init(&h1->parser->llhttp, HTTP_REQUEST, &settings);
    h1->parser->llhttp.data = h1;
    h1->failure = AS_OK;
    h1->trailing = false;
    h1->offset = 0;
    h1->state = AS_H1_AT_HEAD;
    s->head = (as_head){.fields = s->head.fields};
    s->in_name = false;
    s->line_done = false;
    s->unknown_method = false;
    return true;
}

static as_h1_got complete_head(as_h1 *h1, char *end, as_head **result) {
    struct as_h1_scratch *s = scratch_of(h1);
    as_head *head = &s->head;
    head->len = offset_of(s, end);
    head->base = s->from;
    if (h1->saved != NULL) {
        if (save(h1, end) != AS_OK) {
            as__h1_refuse(h1, AS_E_NOMEM, AS_SLICE(""), 0);
            return AS_H1_GOT_ERROR;
        }
        head->base = s->bytes.data;
    }
    h1->offset = head->len;
    head->minor = h1->parser->llhttp.http_minor;
    head->method_id = h1->parser->llhttp.method;
    findings found = {0};
    as_err err = check_head(h1, head, &found);
    if (err != AS_OK) {
        return refuse_head(h1, head, err, found.at);
    }
    *result = head;
    return AS_H1_GOT_ALL;
}

/* The next bytes are given to llhttp as far as the limits go: each limit bites at the very byte
 * behind it, however the bytes were cut into reads. */
static size_t allowed(const as_h1 *h1, const struct as_h1_scratch *s, const char *p) {
    const as_limits *limits = h1->env->limits;
    uint32_t limit = limits->limit_request_head, used = offset_of(s, p);
    if (!s->line_done && limits->limit_request_line < limit) {
        limit = limits->limit_request_line;
    }
    return used < limit ? limit - used : 0;
}

as_h1_got as__h1_parse_head(as_h1 *h1, char **p, char *end, as_head **head) {
    struct as_h1_scratch *s = scratch_of(h1);
    s->from = *p;
    if (s->unknown_method) {
        return judge_method(h1, p, end);
    }
    while (*p < end) {
        size_t n = allowed(h1, s, *p), left = (size_t)(end - *p);
        if (n == 0) {
            as__h1_refuse(h1, s->line_done ? AS_E_HEAD_LARGE : AS_E_TARGET_LONG, AS_SLICE(""),
                          offset_of(s, *p));
            return AS_H1_GOT_ERROR;
        }
        n = n < left ? n : left;
        llhttp_errno_t code = llhttp_execute(&h1->parser->llhttp, *p, n);
        if (code == HPE_OK) {
            *p += n;
            continue;
        }
        char *stopped = *p + (llhttp_get_error_pos(&h1->parser->llhttp) - *p);
        *p = stopped;
        if (code == HPE_PAUSED) {
            return complete_head(h1, stopped, head);
        }
        if (code == HPE_INVALID_METHOD && h1->failure == AS_OK) {
            s->unknown_method = true;
            return judge_method(h1, p, end);
        }
        return refuse_parsed(h1, code, offset_of(s, stopped));
    }
    if (save(h1, end) != AS_OK) {
        as__h1_refuse(h1, AS_E_NOMEM, AS_SLICE(""), 0);
        return AS_H1_GOT_ERROR;
    }
    return AS_H1_GOT_PART;
}

/* --- parsing a body ------------------------------------------------------------------------- */

void as__h1_begin_body(as_h1 *h1, const as_head *head) {
    h1->body_seen = 0;
    h1->env->gathered = (as_slice){NULL, 0};
    if (head->body == AS_BODY_CHUNKED) {
        h1->state = AS_H1_AT_CHUNKS;
        h1->parser->slack = h1->env->limits->limit_request_head;
        h1->trailing = false;
        h1->parser->trailers = 0;
        h1->parser->trailer_bytes = 0;
        h1->parser->trailer_len = 0;
        llhttp_resume(&h1->parser->llhttp);
        return;
    }
    h1->body_left = head->body == AS_BODY_LENGTH ? head->content_length : 0;
    h1->state = h1->body_left > 0 ? AS_H1_AT_LENGTH : AS_H1_AT_END;
}

static as_h1_got parse_counted(as_h1 *h1, char **p, char *end) {
    uint64_t here = (uint64_t)(end - *p);
    size_t n = (size_t)(here < h1->body_left ? here : h1->body_left);
    h1->env->gathered = (as_slice){*p, n};
    h1->body_left -= n;
    h1->body_seen += n;
    *p += n;
    return h1->body_left == 0 ? AS_H1_GOT_ALL : AS_H1_GOT_PART;
}

/* Bytes that only frame are bounded by those of a head and a share of the data, so that neither
 * endless extensions nor endless zeros before a size keep a connection busy for nothing. */
static as_err check_slack(as_h1 *h1, size_t framing) {
    h1->parser->slack -= (int64_t)framing;
    return h1->parser->slack < 0 ? AS_E_CHUNK : AS_OK;
}

static as_h1_got parse_chunks(as_h1 *h1, char **p, char *end) {
    char *start = *p;
    llhttp_errno_t code = llhttp_execute(&h1->parser->llhttp, start, (size_t)(end - start));
    *p = code == HPE_OK ? end : start + (llhttp_get_error_pos(&h1->parser->llhttp) - start);
    size_t n = (size_t)(*p - start);
    if (code != HPE_OK && code != HPE_PAUSED) {
        return refuse_parsed(h1, code, h1->offset + n);
    }
    as_err err = check_slack(h1, n - h1->env->gathered.n);
    if (err != AS_OK) {
        as__h1_refuse(h1, err, AS_SLICE(""), h1->offset + n);
        return AS_H1_GOT_ERROR;
    }
    h1->offset += n;
    return code == HPE_PAUSED ? AS_H1_GOT_ALL : AS_H1_GOT_PART;
}

as_h1_got as__h1_parse_body(as_h1 *h1, char **p, char *end) {
    h1->env->gathered = (as_slice){NULL, 0};
    as_h1_got got =
        h1->state == AS_H1_AT_CHUNKS ? parse_chunks(h1, p, end) : parse_counted(h1, p, end);
    if (got == AS_H1_GOT_ALL) {
        h1->state = AS_H1_AT_END;
    }
    return got;
}

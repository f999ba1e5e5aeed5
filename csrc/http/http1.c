/* HTTP/1 requests: from bytes to exchanges.
 *
 * WHO ENFORCES WHAT. llhttp, strict, refuses: malformed request lines and versions, control bytes in
 * targets and values, space before a colon, line ends that are not CRLF, folded lines, malformed chunk
 * sizes, and Content-Length beside Transfer-Encoding. Ours: every limit; HTTP/0.9 and versions but 1.0 and
 * 1.1; the form of the target; the methods that are not served (CONNECT); the Host rules; a Content-Length
 * that is not one field of digits; any Transfer-Encoding but one `chunked` on HTTP/1.1; expectations;
 * white space around values; an Upgrade, which is ignored here; how much framing a chunked body may have.
 *
 * THE FLOW. as_h1_feed -> run: take() parses up to the end of a message or of the bytes; then what was
 * found is judged and dispatched. Nothing of the gateway runs on the parser's stack. An exchange that is
 * not done when its message is blocks the parser: what follows waits in `pending`. */
#include "http/http1.h"

#include <stdlib.h>

#include "http/h1_internal.h"
#include "http/target.h"

#define BLANK_MAX 64u           /* bytes of empty lines before a request; RFC 9112, 2.2 */
#define FIELDS_AT_FIRST 32u
#define OVERHEAD_PER_BYTE 16u   /* framing bytes that a chunked body may have for each of its own */

static as_h1_scratch *scratch_of(as_h1 *h1) {
    return h1->saved != NULL ? h1->saved : h1->env->scratch;
}

/* ---- the parser's callbacks: spans only ---- */

static as_h1 *h1_of_parser(llhttp_t *parser) {
    return parser->data;
}

static uint32_t offset_of(const as_h1_scratch *s, const char *at) {
    return s->before + (uint32_t)(at - s->chunk);
}

static int refuse_at(as_h1_scratch *s, as_err err, uint32_t offset) {
    s->error = err;
    s->error_off = offset;
    return HPE_USER;
}

static void extend(as_span *span, uint32_t off, size_t n) {
    if (span->len == 0) {
        span->off = off;
    }
    span->len = off + (uint32_t)n - span->off;
}

static int on_message_begin(llhttp_t *parser) {
    scratch_of(h1_of_parser(parser))->begun = true;
    return 0;
}

static int on_method(llhttp_t *parser, const char *at, size_t n) {
    as_h1_scratch *s = scratch_of(h1_of_parser(parser));
    extend(&s->head.method, offset_of(s, at), n);
    return 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = h1_of_parser(parser);
    as_h1_scratch *s = scratch_of(h1);
    extend(&s->head.target, offset_of(s, at), n);
    if (s->head.target.off + s->head.target.len - s->head.method.off >
        h1->env->limits->limit_request_line) {
        return refuse_at(s, AS_E_TARGET_LONG, s->head.target.off);
    }
    return 0;
}

/* A new row for a field line. */
static int add_field(as_h1 *h1, as_h1_scratch *s, uint32_t off) {
    if (s->head.nfields >= h1->env->limits->limit_request_fields &&
        h1->env->limits->limit_request_fields != 0) {
        return refuse_at(s, AS_E_FIELDS_MANY, off);
    }
    if (s->head.nfields == s->capacity) {
        uint32_t capacity = s->capacity * 2;
        as_field *fields = realloc(s->head.fields, capacity * sizeof(*fields));
        if (fields == NULL) {
            return refuse_at(s, AS_E_NOMEM, off);
        }
        s->head.fields = fields;
        s->capacity = capacity;
    }
    s->head.fields[s->head.nfields++] = (as_field){.name_off = off};
    s->in_value = false;
    return 0;
}

/* Trailers are read and dropped (RFC 9110, 6.5.1), but are no way around the limits of a head. */
static int count_trailer(as_h1 *h1, size_t n) {
    const as_limits *limits = h1->env->limits;
    h1->trailer_bytes += (uint32_t)n;
    if (h1->trailer_bytes > limits->limit_request_head) {
        return refuse_at(scratch_of(h1), AS_E_HEAD_LARGE, 0);
    }
    if (limits->limit_request_fields != 0 && h1->trailers > limits->limit_request_fields) {
        return refuse_at(scratch_of(h1), AS_E_FIELDS_MANY, 0);
    }
    return 0;
}

/* The beginning of a trailer's name: long enough to know the forbidden ones. */
static void remember_trailer(as_h1 *h1, const char *at, size_t n) {
    size_t room = sizeof(h1->trailer_name) - h1->trailer_name_len;
    size_t take = n < room ? n : room;
    memcpy(h1->trailer_name + h1->trailer_name_len, at, take);
    h1->trailer_name_len += (uint8_t)take;
}

static int on_header_field(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = h1_of_parser(parser);
    if (h1->in_body) {
        remember_trailer(h1, at, n);
        return count_trailer(h1, n);
    }
    as_h1_scratch *s = scratch_of(h1);
    uint32_t off = offset_of(s, at);
    if (s->head.nfields == 0 || s->in_value) {
        int stop = add_field(h1, s, off);
        if (stop != 0) {
            return stop;
        }
    }
    as_field *field = &s->head.fields[s->head.nfields - 1];
    uint32_t len = off + (uint32_t)n - field->name_off;
    if (len > UINT16_MAX) {
        return refuse_at(s, AS_E_HEAD_LARGE, off);
    }
    field->name_len = (uint16_t)len;
    return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = h1_of_parser(parser);
    if (h1->in_body) {
        return count_trailer(h1, n);
    }
    if (n == 0) {
        return 0; /* an empty value's place is not where the parser says */
    }
    as_h1_scratch *s = scratch_of(h1);
    as_field *field = &s->head.fields[s->head.nfields - 1];
    uint32_t off = offset_of(s, at);
    if (field->value_off == 0) {
        field->value_off = off;
    }
    field->value_len = off + (uint32_t)n - field->value_off;
    s->in_value = true;
    return 0;
}

static int on_header_value_complete(llhttp_t *parser) {
    as_h1 *h1 = h1_of_parser(parser);
    if (h1->in_body) {
        as_slice name = {h1->trailer_name, h1->trailer_name_len};
        h1->trailers++;
        h1->trailer_name_len = 0;
        if (as_is_forbidden_trailer(name)) {
            return refuse_at(scratch_of(h1), AS_E_TRAILER, 0);
        }
    }
    else {
        scratch_of(h1)->in_value = true; /* also of an empty value, for which nothing was called */
    }
    return 0;
}

static int on_headers_complete(llhttp_t *parser) {
    as_h1 *h1 = h1_of_parser(parser);
    as_h1_scratch *s = scratch_of(h1);
    parser->upgrade = 0; /* not for us: the message is an ordinary one; RFC 9110, 7.8 */
    h1->in_body = true;
    s->head_done = true;
    return 0;
}

/* A chunk is refused by the size that it announces. */
static int on_chunk_header(llhttp_t *parser) {
    as_h1 *h1 = h1_of_parser(parser);
    uint64_t most = h1->env->limits->limit_request_body;
    uint64_t have = (h1->ex != NULL ? h1->ex->received : 0) + h1->env->scratch->body_len;
    if (most != 0 && (parser->content_length > most || have > most - parser->content_length)) {
        return refuse_at(scratch_of(h1), AS_E_BODY_LARGE, 0);
    }
    return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t n) {
    as_h1 *h1 = h1_of_parser(parser);
    as_h1_scratch *s = h1->env->scratch; /* behind a head, this read's pieces belong to the loop */
    if (s->body == NULL) {
        s->body = (char *)(uintptr_t)at;
    }
    else if (s->body + s->body_len != at) {
        memmove(s->body + s->body_len, at, n); /* over chunk lines that are done with */
    }
    s->body_len += n;
    return 0;
}

static int on_message_complete(llhttp_t *parser) {
    h1_of_parser(parser)->env->scratch->message_done = true;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_message_begin = on_message_begin,
    .on_method = on_method,
    .on_url = on_url,
    .on_header_field = on_header_field,
    .on_header_value = on_header_value,
    .on_header_value_complete = on_header_value_complete,
    .on_headers_complete = on_headers_complete,
    .on_chunk_header = on_chunk_header,
    .on_body = on_body,
    .on_message_complete = on_message_complete,
};

/* ---- judging a head ---- */

static void trim_value(const char *base, as_field *field) {
    as_slice value = as_trim((as_slice){base + field->value_off, field->value_len});
    field->value_off = (uint32_t)(value.p - base);
    field->value_len = (uint32_t)value.n;
}

/* RFC 9110, 8.6 and RFC 9112, 6.3: one field of digits; what lists and repeats is refused. */
static as_err judge_length(as_h1_scratch *s, as_slice value) {
    uint64_t length;
    if (s->lengths++ > 0 || !as_parse_length(value, &length)) {
        return AS_E_LENGTH;
    }
    s->head.content_length = length;
    s->head.body = length > 0 ? AS_BODY_LENGTH : AS_BODY_NONE;
    return AS_OK;
}

static as_slice next_element(as_slice *list);

/* Anything but `chunked` alone is refused; what for: a coding that is not implemented in front of a final
 * `chunked`, or alone, is 501, the rest is no framing at all. */
static as_err judge_codings(as_slice list) {
    unsigned elements = 0, chunked = 0;
    bool last_is_chunked = false;
    while (list.n > 0) {
        as_slice element = next_element(&list);
        if (!as_is_token(element)) {
            return AS_E_CODING;
        }
        last_is_chunked = as_slice_ieq(element, AS_SLICE("chunked"));
        chunked += last_is_chunked;
        elements++;
    }
    bool unknown = (elements == 1 && chunked == 0) || (chunked == 1 && last_is_chunked);
    return unknown ? AS_E_CODING_UNKNOWN : AS_E_CODING;
}

/* RFC 9112, 6.1: the one coding that is implemented, once, and not on HTTP/1.0. */
static as_err judge_coding(as_h1_scratch *s, as_slice value) {
    if (s->codings++ > 0) {
        return AS_E_CODING;
    }
    if (as_slice_ieq(value, AS_SLICE("chunked"))) {
        s->head.body = AS_BODY_CHUNKED;
        return AS_OK;
    }
    return judge_codings(value);
}

static void read_connection_option(as_h1_scratch *s, as_slice option) {
    if (as_slice_ieq(option, AS_SLICE("close"))) {
        s->says_close = true;
    }
    else if (as_slice_ieq(option, AS_SLICE("keep-alive"))) {
        s->says_keep_alive = true;
    }
    else if (as_slice_ieq(option, AS_SLICE("upgrade"))) {
        s->says_upgrade = true;
    }
}

/* RFC 9110, 5.6.1: the next element of a comma-separated list, without white space; it leaves the list. */
static as_slice next_element(as_slice *list) {
    const char *comma = memchr(list->p, ',', list->n);
    size_t n = comma != NULL ? (size_t)(comma - list->p) : list->n;
    size_t step = comma != NULL ? n + 1 : n;
    as_slice element = as_trim((as_slice){list->p, n});
    list->p += step;
    list->n -= step;
    return element;
}

static void read_connection(as_h1_scratch *s, as_slice list) {
    while (list.n > 0) {
        read_connection_option(s, next_element(&list));
    }
}

static as_err judge_field(as_h1_scratch *s, uint32_t index) {
    as_head *head = &s->head;
    as_field *field = &head->fields[index];
    trim_value(head->base, field);
    as_slice name = as_field_name(head, field), value = as_field_value(head, field);
    /* The parser has looked at each byte; what it may have joined is a folded line. */
    if (memchr(value.p, '\r', value.n) != NULL) {
        return AS_E_FIELD;
    }
    field->name_id = (uint16_t)as_name_find(name.p, name.n);
    switch (field->name_id) {
    case AS_NAME_HOST:
        if (s->host != 0) {
            return AS_E_HOST_MANY;
        }
        s->host = index + 1;
        return as_host_valid(value) ? AS_OK : AS_E_HOST;
    case AS_NAME_CONTENT_LENGTH:
        return judge_length(s, value);
    case AS_NAME_TRANSFER_ENCODING:
        return judge_coding(s, value);
    case AS_NAME_CONNECTION:
        read_connection(s, value);
        return AS_OK;
    case AS_NAME_UPGRADE:
        s->has_upgrade = true;
        return AS_OK;
    case AS_NAME_EXPECT:
        /* RFC 9110, 10.1.1: none but this is known, and HTTP/1.0 cannot have meant it */
        if (!as_slice_ieq(value, AS_SLICE("100-continue"))) {
            return AS_E_EXPECT;
        }
        head->expect_continue = true;
        return AS_OK;
    default:
        return AS_OK;
    }
}

/* What the fields say together. */
static as_err judge_framing(const as_h1 *h1, as_h1_scratch *s) {
    as_head *head = &s->head;
    if (s->codings > 0 && s->lengths > 0) {
        return AS_E_LENGTH_AND_CODING;
    }
    if (s->codings > 0 && head->minor == 0) {
        return AS_E_CODING;
    }
    if (s->host == 0 && head->minor >= 1) {
        return AS_E_HOST_MISSING;
    }
    if (head->authority.len > 0 && s->host != 0) {
        /* RFC 9112, 3.2.2: an absolute-form target's authority replaces the Host field's value */
        head->fields[s->host - 1].value_off = head->authority.off;
        head->fields[s->host - 1].value_len = head->authority.len;
    }
    uint64_t most = h1->env->limits->limit_request_body;
    if (most != 0 && head->body == AS_BODY_LENGTH && head->content_length > most) {
        return AS_E_BODY_LARGE;
    }
    head->keep_alive = !s->says_close && (head->minor >= 1 || s->says_keep_alive);
    head->expect_continue = head->expect_continue && head->minor >= 1 && head->body != AS_BODY_NONE;
    head->upgrade = s->says_upgrade && s->has_upgrade;
    return AS_OK;
}

/* A method that HTTP has (RFC 9110, 16.1): llhttp's table goes on with RTSP's. CONNECT is not served. */
static bool is_served(unsigned method) {
    return method != HTTP_CONNECT && (method < HTTP_PRI || method == HTTP_QUERY);
}

/* Empty lines before a request are CRLF, whole; RFC 9112, 2.2. `at`: bytes of them before. */
static bool are_blank_lines(const char *p, size_t n, size_t at) {
    for (size_t i = 0; i < n; i++) {
        if (p[i] != ((at + i) % 2 == 0 ? '\r' : '\n')) {
            return false;
        }
    }
    return true;
}

/* RFC 9112, 3: method SP target SP version CRLF, byte for byte. */
static as_err judge_line(const as_h1 *h1, as_h1_scratch *s) {
    as_head *head = &s->head;
    uint32_t end = head->target.off + head->target.len;
    if (!are_blank_lines(head->base, head->method.off, h1->blank) ||
        head->target.off != head->method.off + head->method.len + 1 || s->size < end + 11 ||
        memcmp(head->base + end, " HTTP/", 6) != 0 || memcmp(head->base + end + 9, "\r\n", 2) != 0) {
        return AS_E_REQUEST_LINE;
    }
    if (h1->parser.http_major != 1 || h1->parser.http_minor > 1) {
        return AS_E_VERSION;
    }
    if (end + 9 - head->method.off > h1->env->limits->limit_request_line) {
        return AS_E_TARGET_LONG;
    }
    head->minor = h1->parser.http_minor;
    head->method_id = h1->parser.method;
    head->is_head = h1->parser.method == HTTP_HEAD;
    head->len = end + 11;
    return is_served(h1->parser.method) ? as_target_split(head) : AS_E_METHOD;
}

/* RFC 9112, 5: every field line begins where the one before ended, and ends with CRLF. */
static as_err judge_field_line(as_h1_scratch *s, const as_field *field) {
    as_head *head = &s->head;
    if (field->name_off != head->len || field->name_len == 0) {
        return AS_E_FIELD;
    }
    uint32_t at = field->name_off + field->name_len + 1;
    if (field->value_off != 0) {
        at = field->value_off + field->value_len;
    }
    while (at < s->size && (head->base[at] == ' ' || head->base[at] == '\t')) {
        at++;
    }
    if (s->size < at + 2 || memcmp(head->base + at, "\r\n", 2) != 0) {
        return AS_E_FIELD;
    }
    head->len = at + 2;
    return AS_OK;
}

/* Everything that is ours to enforce; RFC 9112, 2 to 6. */
static as_err judge_head(as_h1 *h1, as_h1_scratch *s) {
    s->error_off = s->head.target.off;
    as_err err = judge_line(h1, s);
    for (uint32_t i = 0; err == AS_OK && i < s->head.nfields; i++) {
        s->error_off = s->head.fields[i].name_off;
        err = judge_field_line(s, &s->head.fields[i]);
        if (err == AS_OK) {
            err = judge_field(s, i);
        }
    }
    if (err != AS_OK) {
        return err;
    }
    s->error_off = s->head.len;
    if (s->size < s->head.len + 2 || memcmp(s->head.base + s->head.len, "\r\n", 2) != 0) {
        return AS_E_FIELD;
    }
    s->head.len += 2;
    return judge_framing(h1, s);
}

/* ---- scratch heads ---- */

static void reset_scratch(as_h1_scratch *s) {
    as_field *fields = s->head.fields;
    uint32_t capacity = s->capacity;
    *s = (as_h1_scratch){.head = {.fields = fields}, .capacity = capacity};
}

static as_h1_scratch *scratch_new(void) {
    as_h1_scratch *s = calloc(1, sizeof(*s));
    if (s != NULL) {
        s->head.fields = malloc(FIELDS_AT_FIRST * sizeof(as_field));
        s->capacity = FIELDS_AT_FIRST;
        if (s->head.fields == NULL) {
            free(s);
            s = NULL;
        }
    }
    return s;
}

static void scratch_free(as_h1_scratch *s) {
    if (s != NULL) {
        as_buf_fini(&s->bytes, NULL);
        free(s->head.fields);
        free(s);
    }
}

as_err as_h1_env_init(as_h1_env *env) {
    env->scratch = scratch_new();
    return env->scratch != NULL ? AS_OK : AS_E_NOMEM;
}

void as_h1_env_fini(as_h1_env *env) {
    scratch_free(env->scratch);
    env->scratch = NULL;
    while (env->free_exchanges != NULL) {
        as_exchange *ex = env->free_exchanges;
        env->free_exchanges = ex->next;
        free(ex);
    }
}

/* The bytes of this read belong to a head that is not complete, or was not when it began. */
static as_err save_head(as_h1 *h1, size_t n) {
    as_h1_scratch *s = scratch_of(h1);
    if (h1->saved == NULL) {
        as_h1_scratch *fresh = scratch_new();
        if (fresh == NULL) {
            return AS_E_NOMEM;
        }
        /* The loop's goes to the connection with its fields, the fresh one takes its place. */
        h1->saved = s;
        h1->env->scratch = fresh;
    }
    as_err err = as_buf_append(&s->bytes, NULL, s->chunk, n);
    s->before = (uint32_t)s->bytes.len;
    return err;
}

static void drop_saved(as_h1 *h1) {
    scratch_free(h1->saved);
    h1->saved = NULL;
}

/* ---- exchanges ---- */

static as_exchange *exchange_new(as_h1 *h1, as_head *head) {
    as_h1_env *env = h1->env;
    as_exchange *ex = env->free_exchanges;
    if (ex != NULL) {
        env->free_exchanges = ex->next;
    }
    else if ((ex = malloc(sizeof(*ex))) == NULL) {
        return NULL;
    }
    /* Everything but the copy of the connection's data, which is written when it is needed. */
    ex->ops = &as__h1_exchange_ops;
    ex->head = head;
    ex->info = h1->info;
    ex->gateway = NULL;
    ex->proto = h1;
    ex->body_left = UINT64_MAX;
    ex->sent = ex->received = 0;
    ex->status = 0;
    ex->req = AS_REQ_BODY;
    ex->res = AS_RES_START;
    ex->aborted = ex->no_body = ex->chunked = ex->close = ex->paused = false;
    ex->wants_continue = head->expect_continue;
    ex->trailers = ex->released = false;
    ex->seen = 0;
    ex->next = NULL;
    return ex;
}

/* The protocol's share of an exchange ends; the gateway may still hold it. */
static void let_go(as_h1 *h1, as_exchange *ex) {
    h1->ex = NULL;
    h1->env->requests--;
    h1->body_paused = false;
    ex->proto = NULL;
    if (ex->released) {
        as_head_unref(ex->head);
        ex->next = h1->env->free_exchanges;
        h1->env->free_exchanges = ex;
        return;
    }
    ex->detached = *ex->info;
    ex->detached.gateway = NULL;
    ex->detached.server = "";
    ex->info = &ex->detached;
    if (ex->head->refs == 0) {
        ex->head = as_head_keep(ex->head); /* NULL where there is no memory: the log goes without */
    }
}

void as__h1_let_go(as_h1 *h1) {
    as_exchange *ex = h1->ex;
    if (ex->req == AS_REQ_BODY) {
        uint64_t left = ex->head->body == AS_BODY_LENGTH ? ex->head->content_length - ex->received : 0;
        h1->discarding = true;
        h1->discard = h1->env->limits->limit_body_discard;
        if (left > h1->discard || ex->wants_continue) {
            ex->close = true;
        }
    }
    if (ex->close || h1->env->draining) {
        h1->close = true;
        h1->linger = true; /* RFC 9112, 9.6: more may be under way, and must not destroy the answer */
    }
    let_go(h1, ex);
}

void as__h1_kill(as_h1 *h1, as_err why) {
    h1->phase = AS_H1_DEAD;
    h1->close = true;
    h1->error = why;
    if (h1->ex != NULL) {
        let_go(h1, h1->ex);
    }
}

/* Tells the gateway that its exchange is broken, and lets go of it. */
static void abort_exchange(as_h1 *h1, as_err why) {
    as_exchange *ex = h1->ex;
    if (ex == NULL) {
        return;
    }
    bool released = ex->released;
    ex->aborted = true;
    let_go(h1, ex);
    if (!released) {
        h1->env->handlers->on_abort(h1->env->ctx, ex, why);
    }
}

/* A handler has run: what became of the exchange? */
static void after_handler(as_h1 *h1, as_exchange *ex) {
    if (h1->ex != ex || h1->phase == AS_H1_DEAD) {
        return;
    }
    if (ex->res == AS_RES_DONE) {
        as__h1_let_go(h1);
    }
}

/* ---- refusing ---- */

/* The request, as far as it came, is answered with an error, and the connection ends. */
static void refuse(as_h1 *h1, as_err err, as_slice detail, uint64_t offset) {
    as_exchange *ex = h1->ex;
    bool answer = as_err_status(err) != 0 && !h1->discarding;
    bool is_head = scratch_of(h1)->head.is_head;
    h1->close = true;
    h1->linger = true;
    h1->error = err;
    if (ex != NULL) {
        is_head = ex->head->is_head;
        answer = answer && ex->res != AS_RES_BODY && ex->res != AS_RES_DONE;
        if (ex->res == AS_RES_HEAD) {
            as_exchange_head_abandon(ex);
        }
        if (!answer) {
            h1->phase = AS_H1_DEAD; /* half an answer is out */
        }
        abort_exchange(h1, err);
    }
    if (h1->env->handlers->on_refused != NULL) {
        h1->env->handlers->on_refused(h1->env->ctx, h1->info, err, detail, offset);
    }
    if (answer) {
        as__h1_write_error(h1, err, is_head);
    }
}

static bool in_request_line(const as_h1_scratch *s) {
    return s->head.nfields == 0;
}

/* The bytes of the head so far, `end` being the end of the present read. */
static as_slice bytes_so_far(const as_h1_scratch *s, const char *end) {
    if (s->before == 0) {
        return (as_slice){s->chunk, (size_t)(end - s->chunk)};
    }
    return (as_slice){s->bytes.data, s->bytes.len};
}

/* " HTTP/7.3" as far as it is there. */
static bool looks_like_version(as_slice s) {
    static const char form[] = " HTTP/0.0\r\n";
    for (size_t i = 0; i < s.n && i < sizeof(form) - 1; i++) {
        bool ok = form[i] == '0' ? s.p[i] >= '0' && s.p[i] <= '9' : s.p[i] == form[i];
        if (!ok) {
            return false;
        }
    }
    return true;
}

/* A line of the right form has a method or a version that is not known; else it is no request line. */
static as_err judge_bad_line(as_slice line, as_err verdict) {
    while (line.n > 0 && (line.p[0] == '\r' || line.p[0] == '\n')) {
        line.p++;
        line.n--;
    }
    const char *space = memchr(line.p, ' ', line.n);
    size_t n = space != NULL ? (size_t)(space - line.p) : line.n;
    if (space == NULL || !as_is_token((as_slice){line.p, n})) {
        return AS_E_REQUEST_LINE;
    }
    const char *target = space + 1;
    const char *end = memchr(target, ' ', line.n - n - 1);
    if (end == NULL || end == target) {
        return AS_E_REQUEST_LINE;
    }
    return looks_like_version((as_slice){end, line.n - (size_t)(end - line.p)}) ? verdict
                                                                                 : AS_E_REQUEST_LINE;
}

/* llhttp's verdict in the words of our table. */
static as_err translate(as_h1 *h1, const as_h1_scratch *s, llhttp_errno_t code,
                        const char *end) {
    if (s->error != AS_OK) {
        return s->error; /* one of our own callbacks */
    }
    switch (code) {
    case HPE_INVALID_METHOD:
        return judge_bad_line(bytes_so_far(s, end), AS_E_METHOD);
    case HPE_INVALID_URL:
        return AS_E_TARGET;
    case HPE_INVALID_VERSION:
        return judge_bad_line(bytes_so_far(s, end), AS_E_VERSION);
    case HPE_PAUSED_H2_UPGRADE:
        return AS_E_VERSION;
    case HPE_INVALID_CONTENT_LENGTH:
        return AS_E_LENGTH;
    case HPE_UNEXPECTED_CONTENT_LENGTH:
        return s->lengths > 0 || h1->parser.flags & F_TRANSFER_ENCODING ? AS_E_LENGTH_AND_CODING
                                                                         : AS_E_LENGTH;
    case HPE_INVALID_TRANSFER_ENCODING:
        return AS_E_CODING;
    case HPE_INVALID_CHUNK_SIZE:
        return AS_E_CHUNK;
    case HPE_INVALID_HEADER_TOKEN:
        return h1->in_body ? AS_E_TRAILER : AS_E_FIELD;
    default:
        if (h1->in_body) {
            return AS_E_CHUNK;
        }
        if (!in_request_line(s)) {
            return AS_E_FIELD;
        }
        return is_served(h1->parser.method) ? AS_E_REQUEST_LINE
                                            : judge_bad_line(bytes_so_far(s, end), AS_E_METHOD);
    }
}

/* ---- dispatching ---- */

/* The head is complete: an exchange is made of it and given to the gateway. */
static void dispatch(as_h1 *h1, as_slice body, bool message_done) {
    as_h1_env *env = h1->env;
    as_h1_scratch *s = scratch_of(h1);
    uint32_t most = env->limits->limit_concurrency;
    as_exchange *ex = most == 0 || env->requests < most ? exchange_new(h1, &s->head) : NULL;
    if (ex == NULL) {
        refuse(h1, most != 0 && env->requests >= most ? AS_E_OVERLOADED : AS_E_NOMEM,
               (as_slice){"", 0}, 0);
        return;
    }
    h1->ex = ex;
    env->requests++;
    env->requests_total++;
    ex->received = body.n;
    ex->req = message_done ? AS_REQ_DONE : AS_REQ_BODY;
    ex->wants_continue = ex->wants_continue && body.n == 0 && !message_done;
    env->handlers->on_request(env->ctx, ex, body);
    after_handler(h1, ex);
    if (h1->ex != ex) {
        return;
    }
    ex->head = as_head_keep(ex->head);
    if (ex->head == NULL) {
        ex->head = &s->head; /* until on_abort has looked at it */
        abort_exchange(h1, AS_E_NOMEM);
        as__h1_kill(h1, AS_E_NOMEM);
        return;
    }
    if (h1->eof && ex->req == AS_REQ_DONE) {
        env->handlers->on_eof(env->ctx, ex);
        after_handler(h1, ex);
    }
}

/* Body bytes for the exchange that is with the gateway. */
static void deliver(as_h1 *h1, as_slice body, bool message_done) {
    const as_handlers *handlers = h1->env->handlers;
    as_exchange *ex = h1->ex;
    ex->received += body.n;
    if (body.n > 0) {
        ex->wants_continue = false; /* a client that does not wait needs no leave */
        handlers->on_body(h1->env->ctx, ex, body);
        after_handler(h1, ex);
    }
    if (message_done && h1->ex == ex) {
        ex->req = AS_REQ_DONE;
        handlers->on_end(h1->env->ctx, ex);
        after_handler(h1, ex);
    }
}

/* Body bytes of a request that is answered already: dropped, within bounds. */
static void discard(as_h1 *h1, size_t n) {
    if (n > h1->discard) {
        h1->close = true;
        h1->linger = true;
    }
    else {
        h1->discard -= (uint32_t)n;
    }
}

/* The message is complete: the next one may begin. */
static void end_message(as_h1 *h1) {
    h1->in_body = false;
    h1->discarding = false;
    h1->overhead = 0;
    h1->trailers = 0;
    h1->trailer_bytes = 0;
}

/* ---- the flow ---- */

/* Nothing may be parsed now. */
static bool is_blocked(as_h1 *h1) {
    if (h1->close || h1->body_paused || (h1->ex != NULL && h1->ex->req == AS_REQ_DONE)) {
        return true;
    }
    /* A client that does not read its answers gets no more of them made. */
    if (h1->ex == NULL && h1->out.size > h1->env->limits->limit_write_buffer) {
        (void)h1->env->flush(h1);
        if (h1->out.size > h1->env->limits->limit_write_buffer) {
            h1->above_high = true;
            return true;
        }
    }
    return false;
}

/* `body` bytes of `size` on the wire, behind `before` of earlier reads, against the limits. */
static as_err judge_body(as_h1 *h1, uint64_t before, size_t body, size_t size) {
    const as_limits *limits = h1->env->limits;
    uint64_t received = before + body;
    if (limits->limit_request_body != 0 && received > limits->limit_request_body) {
        return AS_E_BODY_LARGE;
    }
    h1->overhead += size - body;
    if (h1->overhead > limits->limit_request_head + OVERHEAD_PER_BYTE * received) {
        return AS_E_CHUNK;
    }
    return AS_OK;
}

/* A head is complete: its bytes in one place, judged. */
static as_err finish_head(as_h1 *h1, as_h1_scratch *s, size_t consumed) {
    if (h1->saved != NULL) {
        as_err err = save_head(h1, consumed);
        if (err != AS_OK) {
            return err;
        }
        s->head.base = s->bytes.data;
        s->size = (uint32_t)s->bytes.len;
    }
    else {
        s->head.base = s->chunk;
        s->size = (uint32_t)consumed;
    }
    as_err err = judge_head(h1, s);
    uint32_t most = h1->env->limits->limit_request_head;
    if (s->head.len > most) {
        s->error_off = most;
        return AS_E_HEAD_LARGE;
    }
    return err;
}


/* Letters so far, or letters and a space: this may become a line with a method that is not known. */
static bool begins_like_request(as_slice s) {
    while (s.n > 0 && (s.p[0] == '\r' || s.p[0] == '\n')) {
        s.p++;
        s.n--;
    }
    const char *space = memchr(s.p, ' ', s.n);
    return as_is_token((as_slice){s.p, space != NULL ? (size_t)(space - s.p) : s.n});
}

/* Whether what is wrong is in a request line whose end is not here yet: it is judged as a whole. */
static bool waits_for_line(as_h1 *h1, as_h1_scratch *s, const char *p, size_t n) {
    if (h1->in_body || !in_request_line(s) || s->error != AS_OK || memchr(p, '\n', n) != NULL ||
        (uint64_t)s->before + n > h1->env->limits->limit_request_line) {
        return false;
    }
    if (s->before == 0 && !begins_like_request((as_slice){p, n})) {
        return false;
    }
    return save_head(h1, n) == AS_OK;
}

static void refuse_parse(as_h1 *h1, as_h1_scratch *s, const char *p, size_t n) {
    llhttp_errno_t code = llhttp_get_errno(&h1->parser);
    if (waits_for_line(h1, s, p, n)) {
        return;
    }
    bool at_end = s->head_done; /* of a head: what our rules say of that is more to the point */
    if (!at_end && h1->saved != NULL && save_head(h1, n) != AS_OK) {
        code = HPE_INTERNAL;
    }
    as_err err = at_end ? finish_head(h1, s, n) : AS_OK;
    uint64_t offset = s->error_off;
    const char *reason = NULL;
    if (err == AS_OK) {
        const char *at = llhttp_get_error_pos(&h1->parser);
        err = translate(h1, s, code, p + n);
        reason = s->error == AS_OK ? llhttp_get_error_reason(&h1->parser) : NULL;
        if (s->error == AS_OK && at != NULL && at >= p && at <= p + n) {
            offset = (h1->in_body ? 0 : s->before) + (uint64_t)(at - p);
        }
    }
    refuse(h1, err, reason != NULL ? (as_slice){reason, strlen(reason)} : (as_slice){"", 0}, offset);
}

static void clear_reading(as_h1 *h1) {
    as_h1_scratch *reading = h1->env->scratch;
    reading->body = NULL;
    reading->body_len = 0;
    reading->message_done = false;
    reading->error = AS_OK;
}

/* What take() found is acted upon. */
static void act(as_h1 *h1, as_h1_scratch *s, size_t consumed) {
    as_h1_scratch *reading = h1->env->scratch;
    bool message_done = reading->message_done, is_head = s->head_done;
    as_slice body = {reading->body, reading->body_len};
    clear_reading(h1);
    if (is_head) {
        as_err err = finish_head(h1, s, consumed);
        s->head_done = false;
        if (err == AS_OK) {
            err = judge_body(h1, 0, body.n, s->size - s->head.len);
        }
        if (err != AS_OK) {
            refuse(h1, err, (as_slice){"", 0}, s->error_off);
            return;
        }
        dispatch(h1, body, message_done);
        drop_saved(h1);
    }
    else {
        as_err err = judge_body(h1, h1->ex != NULL ? h1->ex->received : 0, body.n, consumed);
        if (err != AS_OK) {
            refuse(h1, err, (as_slice){"", 0}, consumed);
            return;
        }
        if (h1->ex != NULL) {
            deliver(h1, body, message_done);
        }
        else if (h1->discarding) {
            discard(h1, body.n);
        }
    }
    if (message_done) {
        end_message(h1);
    }
}

/* All of the read was taken without an event: part of a head, or empty lines before one. */
static void keep_part(as_h1 *h1, as_h1_scratch *s, size_t n) {
    if (!s->begun) {
        bool blank = are_blank_lines(s->chunk, n, h1->blank);
        h1->blank += (uint32_t)n;
        if (!blank || h1->blank > BLANK_MAX) {
            refuse(h1, AS_E_REQUEST_LINE, (as_slice){"", 0}, 0);
        }
        return;
    }
    const as_limits *limits = h1->env->limits;
    uint64_t size = (uint64_t)s->before + n;
    as_err err = AS_OK;
    if (s->head.nfields == 0 && size > (uint64_t)limits->limit_request_line + h1->blank + 16) {
        err = AS_E_TARGET_LONG;
    }
    else if (size > limits->limit_request_head) {
        err = AS_E_HEAD_LARGE;
    }
    if (err == AS_OK) {
        err = save_head(h1, n);
    }
    if (err != AS_OK) {
        refuse(h1, err, (as_slice){"", 0}, size);
    }
}

/* Parses up to the end of a message or of the bytes; how many were used. */
static size_t take(as_h1 *h1, char *p, size_t n) {
    as_h1_scratch *s = scratch_of(h1);
    if (!h1->in_body && h1->saved == NULL) {
        reset_scratch(s);
    }
    s->chunk = p;
    clear_reading(h1);
    llhttp_errno_t code = llhttp_execute(&h1->parser, p, n);
    size_t used = n;
    if (code == HPE_PAUSED) {
        used = (size_t)(llhttp_get_error_pos(&h1->parser) - p);
        llhttp_resume(&h1->parser);
    }
    else if (code != HPE_OK) {
        refuse_parse(h1, s, p, n);
        return n;
    }
    if (h1->in_body) {
        h1->blank = 0;
        act(h1, s, used);
    }
    else {
        keep_part(h1, s, used);
    }
    return used;
}

/* Parses and dispatches as far as it goes; the rest waits. */
static size_t run(as_h1 *h1, char *data, size_t n) {
    size_t at = 0;
    while (at < n && !is_blocked(h1)) {
        at += take(h1, data + at, n - at);
    }
    return h1->close ? n : at;
}

void as__h1_update(as_h1 *h1) {
    if (h1->phase == AS_H1_DEAD) {
        return;
    }
    const as_exchange *ex = h1->ex;
    if (ex != NULL) {
        bool waits = ex->req == AS_REQ_BODY && !h1->body_paused && !ex->wants_continue;
        h1->phase = waits ? AS_H1_BODY : AS_H1_BUSY;
    }
    else if (h1->close) {
        h1->phase = AS_H1_CLOSING;
    }
    else if (h1->discarding) {
        h1->phase = AS_H1_BODY;
    }
    else if (h1->pending.len > 0) {
        h1->phase = AS_H1_BUSY; /* waits for the client to read, or for its turn */
    }
    else {
        h1->phase = h1->saved != NULL ? AS_H1_HEAD : AS_H1_IDLE;
    }
}

/* The client has closed its side, and everything that it sent has been looked at. */
static void settle_eof(as_h1 *h1) {
    as_exchange *ex = h1->ex;
    if (h1->close || h1->pending.len > 0) {
        return;
    }
    if (ex != NULL && ex->req == AS_REQ_DONE) {
        return; /* it may still read; closes behind the answer */
    }
    if (ex != NULL || h1->saved != NULL) {
        refuse(h1, AS_E_TRUNCATED, (as_slice){"", 0}, h1->saved != NULL ? h1->saved->before : 0);
    }
    h1->close = true;
}

static void begin(as_h1 *h1) {
    h1->feeding = true;
}

static void finish(as_h1 *h1) {
    if (h1->eof) {
        settle_eof(h1);
    }
    h1->feeding = false;
    as__h1_update(h1);
}

/* ---- for the connection ---- */

void as_h1_init(as_h1 *h1, as_h1_env *env, as_conn_info *info) {
    *h1 = (as_h1){.env = env, .info = info};
    llhttp_init(&h1->parser, HTTP_REQUEST, &settings);
    h1->parser.data = h1;
    as_outq_init(&h1->out, env->pool);
}

void as_h1_fini(as_h1 *h1, as_err why) {
    h1->feeding = true; /* nothing is told to the connection any more */
    h1->close = true;
    h1->phase = AS_H1_DEAD;
    abort_exchange(h1, why);
    drop_saved(h1);
    as_buf_fini(&h1->pending, NULL);
    as_outq_fini(&h1->out);
}

void as_h1_feed(as_h1 *h1, char *data, size_t n) {
    if (h1->close) {
        h1->junk += (uint32_t)n;
        return;
    }
    begin(h1);
    size_t used = h1->pending.len == 0 ? run(h1, data, n) : 0;
    if (used < n && as_buf_append(&h1->pending, NULL, data + used, n - used) != AS_OK) {
        refuse(h1, AS_E_NOMEM, (as_slice){"", 0}, 0);
    }
    finish(h1);
}

/* Goes on with what waited. */
static void run_pending(as_h1 *h1) {
    as_buf bytes = h1->pending;
    h1->pending = (as_buf){NULL, 0, 0};
    size_t used = run(h1, bytes.data, bytes.len);
    if (used == bytes.len) {
        as_buf_fini(&bytes, NULL);
        return;
    }
    as_buf_consume(&bytes, used);
    h1->pending = bytes;
}

void as_h1_resume(as_h1 *h1) {
    if (h1->phase == AS_H1_DEAD) {
        return;
    }
    begin(h1);
    if (h1->above_high && h1->out.size <= h1->env->limits->limit_write_buffer / 4) {
        h1->above_high = false;
        as_exchange *ex = h1->ex;
        if (ex != NULL) {
            h1->env->handlers->on_drain(h1->env->ctx, ex);
            after_handler(h1, ex);
        }
    }
    if (h1->pending.len > 0 && !h1->close) {
        run_pending(h1);
    }
    finish(h1);
}

void as_h1_eof(as_h1 *h1) {
    if (h1->eof) {
        return;
    }
    h1->eof = true;
    begin(h1);
    as_exchange *ex = h1->ex;
    if (ex != NULL && ex->req == AS_REQ_DONE) {
        h1->env->handlers->on_eof(h1->env->ctx, ex);
        after_handler(h1, ex);
    }
    finish(h1);
}

void as_h1_timeout(as_h1 *h1) {
    begin(h1);
    switch (as_h1_get_phase(h1)) {
    case AS_H1_HEAD:
        refuse(h1, AS_E_TIMEOUT_HEAD, (as_slice){"", 0}, h1->saved != NULL ? h1->saved->before : 0);
        break;
    case AS_H1_BODY:
        if (h1->ex != NULL) {
            refuse(h1, AS_E_TIMEOUT_BODY, (as_slice){"", 0}, h1->ex->received);
        }
        h1->close = true;
        break;
    case AS_H1_IDLE:
        h1->close = true;
        break;
    default:
        break;
    }
    finish(h1);
}

void as_h1_drain(as_h1 *h1) {
    if (h1->ex == NULL && h1->saved == NULL && h1->pending.len == 0 && !h1->discarding) {
        h1->close = true;
    }
    as__h1_update(h1);
}

bool as_h1_wants_read(const as_h1 *h1) {
    return !h1->eof && !h1->body_paused && h1->phase < AS_H1_CLOSING &&
           h1->pending.len + h1->junk < h1->env->limits->limit_pipeline;
}

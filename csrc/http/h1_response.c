/* The downward calls of an exchange over HTTP/1: what the gateway says becomes bytes in the output queue.
 *
 * The bytes of an open head are `held` at the queue's end until the first body decides its framing:
 * a known length, chunks (HTTP/1.1), or the connection's end (HTTP/1.0). RFC 9112, 6. */
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "http/h1_internal.h"

static as_h1 *h1_of(const as_exchange *ex) {
    return ex->proto;
}

/* What every call needs: somebody to write to. */
static as_err check(const as_exchange *ex) {
    if (ex->aborted) {
        return AS_E_CLOSED;
    }
    return ex->proto != NULL ? AS_OK : AS_E_RESPONSE_STATE;
}

/* From outside of the connection's own events, it must be told that there is something to do. */
static void tell(as_h1 *h1) {
    if (!h1->feeding) {
        h1->env->notify(h1);
    }
}

/* ---- bytes of an open head ---- */

static char *put(char *at, as_slice s) {
    memcpy(at, s.p, s.n);
    return at + s.n;
}

static char *put_number(char *at, uint64_t value) {
    char digits[20];
    int n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (n > 0) {
        *at++ = digits[--n];
    }
    return at;
}

static void hold(as_outq *q, size_t n) {
    q->buf.len += n;
    q->held += n;
}

static as_err head_begin(as_exchange *ex, unsigned status, as_slice reason) {
    as_err err = check(ex);
    if (err != AS_OK) {
        return err;
    }
    if (ex->res != AS_RES_START) {
        return AS_E_RESPONSE_STATE;
    }
    if (status < 200 || status > 999) {
        return AS_E_RESPONSE_STATUS;
    }
    if (reason.n == 0) {
        reason = as_status_reason(status);
    }
    else if (!as_is_field_value(reason)) {
        return AS_E_RESPONSE_VALUE;
    }
    as_outq *q = &h1_of(ex)->out;
    char *start, *at;
    err = as_outq_reserve(q, 16 + reason.n, &start);
    if (err != AS_OK) {
        return err;
    }
    at = put(start, AS_SLICE("HTTP/1.1 "));
    at = put_number(at, status);
    *at++ = ' ';
    at = put(at, reason);
    at = put(at, AS_SLICE("\r\n"));
    hold(q, (size_t)(at - start));
    ex->status = (uint16_t)status;
    ex->res = AS_RES_HEAD;
    ex->seen = 0;
    ex->body_left = UINT64_MAX;
    ex->no_body = ex->head->is_head || status == 204 || status == 304;
    return AS_OK;
}

static void head_abandon(as_exchange *ex) {
    if (ex->res != AS_RES_HEAD || check(ex) != AS_OK) {
        return;
    }
    as_outq *q = &h1_of(ex)->out;
    q->buf.len -= q->held;
    q->held = 0;
    if (q->buf.len == q->buf_off) {
        as_buf_fini(&q->buf, q->pool);
        q->buf_off = 0;
    }
    ex->res = AS_RES_START;
    ex->status = 0;
    ex->trailers = false;
}

/* ---- fields ---- */

/* Whether a comma-separated list has the token; RFC 9110, 5.6.1. */
static bool list_has(as_slice list, as_slice token) {
    while (list.n > 0) {
        const char *comma = memchr(list.p, ',', list.n);
        size_t n = comma != NULL ? (size_t)(comma - list.p) : list.n;
        if (as_slice_ieq(as_trim((as_slice){list.p, n}), token)) {
            return true;
        }
        size_t step = comma != NULL ? n + 1 : n;
        list.p += step;
        list.n -= step;
    }
    return false;
}

/* A field that the server reads or owns. *write: it goes out as it is. */
static as_err understand(as_exchange *ex, as_name_id id, as_slice value, bool *write) {
    *write = true;
    switch (id) {
    case AS_NAME_CONTENT_LENGTH:
        if ((ex->seen & AS_SEEN_LENGTH) != 0 || !as_parse_length(value, &ex->body_left)) {
            return AS_E_RESPONSE_LENGTH;
        }
        ex->seen |= AS_SEEN_LENGTH;
        *write = ex->status != 204; /* RFC 9110, 8.6 */
        break;
    case AS_NAME_CONNECTION:
        if (list_has(value, AS_SLICE("close"))) {
            ex->seen |= AS_SEEN_CLOSE;
        }
        *write = false;
        break;
    case AS_NAME_TRANSFER_ENCODING:
    case AS_NAME_KEEP_ALIVE:
    case AS_NAME_PROXY_CONNECTION:
    case AS_NAME_UPGRADE:
    case AS_NAME_TE:
        *write = false; /* the connection is the server's */
        break;
    case AS_NAME_DATE:
        ex->seen |= AS_SEEN_DATE;
        break;
    case AS_NAME_SERVER:
        ex->seen |= AS_SEEN_SERVER;
        break;
    default:
        break;
    }
    return AS_OK;
}

static as_err check_field(as_slice name, as_slice value) {
    if (!as_is_token(name)) {
        return AS_E_RESPONSE_NAME;
    }
    return as_is_field_value(value) ? AS_OK : AS_E_RESPONSE_VALUE;
}

static char *put_field(char *at, as_slice name, as_slice value) {
    at = put(at, name);
    at = put(at, AS_SLICE(": "));
    at = put(at, value);
    return put(at, AS_SLICE("\r\n"));
}

static as_err head_field(as_exchange *ex, as_slice name, as_slice value) {
    as_err err = check(ex);
    if (err != AS_OK) {
        return err;
    }
    if (ex->res != AS_RES_HEAD) {
        return AS_E_RESPONSE_STATE;
    }
    value = as_trim(value);
    err = check_field(name, value);
    bool write = true;
    if (err == AS_OK) {
        err = understand(ex, as_name_find(name.p, name.n), value, &write);
    }
    if (err != AS_OK || !write) {
        return err;
    }
    char *at;
    err = as_outq_reserve(&h1_of(ex)->out, name.n + value.n + 4, &at);
    if (err == AS_OK) {
        hold(&h1_of(ex)->out, (size_t)(put_field(at, name, value) - at));
    }
    return err;
}

/* ---- the end of a head ---- */

/* Server, Date and the configured lines, without those that the application gave itself. */
static char *put_defaults(char *at, const as_response_defaults *d, unsigned seen) {
    bool server = d->server_len > 0 && (seen & AS_SEEN_SERVER) != 0;
    bool date = d->date_line_len > 0 && (seen & AS_SEEN_DATE) != 0;
    if (!server && !date) {
        return put(at, (as_slice){d->block, d->len});
    }
    size_t from = 0;
    if (server) {
        from = d->server_off + d->server_len; /* it is the first line */
    }
    if (date) {
        at = put(at, (as_slice){d->block + from, d->date_line_off - from});
        from = d->date_line_off + d->date_line_len;
    }
    return put(at, (as_slice){d->block + from, d->len - from});
}

/* Whether the request's body is too much to read and drop behind a complete response. */
static bool leaves_too_much(const as_h1 *h1, const as_exchange *ex) {
    if (ex->req == AS_REQ_DONE) {
        return false;
    }
    return ex->wants_continue || (ex->head->body == AS_BODY_LENGTH &&
                                  ex->head->content_length - ex->received > h1->env->limits->limit_body_discard);
}

static bool must_close(const as_h1 *h1, const as_exchange *ex, bool more) {
    return !ex->head->keep_alive || h1->env->draining || (ex->seen & AS_SEEN_CLOSE) != 0 ||
           h1->env->limits->timeout_keep_alive == 0 || (ex->wants_continue && ex->req == AS_REQ_BODY) ||
           (!more && leaves_too_much(h1, ex));
}

/* Ends the head for a first body of `n` bytes, of which more may follow. */
static as_err end_head(as_h1 *h1, as_exchange *ex, uint64_t n, bool more) {
    const as_response_defaults *d = h1->env->defaults;
    if (!h1->feeding) {
        as_response_defaults_tick(h1->env->defaults, time(NULL)); /* the loop's poll was a while ago */
    }
    char *start, *at;
    as_err err = as_outq_reserve(&h1->out, d->len + 96, &start);
    if (err != AS_OK) {
        return err;
    }
    at = put_defaults(start, d, ex->seen);
    bool declared = (ex->seen & AS_SEEN_LENGTH) != 0;
    ex->close = must_close(h1, ex, more);
    if (!declared && !more && !(ex->no_body && n == 0)) {
        if (ex->status != 204) {
            at = put(at, AS_SLICE("content-length: "));
            at = put_number(at, n);
            at = put(at, AS_SLICE("\r\n"));
        }
    }
    else if (!declared && more && !ex->no_body) {
        if (ex->head->minor >= 1) {
            ex->chunked = true;
            at = put(at, AS_SLICE("transfer-encoding: chunked\r\n"));
        }
        else {
            ex->close = true; /* RFC 9112, 6.3: the connection's end is the body's */
        }
    }
    if (ex->close) {
        at = put(at, AS_SLICE("connection: close\r\n"));
    }
    else if (ex->head->minor == 0) {
        at = put(at, AS_SLICE("connection: keep-alive\r\n"));
    }
    at = put(at, AS_SLICE("\r\n"));
    hold(&h1->out, (size_t)(at - start));
    h1->out.size += h1->out.held;
    h1->out.held = 0;
    ex->res = AS_RES_BODY;
    return AS_OK;
}

/* ---- bodies ---- */

static as_err begin_chunk(as_outq *q, uint64_t n) {
    char *start, *at, digits[16];
    as_err err = as_outq_reserve(q, 20, &start);
    if (err != AS_OK) {
        return err;
    }
    int count = 0;
    do {
        digits[count++] = "0123456789abcdef"[n & 15];
        n >>= 4;
    } while (n != 0);
    at = start;
    while (count > 0) {
        *at++ = digits[--count];
    }
    at = put(at, AS_SLICE("\r\n"));
    as_outq_commit(q, (size_t)(at - start));
    return AS_OK;
}

/* Half a response must never look like a whole one. */
static as_err fail(as_h1 *h1, as_exchange *ex, as_err err) {
    ex->aborted = true;
    as__h1_kill(h1, err);
    tell(h1);
    return err;
}

static void complete(as_h1 *h1, as_exchange *ex) {
    ex->res = AS_RES_DONE;
    h1->served = true;
    if (!h1->feeding) {
        as__h1_let_go(h1);
        as__h1_update(h1);
    }
}

/* Judges `n` more bytes of body, and ends the head if it is open. */
static as_err before_body(as_h1 *h1, as_exchange *ex, uint64_t n, bool more) {
    if (ex->res != AS_RES_HEAD && (ex->res != AS_RES_BODY || (ex->seen & AS_SEEN_LAST_CHUNK) != 0)) {
        return AS_E_RESPONSE_STATE;
    }
    if (!ex->no_body && (ex->seen & AS_SEEN_LENGTH) != 0) {
        if (n > ex->body_left) {
            return AS_E_RESPONSE_LONG;
        }
        if (!more && n < ex->body_left) {
            return AS_E_RESPONSE_SHORT;
        }
    }
    as_err err = ex->res == AS_RES_HEAD ? end_head(h1, ex, n, more) : AS_OK;
    if (err == AS_OK && (ex->seen & AS_SEEN_LENGTH) != 0) {
        ex->body_left -= n < ex->body_left ? n : ex->body_left;
    }
    return err;
}

static as_err after_body(as_h1 *h1, as_exchange *ex, uint64_t n, bool more) {
    ex->sent += ex->no_body ? 0 : n;
    if (!more && ex->chunked) {
        as_err err = as_outq_append(&h1->out, "0\r\n\r\n", 5);
        if (err != AS_OK) {
            return fail(h1, ex, err);
        }
    }
    if (h1->out.size > h1->env->limits->limit_write_buffer) {
        h1->above_high = true;
    }
    if (!more) {
        complete(h1, ex);
    }
    tell(h1);
    return AS_OK;
}

static as_err body(as_exchange *ex, as_bytes data, bool more) {
    as_err err = check(ex);
    if (err != AS_OK) {
        return err;
    }
    as_h1 *h1 = h1_of(ex);
    err = before_body(h1, ex, data.n, more);
    if (err != AS_OK) {
        return err;
    }
    if (data.n > 0 && !ex->no_body) {
        if (ex->chunked) {
            err = begin_chunk(&h1->out, data.n);
        }
        if (err == AS_OK) {
            err = as_outq_append_bytes(&h1->out, data);
        }
        if (err == AS_OK && ex->chunked) {
            err = as_outq_append(&h1->out, "\r\n", 2);
        }
        if (err != AS_OK) {
            return fail(h1, ex, err);
        }
    }
    return after_body(h1, ex, data.n, more);
}

static as_err file(as_exchange *ex, int fd, off_t off, uint64_t n, bool more) {
    as_err err = check(ex);
    as_h1 *h1 = h1_of(ex);
    if (err == AS_OK) {
        err = before_body(h1, ex, n, more);
    }
    if (err != AS_OK || n == 0 || ex->no_body) {
        (void)close(fd);
        return err != AS_OK ? err : after_body(h1, ex, n, more);
    }
    if (ex->chunked && (err = begin_chunk(&h1->out, n)) != AS_OK) {
        (void)close(fd);
        return fail(h1, ex, err);
    }
    err = as_outq_append_file(&h1->out, fd, off, n);
    if (err == AS_OK && ex->chunked) {
        err = as_outq_append(&h1->out, "\r\n", 2);
    }
    return err != AS_OK ? fail(h1, ex, err) : after_body(h1, ex, n, more);
}

/* ---- trailers ---- */

/* The last chunk, once; what follows are trailers. */
static as_err last_chunk(as_h1 *h1, as_exchange *ex) {
    if (!ex->chunked || (ex->seen & AS_SEEN_LAST_CHUNK) != 0) {
        return AS_OK;
    }
    ex->seen |= AS_SEEN_LAST_CHUNK;
    return as_outq_append(&h1->out, "0\r\n", 3);
}

static as_err trailer(as_exchange *ex, as_slice name, as_slice value) {
    as_err err = check(ex);
    if (err != AS_OK) {
        return err;
    }
    if (ex->res != AS_RES_BODY) {
        return AS_E_RESPONSE_STATE;
    }
    value = as_trim(value);
    err = as_is_forbidden_trailer(name) ? AS_E_RESPONSE_NAME : check_field(name, value);
    if (err != AS_OK || !ex->chunked) {
        return err;
    }
    as_h1 *h1 = h1_of(ex);
    char *at;
    err = last_chunk(h1, ex);
    if (err == AS_OK) {
        err = as_outq_reserve(&h1->out, name.n + value.n + 4, &at);
    }
    if (err != AS_OK) {
        return fail(h1, ex, err);
    }
    as_outq_commit(&h1->out, (size_t)(put_field(at, name, value) - at));
    return AS_OK;
}

static as_err end(as_exchange *ex) {
    as_err err = check(ex);
    if (err != AS_OK) {
        return err;
    }
    if (ex->res != AS_RES_BODY) {
        return AS_E_RESPONSE_STATE;
    }
    as_h1 *h1 = h1_of(ex);
    if (!ex->no_body && (ex->seen & AS_SEEN_LENGTH) != 0 && ex->body_left > 0) {
        return AS_E_RESPONSE_SHORT;
    }
    err = last_chunk(h1, ex);
    if (err == AS_OK && ex->chunked) {
        err = as_outq_append(&h1->out, "\r\n", 2);
    }
    if (err != AS_OK) {
        return fail(h1, ex, err);
    }
    complete(h1, ex);
    tell(h1);
    return AS_OK;
}

/* ---- before the response ---- */

static as_err write_interim(as_h1 *h1, unsigned status, const as_slice *pairs, size_t npairs) {
    as_slice reason = as_status_reason(status);
    size_t size = 16 + reason.n + 2;
    for (size_t i = 0; i < npairs; i++) {
        size += pairs[i].n + 2;
    }
    char *start, *at;
    as_err err = as_outq_reserve(&h1->out, size, &start);
    if (err != AS_OK) {
        return err;
    }
    at = put(start, AS_SLICE("HTTP/1.1 "));
    at = put_number(at, status);
    *at++ = ' ';
    at = put(at, reason);
    at = put(at, AS_SLICE("\r\n"));
    for (size_t i = 0; i + 1 < npairs; i += 2) {
        at = put_field(at, pairs[i], as_trim(pairs[i + 1]));
    }
    at = put(at, AS_SLICE("\r\n"));
    as_outq_commit(&h1->out, (size_t)(at - start));
    return AS_OK;
}

static as_err interim(as_exchange *ex, unsigned status, const as_slice *pairs, size_t npairs) {
    as_err err = check(ex);
    if (err != AS_OK) {
        return err;
    }
    if (ex->res != AS_RES_START) {
        return AS_E_RESPONSE_STATE;
    }
    if (status < 100 || status > 199 || status == 101) {
        return AS_E_RESPONSE_STATUS;
    }
    for (size_t i = 0; i + 1 < npairs; i += 2) {
        err = check_field(pairs[i], as_trim(pairs[i + 1]));
        if (err != AS_OK) {
            return err;
        }
    }
    if (ex->head->minor == 0) {
        return AS_OK; /* RFC 9110, 15.2: never to an HTTP/1.0 client */
    }
    as_h1 *h1 = h1_of(ex);
    err = write_interim(h1, status, pairs, npairs);
    if (err == AS_OK) {
        tell(h1);
    }
    return err;
}

static void yield(as_exchange *ex) {
    if (check(ex) == AS_OK) {
        h1_of(ex)->above_high = true;
        tell(h1_of(ex));
    }
}

static void want_body(as_exchange *ex) {
    if (check(ex) != AS_OK || ex->res != AS_RES_START) {
        return; /* a final response is under way: RFC 9110, 10.1.1 */
    }
    ex->wants_continue = false;
    as_h1 *h1 = h1_of(ex);
    (void)as_outq_append(&h1->out, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    as__h1_update(h1);
    tell(h1);
}

/* ---- flow ---- */

static as_err flush(as_exchange *ex) {
    as_err err = check(ex);
    return err == AS_OK ? h1_of(ex)->env->flush(h1_of(ex)) : err;
}

static uint64_t pending(const as_exchange *ex) {
    return check(ex) == AS_OK ? h1_of(ex)->out.size : 0;
}

static void pause_body(as_exchange *ex) {
    if (check(ex) == AS_OK && ex->req == AS_REQ_BODY) {
        ex->paused = true;
        h1_of(ex)->body_paused = true;
        as__h1_update(h1_of(ex));
        tell(h1_of(ex));
    }
}

static void resume_body(as_exchange *ex) {
    ex->paused = false;
    if (check(ex) == AS_OK) {
        h1_of(ex)->body_paused = false;
        as__h1_update(h1_of(ex));
        tell(h1_of(ex));
    }
}

static void cut(as_exchange *ex) {
    if (check(ex) == AS_OK) {
        (void)fail(h1_of(ex), ex, AS_E_APP);
    }
    ex->aborted = true;
}

static void release(as_exchange *ex) {
    ex->gateway = NULL;
    if (ex->proto != NULL && ex->res != AS_RES_DONE) {
        cut(ex);
    }
    ex->released = true;
    if (ex->proto == NULL) {
        as_head_unref(ex->head);
        free(ex);
    }
}

const as_exchange_ops as__h1_exchange_ops = {
    .interim = interim,
    .head_begin = head_begin,
    .head_field = head_field,
    .head_abandon = head_abandon,
    .body = body,
    .file = file,
    .trailer = trailer,
    .end = end,
    .flush = flush,
    .pending = pending,
    .want_body = want_body,
    .pause = pause_body,
    .resume = resume_body,
    .yield = yield,
    .abort = cut,
    .release = release,
};

/* ---- refusals ---- */

void as__h1_write_error(as_h1 *h1, as_err err, bool is_head) {
    const as_response_defaults *d = h1->env->defaults;
    unsigned status = as_err_status(err);
    as_slice reason = as_status_reason(status), text = {as_err_text(err), strlen(as_err_text(err))};
    char *start, *at;
    if (as_outq_reserve(&h1->out, d->len + reason.n + text.n + 256, &start) != AS_OK) {
        return; /* the connection closes without a word */
    }
    at = put(start, AS_SLICE("HTTP/1.1 "));
    at = put_number(at, status);
    *at++ = ' ';
    at = put(at, reason);
    at = put(at, AS_SLICE("\r\n"));
    at = put_defaults(at, d, 0);
    at = put(at, AS_SLICE("content-type: text/plain; charset=utf-8\r\ncontent-length: "));
    at = put_number(at, text.n + 1);
    if (status == 503) {
        at = put(at, AS_SLICE("\r\nretry-after: 1"));
    }
    at = put(at, AS_SLICE("\r\nconnection: close\r\n\r\n"));
    if (!is_head) {
        at = put(at, text);
        *at++ = '\n';
    }
    as_outq_commit(&h1->out, (size_t)(at - start));
}

/* Exchanges over HTTP/1: what the gateway calls becomes bytes in the output queue.
 *
 * The bytes of an open head are held at the queue's end until the first body decides its framing: a
 * known length, chunks (HTTP/1.1), or the end of the connection (HTTP/1.0). RFC 9112, 6.
 *
 * Inside of a handler (`feeding`) a call changes the exchange and the queue only, and the
 * connection looks at both when the handler is back. Outside, it settles what the exchange became,
 * and notifies. */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "http/exchange_rules.h"
#include "http/h1_internal.h"

/* --- life ----------------------------------------------------------------------------------- */

static const as_exchange_ops exchange_ops;

as_exchange *as__h1_exchange_new(as_h1 *h1, as_head *head) {
    as_h1_env *env = h1->env;
    as_exchange *ex = env->free_exchanges;
    if (ex != NULL) {
        env->free_exchanges = ex->next;
    } else if ((ex = malloc(sizeof(*ex))) != NULL) {
        ex->own = NULL;
    } else {
        return NULL;
    }
    /* all but `own`, which stays with it for the next request that needs one */
    ex->ops = &exchange_ops;
    ex->head = head->refs > 0 ? as_head_keep(head) : head;
    ex->info = h1->info;
    ex->gateway = NULL;
    ex->proto = h1;
    ex->body_left = UINT64_MAX;
    ex->sent = ex->received = 0;
    ex->status = 0;
    ex->req = AS_REQ_BODY;
    ex->res = AS_RES_START;
    ex->aborted = ex->no_body = ex->chunked = ex->close = ex->paused = false;
    ex->wants_continue = ex->trailers = ex->released = false;
    ex->seen = 0;
    ex->started = 0;
    ex->head_copy = NULL;
    return ex;
}

static void drop_heads(as_exchange *ex) {
    if (ex->head != NULL && ex->head->refs > 0) {
        as_head_unref(ex->head);
    }
    if (ex->head_copy != NULL) {
        free(ex->head_copy);
    }
}

/* The gateway may look at it when the connection is gone. */
static void keep_info(as_exchange *ex) {
    static const as_conn_info unknown = {.server = ""}; /* where there is no memory for a copy */
    if (ex->own == NULL && (ex->own = malloc(sizeof(*ex->own))) == NULL) {
        ex->info = (as_conn_info *)(uintptr_t)&unknown; /* nobody writes to it any more */
        return;
    }
    if (ex->info != ex->own) {
        *ex->own = *ex->info;
    }
    ex->own->via = NULL;
    ex->own->gateway = NULL;
    ex->own->tls = NULL;
    ex->own->server = "";
    ex->info = ex->own;
}

void as__h1_exchange_free(as_exchange *ex) {
    free(ex->own);
    free(ex);
}

void as__h1_let_go(as_h1 *h1) {
    as_exchange *ex = h1->ex;
    h1->ex = NULL;
    h1->env->requests--;
    if (ex->released) {
        drop_heads(ex);
        ex->next = h1->env->free_exchanges;
        h1->env->free_exchanges = ex;
        return;
    }
    ex->proto = NULL;
    keep_info(ex);
}

static as_h1 *h1_of(const as_exchange *ex) {
    return ex->proto;
}

/* Something changed that the connection must look at. The last thing in a call: ex may be gone. */
static void tell(as_h1 *h1) {
    if (!h1->feeding) {
        as__h1_settle(h1);
        h1->env->notify(h1);
    }
}

/* Half a response must never look like a whole one. */
static as_err cut(as_exchange *ex, as_err why) {
    as_h1 *h1 = h1_of(ex);
    as_outq_take_back(&h1->out);
    ex->aborted = true;
    as__h1_stop(h1, AS_H1_DEAD, why);
    tell(h1);
    return why;
}

static void abort_response(as_exchange *ex) {
    if (as_exchange_check(ex) == AS_OK) {
        (void)cut(ex, AS_E_APP);
    }
}

static void release(as_exchange *ex) {
    ex->gateway = NULL;
    ex->released = true;
    if (ex->proto == NULL) {
        drop_heads(ex);
        as__h1_exchange_free(ex);
        return;
    }
    abort_response(ex);
}

/* --- the head ------------------------------------------------------------------------------- */

static as_err head_begin(as_exchange *ex, unsigned status, as_slice reason) {
    as_err err = as_exchange_check_head(ex, status, reason);
    if (err == AS_OK) {
        err = as__write_status_line(&h1_of(ex)->out, status, reason);
    }
    if (err == AS_OK) {
        as_exchange_head_begun(ex, status);
    }
    return err;
}

static void head_abandon(as_exchange *ex) {
    if (as_exchange_check_state(ex, AS_RES_HEAD) != AS_OK) {
        return;
    }
    as_outq_take_back(&h1_of(ex)->out);
    as_exchange_head_undone(ex);
}

static as_err head_field(as_exchange *ex, as_slice name, as_slice value) {
    value = as_trim(value);
    as_err err = as_exchange_check_state(ex, AS_RES_HEAD);
    if (err != AS_OK) {
        return err;
    }
    as_h1 *h1 = h1_of(ex);
    as_line *line = as__find_line(h1->env->lines, name, value);
    if (line != NULL && as__line_is(line, name, value)) {
        return as__write_line(&h1->out, line);
    }
    as_field_kind kind;
    err = as_exchange_take_field(ex, name, value, &kind);
    if (err != AS_OK || kind == AS_FIELD_OURS) {
        return err;
    }
    if (line != NULL && kind == AS_FIELD_PLAIN) {
        as__keep_line(line, name, value);
    }
    return as__write_field(&h1->out, name, value);
}

bool as__h1_leaves_too_much(const as_h1 *h1, const as_exchange *ex) {
    uint32_t limit = h1->env->limits->limit_body_discard;
    bool counted = h1->state == AS_H1_AT_LENGTH && h1->body_left > limit;
    bool chunked = h1->state == AS_H1_AT_CHUNKS && limit == 0;
    return ex->wants_continue || counted || chunked;
}

static bool must_close(const as_h1 *h1, const as_exchange *ex, bool more) {
    return ex->close || !ex->head->keep_alive || h1->env->draining ||
           (ex->seen & AS_SEEN_CLOSE) != 0 || h1->env->limits->timeout_keep_alive == 0 ||
           (!more && as__h1_leaves_too_much(h1, ex));
}

static void copy_head(as_exchange *ex) {
    const as_outq *q = &h1_of(ex)->out;
    ex->head_copy = malloc(q->held + 1);
    if (ex->head_copy != NULL) {
        memcpy(ex->head_copy, q->buf.data + q->buf.len - q->held, q->held);
        ex->head_copy[q->held] = '\0';
    }
}

/* Chooses the framing for a first body of `n` bytes, `more` of which may follow (RFC 9112, 6.3),
 * and ends the head. `room`: bytes reserved behind it. */
static as_err end_head(as_h1 *h1, as_exchange *ex, uint64_t n, bool more, size_t room) {
    as_head_end end = {.seen = ex->seen, .length = n};
    bool close = must_close(h1, ex, more);
    if (!h1->feeding) {
        as_response_defaults_tick(h1->env->defaults,
                                  time(NULL)); /* the loop's poll was a while ago */
    }
    if ((ex->seen & AS_SEEN_LENGTH) != 0) {
        end.has_length = ex->status != 204; /* RFC 9110, 8.6 */
        end.length = ex->body_left;
    } else if (ex->no_body) {
        /* What a GET would have got, if that is known; RFC 9110, 8.6 and 15.4.5. */
        end.has_length =
            !more && n > 0 && ex->head->is_head && ex->status != 204 && ex->status != 304;
    } else if (!more) {
        end.has_length = true;
    } else if (ex->head->minor > 0) {
        end.chunked = true;
    } else {
        close = true; /* the end of the connection is the end of the body */
    }
    end.close = close;
    end.keep_alive = ex->head->minor == 0;
    as_err err = as__write_head_end(&h1->out, h1->env->defaults, &end, room);
    if (err == AS_OK) {
        ex->close = close;
        ex->chunked = end.chunked;
        ex->res = AS_RES_BODY;
        if (h1->env->copy_heads) {
            copy_head(ex);
        }
        as_outq_release(&h1->out);
    }
    return err;
}

/* --- the body ------------------------------------------------------------------------------- */

/* Judges `n` more bytes, and ends the head if it is open. What fails here has changed nothing. */
static as_err before_body(as_exchange *ex, uint64_t n, bool more, size_t room) {
    as_err err = as_exchange_check_body(ex, n, more);
    if (err != AS_OK) {
        return err;
    }
    return ex->res == AS_RES_HEAD ? end_head(h1_of(ex), ex, n, more, room) : AS_OK;
}

static as_err begin_chunk(as_outq *q, uint64_t n) {
    char *at;
    as_err err = as_outq_reserve(q, AS_CHUNK_LINE, &at);
    if (err == AS_OK) {
        as_outq_commit(q, as__format_chunk_line(at, n));
    }
    return err;
}

/* The end of a chunk of `n` bytes, and of the body. */
static as_err end_chunk(as_outq *q, uint64_t n, bool more) {
    static const char ends[] = "\r\n0\r\n\r\n";
    size_t from = n > 0 ? 0 : 2, to = more ? 2 : sizeof(ends) - 1;
    return as_outq_append(q, ends + from, to - from);
}

static as_err after_body(as_exchange *ex, uint64_t n, bool more) {
    as_h1 *h1 = h1_of(ex);
    as_exchange_body_given(ex, n, more);
    if (h1->out.size > h1->env->limits->limit_write_buffer) {
        h1->above_high = true;
    }
    tell(h1);
    return AS_OK;
}

static as_err body(as_exchange *ex, as_bytes data, bool more) {
    size_t room = data.n <= AS_OUTQ_COPY_MAX ? data.n : 0;
    as_err err = before_body(ex, data.n, more, room);
    if (err != AS_OK) {
        return err;
    }
    as_outq *q = &h1_of(ex)->out;
    if (!ex->no_body) {
        if (ex->chunked && data.n > 0) {
            err = begin_chunk(q, data.n);
        }
        if (err == AS_OK) {
            err = as_outq_append_bytes(q, data);
        }
        if (err == AS_OK && ex->chunked) {
            err = end_chunk(q, data.n, more);
        }
    }
    return err == AS_OK ? after_body(ex, data.n, more) : cut(ex, err);
}

static as_err file(as_exchange *ex, int fd, off_t off, uint64_t n, bool more) {
    as_err err = before_body(ex, n, more, 0);
    if (err != AS_OK || ex->no_body) {
        (void)close(fd);
        return err == AS_OK ? after_body(ex, n, more) : err;
    }
    as_outq *q = &h1_of(ex)->out;
    if (ex->chunked && n > 0 && (err = begin_chunk(q, n)) != AS_OK) {
        (void)close(fd);
        return cut(ex, err);
    }
    err = as_outq_append_file(q, fd, off, n);
    if (err == AS_OK && ex->chunked) {
        err = end_chunk(q, n, more);
    }
    return err == AS_OK ? after_body(ex, n, more) : cut(ex, err);
}

/* --- the trailer section -------------------------------------------------------------------- */

static as_err trailer(as_exchange *ex, as_slice name, as_slice value) {
    as_err err = as_exchange_check_state(ex, AS_RES_BODY);
    value = as_trim(value);
    if (err == AS_OK) {
        err = as_is_forbidden_trailer(name) ? AS_E_RESPONSE_NAME : as_check_field(name, value);
    }
    if (err != AS_OK || !ex->chunked) {
        return err;
    }
    as_outq *q = &h1_of(ex)->out;
    if ((ex->seen & AS_SEEN_LAST_CHUNK) == 0) {
        err = as_outq_append(q, "0\r\n", 3);
        ex->seen |= AS_SEEN_LAST_CHUNK;
    }
    if (err == AS_OK) {
        err = as__write_field(q, name, value);
    }
    as_outq_release(q);
    return err == AS_OK ? AS_OK : cut(ex, err);
}

static as_err end(as_exchange *ex) {
    static const as_bytes nothing = {"", 0, NULL, NULL, NULL};
    if ((ex->seen & AS_SEEN_LAST_CHUNK) == 0 || as_exchange_check(ex) != AS_OK) {
        return body(ex, nothing, false);
    }
    as_err err = as_outq_append(&h1_of(ex)->out, "\r\n", 2);
    return err == AS_OK ? after_body(ex, 0, false) : cut(ex, err);
}

/* --- before the response -------------------------------------------------------------------- */

static as_err write_interim(as_outq *q, unsigned status, const as_slice *pairs, size_t npairs) {
    as_err err = as__write_status_line(q, status, AS_SLICE(""));
    for (size_t i = 0; err == AS_OK && i + 1 < npairs; i += 2) {
        err = as__write_field(q, pairs[i], as_trim(pairs[i + 1]));
    }
    char *at;
    if (err == AS_OK) {
        err = as_outq_reserve(q, 2, &at);
    }
    if (err != AS_OK) {
        as_outq_take_back(q);
        return err;
    }
    memcpy(at, "\r\n", 2);
    as_outq_hold(q, 2);
    as_outq_release(q);
    return AS_OK;
}

static as_err interim(as_exchange *ex, unsigned status, const as_slice *pairs, size_t npairs) {
    as_err err = as_exchange_check_state(ex, AS_RES_START);
    if (err == AS_OK && (status < 100 || status > 199 || status == 101)) {
        err = AS_E_RESPONSE_STATUS;
    }
    for (size_t i = 0; err == AS_OK && i + 1 < npairs; i += 2) {
        err = as_check_field(pairs[i], as_trim(pairs[i + 1]));
    }
    if (err != AS_OK || ex->head->minor == 0) {
        return err; /* RFC 9110, 15.2: none to HTTP/1.0 */
    }
    err = write_interim(&h1_of(ex)->out, status, pairs, npairs);
    if (err == AS_OK) {
        tell(h1_of(ex));
    }
    return err;
}

/* A head that is begun has not left: 100 Continue goes before it. Behind one that has, it would be
 * a lie; the client knows then that it need not wait. */
static void want_body(as_exchange *ex) {
    if (as_exchange_check(ex) != AS_OK || ex->res == AS_RES_BODY) {
        return;
    }
    as_h1 *h1 = h1_of(ex);
    if (as_outq_insert(&h1->out, "HTTP/1.1 100 Continue\r\n\r\n", 25) == AS_OK) {
        ex->wants_continue = false;
    } else {
        as__h1_stop(h1, AS_H1_DEAD, AS_E_NOMEM); /* client and gateway would wait for each other */
    }
    tell(h1);
}

/* The server's own answer in place of one. */
static as_err refuse(as_exchange *ex, as_err why) {
    as_h1 *h1 = h1_of(ex);
    as_err err = as_exchange_check_state(ex, AS_RES_START);
    if (err == AS_OK) {
        err = as__h1_write_error(h1, why, ex->head->is_head);
    }
    if (err == AS_OK) {
        h1->env->spool_full += why == AS_E_SPOOL_FULL;
        ex->status = (uint16_t)as_err_status(why);
        ex->close = true;
        ex->res = AS_RES_DONE;
        tell(h1);
    }
    return err;
}

/* --- flow ----------------------------------------------------------------------------------- */

static as_err flush(as_exchange *ex) {
    if (ex->aborted || ex->proto == NULL) {
        return ex->res == AS_RES_DONE && !ex->aborted ? AS_E_RESPONSE_STATE : AS_E_CLOSED;
    }
    return h1_of(ex)->env->flush(h1_of(ex));
}

static as_err lend(as_exchange *ex) {
    if (ex->aborted || ex->proto == NULL) {
        return flush(ex);
    }
    return h1_of(ex)->env->lend(h1_of(ex));
}

static void reclaim(as_exchange *ex) {
    if (ex->proto != NULL) {
        h1_of(ex)->env->reclaim(h1_of(ex));
    }
}

static uint64_t pending(const as_exchange *ex) {
    if (ex->proto == NULL) {
        return 0;
    }
    as_h1 *h1 = h1_of(ex);
    if (h1->out.size > h1->env->limits->limit_write_buffer) {
        h1->above_high = true; /* who hears that waits for on_drain */
    }
    return h1->out.size;
}

static void yield(as_exchange *ex) {
    if (as_exchange_check(ex) == AS_OK) {
        h1_of(ex)->above_high = true;
        tell(h1_of(ex));
    }
}

static void set_paused(as_exchange *ex, bool paused) {
    if (as_exchange_check(ex) == AS_OK && ex->req == AS_REQ_BODY) {
        ex->paused = paused;
        tell(h1_of(ex));
    }
}

static void pause_body(as_exchange *ex) {
    set_paused(ex, true);
}

static void resume_body(as_exchange *ex) {
    set_paused(ex, false);
}

/* --- tunnels -------------------------------------------------------------------------------- */

static const as_exchange_ops tunnel_ops;

static as_err write_upgrade(as_h1 *h1, const as_slice *pairs, size_t npairs) {
    as_outq *q = &h1->out;
    as_head_end end = {0};
    as_err err = as__write_status_line(q, 101, AS_SLICE(""));
    if (err == AS_OK) {
        err = as__write_field(q, AS_SLICE("connection"), AS_SLICE("Upgrade"));
    }
    for (size_t i = 0; err == AS_OK && i + 1 < npairs; i += 2) {
        as_name_id id = as_name_find(pairs[i].p, pairs[i].n);
        end.seen |= id == AS_NAME_DATE ? AS_SEEN_DATE : id == AS_NAME_SERVER ? AS_SEEN_SERVER : 0;
        err = as__write_field(q, pairs[i], as_trim(pairs[i + 1]));
    }
    if (err == AS_OK) {
        err = as__write_head_end(q, h1->env->defaults, &end, 0);
    }
    if (err != AS_OK) {
        as_outq_take_back(q);
    }
    return err;
}

static as_err upgrade(as_exchange *ex, const as_slice *pairs, size_t npairs) {
    as_h1 *h1 = h1_of(ex);
    as_err err = as_exchange_check_state(ex, AS_RES_START);
    if (err == AS_OK && (h1->state != AS_H1_AT_END || ex->head->minor == 0)) {
        err = AS_E_RESPONSE_STATE;
    }
    for (size_t i = 0; err == AS_OK && i + 1 < npairs; i += 2) {
        err = as_check_field(pairs[i], as_trim(pairs[i + 1]));
    }
    if (err == AS_OK && !h1->feeding) {
        as_response_defaults_tick(h1->env->defaults, time(NULL));
    }
    if (err != AS_OK || (err = write_upgrade(h1, pairs, npairs)) != AS_OK) {
        return err;
    }
    ex->ops = &tunnel_ops;
    ex->untaken = 0;
    ex->status = 101;
    ex->close = true;
    ex->req = AS_REQ_BODY;
    ex->res = AS_RES_BODY;
    if (h1->env->copy_heads) {
        copy_head(ex);
    }
    as_outq_release(&h1->out);
    h1->state = AS_H1_AT_TUNNEL;
    tell(h1);
    return AS_OK;
}

static as_err tunnel_body(as_exchange *ex, as_bytes data, bool more) {
    as_err err = as_exchange_check(ex);
    if (err == AS_OK) {
        err = as_outq_append_bytes(&h1_of(ex)->out, data);
        if (err != AS_OK) {
            return cut(ex, err);
        }
        ex->sent += data.n;
    }
    if (err == AS_OK && !more) {
        ex->res = AS_RES_DONE;
        tell(h1_of(ex));
    }
    return err;
}

static as_err tunnel_end(as_exchange *ex) {
    static const as_bytes nothing = {"", 0, NULL, NULL, NULL};
    return tunnel_body(ex, nothing, false);
}

static as_err tunnel_file(as_exchange *ex, int fd, off_t off, uint64_t n, bool more) {
    (void)off;
    (void)n;
    (void)more;
    as_err err = as_exchange_check(ex);
    (void)close(fd);
    return err != AS_OK ? err : AS_E_RESPONSE_STATE;
}

static as_err tunnel_trailer(as_exchange *ex, as_slice name, as_slice value) {
    (void)name;
    (void)value;
    as_err err = as_exchange_check(ex);
    return err != AS_OK ? err : AS_E_RESPONSE_STATE;
}

/* What the kernel does not take now, the socket is watched for. */
static as_err tunnel_flush(as_exchange *ex) {
    as_err err = as_exchange_check(ex);
    if (err == AS_OK) {
        tell(h1_of(ex));
    }
    return err;
}

static void tunnel_flush_soon(as_exchange *ex) {
    if (as_exchange_check(ex) == AS_OK && !h1_of(ex)->feeding) {
        h1_of(ex)->env->flush_soon(h1_of(ex));
    }
}

static void tunnel_set_alarm(as_exchange *ex, uint32_t ms) {
    if (as_exchange_check(ex) == AS_OK) {
        h1_of(ex)->env->set_alarm(h1_of(ex), ms);
    }
}

static void no_flush_soon(as_exchange *ex) {
    (void)ex; /* nothing waits outside of a tunnel */
}

static void no_alarm(as_exchange *ex, uint32_t ms) {
    (void)ex;
    (void)ms;
}

/* --- the tables ----------------------------------------------------------------------------- */

static const as_exchange_ops exchange_ops = {
    .interim = interim,
    .head_begin = head_begin,
    .head_field = head_field,
    .head_abandon = head_abandon,
    .body = body,
    .file = file,
    .trailer = trailer,
    .end = end,
    .flush = flush,
    .lend = lend,
    .reclaim = reclaim,
    .pending = pending,
    .want_body = want_body,
    .pause = pause_body,
    .resume = resume_body,
    .yield = yield,
    .abort = abort_response,
    .release = release,
    .refuse = refuse,
    .upgrade = upgrade,
    .flush_soon = no_flush_soon,
    .set_alarm = no_alarm,
};

/* Those that are the same ask for a state that a tunnel is not in, or know none. */
static const as_exchange_ops tunnel_ops = {
    .interim = interim,
    .head_begin = head_begin,
    .head_field = head_field,
    .head_abandon = head_abandon,
    .body = tunnel_body,
    .file = tunnel_file,
    .trailer = tunnel_trailer,
    .end = tunnel_end,
    .flush = tunnel_flush,
    .pending = pending,
    .want_body = want_body,
    .pause = pause_body,
    .resume = resume_body,
    .yield = yield,
    .abort = abort_response,
    .release = release,
    .refuse = refuse,
    .upgrade = upgrade,
    .flush_soon = tunnel_flush_soon,
    .set_alarm = tunnel_set_alarm,
};

/* --- refusals ------------------------------------------------------------------------------- */

#define FIELD(status, name, value) {status, {(name), sizeof(name) - 1}, {(value), sizeof(value) - 1}}
static const struct {
    unsigned status;
    as_slice name, value;
} error_fields[] = {
    FIELD(405, "allow", "GET"),
    FIELD(426, "connection", "Upgrade"), /* RFC 9110, 7.8: with Upgrade */
    FIELD(426, "upgrade", "websocket"),
    FIELD(426, "sec-websocket-version", "13"), /* RFC 6455, 4.4 */
    FIELD(503, "retry-after", "1"),
};
#undef FIELD

as_err as__h1_write_error(as_h1 *h1, as_err why, bool is_head) {
    as_outq *q = &h1->out;
    as_slice text = {as_err_text(why), strlen(as_err_text(why))};
    as_head_end end = {.has_length = true, .length = text.n + 1, .close = true};
    unsigned status = as_err_status(why);
    as_err err = as__write_status_line(q, status, AS_SLICE(""));
    if (err == AS_OK) {
        err = as__write_field(q, AS_SLICE("content-type"), AS_SLICE("text/plain; charset=utf-8"));
    }
    for (size_t i = 0; err == AS_OK && i < sizeof(error_fields) / sizeof(*error_fields); i++) {
        if (error_fields[i].status == status) {
            err = as__write_field(q, error_fields[i].name, error_fields[i].value);
        }
    }
    if (err == AS_OK) {
        err = as__write_head_end(q, h1->env->defaults, &end, text.n + 1);
    }
    if (err != AS_OK) {
        as_outq_take_back(q);
        return err;
    }
    as_outq_release(q);
    if (!is_head) { /* there is room for it */
        (void)as_outq_append(q, text.p, text.n);
        (void)as_outq_append(q, "\n", 1);
    }
    return AS_OK;
}

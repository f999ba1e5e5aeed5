/* The connection: reads become requests, requests go to the gateway one at a time.
 *
 * as_h1_feed -> run: as long as there are bytes and nothing is in the way, the state's step takes
 * some:
 *
 *   AT_START -> AT_HEAD -> (AT_LENGTH | AT_CHUNKS) -> AT_END -> AT_START
 *
 * AT_TUNNEL follows AT_END when the exchange is upgraded, and nothing follows it.
 *
 * A request is dispatched when its message is complete or the bytes are used up, so that a small
 * body comes along with it. In the way are an exchange that is not answered at AT_END, one that
 * pauses its body, and a client that does not read what was answered; then the rest waits in
 * `pending`.
 *
 * Handlers run in here only, with `feeding` set: what the gateway does meanwhile changes the
 * exchange, and as__h1_settle looks at it when the handler is back. Outside, the gateway's calls
 * settle at once. */
#include "http/http1.h"

#include <stdlib.h>
#include <string.h>

#include "http/forwarded.h"
#include "http/h1_internal.h"
#include "http/head_cache.h"

#define PIPELINED_UNWATCHED 16u /* requests between two looks at the clock */

/* --- ends ----------------------------------------------------------------------------------- */

void as__h1_stop(as_h1 *h1, as_h1_phase phase, as_err why) {
    if (h1->phase < (uint8_t)phase) {
        h1->phase = (uint8_t)phase;
        h1->error = why;
        h1->yielded = false;
    }
}

static bool is_stopped(const as_h1 *h1) {
    return h1->phase >= AS_H1_CLOSING;
}

/* Behind the answers that are queued. What the client still sends is read and dropped for a while,
 * so that it gets to read them (RFC 9112, 9.6). */
static void close_gently(as_h1 *h1, as_err why) {
    h1->linger = true;
    as__h1_stop(h1, AS_H1_CLOSING, why);
}

static void drop_saved(as_h1 *h1) {
    as__h1_scratch_free(h1->saved);
    h1->saved = NULL;
}

/* The exchange is broken; the gateway is told, unless it has let go already. */
static void abort_exchange(as_h1 *h1, as_err why) {
    as_exchange *ex = h1->ex;
    bool released = ex->released;
    ex->aborted = true;
    as__h1_let_go(h1);
    if (!released) {
        h1->env->handlers->on_abort(h1->env->ctx, ex, why);
    }
}

/* The response is complete. One that began before draining has not said that it is the last, and so
 * it is not: the client may have sent the next request already. */
static void finish_exchange(as_h1 *h1, as_exchange *ex) {
    bool last = ex->close;
    bool leaves = ex->head != NULL && ex->head->leaves; /* NULL: there was no memory to keep it */
    h1->served = true;
    h1->discard = h1->env->limits->limit_body_discard;
    if (h1->state == AS_H1_AT_END) {
        h1->state = AS_H1_AT_START;
    } else if (as__h1_leaves_too_much(h1, ex)) {
        last = true;
    }
    as__h1_let_go(h1);
    if (last) {
        /* A reset comes of bytes that nobody reads. Who said that nothing follows sends none; but
         * TLS does, on its own account. */
        h1->linger = !leaves || h1->pending.len > 0 || h1->info->is_tls;
        as__h1_stop(h1, AS_H1_CLOSING, AS_OK);
    }
}

void as__h1_settle(as_h1 *h1) {
    as_exchange *ex = h1->ex;
    if (ex != NULL && ex->aborted) {
        as__h1_let_go(h1);
    } else if (ex != NULL && ex->res == AS_RES_DONE) {
        finish_exchange(h1, ex);
    }
    as__h1_update_phase(h1);
}

void as__h1_update_phase(as_h1 *h1) {
    const as_exchange *ex = h1->ex;
    if (is_stopped(h1)) {
        return;
    }
    switch ((as_h1_state)h1->state) {
    case AS_H1_AT_START:
        h1->phase = h1->pending.len > 0 ? AS_H1_BUSY : AS_H1_IDLE;
        break;
    case AS_H1_AT_HEAD:
        h1->phase = AS_H1_HEAD;
        break;
    case AS_H1_AT_LENGTH:
    case AS_H1_AT_CHUNKS:
        h1->phase = ex != NULL && (ex->paused || ex->wants_continue) ? AS_H1_BUSY : AS_H1_BODY;
        break;
    case AS_H1_AT_END:
        h1->phase = AS_H1_BUSY;
        break;
    case AS_H1_AT_TUNNEL:
        h1->phase = AS_H1_TUNNEL;
        break;
    }
}

/* --- refusing ------------------------------------------------------------------------------- */

/* Takes the exchange, if there is one, out of the way; true if an answer can be given to the
 * client. */
static bool clear_for_refusal(as_h1 *h1, as_err why, bool *is_head) {
    as_exchange *ex = h1->ex;
    if (ex == NULL) {
        /* behind a complete answer there is no second one to the rest of its request */
        return h1->state <= AS_H1_AT_HEAD || h1->undispatched;
    }
    bool begun = ex->res == AS_RES_BODY;
    *is_head = ex->head->is_head;
    as_exchange_head_abandon(ex);
    abort_exchange(h1, why);
    return !begun;
}

void as__h1_refuse(as_h1 *h1, as_err why, as_slice detail, uint64_t offset) {
    const as_h1_env *env = h1->env;
    const struct as_h1_scratch *s = h1->saved != NULL ? h1->saved : env->scratch;
    bool is_head = h1->state != AS_H1_AT_START && s->head.is_head;
    bool had_exchange = h1->ex != NULL;
    bool answer = clear_for_refusal(h1, why, &is_head);
    h1->linger = true;
    if (answer && as__h1_write_error(h1, why, is_head) == AS_OK) {
        as__h1_stop(h1, AS_H1_CLOSING, why);
    } else {
        /* Only a cut tells the client that what it has is not the whole. */
        as__h1_stop(h1, had_exchange ? AS_H1_DEAD : AS_H1_CLOSING, why);
    }
    if (env->handlers->on_refused != NULL && why != AS_E_OVERLOADED) {
        env->handlers->on_refused(env->ctx, h1->info, why, detail, offset);
    }
}

static void refuse_plainly(as_h1 *h1, as_err why) {
    as__h1_refuse(h1, why, AS_SLICE(""), h1->offset);
}

/* --- dispatching ---------------------------------------------------------------------------- */

static as_slice take_gathered(as_h1 *h1) {
    as_slice body = h1->env->gathered;
    h1->env->gathered = (as_slice){NULL, 0};
    return body;
}

/* The head moves to memory of its own when the exchange outlives this read. Of a tunnel's, only
 * what a log names it by is needed from here on. */
static void keep_head(as_h1 *h1, as_exchange *ex) {
    if (ex->released || ex->head->refs > 0) {
        return; /* nobody needs it, or the gateway did so already */
    }
    as_head *kept =
        h1->state == AS_H1_AT_TUNNEL ? as_head_keep_line(ex->head) : as_head_keep(ex->head);
    ex->head = kept;
    if (kept == NULL && !ex->aborted && ex->res != AS_RES_DONE) {
        as__h1_stop(h1, AS_H1_DEAD, AS_E_NOMEM);
        abort_exchange(h1, AS_E_NOMEM);
    }
}

static void tell_eof(as_h1 *h1) {
    if (h1->eof && !h1->eof_told && h1->ex != NULL && h1->state == AS_H1_AT_END) {
        h1->eof_told = true;
        h1->env->handlers->on_eof(h1->env->ctx, h1->ex);
        as__h1_settle(h1);
    }
}

/* A proxy that is believed may have something to tell about this request. */
static bool is_forwarded(const as_h1 *h1, const as_head *head) {
    const as_forwarding *forwarding = h1->env->forwarding;
    return forwarding != NULL && (head->forwarded || forwarding->nschemes > 0) && h1->info->trusted;
}

/* The exchange for a request; NULL: it is refused. */
static as_exchange *make_exchange(as_h1 *h1, as_head *head, size_t body) {
    as_exchange *ex = as__h1_exchange_new(h1, head);
    if (ex == NULL) {
        refuse_plainly(h1, AS_E_NOMEM);
        return NULL;
    }
    h1->ex = ex;
    h1->undispatched = false;
    h1->eof_told = false;
    h1->env->requests++;
    ex->received = body;
    ex->req = h1->state == AS_H1_AT_END ? AS_REQ_DONE : AS_REQ_BODY;
    ex->wants_continue = head->expect_continue && body == 0 && ex->req == AS_REQ_BODY;
    if (h1->env->timed) {
        ex->started = as_microseconds();
    }
    as_err err = is_forwarded(h1, head) ? as_forward(h1->env->forwarding, ex) : AS_OK;
    if (err != AS_OK) {
        ex->released = true; /* the gateway has not heard of it */
        refuse_plainly(h1, err);
        return NULL;
    }
    return ex;
}

static void count_request(as_h1_env *env) {
    if (++env->requests_total == env->requests_mark) {
        env->marked = true;
    }
}

/* Neither the application nor the access log hears of it, and no limit applies. Draining says
 * nothing: a worker that retires has a successor. */
static void dispatch_health(as_h1 *h1, as_head *head) {
    const as_h1_env *env = h1->env;
    as_exchange *ex = make_exchange(h1, head, take_gathered(h1).n);
    if (ex != NULL) {
        (void)as__h1_answer_health(ex, !env->unhealthy);
        as_exchange_release(ex); /* cuts what could not be written */
        as__h1_settle(h1);
    }
}

static void dispatch(as_h1 *h1, as_head *head) {
    as_h1_env *env = h1->env;
    uint32_t limit = env->limits->limit_concurrency;
    if (as__h1_is_health(env, head)) {
        dispatch_health(h1, head);
        return;
    }
    if (limit != 0 && env->requests >= limit) {
        env->overloaded++;
        refuse_plainly(h1, AS_E_OVERLOADED);
        return;
    }
    as_slice body = take_gathered(h1);
    as_exchange *ex = make_exchange(h1, head, body.n);
    if (ex == NULL) {
        return;
    }
    count_request(env);
    env->handlers->on_request(env->ctx, ex, body);
    keep_head(h1, ex);
    as__h1_settle(h1);
    tell_eof(h1);
}

/* More of a body, to the exchange that waits for it. */
static void deliver(as_h1 *h1, as_exchange *ex) {
    const as_h1_env *env = h1->env;
    as_slice body = take_gathered(h1);
    if (body.n > 0 || h1->state == AS_H1_AT_END) {
        ex->wants_continue = false; /* RFC 9110, 10.1.1: a client that sends waits for nothing */
    }
    if (body.n > 0) {
        ex->received += body.n;
        env->handlers->on_body(env->ctx, ex, body);
    }
    if (h1->state == AS_H1_AT_END && !ex->aborted && ex->res != AS_RES_DONE) {
        ex->req = AS_REQ_DONE;
        env->handlers->on_end(env->ctx, ex);
    }
    as__h1_settle(h1);
    tell_eof(h1);
}

/* The body of an answered request is dropped, to get at the next one. */
static void discard(as_h1 *h1, size_t n) {
    h1->env->gathered = (as_slice){NULL, 0};
    if (h1->state == AS_H1_AT_END) {
        h1->state = AS_H1_AT_START;
    } else if (n > h1->discard) {
        close_gently(h1, AS_OK);
    } else {
        h1->discard -= (uint32_t)n;
    }
}

/* --- steps ---------------------------------------------------------------------------------- */

/* RFC 9112, 2.2: empty lines in front of a request are tolerated; a bare CR or LF is not. */
static char *skip_empty_lines(as_h1 *h1, char *p, char *end) {
    while (p < end && *p == (h1->after_cr ? '\n' : '\r')) {
        h1->after_cr = !h1->after_cr;
        h1->skipped++;
        p++;
    }
    if (h1->skipped > h1->env->limits->limit_request_head ||
        (p < end && (h1->after_cr || *p == '\n'))) {
        as__h1_refuse(h1, AS_E_REQUEST_LINE, AS_SLICE("line end"), h1->skipped);
        return end;
    }
    return p;
}

/* A head as it came before. What a proxy tells is written into a head, which is then its request's
 * alone. */
static as_head *recall_head(const as_h1 *h1, const char *p, const char *end) {
    as_head *head = as_head_cache_find(h1->env->heads, p, (size_t)(end - p));
    return head != NULL && is_forwarded(h1, head) ? NULL : head;
}

/* Behind a head: what has come of the body goes along with the request. */
static inline as_h1_got begin_request(as_h1 *h1, as_head *head, char **p, char *end) {
    as_h1_got got = AS_H1_GOT_ALL;
    as__h1_begin_body(h1, head);
    h1->undispatched = true;
    if (h1->state != AS_H1_AT_END && *p < end) {
        got = as__h1_parse_body(h1, p, end);
    }
    if (got != AS_H1_GOT_ERROR) {
        dispatch(h1, head);
    }
    return got;
}

/* A request without parsing it: its head came before, and has no body. */
static char *repeat_head(as_h1 *h1, char *p, char *end, as_head *head) {
    as_head_keep(head); /* another may take its place in the cache meanwhile */
    p += head->len;
    h1->offset = head->len;
    h1->env->scratch->head.is_head = head->is_head; /* for refusals */
    (void)begin_request(h1, head, &p, end);
    as_head_unref(head);
    return p;
}

static char *read_start(as_h1 *h1, char *p, char *end) {
    p = skip_empty_lines(h1, p, end);
    if (p == end) {
        return end;
    }
    h1->skipped = 0;
    as_head *head = recall_head(h1, p, end);
    if (head != NULL) {
        return repeat_head(h1, p, end, head);
    }
    if (!as__h1_begin_head(h1)) {
        as__h1_stop(h1, AS_H1_DEAD, AS_E_NOMEM);
        return end;
    }
    return p;
}

static char *read_head(as_h1 *h1, char *p, char *end) {
    as_head *head;
    as_h1_got got = as__h1_parse_head(h1, &p, end, &head);
    if (got == AS_H1_GOT_ALL) {
        as_head_cache_offer(h1->env->heads, head);
        got = begin_request(h1, head, &p, end);
        drop_saved(h1);
    }
    return got == AS_H1_GOT_ERROR ? end : p;
}

static char *read_body(as_h1 *h1, char *p, char *end) {
    char *from = p;
    if (as__h1_parse_body(h1, &p, end) == AS_H1_GOT_ERROR) {
        return end;
    }
    if (h1->ex != NULL) {
        deliver(h1, h1->ex);
    } else {
        discard(h1, (size_t)(p - from));
    }
    return p;
}

static char *read_tunnel(as_h1 *h1, char *p, char *end) {
    as_exchange *ex = h1->ex;
    as_slice data = {p, (size_t)(end - p)};
    h1->env->handlers->on_body(h1->env->ctx, ex, data);
    size_t untaken = (size_t)ex->untaken;
    ex->untaken = 0;
    ex->received += data.n - untaken;
    h1->yielded = untaken > 0 && !ex->paused && !is_stopped(h1);
    as__h1_settle(h1);
    return end - untaken;
}

/* A client that sends requests and reads no answers does not get more and more of them made. */
static bool waits_for_reader(as_h1 *h1) {
    const as_h1_env *env = h1->env;
    if (h1->out.size <= env->limits->limit_write_buffer) {
        return false;
    }
    (void)env->flush(h1);
    if (h1->out.size <= env->limits->limit_write_buffer) {
        return false;
    }
    h1->above_high = true;
    return true;
}

static bool is_blocked(as_h1 *h1) {
    if (is_stopped(h1)) {
        return true;
    }
    if (h1->ex != NULL) {
        return h1->state == AS_H1_AT_END || h1->ex->paused;
    }
    return h1->state == AS_H1_AT_START && waits_for_reader(h1);
}

/* Requests that follow another one at once have the loop's turn together, of all connections: then
 * who sends one at a time is served. */
static bool is_turn_over(as_h1_env *env) {
    if (!env->turn_over && env->turn_end != 0 && ++env->pipelined % PIPELINED_UNWATCHED == 0) {
        env->turn_over = as_microseconds() >= env->turn_end;
    }
    return env->turn_over;
}

/* How many bytes were taken. */
static size_t run(as_h1 *h1, char *data, size_t n) {
    char *p = data, *end = data + n;
    h1->yielded = false;
    while (p < end && !h1->yielded && !is_blocked(h1)) {
        if (h1->state == AS_H1_AT_START && p > data && is_turn_over(h1->env)) {
            h1->yielded = true;
            break;
        }
        switch ((as_h1_state)h1->state) {
        case AS_H1_AT_START:
            p = read_start(h1, p, end);
            break;
        case AS_H1_AT_HEAD:
            p = read_head(h1, p, end);
            break;
        case AS_H1_AT_TUNNEL:
            p = read_tunnel(h1, p, end);
            break;
        default:
            p = read_body(h1, p, end);
            break;
        }
    }
    if (is_stopped(h1)) {
        h1->linger = h1->linger || p < end; /* a client that said it would not, sends on */
        return n;
    }
    return (size_t)(p - data);
}

static void drop_pending(as_h1 *h1) {
    as_buf_fini(&h1->pending, h1->env->pool);
    h1->pending_off = 0;
}

/* The bytes stay where they are while they are parsed: requests that wait behind one another are
 * not moved once for each of them. */
static void run_pending(as_h1 *h1) {
    if (h1->pending.len == 0) {
        return;
    }
    as_buf bytes = h1->pending;
    h1->pending_off += run(h1, bytes.data + h1->pending_off, bytes.len - h1->pending_off);
    if (h1->pending_off == bytes.len || is_stopped(h1)) {
        drop_pending(h1);
    }
}

static as_err append_pending(as_h1 *h1, const char *p, size_t n) {
    if (h1->pending_off > 0 && h1->pending.cap - h1->pending.len < n) {
        as_buf_consume(&h1->pending, h1->pending_off);
        h1->pending_off = 0;
    }
    return as_buf_append(&h1->pending, h1->env->pool, p, n);
}

static void end_tunnel_input(as_h1 *h1) {
    if (h1->ex->req == AS_REQ_BODY) {
        h1->ex->req = AS_REQ_DONE;
        h1->eof_told = true;
        h1->env->handlers->on_eof(h1->env->ctx, h1->ex);
        as__h1_settle(h1);
    }
}

/* The client's side has ended, and so have its bytes. */
static void end_input(as_h1 *h1) {
    if (!h1->eof || is_stopped(h1) || h1->pending.len > 0) {
        return;
    }
    if (h1->state == AS_H1_AT_TUNNEL) {
        end_tunnel_input(h1);
    } else if (h1->state == AS_H1_AT_START || (h1->ex == NULL && h1->state > AS_H1_AT_HEAD)) {
        as__h1_stop(h1, AS_H1_CLOSING, AS_OK);
    } else if (h1->state != AS_H1_AT_END) {
        refuse_plainly(h1, AS_E_TRUNCATED);
    }
}

/* Every way in from the connection is bracketed by these. */
static void enter(as_h1 *h1) {
    h1->feeding = true;
}

/* Nothing of a request is being parsed. */
static inline void give_parser_back(as_h1 *h1) {
    if (h1->env->parser == NULL) {
        h1->env->parser = h1->parser;
    } else {
        free(h1->parser);
    }
    h1->parser = NULL;
}

static void leave(as_h1 *h1) {
    end_input(h1);
    as__h1_update_phase(h1);
    if (h1->parser != NULL && h1->state != AS_H1_AT_HEAD && h1->state != AS_H1_AT_CHUNKS) {
        give_parser_back(h1);
    }
    h1->feeding = false;
}

/* --- for the loop --------------------------------------------------------------------------- */

as_err as_h1_env_init(as_h1_env *env) {
    env->scratch = as__h1_scratch_new();
    env->lines = calloc(AS_LINES, sizeof(*env->lines));
    env->heads = as_head_cache_new();
    if (env->scratch == NULL || env->lines == NULL || env->heads == NULL) {
        as_h1_env_fini(env);
        return AS_E_NOMEM;
    }
    return AS_OK;
}

void as_h1_env_fini(as_h1_env *env) {
    as__h1_scratch_free(env->scratch);
    env->scratch = NULL;
    free(env->parser);
    env->parser = NULL;
    free(env->lines);
    env->lines = NULL;
    as_head_cache_free(env->heads);
    env->heads = NULL;
    while (env->free_exchanges != NULL) {
        as_exchange *ex = env->free_exchanges;
        env->free_exchanges = ex->next;
        as__h1_exchange_free(ex);
    }
}

/* --- for the connection --------------------------------------------------------------------- */

void as_h1_init(as_h1 *h1, as_h1_env *env, as_conn_info *info) {
    *h1 = (as_h1){.env = env, .info = info};
    as_outq_init(&h1->out, env->pool);
}

void as_h1_fini(as_h1 *h1, as_err why) {
    enter(h1);
    as__h1_stop(h1, AS_H1_DEAD, why);
    if (h1->ex != NULL) {
        abort_exchange(h1, why);
    }
    drop_saved(h1);
    drop_pending(h1);
    as_outq_fini(&h1->out);
    free(h1->parser);
    h1->parser = NULL;
}

void as_h1_feed(as_h1 *h1, char *data, size_t n) {
    if (is_stopped(h1)) {
        return;
    }
    enter(h1);
    size_t used = h1->pending.len == 0 ? run(h1, data, n) : 0;
    if (used < n && append_pending(h1, data + used, n - used) != AS_OK) {
        as__h1_stop(h1, AS_H1_DEAD, AS_E_NOMEM);
    }
    leave(h1);
}

void as_h1_resume(as_h1 *h1) {
    bool drained = h1->above_high && h1->out.size <= h1->env->limits->limit_write_buffer / 4;
    h1->above_high = h1->above_high && !drained;
    if (is_stopped(h1)) {
        return;
    }
    enter(h1);
    if (drained && h1->ex != NULL) {
        h1->env->handlers->on_drain(h1->env->ctx, h1->ex);
        as__h1_settle(h1);
    }
    run_pending(h1);
    leave(h1);
}

void as_h1_eof(as_h1 *h1) {
    h1->eof = true;
    if (is_stopped(h1)) {
        return;
    }
    enter(h1);
    tell_eof(h1);
    run_pending(h1);
    leave(h1);
}

void as_h1_disconnect(as_h1 *h1) {
    const as_handlers *handlers = h1->env->handlers;
    if (h1->ex == NULL || h1->ex->released || h1->eof_told) {
        return;
    }
    enter(h1);
    if (handlers->on_shutdown != NULL) {
        handlers->on_shutdown(h1->env->ctx, h1->ex);
    } else {
        h1->eof_told = true;
        handlers->on_eof(h1->env->ctx, h1->ex);
    }
    as__h1_settle(h1);
    leave(h1);
}

void as_h1_alarm(as_h1 *h1) {
    if (is_stopped(h1) || h1->ex == NULL) {
        return;
    }
    enter(h1);
    h1->env->handlers->on_alarm(h1->env->ctx, h1->ex);
    as__h1_settle(h1);
    leave(h1);
}

void as_h1_timeout(as_h1 *h1) {
    enter(h1);
    switch (as_h1_get_phase(h1)) {
    case AS_H1_IDLE:
        as__h1_stop(h1, AS_H1_CLOSING, AS_OK);
        break;
    case AS_H1_HEAD:
        refuse_plainly(h1, AS_E_TIMEOUT_HEAD);
        break;
    case AS_H1_BODY:
        if (h1->ex != NULL) {
            refuse_plainly(h1, AS_E_TIMEOUT_BODY);
        } else {
            as__h1_stop(h1, AS_H1_CLOSING, AS_OK);
        }
        break;
    default:
        break; /* nothing is expected of the client */
    }
    leave(h1);
}

void as_h1_refuse(as_h1 *h1, as_err why) {
    enter(h1);
    refuse_plainly(h1, why);
    leave(h1);
}

void as_h1_hang_up(as_h1 *h1, as_err why) {
    close_gently(h1, why);
}

void as_h1_drain(as_h1 *h1) {
    if (h1->phase == AS_H1_IDLE) {
        as__h1_stop(h1, AS_H1_CLOSING, AS_OK);
    }
}

bool as_h1_wants_read(const as_h1 *h1) {
    return !is_stopped(h1) && !h1->eof && (h1->ex == NULL || !h1->ex->paused) &&
           h1->pending.len - h1->pending_off < h1->env->limits->limit_pipeline;
}

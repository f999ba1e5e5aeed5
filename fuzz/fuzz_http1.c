/* Requests through the whole of HTTP/1, with an application behind it.
 *
 * Of applications that answer complete requests: what arrives whole, byte by byte and in parts is
 * the same, requests and answers alike, and so is what arrives where the same heads came before;
 * every request that is accepted is the one that an independent reading of RFC 9112 finds at this
 * place, and none that it finds is left lying; what leaves are whole responses, one for each
 * request, and nothing behind the one that closes. Of hasty applications, which answer before the
 * body, in part, not at all, or with a tunnel: as far as the bytes can tell.
 *
 * The first four bytes of an input choose the application, the limits and the parts; the rest comes
 * from the client. */
#include "connection.h"
#include "reference.h"

enum { CHOICES = 4 };

typedef enum manner {
    AT_END,    /* answers inside of the handler that completes the request */
    PAUSING,   /* so, and takes the body piece by piece */
    LATER,     /* answers outside of handlers */
    HASTY,     /* answers at once */
    STREAMING, /* gives the body back as it comes */
    LEAVING,   /* releases without an answer */
    REFUSING,
    UPGRADING,
    MANNERS
} manner;

typedef struct setup {
    manner manner;
    bool small; /* limits that an input reaches */
    bool eof, timeout, drain, wants_body, flushes;
    uint8_t parts;
} setup;

static setup choose(const uint8_t *choices) {
    uint8_t flags = choices[1];
    return (setup){.manner = (manner)(choices[0] % MANNERS),
                   .small = (flags & 1) != 0,
                   .eof = (flags & 2) != 0,
                   .wants_body = (flags & 4) != 0,
                   .timeout = (flags & 8) != 0,
                   .drain = (flags & 16) != 0,
                   .flushes = (flags & 32) != 0,
                   .parts = choices[2]};
}

/* One run: a connection, its application, and what was seen. */
typedef struct world {
    connection c;
    const setup *with;
    as_exchange *ex; /* that runs */
    as_buf request;  /* of it: what the protocol told */
    as_buf body;     /* of it */
    as_buf requests; /* all complete ones */
    as_buf messages; /* the same in the form of the reference */
    as_buf heads;    /* for each answer: 'H' to a HEAD, else '-' */
    unsigned ended;  /* requests that are complete */
    size_t answers;  /* bytes of `out` in front of a refusal */
} world;

/* --- the application ------------------------------------------------------------------------ */

static const as_bytes no_bytes = {"", 0, NULL, NULL, NULL};

static as_bytes bytes_of(as_slice s) {
    return (as_bytes){s.p, s.n, NULL, NULL, NULL};
}

static void begin(world *w, as_exchange *ex) {
    put_text(&w->heads, ex->head->is_head ? "H" : "-");
    MUST(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
}

static void answer(world *w, as_exchange *ex) {
    w->ex = NULL;
    begin(w, ex);
    MUST(as_exchange_body(ex, bytes_of(AS_SLICE("ok")), false) == AS_OK);
    as_exchange_release(ex);
}

static void describe(world *w, const as_exchange *ex) {
    const as_head *head = ex->head;
    as_buf *to = &w->request;
    put_slice(to, as_head_slice(head, head->method));
    put_text(to, " ");
    put_slice(to, as_head_slice(head, head->target));
    put_text(to, "\n");
    put_slice(to, as_head_slice(head, head->path));
    put_text(to, "?");
    put_slice(to, as_head_slice(head, head->query));
    put_text(to, "@");
    put_slice(to, as_head_slice(head, head->authority));
    put_number(to, head->minor);
    put_number(to, head->body);
    put_number(to, head->keep_alive);
    put_number(to, head->upgrade);
    for (uint32_t i = 0; i < head->nfields; i++) {
        put_number(to, head->fields[i].name_id);
        put_slice(to, as_field_name(head, &head->fields[i]));
        put_text(to, ":");
        put_slice(to, as_field_value(head, &head->fields[i]));
        put_text(to, "\n");
    }
}

static void put_message(as_buf *to, as_slice method, as_slice target, const as_buf *body) {
    put_slice(to, method);
    put_text(to, " ");
    put_slice(to, target);
    put_number(to, (int64_t)body->len);
    put_slice(to, logged(body));
    put_text(to, "\n");
}

static void complete(world *w, as_exchange *ex) {
    const as_head *head = ex->head;
    MUST(ex->received == w->body.len);
    put_slice(&w->requests, logged(&w->request));
    put_slice(&w->requests, logged(&w->body));
    put_text(&w->requests, "\n");
    put_message(&w->messages, as_head_slice(head, head->method), as_head_slice(head, head->target),
                &w->body);
    w->ended++;
    if (w->with->manner <= PAUSING) {
        answer(w, ex);
    } else if (w->with->manner == STREAMING) {
        w->ex = NULL;
        MUST(as_exchange_end(ex) == AS_OK);
        as_exchange_release(ex);
    }
}

static void take(world *w, as_exchange *ex, as_slice data) {
    put_slice(&w->body, data);
    if (w->with->manner == STREAMING && !ex->aborted) {
        MUST(as_exchange_body(ex, bytes_of(data), true) == AS_OK);
        if (w->with->flushes) {
            (void)as_exchange_flush(ex);
        }
    }
    if (w->with->manner == PAUSING && ex->req == AS_REQ_BODY) {
        as_exchange_pause(ex);
    }
}

static void upgrade(as_exchange *ex) {
    static const as_slice pairs[] = {TEXT("upgrade"), TEXT("bytes")};
    as_err err = as_exchange_upgrade(ex, pairs, 2);
    MUST((err == AS_OK) == (ex->req == AS_REQ_BODY && ex->res == AS_RES_BODY));
    if (err != AS_OK) {
        MUST(err == AS_E_RESPONSE_STATE);
        as_exchange_release(ex);
    }
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    world *w = ctx;
    MUST(w->ex == NULL);
    w->request.len = w->body.len = 0;
    describe(w, ex);
    if (w->with->wants_body) {
        as_exchange_want_body(ex);
    }
    switch (w->with->manner) {
    case HASTY:
        answer(w, ex);
        return;
    case LEAVING:
        as_exchange_release(ex);
        return;
    case REFUSING:
        MUST(as_exchange_refuse(ex, AS_E_WS_VERSION) == AS_OK);
        as_exchange_release(ex);
        return;
    case STREAMING:
        begin(w, ex);
        break;
    default:
        break;
    }
    w->ex = ex;
    take(w, ex, body);
    if (w->with->manner == UPGRADING) {
        w->ex = ex->req == AS_REQ_DONE ? ex : NULL;
        upgrade(ex);
        w->ex = w->ex != NULL && ex->res == AS_RES_BODY ? ex : NULL;
    } else if (ex->req == AS_REQ_DONE) {
        complete(w, ex);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    world *w = ctx;
    MUST(data.n > 0 && !ex->paused && ex->req == AS_REQ_BODY && ex == w->ex);
    if (w->with->manner == UPGRADING) {
        MUST(as_exchange_body(ex, bytes_of(data), true) == AS_OK);
        return;
    }
    take(w, ex, data);
}

static void on_end(void *ctx, as_exchange *ex) {
    MUST(ex->req == AS_REQ_DONE && ex == ((world *)ctx)->ex);
    complete(ctx, ex);
}

static void on_eof(void *ctx, as_exchange *ex) {
    world *w = ctx;
    MUST((ex->req == AS_REQ_DONE || w->with->drain) && ex == w->ex);
    if (w->with->manner == UPGRADING) {
        w->ex = NULL;
        MUST(as_exchange_end(ex) == AS_OK);
        as_exchange_release(ex);
    }
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    world *w = ctx;
    MUST(ex->aborted && why != AS_OK && ex == w->ex);
    MUST(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_E_CLOSED);
    MUST(as_exchange_body(ex, no_bytes, false) == AS_E_CLOSED);
    w->ex = NULL;
    as_exchange_release(ex);
}

static void idle(connection *c) {
    world *w = (world *)(void *)c;
    if (w->ex != NULL && w->ex->paused) {
        as_exchange_resume(w->ex);
    } else if (w->ex != NULL && w->with->manner == LATER && w->ex->req == AS_REQ_DONE) {
        answer(w, w->ex);
    }
}

/* --- what must hold of one run --------------------------------------------------------------- */

/* Only complete requests are answered, and nothing disturbs. */
static bool is_steady(const setup *with) {
    return with->manner <= LATER && !with->timeout && !with->drain;
}

/* The requests are those that the reference reads, and it reads no more than those. */
static void check_requests(const world *w, as_slice bytes) {
    as_buf messages = {0};
    reading got = READ_MORE;
    for (unsigned i = 0; i <= w->ended; i++) {
        reference_request request = {0};
        got = reference_read(bytes, &request);
        if (i < w->ended) {
            MUST(got == READ_ALL);
            put_message(&messages, request.method, request.target, &request.body);
            bytes = (as_slice){bytes.p + request.size, bytes.n - request.size};
        }
        as_buf_fini(&request.body, NULL);
    }
    must_agree("requests and the reference's", &w->messages, &messages);
    as_buf_fini(&messages, NULL);
    bool serves_on = w->c.h1.phase < AS_H1_CLOSING;
    MUST(!serves_on || got != READ_ALL);
    if (got == READ_ALL && !w->with->small) {
        /* Other refusals are stricter than the grammar on purpose. */
        MUST(w->c.refused != AS_E_FIELD && w->c.refused != AS_E_TRUNCATED);
    }
}

/* The whole of the rest is a refusal; to a HEAD it has no body. */
static void check_refusal(as_slice bytes) {
    for (unsigned is_head = 0; is_head < 2; is_head++) {
        reference_response response;
        reading got = reference_read_response(bytes, is_head == 1, false, &response);
        bool is_refusal = got == READ_ALL && response.size == bytes.n && response.closes &&
                          response.status >= 400;
        reference_response_fini(&response);
        if (is_refusal) {
            return;
        }
    }
    MUST(!"a refusal");
}

/* Whole responses, as many as there were answers, and at most a refusal behind them. */
static void check_output(world *w) {
    as_slice bytes = logged(&w->c.out), heads = logged(&w->heads);
    bool closed = false;
    while (heads.n > 0) {
        reference_response response;
        MUST(!closed);
        MUST(reference_read_response(bytes, heads.p[0] == 'H', false, &response) == READ_ALL);
        MUST(response.status == 200 || response.status == 100);
        closed = response.closes;
        bytes = (as_slice){bytes.p + response.size, bytes.n - response.size};
        if (response.status == 200) {
            heads = (as_slice){heads.p + 1, heads.n - 1};
        }
        reference_response_fini(&response);
    }
    static const as_slice go_on = TEXT("HTTP/1.1 100 Continue\r\n\r\n");
    if (bytes.n >= go_on.n && memcmp(bytes.p, go_on.p, go_on.n) == 0) {
        bytes = (as_slice){bytes.p + go_on.n, bytes.n - go_on.n};
    }
    w->answers = w->c.out.len - bytes.n;
    if (bytes.n > 0) {
        MUST(!closed && w->c.h1.phase == AS_H1_CLOSING);
        check_refusal(bytes);
    }
}

/* --- runs ----------------------------------------------------------------------------------- */

static void set_limits(connection *c, const setup *with) {
    if (with->small) {
        c->limits.limit_request_line = 60;
        c->limits.limit_request_head = 160;
        c->limits.limit_request_fields = 5;
        c->limits.limit_request_field_size = 60;
        c->limits.limit_request_body = 30;
        c->limits.limit_body_discard = 10;
        c->limits.limit_pipeline = 50;
        c->limits.limit_write_buffer = 0;
    }
}

static void interrupt(world *w) {
    if (w->with->timeout) {
        as_h1_timeout(&w->c.h1);
    }
    if (w->with->drain) {
        w->c.env.draining = true;
        as_h1_drain(&w->c.h1);
        as_h1_disconnect(&w->c.h1);
    }
}

/* `before`: a run whose loop has parsed the same heads, and gives them away; or NULL. */
static world *run(const setup *with, as_slice bytes, uint32_t cut, world *before) {
    static const as_handlers handlers = {.on_request = on_request,
                                         .on_body = on_body,
                                         .on_end = on_end,
                                         .on_eof = on_eof,
                                         .on_abort = on_abort};
    world *w = calloc(1, sizeof(*w));
    MUST(w != NULL);
    connection_init(&w->c, &handlers);
    w->c.idle = idle;
    w->with = with;
    if (before != NULL) {
        struct as_head_cache *heads = w->c.env.heads;
        w->c.env.heads = before->c.env.heads;
        before->c.env.heads = heads;
    }
    set_limits(&w->c, with);
    size_t first = is_steady(with) ? 0 : bytes.n / 2;
    connection_feed(&w->c, (as_slice){bytes.p, first}, cut, false);
    if (first > 0) {
        interrupt(w);
        connection_turn(&w->c);
    }
    connection_feed(&w->c, (as_slice){bytes.p + first, bytes.n - first}, cut, with->eof);
    if (is_steady(with)) {
        check_requests(w, bytes);
    }
    if (with->manner <= LATER && w->c.h1.phase != AS_H1_DEAD) {
        check_output(w);
    }
    put_number(&w->requests, w->c.h1.phase);
    put_number(&w->requests, w->c.refused != AS_OK);
    return w;
}

static void end(world *w) {
    connection_fini(&w->c);
    MUST(w->ex == NULL);
    as_buf_fini(&w->request, NULL);
    as_buf_fini(&w->body, NULL);
    as_buf_fini(&w->requests, NULL);
    as_buf_fini(&w->messages, NULL);
    as_buf_fini(&w->heads, NULL);
    free(w);
}

/* Parts may change whether 100 Continue is due, */
static as_buf without_continue(const world *w, size_t size) {
    static const char interim[] = "HTTP/1.1 100 Continue\r\n\r\n";
    as_buf rest = {0};
    for (size_t i = 0; i < size;) {
        size_t n = sizeof(interim) - 1;
        if (size - i >= n && memcmp(w->c.out.data + i, interim, n) == 0) {
            i += n;
        } else {
            put(&rest, w->c.out.data + i++, 1);
        }
    }
    return rest;
}

/* and which of two faults is noticed, where one of them is a limit. */
static size_t compared(const world *w) {
    return w->with->small && w->c.refused != AS_OK ? w->answers : w->c.out.len;
}

static void compare(const world *whole, const world *cut) {
    must_agree("requests, whole and cut,", &whole->requests, &cut->requests);
    as_buf one = without_continue(whole, compared(whole)),
           other = without_continue(cut, compared(cut));
    must_agree("answers, whole and cut,", &one, &other);
    as_buf_fini(&one, NULL);
    as_buf_fini(&other, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < CHOICES) {
        return 0;
    }
    setup with = choose(data);
    as_slice bytes = {(const char *)data + CHOICES, size - CHOICES};
    uint32_t cuts[] = {BYTES, cut_of(with.parts)};
    world *whole = run(&with, bytes, WHOLE, NULL), *again = whole;
    for (int i = 0; i < 2; i++) { /* a head is kept when it comes again */
        world *next = run(&with, bytes, WHOLE, again);
        if (is_steady(&with)) {
            compare(whole, next);
        }
        if (again != whole) {
            end(again);
        }
        again = next;
    }
    end(again);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        world *cut = run(&with, bytes, cuts[i], NULL);
        if (is_steady(&with)) {
            compare(whole, cut);
        }
        end(cut);
    }
    end(whole);
    return 0;
}

/* Chunked bodies, both ways.
 *
 * In: what a client sends behind a head with Transfer-Encoding: chunked gives the same body and
 * the same end whole, byte by byte and in parts; what is accepted is what an independent decoder
 * reads. Out: whatever pieces an application gives, with trailers or without, the independent
 * decoder gets them back.
 *
 * The first three bytes of an input choose the limits and the parts. */
#include "connection.h"
#include "reference.h"

enum { CHOICES = 3 };

static const as_slice request =
    TEXT("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");

typedef struct world {
    connection c;
    as_buf body;
    unsigned ended;
    bool is_reading; /* the first request is with the application */
    input pieces;    /* of the answer */
    as_buf answer;   /* its body as the application gave it */
    as_buf trailers;
} world;

/* --- out ------------------------------------------------------------------------------------ */

static unsigned held;

static void hold(void *owner) {
    held += owner != NULL;
}

static void drop(void *owner) {
    held -= owner != NULL;
}

/* Pieces of the input, and once in a while a large one that is not copied. */
static void give_piece(world *w, as_exchange *ex, uint8_t kind) {
    static char large[AS_OUTQ_COPY_MAX + 1000];
    as_slice piece = take_string(&w->pieces);
    as_bytes bytes = {piece.p, piece.n, NULL, NULL, NULL};
    if (kind % 16 == 0) {
        memset(large, '0', sizeof(large));
        bytes = (as_bytes){large, sizeof(large) - piece.n, large, hold, drop};
    }
    put(&w->answer, bytes.p, bytes.n);
    MUST(as_exchange_body(ex, bytes, true) == AS_OK);
    if (kind & 64) {
        MUST(as_exchange_flush(ex) == AS_OK);
    }
}

static void give_trailer(world *w, as_exchange *ex) {
    as_slice value = take_string(&w->pieces);
    as_err err = as_exchange_trailer(ex, AS_SLICE("x-end"), value);
    MUST(err == AS_OK || err == AS_E_RESPONSE_VALUE);
    if (err == AS_OK) {
        value = as_trim(value);
        put_text(&w->trailers, "x-end: ");
        put_slice(&w->trailers, value);
        put_text(&w->trailers, "\n");
    }
}

static void answer(world *w, as_exchange *ex) {
    MUST(as_exchange_head_begin(ex, 200, AS_SLICE("")) == AS_OK);
    MUST(as_exchange_body(ex, (as_bytes){.p = ""}, true) == AS_OK);
    while (w->pieces.n > 0) {
        uint8_t kind = take_byte(&w->pieces);
        if (kind >= 0xf0) {
            give_trailer(w, ex);
        } else if (w->trailers.len == 0) {
            give_piece(w, ex, kind);
        }
    }
    MUST(as_exchange_end(ex) == AS_OK);
    as_exchange_release(ex);
}

static void check_answer(const world *w) {
    reference_response response;
    as_slice out = logged(&w->c.out);
    MUST(reference_read_response(out, false, false, &response) == READ_ALL);
    MUST(response.status == 200);
    must_agree("the body that was given and the one that left", &w->answer, &response.body);
    must_agree("trailers", &w->trailers, &response.trailers);
    reference_response_fini(&response);
}

/* --- in ------------------------------------------------------------------------------------- */

static void complete(world *w, as_exchange *ex) {
    MUST(ex->req == AS_REQ_DONE && ex->received == w->body.len);
    w->ended++;
    w->is_reading = false;
    answer(w, ex);
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    world *w = ctx;
    if (w->ended > 0) { /* what is behind the body is the http1 target's matter */
        as_exchange_release(ex);
        return;
    }
    w->is_reading = true;
    put_slice(&w->body, body);
    if (ex->req == AS_REQ_DONE) {
        complete(w, ex);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    world *w = ctx;
    MUST(data.n > 0 && w->is_reading && ex->req == AS_REQ_BODY);
    put_slice(&w->body, data);
}

static void on_end(void *ctx, as_exchange *ex) {
    complete(ctx, ex);
}

static world *run(const uint8_t *choices, as_slice body, uint32_t cut) {
    static const as_handlers handlers = {
        .on_request = on_request, .on_body = on_body, .on_end = on_end};
    world *w = calloc(1, sizeof(*w));
    MUST(w != NULL);
    connection_init(&w->c, &handlers);
    w->pieces = (input){(const uint8_t *)body.p, body.n};
    if (choices[0] & 1) {
        w->c.limits.limit_request_body = 100;
    }
    if (choices[0] & 2) {
        w->c.limits.limit_request_head = 128; /* trailers, and bytes that only frame */
    }
    as_buf bytes = {0};
    put_slice(&bytes, request);
    put_slice(&bytes, body);
    connection_feed(&w->c, logged(&bytes), cut, false);
    as_buf_fini(&bytes, NULL);
    return w;
}

static void check(const world *w, as_slice bytes) {
    as_buf body = {0};
    size_t size;
    reading got = reference_read_chunked(bytes, &body, &size);
    if (w->ended > 0) {
        MUST(got == READ_ALL);
        must_agree("the body that was read and the reference's", &w->body, &body);
        check_answer(w);
    } else {
        MUST(w->c.refused != AS_OK || got != READ_ALL);
        MUST(w->c.refused == AS_OK || w->c.h1.phase == AS_H1_CLOSING);
    }
    as_buf_fini(&body, NULL);
}

static void end(world *w) {
    connection_fini(&w->c);
    MUST(held == 0);
    as_buf_fini(&w->body, NULL);
    as_buf_fini(&w->answer, NULL);
    as_buf_fini(&w->trailers, NULL);
    free(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < CHOICES) {
        return 0;
    }
    as_slice bytes = {(const char *)data + CHOICES, size - CHOICES};
    uint32_t cuts[] = {BYTES, cut_of(data[1]), cut_of(data[2])};
    world *whole = run(data, bytes, WHOLE);
    check(whole, bytes);
    for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        world *cut = run(data, bytes, cuts[i]);
        MUST(cut->ended == whole->ended);
        MUST((cut->c.refused == AS_OK) == (whole->c.refused == AS_OK));
        if (whole->ended > 0) {
            must_agree("bodies, whole and cut,", &whole->body, &cut->body);
        }
        end(cut);
    }
    end(whole);
    return 0;
}

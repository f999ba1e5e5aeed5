/* WebSocket frames: what arrives whole, byte by byte and in parts is the same, whatever it is.
 *
 * The first three bytes of an input choose what was agreed on, the limit, and the parts; the rest
 * comes from the client. Every message is given back deflated, which zlib must understand. */
#include <stdlib.h>
#include <zlib.h>

#include "base/utf8.h"
#include "fuzz.h"
#include "http/websocket.h"

typedef struct setup {
    as_ws_deflate_params deflate;
    uint64_t max_size;
    uint8_t parts;
} setup;

enum { CHOICES = 3 };

static setup choose(const uint8_t *choices) {
    static const uint64_t limits[] = {0, 1, 100, 5000};
    uint8_t flags = choices[0], bits = choices[1];
    return (setup){
        .deflate = {.on = (flags & 1) != 0,
                    .server_no_takeover = (flags & 2) != 0,
                    .client_no_takeover = (flags & 4) != 0,
                    .server_bits = (uint8_t)(9 + (bits & 7) % 7),
                    .client_bits = (uint8_t)(8 + (bits >> 3 & 7))},
        .max_size = limits[flags >> 3 & 3],
        .parts = choices[2],
    };
}

/* What came of it, as two numbers. */
typedef struct outcome {
    uint64_t hash;
    uint64_t events;
} outcome;

static void add(outcome *to, const void *bytes, size_t n) { /* FNV-1a */
    const unsigned char *p = bytes;
    for (size_t i = 0; i < n; i++) {
        to->hash = (to->hash ^ p[i]) * UINT64_C(1099511628211);
    }
}

typedef struct peer {
    const setup *with;
    as_ws_env *env;
    as_ws *ws;
    z_stream inflater; /* the client's */
    outcome seen;
} peer;

static void give_back(peer *p, as_slice message) {
    as_slice out;
    MUST(as_ws_deflate(p->ws, message, &out) == AS_OK);
    if (p->with->deflate.server_no_takeover) {
        MUST(inflateReset(&p->inflater) == Z_OK);
    }
    char *whole = malloc(out.n + 4), *back = malloc(message.n + 1);
    memcpy(whole, out.p, out.n);
    memcpy(whole + out.n, "\x00\x00\xff\xff", 4);
    p->inflater.next_in = (Bytef *)whole;
    p->inflater.avail_in = (uInt)(out.n + 4);
    p->inflater.next_out = (Bytef *)back;
    p->inflater.avail_out = (uInt)message.n + 1;
    MUST(inflate(&p->inflater, Z_SYNC_FLUSH) == Z_OK);
    MUST(p->inflater.avail_in == 0 && p->inflater.avail_out == 1);
    MUST(message.n == 0 || memcmp(back, message.p, message.n) == 0);
    free(whole);
    free(back);
}

static bool is_ascii(as_slice text) {
    bool all = true;
    for (size_t i = 0; i < text.n; i++) {
        all = all && (unsigned char)text.p[i] < 0x80;
    }
    return all;
}

static void see(peer *p, const as_ws_event *event) {
    bool is_text = event->kind == AS_WS_MESSAGE_TEXT, is_close = event->kind == AS_WS_GOT_CLOSE;
    bool is_message = is_text || event->kind == AS_WS_MESSAGE_BINARY;
    MUST(!(is_text || is_close) || as_utf8_valid(event->data));
    MUST(event->is_ascii == (is_text && is_ascii(event->data)));
    MUST(!is_close || event->code == 1005 || as_ws_close_code_valid(event->code));
    MUST(is_message || event->data.n <= AS_WS_CONTROL_MAX);
    MUST(!is_message || p->with->max_size == 0 || event->data.n <= p->with->max_size);
    add(&p->seen, &event->kind, sizeof(event->kind));
    add(&p->seen, &event->code, sizeof(event->code));
    add(&p->seen, &event->data.n, sizeof(event->data.n));
    add(&p->seen, event->data.p, event->data.n);
    p->seen.events++;
    if (is_message && p->with->deflate.on) {
        give_back(p, event->data);
    }
}

/* From memory of its own, which is gone afterwards. */
static as_err feed(peer *p, const uint8_t *data, size_t n) {
    char *part = malloc(n > 0 ? n : 1);
    memcpy(part, data, n);
    as_ws_input in = {part, n};
    as_ws_event event;
    as_err err;
    while ((err = as_ws_next(p->ws, &in, &event)) == AS_OK && event.kind != AS_WS_NOTHING) {
        see(p, &event);
    }
    MUST(err != AS_OK || in.n == 0);
    free(part);
    return err;
}

/* The lengths of the parts follow from `parts`; 0: one part. */
static outcome run(const setup *with, const uint8_t *data, size_t size, uint32_t parts) {
    peer p = {
        .with = with, .env = as_ws_env_new(NULL), .seen = {UINT64_C(14695981039346656037), 0}};
    p.ws = as_ws_new(p.env, &with->deflate, with->max_size);
    MUST(inflateInit2(&p.inflater, -with->deflate.server_bits) == Z_OK);
    as_err err = AS_OK;
    for (size_t at = 0, n; at < size && err == AS_OK; at += n) {
        n = parts == 0 ? size : parts == 1 ? 1 : 1 + parts % 37;
        n = n < size - at ? n : size - at;
        err = feed(&p, data + at, n);
        parts = parts > 1 ? (parts * 1103515245 + 12345) | 2 : parts;
    }
    MUST(err != AS_E_NOMEM);
    add(&p.seen, &err, sizeof(err));
    (void)inflateEnd(&p.inflater);
    as_ws_free(p.ws);
    as_ws_env_free(p.env);
    return p.seen;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < CHOICES) {
        return 0;
    }
    setup with = choose(data);
    data += CHOICES;
    size -= CHOICES;
    outcome whole = run(&with, data, size, 0), bytes = run(&with, data, size, 1),
            parts = run(&with, data, size, with.parts | 2u);
    MUST(whole.events == bytes.events && whole.hash == bytes.hash);
    MUST(whole.events == parts.events && whole.hash == parts.hash);
    return 0;
}

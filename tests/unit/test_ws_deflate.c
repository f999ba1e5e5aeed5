/* permessage-deflate against zlib as the client, which has a context of its own for each direction:
 * in all combinations of parameters, with two connections in turn, so that what the env shares
 * between them is seen not to mix. */
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>

#include "http/websocket.h"

static unsigned failures;

static void fail(const as_ws_deflate_params *p, const char *what, size_t n) {
    fprintf(stderr, "server %s%d, client %s%d: %s %zu\n", p->server_no_takeover ? "no " : "",
            p->server_bits, p->client_no_takeover ? "no " : "", p->client_bits, what, n);
    failures++;
}

/* --- the client ----------------------------------------------------------------------------- */

enum { ROOM = 400000 };

typedef struct client {
    const as_ws_deflate_params *params;
    as_ws *ws;
    z_stream out, in;
    unsigned char *bytes; /* ROOM of them */
} client;

static void client_init(client *c, as_ws_env *env, const as_ws_deflate_params *params, int level,
                        int strategy) {
    *c = (client){.params = params, .ws = as_ws_new(env, params, ROOM)};
    /* zlib makes 9 of 8. */
    int bits = params->client_bits > 8 ? params->client_bits : 9;
    (void)deflateInit2(&c->out, level, Z_DEFLATED, -bits, 8, strategy);
    /* No larger window than agreed on: what builds on more is found. */
    (void)inflateInit2(&c->in, -params->server_bits);
    c->bytes = malloc(ROOM);
}

static void client_fini(client *c) {
    (void)deflateEnd(&c->out);
    (void)inflateEnd(&c->in);
    as_ws_free(c->ws);
    free(c->bytes);
}

/* A whole frame with what it compresses to. */
static as_slice client_frame(client *c, as_slice data) {
    enum { HEADER = 14 };
    if (c->params->client_no_takeover) {
        (void)deflateReset(&c->out);
    }
    c->out.next_in = (Bytef *)(uintptr_t)data.p;
    c->out.avail_in = (uInt)data.n;
    c->out.next_out = c->bytes + HEADER;
    c->out.avail_out = ROOM - HEADER;
    (void)deflate(&c->out, Z_SYNC_FLUSH);
    size_t n = ROOM - HEADER - c->out.avail_out - 4;
    if (data.n == 0) { /* of which zlib makes nothing when it has just been flushed */
        c->bytes[HEADER] = 0;
        n = 1;
    }
    char header[AS_WS_FRAME_HEADER_MAX];
    size_t size = as_ws_frame_header(header, AS_WS_BINARY, true, n);
    unsigned char *start = c->bytes + HEADER - 4 - size;
    memcpy(start, header, size);
    start[1] |= 0x80;
    memset(start + size, 0, 4);
    return (as_slice){(char *)start, size + 4 + n};
}

/* Feeds it in parts of `part` bytes; the message is the last event. */
static as_err send_frame(client *c, as_slice frame, size_t part, as_ws_event *event) {
    as_err err = AS_OK;
    for (size_t at = 0; at < frame.n && err == AS_OK; at += part) {
        as_ws_input in = {(char *)(uintptr_t)frame.p + at,
                          part < frame.n - at ? part : frame.n - at};
        err = as_ws_next(c->ws, &in, event);
    }
    return err;
}

static void client_sends(client *c, as_slice data, size_t part) {
    as_ws_event event;
    as_err err = send_frame(c, client_frame(c, data), part, &event);
    if (err != AS_OK || event.kind != AS_WS_MESSAGE_BINARY || !as_slice_eq(event.data, data)) {
        fail(c->params, err != AS_OK ? as_err_text(err) : "another message arrives", data.n);
    }
}

static void client_receives(client *c, as_slice data) {
    as_slice deflated;
    if (as_ws_deflate(c->ws, data, &deflated) != AS_OK || deflated.n == 0) {
        fail(c->params, "is not deflated", data.n);
        return;
    }
    if (c->params->server_no_takeover) {
        (void)inflateReset(&c->in);
    }
    unsigned char *whole = malloc(deflated.n + 4);
    memcpy(whole, deflated.p, deflated.n);
    memcpy(whole + deflated.n, "\x00\x00\xff\xff", 4);
    c->in.next_in = whole;
    c->in.avail_in = (uInt)deflated.n + 4;
    c->in.next_out = c->bytes;
    c->in.avail_out = ROOM;
    int status = inflate(&c->in, Z_SYNC_FLUSH);
    as_slice got = {(char *)c->bytes, ROOM - c->in.avail_out};
    if (status != Z_OK || c->in.avail_in != 0 || !as_slice_eq(got, data)) {
        fail(c->params, c->in.msg != NULL ? c->in.msg : "another message leaves", data.n);
    }
    free(whole);
}

/* --- round trips ---------------------------------------------------------------------------- */

/* Text with repetitions near and far; `seed` makes it another one. */
static void make_text(char *out, size_t n, unsigned seed) {
    static const char *const words[] = {"{\"id\":", "\"name\"",   "websocket", ", ", "hello ",
                                        "0123456",  "\xc3\xa4  ", "frame\n",   "}",  "compressed"};
    for (size_t at = 0; at < n;) {
        seed = seed * 1103515245 + 12345;
        const char *word = words[(seed >> 16) % 10];
        size_t size = strlen(word);
        size = size < n - at ? size : n - at;
        memcpy(out + at, word, size);
        at += size;
    }
}

static void make_noise(char *out, size_t n, unsigned seed) {
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1103515245 + 12345;
        out[i] = (char)(seed >> 16);
    }
}

static const size_t sizes[] = {0, 1, 20, 64, 300, 0, 511, 512, 513, 4096, 100, 5000, 20, 70000, 3};

static void round_trips(as_ws_env *env, const as_ws_deflate_params *params, int level,
                        int strategy) {
    static char data[70000];
    client clients[2];
    for (int i = 0; i < 2; i++) {
        client_init(&clients[i], env, params, level, strategy);
    }
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]) * 2; i++) {
        client *c = &clients[i % 2];
        as_slice message = {data, sizes[i / 2]};
        (i % 5 == 4 ? make_noise : make_text)(data, message.n, i);
        client_sends(c, message, i % 3 == 0 ? SIZE_MAX / 2 : 1000);
        client_receives(c, message);
    }
    for (int i = 0; i < 2; i++) {
        client_fini(&clients[i]);
    }
}

static void test_every_combination(void) {
    as_ws_env *env = as_ws_env_new(NULL);
    for (unsigned flags = 0; flags < 4; flags++) {
        for (uint8_t server = 9; server <= 15; server++) {
            for (uint8_t bits = 8; bits <= 15; bits++) {
                as_ws_deflate_params params = {true, (flags & 1) != 0, (flags & 2) != 0, server,
                                               bits};
                round_trips(env, &params, 6, Z_DEFAULT_STRATEGY);
            }
        }
    }
    as_ws_env_free(env);
}

/* Stored, fixed, and other kinds of blocks. */
static void test_every_strategy(void) {
    static const as_ws_deflate_params params = {true, false, false, 15, 15};
    as_buf_pool pool;
    as_buf_pool_init(&pool, 2);
    as_ws_env *env = as_ws_env_new(&pool);
    for (int level = 0; level <= 9; level++) {
        for (int strategy = Z_DEFAULT_STRATEGY; strategy <= Z_FIXED; strategy++) {
            round_trips(env, &params, level, strategy);
        }
    }
    as_ws_env_free(env);
    as_buf_pool_fini(&pool);
}

/* --- what builds on the message before -------------------------------------------------------- */

typedef struct bits {
    unsigned char bytes[16];
    size_t n; /* bits */
} bits;

static void put(bits *out, unsigned value, unsigned n) { /* the least one first */
    for (unsigned i = 0; i < n; i++, out->n++) {
        out->bytes[out->n / 8] |= (unsigned char)((value >> i & 1) << out->n % 8);
    }
}

static void put_code(bits *out, unsigned code, unsigned n) { /* RFC 1951, 3.1.1: Huffman codes */
    while (n-- > 0) {
        put(out, code >> n & 1, 1);
    }
}

/* Three bytes from 512 or 513 bytes before, in a frame. */
static size_t copy_frame(char *frame, unsigned distance) {
    bits out = {.n = 0};
    put(&out, 2, 3);       /* not the last one, fixed codes */
    put_code(&out, 1, 7);  /* length 3 */
    if (distance == 512) { /* 3.2.5: code 17 begins with 385, code 18 with 513 */
        put_code(&out, 17, 5);
        put(&out, 512 - 385, 7);
    } else {
        put_code(&out, 18, 5);
        put(&out, 0, 8);
    }
    put_code(&out, 0, 7);
    put(&out, 0, 3); /* the beginning of the empty stored block */
    size_t n = (out.n + 7) / 8;
    memcpy(frame, "\xc2\x80\0\0\0\0", 6);
    frame[1] = (char)(0x80 | n);
    memcpy(frame + 6, out.bytes, n);
    return 6 + n;
}

/* A whole window is remembered, and no byte more. */
static void test_distance(unsigned distance, as_err expected) {
    static const as_ws_deflate_params params = {true, false, false, 15, 9};
    char noise[700], frame[32];
    as_ws_event event;
    as_ws_env *env = as_ws_env_new(NULL);
    client c;
    client_init(&c, env, &params, 0, Z_DEFAULT_STRATEGY);
    make_noise(noise, sizeof(noise), 1);
    client_sends(&c, (as_slice){noise, sizeof(noise)}, 100);
    size_t n = copy_frame(frame, distance);
    as_err err = send_frame(&c, (as_slice){frame, n}, n, &event);
    as_slice copied = {noise + sizeof(noise) - distance, 3};
    if (err != expected || (err == AS_OK && !as_slice_eq(event.data, copied))) {
        fail(&params, as_err_text(err), distance);
    }
    client_fini(&c);
    as_ws_env_free(env);
}

/* --- limits --------------------------------------------------------------------------------- */

/* A frame of zeros, `n` of them before they were deflated. */
static as_slice make_bomb(size_t n, unsigned char *out, size_t room) {
    z_stream z = {0};
    char zeros[4096] = {0};
    (void)deflateInit2(&z, 9, Z_DEFLATED, -15, 9, Z_DEFAULT_STRATEGY);
    z.next_out = out + 14;
    z.avail_out = (uInt)(room - 14);
    for (size_t at = 0; at < n; at += sizeof(zeros)) {
        z.next_in = (Bytef *)zeros;
        z.avail_in = sizeof(zeros);
        (void)deflate(&z, at + sizeof(zeros) < n ? Z_NO_FLUSH : Z_SYNC_FLUSH);
    }
    size_t size = room - 14 - z.avail_out - 4;
    (void)deflateEnd(&z);
    memset(out, 0, 14);
    (void)as_ws_frame_header((char *)out, AS_WS_BINARY, true, size);
    out[1] |= 0x80;
    return (as_slice){(char *)out, 14 + size};
}

static void test_bomb(void) {
    enum { ZEROS = 100 * 1024 * 1024, LIMIT = 1024 * 1024 };
    static const as_ws_deflate_params params = {true, false, false, 15, 15};
    unsigned char *bytes = malloc(ROOM);
    for (int limited = 0; limited < 2; limited++) {
        as_slice frame = make_bomb(ZEROS, bytes, ROOM);
        as_ws_env *env = as_ws_env_new(NULL);
        as_ws *ws = as_ws_new(env, &params, limited ? LIMIT : ZEROS);
        as_ws_event event;
        as_ws_input in = {(char *)(uintptr_t)frame.p, frame.n};
        as_err err = as_ws_next(ws, &in, &event);
        if (err != (limited ? AS_E_WS_LARGE : AS_OK) || event.data.n != (limited ? 0 : ZEROS)) {
            fail(&params, "a bomb", event.data.n);
        }
        as_ws_free(ws);
        as_ws_env_free(env);
    }
    free(bytes);
}

/* Exactly as large as allowed, also where that is the end of a piece of output. */
static void test_exact_limit(void) {
    static const as_ws_deflate_params params = {true, false, false, 15, 15};
    static const size_t limits[] = {1, 100, 16383, 16384, 16385, 32768, 65536, 131072};
    static char data[131073];
    make_text(data, sizeof(data), 7);
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        for (size_t more = 0; more < 2; more++) {
            as_ws_env *env = as_ws_env_new(NULL);
            as_ws_event event;
            client c;
            client_init(&c, env, &params, 6, Z_DEFAULT_STRATEGY);
            as_ws_free(c.ws);
            c.ws = as_ws_new(env, &params, limits[i]);
            as_slice frame = client_frame(&c, (as_slice){data, limits[i] + more});
            as_err err = send_frame(&c, frame, frame.n, &event);
            if (err != (more ? AS_E_WS_LARGE : AS_OK) || (!more && event.data.n != limits[i])) {
                fail(&params, as_err_text(err), limits[i] + more);
            }
            client_fini(&c);
            as_ws_env_free(env);
        }
    }
}

/* Many last blocks in one message, each of which ends a stream of DEFLATE. */
static void test_last_blocks(void) {
    enum { BLOCKS = 30000 };
    static const as_ws_deflate_params params = {true, false, false, 15, 15};
    unsigned char *bytes = malloc(ROOM);
    size_t size = as_ws_frame_header((char *)bytes, AS_WS_BINARY, true, 2 * BLOCKS);
    bytes[1] |= 0x80;
    memset(bytes + size, 0, 4);
    for (size_t i = 0; i < BLOCKS; i++) {
        memcpy(bytes + size + 4 + 2 * i, "\x03\x00", 2);
    }
    as_ws_env *env = as_ws_env_new(NULL);
    as_ws *ws = as_ws_new(env, &params, 0);
    as_ws_event event;
    as_ws_input in = {(char *)bytes, size + 4 + (size_t)2 * BLOCKS};
    as_err err = as_ws_next(ws, &in, &event);
    if (err != AS_OK || event.kind != AS_WS_MESSAGE_BINARY || event.data.n != 0) {
        fail(&params, as_err_text(err), BLOCKS);
    }
    as_ws_free(ws);
    as_ws_env_free(env);
    free(bytes);
}

/* --- what leaves ---------------------------------------------------------------------------- */

static void test_empty(void) { /* RFC 7692, 7.2.3.6 */
    static const as_ws_deflate_params params = {true, false, false, 15, 15};
    as_ws_env *env = as_ws_env_new(NULL);
    as_ws *ws = as_ws_new(env, &params, 0);
    for (int i = 0; i < 3; i++) {
        as_slice out;
        if (as_ws_deflate(ws, AS_SLICE(""), &out) != AS_OK || !as_slice_eq(out, AS_SLICE("\0"))) {
            fail(&params, "an empty message", out.n);
        }
    }
    as_ws_free(ws);
    as_ws_env_free(env);
}

static void test_when(void) {
    static const as_ws_deflate_params params = {true, false, false, 15, 15}, off = {0};
    as_ws_env *env = as_ws_env_new(NULL);
    as_ws *on = as_ws_new(env, &params, 0), *without = as_ws_new(env, &off, 0);
    if (as_ws_deflates(on, 0) || as_ws_deflates(on, 63) || !as_ws_deflates(on, 64) ||
        !as_ws_deflates(on, 1000000) || as_ws_deflates(without, 1000)) {
        fail(&params, "is deflated or not", 64);
    }
    as_ws_free(on);
    as_ws_free(without);
    as_ws_env_free(env);
}

/* What was received may be given back at once, though the env lent it. */
static void test_echo(void) {
    static const as_ws_deflate_params params = {true, false, false, 12, 12};
    static char data[20000];
    as_ws_env *env = as_ws_env_new(NULL);
    client c;
    client_init(&c, env, &params, 6, Z_DEFAULT_STRATEGY);
    make_text(data, sizeof(data), 3);
    for (int i = 0; i < 3; i++) {
        as_ws_event event;
        (void)send_frame(&c, client_frame(&c, (as_slice){data, sizeof(data)}), ROOM, &event);
        client_receives(&c, event.data);
        if (!as_slice_eq(event.data, (as_slice){data, sizeof(data)})) {
            fail(&params, "is overwritten", event.data.n);
        }
    }
    client_fini(&c);
    as_ws_env_free(env);
}

int main(void) {
    test_every_combination();
    test_every_strategy();
    test_distance(512, AS_OK);
    test_distance(513, AS_E_WS_PROTOCOL);
    test_bomb();
    test_exact_limit();
    test_last_blocks();
    test_empty();
    test_when();
    test_echo();
    return failures == 0 ? 0 : 1;
}

/* What the WebSocket codec costs by itself: nanoseconds for decoding a masked message and for
 * encoding the header of its echo, and for deflating and inflating one; and bytes of a connection.
 */
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "http/websocket.h"

enum { ROUNDS = 7, BATCH_BYTES = 64 * 1024, ROUND_BYTES = 64 * 1024 * 1024 };

static double nanoseconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* --- frames --------------------------------------------------------------------------------- */

static void unmask_slowly(char *p, size_t n, const char *mask) {
    for (size_t i = 0; i < n; i++) {
        p[i] = (char)(p[i] ^ mask[i % 4]);
    }
}

static size_t write_frame(char *out, as_ws_opcode opcode, as_slice payload) {
    static const char mask[] = "\x12\x34\x56\x78";
    size_t n = as_ws_frame_header(out, opcode, false, payload.n);
    out[1] = (char)(out[1] | 0x80);
    memcpy(out + n, mask, 4);
    memcpy(out + n + 4, payload.p, payload.n);
    unmask_slowly(out + n + 4, payload.n, mask);
    return n + 4 + payload.n;
}

/* As a server does: a read that holds many frames, or a part of one; an echo's header for each. The
 * copy stands for what the kernel does. */
static size_t echo(as_ws *ws, char *input, size_t n) {
    char header[AS_WS_FRAME_HEADER_MAX];
    as_ws_input in = {input, n};
    as_ws_event event;
    size_t messages = 0;
    while (as_ws_next(ws, &in, &event) == AS_OK && event.kind != AS_WS_NOTHING) {
        messages += as_ws_frame_header(header, AS_WS_TEXT, false, event.data.n) > 0;
    }
    return messages;
}

static double copy_time(char *input, const char *batch, size_t n, size_t times) {
    double begin = nanoseconds();
    for (size_t i = 0; i < times; i++) {
        memcpy(input, batch, n);
        __asm__ volatile("" : : "r"(input) : "memory");
    }
    return nanoseconds() - begin;
}

static void measure_frames(const char *what, as_ws_opcode opcode, as_slice payload) {
    static char batch[BATCH_BYTES], input[BATCH_BYTES];
    size_t n = 0, frames = 0;
    while (n + payload.n + 14 <= sizeof(batch)) {
        n += write_frame(batch + n, opcode, payload);
        frames++;
    }
    as_ws_env *env = as_ws_env_new(NULL);
    as_ws *ws = as_ws_new(env, &(as_ws_deflate_params){0}, 0);
    double best = 1e18;
    size_t times = ROUND_BYTES / n;
    for (int round = 0; round < ROUNDS; round++) {
        double copying = copy_time(input, batch, n, times), begin = nanoseconds();
        for (size_t i = 0; i < times; i++) {
            memcpy(input, batch, n);
            if (echo(ws, input, n) != frames) {
                fail("messages are missing");
            }
        }
        double took = (nanoseconds() - begin - copying) / (double)(times * frames);
        best = took < best ? took : best;
    }
    printf("%-28s %8zu bytes %9.1f ns\n", what, payload.n, best);
    as_ws_free(ws);
    as_ws_env_free(env);
}

/* --- permessage-deflate ----------------------------------------------------------------------- */

static void make_text(char *out, size_t n) {
    unsigned seed = 1;
    char line[128];
    for (size_t at = 0; at < n;) {
        seed = seed * 1103515245 + 12345;
        int size = snprintf(line, sizeof(line),
                            "{\"id\": %u, \"user\": \"user%u\", \"text\": \"hello %u\"}\n",
                            seed >> 20, seed >> 16 & 127, seed >> 8 & 1023);
        size_t take = (size_t)size < n - at ? (size_t)size : n - at;
        memcpy(out + at, line, take);
        at += take;
    }
}

/* The same code makes a client's messages: only the mask is missing. */
static void measure_deflate(const char *what, bool takeover, size_t n) {
    enum { MESSAGES = 400 };
    as_ws_deflate_params params = {true, !takeover, !takeover, 12, 12};
    char *text = malloc(MESSAGES * n), *frames = malloc(MESSAGES * (n + 64));
    make_text(text, MESSAGES * n);
    double deflating = 1e18, inflating = 1e18;
    size_t total = 0;
    for (int round = 0; round < ROUNDS; round++) {
        as_ws_env *env = as_ws_env_new(NULL);
        as_ws *out = as_ws_new(env, &params, 0), *in = as_ws_new(env, &params, 0);
        double begin = nanoseconds();
        size_t end = 0;
        total = 0;
        for (size_t i = 0; i < MESSAGES; i++) {
            as_slice deflated;
            if (as_ws_deflate(out, (as_slice){text + i * n, n}, &deflated) != AS_OK) {
                fail("is not deflated");
            }
            size_t size = as_ws_frame_header(frames + end, AS_WS_BINARY, true, deflated.n);
            frames[end + 1] = (char)(frames[end + 1] | 0x80);
            memset(frames + end + size, 0, 4);
            memcpy(frames + end + size + 4, deflated.p, deflated.n);
            end += size + 4 + deflated.n;
            total += deflated.n;
        }
        double middle = nanoseconds();
        if (echo(in, frames, end) != MESSAGES) {
            fail("is not inflated");
        }
        double took = middle - begin, took_in = nanoseconds() - middle;
        deflating = took < deflating ? took : deflating;
        inflating = took_in < inflating ? took_in : inflating;
        as_ws_free(in);
        as_ws_free(out);
        as_ws_env_free(env);
    }
    printf("%-28s %8zu bytes %9.0f ns, inflate %7.0f ns, to %4.1f %%\n", what, n,
           deflating / MESSAGES, inflating / MESSAGES,
           100.0 * (double)total / (double)(MESSAGES * n));
    free(text);
    free(frames);
}

/* --- memory --------------------------------------------------------------------------------- */

static size_t in_use(void) {
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

/* Of connections that have each sent and received 8 KiB, or nothing. */
static void measure_memory(const char *what, const as_ws_deflate_params *params, size_t messages) {
    enum { CONNECTIONS = 1000, SIZE = 512 };
    static as_ws *all[CONNECTIONS];
    static char text[64 * SIZE], frame[SIZE + 64];
    make_text(text, sizeof(text));
    as_ws_env *env = as_ws_env_new(NULL);
    size_t shared = in_use(), before = 0;
    for (size_t i = 0; i < CONNECTIONS; i++) {
        /* What the first one makes for all is not counted. */
        before = i == 1 ? in_use() : before;
        all[i] = as_ws_new(env, params, 0);
        for (size_t k = 0; k < messages; k++) {
            as_slice out, message = {text + k * SIZE, SIZE};
            if (params->on && as_ws_deflate(all[i], message, &out) == AS_OK) {
                message = out;
            }
            size_t n = as_ws_frame_header(frame, AS_WS_BINARY, params->on, message.n);
            frame[1] = (char)(frame[1] | 0x80);
            memset(frame + n, 0, 4);
            memcpy(frame + n + 4, message.p, message.n);
            if (echo(all[i], frame, n + 4 + message.n) != 1) {
                fail("a message is lost");
            }
        }
    }
    printf("%-28s %8zu bytes, %zu for all\n", what, (in_use() - before) / (CONNECTIONS - 1),
           before - shared);
    for (size_t i = 0; i < CONNECTIONS; i++) {
        as_ws_free(all[i]);
    }
    as_ws_env_free(env);
}

int main(void) {
    static char ascii[16384], greek[16384];
    memset(ascii, 'a', sizeof(ascii));
    for (size_t i = 0; i < sizeof(greek); i += 2) {
        memcpy(greek + i, "\xce\xb1", 2);
    }
    measure_frames("binary", AS_WS_BINARY, (as_slice){ascii, 64});
    measure_frames("binary", AS_WS_BINARY, (as_slice){ascii, sizeof(ascii)});
    measure_frames("text, ASCII", AS_WS_TEXT, (as_slice){ascii, 64});
    measure_frames("text, ASCII", AS_WS_TEXT, (as_slice){ascii, sizeof(ascii)});
    measure_frames("text, Greek", AS_WS_TEXT, (as_slice){greek, 64});
    measure_frames("text, Greek", AS_WS_TEXT, (as_slice){greek, sizeof(greek)});
    static const size_t sizes[] = {100, 500, 2000, 16384};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        measure_deflate("deflate, takeover", true, sizes[i]);
        measure_deflate("deflate, no takeover", false, sizes[i]);
    }
    static const as_ws_deflate_params off = {0}, takeover = {true, false, false, 12, 12},
                                      large = {true, false, false, 15, 15},
                                      none = {true, true, true, 15, 15};
    measure_memory("connection, not used", &takeover, 0);
    measure_memory("connection, no deflate", &off, 16);
    measure_memory("connection, no takeover", &none, 64);
    measure_memory("connection, 512 bytes so far", &takeover, 1);
    measure_memory("connection, takeover", &takeover, 64);
    measure_memory("connection, client's 15 bits", &large, 64);
    return 0;
}

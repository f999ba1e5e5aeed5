/* WebSocket without I/O (RFC 6455, RFC 7692): frames become messages, and messages frames.
 *
 * as_ws is one connection's state, on the server's side: what comes is masked, what leaves is not.
 * It is fed by its owner (csrc/gateway) with the bytes that the tunnel brings, and pulled for what
 * is in them, one event at a time:
 *
 *     while ((err = as_ws_next(ws, &in, &event)) == AS_OK && event.kind != AS_WS_NOTHING) …
 *
 * An error is final; as_ws_close_code gives the code to close with. Idle, it holds no buffers
 * beside what was said lately, at most a window, in a direction that has takeover. */
#ifndef AS_HTTP_WEBSOCKET_H
#define AS_HTTP_WEBSOCKET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/err.h"
#include "base/slice.h"

typedef enum as_ws_opcode {
    AS_WS_CONTINUATION = 0,
    AS_WS_TEXT = 1,
    AS_WS_BINARY = 2,
    AS_WS_CLOSE = 8,
    AS_WS_PING = 9,
    AS_WS_PONG = 10
} as_ws_opcode;

enum { AS_WS_FRAME_HEADER_MAX = 10, AS_WS_CONTROL_MAX = 125 }; /* bytes */

/* What both sides agreed on in the handshake (RFC 7692, 7.1). */
typedef struct as_ws_deflate_params {
    bool on;
    bool server_no_takeover, client_no_takeover;
    uint8_t server_bits, client_bits; /* 9 to 15, 8 to 15; of a window of 2^bits bytes */
} as_ws_deflate_params;

/* What all WebSockets of one loop share: the contexts of zlib, and the memory of what was inflated
 * and deflated last. Owner: the gateway; outlives them. */
typedef struct as_ws_env as_ws_env;
as_ws_env *as_ws_env_new(as_buf_pool *pool); /* pool may be NULL; NULL: no memory */
void as_ws_env_free(as_ws_env *env);

typedef struct as_ws as_ws;
/* `max_size`: bytes of one message after inflating, 0: no limit. NULL: no memory. */
as_ws *as_ws_new(as_ws_env *env, const as_ws_deflate_params *deflate, uint64_t max_size);
void as_ws_free(as_ws *ws);

typedef enum as_ws_kind {
    AS_WS_NOTHING, /* all bytes are taken and no event is complete */
    AS_WS_MESSAGE_TEXT,
    AS_WS_MESSAGE_BINARY,
    AS_WS_GOT_PING,
    AS_WS_GOT_PONG,
    AS_WS_GOT_CLOSE /* nothing that follows is looked at */
} as_ws_kind;

typedef struct as_ws_event {
    as_ws_kind kind;
    as_slice data; /* a message, a ping's payload, or the reason of a close; valid UTF-8 where it is
                    * text; until the next call on this as_ws or its as_ws_env */
    bool is_ascii; /* a text: all of it is */
    unsigned code; /* of a close: as received, 1005 where there was none */
} as_ws_event;

/* The next event out of `*in`, whose bytes are changed in place (unmasked) and which is moved
 * behind what was taken: all of it when the event is AS_WS_NOTHING. Negative: AS_E_WS_PROTOCOL,
 * AS_E_WS_UTF8, AS_E_WS_LARGE, AS_E_NOMEM. */
typedef struct as_ws_input {
    char *p;
    size_t n;
} as_ws_input;
as_err as_ws_next(as_ws *ws, as_ws_input *in, as_ws_event *event);

/* 1002, 1007, 1009 or 1011. */
unsigned as_ws_close_code(as_err err);
/* A close code that an endpoint may send (RFC 6455, 7.4). */
bool as_ws_close_code_valid(unsigned code);

/* The header of an unfragmented frame that leaves; returns its bytes. `compressed`: RSV1. */
size_t as_ws_frame_header(char out[AS_WS_FRAME_HEADER_MAX], as_ws_opcode opcode, bool compressed,
                          uint64_t n);
/* Whether messages of `n` bytes are worth deflating on this connection. */
bool as_ws_deflates(const as_ws *ws, size_t n);
/* The payload of a frame with RSV1, of at least a byte; valid until the next call on this as_ws or
 * its as_ws_env. The frame has to be sent, and in this order: the next message may build on it.
 * After AS_E_NOMEM the connection cannot go on deflating. `data` may be what as_ws_next gave. */
as_err as_ws_deflate(as_ws *ws, as_slice data, as_slice *out);

#endif

/* The opening handshake of WebSocket (RFC 6455, section 4): what a request asks for, and whether it
 * may. Pure functions of a request head. */
#ifndef AS_HTTP_WS_HANDSHAKE_H
#define AS_HTTP_WS_HANDSHAKE_H

#include "http/head.h"
#include "http/websocket.h"

/* True for a request that asks for WebSocket: HTTP/1.1, Connection: upgrade, and `websocket` in
 * Upgrade. Everything else is an ordinary request, and its Upgrade is ignored. Cheap. */
bool as_ws_is_asked_for(const as_head *head);

typedef struct as_ws_handshake {
    char accept[28];              /* the value of Sec-WebSocket-Accept */
    as_ws_deflate_params deflate; /* .on: of the first offer that can be agreed to */
} as_ws_handshake;

/* Judges a request that asks for it. AS_E_WS_METHOD (405, Allow: GET), AS_E_WS_VERSION (426, with
 * Sec-WebSocket-Version: 13 and Upgrade: websocket), AS_E_WS_HANDSHAKE (400: a key that is missing,
 * repeated or no base64 of 16 bytes, a version given twice, a body, subprotocols that are no
 * tokens, extensions that are no grammar). */
as_err as_ws_handshake_read(const as_head *head, bool deflate_wanted, as_ws_handshake *out);

enum { AS_WS_EXTENSION_MAX = 160 };
/* The value of Sec-WebSocket-Extensions for what was agreed on; returns its bytes, 0: no such
 * field. */
size_t as_ws_extensions_write(const as_ws_deflate_params *deflate, char out[AS_WS_EXTENSION_MAX]);

/* Iterates over the subprotocols that a head offers, over all its Sec-WebSocket-Protocol lines:
 * `*at` begins as 0. False: no more. */
bool as_ws_next_protocol(const as_head *head, uint64_t *at, as_slice *protocol);

#endif

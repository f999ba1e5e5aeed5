/* What the two files of the WebSocket gateway share: websocket.c (what comes, and the ends) and
 * ws_send.c (what the application sends).
 *
 *   handshake   send_state START, or BODY for an answer of the application's own (denial)
 *   open        OPEN: the exchange is a tunnel, `codec` is there
 *   closing     our close frame is out, and the client's is awaited: what else comes is dropped
 *   hung up     the tunnel is finished; or never was one
 *
 * `req.gone`: the client has left, or is being left, and send() says so. `code` is what receive()
 * says then. The application may end in any of these; while closing, the object outlives it. */
#ifndef AS_GATEWAY_WEBSOCKET_H
#define AS_GATEWAY_WEBSOCKET_H

#include "gateway/asgi.h"
#include "http/ws_handshake.h"

/* Messages that receive() has not taken: str and bytes. */
typedef struct as_ws_inbox {
    uint32_t first, n, cap;
    uint64_t size; /* bytes of memory that they hold */
    PyObject *items[];
} as_ws_inbox;

typedef struct as_websocket {
    as_request req;           /* first: a request to everybody else */
    as_ws *codec;             /* while it is open or closing */
    struct fields *accepting; /* ws_send.c: while websocket.accept is read */
    as_ws_inbox *inbox;       /* NULL: empty */
    PyObject *reason;         /* of the disconnect, str; NULL: empty */
    uint32_t arrived;         /* the last message, or write: the lower half of as_microseconds() */
    uint32_t written;         /* the last write that did not wait for others, likewise */
    uint32_t ping;            /* the payload of the last ping */
    uint16_t code;            /* of the disconnect; 0: there is none yet */
    int16_t broken; /* as_err of a frame behind messages that wait: told when they are taken */
    bool connected; /* receive() gave websocket.connect */
    bool closing, hung_up;
    bool ended;       /* the application has */
    bool awaits_pong; /* of the last ping */
    bool clogged;     /* pongs wait that the client does not read: no more of its pings are */
    bool parsing;     /* the codec is on the stack */
} as_websocket;

/* Per server. */
struct as_websockets {
    as_ws_env *env;
    PyObject *connect, *text, *bytes; /* messages: templates */
};

/* Queues one frame. What fails here has cut the connection, but for AS_E_CLOSED and _NOMEM. */
as_err as__ws_frame(as_websocket *ws, as_ws_opcode opcode, bool compressed, as_bytes payload);
/* A frame was queued by the application: it leaves now, or together with others. */
void as__ws_written(as_websocket *ws);
/* What receive() says from now on; the first one counts. */
void as__ws_set_end(as_websocket *ws, unsigned code, as_slice reason);
/* open -> closing */
void as__ws_close(as_websocket *ws, unsigned code, as_slice reason);
void as__ws_clear_inbox(as_websocket *ws);

extern const as_message_row as__ws_messages[]; /* ws_send.c */

#endif

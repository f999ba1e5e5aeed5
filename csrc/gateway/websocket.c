/* WebSocket (RFC 6455; ASGI WebSocket 2.5): frames become messages for receive(), and the closing
 * handshake is kept whatever the application does.
 *
 * All bytes of a read are parsed at once, so that a ping is answered and a close is seen also while
 * the application is busy. `ws_max_queue` messages that wait stop the reading: beyond them there
 * are those of one read at most. As many bytes as the largest message may have stop the parsing as
 * well: a read of 64 KiB can inflate to a thousand times that. */
#include "gateway/websocket.h"

#include "http/response.h"

#define NO_REASON ((as_slice){"", 0})

/* What is written within so many microseconds after a message came, or after the last write, leaves
 * together: the answers to messages that came together do. Later than that, the application may be
 * at something long, and its message does not wait for the end of it. */
#define GATHER 1000u

/* Bytes of messages that are taken at once: beyond a read's, where they were deflated. */
#define TURN_BYTES ((size_t)128 * 1024)

/* Beside its text or bytes, a message that waits. */
#define MESSAGE_OVERHEAD 64u

/* Small messages may wait in so many bytes, however small the largest one may be. */
#define INBOX_LEAST ((uint64_t)64 * 1024)

static as_websocket *websocket_of(as_request *req) {
    return (as_websocket *)req;
}

/* ---- messages that wait ---- */

static uint32_t waiting(const as_websocket *ws) {
    return ws->inbox != NULL ? ws->inbox->n : 0;
}

/* Bytes of memory that those hold. */
static uint64_t held(const as_websocket *ws) {
    return ws->inbox != NULL ? ws->inbox->size : 0;
}

/* A str has up to four bytes for each character. */
static uint64_t size_of(PyObject *item) {
    Py_ssize_t n = PyUnicode_Check(item) ? PyUnicode_GET_LENGTH(item) * PyUnicode_KIND(item)
                                         : PyBytes_GET_SIZE(item);
    return (uint64_t)n + MESSAGE_OVERHEAD;
}

/* Room for one more behind the last; NULL with an exception. */
static as_ws_inbox *make_room(as_websocket *ws) {
    as_ws_inbox *inbox = ws->inbox;
    if (inbox != NULL && inbox->first + inbox->n < inbox->cap) {
        return inbox;
    }
    if (inbox != NULL && inbox->first > 0) {
        memmove(inbox->items, inbox->items + inbox->first, inbox->n * sizeof(*inbox->items));
        inbox->first = 0;
        return inbox;
    }
    uint32_t cap = inbox != NULL ? 2 * inbox->cap : 4;
    as_ws_inbox *larger = PyMem_Realloc(inbox, sizeof(*inbox) + cap * sizeof(*inbox->items));
    if (larger == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (inbox == NULL) {
        larger->first = larger->n = 0;
        larger->size = 0;
    }
    larger->cap = cap;
    return ws->inbox = larger;
}

/* Takes over `item`, unless it fails. */
static int push(as_websocket *ws, PyObject *item) {
    as_ws_inbox *inbox = make_room(ws);
    if (inbox == NULL) {
        return -1;
    }
    inbox->items[inbox->first + inbox->n++] = item;
    inbox->size += size_of(item);
    return 0;
}

/* The first one, new reference; the caller knows that there is one. An empty inbox holds no memory.
 */
static PyObject *pop(as_websocket *ws) {
    as_ws_inbox *inbox = ws->inbox;
    PyObject *item = inbox->items[inbox->first++];
    inbox->size -= size_of(item);
    if (--inbox->n == 0) {
        ws->inbox = NULL;
        PyMem_Free(inbox);
    }
    return item;
}

static PyObject *first(const as_websocket *ws) {
    return ws->inbox->items[ws->inbox->first];
}

void as__ws_clear_inbox(as_websocket *ws) {
    while (ws->inbox != NULL) {
        Py_DECREF(pop(ws));
    }
}

/* ---- flow ---- */

/* Bytes of messages that may wait. */
static uint64_t inbox_max(const as_websocket *ws) {
    uint64_t largest = ws->req.server->limits.ws_max_size;
    return largest == 0 ? UINT64_MAX : largest > INBOX_LEAST ? largest : INBOX_LEAST;
}

/* After messages came, or were taken, or the client has read. While closing, only the client's
 * close frame matters, and it must be seen. */
static void steer(as_websocket *ws) {
    as_exchange *ex = ws->req.ex;
    uint32_t max = ws->req.server->limits.ws_max_queue;
    uint64_t bytes_max = inbox_max(ws);
    if (ex == NULL) {
        return;
    }
    if (!ws->closing &&
        (ws->clogged || ws->broken != AS_OK || waiting(ws) >= max || held(ws) >= bytes_max)) {
        as_exchange_pause(ex);
    } else if (ws->closing || (waiting(ws) <= max / 2 && held(ws) <= bytes_max / 2)) {
        as_exchange_resume(ex);
    }
}

as_err as__ws_frame(as_websocket *ws, as_ws_opcode opcode, bool compressed, as_bytes payload) {
    as_exchange *ex = ws->req.ex;
    char header[AS_WS_FRAME_HEADER_MAX];
    if (ex == NULL) {
        return AS_E_CLOSED;
    }
    as_bytes head = {header, as_ws_frame_header(header, opcode, compressed, payload.n), NULL, NULL,
                     NULL};
    as_err err = as_exchange_body(ex, head, true);
    return err == AS_OK && payload.n > 0 ? as_exchange_body(ex, payload, true) : err;
}

void as__ws_written(as_websocket *ws) {
    as_request *req = &ws->req;
    uint32_t now = (uint32_t)as_microseconds();
    if (now - (req->driving ? ws->arrived : ws->written) >= GATHER) {
        ws->arrived = ws->written = now;
        req->unflushed = false;
        (void)as_exchange_flush(req->ex); /* a connection that broke is told by on_abort */
    } else if (req->driving) {
        req->unflushed = true;
    } else {
        as_exchange_flush_soon(req->ex); /* another task than the request's own */
    }
}

/* ---- ends ---- */

static void drop_codec(as_websocket *ws) {
    if (!ws->parsing) {
        as_ws_free(ws->codec);
        ws->codec = NULL;
    }
}

void as__ws_set_end(as_websocket *ws, unsigned code, as_slice reason) {
    if (ws->code != 0) {
        return;
    }
    ws->code = (uint16_t)code;
    if (reason.n > 0 &&
        (ws->reason = PyUnicode_DecodeUTF8(reason.p, (Py_ssize_t)reason.n, "replace")) == NULL) {
        PyErr_Clear(); /* no memory: the reason is said to be empty */
    }
}

/* Without a code where there is none to say (RFC 6455, 7.1.5). */
static void send_close_frame(as_websocket *ws, unsigned code, as_slice reason) {
    char payload[AS_WS_CONTROL_MAX];
    size_t n = 0;
    if (code != 1005) {
        payload[0] = (char)(code >> 8);
        payload[1] = (char)code;
        memcpy(payload + 2, reason.p, reason.n);
        n = 2 + reason.n;
    }
    (void)as__ws_frame(ws, AS_WS_CLOSE, false, (as_bytes){payload, n, NULL, NULL, NULL});
}

/* The tunnel ends behind what is queued. */
static void hang_up(as_websocket *ws) {
    if (!ws->hung_up) {
        ws->hung_up = true;
        if (ws->req.ex != NULL) {
            (void)as_exchange_end(ws->req.ex); /* CLOSED: it has ended already */
        }
        drop_codec(ws);
    }
}

void as__ws_close(as_websocket *ws, unsigned code, as_slice reason) {
    as_exchange *ex = ws->req.ex;
    ws->closing = true;
    ws->broken = AS_OK; /* the codec tells again, and then it is over */
    send_close_frame(ws, code, reason);
    as_exchange_set_alarm(ex, ws->req.server->limits.ws_close_timeout);
    steer(ws);
    (void)as_exchange_flush(ex);
}

/* send() and receive() say that it is over. */
static void leave(as_websocket *ws, unsigned code, as_slice reason) {
    as__ws_set_end(ws, code, reason);
    ws->req.gone = true;
    if (!ws->ended) {
        as_request_client_leaves(&ws->req);
        as_awaitables_wake(ws->req.senders);
    }
}

/* Our close frame, and no word of the client's is waited for (RFC 6455, 7.1.7). */
static void fail(as_websocket *ws, unsigned code, const char *text) {
    as_slice reason = {text, strlen(text)};
    if (!ws->closing) {
        send_close_frame(ws, code, reason);
        leave(ws, code, reason);
    }
    hang_up(ws);
}

/* The last thing in a handler: the object may go. */
static void release_if_over(as_websocket *ws) {
    if (ws->ended && ws->hung_up) {
        as_request_abandon(&ws->req);
    }
}

/* ---- what comes ---- */

/* The codec has read it as UTF-8 already. */
static PyObject *make_text(const as_ws_event *event) {
    Py_ssize_t n = (Py_ssize_t)event->data.n;
    if (!event->is_ascii || n == 0) {
        return PyUnicode_DecodeUTF8(event->data.p, n, NULL);
    }
    PyObject *text = PyUnicode_New(n, 0x7f);
    if (text != NULL) {
        memcpy(PyUnicode_1BYTE_DATA(text), event->data.p, event->data.n);
    }
    return text;
}

static void take_message(as_websocket *ws, const as_ws_event *event) {
    if (ws->closing) {
        return; /* RFC 6455, 1.4: after a close frame is sent, data is discarded */
    }
    PyObject *item = event->kind == AS_WS_MESSAGE_TEXT ? make_text(event) : as_pybytes(event->data);
    if (item == NULL || push(ws, item) < 0) {
        Py_XDECREF(item);
        as_log_exception(ws->req.server, ws->req.ex, "cannot take a WebSocket message");
        fail(ws, 1011, "out of memory");
    }
}

/* RFC 6455, 5.5.2: as soon as is practical. A client that pings and reads nothing is not read. */
static void answer_ping(as_websocket *ws, as_slice payload) {
    if (ws->closing) {
        return;
    }
    (void)as__ws_frame(ws, AS_WS_PONG, false, (as_bytes){payload.p, payload.n, NULL, NULL, NULL});
    ws->clogged = as_exchange_pending(ws->req.ex) > ws->req.server->limits.limit_write_buffer;
}

static void take_pong(as_websocket *ws, as_slice payload) {
    if (ws->awaits_pong && !ws->closing && payload.n == sizeof(ws->ping) &&
        memcmp(payload.p, &ws->ping, sizeof(ws->ping)) == 0) {
        ws->awaits_pong = false;
        as_exchange_set_alarm(ws->req.ex, ws->req.server->limits.ws_ping_interval);
    }
}

/* The client's close frame: ours follows it, or was before; then it is the server who ends the
 * connection (RFC 6455, 7.1.1). */
static void take_close(as_websocket *ws, const as_ws_event *event) {
    if (!ws->closing) {
        send_close_frame(ws, event->code, event->code != 1005 ? event->data : NO_REASON);
        leave(ws, event->code, event->data);
    }
    hang_up(ws);
}

static void take_event(as_websocket *ws, const as_ws_event *event) {
    switch (event->kind) {
    case AS_WS_MESSAGE_TEXT:
    case AS_WS_MESSAGE_BINARY:
        take_message(ws, event);
        break;
    case AS_WS_GOT_PING:
        answer_ping(ws, event->data);
        break;
    case AS_WS_GOT_PONG:
        take_pong(ws, event->data);
        break;
    case AS_WS_GOT_CLOSE:
        take_close(ws, event);
        break;
    case AS_WS_NOTHING:
        break;
    }
}

static void refuse_frame(as_websocket *ws, as_err err) {
    if (!ws->closing) {
        as_log_refused(ws->req.server, ws->req.ex->info, err, NO_REASON, 0);
    }
    if (!ws->hung_up) {
        fail(ws, as_ws_close_code(err), as_err_text(err));
    }
}

/* What came before the frame is answered first, unless the application takes too long for that. */
static void meet_error(as_websocket *ws, as_err err) {
    if (ws->closing || waiting(ws) == 0) {
        refuse_frame(ws, err);
        return;
    }
    ws->broken = (int16_t)err;
    as_exchange_set_alarm(ws->req.ex, ws->req.server->limits.ws_close_timeout);
}

static void refuse_broken(as_websocket *ws) {
    as_err err = (as_err)ws->broken;
    ws->broken = AS_OK;
    refuse_frame(ws, err);
}

/* What is left of a read would be too much. */
static bool must_wait(as_websocket *ws) {
    if (held(ws) < inbox_max(ws) || ws->closing || ws->hung_up || ws->req.ex == NULL) {
        return false;
    }
    steer(ws);
    return ws->req.ex->paused;
}

/* Python may run in here (a callable that is woken, a line of the log), and let go of everything.
 * Whose messages inflate to much gives others their turn. */
static void read_frames(as_websocket *ws, as_slice data) {
    as_ws_input in = {(char *)(uintptr_t)data.p, data.n};
    as_ws_event event;
    size_t taken = 0;
    while (!ws->hung_up && ws->req.ex != NULL) {
        as_err err = as_ws_next(ws->codec, &in, &event);
        if (err != AS_OK) {
            meet_error(ws, err);
        }
        if (err != AS_OK || event.kind == AS_WS_NOTHING) {
            return;
        }
        taken += event.data.n;
        take_event(ws, &event);
        if (must_wait(ws) || (taken > TURN_BYTES && ws->req.ex != NULL)) {
            ws->req.ex->untaken = in.n;
            return;
        }
    }
}

static void on_body(as_request *req, as_slice data) {
    as_websocket *ws = websocket_of(req);
    if (ws->codec == NULL || ws->hung_up || ws->broken != AS_OK) {
        return;
    }
    Py_INCREF(req);
    uint32_t before = waiting(ws);
    ws->parsing = true;
    read_frames(ws, data);
    ws->parsing = false;
    if (ws->hung_up || req->ex == NULL) {
        drop_codec(ws);
    }
    steer(ws);
    if (waiting(ws) > before) {
        ws->arrived = (uint32_t)as_microseconds();
        as_awaitables_wake(req->receivers);
    }
    release_if_over(ws);
    Py_DECREF(req);
}

/* Without a close frame (RFC 6455, 7.1.5). */
static void on_eof(as_request *req) {
    as_websocket *ws = websocket_of(req);
    Py_INCREF(req);
    if (req->send_state == AS_SEND_OPEN || ws->closing) {
        hang_up(ws);
    }
    leave(ws, 1006, NO_REASON);
    release_if_over(ws);
    Py_DECREF(req);
}

static void on_abort(as_request *req) {
    as_websocket *ws = websocket_of(req);
    Py_INCREF(req);
    ws->hung_up = true;
    drop_codec(ws);
    leave(ws, 1006, NO_REASON);
    release_if_over(ws);
    Py_DECREF(req);
}

/* The server stops. A handshake that is not complete is none any more. */
static void on_shutdown(as_request *req) {
    as_websocket *ws = websocket_of(req);
    if (req->gone || ws->closing) {
        return;
    }
    Py_INCREF(req);
    if (req->send_state == AS_SEND_OPEN) {
        as__ws_set_end(ws, 1012, NO_REASON);
        as__ws_close(ws, 1012, NO_REASON);
        leave(ws, 1012, NO_REASON);
    } else if (req->send_state == AS_SEND_START) {
        if (as_exchange_refuse(req->ex, AS_E_SHUTDOWN) == AS_OK) {
            as_access_log_add(req->server, req->ex);
        }
        leave(ws, 1012, NO_REASON);
    }
    Py_DECREF(req);
}

static void on_drain(as_request *req) {
    websocket_of(req)->clogged = false;
    steer(websocket_of(req));
    as_awaitables_wake(req->senders);
}

static void send_ping(as_websocket *ws) {
    const as_limits *limits = &ws->req.server->limits;
    ws->ping++;
    ws->awaits_pong = limits->ws_ping_timeout > 0;
    as_bytes payload = {(const char *)&ws->ping, sizeof(ws->ping), NULL, NULL, NULL};
    if (as__ws_frame(ws, AS_WS_PING, false, payload) == AS_OK) {
        as_exchange_set_alarm(ws->req.ex,
                              ws->awaits_pong ? limits->ws_ping_timeout : limits->ws_ping_interval);
    }
}

/* A ping is due, or its answer, or that to our close frame, or an application that takes nothing.
 */
static void on_alarm(as_request *req) {
    as_websocket *ws = websocket_of(req);
    Py_INCREF(req);
    if (ws->closing) {
        hang_up(ws);
    } else if (ws->broken != AS_OK) {
        refuse_broken(ws);
    } else if (!ws->awaits_pong) {
        send_ping(ws);
    } else if (req->ex->paused) {
        /* the answer may be among the bytes that are not read */
        as_exchange_set_alarm(req->ex, req->server->limits.ws_ping_timeout);
    } else {
        fail(ws, 1011, "keepalive ping timeout");
    }
    release_if_over(ws);
    Py_DECREF(req);
}

/* ---- receive ---- */

/* The template `message`, with `value` (taken over) under `key`. */
static PyObject *make_message(PyObject *template, PyObject *key, PyObject *value) {
    PyObject *message = PyDict_Copy(template);
    if (message != NULL && PyDict_SetItem(message, key, value) < 0) {
        Py_CLEAR(message);
    }
    Py_DECREF(value);
    return message;
}

/* The first one stays until its message is made: there may be no memory for it. Making it may run
 * the collector, and that may receive the first one, too: NULL without an exception. */
static PyObject *next_data(as_websocket *ws, const struct as_websockets *templates) {
    const as_module_state *state = ws->req.server->state;
    PyObject *item = Py_NewRef(first(ws));
    PyObject *message = PyUnicode_Check(item)
                            ? make_message(templates->text, state->str.text, item)
                            : make_message(templates->bytes, state->str.bytes, item);
    if (message == NULL || waiting(ws) == 0 || first(ws) != item) {
        Py_XDECREF(message);
        return NULL;
    }
    Py_DECREF(pop(ws));
    if (ws->req.ex != NULL && ws->req.ex->paused) {
        steer(ws);
    }
    return message;
}

static PyObject *make_disconnect(const as_websocket *ws) {
    PyObject *reason = ws->reason != NULL ? Py_NewRef(ws->reason) : PyUnicode_FromString("");
    return reason != NULL ? Py_BuildValue("{s:s, s:i, s:N}", "type", "websocket.disconnect", "code",
                                          ws->code != 0 ? (int)ws->code : 1006, "reason", reason)
                          : NULL;
}

static PyObject *next_message(as_request *req) {
    as_websocket *ws = websocket_of(req);
    const struct as_websockets *templates = as_asgi_websockets(req->server);
    if (templates == NULL) {
        return make_disconnect(ws); /* the server is closed */
    }
    if (!ws->connected) {
        PyObject *message = PyDict_Copy(templates->connect);
        ws->connected = message != NULL;
        return message;
    }
    while (waiting(ws) > 0) {
        PyObject *message = next_data(ws, templates);
        if (message != NULL || PyErr_Occurred()) {
            return message;
        }
    }
    if (ws->broken != AS_OK && req->ex != NULL && !req->gone) {
        refuse_broken(ws);
    }
    bool over = req->gone || req->ex == NULL || req->send_state == AS_SEND_DONE;
    return over ? make_disconnect(ws) : NULL;
}

/* ---- the end of the application ---- */

static void failed(as_request *req) {
    if (req->send_state == AS_SEND_OPEN) {
        as__ws_close(websocket_of(req), 1011, NO_REASON);
    } else {
        as_request_respond_error(req);
    }
}

static void stopped_short(as_request *req) {
    if (req->send_state == AS_SEND_OPEN) {
        as__ws_close(websocket_of(req), 1000, NO_REASON);
    } else if (req->send_state == AS_SEND_START) {
        as_log_exception(req->server, req->ex,
                         "ASGI application returned without accepting or closing the WebSocket");
        as_request_respond_error(req);
    } else {
        as_log_exception(req->server, req->ex,
                         "ASGI application returned without completing its response");
        as_exchange_abort(req->ex);
    }
}

/* The closing handshake goes on without the application. */
static void let_go(as_request *req) {
    as_websocket *ws = websocket_of(req);
    as__ws_clear_inbox(ws);
    if (req->ex != NULL && ws->closing && !ws->hung_up) {
        ws->ended = true;
        Py_CLEAR(req->driver);
        return;
    }
    as_request_abandon(req);
}

static void forget(as_request *req) {
    websocket_of(req)->hung_up = true;
    drop_codec(websocket_of(req));
}

/* ---- the object ---- */

static const char *const expected[] = {
    [AS_SEND_START] = "'websocket.accept', 'websocket.close' or 'websocket.http.response.start'",
    [AS_SEND_BODY] = "'websocket.http.response.body'",
    [AS_SEND_OPEN] = "'websocket.send' or 'websocket.close'",
};

static const as_request_kind websocket_kind = {
    .messages = as__ws_messages,
    .expected = expected,
    .done = "the WebSocket is closed",
    .next_message = next_message,
    .failed = failed,
    .stopped_short = stopped_short,
    .let_go = let_go,
    .forget = forget,
    .on_body = on_body,
    .on_eof = on_eof,
    .on_shutdown = on_shutdown,
    .on_abort = on_abort,
    .on_drain = on_drain,
    .on_alarm = on_alarm,
};

/* Answers a request that the application does not hear of. */
static void refuse(as_server *server, as_exchange *ex, as_err why) {
    if (as_exchange_refuse(ex, why) == AS_OK) {
        as_log_refused(server, ex->info, why, NO_REASON, 0);
    }
    as_exchange_release(ex);
}

as_request *as_websocket_new(as_server *server, as_exchange *ex) {
    as_ws_handshake handshake; /* read again when it is accepted: what waits holds little */
    as_err err = as_ws_handshake_read(ex->head, server->limits.ws_per_message_deflate, &handshake);
    if (err == AS_OK && server->stopping) {
        err = AS_E_SHUTDOWN; /* it would be told to leave at once */
    }
    if (err != AS_OK) {
        refuse(server, ex, err);
        return NULL;
    }
    return as_request_new(server->state->websocket_type, server, &websocket_kind, ex);
}

static void websocket_dealloc(PyObject *op) {
    as_websocket *ws = (as_websocket *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    as_ws_free(ws->codec);
    as__ws_clear_inbox(ws);
    Py_CLEAR(ws->reason);
    as_request_fini(&ws->req);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static PyType_Slot websocket_slots[] = {
    {Py_tp_methods, as_request_methods},
    {Py_tp_dealloc, websocket_dealloc},
    {Py_tp_traverse, as_request_traverse},
    {Py_tp_clear, as_request_clear},
    {0, NULL},
};

static PyType_Spec websocket_spec = {
    .name = "asgiserver._core.WebSocket",
    .basicsize = sizeof(as_websocket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = websocket_slots,
};

int as_websocket_add_type(PyObject *module, as_module_state *state) {
    state->websocket_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &websocket_spec, NULL);
    return state->websocket_type != NULL ? 0 : -1;
}

/* ---- per server ---- */

struct as_websockets *as_websockets_new(as_server *server) {
    struct as_websockets *self = PyMem_Calloc(1, sizeof(*self));
    if (self == NULL || (self->env = as_ws_env_new(NULL)) == NULL) {
        PyMem_Free(self);
        PyErr_NoMemory();
        return NULL;
    }
    if ((self->connect = Py_BuildValue("{s:s}", "type", "websocket.connect")) == NULL ||
        (self->text = as_share_keys(
             Py_BuildValue("{s:s, s:s}", "type", "websocket.receive", "text", ""))) == NULL ||
        (self->bytes = as_share_keys(Py_BuildValue("{s:s, s:O}", "type", "websocket.receive",
                                                   "bytes", server->state->empty_bytes))) == NULL) {
        as_websockets_free(self);
        return NULL;
    }
    return self;
}

void as_websockets_free(struct as_websockets *self) {
    if (self != NULL) {
        as_ws_env_free(self->env);
        Py_XDECREF(self->connect);
        Py_XDECREF(self->text);
        Py_XDECREF(self->bytes);
        PyMem_Free(self);
    }
}

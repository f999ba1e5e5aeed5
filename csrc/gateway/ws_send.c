/* send() of a WebSocket: one message of the application becomes the answer to the handshake, a
 * frame, or the beginning of the end.
 *
 *   START  websocket.accept, websocket.close (403), websocket.http.response.start
 *   BODY   websocket.http.response.body
 *   OPEN   websocket.send, websocket.close
 *
 * What a message does wrong is raised in the application, names the message and the key, and leaves
 * everything as it was. */
#include "gateway/websocket.h"
#include "http/response.h"

/* RFC 6455, 5.5.1: a control frame's payload, less the code. */
#define REASON_MAX (AS_WS_CONTROL_MAX - 2)

static as_websocket *websocket_of(as_request *req) {
    return (as_websocket *)req;
}

/* The value of `key`, borrowed; NULL when it is absent or None, or with an exception. */
static PyObject *get(PyObject *message, PyObject *key) {
    PyObject *value = PyDict_GetItemWithError(message, key);
    return value != Py_None ? value : NULL;
}

static int wrong_type(const char *type, const char *key, const char *wanted, PyObject *value) {
    PyErr_Format(PyExc_TypeError, "ASGI message '%s': key '%s' must be %s, not %.100s", type, key,
                 wanted, Py_TYPE(value)->tp_name);
    return -1;
}

/* The client has left: OSError. */
static int check_there(as_request *req, const char *type) {
    if (req->ex == NULL || req->gone) {
        as_raise(req->server->state, AS_E_CLOSED, type);
        return -1;
    }
    return 0;
}

/* str or nothing as UTF-8, which lives as long as it. */
static int get_text(PyObject *message, PyObject *key, const char *name, const char *type,
                    as_slice *out) {
    PyObject *value = get(message, key);
    Py_ssize_t n = 0;
    *out = (as_slice){"", 0};
    if (value == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (!PyUnicode_Check(value)) {
        return wrong_type(type, name, "a str", value);
    }
    out->p = PyUnicode_AsUTF8AndSize(value, &n);
    out->n = (size_t)n;
    return out->p != NULL ? 0 : -1;
}

/* ---- websocket.accept ---- */

/* The field lines of an application that is accepting: copies, since the code that makes them may
 * run on. */
struct fields {
    as_buf bytes, pairs; /* `pairs` holds as_slice, whose `p` is an offset into `bytes` until all
                          * are there */
};
typedef struct fields fields;

/* What the handshake says itself, or what is not of a 101. */
static as_err judge_field(as_slice name, bool *write) {
    static const as_slice own[] = {
        {"sec-websocket-accept", 20},   {"sec-websocket-extensions", 24}, {"sec-websocket-key", 17},
        {"sec-websocket-protocol", 22}, {"sec-websocket-version", 21},
    };
    static const as_slice dropped[] = {{"connection", 10},
                                       {"content-length", 14},
                                       {"keep-alive", 10},
                                       {"transfer-encoding", 17},
                                       {"upgrade", 7}};
    *write = true;
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        if (as_slice_ieq(name, own[i])) {
            return AS_E_WS_FIELD;
        }
    }
    for (size_t i = 0; i < sizeof(dropped) / sizeof(*dropped); i++) {
        *write = *write && !as_slice_ieq(name, dropped[i]);
    }
    return AS_OK;
}

static as_err add_slice(fields *f, as_slice s) {
    as_slice at = {(const char *)f->bytes.len, s.n};
    as_err err = as_buf_append(&f->bytes, NULL, s.p, s.n);
    return err == AS_OK ? as_buf_append(&f->pairs, NULL, (const char *)&at, sizeof(at)) : err;
}

static as_err collect_field(as_exchange *ex, as_slice name, as_slice value) {
    as_websocket *ws = ex->gateway;
    bool write;
    as_err err = judge_field(name, &write);
    if (err == AS_OK) {
        err = !as_is_token(name)                   ? AS_E_RESPONSE_NAME
              : !as_is_field_value(as_trim(value)) ? AS_E_RESPONSE_VALUE
                                                   : AS_OK;
    }
    if (err != AS_OK || !write) {
        return err;
    }
    err = add_slice(ws->accepting, name);
    return err == AS_OK ? add_slice(ws->accepting, value) : err;
}

/* Behind the last of them. */
static as_slice *resolve(fields *f) {
    as_slice *pairs = (as_slice *)(void *)f->pairs.data;
    for (size_t i = 0; i < f->pairs.len / sizeof(*pairs); i++) {
        pairs[i].p = f->bytes.data + (size_t)pairs[i].p;
    }
    return pairs;
}

/* The handshake's own (RFC 6455, 4.2.2). */
static as_err add_own(const as_ws_handshake *handshake, fields *f, as_slice subprotocol) {
    char extensions[AS_WS_EXTENSION_MAX];
    const as_slice pairs[][2] = {
        {AS_SLICE("upgrade"), AS_SLICE("websocket")},
        {AS_SLICE("sec-websocket-accept"), {handshake->accept, sizeof(handshake->accept)}},
        {AS_SLICE("sec-websocket-protocol"), subprotocol},
        {AS_SLICE("sec-websocket-extensions"),
         {extensions, as_ws_extensions_write(&handshake->deflate, extensions)}},
    };
    as_err err = AS_OK;
    for (size_t i = 0; err == AS_OK && i < sizeof(pairs) / sizeof(*pairs); i++) {
        if (pairs[i][1].n > 0) {
            err = add_slice(f, pairs[i][0]);
            err = err == AS_OK ? add_slice(f, pairs[i][1]) : err;
        }
    }
    return err;
}

static int open_tunnel(as_websocket *ws, const as_ws_deflate_params *deflate, fields *f,
                       const char *type) {
    as_request *req = &ws->req;
    if (check_there(req, type) < 0) {
        return -1; /* since the headers were read */
    }
    const struct as_websockets *websockets = as_asgi_websockets(req->server);
    ws->codec = as_ws_new(websockets->env, deflate, req->server->limits.ws_max_size);
    as_err err = ws->codec != NULL
                     ? as_exchange_upgrade(req->ex, resolve(f), f->pairs.len / sizeof(as_slice))
                     : AS_E_NOMEM;
    if (err != AS_OK) {
        as_ws_free(ws->codec);
        ws->codec = NULL;
        as_raise(req->server->state, err, type);
        return -1;
    }
    req->send_state = AS_SEND_OPEN;
    as_access_log_add(req->server, req->ex);
    as_scope_forget_connection(req->ex->info->via != NULL ? req->ex->info->via : req->ex->info);
    as_exchange_set_alarm(req->ex, req->server->limits.ws_ping_interval);
    return 0;
}

static int get_subprotocol(as_request *req, PyObject *message, const char *type, as_slice *out) {
    PyObject *key = req->server->state->str.subprotocol;
    if (get_text(message, key, "subprotocol", type, out) < 0) {
        return -1;
    }
    if (out->n > 0 && !as_is_token(*out)) {
        PyErr_Format(PyExc_ValueError, "ASGI message '%s': key 'subprotocol': %R is not a token",
                     type, get(message, key));
        return -1;
    }
    return 0;
}

static int send_accept(as_request *req, PyObject *message, const char *type) {
    as_websocket *ws = websocket_of(req);
    as_ws_handshake handshake;
    as_slice subprotocol;
    fields f = {0};
    if (get_subprotocol(req, message, type, &subprotocol) < 0 || check_there(req, type) < 0) {
        return -1;
    }
    if (ws->accepting != NULL) {
        PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message '%s': another is being read",
                     type);
        return -1;
    }
    int result = -1;
    as_err err =
        as_ws_handshake_read(req->ex->head, req->server->limits.ws_per_message_deflate, &handshake);
    if (err == AS_OK) {
        err = add_own(&handshake, &f, subprotocol);
    }
    if (err == AS_OK) {
        ws->accepting = &f;
        result = as_send_headers(req, message, collect_field, type);
        ws->accepting = NULL;
    } else {
        as_raise(req->server->state, err, type);
    }
    if (result == 0) {
        result = open_tunnel(ws, &handshake.deflate, &f, type);
    }
    as_buf_fini(&f.bytes, NULL);
    as_buf_fini(&f.pairs, NULL);
    return result;
}

/* ---- websocket.close ---- */

static int get_code(as_request *req, PyObject *message, const char *type, unsigned *code) {
    PyObject *value = get(message, req->server->state->str.code);
    *code = 1000;
    if (value == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    if (!PyLong_Check(value)) {
        return wrong_type(type, "code", "an int", value);
    }
    int overflow;
    long number = PyLong_AsLongAndOverflow(value, &overflow);
    *code = overflow == 0 && number > 0 && number < 5000 ? (unsigned)number : 0;
    if (req->send_state == AS_SEND_OPEN && !as_ws_close_code_valid(*code)) {
        PyErr_Format(PyExc_ValueError,
                     "ASGI message '%s': key 'code': %R is not one that a server may send", type,
                     value);
        return -1;
    }
    return 0;
}

/* Before it was accepted: 403 (ASGI, "Close"). */
static int reject(as_request *req, const char *type) {
    static const as_bytes nothing = {"", 0, NULL, NULL, NULL};
    as_exchange *ex = req->ex;
    as_err err = as_exchange_head_begin(ex, 403, AS_SLICE(""));
    if (err == AS_OK) {
        err = as_exchange_head_field(ex, AS_SLICE("connection"), AS_SLICE("close"));
    }
    if (err == AS_OK) {
        err = as_exchange_body(ex, nothing, false);
    }
    if (err != AS_OK) {
        as_exchange_head_abandon(ex);
        as_raise(req->server->state, err, type);
        return -1;
    }
    as_request_completed(req);
    return 0;
}

static int send_close(as_request *req, PyObject *message, const char *type) {
    as_websocket *ws = websocket_of(req);
    as_slice reason;
    unsigned code;
    if (get_code(req, message, type, &code) < 0 ||
        get_text(message, req->server->state->str.reason, "reason", type, &reason) < 0) {
        return -1;
    }
    if (req->send_state == AS_SEND_OPEN && reason.n > REASON_MAX) {
        PyErr_Format(PyExc_ValueError,
                     "ASGI message '%s': key 'reason': %zu bytes of UTF-8 are more than %d", type,
                     reason.n, (int)REASON_MAX);
        return -1;
    }
    if (check_there(req, type) < 0) {
        return -1;
    }
    if (req->send_state == AS_SEND_START) {
        return reject(req, type);
    }
    as__ws_set_end(ws, code, reason);
    req->send_state = AS_SEND_DONE;
    as__ws_clear_inbox(ws);
    as__ws_close(ws, code, reason);
    as_awaitables_wake(req->receivers);
    return 0;
}

/* ---- websocket.send ---- */

static int write_message(as_websocket *ws, as_ws_opcode opcode, as_bytes data, const char *type) {
    as_request *req = &ws->req;
    bool compressed = as_ws_deflates(ws->codec, data.n);
    as_err err = AS_OK;
    if (compressed) {
        as_slice deflated;
        err = as_ws_deflate(ws->codec, (as_slice){data.p, data.n}, &deflated);
        data = (as_bytes){deflated.p, deflated.n, NULL, NULL, NULL};
    }
    if (err == AS_OK) {
        err = as__ws_frame(ws, opcode, compressed, data);
    }
    if (err != AS_OK) {
        as_raise(req->server->state, err, type);
        return -1;
    }
    as__ws_written(ws);
    return 0;
}

static int send_text(as_websocket *ws, PyObject *text, const char *type) {
    Py_ssize_t n;
    if (!PyUnicode_Check(text)) {
        return wrong_type(type, "text", "a str", text);
    }
    const char *p = PyUnicode_AsUTF8AndSize(text, &n);
    if (p == NULL || check_there(&ws->req, type) < 0) {
        return -1;
    }
    return write_message(ws, AS_WS_TEXT, as_bytes_within(text, p, (size_t)n), type);
}

/* bytes, or whatever shows its bytes. */
static int send_bytes(as_websocket *ws, PyObject *bytes, const char *type) {
    Py_buffer view;
    if (PyBytes_Check(bytes)) {
        return check_there(&ws->req, type) < 0
                   ? -1
                   : write_message(ws, AS_WS_BINARY, as_bytes_from_object(bytes), type);
    }
    if (!PyObject_CheckBuffer(bytes)) {
        return wrong_type(type, "bytes", "bytes", bytes);
    }
    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    as_bytes data = {view.buf, (size_t)view.len, NULL, NULL, NULL};
    int result = check_there(&ws->req, type) < 0 ? -1 : write_message(ws, AS_WS_BINARY, data, type);
    PyBuffer_Release(&view);
    return result;
}

static int send_message(as_request *req, PyObject *message, const char *type) {
    const as_module_state *state = req->server->state;
    PyObject *bytes =
        Py_XNewRef(get(message, state->str.bytes)); /* comparing keys may run Python */
    PyObject *text =
        Py_XNewRef(bytes != NULL || !PyErr_Occurred() ? get(message, state->str.text) : NULL);
    int result = -1;
    if (PyErr_Occurred()) {
        /* of such a comparison */
    } else if ((bytes == NULL) == (text == NULL)) {
        PyErr_Format(PyExc_ValueError,
                     "ASGI message '%s': exactly one of the keys 'bytes' and 'text' must be given, "
                     "and not None",
                     type);
    } else {
        result = text != NULL ? send_text(websocket_of(req), text, type)
                              : send_bytes(websocket_of(req), bytes, type);
    }
    Py_XDECREF(bytes);
    Py_XDECREF(text);
    return result;
}

/* ---- the answer of an application's own ---- */

/* The extension websocket.http.response. The connection closes behind it, and there are no
 * trailers. */
static int send_denial(as_request *req, PyObject *message, const char *type) {
    if (as_send_start(req, message, type) < 0) {
        return -1;
    }
    if (check_there(req, type) < 0) {
        return -1; /* since the headers were read */
    }
    req->ex->trailers = false;
    req->ex->close = true;
    return 0;
}

#define IN(state) (1u << (state))

const as_message_row as__ws_messages[] = {
    {"websocket.send", send_message, IN(AS_SEND_OPEN)},
    {"websocket.accept", send_accept, IN(AS_SEND_START)},
    {"websocket.close", send_close, IN(AS_SEND_START) | IN(AS_SEND_OPEN)},
    {"websocket.http.response.start", send_denial, IN(AS_SEND_START)},
    {"websocket.http.response.body", as_send_body, IN(AS_SEND_BODY)},
    {NULL, NULL, 0},
};

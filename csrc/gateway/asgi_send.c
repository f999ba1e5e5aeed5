/* send(): one message of the application becomes a call on the exchange.
 *
 *   START     http.response.start, http.response.early_hint
 *   BODY      http.response.body, http.response.pathsend
 *   TRAILERS  http.response.trailers
 *   DONE      nothing
 *
 * What a message does wrong is raised in the application, names the message and the key, and leaves
 * the response as it was. */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "gateway/asgi.h"

/* ---- reading messages ---- */

/* The value of `key`, borrowed; NULL without an exception when it is absent. */
static PyObject *get(PyObject *message, PyObject *key) {
    return PyDict_GetItemWithError(message, key);
}

static int get_bool(PyObject *message, PyObject *key) {
    PyObject *value = get(message, key);
    if (value == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    return PyObject_IsTrue(value);
}

static void drop_all(PyObject **values, int n) {
    for (int i = 0; i < n; i++) {
        Py_CLEAR(values[i]);
    }
}

/* One pass finds the values where a message has no other keys than these very objects, as those of
 * literals are: it costs less than two look-ups. False: there are others, which may be equal. */
static bool find_all(PyObject *message, PyObject *const *keys, PyObject **values, int n) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    for (Py_ssize_t left = PyDict_GET_SIZE(message); left > 0; left--) {
        int i = 0;
        if (!PyDict_Next(message, &at, &key, &value)) {
            return false;
        }
        while (i < n && keys[i] != key) {
            i++;
        }
        if (i == n) {
            return false;
        }
        values[i] = Py_NewRef(value);
    }
    return true;
}

/* The values of `n` keys, new references, NULL where there is none. -1 with an exception. */
static int get_all(PyObject *message, PyObject *const *keys, PyObject **values, int n) {
    memset(values, 0, (size_t)n * sizeof(*values));
    if (find_all(message, keys, values, n)) {
        return 0;
    }
    drop_all(values, n);
    for (int i = 0; i < n; i++) { /* comparing keys may run Python */
        values[i] = Py_XNewRef(get(message, keys[i]));
        if (values[i] == NULL && PyErr_Occurred()) {
            drop_all(values, n);
            return -1;
        }
    }
    return 0;
}

/* ---- fields ---- */

static as_slice bytes_slice(PyObject *bytes) {
    return (as_slice){PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
}

static int write_pair(as_request *req, PyObject *name, PyObject *value, as_field_writer write,
                      const char *type) {
    if (!PyBytes_Check(name) || !PyBytes_Check(value)) {
        PyErr_Format(
            PyExc_TypeError,
            "ASGI message '%s': key 'headers' must hold pairs of bytes, got (%.100s, %.100s)", type,
            Py_TYPE(name)->tp_name, Py_TYPE(value)->tp_name);
        return -1;
    }
    if (req->ex == NULL) {
        as_raise(req->server->state, AS_E_CLOSED, type);
        return -1;
    }
    as_err err = write(req->ex, bytes_slice(name), bytes_slice(value));
    if (err == AS_OK) {
        return 0;
    }
    if (err == AS_E_NOMEM || err == AS_E_CLOSED) {
        as_raise(req->server->state, err, type);
    } else {
        PyErr_Format(PyExc_ValueError, "ASGI message '%s': key 'headers': %R: %R: %s", type, name,
                     value, as_err_text(err));
    }
    return -1;
}

static int write_header(as_request *req, PyObject *item, as_field_writer write, const char *type) {
    PyObject *pair = PyTuple_CheckExact(item) || PyList_CheckExact(item) ? Py_NewRef(item)
                                                                         : PySequence_Tuple(item);
    if (pair == NULL || PySequence_Fast_GET_SIZE(pair) != 2) {
        if (pair != NULL || PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Format(PyExc_TypeError,
                         "ASGI message '%s': key 'headers' must hold (name, value) pairs, got %R",
                         type, item);
        }
        Py_XDECREF(pair);
        return -1;
    }
    PyObject *name = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 0));
    PyObject *value = Py_NewRef(PySequence_Fast_GET_ITEM(pair, 1));
    int result = write_pair(req, name, value, write, type);
    Py_DECREF(name);
    Py_DECREF(value);
    Py_DECREF(pair);
    return result;
}

/* All pairs of `headers`, a reference that the caller holds; iterating may run any Python. */
static int write_headers(as_request *req, PyObject *headers, as_field_writer write,
                         const char *type) {
    int result = 0;
    if (PyList_CheckExact(headers) || PyTuple_CheckExact(headers)) {
        for (Py_ssize_t i = 0; result == 0 && i < PySequence_Fast_GET_SIZE(headers); i++) {
            PyObject *item = Py_NewRef(PySequence_Fast_GET_ITEM(headers, i));
            result = write_header(req, item, write, type);
            Py_DECREF(item);
        }
        return result;
    }
    PyObject *iterator = PyObject_GetIter(headers), *item;
    if (iterator == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Format(PyExc_TypeError,
                     "ASGI message '%s': key 'headers' must be iterable, not %.100s", type,
                     Py_TYPE(headers)->tp_name);
    }
    while (iterator != NULL && result == 0 && (item = PyIter_Next(iterator)) != NULL) {
        result = write_header(req, item, write, type);
        Py_DECREF(item);
    }
    Py_XDECREF(iterator);
    return PyErr_Occurred() ? -1 : result;
}

int as_send_headers(as_request *req, PyObject *message, as_field_writer write, const char *type) {
    PyObject *headers = get(message, req->server->state->str.headers);
    if (headers == NULL) {
        return PyErr_Occurred() ? -1 : 0;
    }
    Py_INCREF(headers);
    int result = write_headers(req, headers, write, type);
    Py_DECREF(headers);
    return result;
}

/* ---- http.response.start ---- */

/* message["status"] as a number, or -1 with an exception. NULL: there is none. */
static long get_status(PyObject *status, const char *type) {
    if (status == NULL) {
        PyErr_Format(PyExc_KeyError, "ASGI message '%s' needs the key 'status'", type);
        return -1;
    }
    /* http.HTTPStatus is an int, too. */
    if (!PyLong_Check(status)) {
        PyErr_Format(PyExc_TypeError, "ASGI message '%s': key 'status' must be an int, not %.100s",
                     type, Py_TYPE(status)->tp_name);
        return -1;
    }
    int overflow;
    long value = PyLong_AsLongAndOverflow(status, &overflow);
    if (overflow != 0 || value < 200 || value > 999) {
        PyErr_Format(PyExc_ValueError,
                     "ASGI message '%s': key 'status' must be from 200 to 999, got %R", type,
                     status);
        return -1;
    }
    return value;
}

/* References that the caller holds, as Python may run; NULL: the message has none. */
static int begin_response(as_request *req, PyObject *status_object, PyObject *trailers_object,
                          PyObject *headers, const char *type) {
    long status = get_status(status_object, type);
    int trailers = status < 0 ? -1 : trailers_object == NULL ? 0 : PyObject_IsTrue(trailers_object);
    if (trailers < 0) {
        return -1;
    }
    if (req->ex == NULL || req->gone) {
        as_raise(req->server->state, AS_E_CLOSED, type);
        return -1;
    }
    as_err err = as_exchange_head_begin(req->ex, (unsigned)status, (as_slice){NULL, 0});
    if (err != AS_OK) {
        as_raise(req->server->state, err, type);
        return -1;
    }
    if (headers != NULL && write_headers(req, headers, req->ex->ops->head_field, type) < 0) {
        if (req->ex != NULL && req->ex->res == AS_RES_HEAD) {
            as_exchange_head_abandon(req->ex);
        }
        return -1;
    }
    if (req->ex == NULL) { /* since the last pair */
        as_raise(req->server->state, AS_E_CLOSED, type);
        return -1;
    }
    req->ex->trailers = trailers != 0;
    req->send_state = AS_SEND_BODY;
    return 0;
}

int as_send_start(as_request *req, PyObject *message, const char *type) {
    as_module_state *state = req->server->state;
    PyObject *keys[] = {state->str.type, state->str.status, state->str.headers,
                        state->str.trailers};
    PyObject *values[4];
    if (get_all(message, keys, values, 4) < 0) {
        return -1;
    }
    int result = begin_response(req, values[1], values[3], values[2], type);
    drop_all(values, 4);
    return result;
}

/* ---- http.response.body ---- */

/* The error of a body call: what is past mending cuts the connection when the application ends. */
static int raise_body_error(as_request *req, as_err err, const char *type) {
    if (err == AS_E_RESPONSE_LONG || err == AS_E_RESPONSE_SHORT) {
        PyErr_Format(PyExc_RuntimeError, "ASGI message '%s': key 'body': %s", type,
                     as_err_text(err));
    } else {
        as_raise(req->server->state, err, type);
    }
    return -1;
}

static int write_body(as_request *req, as_bytes data, bool more, const char *type) {
    if (req->ex == NULL || req->gone) {
        as_raise(req->server->state, AS_E_CLOSED, type);
        return -1;
    }
    as_exchange *ex = req->ex;
    bool trailers = ex->trailers && !more;
    as_err err = as_exchange_body(ex, data, more || trailers);
    if (err != AS_OK) {
        return raise_body_error(req, err, type);
    }
    if (trailers) {
        req->send_state = AS_SEND_TRAILERS;
    } else if (!more) {
        as_request_completed(req);
    }
    return 0;
}

/* bytes, or whatever shows its bytes: Starlette sends memoryviews. */
static int send_body_object(as_request *req, PyObject *body, bool more, const char *type) {
    if (PyBytes_Check(body)) {
        return write_body(req, as_bytes_from_object(body), more, type);
    }
    Py_buffer view;
    if (!PyObject_CheckBuffer(body)) {
        PyErr_Format(PyExc_TypeError, "ASGI message '%s': key 'body' must be bytes, not %.100s",
                     type, Py_TYPE(body)->tp_name);
        return -1;
    }
    if (PyObject_GetBuffer(body, &view, PyBUF_SIMPLE) < 0) {
        return -1;
    }
    as_bytes data = {view.buf, (size_t)view.len, NULL, NULL, NULL};
    int result = write_body(req, data, more, type);
    PyBuffer_Release(&view);
    return result;
}

int as_send_body(as_request *req, PyObject *message, const char *type) {
    as_module_state *state = req->server->state;
    PyObject *keys[] = {state->str.type, state->str.body, state->str.more_body};
    PyObject *values[3];
    if (get_all(message, keys, values, 3) < 0) {
        return -1;
    }
    PyObject *body = values[1] != NULL ? values[1] : state->empty_bytes;
    int more = values[2] != NULL ? PyObject_IsTrue(values[2]) : 0;
    int result = more >= 0 ? send_body_object(req, body, more != 0, type) : -1;
    drop_all(values, 3);
    return result;
}

/* ---- extensions ---- */

/* Opens a regular file; -1 with an exception. Opening may wait for a disk, never for a peer. */
static int open_file(PyObject *path, uint64_t *size) {
    PyObject *encoded;
    if (!PyUnicode_Check(path)) {
        PyErr_Format(PyExc_TypeError,
                     "ASGI message 'http.response.pathsend': key 'path' must be a str, not %.100s",
                     Py_TYPE(path)->tp_name);
        return -1;
    }
    if (!PyUnicode_FSConverter(path, &encoded)) {
        return -1;
    }
    struct stat st;
    int fd = open(PyBytes_AS_STRING(encoded), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    Py_DECREF(encoded);
    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        if (fd < 0 || S_ISREG(st.st_mode)) {
            PyErr_SetFromErrnoWithFilenameObject(PyExc_OSError, path);
        } else {
            PyErr_Format(
                PyExc_OSError,
                "ASGI message 'http.response.pathsend': key 'path': %R is not a regular file",
                path);
        }
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    *size = (uint64_t)st.st_size;
    return fd;
}

static int send_path(as_request *req, PyObject *message, const char *type) {
    PyObject *path = get(message, req->server->state->str.path);
    if (path == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_Format(PyExc_KeyError, "ASGI message '%s' needs the key 'path'", type);
        }
        return -1;
    }
    uint64_t size = 0;
    Py_INCREF(path);
    int fd = open_file(path, &size);
    Py_DECREF(path);
    if (fd < 0) {
        return -1;
    }
    if (req->ex == NULL || req->gone) {
        close(fd);
        as_raise(req->server->state, AS_E_CLOSED, type);
        return -1;
    }
    bool trailers = req->ex->trailers;
    as_err err = as_exchange_file(req->ex, fd, 0, size, trailers);
    if (err != AS_OK) {
        return raise_body_error(req, err, type);
    }
    if (trailers) {
        req->send_state = AS_SEND_TRAILERS;
    } else {
        as_request_completed(req);
    }
    return 0;
}

static int send_trailers(as_request *req, PyObject *message, const char *type) {
    int more = get_bool(message, req->server->state->str.more_trailers);
    if (more < 0) {
        return -1;
    }
    if (req->ex == NULL || req->gone) {
        as_raise(req->server->state, AS_E_CLOSED, type);
        return -1;
    }
    if (as_send_headers(req, message, req->ex->ops->trailer, type) < 0) {
        return -1;
    }
    if (more) {
        return 0;
    }
    as_err err = req->ex != NULL ? as_exchange_end(req->ex) : AS_E_CLOSED;
    if (err != AS_OK) {
        as_raise(req->server->state, err, type);
        return -1;
    }
    as_request_completed(req);
    return 0;
}

/* message["links"] as a tuple of bytes, new reference. */
static PyObject *get_links(as_request *req, PyObject *message) {
    PyObject *links = get(message, req->server->state->str.links);
    if (links == NULL) {
        return PyErr_Occurred() ? NULL : PyTuple_New(0);
    }
    Py_INCREF(links); /* iterating may run any Python */
    PyObject *tuple = PySequence_Tuple(links);
    if (tuple == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Format(
            PyExc_TypeError,
            "ASGI message 'http.response.early_hint': key 'links' must be iterable, not %.100s",
            Py_TYPE(links)->tp_name);
    }
    Py_DECREF(links);
    for (Py_ssize_t i = 0; tuple != NULL && i < PyTuple_GET_SIZE(tuple); i++) {
        if (!PyBytes_Check(PyTuple_GET_ITEM(tuple, i))) {
            PyErr_SetString(PyExc_TypeError,
                            "ASGI message 'http.response.early_hint': key 'links' must hold bytes");
            Py_CLEAR(tuple);
        }
    }
    return tuple;
}

static int send_early_hint(as_request *req, PyObject *message, const char *type) {
    PyObject *links = get_links(req, message);
    if (links == NULL) {
        return -1;
    }
    size_t n = (size_t)PyTuple_GET_SIZE(links);
    as_slice *pairs = PyMem_Calloc(2 * n + 1, sizeof(*pairs));
    as_err err = AS_E_NOMEM;
    if (pairs != NULL) {
        for (size_t i = 0; i < n; i++) {
            pairs[2 * i] = AS_SLICE("link");
            pairs[2 * i + 1] = bytes_slice(PyTuple_GET_ITEM(links, (Py_ssize_t)i));
        }
        bool gone = req->ex == NULL || req->gone;
        err = gone ? AS_E_CLOSED : as_exchange_interim(req->ex, 103, pairs, 2 * n);
        PyMem_Free(pairs);
    }
    Py_DECREF(links);
    if (err != AS_OK) {
        as_raise(req->server->state, err, type);
        return -1;
    }
    return 0;
}

/* ---- dispatch ---- */

#define IN(state) (1u << (state))

const as_message_row as_http_messages[] = {
    {"http.response.start", as_send_start, IN(AS_SEND_START)},
    {"http.response.body", as_send_body, IN(AS_SEND_BODY)},
    {"http.response.pathsend", send_path, IN(AS_SEND_BODY)},
    {"http.response.trailers", send_trailers, IN(AS_SEND_TRAILERS)},
    {"http.response.early_hint", send_early_hint, IN(AS_SEND_START)},
    {NULL, NULL, 0},
};

const char *const as_http_expected[] = {
    [AS_SEND_START] = "'http.response.start'",
    [AS_SEND_BODY] = "'http.response.body'",
    [AS_SEND_TRAILERS] = "'http.response.trailers'",
};

static int refuse(as_request *req, PyObject *type) {
    if (req->send_state == AS_SEND_DONE) {
        PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %R: %s", type, req->kind->done);
    } else {
        PyErr_Format(PyExc_RuntimeError, "unexpected ASGI message %R: expected %s", type,
                     req->kind->expected[req->send_state]);
    }
    return -1;
}

static bool is_type(PyObject *type, const char *name) {
    size_t n = strlen(name);
    return PyUnicode_IS_READY(type) && PyUnicode_IS_ASCII(type) &&
           (size_t)PyUnicode_GET_LENGTH(type) == n && memcmp(PyUnicode_DATA(type), name, n) == 0;
}

/* message["type"], usually its first entry; borrowed. */
static PyObject *get_type(PyObject *message, PyObject *name) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    return PyDict_Next(message, &at, &key, &value) && key == name ? value : get(message, name);
}

static int dispatch(as_request *req, PyObject *message) {
    PyObject *type = get_type(message, req->server->state->str.type);
    if (type == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_KeyError, "an ASGI message needs the key 'type'");
        }
        return -1;
    }
    if (!PyUnicode_Check(type)) {
        PyErr_Format(PyExc_TypeError, "ASGI message: key 'type' must be a str, not %.100s",
                     Py_TYPE(type)->tp_name);
        return -1;
    }
    for (const as_message_row *row = req->kind->messages; row->type != NULL; row++) {
        if (is_type(type, row->type)) {
            return (row->states & IN(req->send_state)) != 0 ? row->send(req, message, row->type)
                                                            : refuse(req, type);
        }
    }
    return refuse(req, type);
}

int as_request_send(as_request *req, PyObject *message) {
    if (PyDict_Check(message)) {
        return dispatch(req, message);
    }
    if (!PyObject_HasAttrString(message, "keys")) {
        PyErr_Format(PyExc_TypeError, "an ASGI message must be a dict, not %.100s",
                     Py_TYPE(message)->tp_name);
        return -1;
    }
    PyObject *dict = PyDict_New();
    int result = -1;
    if (dict != NULL && PyDict_Update(dict, message) == 0) {
        result = dispatch(req, dict);
    }
    Py_XDECREF(dict);
    return result;
}

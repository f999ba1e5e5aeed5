/* start_response() and write() (PEP 3333, "The start_response() Callable").
 *
 * The head goes straight into the exchange, which checks and keeps it until the first body bytes
 * make it leave, and takes it back when start_response is called again with exc_info. Wrong types
 * raise TypeError, wrong contents ValueError, calls out of order AssertionError, as wsgiref does.
 */
#include "gateway/wsgi.h"

#include <structmember.h>

typedef struct callable {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    as_wsgi_request *req; /* borrowed; NULL: the request has ended */
} callable;

/* The request of a callable, NULL with an exception when it may not be called (any more, here). */
static as_wsgi_request *request_of(PyObject *object, const char *name) {
    as_wsgi_request *req = ((callable *)object)->req;
    if (req == NULL) {
        PyErr_Format(PyExc_RuntimeError, "%s() called after the request has ended", name);
        return NULL;
    }
    if (PyThread_get_thread_ident() != req->wsgi->thread) {
        /* The exchange is that thread's alone. */
        PyErr_Format(PyExc_RuntimeError, "%s() called on another thread than the application",
                     name);
        return NULL;
    }
    return req;
}

/* ---- the head ---- */

/* The characters of a str as bytes of the wire, valid as long as the str; -1 with an exception.
 * Subclasses are taken for what they hold: frameworks make some (lazy and "safe" strings). */
static int wire(PyObject *str, const char *what, as_slice *out) {
    if (!PyUnicode_Check(str)) {
        PyErr_Format(PyExc_TypeError, "start_response(): %s must be str, not %.100s", what,
                     Py_TYPE(str)->tp_name);
        return -1;
    }
#if PY_VERSION_HEX < 0x030C0000
    if (PyUnicode_READY(str) < 0) {
        return -1;
    }
#endif
    if (PyUnicode_KIND(str) != PyUnicode_1BYTE_KIND) {
        PyErr_Format(PyExc_ValueError, "start_response(): %s has characters beyond Latin-1: %R",
                     what, str);
        return -1;
    }
    *out = (as_slice){(const char *)PyUnicode_1BYTE_DATA(str), (size_t)PyUnicode_GET_LENGTH(str)};
    return 0;
}

/* RFC 9110, 5.5: no control characters but the tab. (PEP 3333 forbids the tab as well, but
 * applications use it and it does no harm.) */
static bool has_controls(as_slice s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return true;
        }
    }
    return false;
}

static as_slice trim(as_slice s) {
    while (s.n > 0 && (*s.p == ' ' || *s.p == '\t')) {
        s.p++;
        s.n--;
    }
    while (s.n > 0 && (s.p[s.n - 1] == ' ' || s.p[s.n - 1] == '\t')) {
        s.n--;
    }
    return s;
}

/* Fields about one connection, which are the server's business (PEP 3333, "Other HTTP Features";
 * RFC 2616, 13.5.1). */
static bool is_hop_by_hop(as_slice name) {
    static const as_slice names[] = {
        {"connection", 10},
        {"keep-alive", 10},
        {"proxy-authenticate", 18},
        {"proxy-authorization", 19},
        {"te", 2},
        {"trailer", 7},
        {"trailers", 8},
        {"upgrade", 7},
        {"transfer-encoding", 17},
        {"proxy-connection", 16},
    };
    /* Of usual names hardly one has a length of these. */
    static const uint32_t lengths =
        1u << 2 | 1u << 7 | 1u << 8 | 1u << 10 | 1u << 16 | 1u << 17 | 1u << 18 | 1u << 19;
    if (name.n >= 32 || (lengths >> name.n & 1) == 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (as_slice_ieq(name, names[i])) {
            return true;
        }
    }
    return false;
}

/* "NNN reason". The last one is remembered: most applications have few, in constants. */
static int parse_status(as_wsgi *wsgi, PyObject *status, unsigned *code, as_slice *reason) {
    as_slice s;
    if (status == wsgi->status) {
        *code = wsgi->status_code;
        *reason = wsgi->status_reason;
        return 0;
    }
    if (wire(status, "status", &s) < 0) {
        return -1;
    }
    unsigned value = 0;
    bool valid = s.n >= 4 && s.p[3] == ' ' && !has_controls(s);
    for (size_t i = 0; valid && i < 3; i++) {
        valid = s.p[i] >= '0' && s.p[i] <= '9';
        value = value * 10 + (unsigned)(s.p[i] - '0');
    }
    if (!valid || value < 200) {
        PyErr_Format(PyExc_ValueError,
                     "start_response(): status must be like '200 OK', from 200 to 999, not %R",
                     status);
        return -1;
    }
    *code = value;
    *reason = trim((as_slice){s.p + 4, s.n - 4});
    if (PyUnicode_CheckExact(status)) { /* it cannot change, and holds the reason's bytes */
        Py_XSETREF(wsgi->status, Py_NewRef(status));
        wsgi->status_code = value;
        wsgi->status_reason = *reason;
    }
    return 0;
}

/* Raises what the exchange said about one field. */
static void raise_field(as_module_state *state, as_err err, PyObject *name, PyObject *value) {
    if (err == AS_E_NOMEM || err == AS_E_CLOSED) {
        as_raise(state, err, "start_response()");
        return;
    }
    PyErr_Format(PyExc_ValueError, "start_response(): header %R: %R: %s", name, value,
                 as_err_text(err));
}

static int write_field(as_wsgi_request *req, PyObject *item) {
    as_slice name, value;
    if (!PyTuple_Check(item) || PyTuple_GET_SIZE(item) != 2) {
        PyErr_Format(PyExc_TypeError,
                     "start_response(): headers must hold (name, value) tuples, not %R", item);
        return -1;
    }
    PyObject *py_name = PyTuple_GET_ITEM(item, 0), *py_value = PyTuple_GET_ITEM(item, 1);
    if (wire(py_name, "a header name", &name) < 0 || wire(py_value, "a header value", &value) < 0) {
        return -1;
    }
    if (is_hop_by_hop(name)) {
        PyErr_Format(PyExc_ValueError,
                     "start_response(): header %R is hop-by-hop, the server sets it", py_name);
        return -1;
    }
    as_err err = as_exchange_head_field(req->ex, name, value); /* controls are refused there */
    if (err) {
        raise_field(req->wsgi->server->state, err, py_name, py_value);
        return -1;
    }
    return 0;
}

/* Only formatting a message for an exception can run Python of others (a __repr__) in here. */
static int write_head(as_wsgi_request *req, PyObject *status, PyObject *headers) {
    unsigned code;
    as_slice reason;
    if (!PyList_Check(headers)) {
        PyErr_Format(PyExc_TypeError, "start_response(): headers must be a list, not %.100s",
                     Py_TYPE(headers)->tp_name);
        return -1;
    }
    if (parse_status(req->wsgi, status, &code, &reason) < 0) {
        return -1;
    }
    as_err err = as_exchange_head_begin(req->ex, code, reason);
    if (err) {
        as_raise(req->wsgi->server->state, err, "start_response()");
        return -1;
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(headers); i++) {
        PyObject *item =
            Py_NewRef(PyList_GET_ITEM(headers, i)); /* a __repr__ may change the list */
        int result = write_field(req, item);
        Py_DECREF(item);
        if (result < 0) {
            if (req->ex->res == AS_RES_HEAD) {
                as_exchange_head_abandon(req->ex);
            }
            return -1;
        }
    }
    return 0;
}

/* exc_info of (type, value, traceback) once the head has left: raised again, to end the
 * application. */
static void raise_again(PyObject *exc_info) {
    PyObject *value = PyTuple_Check(exc_info) && PyTuple_GET_SIZE(exc_info) == 3
                          ? PyTuple_GET_ITEM(exc_info, 1)
                          : NULL;
    if (value == NULL || !PyExceptionInstance_Check(value)) {
        PyErr_SetString(PyExc_AssertionError, "start_response(): the head has been sent already");
        return;
    }
    PyObject *traceback = PyTuple_GET_ITEM(exc_info, 2);
    if (PyTraceBack_Check(traceback) && PyException_SetTraceback(value, traceback) < 0) {
        return;
    }
    PyErr_SetObject((PyObject *)Py_TYPE(value), value);
}

/* May the head be written (again)? */
static int check_order(as_wsgi_request *req, PyObject *exc_info) {
    if (!req->started) {
        return 0;
    }
    if (exc_info == NULL) {
        PyErr_SetString(PyExc_AssertionError,
                        "start_response() called a second time without exc_info");
        return -1;
    }
    if (req->ex->res >= AS_RES_BODY) {
        raise_again(exc_info);
        return -1;
    }
    if (req->ex->res == AS_RES_HEAD) {
        as_exchange_head_abandon(req->ex);
    }
    return 0;
}

/* The third argument, by position or (not in the PEP, but in use) by name; NULL: none. */
static int find_exc_info(PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames,
                         PyObject **exc_info) {
    Py_ssize_t nkw = kwnames ? PyTuple_GET_SIZE(kwnames) : 0;
    if (nargs < 2 || nargs + nkw > 3 ||
        (nkw == 1 &&
         PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "exc_info") != 0)) {
        PyErr_SetString(PyExc_TypeError,
                        "start_response() takes (status, headers, exc_info=None), by position");
        return -1;
    }
    *exc_info = nargs + nkw == 3 && args[2] != Py_None ? args[2] : NULL;
    return 0;
}

static PyObject *start_call(PyObject *object, PyObject *const *args, size_t nargsf,
                            PyObject *kwnames) {
    PyObject *exc_info;
    as_wsgi_request *req = request_of(object, "start_response");
    if (req == NULL || find_exc_info(args, PyVectorcall_NARGS(nargsf), kwnames, &exc_info) < 0 ||
        check_order(req, exc_info) < 0) {
        return NULL;
    }
    req->started = true;
    if (write_head(req, args[0], args[1]) < 0) {
        return NULL;
    }
    return Py_NewRef(req->write);
}

/* ---- write ---- */

/* "It must guarantee that the bytes were sent, or are buffered for transmission". Inline, what the
 * socket does not take is queued in memory without a bound, because waiting would hold the only
 * thread: an application with much to send yields it instead. A thread of its own can wait. */
static PyObject *write_call(PyObject *object, PyObject *const *args, size_t nargsf,
                            PyObject *kwnames) {
    as_wsgi_request *req = request_of(object, "write");
    if (req == NULL) {
        return NULL;
    }
    if (PyVectorcall_NARGS(nargsf) != 1 || kwnames != NULL || !PyBytes_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "write() takes one bytes object");
        return NULL;
    }
    if (PyBytes_GET_SIZE(args[0]) == 0) {
        Py_RETURN_NONE; /* as for empty items of the iterable, the head waits for real bytes */
    }
    as_err err = as__wsgi_send(req, args[0], true);
    if (!err) {
        err = as_exchange_flush(req->ex);
    }
    if (!err && req->wsgi->threaded) {
        err = as__wsgi_wait(req);
    }
    if (err) {
        as_raise(req->wsgi->server->state, err, "write()");
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---- the types ---- */

static void callable_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyMemberDef callable_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(callable, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot start_slots[] = {
    {Py_tp_doc, (void *)"start_response(status, headers, exc_info=None, /)"},
    {Py_tp_dealloc, callable_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, callable_members},
    {0, NULL},
};

static PyType_Slot write_slots[] = {
    {Py_tp_doc, (void *)"write(data, /)"},
    {Py_tp_dealloc, callable_dealloc},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, callable_members},
    {0, NULL},
};

#define CALLABLE_FLAGS                                                                                 \
    (Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION |              \
     Py_TPFLAGS_IMMUTABLETYPE)

static PyType_Spec start_spec = {
    .name = "asgiserver._core.StartResponse",
    .basicsize = sizeof(callable),
    .flags = CALLABLE_FLAGS,
    .slots = start_slots,
};

static PyType_Spec write_spec = {
    .name = "asgiserver._core.Write",
    .basicsize = sizeof(callable),
    .flags = CALLABLE_FLAGS,
    .slots = write_slots,
};

int as__wsgi_add_start_types(PyObject *module, as_module_state *state) {
    state->start_response_type =
        (PyTypeObject *)PyType_FromModuleAndSpec(module, &start_spec, NULL);
    state->write_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &write_spec, NULL);
    return state->start_response_type && state->write_type ? 0 : -1;
}

static PyObject *callable_new(PyTypeObject *type, vectorcallfunc vectorcall) {
    callable *self = PyObject_New(callable, type);
    if (self != NULL) {
        self->vectorcall = vectorcall;
        self->req = NULL;
    }
    return (PyObject *)self;
}

PyObject *as__wsgi_start_new(as_module_state *state) {
    return callable_new(state->start_response_type, start_call);
}

PyObject *as__wsgi_write_new(as_module_state *state) {
    return callable_new(state->write_type, write_call);
}

void as__wsgi_callable_bind(PyObject *object, as_wsgi_request *req) {
    ((callable *)object)->req = req;
}

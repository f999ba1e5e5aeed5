/* The ASGI gateway: what an exchange tells becomes a request with its scope, receive and send. */
#include "gateway/asgi.h"

#include <structmember.h>

#include "http/ws_handshake.h"

/* ---- the server's part ---- */

#define SPARES 8 /* kits */

/* The objects of a request that the application is given. When it ends before on_request returns,
 * and nobody kept any of them, the next request gets the same ones. */
typedef struct request_kit {
    as_request *req;
    PyObject *receive, *send; /* both hold `req` */
} request_kit;

typedef struct asgi {
    struct as_scope_cache *scopes;
    struct as_tasks *tasks;
    struct as_websockets *websockets;
    PyObject *body_message; /* {"type": "http.request", "body": b"", "more_body": False} */
    PyObject *disconnect;   /* {"type": "http.disconnect"} */
    request_kit spare[SPARES];
    int nspare;
    as_spare_awaitables awaitables;
} asgi;

struct as_tasks *as_asgi_tasks(as_server *server) {
    asgi *self = server->gateway;
    return self != NULL ? self->tasks : NULL;
}

as_spare_awaitables *as_asgi_spare_awaitables(const as_server *server) {
    asgi *self = server->gateway;
    return self != NULL ? &self->awaitables : NULL;
}

struct as_websockets *as_asgi_websockets(as_server *server) {
    asgi *self = server->gateway;
    return self != NULL ? self->websockets : NULL;
}

static void drop_kit(request_kit *kit) {
    Py_XDECREF(kit->send);
    Py_XDECREF(kit->receive);
    Py_XDECREF(kit->req);
}

static void asgi_fini(as_server *server) {
    asgi *self = server->gateway;
    server->gateway = NULL;
    if (self != NULL) {
        while (self->nspare > 0) {
            drop_kit(&self->spare[--self->nspare]);
        }
        as_spare_awaitables_free(&self->awaitables);
        as_scope_cache_free(self->scopes);
        as_tasks_free(self->tasks);
        as_websockets_free(self->websockets);
        Py_XDECREF(self->body_message);
        Py_XDECREF(self->disconnect);
        PyMem_Free(self);
    }
}

static int asgi_init(as_server *server) {
    asgi *self = PyMem_Calloc(1, sizeof(*self));
    if (self == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    server->gateway = self;
    if ((self->scopes = as_scope_cache_new(server)) == NULL ||
        (self->tasks = as_tasks_new(server)) == NULL ||
        (self->websockets = as_websockets_new(server)) == NULL ||
        (self->body_message = Py_BuildValue("{s:s, s:O, s:O}", "type", "http.request", "body",
                                            server->state->empty_bytes, "more_body", Py_False)) ==
            NULL ||
        (self->disconnect = Py_BuildValue("{s:s}", "type", "http.disconnect")) == NULL) {
        asgi_fini(server);
        return -1;
    }
    return 0;
}

static int asgi_traverse(as_server *server, visitproc visit, void *arg) {
    asgi *self = server->gateway;
    if (self == NULL) {
        return 0;
    }
    for (int i = 0; i < self->nspare; i++) {
        Py_VISIT(self->spare[i].req);
        Py_VISIT(self->spare[i].receive);
        Py_VISIT(self->spare[i].send);
    }
    int stop = as_scope_cache_traverse(self->scopes, visit, arg);
    return stop != 0 ? stop : as_tasks_traverse(self->tasks, visit, arg);
}

/* ---- receive ---- */

/* A request of HTTP, with what came of its body. */
typedef struct http_request {
    as_request req;     /* first: a request to everybody else */
    PyObject *chunk;    /* bytes: body that came first and is not received yet */
    as_buf queued;      /* body behind `chunk` */
    bool body_done;     /* the client has sent all of the body */
    bool body_received; /* … and the application has taken all of it */
} http_request;

static http_request *http_of(as_request *req) {
    return (http_request *)req;
}

/* The next piece of the queued body as bytes; the caller knows that there is one. */
static PyObject *take_body(http_request *http) {
    if (http->chunk != NULL) {
        PyObject *chunk = http->chunk;
        http->chunk = NULL;
        return chunk;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(http->queued.data, (Py_ssize_t)http->queued.len);
    if (bytes != NULL) {
        as_buf_fini(&http->queued, NULL);
    }
    return bytes;
}

static bool body_waits(const http_request *http) {
    return http->chunk != NULL || http->queued.len > 0;
}

/* {"type": "http.request", …} with what is there of the body. */
static PyObject *body_message(http_request *http) {
    as_server *server = http->req.server;
    as_module_state *state = server->state;
    PyObject *message = PyDict_Copy(((asgi *)server->gateway)->body_message);
    if (message == NULL) {
        return NULL;
    }
    if (body_waits(http)) {
        PyObject *body = take_body(http);
        int failed = body == NULL || PyDict_SetItem(message, state->str.body, body) < 0;
        Py_XDECREF(body);
        if (failed) {
            Py_DECREF(message);
            return NULL;
        }
    }
    bool more = !http->body_done || http->queued.len > 0;
    if (more && PyDict_SetItem(message, state->str.more_body, Py_True) < 0) {
        Py_DECREF(message);
        return NULL;
    }
    http->body_received = !more;
    return message;
}

static PyObject *next_message(as_request *req) {
    http_request *http = http_of(req);
    asgi *self = req->server->gateway;
    if (self == NULL || req->gone || req->ex == NULL || req->send_state == AS_SEND_DONE) {
        return self != NULL ? PyDict_Copy(self->disconnect)
                            : Py_BuildValue("{s:s}", "type", "http.disconnect");
    }
    if (!http->body_received) {
        if (body_waits(http) || http->body_done) {
            PyObject *message = body_message(http);
            if (message != NULL && http->queued.len == 0 && req->ex != NULL) {
                as_exchange_resume(req->ex);
            }
            return message;
        }
        as_exchange_want_body(req->ex);
        as_exchange_resume(req->ex);
        return NULL;
    }
    return req->eof ? PyDict_Copy(self->disconnect) : NULL;
}

/* ---- send ---- */

bool as_request_writable(as_request *req) {
    if (req->gone || req->ex == NULL || req->send_state == AS_SEND_DONE) {
        return true;
    }
    uint64_t high = req->server->limits.limit_write_buffer;
    if (as_exchange_pending(req->ex) <= high) {
        return true;
    }
    as_exchange_flush(req->ex);
    return req->gone || as_exchange_pending(req->ex) <= high;
}

void as_request_completed(as_request *req) {
    req->send_state = AS_SEND_DONE;
    as_access_log_add(req->server, req->ex);
    as_awaitables_wake(req->receivers);
}

/* ---- the end ---- */

/* Takes the exchange from the request; the caller releases it. */
static as_exchange *detach(as_request *req) {
    as_exchange *ex = req->ex;
    req->ex = NULL;
    ex->gateway = NULL;
    return ex;
}

void as_request_abandon(as_request *req) {
    Py_INCREF(req);
    Py_CLEAR(req->driver);
    if (req->ex != NULL) {
        as_exchange_release(detach(req));
        if (req->kind->forget != NULL) {
            req->kind->forget(req);
        }
        Py_DECREF(req); /* the exchange's */
    }
    Py_DECREF(req);
}

/* Whether `exception` is, or came of, a send() that told of a client that left: frameworks turn our
 * OSError into an exception of their own. */
static bool is_disconnect(as_request *req, PyObject *exception) {
    PyObject *at = Py_NewRef(exception);
    for (int depth = 0; at != NULL && depth < 16; depth++) {
        if (PyErr_GivenExceptionMatches(at, req->server->state->client_disconnected)) {
            Py_DECREF(at);
            return true;
        }
        PyObject *next = PyException_GetCause(at);
        if (next == NULL) {
            next = PyException_GetContext(at);
        }
        Py_SETREF(at, next);
    }
    Py_XDECREF(at);
    return false;
}

/* The present exception, normalized, still set. */
static bool client_has_left(as_request *req) {
    PyObject *type, *value, *traceback;
    if (!req->gone) {
        return false;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    bool left = value != NULL && is_disconnect(req, value);
    PyErr_Restore(type, value, traceback);
    return left;
}

void as_request_respond_error(as_request *req) {
    as_exchange *ex = req->ex;
    as_respond_error(ex, 500);
    if (ex->res == AS_RES_DONE) {
        as_access_log_add(req->server, ex);
    }
}

/* The application raised. A client that left, told by send(), is no failure. */
static void application_raised(as_request *req) {
    as_exchange *ex = req->ex;
    if (client_has_left(req) ||
        ((req->server->stopping || req->overdue) && !PyErr_ExceptionMatches(PyExc_Exception))) {
        PyErr_Clear(); /* nobody is there to hear of it */
    } else {
        as_log_exception(req->server, ex, "Exception in ASGI application");
    }
    if (req->ex != NULL && !req->gone && req->send_state != AS_SEND_DONE) {
        req->kind->failed(req);
    }
}

/* The application returned without having completed its response. */
static void stopped_short(as_request *req) {
    if (req->send_state == AS_SEND_START) {
        as_log_exception(req->server, req->ex, "ASGI application returned without a response");
        as_request_respond_error(req);
    } else {
        as_log_exception(req->server, req->ex,
                         "ASGI application returned without completing its response");
        as_exchange_abort(req->ex);
    }
}

void as_request_finished(as_request *req) {
    Py_INCREF(req);
    if (req->ex == NULL) {
        if (PyErr_Occurred()) {
            as_log_exception(req->server, NULL, "Exception in ASGI application");
        }
    } else if (PyErr_Occurred()) {
        application_raised(req);
    } else if (!req->gone && req->send_state != AS_SEND_DONE) {
        req->kind->stopped_short(req);
    }
    req->send_state = AS_SEND_DONE;
    as_awaitables_wake(req->receivers);
    as_awaitables_wake(req->senders);
    as_request_flush(req);
    req->kind->let_go(req);
    Py_DECREF(req);
}

/* ---- the request object ---- */

static const as_request_kind http_kind;

as_request *as_request_new(PyTypeObject *type, as_server *server, const as_request_kind *kind,
                           as_exchange *ex) {
    as_request *req = PyObject_GC_New(as_request, type); /* of the type's size */
    if (req == NULL) {
        return NULL;
    }
    memset((char *)req + sizeof(PyObject), 0, (size_t)type->tp_basicsize - sizeof(PyObject));
    req->server = (as_server *)Py_NewRef(server);
    req->kind = kind;
    req->ex = ex;
    PyObject_GC_Track(req);
    return req;
}

int as_request_traverse(PyObject *op, visitproc visit, void *arg) {
    as_request *req = (as_request *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(req->server);
    Py_VISIT(req->driver);
    Py_VISIT(req->headers);
    return 0;
}

int as_request_clear(PyObject *op) {
    as_request *req = (as_request *)op;
    Py_CLEAR(req->driver);
    Py_CLEAR(req->headers);
    return 0;
}

void as_request_fini(as_request *req) {
    as_request_clear((PyObject *)req);
    Py_CLEAR(req->server);
}

static void drop_body(http_request *http) {
    Py_CLEAR(http->chunk);
    as_buf_fini(&http->queued, NULL);
}

static void http_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    drop_body((http_request *)op);
    as_request_fini((as_request *)op);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

/* The time is over that an application has when its client has left. */
static PyObject *request_overdue(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_request *req = (as_request *)op;
    if (req->ex == NULL) {
        Py_RETURN_NONE; /* it has ended */
    }
    req->overdue = true;
    return as_task_cancel(req) == 0 ? Py_NewRef(Py_None) : NULL;
}

PyMethodDef as_request_methods[] = {
    {"_overdue", request_overdue, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot http_slots[] = {
    {Py_tp_methods, as_request_methods},
    {Py_tp_dealloc, http_dealloc},
    {Py_tp_traverse, as_request_traverse},
    {Py_tp_clear, as_request_clear},
    {0, NULL},
};

static PyType_Spec http_spec = {
    .name = "asgiserver._core.Request",
    .basicsize = sizeof(http_request),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = http_slots,
};

/* ---- the callables receive and send ---- */

typedef struct callable {
    PyObject_HEAD
    vectorcallfunc vectorcall;
    as_request *req; /* strong */
} callable;

static int no_keywords(PyObject *kwnames, const char *name) {
    if (kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0) {
        PyErr_Format(PyExc_TypeError, "%s() takes no keyword arguments", name);
        return -1;
    }
    return 0;
}

static PyObject *call_receive(PyObject *op, PyObject *const *Py_UNUSED(args), size_t nargsf,
                              PyObject *kwnames) {
    if (no_keywords(kwnames, "receive") < 0) {
        return NULL;
    }
    if (PyVectorcall_NARGS(nargsf) != 0) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    return as_receive_awaitable(((callable *)op)->req);
}

static PyObject *call_send(PyObject *op, PyObject *const *args, size_t nargsf, PyObject *kwnames) {
    as_request *req = ((callable *)op)->req;
    PyObject *message;
    if (PyVectorcall_NARGS(nargsf) == 0 && kwnames != NULL && PyTuple_GET_SIZE(kwnames) == 1 &&
        PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0), "message") == 0) {
        message = args[0];
    } else if (no_keywords(kwnames, "send") < 0) {
        return NULL;
    } else if (PyVectorcall_NARGS(nargsf) != 1) {
        PyErr_SetString(PyExc_TypeError, "send() takes exactly one argument: the message");
        return NULL;
    } else {
        message = args[0];
    }
    return as_send_awaitable(req, message);
}

static PyObject *callable_new(PyTypeObject *type, vectorcallfunc vectorcall, as_request *req) {
    callable *self = PyObject_GC_New(callable, type);
    if (self != NULL) {
        self->vectorcall = vectorcall;
        self->req = (as_request *)Py_NewRef(req);
        PyObject_GC_Track(self);
    }
    return (PyObject *)self;
}

static int callable_traverse(PyObject *op, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((callable *)op)->req);
    return 0;
}

static void callable_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    Py_CLEAR(((callable *)op)->req);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static PyMemberDef callable_members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(callable, vectorcall), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot callable_slots[] = {
    {Py_tp_dealloc, callable_dealloc},
    {Py_tp_traverse, callable_traverse},
    {Py_tp_call, PyVectorcall_Call},
    {Py_tp_members, callable_members},
    {0, NULL},
};

#define CALLABLE_SPEC(type_name)                                                                       \
    {                                                                                                  \
        .name = type_name, .basicsize = sizeof(callable),                                              \
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |                \
                 Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,                         \
        .slots = callable_slots,                                                                       \
    }

static PyType_Spec receive_spec = CALLABLE_SPEC("asgiserver._core.Receive");
static PyType_Spec send_spec = CALLABLE_SPEC("asgiserver._core.Send");

int as_asgi_add_types(PyObject *module, as_module_state *state) {
    if ((state->request_type =
             (PyTypeObject *)PyType_FromModuleAndSpec(module, &http_spec, NULL)) == NULL ||
        (state->receive_type =
             (PyTypeObject *)PyType_FromModuleAndSpec(module, &receive_spec, NULL)) == NULL ||
        (state->send_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &send_spec, NULL)) ==
            NULL) {
        return -1;
    }
    if (as_headers_add_type(module, state) < 0 || as_awaitable_add_type(module, state) < 0 ||
        as_websocket_add_type(module, state) < 0) {
        return -1;
    }
    return as_task_add_type(module, state);
}

/* ---- the call ---- */

static void cannot_serve(as_server *server, as_exchange *ex) {
    as_log_exception(server, ex, "cannot serve");
    as_respond_error(ex, 503);
    as_exchange_release(ex);
}

/* receive and send for kit->req; -1 with an exception. */
static int complete_kit(as_module_state *state, request_kit *kit) {
    kit->receive = callable_new(state->receive_type, call_receive, kit->req);
    kit->send = kit->receive != NULL ? callable_new(state->send_type, call_send, kit->req) : NULL;
    return kit->send != NULL ? 0 : -1;
}

/* Calls the application with the kit, which is the caller's; `scope` is taken over, and NULL with
 * an exception. */
static void start(as_server *server, request_kit *kit, PyObject *scope) {
    as_request *req = kit->req;
    as_head *head = req->ex->head;
    req->ex->gateway = Py_NewRef(req);
    if (scope != NULL) {
        PyObject *args[4] = {NULL, scope, kit->receive, kit->send};
        as_tasks_run(((asgi *)server->gateway)->tasks, req, args + 1);
        Py_DECREF(scope);
    } else {
        as_request_finished(req);
    }
    asgi *self = server->gateway;
    if (as_scope_settle(self != NULL ? self->scopes : NULL, req, head) < 0) {
        as_log_exception(server, req->ex, "cannot keep the headers");
    }
}

/* ---- kits ---- */

/* 0, or -1 with an exception. */
static int kit_new(as_server *server, request_kit *kit) {
    kit->receive = kit->send = NULL;
    kit->req = as_request_new(server->state->request_type, server, &http_kind, NULL);
    if (kit->req != NULL && complete_kit(server->state, kit) == 0) {
        return 0;
    }
    drop_kit(kit);
    return -1;
}

/* The request has ended, and nobody has or awaits any of it: the two callables hold the request,
 * and so does the kit. */
static bool is_unkept(const request_kit *kit) {
    const as_request *req = kit->req;
    return req->ex == NULL && Py_REFCNT(req) == 3 && Py_REFCNT(kit->receive) == 1 &&
           Py_REFCNT(kit->send) == 1 && req->receivers == NULL && req->senders == NULL;
}

/* As as_request_new made it. */
static void reset_request(as_request *req) {
    http_request *http = http_of(req);
    as_request_clear((PyObject *)req);
    drop_body(http);
    http->body_done = http->body_received = false;
    req->send_state = AS_SEND_START;
    req->gone = req->eof = false;
    req->leaving = req->overdue = req->driving = req->unflushed = false;
}

/* The kit becomes a spare one, or goes. */
static void retire_kit(as_server *server, request_kit *kit) {
    asgi *self = server->gateway;
    if (self != NULL && self->nspare < SPARES && is_unkept(kit)) {
        reset_request(kit->req);
        self->spare[self->nspare++] = *kit;
    } else {
        drop_kit(kit);
    }
}

/* ---- from the exchange ---- */

static void on_upgrade(as_server *server, as_exchange *ex) {
    request_kit kit = {as_websocket_new(server, ex), NULL, NULL};
    if (kit.req != NULL) {
        struct as_scope_cache *scopes = ((asgi *)server->gateway)->scopes;
        bool complete = complete_kit(server->state, &kit) == 0;
        start(server, &kit, complete ? as_scope_new_websocket(scopes, kit.req) : NULL);
        drop_kit(&kit);
    } else if (PyErr_Occurred()) {
        cannot_serve(server, ex);
    }
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    as_server *server = ctx;
    if (ex->head->upgrade && server->limits.ws && as_ws_is_asked_for(ex->head)) {
        on_upgrade(server, ex);
        return;
    }
    asgi *self = server->gateway;
    request_kit kit;
    if (self->nspare > 0) {
        kit = self->spare[--self->nspare];
    } else if (kit_new(server, &kit) < 0) {
        cannot_serve(server, ex);
        return;
    }
    http_request *http = http_of(kit.req);
    http->body_done = ex->req == AS_REQ_DONE;
    if (body.n > 0 && (http->chunk = as_pybytes(body)) == NULL) {
        drop_kit(&kit);
        cannot_serve(server, ex);
        return;
    }
    kit.req->ex = ex;
    start(server, &kit, as_scope_new(self->scopes, kit.req));
    retire_kit(server, &kit);
}

static void take_body_bytes(as_request *req, as_slice data) {
    http_request *http = http_of(req);
    as_exchange *ex = req->ex;
    if (req->send_state == AS_SEND_DONE || data.n == 0) {
        return;
    }
    if (http->chunk == NULL && http->queued.len == 0) {
        if ((http->chunk = as_pybytes(data)) == NULL) {
            PyErr_Clear(); /* no memory: the connection goes, which tells the application */
            as_exchange_abort(ex);
            req->gone = true;
        }
    } else if (as_buf_append(&http->queued, NULL, data.p, data.n) != AS_OK) {
        as_exchange_abort(ex);
        req->gone = true;
    }
    size_t waiting =
        http->queued.len + (http->chunk != NULL ? (size_t)PyBytes_GET_SIZE(http->chunk) : 0);
    if (!req->gone && waiting >= req->server->limits.limit_body_buffer) {
        as_exchange_pause(ex);
    }
    as_awaitables_wake(req->receivers);
}

static void take_body_end(as_request *req) {
    http_of(req)->body_done = true;
    as_awaitables_wake(req->receivers);
}

static void cancel_later(as_request *req) {
    as_server *server = req->server;
    PyObject *overdue = PyObject_GetAttrString((PyObject *)req, "_overdue");
    PyObject *handle = overdue != NULL
                           ? PyObject_CallMethod(server->py_loop, "call_later", "dO",
                                                 server->limits.timeout_cancel / 1000.0, overdue)
                           : NULL;
    if (handle == NULL) {
        PyErr_WriteUnraisable(overdue);
    }
    Py_XDECREF(handle);
    Py_XDECREF(overdue);
}

/* The asyncio loop is called, which may run any Python: the request may end, and go. */
void as_request_client_leaves(as_request *req) {
    Py_INCREF(req);
    as_awaitables_wake(req->receivers);
    if (req->server->limits.timeout_cancel != 0 && !req->leaving) {
        req->leaving = true;
        cancel_later(req);
    }
    Py_DECREF(req);
}

static void half_closed(as_request *req) {
    req->eof = true;
    as_request_client_leaves(req);
}

static void aborted(as_request *req) {
    Py_INCREF(req);
    req->gone = true;
    as_request_client_leaves(req);
    as_awaitables_wake(req->senders);
    Py_DECREF(req);
}

static void drained(as_request *req) {
    as_awaitables_wake(req->senders);
}

static const as_request_kind http_kind = {
    .messages = as_http_messages,
    .expected = as_http_expected,
    .done = "the response is already complete",
    .next_message = next_message,
    .failed = as_request_respond_error,
    .stopped_short = stopped_short,
    .let_go = as_request_abandon,
    .on_body = take_body_bytes,
    .on_end = take_body_end,
    .on_eof = half_closed,
    .on_shutdown = half_closed,
    .on_abort = aborted,
    .on_drain = drained,
};

static void on_body(void *Py_UNUSED(ctx), as_exchange *ex, as_slice data) {
    as_request *req = ex->gateway;
    if (req != NULL) {
        req->kind->on_body(req, data);
    }
}

static void on_end(void *Py_UNUSED(ctx), as_exchange *ex) {
    as_request *req = ex->gateway;
    if (req != NULL && req->kind->on_end != NULL) {
        req->kind->on_end(req);
    }
}

static void on_eof(void *Py_UNUSED(ctx), as_exchange *ex) {
    as_request *req = ex->gateway;
    if (req != NULL) {
        req->kind->on_eof(req);
    }
}

static void on_shutdown(void *Py_UNUSED(ctx), as_exchange *ex) {
    as_request *req = ex->gateway;
    if (req != NULL) {
        req->kind->on_shutdown(req);
    }
}

static void on_abort(void *Py_UNUSED(ctx), as_exchange *ex, as_err Py_UNUSED(why)) {
    as_request *req = ex->gateway;
    if (req != NULL) {
        req->kind->on_abort(req);
    }
}

static void on_drain(void *Py_UNUSED(ctx), as_exchange *ex) {
    as_request *req = ex->gateway;
    if (req != NULL) {
        req->kind->on_drain(req);
    }
}

static void on_alarm(void *Py_UNUSED(ctx), as_exchange *ex) {
    as_request *req = ex->gateway;
    if (req != NULL) {
        req->kind->on_alarm(req);
    }
}

static void on_close(void *Py_UNUSED(ctx), as_conn_info *info) {
    as_scope_forget_connection(info);
}

static const as_handlers asgi_handlers = {
    .on_request = on_request,
    .on_body = on_body,
    .on_end = on_end,
    .on_eof = on_eof,
    .on_abort = on_abort,
    .on_drain = on_drain,
    .on_close = on_close,
    .on_refused = as_log_refused,
    .on_shutdown = on_shutdown,
    .on_alarm = on_alarm,
};

const as_gateway as_asgi_gateway = {
    .handlers = &asgi_handlers,
    .init = asgi_init,
    .fini = asgi_fini,
    .traverse = asgi_traverse,
};

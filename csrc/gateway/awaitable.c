/* What receive() and send() return: a coroutine in all but its type, with __await__, send, throw
 * and close. Nothing happens before it is awaited: a receive() that is made a task and cancelled
 * loses no message, a send() that is closed sends none. receive() then waits on a future of the
 * loop until there is a message, send() until there is room in the write queue. */
#include "gateway/asgi.h"

typedef enum { NEW, WAITING, DONE } progress;

struct as_awaitable {
    PyObject_HEAD
    as_request *req;            /* strong */
    PyObject *message;          /* of send(), until it is awaited; NULL for receive() */
    PyObject *future;           /* while WAITING */
    PyObject *steps;            /* the future's own iterator, while WAITING */
    as_awaitable *next, **link; /* among the request's waiters, while WAITING */
    uint8_t progress;
    bool is_receive;
};

/* ---- waiting ---- */

static void unlink_waiter(as_awaitable *self) {
    if (self->link != NULL) {
        *self->link = self->next;
        if (self->next != NULL) {
            self->next->link = self->link;
        }
        self->link = NULL;
        self->next = NULL;
    }
}

static void link_waiter(as_awaitable *self) {
    as_awaitable **first = self->is_receive ? &self->req->receivers : &self->req->senders;
    /* At the end: who waited first is served first. */
    while (*first != NULL) {
        first = &(*first)->next;
    }
    self->link = first;
    *first = self;
}

static void stop_waiting(as_awaitable *self) {
    unlink_waiter(self);
    Py_CLEAR(self->steps);
    Py_CLEAR(self->future);
}

/* Makes the future to wait on, and gives its first step: the future itself, new reference. */
static PySendResult start_waiting(as_awaitable *self, PyObject **result) {
    as_module_state *state = self->req->server->state;
    self->future = PyObject_CallMethodNoArgs(self->req->server->py_loop, state->str.create_future);
    if (self->future == NULL) {
        return PYGEN_ERROR;
    }
    self->steps = PyObject_CallMethodNoArgs(self->future, state->str.__await__);
    if (self->steps == NULL) {
        Py_CLEAR(self->future);
        return PYGEN_ERROR;
    }
    self->progress = WAITING;
    link_waiter(self);
    return PyIter_Send(self->steps, Py_None, result);
}

static void wake(const as_module_state *state, PyObject *future) {
    PyObject *done = PyObject_CallMethodNoArgs(future, state->str.done);
    if (done == Py_False) {
        Py_XDECREF(PyObject_CallMethodOneArg(future, state->str.set_result, Py_None));
    }
    Py_XDECREF(done);
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(future);
    }
}

void as_awaitables_wake(as_awaitable *first) {
    if (first == NULL) {
        return;
    }
    const as_module_state *state = first->req->server->state;
    if (first->next == NULL) {
        PyObject *future = Py_NewRef(first->future);
        wake(state, future);
        Py_DECREF(future);
        return;
    }
    /* Waking runs the loop's Python code, which may change the list: collect the futures first. */
    PyObject *futures = PyList_New(0);
    if (futures == NULL) {
        PyErr_WriteUnraisable(NULL);
        return;
    }
    for (as_awaitable *at = first; at != NULL; at = at->next) {
        if (PyList_Append(futures, at->future) < 0) {
            PyErr_WriteUnraisable((PyObject *)at);
        }
    }
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(futures); i++) {
        wake(state, PyList_GET_ITEM(futures, i));
    }
    Py_DECREF(futures);
}

/* ---- the steps of an awaitable ---- */

static PySendResult finish(as_awaitable *self, PyObject *value, PyObject **result) {
    self->progress = DONE;
    *result = value;
    return PYGEN_RETURN;
}

static PySendResult try_to_finish(as_awaitable *self, PyObject **result) {
    if (self->message != NULL) {
        PyObject *message = self->message;
        self->message = NULL;
        int failed = as_request_send(self->req, message);
        Py_DECREF(message);
        if (failed) {
            return PYGEN_ERROR;
        }
        if (as_request_writable(self->req)) {
            return finish(self, Py_NewRef(Py_None), result);
        }
        return PYGEN_NEXT;
    }
    if (self->is_receive) {
        PyObject *message = self->req->kind->next_message(self->req);
        if (message != NULL) {
            return finish(self, message, result);
        }
        return PyErr_Occurred() ? PYGEN_ERROR : PYGEN_NEXT;
    }
    if (!as_request_writable(self->req)) {
        return PYGEN_NEXT;
    }
    if (self->req->gone) {
        as_raise(self->req->server->state, AS_E_CLOSED, "send");
        return PYGEN_ERROR;
    }
    return finish(self, Py_NewRef(Py_None), result);
}

static PySendResult awaitable_step(PyObject *op, PyObject *value, PyObject **result) {
    as_awaitable *self = (as_awaitable *)op;
    *result = NULL;
    if (self->progress == DONE) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (self->progress == WAITING) {
        PyObject *ignored = NULL;
        PySendResult step = PyIter_Send(self->steps, value, &ignored);
        if (step == PYGEN_NEXT) {
            *result = ignored;
            return step;
        }
        Py_XDECREF(ignored);
        stop_waiting(self);
        if (step == PYGEN_ERROR) {
            self->progress = DONE;
            return step;
        }
    }
    PySendResult step = try_to_finish(self, result);
    if (step == PYGEN_NEXT) {
        step = start_waiting(self, result);
    }
    if (step == PYGEN_ERROR) {
        stop_waiting(self);
        self->progress = DONE;
    }
    return step;
}

/* A step's outcome in the manner of tp_iternext and of the method send(). */
static PyObject *as_iteration(PySendResult step, PyObject *result) {
    if (step != PYGEN_RETURN) {
        return result;
    }
    PyErr_SetObject(PyExc_StopIteration, result); /* a dict or None: never taken for arguments */
    Py_XDECREF(result);
    return NULL;
}

static PyObject *awaitable_iternext(PyObject *op) {
    PyObject *result;
    PySendResult step = awaitable_step(op, Py_None, &result);
    if (step == PYGEN_RETURN && result == Py_None) {
        Py_DECREF(result);
        return NULL; /* an end without a value */
    }
    return as_iteration(step, result);
}

static PyObject *awaitable_send(PyObject *op, PyObject *value) {
    PyObject *result;
    PySendResult step = awaitable_step(op, value, &result);
    return as_iteration(step, result);
}

/* The arguments of throw(): (type), (type, value) or (type, value, traceback). */
PyObject *as_raise_thrown(PyObject *const *args, Py_ssize_t n) {
    if (n < 1 || n > 3) {
        PyErr_SetString(PyExc_TypeError, "throw() takes from 1 to 3 arguments");
        return NULL;
    }
    PyObject *type = args[0], *value = n > 1 ? args[1] : NULL, *traceback = n > 2 ? args[2] : NULL;
    if (traceback == Py_None) {
        traceback = NULL;
    }
    if (PyExceptionInstance_Check(type)) {
        value = type;
        type = (PyObject *)Py_TYPE(value);
    } else if (!PyExceptionClass_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "exceptions must derive from BaseException");
        return NULL;
    }
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), Py_XNewRef(traceback));
    return NULL;
}

static PyObject *awaitable_throw(PyObject *op, PyObject *const *args, Py_ssize_t n) {
    as_awaitable *self = (as_awaitable *)op;
    stop_waiting(self);
    Py_CLEAR(self->message);
    self->progress = DONE;
    return as_raise_thrown(args, n);
}

static PyObject *awaitable_close(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_awaitable *self = (as_awaitable *)op;
    stop_waiting(self);
    Py_CLEAR(self->message);
    self->progress = DONE;
    Py_RETURN_NONE;
}

/* ---- the type ---- */

/* A spare one, or a new one. */
static as_awaitable *allocate(const as_server *server) {
    as_spare_awaitables *spare = as_asgi_spare_awaitables(server);
    PyTypeObject *type = server->state->awaitable_type;
    if (spare == NULL || spare->n == 0) {
        return PyObject_GC_New(as_awaitable, type);
    }
    return (as_awaitable *)PyObject_Init(spare->objects[--spare->n], type);
}

static void deallocate(PyObject *op, const as_server *server) {
    as_spare_awaitables *spare = server != NULL ? as_asgi_spare_awaitables(server) : NULL;
    if (spare != NULL && spare->n < AS_SPARE_AWAITABLES) {
        spare->objects[spare->n++] = op;
    } else {
        PyObject_GC_Del(op);
    }
}

void as_spare_awaitables_free(as_spare_awaitables *spare) {
    while (spare->n > 0) {
        PyObject_GC_Del(spare->objects[--spare->n]);
    }
}

static PyObject *awaitable_new(as_request *req, PyObject *message) {
    as_awaitable *self = allocate(req->server);
    if (self == NULL) {
        return NULL;
    }
    self->req = (as_request *)Py_NewRef(req);
    self->message = Py_XNewRef(message);
    self->future = NULL;
    self->steps = NULL;
    self->next = NULL;
    self->link = NULL;
    self->progress = NEW;
    self->is_receive = message == NULL;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

PyObject *as_receive_awaitable(as_request *req) {
    return awaitable_new(req, NULL);
}

PyObject *as_send_awaitable(as_request *req, PyObject *message) {
    return awaitable_new(req, message);
}

static int awaitable_traverse(PyObject *op, visitproc visit, void *arg) {
    as_awaitable *self = (as_awaitable *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->req);
    Py_VISIT(self->message);
    Py_VISIT(self->future);
    Py_VISIT(self->steps);
    return 0;
}

static int awaitable_clear(PyObject *op) {
    as_awaitable *self = (as_awaitable *)op;
    stop_waiting(self);
    self->progress = DONE;
    Py_CLEAR(self->message);
    Py_CLEAR(self->req);
    return 0;
}

static void awaitable_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    as_request *req = ((as_awaitable *)op)->req;
    as_server *server = req != NULL ? (as_server *)Py_XNewRef(req->server) : NULL;
    awaitable_clear(op);
    deallocate(op, server);
    Py_XDECREF(server);
    Py_DECREF(type);
}

static PyMethodDef awaitable_methods[] = {
    {"send", awaitable_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))awaitable_throw, METH_FASTCALL, NULL},
    {"close", awaitable_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot awaitable_slots[] = {
    {Py_tp_dealloc, awaitable_dealloc},
    {Py_tp_traverse, awaitable_traverse},
    {Py_tp_clear, awaitable_clear},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, awaitable_iternext},
    {Py_tp_methods, awaitable_methods},
    {Py_am_await, PyObject_SelfIter},
    {Py_am_send, awaitable_step},
    {0, NULL},
};

static PyType_Spec awaitable_spec = {
    .name = "asgiserver._core.Awaitable",
    .basicsize = sizeof(as_awaitable),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = awaitable_slots,
};

int as_awaitable_add_type(PyObject *module, as_module_state *state) {
    state->awaitable_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &awaitable_spec, NULL);
    return state->awaitable_type != NULL ? 0 : -1;
}

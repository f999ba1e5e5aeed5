/* What receive() and send() return: a coroutine in all but its type, with __await__, send, throw
 * and close. Nothing happens before it is awaited: a receive() that is made a task and cancelled
 * loses no message, a send() that is closed sends none. receive() then waits until there is a
 * message, send() until there is room in the write queue.
 *
 * While it waits it is its own future: what its step gives to the task is itself, with what a task
 * asks of a future (get_loop, add_done_callback, cancel, result). So thousands that wait for their
 * next message cost one object each. For asyncio.isfuture(), which looks at the type, it is a
 * coroutine and no future: create_task(), wait_for() and gather() make it a task of its own. */
#include "gateway/asgi.h"

typedef enum { NEW, WAITING, RUNNING, DONE } progress;

struct as_awaitable {
    PyObject_HEAD
    as_request *req;    /* strong */
    PyObject *message;  /* of send(), until it is awaited; of cancel(), once cancelled; or NULL */
    PyObject *callback; /* of the task, until it is woken; NULL: none yet, or called */
    PyObject *context;  /* … for it */
    as_awaitable *next; /* among the request's waiters, while WAITING */
    uint8_t progress;
    bool is_receive;
    bool blocking;  /* as asyncio has it: given to a task by `yield from`, and not taken yet */
    bool woken;     /* as a future it is done */
    bool cancelled; /* … by cancel() */
};

/* ---- waiting ---- */

static as_awaitable **waiters_of(const as_awaitable *self) {
    return self->is_receive ? &self->req->receivers : &self->req->senders;
}

/* Those that are woken leave in the order in which they came: it is the first. */
static void unlink_waiter(as_awaitable *self) {
    as_awaitable **at = waiters_of(self);
    while (*at != NULL && *at != self) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = self->next;
        self->next = NULL;
    }
}

static void link_waiter(as_awaitable *self) {
    as_awaitable **at = waiters_of(self);
    /* At the end: who waited first is served first. */
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = self;
}

static void stop_waiting(as_awaitable *self) {
    if (self->progress == WAITING) {
        unlink_waiter(self);
        self->progress = NEW;
        Py_CLEAR(self->callback);
        Py_CLEAR(self->context);
        Py_CLEAR(self->message);
    }
}

/* Gives the future to wait on: itself, new reference. */
static PySendResult start_waiting(as_awaitable *self, PyObject **result) {
    self->progress = WAITING;
    self->blocking = true;
    self->woken = self->cancelled = false;
    link_waiter(self);
    *result = Py_NewRef(self);
    return PYGEN_NEXT;
}

/* The task that waits takes its next step with the loop's next turn. */
static int call_back(as_awaitable *self) {
    as_server *server = self->req->server;
    PyObject *callback = self->callback, *context = self->context;
    self->callback = self->context = NULL;
    PyObject *args[] = {server->py_loop, callback, (PyObject *)self, context};
    PyObject *handle = NULL;
    if (server->py_loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the server is closed");
    } else {
        handle = PyObject_VectorcallMethod(server->state->str.call_soon, args,
                                           3 | PY_VECTORCALL_ARGUMENTS_OFFSET,
                                           context != NULL ? server->state->context_keyword : NULL);
    }
    Py_DECREF(callback);
    Py_XDECREF(context);
    Py_XDECREF(handle);
    return handle != NULL ? 0 : -1;
}

static int wake(as_awaitable *self) {
    self->woken = true;
    return self->callback != NULL ? call_back(self) : 0;
}

/* Calling the loop may run any Python, which may change the list: it is read anew each time. */
void as_awaitables_wake(as_awaitable *first) {
    if (first == NULL) {
        return;
    }
    as_request *req = (as_request *)Py_NewRef(first->req);
    as_awaitable **list = first->is_receive ? &req->receivers : &req->senders;
    as_awaitable *at = *list;
    while (at != NULL) {
        if (at->woken) {
            at = at->next;
            continue;
        }
        Py_INCREF(at);
        if (wake(at) < 0) { /* its callback is gone: nobody can wake it later */
            PyErr_WriteUnraisable((PyObject *)at);
            as_task_lost(req);
        }
        Py_DECREF(at);
        at = *list;
    }
    Py_DECREF(req);
}

/* ---- as a future ---- */

static int check_waits(const as_awaitable *self) {
    if (self->progress != WAITING) {
        PyErr_SetString(PyExc_RuntimeError, "the coroutine is not waiting");
        return -1;
    }
    return 0;
}

static PyObject *future_get_loop(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_awaitable *self = (as_awaitable *)op;
    PyObject *loop = self->req != NULL ? self->req->server->py_loop : NULL;
    return Py_NewRef(loop != NULL ? loop : Py_None);
}

/* add_done_callback(fn, *, context=None), for one task. */
static PyObject *future_add_done_callback(PyObject *op, PyObject *const *args, Py_ssize_t n,
                                          PyObject *kwnames) {
    as_awaitable *self = (as_awaitable *)op;
    bool keyword = kwnames != NULL && PyTuple_GET_SIZE(kwnames) > 0;
    if (n != 1 || (keyword && (PyTuple_GET_SIZE(kwnames) != 1 ||
                               PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(kwnames, 0),
                                                                "context") != 0))) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes a callable and a context");
        return NULL;
    }
    if (check_waits(self) < 0) {
        return NULL;
    }
    if (self->callback != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the coroutine is being awaited already");
        return NULL;
    }
    self->callback = Py_NewRef(args[0]);
    self->context = keyword && args[1] != Py_None ? Py_NewRef(args[1]) : NULL;
    if (self->woken && call_back(self) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* cancel(msg=None): the task is woken, and asks for the result. */
static PyObject *future_cancel(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"msg", NULL};
    as_awaitable *self = (as_awaitable *)op;
    PyObject *message = Py_None;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:cancel", keywords, &message)) {
        return NULL;
    }
    if (self->progress != WAITING || self->woken) {
        Py_RETURN_FALSE;
    }
    self->cancelled = true;
    Py_XSETREF(self->message, Py_NewRef(message));
    return wake(self) == 0 ? Py_NewRef(Py_True) : NULL;
}

static PyObject *raise_cancelled(PyObject *message) {
    PyObject *module = PyImport_ImportModule("asyncio.exceptions");
    PyObject *type = module != NULL ? PyObject_GetAttrString(module, "CancelledError") : NULL;
    if (type != NULL && message != NULL && message != Py_None) {
        PyErr_SetObject(type, message);
    } else if (type != NULL) {
        PyErr_SetNone(type);
    }
    Py_XDECREF(type);
    Py_XDECREF(module);
    return NULL;
}

static PyObject *future_result(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_awaitable *self = (as_awaitable *)op;
    if (self->cancelled) {
        return raise_cancelled(self->message);
    }
    if (check_waits(self) < 0) {
        return NULL;
    }
    if (!self->woken) {
        PyErr_SetString(PyExc_RuntimeError, "the coroutine still waits");
        return NULL;
    }
    Py_RETURN_NONE;
}

static bool is_blocking_flag(const as_awaitable *self, PyObject *name) {
    return self->progress == WAITING && PyUnicode_Check(name) &&
           PyUnicode_CompareWithASCIIString(name, "_asyncio_future_blocking") == 0;
}

/* On the object alone: a type that has it is one of futures. */
static PyObject *awaitable_getattro(PyObject *op, PyObject *name) {
    const as_awaitable *self = (as_awaitable *)op;
    return is_blocking_flag(self, name) ? PyBool_FromLong(self->blocking)
                                        : PyObject_GenericGetAttr(op, name);
}

static int awaitable_setattro(PyObject *op, PyObject *name, PyObject *value) {
    as_awaitable *self = (as_awaitable *)op;
    if (value == NULL || !is_blocking_flag(self, name)) {
        return PyObject_GenericSetAttr(op, name, value);
    }
    int blocking = PyObject_IsTrue(value);
    self->blocking = blocking == 1;
    return blocking >= 0 ? 0 : -1;
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

static PySendResult awaitable_step(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result) {
    as_awaitable *self = (as_awaitable *)op;
    *result = NULL;
    if (self->progress == DONE) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (self->progress == WAITING) {
        if (!self->woken) {
            PyErr_SetString(PyExc_RuntimeError, "the coroutine is being awaited already");
            return PYGEN_ERROR;
        }
        stop_waiting(self);
    }
    if (self->progress == RUNNING) { /* by the code of the application that makes its headers */
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return PYGEN_ERROR;
    }
    self->progress = RUNNING;
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
    /* Where the exception was raised before goes on being told, as a coroutine has it. */
    traceback = traceback == NULL && value != NULL && PyExceptionInstance_Check(value)
                    ? PyException_GetTraceback(value)
                    : Py_XNewRef(traceback);
    PyErr_Restore(Py_NewRef(type), Py_XNewRef(value), traceback);
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
    self->callback = self->context = NULL;
    self->next = NULL;
    self->progress = NEW;
    self->blocking = self->woken = self->cancelled = false;
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
    Py_VISIT(self->callback);
    Py_VISIT(self->context);
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
    {"get_loop", future_get_loop, METH_NOARGS, NULL},
    {"add_done_callback", (PyCFunction)(void (*)(void))future_add_done_callback,
     METH_FASTCALL | METH_KEYWORDS, NULL},
    {"cancel", (PyCFunction)(void (*)(void))future_cancel, METH_VARARGS | METH_KEYWORDS, NULL},
    {"result", future_result, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot awaitable_slots[] = {
    {Py_tp_dealloc, awaitable_dealloc},
    {Py_tp_traverse, awaitable_traverse},
    {Py_tp_clear, awaitable_clear},
    {Py_tp_getattro, awaitable_getattro},
    {Py_tp_setattro, awaitable_setattro},
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

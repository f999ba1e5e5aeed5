/* The server object: how it is made, what it is told, and what it tells. Who drives it is in
 * server_drive.c. */
#include "gateway/server_internal.h"

#include <errno.h>
#include <structmember.h>

#include "gateway/access_format.h"
#include "gateway/access_log.h"
#include "gateway/asgi.h"
#include "gateway/proxy.h"
#include "gateway/threads.h"
#include "gateway/tls.h"
#include "http/response.h"
#include "net/loop.h"

/* ---- making ---- */

static int set_limits(as_server *self, PyObject *limits) {
    as_limits_init(&self->limits);
    if (limits == NULL || limits == Py_None) {
        return 0;
    }
    PyObject *items = PyMapping_Items(limits);
    if (items == NULL) {
        return -1;
    }
    int result = 0;
    for (Py_ssize_t i = 0; result == 0 && i < PyList_GET_SIZE(items); i++) {
        const char *name;
        unsigned long long value;
        if (!PyArg_ParseTuple(PyList_GET_ITEM(items, i), "sK", &name, &value)) {
            result = -1;
        } else if (!as_limits_set(&self->limits, name, value)) {
            PyErr_Format(PyExc_ValueError, "no such limit: %s", name);
            result = -1;
        }
    }
    Py_DECREF(items);
    return result;
}

/* A tuple of (name, value) pairs of bytes as slices into it; *slices is the caller's to free. */
static int read_headers(PyObject *headers, as_slice **slices, size_t *n) {
    Py_ssize_t count = PyTuple_GET_SIZE(headers);
    *slices = PyMem_Calloc(2 * (size_t)count + 1, sizeof(**slices));
    if (*slices == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        const char *name, *value;
        Py_ssize_t name_len, value_len;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(headers, i), "y#y#", &name, &name_len, &value,
                              &value_len)) {
            return -1;
        }
        as_slice pair[2] = {{name, (size_t)name_len}, {value, (size_t)value_len}};
        if (!as_is_token(pair[0]) || !as_is_field_value(pair[1])) {
            PyErr_Format(PyExc_ValueError, "invalid response header: %s", name);
            return -1;
        }
        memcpy(*slices + 2 * i, pair, sizeof(pair));
    }
    *n = 2 * (size_t)count;
    return 0;
}

static int make_loop(as_server *self, PyObject *headers, const char *health_path) {
    PyObject *tuple = headers != NULL ? PySequence_Tuple(headers) : PyTuple_New(0);
    as_slice *slices = NULL;
    size_t n = 0;
    int result = -1;
    if (tuple != NULL && read_headers(tuple, &slices, &n) == 0) {
        unsigned needs = as_access_log_needs(self->access_log);
        as_loop_config config = {
            .limits = self->limits,
            .handlers = self->vtable->handlers,
            .ctx = self,
            .headers = slices,
            .nheaders = n,
            .health_path = {health_path, health_path != NULL ? strlen(health_path) : 0},
            .timed = (needs & AS_ACCESS_DURATION) != 0,
            .copy_heads = (needs & AS_ACCESS_RESPONSE_HEAD) != 0,
        };
        as__server_set_hooks(self, &config);
        as_proxy_configure(self->proxy, &config);
        errno = 0;
        self->loop = as_loop_new(&config);
        if (self->loop == NULL) {
            PyErr_SetFromErrno(PyExc_OSError);
        }
        result = self->loop != NULL ? 0 : -1;
    }
    PyMem_Free(slices);
    Py_XDECREF(tuple);
    return result;
}

static int choose_interface(as_server *self, const char *interface, PyObject *loop) {
    if (strcmp(interface, "asgi") == 0 && loop != Py_None && self->nthreads == 0) {
        self->vtable = &as_asgi_gateway;
        self->py_loop = Py_NewRef(loop);
        return 0;
    }
    if (strcmp(interface, "wsgi") == 0 && loop == Py_None) {
        self->vtable = self->nthreads > 0 ? &as_wsgi_threads_gateway : &as_wsgi_gateway;
        return 0;
    }
    PyErr_SetString(PyExc_ValueError,
                    "interface must be 'asgi', with a loop, or 'wsgi', without one");
    return -1;
}

static int make_access_log(as_server *self, PyObject *target, PyObject *format, int colors) {
    if (target == Py_None) {
        return 0;
    }
    if (format != Py_None && !PyUnicode_Check(format)) {
        PyErr_SetString(PyExc_TypeError, "access_log_format must be str or None");
        return -1;
    }
    self->access_log = as_access_log_new(target, format, colors != 0);
    return self->access_log != NULL ? 0 : -1;
}

static int make_spools(as_server *self) {
    self->spools = as_spools_new(self->limits.limit_body_memory, self->limits.limit_body_spool);
    if (self->spools == NULL) {
        PyErr_NoMemory();
    }
    return self->spools != NULL ? 0 : -1;
}

/* The bound methods that the asyncio loop calls again and again. */
static int bind_methods(as_server *self) {
    self->poll_callable = PyObject_GetAttrString((PyObject *)self, "poll");
    self->wake_callable = PyObject_GetAttrString((PyObject *)self, "_woken");
    self->timer_callable = PyObject_GetAttrString((PyObject *)self, "_timer");
    return self->poll_callable != NULL && self->wake_callable != NULL &&
                   self->timer_callable != NULL
               ? 0
               : -1;
}

static int server_init(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"app",
                               "interface",
                               "loop",
                               "limits",
                               "headers",
                               "root_path",
                               "state",
                               "access_log",
                               "access_log_format",
                               "access_log_colors",
                               "on_error",
                               "multiprocess",
                               "health_path",
                               "proxy",
                               "threads",
                               NULL};
    as_server *self = (as_server *)op;
    PyObject *app, *loop = Py_None, *limits = NULL, *headers = NULL, *root_path = NULL,
                   *lifespan_state = NULL, *access_log = Py_None, *access_log_format = Py_None,
                   *on_error = NULL, *proxy = NULL;
    const char *interface = NULL, *health_path = NULL;
    int colors = 0, multiprocess = 0, threads = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$sOOOUOOOpOpzOi:Server", keywords, &app,
                                     &interface, &loop, &limits, &headers, &root_path,
                                     &lifespan_state, &access_log, &access_log_format, &colors,
                                     &on_error, &multiprocess, &health_path, &proxy, &threads)) {
        return -1;
    }
    if (self->app != NULL || interface == NULL) {
        PyErr_SetString(PyExc_TypeError, self->app != NULL
                                             ? "a Server is made once"
                                             : "Server() needs the keyword interface");
        return -1;
    }
    self->state = (as_module_state *)PyType_GetModuleState(Py_TYPE(op));
    self->app = Py_NewRef(app);
    self->root_path = root_path != NULL ? Py_NewRef(root_path) : PyUnicode_FromString("");
    self->on_error = on_error != NULL && on_error != Py_None ? Py_NewRef(on_error) : NULL;
    self->multiprocess = multiprocess != 0;
    self->nthreads = threads > 0 ? (unsigned)threads : 0;
    if (lifespan_state != NULL && lifespan_state != Py_None) {
        if (!PyDict_Check(lifespan_state)) {
            PyErr_SetString(PyExc_TypeError, "state must be a dict");
            return -1;
        }
        self->lifespan_state = Py_NewRef(lifespan_state);
    }
    if (proxy != NULL && (self->proxy = as_proxy_new(proxy)) == NULL) {
        return -1;
    }
    if (self->root_path == NULL || choose_interface(self, interface, loop) < 0 ||
        set_limits(self, limits) < 0 ||
        make_access_log(self, access_log, access_log_format, colors) < 0 ||
        bind_methods(self) < 0 || make_spools(self) < 0 || self->vtable->init(self) < 0) {
        return -1;
    }
    return make_loop(self, headers, health_path);
}

/* ---- methods ---- */

/* Where the loop is at home: on its own thread while that runs, else here. Who waited without the
 * GIL for a thread that has just ended may find the server closed, and nothing is done. */
static void on_loop(as_server *self, void (*fn)(void *arg), void *arg) {
    bool done = false;
    while (!done && self->threads != NULL && as_bridge_is_open(self->threads->bridge)) {
        Py_BEGIN_ALLOW_THREADS;
        done = as_bridge_call(self->threads->bridge, fn, arg);
        Py_END_ALLOW_THREADS;
    }
    if (!done && self->loop != NULL) {
        fn(arg); /* no thread of the loop's begins while we have the GIL */
    }
}

int as__server_check_open(const as_server *self) {
    if (self->loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the server is closed");
        return -1;
    }
    return 0;
}

static PyObject *server_listen(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"fd", "tls", NULL};
    as_server *self = (as_server *)op;
    int fd;
    PyObject *tls = Py_None;
    as_tls_context *context = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "i|O:listen", keywords, &fd, &tls) ||
        as__server_check_open(self) < 0) {
        return NULL;
    }
    if (tls != Py_None && (context = as_tls_context_of(self->state, tls)) == NULL) {
        return NULL;
    }
    as_err err = as_loop_listen(self->loop, fd, context);
    if (err != AS_OK) {
        return PyErr_Format(PyExc_OSError, "cannot accept on descriptor %d: %s", fd,
                            as_err_text(err));
    }
    as_server_wake(self);
    Py_RETURN_NONE;
}

static PyObject *server_balance(PyObject *op, PyObject *memory) {
    as_server *self = (as_server *)op;
    if (as__server_check_open(self) < 0) {
        return NULL;
    }
    if (self->shared.obj != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "balance() is called once");
        return NULL;
    }
    if (PyObject_GetBuffer(memory, &self->shared, PyBUF_WRITABLE) < 0) {
        return NULL;
    }
    if ((uintptr_t)self->shared.buf % AS_SEAT_SIZE != 0) {
        PyBuffer_Release(&self->shared);
        PyErr_SetString(PyExc_ValueError, "the memory must begin on a cache line");
        return NULL;
    }
    as_err err = as_loop_balance(self->loop, self->shared.buf, (size_t)self->shared.len);
    if (err != AS_OK) {
        PyBuffer_Release(&self->shared);
        return PyErr_Format(PyExc_OSError, "cannot share connections: %s", as_err_text(err));
    }
    Py_RETURN_NONE;
}

typedef struct tls_args {
    as_loop *loop;
    as_tls_context *context;
} tls_args;

static void set_tls(void *arg) {
    const tls_args *args = arg;
    as_loop_set_tls(args->loop, args->context);
}

static PyObject *server_set_tls(PyObject *op, PyObject *tls) {
    as_server *self = (as_server *)op;
    as_tls_context *context =
        as__server_check_open(self) == 0 ? as_tls_context_of(self->state, tls) : NULL;
    if (context == NULL) {
        return NULL;
    }
    tls_args call = {self->loop, context};
    on_loop(self, set_tls, &call);
    Py_RETURN_NONE;
}

static void stop_loop(void *loop) {
    as_loop_stop(loop);
    as_loop_wakeup(loop);
}

/* What runs in threads is not waited for any more. */
static void cut_threads(as_server *self) {
    if (self->threads != NULL) {
        self->threads->cut = true;
        as_threads_poke(self->threads);
    }
}

static PyObject *server_stop(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    if (self->loop != NULL) {
        on_loop(self, stop_loop, self->loop);
        cut_threads(self);
    }
    Py_RETURN_NONE;
}

typedef struct drain_args {
    as_loop *loop;
    uint32_t idle; /* milliseconds */
} drain_args;

static void drain_loop(void *arg) {
    drain_args *args = arg;
    as_loop_drain(args->loop, args->idle);
    as_loop_wakeup(args->loop);
}

static PyObject *server_drain(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"callback", "idle", NULL};
    as_server *self = (as_server *)op;
    PyObject *callback = Py_None;
    double idle = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Od:drain", keywords, &callback, &idle) ||
        as__server_check_open(self) < 0) {
        return NULL;
    }
    if (!(idle >= 0 && idle <= 86400.0)) {
        PyErr_SetString(PyExc_ValueError, "idle must be from 0 to 86400 seconds");
        return NULL;
    }
    Py_XSETREF(self->on_drained, callback != Py_None ? Py_NewRef(callback) : NULL);
    self->stopping = true;
    drain_args call = {self->loop, (uint32_t)(idle * 1000)};
    on_loop(self, drain_loop, &call);
    Py_RETURN_NONE;
}

static void disconnect_loop(void *loop) {
    as_loop_disconnect(loop);
}

static PyObject *server_disconnect(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    if (self->loop != NULL) {
        on_loop(self, disconnect_loop, self->loop);
    }
    Py_RETURN_NONE;
}

/* Not by on_loop: in the child there is no thread but this one. */
static PyObject *server_forked(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    if (self->loop != NULL) {
        as_loop_forked(self->loop);
        if (self->threads != NULL) {
            as_threads_forked(self->threads);
        }
    }
    Py_RETURN_NONE;
}

typedef struct healthy_args {
    as_loop *loop;
    bool healthy;
} healthy_args;

static void set_healthy(void *arg) {
    const healthy_args *args = arg;
    as_loop_set_healthy(args->loop, args->healthy);
}

static PyObject *server_set_healthy(PyObject *op, PyObject *healthy) {
    as_server *self = (as_server *)op;
    int value = PyObject_IsTrue(healthy);
    if (value < 0 || as__server_check_open(self) < 0) {
        return NULL;
    }
    healthy_args call = {self->loop, value != 0};
    on_loop(self, set_healthy, &call);
    Py_RETURN_NONE;
}

typedef struct mark_args {
    as_loop *loop;
    uint64_t requests;
} mark_args;

static void mark(void *arg) {
    const mark_args *args = arg;
    as_loop_mark(args->loop, args->requests);
}

static PyObject *server_call_at(PyObject *op, PyObject *args) {
    as_server *self = (as_server *)op;
    unsigned long long requests;
    PyObject *callback;
    if (!PyArg_ParseTuple(args, "KO:call_at", &requests, &callback) ||
        as__server_check_open(self) < 0) {
        return NULL;
    }
    Py_XSETREF(self->on_marked, Py_NewRef(callback));
    mark_args call = {self->loop, requests};
    on_loop(self, mark, &call);
    Py_RETURN_NONE;
}

typedef struct abort_args {
    as_loop *loop;
    unsigned exchanges;
} abort_args;

static void abort_all(void *arg) {
    abort_args *args = arg;
    args->exchanges = as_loop_abort_all(args->loop);
}

static PyObject *server_abort(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    abort_args call = {self->loop, 0};
    if (self->loop != NULL) {
        on_loop(self, abort_all, &call);
        cut_threads(self);
    }
    return PyLong_FromUnsignedLong(call.exchanges);
}

static void close_server(as_server *self) {
    struct as_loop *loop = self->loop;
    as__server_unwatch(self);
    if (loop != NULL) {
        self->stopping = true;
        self->polling = true; /* nothing schedules a poll from here on */
        as_loop_free(loop);
        self->loop = NULL;
        self->polling = false;
        as_tasks_end_lost(self);
        PyBuffer_Release(&self->shared); /* of nothing, if none was given */
    }
    if (self->vtable != NULL && self->gateway != NULL) {
        self->vtable->fini(self);
    }
    as_log_hidden_refusals(self);
    as_access_log_close(self);
}

static PyObject *server_reopen_access_log(PyObject *op, PyObject *arg) {
    as_server *self = (as_server *)op;
    int fd = PyObject_AsFileDescriptor(arg);
    if (fd < 0 || as_access_log_reopen(self->access_log, fd) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *server_close(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    if (self->polling || self->running) {
        PyErr_SetString(PyExc_RuntimeError, "close() from inside the server's own poll");
        return NULL;
    }
    close_server(self);
    Py_RETURN_NONE;
}

/* ---- figures ---- */

typedef struct stats_args {
    as_loop *loop;
    as_loop_stats *stats;
} stats_args;

static void read_stats(void *arg) {
    const stats_args *args = arg;
    as_loop_get_stats(args->loop, args->stats);
}

static void get_stats(PyObject *op, as_loop_stats *stats) {
    as_server *self = (as_server *)op;
    stats_args call = {self->loop, stats};
    memset(stats, 0, sizeof(*stats));
    if (self->loop != NULL) {
        on_loop(self, read_stats, &call);
    }
}

#define FIGURE(name)                                                                                   \
    static PyObject *server_get_##name(PyObject *op, void *Py_UNUSED(closure)) {                       \
        as_loop_stats stats;                                                                           \
        get_stats(op, &stats);                                                                         \
        return PyLong_FromUnsignedLongLong(stats.name);                                                \
    }
FIGURE(connections)
FIGURE(requests)
FIGURE(connections_total)
FIGURE(requests_total)
FIGURE(overloaded_total)
FIGURE(spool_full_total)
#undef FIGURE

/* Also when the server is closed: the application may have what was kept for it. */
static PyObject *server_get_spooled(PyObject *op, void *Py_UNUSED(closure)) {
    const as_spools *spools = ((as_server *)op)->spools;
    return PyLong_FromUnsignedLongLong(spools != NULL ? atomic_load(&spools->filled) : 0);
}

static PyObject *server_get_accepting(PyObject *op, void *Py_UNUSED(closure)) {
    as_loop_stats stats;
    get_stats(op, &stats);
    return PyBool_FromLong(stats.accepting);
}

static PyObject *server_get_wakeup_fd(PyObject *op, void *Py_UNUSED(closure)) {
    as_server *self = (as_server *)op;
    if (as__server_check_open(self) < 0) {
        return NULL;
    }
    return PyLong_FromLong(self->threads != NULL ? self->threads->fds[1]
                                                 : as_loop_wakeup_fd(self->loop));
}

/* ---- the type ---- */

static int server_traverse(PyObject *op, visitproc visit, void *arg) {
    as_server *self = (as_server *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->app);
    Py_VISIT(self->py_loop);
    Py_VISIT(self->lifespan_state);
    Py_VISIT(self->on_error);
    Py_VISIT(self->fatal);
    Py_VISIT(self->poll_callable);
    Py_VISIT(self->wake_callable);
    Py_VISIT(self->timer_callable);
    Py_VISIT(self->timer);
    Py_VISIT(self->on_drained);
    Py_VISIT(self->on_marked);
    Py_VISIT(self->tick);
    Py_VISIT(self->shared.obj);
    return self->vtable != NULL && self->gateway != NULL ? self->vtable->traverse(self, visit, arg)
                                                         : 0;
}

static int server_clear(PyObject *op) {
    as_server *self = (as_server *)op;
    close_server(self);
    Py_CLEAR(self->app);
    Py_CLEAR(self->py_loop);
    Py_CLEAR(self->lifespan_state);
    Py_CLEAR(self->on_error);
    Py_CLEAR(self->fatal);
    Py_CLEAR(self->poll_callable);
    Py_CLEAR(self->wake_callable);
    Py_CLEAR(self->timer_callable);
    Py_CLEAR(self->on_drained);
    Py_CLEAR(self->on_marked);
    Py_CLEAR(self->tick);
    return 0;
}

static void server_dealloc(PyObject *op) {
    as_server *self = (as_server *)op;
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(op);
    }
    server_clear(op);
    as_threads_free(self->threads);
    as_proxy_free(self->proxy);
    as_spools_unref(self->spools);
    Py_CLEAR(self->root_path);
    type->tp_free(op);
    Py_DECREF(type);
}

static PyMethodDef server_methods[] = {
    {"listen", (PyCFunction)(void (*)(void))server_listen, METH_VARARGS | METH_KEYWORDS,
     "Accept on a listening socket, which stays the caller's."},
    {"set_tls", server_set_tls, METH_O,
     "New connections to sockets that are TLS take this context from now on."},
    {"balance", server_balance, METH_O,
     "Share new connections with the processes that are given the same memory."},
    {"start", as__server_start, METH_NOARGS,
     "ASGI: watch the core's descriptor in the asyncio loop."},
    {"poll", as__server_poll, METH_NOARGS, "Handle what is ready."},
    {"_woken", as__server_woken, METH_NOARGS, NULL},
    {"_timer", as__server_timer, METH_NOARGS, NULL},
    {"run", (PyCFunction)(void (*)(void))as__server_run, METH_VARARGS | METH_KEYWORDS,
     "WSGI: serve until stop() or until draining is complete; call `tick` every `interval` "
     "seconds."},
    {"_work", as__server_work, METH_NOARGS, NULL},
    {"stop", server_stop, METH_NOARGS, "WSGI: make run() return."},
    {"drain", (PyCFunction)(void (*)(void))server_drain, METH_VARARGS | METH_KEYWORDS,
     "Stop accepting, end what runs, then call the callback. Idle connections close when no "
     "request "
     "came for `idle` seconds."},
    {"disconnect", server_disconnect, METH_NOARGS,
     "ASGI: receive() of the running requests says that the client has left; WebSockets are "
     "closed."},
    {"forked", server_forked, METH_NOARGS,
     "In a child, right behind fork: let go of all sockets. What returns to the server ends."},
    {"set_healthy", server_set_healthy, METH_O, "What the health path says."},
    {"call_at", server_call_at, METH_VARARGS,
     "Call the callback when so many requests were seen, counted from the first."},
    {"abort", server_abort, METH_NOARGS, "Cut all connections; the number of requests cut."},
    {"reopen_access_log", server_reopen_access_log, METH_O,
     "Write the access log to another descriptor from now on."},
    {"close", server_close, METH_NOARGS, "Cut what is left and free the loop."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef server_getset[] = {
    {"connections", server_get_connections, NULL, "Open connections.", NULL},
    {"requests", server_get_requests, NULL, "Requests being worked on.", NULL},
    {"connections_total", server_get_connections_total, NULL, "Connections accepted so far.", NULL},
    {"requests_total", server_get_requests_total, NULL, "Requests seen so far.", NULL},
    {"overloaded_total", server_get_overloaded_total, NULL,
     "Requests answered with 503 for limit_concurrency so far.", NULL},
    {"spool_full_total", server_get_spool_full_total, NULL,
     "Requests answered with 503 for limit_body_spool so far.", NULL},
    {"spooled", server_get_spooled, NULL, "Bytes of request bodies in files.", NULL},
    {"wakeup_fd", server_get_wakeup_fd, NULL, "For signal.set_wakeup_fd: ends the wait of run().",
     NULL},
    {"accepting", server_get_accepting, NULL, "Whether new connections are accepted.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef server_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(as_server, weakrefs), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot server_slots[] = {
    {Py_tp_doc, "Serves one application on any number of listening sockets."},
    {Py_tp_init, server_init},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_dealloc, server_dealloc},
    {Py_tp_traverse, server_traverse},
    {Py_tp_clear, server_clear},
    {Py_tp_methods, server_methods},
    {Py_tp_getset, server_getset},
    {Py_tp_members, server_members},
    {0, NULL},
};

static PyType_Spec server_spec = {
    .name = "asgiserver._core.Server",
    .basicsize = sizeof(as_server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = server_slots,
};

int as_server_add_type(PyObject *module, as_module_state *state) {
    state->server_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &server_spec, NULL);
    return state->server_type != NULL ? PyModule_AddType(module, state->server_type) : -1;
}

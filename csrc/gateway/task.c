/* Parked tasks: every request runs inside a real, current asyncio.Task without paying for making
 * one.
 *
 * A `driver` is a coroutine in C inside an asyncio.Task. Idle, it waits on a future: the task is
 * parked. A request claims it: the task is made current, the application's first step runs at once
 * in the request's own context. If the application ends there (most do), the task goes back to the
 * idle ones. If it suspends, the parked future is completed; at its next step the driver hands the
 * task what the application waits for, and from then on the task drives the application as usual.
 *
 * The request's own context is the task's, as long as that is empty: where no application has left
 * a variable in it. Else it is a fresh one, which the driver enters around each step.
 *
 *   FRESH    the task's first step is still to come; may be claimed all the same
 *   PARKED   waits on a future
 *   DRIVING  an application is suspended in it; never idle again
 *   ENDING   was seen by somebody else: ends at its next step
 *   ENDED
 *
 * A task goes back only when nobody else saw it: as many references and weak references as before,
 * no cancellation asked for, no done callback, same name.
 *
 * asyncio.all_tasks() shows idle tasks, too; they end at once when they are cancelled. */
#include "gateway/asgi.h"

#define IDLE_MAX 16 /* tasks */

typedef enum { FRESH, PARKED, DRIVING, ENDING, ENDED } driver_state;

typedef struct driver {
    PyObject_HEAD
    as_server *server; /* strong */
    PyObject *task;    /* strong: a cycle that ends with the driver's life */
    PyObject *name;    /* the task's, as it was made */
    PyObject *awaited; /* while PARKED, the future; while DRIVING, what the application's first step
                        * waits for, until the task takes it */
    PyObject *coro;    /* the application's coroutine, while DRIVING */
    PyObject *context; /* idle: the task's own, as long as it is empty, else NULL; while DRIVING,
                        * the request's, NULL: the task's own is */
    as_request *req;   /* strong, while DRIVING */
    uint8_t state;
    bool running; /* a step of the application is on the stack */
} driver;

struct as_tasks {
    as_server *server; /* borrowed */
    PyObject *task_type, *enter, *leave, *cancelled_error;
    PyObject *get_name, *cancelling; /* of the type: called with the task */
    PyObject *context;               /* of the server; a request gets a copy */
    PyObject *task_keywords;         /* ("loop", "context") */
    PyObject *str_blocking, *str_log_destroy, *str_callbacks;
    PyObject *callbacks;    /* what the type has under that name; NULL: the tasks alone have it */
    driver *idle[IDLE_MAX]; /* strong */
    int nidle;
};

static struct as_tasks *tasks_of(const driver *self);

/* ---- making, parking ---- */

static driver *driver_new(struct as_tasks *tasks) {
    driver *self = PyObject_GC_New(driver, tasks->server->state->driver_type);
    if (self == NULL) {
        return NULL;
    }
    self->server = (as_server *)Py_NewRef(tasks->server);
    self->task = NULL;
    self->name = NULL;
    self->awaited = NULL;
    self->coro = NULL;
    self->context = PyContext_Copy(tasks->context);
    self->req = NULL;
    self->state = FRESH;
    self->running = false;
    PyObject_GC_Track(self);
    PyObject *args[] = {(PyObject *)self, tasks->server->py_loop, self->context};
    self->task = self->context != NULL
                     ? PyObject_Vectorcall(tasks->task_type, args, 1, tasks->task_keywords)
                     : NULL;
    if (self->task == NULL || PyObject_SetAttr(self->task, tasks->str_log_destroy, Py_False) < 0 ||
        (self->name = PyObject_CallOneArg(tasks->get_name, self->task)) == NULL) {
        self->state = ENDING;
        Py_CLEAR(self->task);
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

/* The driver for a request, new reference. */
static driver *claim(struct as_tasks *tasks) {
    return tasks->nidle > 0 ? tasks->idle[--tasks->nidle] : driver_new(tasks);
}

/* The request's context, new reference. */
static PyObject *context_for_request(const struct as_tasks *tasks, const driver *self) {
    return self->context != NULL ? Py_NewRef(self->context) : PyContext_Copy(tasks->context);
}

/* A driver that was idle goes away with its task. */
static void forget_idle(driver *self) {
    struct as_tasks *tasks = tasks_of(self);
    for (int i = 0; tasks != NULL && i < tasks->nidle; i++) {
        if (tasks->idle[i] == self) {
            tasks->idle[i] = tasks->idle[--tasks->nidle];
            Py_DECREF(self);
            break;
        }
    }
}

/* The task waits on a future of its own. */
static PySendResult park(driver *self, PyObject **result) {
    struct as_tasks *tasks = tasks_of(self);
    PyObject *future = tasks != NULL
                           ? PyObject_CallMethodNoArgs(self->server->py_loop,
                                                       self->server->state->str.create_future)
                           : NULL;
    if (future == NULL || PyObject_SetAttr(future, tasks->str_blocking, Py_True) < 0) {
        Py_XDECREF(future);
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "the server is closed");
        }
        self->state = ENDED;
        forget_idle(self);
        return PYGEN_ERROR;
    }
    self->state = PARKED;
    self->awaited = future;
    *result = Py_NewRef(future);
    return PYGEN_NEXT;
}

/* Lets the task take its next step; `parked`, which is taken over, is what it awaits. Where the
 * application has cancelled its own task, that has cancelled the future: the step comes by itself
 * then, and brings the cancellation. */
static int unpark(const driver *self, PyObject *parked) {
    as_module_state *state = self->server->state;
    if (parked == NULL) {
        return 0; /* FRESH: the step is scheduled already */
    }
    PyObject *done = PyObject_CallMethodNoArgs(parked, state->str.done);
    PyObject *result = done == Py_False
                           ? PyObject_CallMethodOneArg(parked, state->str.set_result, Py_None)
                           : Py_XNewRef(done);
    Py_XDECREF(done);
    Py_DECREF(parked);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* ---- was it seen? ---- */

/* What a task and its context are known by: asyncio's own weak reference is among them. */
typedef struct traces {
    Py_ssize_t refs, weak_refs, context_refs;
} traces;

static traces traces_of(const driver *self) {
    PyObject *task = self->task;
    traces seen = {
        .refs = Py_REFCNT(task),
        .context_refs = self->context != NULL ? Py_REFCNT(self->context) : 0,
    };
    Py_ssize_t offset = Py_TYPE(task)->tp_weaklistoffset;
    if (offset != 0) { /* negative where the interpreter manages it */
        const PyWeakReference *at = *(PyWeakReference **)((char *)task + offset);
        for (; at != NULL; at = at->wr_next) {
            seen.weak_refs++;
        }
    }
    return seen;
}

/* task._callbacks; the descriptor of asyncio's C code is called without looking for it again. */
static PyObject *get_callbacks(const struct as_tasks *tasks, PyObject *task) {
    PyObject *callbacks = tasks->callbacks;
    descrgetfunc get = callbacks != NULL ? Py_TYPE(callbacks)->tp_descr_get : NULL;
    return get != NULL ? get(callbacks, task, (PyObject *)Py_TYPE(task))
                       : PyObject_GetAttr(task, tasks->str_callbacks);
}

/* 1: nobody holds or changed the task; 0: somebody may; -1: an exception. */
static int is_unseen(struct as_tasks *tasks, driver *self, traces before) {
    traces now = traces_of(self);
    if (now.refs != before.refs || now.weak_refs != before.weak_refs) {
        return 0;
    }
    PyObject *callbacks = get_callbacks(tasks, self->task);
    bool unseen = callbacks == Py_None;
    Py_XDECREF(callbacks);
    if (!unseen) {
        return callbacks != NULL ? 0 : -1;
    }
    PyObject *cancelling = PyObject_CallOneArg(tasks->cancelling, self->task);
    if (cancelling == NULL) {
        return -1;
    }
    unseen = PyLong_CheckExact(cancelling) && PyLong_AsLong(cancelling) == 0;
    Py_DECREF(cancelling);
    if (!unseen) {
        return 0;
    }
    PyObject *name = PyObject_CallOneArg(tasks->get_name, self->task);
    Py_XDECREF(name);
    return name != NULL ? name == self->name : -1;
}

/* An idle task ends at its next step. */
static int begin_to_end(driver *self) {
    PyObject *parked = self->awaited;
    self->awaited = NULL;
    self->state = ENDING;
    return unpark(self, parked);
}

/* The task ends, on its own; steals the reference. */
static void retire(driver *self) {
    if (begin_to_end(self) < 0) {
        PyErr_WriteUnraisable(self->task);
    }
    Py_CLEAR(self->task);
    Py_DECREF(self);
}

/* The next request may have the task's own context only if it is empty, and nobody else's. */
static void check_context(driver *self, traces before) {
    if (self->context != NULL && (PyObject_Size(self->context) != 0 ||
                                  traces_of(self).context_refs != before.context_refs)) {
        Py_CLEAR(self->context);
    }
}

/* Back to the idle ones, or away; steals the reference. */
static void give_back(struct as_tasks *tasks, driver *self, traces before) {
    int unseen = is_unseen(tasks, self, before);
    if (unseen < 0) {
        PyErr_WriteUnraisable(self->task);
    }
    check_context(self, before);
    bool alive = self->state == FRESH || self->state == PARKED;
    if (unseen == 1 && alive && tasks->nidle < IDLE_MAX) {
        tasks->idle[tasks->nidle++] = self;
    } else {
        retire(self);
    }
}

/* ---- the first step ---- */

/* What drives an application's result: the coroutine itself, or an awaitable's iterator. Steals. */
static PyObject *get_steps(PyObject *result) {
    if (result == NULL || PyCoro_CheckExact(result)) {
        return result;
    }
    PyAsyncMethods *methods = Py_TYPE(result)->tp_as_async;
    PyObject *steps = NULL;
    if (methods != NULL && methods->am_await != NULL) {
        steps = methods->am_await(result);
    } else {
        PyErr_Format(PyExc_TypeError, "the ASGI application returned %.100s, not an awaitable",
                     Py_TYPE(result)->tp_name);
    }
    Py_DECREF(result);
    return steps;
}

static void end_driver(driver *self);

/* Nothing will wake the task any more: the application ends where it stands, and the task goes with
 * it. Else whoever waits for all tasks, as asyncio.run does, waits for ever. */
static void lose(struct as_tasks *tasks, driver *self) {
    PyObject *closed = PyObject_CallMethodNoArgs(self->coro, self->server->state->str.close);
    if (closed == NULL) {
        PyErr_WriteUnraisable(self->coro);
    }
    Py_XDECREF(closed);
    if (self->task != NULL && PyObject_SetAttr(self->task, tasks->str_log_destroy, Py_False) < 0) {
        PyErr_Clear(); /* asyncio will wonder about the task */
    }
    end_driver(self);
}

/* From here on the task drives the application, and the request keeps its driver alive. Steals
 * `self`, `coro`, `context` (NULL: the task's own) and `pending`. */
static void hand_over(struct as_tasks *tasks, driver *self, as_request *req, PyObject *coro,
                      PyObject *context, PyObject *pending) {
    PyObject *parked = self->awaited;
    self->coro = coro;
    Py_XSETREF(self->context, context);
    self->awaited = pending;
    self->req = (as_request *)Py_NewRef(req);
    self->state = DRIVING;
    Py_XSETREF(req->driver, (PyObject *)self);
    Py_INCREF(self);
    int failed = PyObject_SetAttr(self->task, tasks->str_log_destroy, Py_True);
    if (failed) {
        Py_XDECREF(parked);
    } else {
        failed = unpark(self, parked);
    }
    if (failed) {
        as_request_finished(req);
        lose(tasks, self);
    }
    Py_DECREF(self);
}

/* Calls `function(loop, task)` with the present exception kept. */
static int switch_task(struct as_tasks *tasks, PyObject *function, PyObject *task) {
    PyObject *args[] = {tasks->server->py_loop, task};
    PyObject *result = PyObject_Vectorcall(function, args, 2, NULL);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

static PySendResult first_step(as_request *req, PyObject **args, PyObject **coro,
                               PyObject **pending) {
    *coro = get_steps(
        PyObject_Vectorcall(req->server->app, args, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL));
    PySendResult step = *coro != NULL ? PyIter_Send(*coro, Py_None, pending) : PYGEN_ERROR;
    if (step == PYGEN_NEXT) {
        return step;
    }
    /* Still in the request's context, so that what logs the exception sees its variables. */
    as_request_finished(req);
    Py_CLEAR(*pending);
    Py_CLEAR(*coro);
    return step;
}

void as_tasks_run(struct as_tasks *tasks, as_request *req, PyObject **args) {
    driver *self = claim(tasks);
    if (self == NULL) {
        as_request_finished(req);
        return;
    }
    traces before = traces_of(self);
    PyObject *context = context_for_request(tasks, self);
    if (context == NULL) {
        as_request_finished(req);
        retire(self);
        return;
    }
    if (switch_task(tasks, tasks->enter, self->task) < 0) {
        as_request_finished(req);
        retire(self);
        Py_DECREF(context);
        return;
    }
    PyObject *coro = NULL, *pending = NULL;
    PySendResult step = PYGEN_ERROR;
    self->running = true;
    if (PyContext_Enter(context) == 0) {
        step = first_step(req, args, &coro, &pending);
        if (PyContext_Exit(context) < 0) {
            PyErr_WriteUnraisable(context);
        }
    } else {
        as_request_finished(req);
    }
    self->running = false;
    if (switch_task(tasks, tasks->leave, self->task) < 0) {
        PyErr_WriteUnraisable(self->task);
    }
    if (context == self->context) {
        Py_CLEAR(context); /* the task enters it by itself */
    }
    if (step == PYGEN_NEXT) {
        hand_over(tasks, self, req, coro, context, pending);
        return;
    }
    Py_XDECREF(context);
    give_back(tasks, self, before);
}

void as_task_lost(as_request *req) {
    as_server *server = req->server;
    if (!req->lost && req->driver != NULL) {
        req->lost = true;
        req->lost_next = server->lost;
        server->lost = (as_request *)Py_NewRef(req);
        as_server_wake(server);
    }
}

void as_tasks_end_lost(as_server *server) {
    while (server->lost != NULL) {
        as_request *req = server->lost;
        driver *self = (driver *)Py_XNewRef(req->driver);
        server->lost = req->lost_next;
        if (self != NULL && self->state == DRIVING && !req->driving) {
            PyErr_SetString(PyExc_RuntimeError, "asyncio could not wake the application");
            as_request_finished(req);
            struct as_tasks *tasks = tasks_of(self);
            if (tasks != NULL && self->coro != NULL) {
                lose(tasks, self);
            }
        }
        Py_XDECREF(self);
        Py_DECREF(req);
    }
}

int as_task_cancel(const as_request *req) {
    const driver *self = (const driver *)req->driver;
    if (self == NULL || self->task == NULL) {
        return 0;
    }
    PyObject *task = Py_NewRef(self->task); /* the driver may end meanwhile */
    PyObject *result = PyObject_CallMethodNoArgs(task, req->server->state->str.cancel);
    Py_DECREF(task);
    Py_XDECREF(result);
    return result != NULL ? 0 : -1;
}

/* ---- the later steps: the task calls ---- */

/* Gives back what the application held. The request was finished or abandoned before. */
static void end_driver(driver *self) {
    self->state = ENDED;
    Py_CLEAR(self->coro);
    Py_CLEAR(self->awaited);
    Py_CLEAR(self->context);
    Py_CLEAR(self->req);
    Py_CLEAR(self->name);
    Py_CLEAR(self->task);
}

/* A cancellation, or a wish to end the process, goes on into the task; all else ends here. */
static PySendResult end_of_application(driver *self, PyObject **result) {
    struct as_tasks *tasks = tasks_of(self);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    bool passes_on =
        type != NULL &&
        ((tasks != NULL && PyErr_GivenExceptionMatches(type, tasks->cancelled_error)) ||
         !PyErr_GivenExceptionMatches(type, PyExc_Exception));
    if (passes_on) {
        Py_INCREF(type);
        Py_XINCREF(value);
        Py_XINCREF(traceback);
    }
    PyErr_Restore(type, value, traceback);
    as_request_finished(self->req);
    if (passes_on) {
        Py_CLEAR(self->server->fatal);
        PyErr_Restore(type, value, traceback);
        return PYGEN_ERROR;
    }
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

/* coro.throw(*args), in the manner of PyIter_Send. */
static PySendResult throw_into(PyObject *coro, PyObject *str_throw, PyObject *const *args,
                               Py_ssize_t n, PyObject **result) {
    PyObject *throw = PyObject_GetAttr(coro, str_throw);
    if (throw == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear(); /* a plain iterator: the exception goes through it */
            as_raise_thrown(args, n);
        }
        return PYGEN_ERROR;
    }
    *result = PyObject_Vectorcall(throw, args, (size_t)n, NULL);
    Py_DECREF(throw);
    if (*result != NULL) {
        return PYGEN_NEXT;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    PyErr_Clear(); /* the coroutine's way to return; its value is of no interest */
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

/* One step of the application, inside one of its task: a throw with `n` arguments, or for 0 a send
 * of None.
 */
static PySendResult drive(driver *self, PyObject *const *args, Py_ssize_t n, PyObject **result) {
    PyObject *context = Py_XNewRef(self->context);
    if (context != NULL && PyContext_Enter(context) < 0) {
        Py_DECREF(context);
        return PYGEN_ERROR;
    }
    Py_INCREF(self);
    self->running = self->req->driving = true;
    PySendResult step =
        n == 0 ? PyIter_Send(self->coro, Py_None, result)
               : throw_into(self->coro, self->server->state->str.throw, args, n, result);
    self->req->driving = false;
    bool ended = step != PYGEN_NEXT;
    if (!ended) {
        as_request_flush(self->req);
    }
    if (ended) {
        Py_CLEAR(*result);
        step = end_of_application(self, result);
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (context != NULL && PyContext_Exit(context) < 0) {
        PyErr_WriteUnraisable(context);
    }
    self->running = false;
    if (ended) {
        end_driver(self);
    }
    PyErr_Restore(type, value, traceback);
    Py_DECREF(self);
    Py_XDECREF(context);
    return step;
}

/* As a coroutine: whoever gets hold of it by Task.get_coro() may try. True with an exception. */
static bool is_running(const driver *self) {
    if (self->running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    }
    return self->running;
}

static PySendResult driver_step(PyObject *op, PyObject *Py_UNUSED(value), PyObject **result) {
    driver *self = (driver *)op;
    *result = NULL;
    /* FRESH: the task's own step, where an application runs the loop within one of its own. */
    if (self->state != FRESH && is_running(self)) {
        return PYGEN_ERROR;
    }
    switch ((driver_state)self->state) {
    case FRESH:
    case PARKED: /* woken by something else than unpark(): park again */
        Py_CLEAR(self->awaited);
        return park(self, result);
    case DRIVING:
        break;
    case ENDING:
        self->state = ENDED;
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    case ENDED:
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return PYGEN_ERROR;
    }
    if (self->awaited != NULL && self->awaited != Py_None) {
        *result = self->awaited;
        self->awaited = NULL;
        return PYGEN_NEXT;
    }
    /* A bare yield has waited for one round of the loop by now. */
    Py_CLEAR(self->awaited);
    return drive(self, NULL, 0, result);
}

/* What Task.cancel(message) was given, None without one; new reference. */
static PyObject *cancel_message(PyObject *exception) {
    PyObject *args = PyExceptionInstance_Check(exception)
                         ? PyObject_GetAttrString(exception, "args")
                         : PyTuple_New(0);
    if (args == NULL) {
        return NULL;
    }
    bool any = PyTuple_Check(args) && PyTuple_GET_SIZE(args) > 0;
    PyObject *message = Py_NewRef(any ? PyTuple_GET_ITEM(args, 0) : Py_None);
    Py_DECREF(args);
    return message;
}

/* The task was cancelled after the application's first step, before it took what that waits for:
 * cancel that, as Task.cancel() would have done. True: the task is to wait for it. False: no
 * exception if it could not be cancelled. */
static bool cancel_pending(driver *self, PyObject *const *args, Py_ssize_t n) {
    struct as_tasks *tasks = tasks_of(self);
    if (tasks == NULL || n < 1 || !PyErr_GivenExceptionMatches(args[0], tasks->cancelled_error)) {
        return false;
    }
    PyObject *pending = Py_NewRef(self->awaited);
    PyObject *message = cancel_message(args[0]);
    PyObject *done =
        message != NULL
            ? PyObject_CallMethodOneArg(pending, self->server->state->str.cancel, message)
            : NULL;
    Py_XDECREF(message);
    Py_DECREF(pending);
    int cancelled = done != NULL ? PyObject_IsTrue(done) : -1;
    Py_XDECREF(done);
    return cancelled == 1;
}

static PyObject *driver_throw(PyObject *op, PyObject *const *args, Py_ssize_t n) {
    driver *self = (driver *)op;
    PyObject *result = NULL;
    if (is_running(self)) {
        return NULL;
    }
    if (self->state != DRIVING) {
        Py_INCREF(self);
        self->state = ENDED;
        forget_idle(self);
        Py_CLEAR(self->awaited);
        Py_CLEAR(self->task);
        Py_DECREF(self);
        return as_raise_thrown(args, n);
    }
    if (self->awaited != NULL && self->awaited != Py_None && cancel_pending(self, args, n)) {
        result = self->awaited;
        self->awaited = NULL;
        return result;
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    Py_CLEAR(self->awaited);
    PySendResult step = drive(self, args, n, &result);
    if (step == PYGEN_RETURN) {
        Py_CLEAR(result);
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *driver_send(PyObject *op, PyObject *value) {
    PyObject *result;
    PySendResult step = driver_step(op, value, &result);
    if (step == PYGEN_RETURN) {
        Py_CLEAR(result);
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

static PyObject *driver_iternext(PyObject *op) {
    PyObject *result;
    PySendResult step = driver_step(op, Py_None, &result);
    if (step == PYGEN_RETURN) {
        Py_CLEAR(result);
    }
    return result;
}

static PyObject *driver_close(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    driver *self = (driver *)op;
    if (is_running(self)) {
        return NULL;
    }
    if (self->state == DRIVING) {
        self->running = true;
        PyObject *done = PyObject_CallMethodNoArgs(self->coro, self->server->state->str.close);
        self->running = false;
        if (done == NULL) {
            return NULL;
        }
        Py_DECREF(done);
        if (self->req != NULL) {
            as_request_abandon(self->req);
        }
        end_driver(self);
    }
    Py_RETURN_NONE;
}

/* ---- what looks like a coroutine ---- */

/* cr_frame, cr_code and the rest are the application's while it is suspended here. */
static PyObject *driver_of_coroutine(PyObject *op, void *name) {
    driver *self = (driver *)op;
    if (self->coro == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *value = PyObject_GetAttrString(self->coro, (const char *)name);
    if (value == NULL && PyErr_ExceptionMatches(PyExc_AttributeError)) {
        PyErr_Clear(); /* not a coroutine, some other awaitable */
        Py_RETURN_NONE;
    }
    return value;
}

static PyObject *driver_flag_of_coroutine(PyObject *op, void *name) {
    PyObject *value = driver_of_coroutine(op, name);
    if (value == Py_None) {
        Py_DECREF(value);
        Py_RETURN_FALSE;
    }
    return value;
}

static PyObject *driver_name(PyObject *op, void *name) {
    PyObject *value = driver_of_coroutine(op, name);
    if (value == Py_None) {
        Py_DECREF(value);
        return PyUnicode_FromString("asgi_request");
    }
    return value;
}

static PyGetSetDef driver_getset[] = {
    {"__name__", driver_name, NULL, NULL, "__name__"},
    {"__qualname__", driver_name, NULL, NULL, "__qualname__"},
    {"cr_await", driver_of_coroutine, NULL, NULL, "cr_await"},
    {"cr_code", driver_of_coroutine, NULL, NULL, "cr_code"},
    {"cr_frame", driver_of_coroutine, NULL, NULL, "cr_frame"},
    {"cr_origin", driver_of_coroutine, NULL, NULL, "cr_origin"},
    {"cr_running", driver_flag_of_coroutine, NULL, NULL, "cr_running"},
    {"cr_suspended", driver_flag_of_coroutine, NULL, NULL, "cr_suspended"},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef driver_methods[] = {
    {"send", driver_send, METH_O, NULL},
    {"throw", (PyCFunction)(void (*)(void))driver_throw, METH_FASTCALL, NULL},
    {"close", driver_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static int driver_traverse(PyObject *op, visitproc visit, void *arg) {
    driver *self = (driver *)op;
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(self->server);
    Py_VISIT(self->task);
    Py_VISIT(self->coro);
    Py_VISIT(self->context);
    Py_VISIT(self->awaited);
    Py_VISIT(self->req);
    return 0;
}

static int driver_clear(PyObject *op) {
    driver *self = (driver *)op;
    if (self->req != NULL) {
        as_request_abandon(self->req);
    }
    end_driver(self);
    Py_CLEAR(self->server);
    return 0;
}

static void driver_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    driver_clear(op);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

static PyType_Slot driver_slots[] = {
    {Py_tp_dealloc, driver_dealloc},   {Py_tp_traverse, driver_traverse},
    {Py_tp_clear, driver_clear},       {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, driver_iternext}, {Py_tp_methods, driver_methods},
    {Py_tp_getset, driver_getset},     {Py_am_await, PyObject_SelfIter},
    {Py_am_send, driver_step},         {0, NULL},
};

static PyType_Spec driver_spec = {
    .name = "asgiserver._core.Driver",
    .basicsize = sizeof(driver),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = driver_slots,
};

int as_task_add_type(PyObject *module, as_module_state *state) {
    state->driver_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &driver_spec, NULL);
    return state->driver_type != NULL ? 0 : -1;
}

/* ---- per server ---- */

static struct as_tasks *tasks_of(const driver *self) {
    return self->server != NULL ? as_asgi_tasks(self->server) : NULL;
}

static int import_names(struct as_tasks *tasks) {
    PyObject *module = PyImport_ImportModule("asyncio.tasks");
    PyObject *exceptions = module != NULL ? PyImport_ImportModule("asyncio.exceptions") : NULL;
    int failed =
        exceptions == NULL || (tasks->task_type = PyObject_GetAttrString(module, "Task")) == NULL ||
        (tasks->get_name = PyObject_GetAttrString(tasks->task_type, "get_name")) == NULL ||
        (tasks->cancelling = PyObject_GetAttrString(tasks->task_type, "cancelling")) == NULL ||
        (tasks->enter = PyObject_GetAttrString(module, "_enter_task")) == NULL ||
        (tasks->leave = PyObject_GetAttrString(module, "_leave_task")) == NULL ||
        (tasks->cancelled_error = PyObject_GetAttrString(exceptions, "CancelledError")) == NULL ||
        (tasks->context = PyContext_CopyCurrent()) == NULL ||
        (tasks->task_keywords = Py_BuildValue("(ss)", "loop", "context")) == NULL ||
        (tasks->str_blocking = PyUnicode_InternFromString("_asyncio_future_blocking")) == NULL ||
        (tasks->str_log_destroy = PyUnicode_InternFromString("_log_destroy_pending")) == NULL ||
        (tasks->str_callbacks = PyUnicode_InternFromString("_callbacks")) == NULL;
    Py_XDECREF(module);
    Py_XDECREF(exceptions);
    if (!failed &&
        (tasks->callbacks = PyObject_GetAttr(tasks->task_type, tasks->str_callbacks)) == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear();
    }
    return failed ? -1 : 0;
}

struct as_tasks *as_tasks_new(as_server *server) {
    struct as_tasks *tasks = PyMem_Calloc(1, sizeof(*tasks));
    if (tasks == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    tasks->server = server;
    if (import_names(tasks) < 0) {
        as_tasks_free(tasks);
        return NULL;
    }
    return tasks;
}

void as_tasks_free(struct as_tasks *tasks) {
    if (tasks == NULL) {
        return;
    }
    while (tasks->nidle > 0) {
        driver *self = tasks->idle[--tasks->nidle];
        if (begin_to_end(self) < 0) {
            PyErr_Clear(); /* the asyncio loop is closed: nothing waits for the task any more */
        }
        Py_CLEAR(self->task);
        Py_DECREF(self);
    }
    Py_CLEAR(tasks->task_type);
    Py_CLEAR(tasks->get_name);
    Py_CLEAR(tasks->cancelling);
    Py_CLEAR(tasks->enter);
    Py_CLEAR(tasks->leave);
    Py_CLEAR(tasks->cancelled_error);
    Py_CLEAR(tasks->context);
    Py_CLEAR(tasks->task_keywords);
    Py_CLEAR(tasks->str_blocking);
    Py_CLEAR(tasks->str_log_destroy);
    Py_CLEAR(tasks->str_callbacks);
    Py_CLEAR(tasks->callbacks);
    PyMem_Free(tasks);
}

int as_tasks_traverse(struct as_tasks *tasks, visitproc visit, void *arg) {
    for (int i = 0; tasks != NULL && i < tasks->nidle; i++) {
        Py_VISIT(tasks->idle[i]);
    }
    return 0;
}

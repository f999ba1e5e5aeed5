/* Who drives a server's loop.
 *
 * Under ASGI an asyncio loop watches the core's descriptor and calls poll(); what must happen soon
 * comes by call_soon, what is due later by call_later, armed only while something can time out.
 * Under WSGI run() waits on the descriptor itself, without the GIL; with threads the loop has one
 * of its own (threads.h), and every call on it goes there. */
#include "gateway/access_log.h"
#include "gateway/asgi.h"
#include "gateway/server_internal.h"
#include "gateway/threads.h"

/* ---- hooks of the loop ---- */

/* Any Python may have run. */
static void wake_up(as_server *self) {
    if (self->loop != NULL) {
        as_loop_wakeup(self->loop);
    }
}

/* `handle` is what the asyncio loop returned for `callable`. NULL: the loop is closed, and nobody
 * polls any more; or there was no memory: then the core's own descriptor brings a poll, which tries
 * again what is due. */
static bool is_scheduled(as_server *self, PyObject *handle, PyObject *callable) {
    if (handle == NULL) {
        PyErr_WriteUnraisable(callable);
        wake_up(self);
        return false;
    }
    Py_DECREF(handle);
    return true;
}

static void hook_wake(void *ctx) {
    as_server *self = ctx;
    /* Asked for from within a poll, the next one must come by itself all the same. */
    if (!self->wake_scheduled) {
        self->wake_scheduled =
            is_scheduled(self,
                         PyObject_CallMethodOneArg(self->py_loop, self->state->str.call_soon,
                                                   self->wake_callable),
                         self->wake_callable);
    }
}

void as_server_wake(as_server *self) {
    if (self->py_loop != NULL && !self->polling && self->loop != NULL) {
        hook_wake(self);
    }
}

static void cancel_timer(as_server *self) {
    PyObject *timer = self->timer;
    self->timer = NULL;
    if (timer != NULL) {
        PyObject *result = PyObject_CallMethodNoArgs(timer, self->state->str.cancel);
        if (result == NULL) {
            PyErr_WriteUnraisable(timer); /* it comes too early, which harms nothing */
        }
        Py_XDECREF(result);
        Py_DECREF(timer);
    }
}

/* A timer that comes too early stays: most timeouts are pushed on. */
static void arm_timer(as_server *self) {
    uint64_t due = self->loop != NULL ? as_loop_due(self->loop) : UINT64_MAX;
    if (self->py_loop == NULL || due == UINT64_MAX ||
        (self->timer != NULL && self->timer_due <= due)) {
        return;
    }
    PyObject *delay = PyFloat_FromDouble(as_loop_timeout(self->loop) / 1000.0);
    PyObject *args[] = {self->py_loop, delay, self->timer_callable};
    cancel_timer(self);
    if (delay != NULL) {
        self->timer = PyObject_VectorcallMethod(self->state->str.call_later, args,
                                                3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
        Py_DECREF(delay);
    }
    self->timer_due = due;
    if (self->timer == NULL) {
        PyErr_WriteUnraisable(self->timer_callable); /* as in is_scheduled */
        wake_up(self);
    }
}

static void hook_timer(void *ctx) {
    as_server *self = ctx;
    if (!self->polling) {
        arm_timer(self);
    }
}

void as__server_call_once(PyObject **field) {
    PyObject *callback = *field;
    *field = NULL;
    if (callback != NULL) {
        PyObject *result = PyObject_CallNoArgs(callback);
        if (result == NULL) {
            PyErr_WriteUnraisable(callback);
        }
        Py_XDECREF(result);
        Py_DECREF(callback);
    }
}

static void hook_drained(void *ctx) {
    as_server *self = ctx;
    if (self->py_loop == NULL) {
        as_loop_stop(self->loop);
    }
    as__server_call_once(&self->on_drained);
}

static void hook_marked(void *ctx) {
    as__server_call_once(&((as_server *)ctx)->on_marked);
}

static void hook_notice(void *ctx, as_notice_level level, const char *text) {
    as_log_message(ctx, level == AS_NOTICE_ERROR ? "error" : "warning", "%s", text);
}

static void hook_alarm(void *ctx) {
    as_log_hidden_refusals(ctx);
}

/* The same on the loop's own thread. */

static void tell_drained(void *ctx) {
    as_threads_tell(((as_server *)ctx)->threads, AS_NEWS_DRAINED, "");
}

static void tell_marked(void *ctx) {
    as_threads_tell(((as_server *)ctx)->threads, AS_NEWS_MARKED, "");
}

static void tell_notice(void *ctx, as_notice_level level, const char *text) {
    as_threads_tell(((as_server *)ctx)->threads,
                    level == AS_NOTICE_ERROR ? AS_NEWS_ERROR : AS_NEWS_NOTICE, text);
}

static void tell_hidden(void *ctx) {
    as_threads_tell(((as_server *)ctx)->threads, AS_NEWS_HIDDEN, "");
}

void as__server_set_hooks(const as_server *self, as_loop_config *config) {
    bool asgi = self->py_loop != NULL, threads = self->threads != NULL;
    config->wake = asgi ? hook_wake : NULL;
    config->timer = asgi ? hook_timer : NULL;
    config->drained = threads ? tell_drained : hook_drained;
    config->marked = threads ? tell_marked : hook_marked;
    config->notice = threads ? tell_notice : hook_notice;
    config->alarm = threads ? tell_hidden : hook_alarm;
}

/* What the application asked for with SystemExit or KeyboardInterrupt happens here. */
static PyObject *raise_fatal(as_server *self) {
    PyObject *fatal = self->fatal;
    self->fatal = NULL;
    PyErr_SetObject((PyObject *)Py_TYPE(fatal), fatal);
    Py_DECREF(fatal);
    return NULL;
}

/* ---- ASGI: the asyncio loop ---- */

PyObject *as__server_poll(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    if (self->loop == NULL || self->polling) {
        Py_RETURN_NONE;
    }
    Py_INCREF(self);
    self->polling = true;
    as_loop_poll(self->loop);
    self->polling = false;
    if (self->lost != NULL) {
        as_tasks_end_lost(self);
    }
    as_access_log_flush(self);
    as_access_log_report(self);
    arm_timer(self);
    PyObject *result = self->fatal != NULL ? raise_fatal(self) : Py_NewRef(Py_None);
    Py_DECREF(self);
    return result;
}

PyObject *as__server_woken(PyObject *op, PyObject *ignored) {
    ((as_server *)op)->wake_scheduled = false;
    return as__server_poll(op, ignored);
}

PyObject *as__server_timer(PyObject *op, PyObject *ignored) {
    Py_CLEAR(((as_server *)op)->timer);
    return as__server_poll(op, ignored);
}

PyObject *as__server_start(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    if (as__server_check_open(self) < 0) {
        return NULL;
    }
    if (self->py_loop == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "start() is for ASGI; call run()");
        return NULL;
    }
    PyObject *result = PyObject_CallMethod(self->py_loop, "add_reader", "iO",
                                           as_loop_fd(self->loop), self->poll_callable);
    if (result == NULL) {
        return NULL;
    }
    Py_DECREF(result);
    as_server_wake(self);
    Py_RETURN_NONE;
}

static void remove_reader(as_server *self) {
    if (self->py_loop == NULL) {
        return;
    }
    PyObject *result =
        PyObject_CallMethod(self->py_loop, "remove_reader", "i", as_loop_fd(self->loop));
    if (result == NULL) {
        PyErr_Clear(); /* the loop is closed, or a Proactor: then nothing was added */
    }
    Py_XDECREF(result);
}

void as__server_unwatch(as_server *self) {
    cancel_timer(self);
    if (self->loop != NULL) {
        remove_reader(self);
    }
}

/* ---- WSGI: run() ---- */

bool as__server_tick(as_server *self) {
    if (self->tick == NULL || as_coarse_milliseconds() < self->tick_due) {
        return true;
    }
    self->tick_due = as_coarse_milliseconds() + self->tick_every;
    PyObject *result = PyObject_CallNoArgs(self->tick);
    Py_XDECREF(result);
    return result != NULL;
}

/* The GIL is away exactly while run() waits. */
static bool before_wait(void *ctx) {
    as_server *self = ctx;
    self->polling = false;
    as_access_log_flush(self);
    as_access_log_report(self);
    if (!as__server_tick(self)) {
        return false;
    }
    if (self->fatal != NULL || PyErr_Occurred() || PyErr_CheckSignals() < 0) {
        return false;
    }
    self->thread_state = PyEval_SaveThread();
    return true;
}

static bool after_wait(void *ctx) {
    as_server *self = ctx;
    PyEval_RestoreThread(self->thread_state);
    self->thread_state = NULL;
    self->polling = true;
    return PyErr_CheckSignals() == 0;
}

static PyObject *run_inline(as_server *self) {
    self->polling = true;
    as_loop_run(self->loop, before_wait, after_wait,
                self->tick != NULL ? (int)self->tick_every : -1);
    self->polling = false;
    as_access_log_flush(self);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *run_threads(as_server *self) {
    self->polling = true; /* by another thread */
    PyObject *result = as_threads_run(self->threads);
    self->polling = false;
    return result;
}

PyObject *as__server_work(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    as_server *self = (as_server *)op;
    if (self->threads != NULL && self->polling) {
        return as_threads_work(self->threads);
    }
    if (self->threads != NULL && as_bridge_dismissed(self->threads->bridge)) {
        Py_RETURN_NONE; /* run() was over before this thread began */
    }
    PyErr_SetString(PyExc_RuntimeError, "_work() is for the threads that run() makes");
    return NULL;
}

PyObject *as__server_run(PyObject *op, PyObject *args, PyObject *kwargs) {
    static char *keywords[] = {"tick", "interval", NULL};
    as_server *self = (as_server *)op;
    PyObject *callable = Py_None;
    double interval = 1.0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|Od:run", keywords, &callable, &interval) ||
        as__server_check_open(self) < 0) {
        return NULL;
    }
    if (!(interval >= 0.01 && interval <= 3600.0)) {
        PyErr_SetString(PyExc_ValueError, "interval must be from 0.01 to 3600 seconds");
        return NULL;
    }
    if (self->py_loop != NULL || self->polling || self->running) {
        PyErr_SetString(PyExc_RuntimeError,
                        "run() is for WSGI, once; ASGI runs in its asyncio loop");
        return NULL;
    }
    if (callable != Py_None) {
        Py_XSETREF(self->tick, Py_NewRef(callable));
        self->tick_every = (uint64_t)(interval * 1000);
        self->tick_due = 0;
    }
    self->running = true;
    PyObject *result = self->threads != NULL ? run_threads(self) : run_inline(self);
    self->running = false;
    Py_CLEAR(self->tick);
    if (result != NULL && self->fatal != NULL) {
        Py_DECREF(result);
        return raise_fatal(self);
    }
    return result;
}

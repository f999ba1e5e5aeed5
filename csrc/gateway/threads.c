#include "gateway/threads.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/thread.h"
#include "gateway/access_log.h"
#include "gateway/server.h"

#define CUT_WAIT 1000u /* milliseconds for applications whose client was cut off */

struct as_news {
    as_news *next;
    as_news_kind kind;
    as_conn_info info; /* REFUSED, as are the next ones */
    as_err why;
    uint64_t offset;
    size_t n;
    char text[];
};

static void lock(as_threads *t) {
    (void)pthread_mutex_lock(&t->lock);
}

static void unlock(as_threads *t) {
    (void)pthread_mutex_unlock(&t->lock);
}

/* --- making ----------------------------------------------------------------------------------- */

static void released(void *ctx, const as_exchange *ex) {
    as_access_log_add(ctx, ex);
}

as_threads *as_threads_new(as_server *server) {
    as_threads *t = PyMem_Calloc(1, sizeof(*t));
    if (t == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    t->server = server;
    t->last = &t->first;
    if (pthread_mutex_init(&t->lock, NULL) != 0) {
        PyMem_Free(t);
        PyErr_NoMemory();
        return NULL;
    }
    t->fds[0] = t->fds[1] = -1;
    t->bridge = as_bridge_new(server->limits.limit_write_buffer, released, server);
    if (t->bridge == NULL || pipe2(t->fds, O_NONBLOCK | O_CLOEXEC) != 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        as_threads_free(t);
        return NULL;
    }
    return t;
}

void as_threads_close(as_threads *t) {
    as_bridge_close(t->bridge);
    as_bridge_collect(t->bridge);
    lock(t);
    for (int i = 0; i < 2; i++) {
        if (t->fds[i] >= 0) {
            (void)close(t->fds[i]);
            t->fds[i] = -1;
        }
    }
    unlock(t);
}

/* Who holds the lock is not there. */
void as_threads_forked(as_threads *t) {
    as_bridge_forked(t->bridge);
    (void)pthread_mutex_init(&t->lock, NULL);
}

void as_threads_free(as_threads *t) {
    if (t == NULL) {
        return;
    }
    if (t->bridge != NULL) {
        as_threads_close(t);
    }
    while (t->first != NULL) {
        as_news *news = t->first;
        t->first = news->next;
        free(news);
    }
    as_bridge_free(t->bridge);
    (void)pthread_mutex_destroy(&t->lock);
    PyMem_Free(t);
}

/* --- telling ---------------------------------------------------------------------------------- */

/* With the lock held. */
static void poke(as_threads *t) {
    if (!t->poked && t->fds[1] >= 0) {
        t->poked = true;
        ssize_t n = write(t->fds[1], "", 1);
        (void)n; /* a full pipe ends the wait as well */
    }
}

void as_threads_poke(as_threads *t) {
    lock(t);
    poke(t);
    unlock(t);
}

static void add(as_threads *t, as_news *news) {
    if (news == NULL) {
        return; /* without memory there is no log either */
    }
    lock(t);
    *t->last = news;
    t->last = &news->next;
    poke(t);
    unlock(t);
}

static as_news *news_new(as_news_kind kind, as_slice text) {
    as_news *news = malloc(sizeof(*news) + text.n + 1);
    if (news != NULL) {
        *news = (as_news){.kind = kind, .n = text.n};
        memcpy(news->text, text.p, text.n);
        news->text[text.n] = '\0';
    }
    return news;
}

void as_threads_tell(as_threads *t, as_news_kind kind, const char *text) {
    add(t, news_new(kind, (as_slice){text, strlen(text)}));
}

void as_threads_tell_refused(as_threads *t, const as_conn_info *info, as_err why, as_slice detail,
                             uint64_t offset) {
    as_news *news = news_new(AS_NEWS_REFUSED, detail);
    if (news != NULL) {
        news->info = *info;
        news->why = why;
        news->offset = offset;
    }
    add(t, news);
}

/* --- hearing: the thread of run() ------------------------------------------------------------- */

static void hear(as_threads *t, const as_news *news) {
    as_server *server = t->server;
    switch (news->kind) {
    case AS_NEWS_NOTICE:
        as_log_message(server, "warning", "%s", news->text);
        break;
    case AS_NEWS_ERROR:
        as_log_message(server, "error", "%s", news->text);
        break;
    case AS_NEWS_REFUSED:
        as_log_refusal(server, &news->info, news->why, (as_slice){news->text, news->n},
                       news->offset);
        break;
    case AS_NEWS_HIDDEN:
        as_log_hidden_refusals(server);
        break;
    case AS_NEWS_LINES:
        as_access_log_give(server, (as_slice){news->text, news->n});
        break;
    case AS_NEWS_DRAINED:
        as__server_call_once(&server->on_drained);
        break;
    case AS_NEWS_MARKED:
        as__server_call_once(&server->on_marked);
        break;
    }
}

/* All news, and whether the loop's thread has ended. */
static bool hear_all(as_threads *t) {
    char bytes[64];
    lock(t);
    while (t->fds[0] >= 0 && read(t->fds[0], bytes, sizeof(bytes)) == sizeof(bytes)) {
    }
    t->poked = false;
    as_news *news = t->first;
    bool ended = t->ended;
    t->first = NULL;
    t->last = &t->first;
    unlock(t);
    while (news != NULL) {
        as_news *next = news->next;
        hear(t, news);
        free(news);
        news = next;
    }
    as_access_log_report(t->server);
    return ended;
}

/* --- the loop's thread ------------------------------------------------------------------------ */

/* To whoever writes it: a thread of its own, or, for a callable, that of run(). */
static void pass_access_log(as_threads *t) {
    as_slice lines;
    if (as_access_log_take(t->server, &lines)) {
        add(t, news_new(AS_NEWS_LINES, lines));
    } else if (as_access_log_has_trouble(t->server)) {
        as_threads_poke(t);
    }
}

static bool before_wait(void *ctx) {
    as_threads *t = ((as_server *)ctx)->threads;
    as_bridge_before_wait(t->bridge);
    pass_access_log(t);
    return true;
}

static bool after_wait(void *ctx) {
    as_bridge_after_wait(((as_server *)ctx)->threads->bridge);
    return true;
}

static void *run_loop(void *arg) {
    as_threads *t = arg;
    as_loop_run(t->server->loop, before_wait, after_wait, -1);
    as_bridge_end(t->bridge); /* from here on others call the loop, and add lines to its log */
    lock(t);
    t->ended = true;
    poke(t);
    unlock(t);
    return NULL;
}

static int start_loop(as_threads *t) {
    as_bridge_open(t->bridge, t->server->loop);
    int error = as_thread_start(&t->loop_thread, 0, run_loop, t);
    if (error != 0) {
        as_bridge_end(t->bridge);
        errno = error;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    t->started = true;
    return 0;
}

static void cut_and_stop(void *loop) {
    (void)as_loop_abort_all(loop);
    as_loop_stop(loop);
}

/* --- the pool --------------------------------------------------------------------------------- */

/* A threading.Thread, so that debuggers, profilers, threading.local and current_thread() see
 * nothing unusual. They are daemons: an application that hangs must not keep the process. */
static PyObject *make_thread(PyObject *type, PyObject *work, unsigned i) {
    PyObject *none = PyTuple_New(0);
    PyObject *kwargs = Py_BuildValue("{s:O,s:N,s:O}", "target", work, "name",
                                     PyUnicode_FromFormat("asgiserver-%u", i), "daemon", Py_True);
    PyObject *thread = none != NULL && kwargs != NULL ? PyObject_Call(type, none, kwargs) : NULL;
    Py_XDECREF(none);
    Py_XDECREF(kwargs);
    return thread;
}

static int start_worker(as_threads *t, PyObject *type, PyObject *work, unsigned i) {
    PyObject *thread = make_thread(type, work, i);
    if (thread == NULL) {
        return -1;
    }
    PyObject *result = PyObject_CallMethod(thread, "start", NULL);
    int failed = result == NULL || PyList_Append(t->objects, thread) < 0;
    Py_DECREF(thread);
    Py_XDECREF(result);
    return failed ? -1 : 0;
}

static int start_workers(as_threads *t) {
    PyObject *threading = PyImport_ImportModule("threading");
    PyObject *type = threading != NULL ? PyObject_GetAttrString(threading, "Thread") : NULL;
    PyObject *work = PyObject_GetAttrString((PyObject *)t->server, "_work");
    t->objects = PyList_New(0);
    int failed = type == NULL || work == NULL || t->objects == NULL;
    for (unsigned i = 0; !failed && i < t->server->nthreads; i++) {
        failed = start_worker(t, type, work, i) < 0;
    }
    Py_XDECREF(threading);
    Py_XDECREF(type);
    Py_XDECREF(work);
    return failed ? -1 : 0;
}

static void join_workers(as_threads *t) {
    for (Py_ssize_t i = 0; t->objects != NULL && i < PyList_GET_SIZE(t->objects); i++) {
        PyObject *result = PyObject_CallMethod(PyList_GET_ITEM(t->objects, i), "join", "d", 1.0);
        if (result == NULL) {
            PyErr_WriteUnraisable(t->objects);
        }
        Py_XDECREF(result);
    }
}

/* --- run() ------------------------------------------------------------------------------------ */

/* Milliseconds until something is due besides what ends the wait by itself; -1: nothing. */
static int wait_time(const as_threads *t) {
    const as_server *server = t->server;
    int time = server->tick != NULL ? (int)server->tick_every : -1;
    if (t->deadline != 0) {
        uint64_t now = as_milliseconds();
        int left = t->deadline > now ? (int)(t->deadline - now) : 0;
        time = time < 0 || left < time ? left : time;
    }
    return time;
}

static void wait_for_news(as_threads *t) {
    struct pollfd fd = {.fd = t->fds[0], .events = POLLIN};
    int time = wait_time(t);
    Py_BEGIN_ALLOW_THREADS;
    (void)poll(&fd, 1, time);
    Py_END_ALLOW_THREADS;
}

/* The loop has ended: so do the threads, as soon as their applications let them. */
static bool is_over(as_threads *t) {
    as_bridge_dismiss(t->bridge);
    if (t->working == 0) {
        return true;
    }
    if (t->cut && t->deadline == 0) {
        t->deadline = as_milliseconds() + CUT_WAIT;
    }
    return t->deadline != 0 && as_milliseconds() >= t->deadline;
}

/* Until all is over, or something is to be raised. */
static void serve(as_threads *t) {
    as_server *server = t->server;
    for (;;) {
        bool ended = hear_all(t);
        /* The thread whose application raised it answers first, and dismisses all then. */
        bool fatal = server->fatal != NULL && as_bridge_dismissed(t->bridge);
        if (!as__server_tick(server) || fatal || PyErr_CheckSignals() < 0 ||
            (ended && is_over(t))) {
            return;
        }
        wait_for_news(t);
    }
}

/* After an exception as well: nothing of ours runs when this returns, but applications that hang.
 */
static void end(as_threads *t) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (t->started) {
        Py_BEGIN_ALLOW_THREADS;
        (void)as_bridge_call(t->bridge, cut_and_stop, t->server->loop);
        (void)pthread_join(t->loop_thread, NULL);
        Py_END_ALLOW_THREADS;
        t->started = false;
    }
    t->cut = true;
    while (!is_over(t)) {
        wait_for_news(t);
        (void)hear_all(t);
    }
    (void)hear_all(t);
    as_access_log_flush(t->server);
    if (t->working == 0) {
        join_workers(t);
    } else {
        as_log_message(t->server, "warning",
                       "Requests whose application does not end, and are left to it: %u",
                       t->working);
    }
    Py_CLEAR(t->objects);
    as_bridge_collect(t->bridge);
    PyErr_Restore(type, value, traceback);
}

PyObject *as_threads_run(as_threads *t) {
    if (as_bridge_dismissed(t->bridge)) {
        PyErr_SetString(PyExc_RuntimeError, "run() with threads runs once");
        return NULL;
    }
    if (start_workers(t) == 0 && start_loop(t) == 0) {
        serve(t);
    }
    end(t);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

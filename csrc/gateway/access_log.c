/* The access log: lines are gathered while the loop handles what is ready, and handed over once a
 * turn, to the thread that writes them (log_writer.h) or to a callable. Only handing over to a
 * callable needs Python. */
#include "gateway/access_log.h"

#include <errno.h>
#include <stdlib.h>

#include "gateway/access_format.h"
#include "gateway/gateway.h"
#include "gateway/log_writer.h"

#define FLUSH_AT ((size_t)64 * 1024) /* bytes */
#define CLOSE_WAIT 1000u             /* milliseconds for the last lines to be written */
#define TELL_EVERY 5000000u          /* microseconds between two messages about lost lines */

struct as_access_log {
    as_access_format *format;
    unsigned needs;
    as_buf lines;
    as_log_writer *writer; /* NULL: lines go to `callable` */
    PyObject *callable;    /* owned */
    bool records;          /* it is given tuples rather than lines */
    uint64_t told;         /* when lost lines were last told of, as_microseconds() */
};

/* --- making --------------------------------------------------------------------------------- */

/* `text` is str, or None for `usual`. NULL with an exception. */
static as_access_format *compile(PyObject *text, as_slice usual, bool colors) {
    char problem[AS_ACCESS_PROBLEM];
    as_slice slice = usual;
    if (text != Py_None) {
        Py_ssize_t n;
        slice.p = PyUnicode_AsUTF8AndSize(text, &n);
        if (slice.p == NULL) {
            return NULL;
        }
        slice.n = (size_t)n;
    }
    as_access_format *format = as_access_format_new(slice, colors, problem);
    if (format == NULL) {
        PyErr_Format(PyExc_ValueError, "%s", problem);
    }
    return format;
}

static int set_target(struct as_access_log *log, PyObject *target, PyObject *format, bool colors) {
    if (PyLong_Check(target)) {
        int fd = PyObject_AsFileDescriptor(target);
        if (fd < 0 || (log->format = compile(format, AS_SLICE("uvicorn"), colors)) == NULL) {
            return -1;
        }
        if ((log->writer = as_log_writer_new(fd)) == NULL) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        return 0;
    }
    log->callable = Py_NewRef(target);
    log->records = format == Py_None;
    log->format = compile(format, (as_slice){NULL, 0}, colors);
    return log->format != NULL ? 0 : -1;
}

struct as_access_log *as_access_log_new(PyObject *target, PyObject *format, bool colors) {
    struct as_access_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if (set_target(log, target, format, colors) < 0) {
        (void)as_access_log_free(log);
        return NULL;
    }
    log->needs = as_access_format_needs(log->format);
    return log;
}

uint64_t as_access_log_free(struct as_access_log *log) {
    if (log == NULL) {
        return 0;
    }
    uint64_t lost;
    Py_BEGIN_ALLOW_THREADS;
    lost = as_log_writer_free(log->writer, CLOSE_WAIT);
    Py_END_ALLOW_THREADS;
    as_access_format_free(log->format);
    as_buf_fini(&log->lines, NULL);
    Py_CLEAR(log->callable);
    free(log);
    return lost;
}

unsigned as_access_log_needs(const struct as_access_log *log) {
    return log != NULL ? log->needs : 0;
}

int as_access_log_reopen(struct as_access_log *log, int fd) {
    if (log == NULL || log->writer == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the access log does not go to a descriptor");
        return -1;
    }
    if (as_log_writer_reopen(log->writer, fd) < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

PyObject *as_check_access_log_format(PyObject *Py_UNUSED(module), PyObject *text) {
    if (!PyUnicode_Check(text)) {
        PyErr_SetString(PyExc_TypeError, "str expected");
        return NULL;
    }
    as_access_format *format = compile(text, (as_slice){NULL, 0}, false);
    if (format == NULL) {
        return NULL;
    }
    as_access_format_free(format);
    Py_RETURN_NONE;
}

/* --- lines ---------------------------------------------------------------------------------- */

void as_access_log_add(as_server *server, const as_exchange *ex) {
    struct as_access_log *log = server->access_log;
    if (log == NULL || ex->head == NULL || ex->status == 0) {
        return;
    }
    as_access_moment moment = {0};
    if ((log->needs & AS_ACCESS_DURATION) != 0) {
        moment.duration = as_microseconds() - ex->started;
    }
    if ((log->needs & AS_ACCESS_TIME) != 0) {
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now);
        moment.seconds = now.tv_sec;
        moment.nanoseconds = (uint32_t)now.tv_nsec;
    }
    /* Where there is no memory the line is lost; so are more important things. */
    (void)as_access_format_add(log->format, ex, &moment, &log->lines);
    if (log->writer != NULL && log->lines.len >= FLUSH_AT) {
        as_log_writer_put(log->writer, &log->lines);
    }
    as_server_wake(server);
}

/* (client, method, target, version, status) of a record's line, which has a tab between them. */
static PyObject *make_record(const char *p, const char *end) {
    as_slice fields[5];
    for (int i = 0; i < 5; i++) {
        const char *tab = i < 4 ? memchr(p, '\t', (size_t)(end - p)) : end;
        fields[i] = (as_slice){p, (size_t)(tab - p)};
        p = tab + 1;
    }
    return Py_BuildValue("(s#s#s#s#l)", fields[0].p, (Py_ssize_t)fields[0].n, fields[1].p,
                         (Py_ssize_t)fields[1].n, fields[2].p, (Py_ssize_t)fields[2].n, fields[3].p,
                         (Py_ssize_t)fields[3].n, strtol(fields[4].p, NULL, 10));
}

/* A list with an item for each line. */
static PyObject *make_list(const struct as_access_log *log, as_slice lines) {
    PyObject *list = PyList_New(0);
    const char *p = lines.p, *end = p + lines.n;
    while (list != NULL && p < end) {
        const char *feed = memchr(p, '\n', (size_t)(end - p));
        PyObject *item =
            log->records ? make_record(p, feed) : PyUnicode_DecodeUTF8(p, feed - p, NULL);
        if (item == NULL || PyList_Append(list, item) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(item);
        p = feed + 1;
    }
    return list;
}

void as_access_log_give(as_server *server, as_slice lines) {
    const struct as_access_log *log = server->access_log;
    PyObject *callable =
        Py_NewRef(log->callable); /* it may close the server, and with it the log */
    PyObject *list = make_list(log, lines);
    PyObject *result = list != NULL ? PyObject_CallOneArg(callable, list) : NULL;
    if (result == NULL) {
        PyErr_WriteUnraisable(callable);
    }
    Py_XDECREF(result);
    Py_XDECREF(list);
    Py_DECREF(callable);
}

bool as_access_log_take(as_server *server, as_slice *lines) {
    struct as_access_log *log = server->access_log;
    if (log == NULL || log->lines.len == 0) {
        return false;
    }
    if (log->writer != NULL) {
        as_log_writer_put(log->writer, &log->lines);
        return false;
    }
    *lines = (as_slice){log->lines.data, log->lines.len};
    log->lines.len = 0;
    return true;
}

void as_access_log_flush(as_server *server) {
    struct as_access_log *log = server->access_log;
    if (log == NULL || log->lines.len == 0) {
        return;
    }
    if (log->writer != NULL) {
        as_log_writer_put(log->writer, &log->lines);
        return;
    }
    as_buf lines = log->lines;
    log->lines = (as_buf){0};
    as_access_log_give(server, (as_slice){lines.data, lines.len});
    as_buf_fini(&lines, NULL);
}

/* --- lost lines ----------------------------------------------------------------------------- */

static void tell_lost(as_server *server, uint64_t lines, int error) {
    as_log_message(server, "warning", "Access log: %llu lines were lost (%s)",
                   (unsigned long long)lines, error != 0 ? strerror(error) : "nobody read them");
}

bool as_access_log_has_trouble(const as_server *server) {
    const struct as_access_log *log = server->access_log;
    return log != NULL && log->writer != NULL && as_log_writer_has_trouble(log->writer);
}

void as_access_log_report(as_server *server) {
    struct as_access_log *log = server->access_log;
    as_log_trouble trouble;
    if (!as_access_log_has_trouble(server)) {
        return;
    }
    uint64_t now = as_microseconds();
    if (log->told != 0 && now - log->told < TELL_EVERY) {
        return;
    }
    log->told = now;
    as_log_writer_take_trouble(log->writer, &trouble);
    if (trouble.over) {
        tell_lost(server, trouble.dropped, trouble.error);
    } else {
        as_log_message(server, "warning", "Access log: %s; lines are lost until it can be written",
                       strerror(trouble.error));
    }
}

void as_access_log_close(as_server *server) {
    struct as_access_log *log = server->access_log;
    if (log == NULL) {
        return;
    }
    as_access_log_flush(server);
    server->access_log = NULL;
    uint64_t lost = as_access_log_free(log);
    if (lost > 0) {
        as_log_message(server, "warning", "Access log: %llu lines were lost",
                       (unsigned long long)lost);
    }
}

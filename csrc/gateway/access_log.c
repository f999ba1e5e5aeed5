/* The access log: lines in uvicorn's form are gathered while the loop handles what is ready and
 * leave in one write. Where Python's logging wants them, a list of records is handed over instead.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/buf.h"
#include "gateway/gateway.h"
#include "http/response.h"

#define FLUSH_AT ((size_t)64 * 1024) /* bytes */

struct as_access_log {
    int fd;             /* -1: records go to `callable` */
    PyObject *callable; /* owned */
    PyObject *records;  /* list, owned; NULL while there is none */
    as_buf lines;
    bool colors;
};

struct as_access_log *as_access_log_new(int fd, PyObject *callable, bool colors) {
    struct as_access_log *log = calloc(1, sizeof(*log));
    if (log == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    log->fd = fd;
    log->callable = Py_XNewRef(callable);
    log->colors = colors;
    return log;
}

void as_access_log_free(struct as_access_log *log) {
    if (log == NULL) {
        return;
    }
    as_buf_fini(&log->lines, NULL);
    Py_CLEAR(log->callable);
    Py_CLEAR(log->records);
    free(log);
}

/* Bytes from a stranger: what could steer a terminal or fake a line is written as \xNN. Needs
 * 4 bytes of room for each byte. */
static char *put_escaped(char *at, as_slice s) {
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\') {
            *at++ = (char)c;
        } else {
            *at++ = '\\';
            *at++ = 'x';
            *at++ = digits[c >> 4];
            *at++ = digits[c & 15];
        }
    }
    return at;
}

static char *put(char *at, as_slice s) {
    memcpy(at, s.p, s.n);
    return at + s.n;
}

static char *put_number(char *at, unsigned value) {
    char digits[10];
    int n = 0;
    do {
        digits[n++] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (n > 0) {
        *at++ = digits[--n];
    }
    return at;
}

/* Green, yellow, red as the status asks for. */
static as_slice status_color(unsigned status) {
    if (status < 300) {
        return AS_SLICE("\033[32m");
    }
    return status < 400 ? AS_SLICE("\033[33m") : AS_SLICE("\033[31m");
}

/* INFO:     127.0.0.1:50000 - "GET /path HTTP/1.1" 200 OK */
static bool add_line(struct as_access_log *log, const as_exchange *ex) {
    const as_head *head = ex->head;
    as_slice method = as_head_slice(head, head->method);
    as_slice target = as_head_slice(head, head->target);
    as_slice client = {ex->info->client, strlen(ex->info->client)};
    as_slice reason = as_status_reason(ex->status);
    if (as_buf_reserve(&log->lines, NULL, 160 + method.n + client.n + reason.n + 4 * target.n) !=
        AS_OK) {
        return false;
    }
    char *start = log->lines.data + log->lines.len, *at = start;
    at = put(at, log->colors ? AS_SLICE("\033[32mINFO\033[0m:     ") : AS_SLICE("INFO:     "));
    if (ex->info->is_unix) {
        at = put(at, AS_SLICE("unix"));
    } else {
        at = put(at, client);
        *at++ = ':';
        at = put_number(at, ex->info->client_port);
    }
    at = put(at, log->colors ? AS_SLICE(" - \"\033[1m") : AS_SLICE(" - \""));
    at = put(at, method);
    *at++ = ' ';
    at = put_escaped(at, target);
    at = put(at, head->minor == 1 ? AS_SLICE(" HTTP/1.1") : AS_SLICE(" HTTP/1.0"));
    at = put(at, log->colors ? AS_SLICE("\033[0m\" ") : AS_SLICE("\" "));
    if (log->colors) {
        at = put(at, status_color(ex->status));
    }
    at = put_number(at, ex->status);
    if (reason.n > 0) {
        *at++ = ' ';
        at = put(at, reason);
    }
    at = put(at, log->colors ? AS_SLICE("\033[0m\n") : AS_SLICE("\n"));
    log->lines.len += (size_t)(at - start);
    return true;
}

static bool add_record(struct as_access_log *log, const as_exchange *ex) {
    if (log->records == NULL && (log->records = PyList_New(0)) == NULL) {
        return false;
    }
    const as_head *head = ex->head;
    as_slice method = as_head_slice(head, head->method);
    as_slice target = as_head_slice(head, head->target);
    char client[sizeof(ex->info->client) + 8];
    if (ex->info->is_unix) {
        snprintf(client, sizeof(client), "unix");
    } else {
        snprintf(client, sizeof(client), "%s:%u", ex->info->client, ex->info->client_port);
    }
    PyObject *escaped = NULL, *record = NULL;
    char *text = malloc(4 * target.n + 1);
    if (text == NULL) {
        PyErr_NoMemory();
        return false;
    }
    escaped = PyUnicode_DecodeASCII(text, put_escaped(text, target) - text, NULL);
    free(text);
    if (escaped != NULL) {
        record = Py_BuildValue("(sNNsi)", client, as_latin1(method), escaped,
                               head->minor == 1 ? "1.1" : "1.0", (int)ex->status);
    }
    bool ok = record != NULL && PyList_Append(log->records, record) == 0;
    Py_XDECREF(record);
    return ok;
}

void as_access_log_add(as_server *server, const as_exchange *ex) {
    struct as_access_log *log = server->access_log;
    if (log == NULL || ex->head == NULL || ex->status == 0) {
        return;
    }
    if (log->fd < 0) {
        if (!add_record(log, ex)) {
            PyErr_WriteUnraisable(log->callable);
        }
    } else if (add_line(log, ex) && log->lines.len >= FLUSH_AT) {
        as_access_log_flush(server);
    }
    as_server_wake(server);
}

/* A log that cannot be written (a full disk, a closed pipe) must not stop the service: its lines
 * are dropped. */
static void write_lines(struct as_access_log *log) {
    size_t done = 0;
    while (done < log->lines.len) {
        ssize_t n = write(log->fd, log->lines.data + done, log->lines.len - done);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            break;
        }
        done += (size_t)n;
    }
    log->lines.len = 0;
    if (log->lines.cap > 2 * FLUSH_AT) {
        as_buf_fini(&log->lines, NULL);
    }
}

void as_access_log_flush(as_server *server) {
    struct as_access_log *log = server->access_log;
    if (log == NULL) {
        return;
    }
    if (log->lines.len > 0) {
        write_lines(log);
    }
    if (log->records != NULL) {
        PyObject *records = log->records;
        log->records = NULL;
        PyObject *result = PyObject_CallOneArg(log->callable, records);
        if (result == NULL) {
            PyErr_WriteUnraisable(log->callable);
        }
        Py_XDECREF(result);
        Py_DECREF(records);
    }
}

#include "gateway/gateway.h"

#include <stdarg.h>
#include <stdatomic.h>

#include "gateway/access_format.h"
#include "http/response.h"
#include "net/loop.h"

#define REFUSALS_AT_ONCE 100u      /* lines about refused requests */
#define REFUSALS_PER_SECOND 10u    /* in the long run */
#define TELL_HIDDEN_AFTER 1000u    /* milliseconds */

void as_raise(as_module_state *state, as_err err, const char *what) {
    switch (err) {
    case AS_E_NOMEM:
        PyErr_NoMemory();
        return;
    case AS_E_CLOSED:
    case AS_E_RESET:
        PyErr_SetString(state->client_disconnected, "the client has left");
        return;
    case AS_E_IO:
        PyErr_Format(PyExc_OSError, "%s: %s", what, as_err_text(err));
        return;
    default:
        PyErr_Format(PyExc_RuntimeError, "%s: %s", what, as_err_text(err));
    }
}

/* Hands one event to the logging callable. Whatever that raises cannot be raised further. */
static void call_on_error(as_server *server, const char *level, PyObject *message, PyObject *exc) {
    if (message == NULL) {
        PyErr_WriteUnraisable(server->on_error);
        return;
    }
    if (server->on_error == NULL || server->on_error == Py_None) {
        PySys_FormatStderr("%s: %U\n", level, message);
        if (exc != NULL) {
            PyErr_SetObject((PyObject *)Py_TYPE(exc), exc);
            PyErr_PrintEx(0);
        }
        return;
    }
    PyObject *result =
        PyObject_CallFunction(server->on_error, "sOO", level, message, exc != NULL ? exc : Py_None);
    if (result == NULL) {
        PyErr_WriteUnraisable(server->on_error);
    }
    Py_XDECREF(result);
}

void as_log_message(as_server *server, const char *level, const char *format, ...) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    va_list args;
    va_start(args, format);
    PyObject *message = PyUnicode_FromFormatV(format, args);
    va_end(args);
    call_on_error(server, level, message, NULL);
    Py_XDECREF(message);
    PyErr_Restore(type, value, traceback);
}

/* "127.0.0.1:5000", or "unix". */
static PyObject *describe_client(const as_conn_info *info) {
    char text[AS_CLIENT_TEXT];
    return PyUnicode_DecodeASCII(text, (Py_ssize_t)as_format_client(info, text), NULL);
}

/* "127.0.0.1:5000 - "GET /path HTTP/1.1"", with everything unprintable escaped. */
static PyObject *describe_exchange(const as_exchange *ex) {
    const as_head *head = ex->head;
    if (head == NULL || ex->info == NULL) {
        return PyUnicode_FromString("a request");
    }
    PyObject *method = as_latin1(as_head_slice(head, head->method));
    PyObject *target = as_latin1(as_head_slice(head, head->target));
    PyObject *ascii = target != NULL ? PyObject_ASCII(target) : NULL;
    PyObject *text = NULL;
    if (method != NULL && ascii != NULL) {
        PyObject *plain = PyUnicode_Substring(ascii, 1, PyUnicode_GET_LENGTH(ascii) - 1);
        if (plain != NULL) {
            PyObject *client = describe_client(ex->info);
            if (client != NULL) {
                text = PyUnicode_FromFormat("%U - \"%U %U HTTP/1.%d\"", client, method, plain,
                                            head->minor);
                Py_DECREF(client);
            }
            Py_DECREF(plain);
        }
    }
    Py_XDECREF(method);
    Py_XDECREF(target);
    Py_XDECREF(ascii);
    return text;
}

void as_log_exception(as_server *server, const as_exchange *ex, const char *what) {
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (value != NULL && traceback != NULL) {
        PyException_SetTraceback(value, traceback);
    }
    if (value != NULL && (PyErr_GivenExceptionMatches(value, PyExc_KeyboardInterrupt) ||
                          PyErr_GivenExceptionMatches(value, PyExc_SystemExit))) {
        Py_XSETREF(server->fatal, Py_NewRef(value));
    }
    PyObject *message;
    if (ex != NULL) {
        PyObject *request = describe_exchange(ex);
        message = request != NULL ? PyUnicode_FromFormat("%s: %U", what, request) : NULL;
        Py_XDECREF(request);
    } else {
        message = PyUnicode_FromString(what);
    }
    call_on_error(server, "error", message, value);
    Py_XDECREF(message);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
}

/* Scanners must not fill a log. */
bool as_may_log_refusal(as_server *server) {
    uint64_t now = as_microseconds();
    uint64_t regained = (now - server->refusals.since) * REFUSALS_PER_SECOND / 1000000;
    if (regained > 0) {
        server->refusals.since = now;
        server->refusals.used -=
            regained < server->refusals.used ? (uint32_t)regained : server->refusals.used;
    }
    if (server->refusals.used < REFUSALS_AT_ONCE) {
        server->refusals.used++;
        return true;
    }
    if (server->refusals.hidden++ == 0) {
        as_loop_set_alarm(server->loop, TELL_HIDDEN_AFTER);
    }
    return false;
}

void as_log_hidden_refusals(as_server *server) {
    uint32_t hidden = atomic_exchange(&server->refusals.hidden, 0);
    if (hidden > 0) {
        as_log_message(server, "warning",
                       "%u more refused requests and cut connections were not logged",
                       (unsigned)hidden);
    }
}

void as_log_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                    uint64_t offset) {
    if (as_may_log_refusal(ctx)) {
        as_log_refusal(ctx, info, why, detail, offset);
    }
}

void as_log_refusal(as_server *server, const as_conn_info *info, as_err why, as_slice detail,
                    uint64_t offset) {
    PyObject *text = as_latin1(detail);
    PyObject *ascii = text != NULL ? PyObject_ASCII(text) : NULL;
    if (ascii == NULL) {
        PyErr_Clear(); /* the line goes out without the detail */
    }
    PyObject *client = describe_client(info);
    unsigned status = as_err_status(why);
    if (client == NULL) {
        PyErr_Clear(); /* no memory for a line of the log */
    } else if (status == 0 && ascii != NULL && detail.n > 0) {
        as_log_message(server, "warning", "%U - connection cut: %s: %U", client, as_err_text(why),
                       ascii);
    } else if (status == 0) {
        as_log_message(server, "warning", "%U - connection cut: %s", client, as_err_text(why));
    } else if (ascii != NULL && detail.n > 0) {
        as_log_message(server, "warning", "%U - request refused (%u): %s, at byte %llu: %U", client,
                       status, as_err_text(why), (unsigned long long)offset, ascii);
    } else {
        as_log_message(server, "warning", "%U - request refused (%u): %s, at byte %llu", client,
                       status, as_err_text(why), (unsigned long long)offset);
    }
    Py_XDECREF(client);
    Py_XDECREF(ascii);
    Py_XDECREF(text);
}

void as_respond_error(as_exchange *ex, unsigned status) {
    static const char body[] = "Internal Server Error";
    if (ex->aborted || ex->res == AS_RES_DONE) {
        return;
    }
    if (ex->res == AS_RES_BODY) {
        as_exchange_abort(ex);
        return;
    }
    if (ex->res == AS_RES_HEAD) {
        as_exchange_head_abandon(ex);
    }
    as_slice reason = as_status_reason(status);
    as_bytes data = {body, sizeof(body) - 1, NULL, NULL, NULL};
    if (status != 500) {
        data.p = reason.p;
        data.n = reason.n;
    }
    if (as_exchange_head_begin(ex, status, (as_slice){NULL, 0}) != AS_OK ||
        as_exchange_head_field(ex, AS_SLICE("content-type"),
                               AS_SLICE("text/plain; charset=utf-8")) != AS_OK ||
        as_exchange_head_field(ex, AS_SLICE("connection"), AS_SLICE("close")) != AS_OK ||
        as_exchange_body(ex, data, false) != AS_OK) {
        as_exchange_abort(ex);
    }
}

/* The interpreter leaves room in an object for attributes to come, and less of it with each object
 * of the class that has none: with so many, none is left (SHARED_KEYS_MAX_SIZE is 30). */
#define OBJECTS_WITHOUT 32

static PyObject *object_with(PyObject *type, PyObject *attributes) {
    PyObject *object = PyObject_CallNoArgs(type), *key, *value;
    Py_ssize_t at = 0;
    while (object != NULL && attributes != NULL && PyDict_Next(attributes, &at, &key, &value)) {
        if (PyObject_SetAttr(object, key, value) < 0) {
            Py_CLEAR(object);
        }
    }
    return object;
}

/* The class's keys are those of `dict` afterwards. */
static int prepare_class(PyObject *type, PyObject *dict) {
    PyObject *object = object_with(type, dict);
    for (int i = 0; object != NULL && i < OBJECTS_WITHOUT; i++) {
        Py_SETREF(object, object_with(type, NULL));
    }
    int result = object != NULL ? 0 : -1;
    Py_XDECREF(object);
    return result;
}

PyObject *as_share_keys(PyObject *dict) {
    PyObject *type =
        dict != NULL ? PyObject_CallFunction((PyObject *)&PyType_Type, "s(){}", "Keys") : NULL;
    PyObject *object =
        type != NULL && prepare_class(type, dict) == 0 ? object_with(type, dict) : NULL;
    PyObject *attributes = object != NULL ? PyObject_GetAttrString(object, "__dict__") : NULL;
    PyObject *shared = attributes != NULL ? PyDict_Copy(attributes) : NULL;
    Py_XDECREF(attributes);
    Py_XDECREF(object);
    Py_XDECREF(type);
    Py_XDECREF(dict);
    return shared;
}

PyObject *as_client_tuple(const as_conn_info *info) {
    if (info->is_unix) {
        return Py_NewRef(Py_None);
    }
    return Py_BuildValue("(si)", info->client, (int)info->client_port);
}

PyObject *as_server_tuple(const as_conn_info *info) {
    if (info->is_unix) {
        PyObject *path = PyUnicode_DecodeFSDefault(info->server);
        if (path == NULL) {
            return NULL;
        }
        return Py_BuildValue("(NO)", path, Py_None);
    }
    return Py_BuildValue("(si)", info->server, (int)info->server_port);
}

static void hold_object(void *owner) {
    Py_INCREF((PyObject *)owner);
}

static void drop_object(void *owner) {
    Py_DECREF((PyObject *)owner);
}

as_bytes as_bytes_within(PyObject *owner, const char *p, size_t n) {
    bool plain = PyBytes_CheckExact(owner) || PyUnicode_CheckExact(owner);
    return (as_bytes){p, n, owner, plain ? hold_object : NULL, plain ? drop_object : NULL};
}

as_bytes as_bytes_from_object(PyObject *bytes) {
    return as_bytes_within(bytes, PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
}

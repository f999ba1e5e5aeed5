/* One WSGI request, from the call of the application to the end of what it returned (PEP 3333).
 *
 * What the application returns is advanced only while the client takes data; above the high-water
 * mark it is parked. Each item is on its way before the next one is asked for (as_exchange_lend).
 */
#include "gateway/wsgi.h"

#include <time.h>

#define SLICE ((uint64_t)1000) /* microseconds for an iterable before others get their turn */
#define FREE_MAX 32 /* requests that are kept for reuse */

static const as_bytes nothing = {"", 0, NULL, NULL, NULL};

/* ---- requests ---- */

static void link_request(as_wsgi_request **list, as_wsgi_request *req) {
    req->next = *list;
    req->link = list;
    if (req->next != NULL) {
        req->next->link = &req->next;
    }
    *list = req;
}

static void unlink_request(as_wsgi_request *req) {
    *req->link = req->next;
    if (req->next != NULL) {
        req->next->link = req->link;
    }
}

/* A callable that nobody else has is kept; one that the application kept is cut off and left to it.
 */
static void retire_callable(PyObject **callable) {
    if (*callable == NULL) {
        return;
    }
    as__wsgi_callable_bind(*callable, NULL);
    if (Py_REFCNT(*callable) > 1) {
        Py_CLEAR(*callable);
    }
}

static void request_free(as_wsgi_request *req) {
    Py_XDECREF(req->start);
    Py_XDECREF(req->write);
    PyMem_Free(req);
}

as_wsgi_request *as__wsgi_begin(as_wsgi *wsgi, as_exchange *ex) {
    as_module_state *state = wsgi->server->state;
    as_wsgi_request *req = wsgi->free;
    if (req != NULL) {
        unlink_request(req);
        wsgi->nfree--;
    } else if ((req = PyMem_Calloc(1, sizeof *req)) == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if ((req->start == NULL && (req->start = as__wsgi_start_new(state)) == NULL) ||
        (req->write == NULL && (req->write = as__wsgi_write_new(state)) == NULL)) {
        request_free(req);
        return NULL;
    }
    as__wsgi_callable_bind(req->start, req);
    as__wsgi_callable_bind(req->write, req);
    req->wsgi = wsgi;
    req->ex = ex;
    req->state = AS_WSGI_BODY;
    req->started = req->from_list = req->is_file = false;
    link_request(&wsgi->live, req);
    ex->gateway = req;
    return req;
}

static void request_retire(as_wsgi_request *req) {
    as_wsgi *wsgi = req->wsgi;
    unlink_request(req);
    retire_callable(&req->start);
    retire_callable(&req->write);
    if (wsgi->nfree >= FREE_MAX) {
        request_free(req);
        return;
    }
    req->ex = NULL;
    wsgi->nfree++;
    link_request(&wsgi->free, req);
}

/* ---- the end ---- */

/* Calls result.close(), which an iterable need not have; -1 with an exception. */
static int call_close(as_wsgi_request *req, PyObject *result) {
    PyObject *close = PyObject_GetAttr(result, req->wsgi->server->state->str.close);
    if (close == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return -1;
        }
        PyErr_Clear(); /* there is none */
        return 0;
    }
    PyObject *returned = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    Py_XDECREF(returned);
    return returned != NULL ? 0 : -1;
}

/* PEP 3333: close() is called once, whatever became of the request. */
static void close_result(as_wsgi_request *req) {
    PyObject *result = req->result;
    if (result == NULL) {
        return;
    }
    req->result = NULL;
    bool is_plain = PyList_CheckExact(result) || PyTuple_CheckExact(result);
    if (!is_plain) {
        (void)as_exchange_lend(req->ex); /* close() may take its time */
        if (call_close(req, result) < 0) {
            as_log_exception(req->wsgi->server, req->ex,
                             "Exception in close() of the WSGI response");
        }
        as_exchange_reclaim(req->ex);
    }
    Py_DECREF(result);
}

/* Lets go of everything. The response is complete, or is cut off by the release. */
void as__wsgi_finish(as_wsgi_request *req) {
    as_exchange *ex = req->ex;
    req->state = AS_WSGI_RUNNING; /* what follows may run Python, which may cut the connection */
    Py_CLEAR(req->iterator);
    close_result(req);
    Py_CLEAR(req->input);
    if (ex->status != 0 && !req->wsgi->threaded) {
        as_access_log_add(req->wsgi->server, ex);
    }
    request_retire(req);
    ex->gateway = NULL;
    as_exchange_release(ex);
}

/* An exception is set: 500 when nothing has left yet, else a broken response. */
void as__wsgi_fail(as_wsgi_request *req) {
    as_server *server = req->wsgi->server;
    if (PyErr_ExceptionMatches(server->state->client_disconnected)) {
        PyErr_Clear(); /* write() told the application that the client left: nobody failed */
    } else {
        as_log_exception(server, req->ex, "Exception in WSGI application");
    }
    as_respond_error(req->ex, 500);
    as__wsgi_finish(req);
}

/* The same for a fault that raised nothing. */
static void fail_with(as_wsgi_request *req, const char *what) {
    as_log_exception(req->wsgi->server, req->ex, what);
    as_respond_error(req->ex, 500);
    as__wsgi_finish(req);
}

/* What the exchange said to body bytes of the iterable. */
static void fail_with_err(as_wsgi_request *req, as_err err) {
    switch (err) {
    case AS_E_CLOSED:
    case AS_E_RESET:
        as__wsgi_finish(req); /* the client left */
        break;
    case AS_E_RESPONSE_STATE:
        fail_with(req, req->started
                           ? "WSGI application went on after start_response() had failed"
                           : "WSGI application did not call start_response() before its response");
        break;
    case AS_E_RESPONSE_SHORT:
        fail_with(req, "WSGI application gave less body than its Content-Length");
        break;
    default:
        as_raise(req->wsgi->server->state, err, "WSGI response");
        as__wsgi_fail(req);
    }
}

as_err as__wsgi_expect_body(const as_server *server, const as_head *head) {
    return head->body == AS_BODY_LENGTH ? as_spools_expect(server->spools, head->content_length)
                                        : AS_OK;
}

/* RFC 4918, 11.5: Insufficient Storage, where it is the disk's fault. Where this cannot be said,
 * for lack of memory, the release cuts. */
void as__wsgi_refuse_body(as_exchange *ex, as_err err) {
    if (err == AS_E_IO) {
        as_respond_error(ex, 507);
    } else {
        (void)as_exchange_refuse(ex, err);
    }
}

/* ---- sending ---- */

as_err as__wsgi_send(as_wsgi_request *req, PyObject *bytes, bool more) {
    if (req->ex->res == AS_RES_START && !req->ex->aborted) {
        return AS_E_RESPONSE_STATE;
    }
    return as_exchange_body(req->ex, as_bytes_from_object(bytes), more);
}

/* True when `n` bytes are more than the Content-Length that the application gave allows. */
static bool is_too_long(const as_exchange *ex, uint64_t n) {
    return !ex->no_body && ex->res >= AS_RES_HEAD && n > ex->body_left;
}

/* The iterable has ended: so does the response. */
static void complete(as_wsgi_request *req) {
    as_exchange *ex = req->ex;
    if (!ex->aborted) {
        as_err err =
            ex->res == AS_RES_START ? AS_E_RESPONSE_STATE : as_exchange_body(ex, nothing, false);
        if (err) {
            fail_with_err(req, err);
            return;
        }
    }
    as__wsgi_finish(req);
}

/* PEP 3333: no more than Content-Length is sent. The client has a whole response then, but as
 * nobody knows what the application meant, the connection ends with it. */
static void complete_cut(as_wsgi_request *req, PyObject *bytes) {
    as_exchange *ex = req->ex;
    as_bytes data = as_bytes_from_object(bytes);
    data.n = (size_t)ex->body_left;
    if (!req->is_file) { /* a file "continues until Content-Length bytes have been written" */
        as_log_exception(req->wsgi->server, ex,
                         "WSGI application gave more body than its Content-Length");
        if (ex->res == AS_RES_HEAD) {
            (void)as_exchange_head_field(ex, AS_SLICE("connection"), AS_SLICE("close"));
        }
        ex->close = true; /* also where the head has left without saying so */
    }
    as_err err = as_exchange_body(ex, data, false);
    if (err) {
        fail_with_err(req, err);
        return;
    }
    as__wsgi_finish(req);
}

/* One item of the iterable; false: the request has ended. */
static bool send_item(as_wsgi_request *req, PyObject *item) {
    as_exchange *ex = req->ex;
    if (!PyBytes_Check(item)) {
        PyErr_Format(PyExc_TypeError, "WSGI response must be an iterable of bytes, got %.100s",
                     Py_TYPE(item)->tp_name);
        as__wsgi_fail(req);
        return false;
    }
    size_t n = (size_t)PyBytes_GET_SIZE(item);
    if (n == 0) {
        return true; /* the head leaves with the first bytes */
    }
    if (is_too_long(ex, n)) {
        complete_cut(req, item);
        return false;
    }
    as_err err = as__wsgi_send(req, item, true);
    if (err) {
        fail_with_err(req, err);
        return false;
    }
    if (ex->no_body) {
        complete(req); /* HEAD, 204, 304: the head was all, and it has left */
        return false;
    }
    return true;
}

/* The next item, or NULL: the end, or an exception. What came before it is on its way while the
 * application makes this one. */
static as_err next_item(as_wsgi_request *req, PyObject **item) {
    if (req->from_list) {
        *item = PyIter_Next(req->iterator);
        return AS_OK;
    }
    as_err err = as_exchange_lend(req->ex);
    if (!err) {
        *item = PyIter_Next(req->iterator);
        as_exchange_reclaim(req->ex);
    }
    return err;
}

/* Advances the iterable until it ends, or the client does not take more for now, or others have
 * waited long enough for the thread. */
void as__wsgi_advance(as_wsgi_request *req) {
    as_exchange *ex = req->ex;
    uint64_t high = req->wsgi->server->limits.limit_write_buffer;
    uint64_t end = as_microseconds() + SLICE;
    req->state = AS_WSGI_RUNNING;
    while (!ex->aborted) {
        bool is_late = as_microseconds() > end;
        if (is_late || as_exchange_pending(ex) > high) {
            if (is_late) {
                as_exchange_yield(ex);
            }
            req->state = AS_WSGI_PARKED;
            return;
        }
        PyObject *item;
        as_err err = next_item(req, &item);
        if (err) {
            fail_with_err(req, err);
            return;
        }
        if (item == NULL) {
            if (PyErr_Occurred()) {
                as__wsgi_fail(req);
            } else {
                complete(req);
            }
            return;
        }
        bool going = send_item(req, item);
        Py_DECREF(item);
        if (!going) {
            return;
        }
    }
    as__wsgi_finish(req); /* cut while Python ran */
}

/* The rest of a file by sendfile; false: nothing was done, the wrapper must be iterated. */
static bool send_file(as_wsgi_request *req) {
    as_exchange *ex = req->ex;
    int fd;
    off_t off;
    uint64_t n;
    if (ex->res < AS_RES_HEAD || ex->res > AS_RES_BODY ||
        !as__file_wrapper_open(&req->wsgi->file_types, req->result, &fd, &off, &n)) {
        return false;
    }
    if (!ex->no_body && ex->body_left != UINT64_MAX) {
        if (n < ex->body_left) {
            close(fd);
            fail_with_err(req, AS_E_RESPONSE_SHORT);
            return true;
        }
        n = ex->body_left;
    }
    as_err err = as_exchange_file(ex, fd, off, n, false);
    if (err) {
        fail_with_err(req, err);
    } else {
        as__wsgi_finish(req);
    }
    return true;
}

/* The usual answer, a list of one bytes object; false: it is something else. */
static bool send_single(as_wsgi_request *req, PyObject *const *items, Py_ssize_t n) {
    as_exchange *ex = req->ex;
    if (n != 1 || ex->res != AS_RES_HEAD || !PyBytes_CheckExact(items[0]) ||
        is_too_long(ex, (uint64_t)PyBytes_GET_SIZE(items[0]))) {
        return false;
    }
    as_err err = as_exchange_body(ex, as_bytes_from_object(items[0]), false);
    if (err) {
        fail_with_err(req, err);
    } else {
        as__wsgi_finish(req);
    }
    return true;
}

/* All items are here: their length in all becomes the Content-Length that is missing. PEP 3333 asks
 * for it where there is one item; with it a client sees a broken response for what it is. */
static void declare_length(as_wsgi_request *req, PyObject *const *items, Py_ssize_t n) {
    as_exchange *ex = req->ex;
    char digits[24];
    uint64_t total = 0;
    if (ex->res != AS_RES_HEAD || ex->body_left != UINT64_MAX || (ex->no_body && n == 0)) {
        return;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!PyBytes_CheckExact(items[i])) {
            return;
        }
        total += (uint64_t)PyBytes_GET_SIZE(items[i]);
    }
    int len = snprintf(digits, sizeof digits, "%llu", (unsigned long long)total);
    /* Where it is refused the response does without: only memory can be the reason. */
    (void)as_exchange_head_field(ex, AS_SLICE("content-length"), (as_slice){digits, (size_t)len});
}

/* The application returned `req->result`. */
static void respond(as_wsgi_request *req) {
    PyObject *result = req->result;
    if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
        PyObject *const *items = PySequence_Fast_ITEMS(result);
        if (send_single(req, items, PySequence_Fast_GET_SIZE(result))) {
            return;
        }
        declare_length(req, items, PySequence_Fast_GET_SIZE(result));
        req->from_list = true;
    } else if (Py_TYPE(result) == req->wsgi->server->state->file_wrapper_type) {
        req->is_file = true;
        if (send_file(req)) {
            return;
        }
    }
    req->iterator = PyObject_GetIter(result);
    if (req->iterator == NULL) {
        as__wsgi_fail(req);
        return;
    }
    as__wsgi_advance(req);
}

/* ---- the call ---- */

void as__wsgi_call(as_wsgi_request *req) {
    as_wsgi *wsgi = req->wsgi;
    req->state = AS_WSGI_RUNNING;
    PyObject *environ = as__environ_new(wsgi->environs, req->ex, req->input);
    Py_CLEAR(req->input);
    if (wsgi->threaded) {
        as_conn_info *info = req->ex->info; /* the request's own copy */
        as__environ_forget_connection(info->via != NULL ? info->via : info);
    }
    if (environ == NULL) {
        as__wsgi_fail(req);
        return;
    }
    PyObject *args[] = {NULL, environ, req->start};
    req->result =
        PyObject_Vectorcall(wsgi->server->app, args + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    Py_DECREF(environ);
    if (req->result == NULL) {
        as__wsgi_fail(req);
    } else if (req->ex->aborted) {
        as__wsgi_finish(req);
    } else {
        respond(req);
    }
}

/* ---- per thread ---- */

as_wsgi *as__wsgi_new(as_server *server) {
    as_wsgi *wsgi = PyMem_Calloc(1, sizeof *wsgi);
    if (wsgi == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    wsgi->server = server;
    wsgi->environs = as__environ_maker_new(server);
    if (wsgi->environs == NULL || as__file_types_init(&wsgi->file_types) < 0) {
        as__wsgi_free(wsgi);
        return NULL;
    }
    return wsgi;
}

void as__wsgi_free(as_wsgi *wsgi) {
    while (wsgi->free != NULL) {
        as_wsgi_request *req = wsgi->free;
        unlink_request(req);
        request_free(req);
    }
    Py_XDECREF(wsgi->status);
    as__environ_maker_free(wsgi->environs);
    as__file_types_fini(&wsgi->file_types);
    PyMem_Free(wsgi);
}

int as__wsgi_traverse(as_wsgi *wsgi, visitproc visit, void *arg) {
    for (as_wsgi_request *req = wsgi->live; req != NULL; req = req->next) {
        Py_VISIT(req->result);
        Py_VISIT(req->iterator);
    }
    return wsgi->environs ? as__environ_maker_traverse(wsgi->environs, visit, arg) : 0;
}

/* ---- the module ---- */

int as_wsgi_add_types(PyObject *module, as_module_state *state) {
    state->input_type = as__input_make_type(module);
    state->file_wrapper_type = as__file_wrapper_make_type(module);
    if (state->input_type == NULL || state->file_wrapper_type == NULL ||
        as__wsgi_add_start_types(module, state) < 0) {
        return -1;
    }
    return as__environ_add_names(state);
}

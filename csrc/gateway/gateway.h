/* What the gateways share: the module's state, the server object's part that they need, and the
 * helpers that turn wire data into Python objects. Every function here needs the GIL. */
#ifndef AS_GATEWAY_GATEWAY_H
#define AS_GATEWAY_GATEWAY_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "base/limits.h"
#include "base/spool.h"
#include "http/exchange.h"
#include "http/names.h"

/* Interned strings that both gateways and the module use: X(identifier) gives
 * state->str.identifier. */
#define AS_STRINGS(X)                                                                                  \
    X(asgi) X(body) X(bytes) X(call_later) X(call_soon) X(cancel) X(client) X(close)               \
    X(code) X(create_future) X(done) X(extensions) X(headers) X(http_version) X(links)     \
    X(method) X(more_body) X(more_trailers) X(path) X(query_string) X(raw_path) X(reason)              \
    X(root_path) X(scheme) X(server) X(set_result) X(state) X(status) X(subprotocol)                   \
    X(subprotocols) X(text) X(throw) X(trailers) X(type)

/* Per-interpreter state of asgiserver._core. No other mutable global exists. */
typedef struct as_module_state {
    struct {
#define X(name) PyObject *name;
        AS_STRINGS(X)
#undef X
    } str;
    PyTypeObject *server_type;
    /* asgi.c, headers.c, awaitable.c, task.c */
    PyTypeObject *headers_type;
    PyTypeObject *request_type, *websocket_type, *receive_type, *send_type;
    PyTypeObject *awaitable_type, *driver_type;
    /* wsgi.c, wsgi_input.c */
    PyTypeObject *tls_context_type; /* tls.c */
    PyObject *tls_error;            /* exception class TLSError(ValueError) */
    PyTypeObject *start_response_type, *write_type, *input_type, *file_wrapper_type;
    /* constants by name id: bytes (ASGI) and "HTTP_…" str (WSGI); [AS_NAME_OTHER] is NULL */
    PyObject *name_bytes[AS_NAME_COUNT];
    PyObject *name_environ[AS_NAME_COUNT];
    /* headers.c: of the fields above, the last (name, value); NULL: none yet */
    PyObject *last_pair[AS_NAME_COUNT];
    bool repeats[AS_NAME_COUNT];
    PyObject *client_disconnected; /* exception class ClientDisconnected(OSError) */
    PyObject *empty_bytes;
    PyObject *context_keyword; /* ("context",) */
} as_module_state;

/* Every object of the state that the module visits and clears: X(field). */
#define AS_MODULE_OBJECTS(X)                                                                           \
    X(server_type) X(headers_type) X(request_type) X(websocket_type) X(receive_type) X(send_type)       \
    X(awaitable_type) X(driver_type) X(start_response_type) X(write_type) X(input_type)            \
    X(file_wrapper_type) X(client_disconnected) X(empty_bytes) X(tls_context_type) X(tls_error)           \
    X(context_keyword)

/* The server object (server.c: type Server). */
typedef struct as_server {
    PyObject_HEAD
    as_module_state *state;   /* borrowed: the type holds the module */
    struct as_loop *loop;     /* the core's loop, NULL when closed */
    PyObject *app;            /* the application */
    PyObject *py_loop;        /* the asyncio loop, NULL under WSGI */
    PyObject *root_path;      /* str */
    PyObject *lifespan_state; /* dict or NULL */
    PyObject *on_error;       /* callable(level: str, message: str, exc: BaseException | None) */
    PyObject *fatal; /* a KeyboardInterrupt/SystemExit raised by the application, to re-raise */
    struct as_request *lost;          /* strong; ASGI: applications that asyncio could not wake */
    struct as_access_log *access_log; /* NULL: off */
    struct as_proxy *proxy;           /* NULL: no proxy is believed */
    struct {
        uint64_t since; /* as_microseconds() of the last change of `used` */
        uint32_t used;  /* lines that were written and not regained since */
        _Atomic uint32_t hidden;
    } refusals;    /* gateway.c: lines about refused requests */
    void *gateway; /* of asgi.c or wsgi.c: its per-server state */
    const struct as_gateway *vtable;
    as_limits limits;
    as_spools *spools; /* WSGI: where bodies are kept */
    bool multiprocess;
    Py_buffer shared; /* balance(): memory of all processes that share the sockets; or no `obj` */
    PyObject *poll_callable;       /* bound method self.poll, cached */
    PyObject *on_drained;          /* callable() or NULL */
    PyObject *on_marked;           /* callable() or NULL */
    PyObject *tick;                /* WSGI: callable() or NULL; while run() runs */
    uint64_t tick_every, tick_due; /* milliseconds */
    bool polling;                  /* as_loop_poll is on the stack */
    bool running;                  /* run() is */
    bool wake_scheduled, stopping;
    PyObject *timer;    /* the asyncio loop's handle for the next timeout; NULL: none */
    uint64_t timer_due; /* as_loop_due, when it was made */
    PyObject *wake_callable, *timer_callable; /* bound methods, cached */
    PyThreadState *thread_state;              /* WSGI inline: while run() waits without the GIL */
    unsigned nthreads;                        /* WSGI: that run the application; 0: inline */
    struct as_threads *threads;               /* threads.h; NULL: inline */
    PyObject *weakrefs;
} as_server;

/* A gateway: made per server. */
typedef struct as_gateway {
    const as_handlers *handlers;     /* ctx is the as_server */
    int (*init)(as_server *server);  /* sets server->gateway; -1 with an exception */
    void (*fini)(as_server *server); /* after the loop is freed */
    int (*traverse)(as_server *server, visitproc visit, void *arg);
} as_gateway;

extern const as_gateway as_asgi_gateway;         /* asgi.c */
extern const as_gateway as_wsgi_gateway;         /* wsgi_inline.c */
extern const as_gateway as_wsgi_threads_gateway; /* wsgi_threads.c */

/* Types of each file; -1 with an exception. Called once from the module's exec slot. */
int as_asgi_add_types(PyObject *module, as_module_state *state);
int as_wsgi_add_types(PyObject *module, as_module_state *state);
/* For the module's traverse/clear are the fields of as_module_state themselves. */

/* Logs through server->on_error with the present exception (cleared) or none. `ex` may be NULL;
 * otherwise the request line and the client are named. Never raises. KeyboardInterrupt and
 * SystemExit are also stored in server->fatal. */
void as_log_exception(as_server *server, const as_exchange *ex, const char *what);
void as_log_message(as_server *server, const char *level, const char *format, ...);

/* The handler on_refused: one warning for a refused request, with who, what was wrong and where. In
 * the long run at most ten a second; the rest is counted. */
void as_log_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                    uint64_t offset);
/* Its two halves: on the loop's thread, whether this one may be; and the line, in Python. */
bool as_may_log_refusal(as_server *server);
void as_log_refusal(as_server *server, const as_conn_info *info, as_err why, as_slice detail,
                    uint64_t offset);
/* Tells how many were not logged, if any. */
void as_log_hidden_refusals(as_server *server);

/* Raises in Python what an exchange call returned: OSError (ClientDisconnected) for CLOSED,
 * MemoryError, RuntimeError otherwise with the table's text and `what` (a message type or a field
 * name). */
void as_raise(as_module_state *state, as_err err, const char *what);

/* Writes one 500 (or cuts the connection when a response is under way) after the application
 * failed. */
void as_respond_error(as_exchange *ex, unsigned status);

/* access_log.c. Neither needs the GIL where lines are written to a descriptor, but as_server_wake
 * under ASGI. */
/* The response is complete: its line waits for as_access_log_flush. */
void as_access_log_add(as_server *server, const as_exchange *ex);
/* Once a turn of the loop. Runs Python where a callable is given the lines. */
void as_access_log_flush(as_server *server);

/* str from bytes of the wire as Latin-1. New reference. */
static inline PyObject *as_latin1(as_slice s) {
    return PyUnicode_DecodeLatin1(s.p, (Py_ssize_t)s.n, NULL);
}
static inline PyObject *as_pybytes(as_slice s) {
    return PyBytes_FromStringAndSize(s.p, (Py_ssize_t)s.n);
}
/* The same as a dict that shares its keys with its copies, as those of the instances of a class do,
 * and has little room for others: for what lives long in many copies. Steals; NULL is passed on. */
PyObject *as_share_keys(PyObject *dict);
/* (str, int) for info's client; None for a Unix socket. New reference. And (server, port) or (path,
 * None). */
PyObject *as_client_tuple(const as_conn_info *info);
PyObject *as_server_tuple(const as_conn_info *info);

/* Makes sure that the loop is polled soon; nothing to do while it is being polled. */
void as_server_wake(as_server *server);

/* as_bytes that refer to a Python bytes object, or are somewhere in `owner`, a bytes or str; held
 * by reference, but copied from an object of a class derived from these: the end of that may run
 * Python, and to write to a client must not. */
as_bytes as_bytes_from_object(PyObject *bytes);
as_bytes as_bytes_within(PyObject *owner, const char *p, size_t n);

#endif

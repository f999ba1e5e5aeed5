/* What the files of the ASGI gateway share: the request object and the calls between them.
 *
 *   asgi.c        handlers: from exchange events to the application and back; HTTP
 *   asgi_scope.c  the scope of a request
 *   asgi_send.c   send(): from messages to the exchange; those of HTTP
 *   websocket.c   WebSocket: from frames to messages, and the closing handshake
 *   ws_send.c     the messages that an application sends to one
 *   headers.c     scope["headers"], made when read
 *   awaitable.c   what receive() and send() return
 *   task.c        parked tasks: a real, current asyncio.Task for every request
 *
 * A request object is held by the exchange while the application runs, and by `receive` and `send`
 * as long as the application keeps those. `ex` is NULL once the gateway let the exchange go. */
#ifndef AS_GATEWAY_ASGI_H
#define AS_GATEWAY_ASGI_H

#include "gateway/gateway.h"

typedef enum as_send_state {
    AS_SEND_START,
    AS_SEND_BODY,
    AS_SEND_TRAILERS,
    AS_SEND_OPEN, /* a WebSocket that was accepted */
    AS_SEND_DONE
} as_send_state;

typedef struct as_awaitable as_awaitable;
typedef struct as_request_kind as_request_kind;

typedef struct as_request {
    PyObject_HEAD
    as_server *server; /* strong */
    const as_request_kind *kind;
    as_exchange *ex;   /* NULL: released */
    PyObject *driver;  /* strong, while the application is suspended: keeps its task alive */
    PyObject *headers; /* strong; the lazy sequence, settled when on_request returns */
    as_awaitable *receivers, *senders; /* waiting ones; borrowed, they unlink themselves */
    uint8_t send_state;
    bool gone;      /* aborted: the client left, or a limit bit */
    bool eof;       /* the client closed its side behind the request */
    bool leaving;   /* one of both, and timeout_cancel runs */
    bool overdue;   /* … and is over: the application was cancelled */
    bool driving;   /* its task is on the stack */
    bool lost;      /* among as_server.lost, or was */
    bool unflushed; /* leaves at the end of that task's step: as_exchange_flush is due */
    struct as_request *lost_next;
} as_request;

/* One row for each message that an application may send. */
typedef struct as_message_row {
    const char *type;
    int (*send)(as_request *req, PyObject *message, const char *type); /* 0, or an exception */
    uint8_t states; /* in which it is allowed: bits by as_send_state */
} as_message_row;

/* What HTTP and WebSocket do each in its own way. */
struct as_request_kind {
    const as_message_row *messages; /* a row without a type is the last */
    const char *const *expected;    /* by send_state, for what is said of a message out of place */
    const char *done;               /* the same where nothing is expected any more */
    /* The next message for receive(), NULL without an exception when there is none yet. */
    PyObject *(*next_message)(as_request *req);
    /* The application failed, or returned too early: answers instead, and logs the latter. Not
     * called for a client that has left. */
    void (*failed)(as_request *req);
    void (*stopped_short)(as_request *req);
    /* The last call about the application: lets the exchange go, now or later. */
    void (*let_go)(as_request *req);
    /* The exchange is released: what hung on it goes. NULL: nothing did. */
    void (*forget)(as_request *req);
    /* As in as_handlers. */
    void (*on_body)(as_request *req, as_slice data);
    void (*on_end)(as_request *req); /* NULL: no request of the kind has a body */
    void (*on_eof)(as_request *req);
    void (*on_shutdown)(as_request *req);
    void (*on_abort)(as_request *req);
    void (*on_drain)(as_request *req);
    void (*on_alarm)(as_request *req);
};

/* asgi_scope.c */
struct as_scope_cache;
struct as_scope_cache *as_scope_cache_new(as_server *server); /* NULL with an exception */
void as_scope_cache_free(struct as_scope_cache *cache);
int as_scope_cache_traverse(struct as_scope_cache *cache, visitproc visit, void *arg);
/* A new scope for `req`; also sets req->headers. The second is WebSocket's. */
PyObject *as_scope_new(struct as_scope_cache *cache, as_request *req);
PyObject *as_scope_new_websocket(struct as_scope_cache *cache, as_request *req);
/* on_request is about to return, and the scope is the application's alone: keeps a copy of the head
 * if somebody may still read its fields, and lets go of req->headers. -1 with an exception. `cache`
 * is NULL once the server is closed. */
int as_scope_settle(struct as_scope_cache *cache, as_request *req, as_head *head);
/* What is kept with a connection for its next scope goes: there will be none. */
void as_scope_forget_connection(as_conn_info *info);

/* headers.c */
PyObject *as_headers_new(as_module_state *state, as_head *head);
/* The same object once more, for another request: it was settled, and nobody else holds it. */
void as_headers_lend(PyObject *headers, as_head *head);
/* The bytes of `*head` are about to go: keeps a copy if there are more references to `headers` than
 * those that are `ours`, and then moves `*head` to it, which lives as long as they do; else empties
 * `headers`. -1 with an exception. */
int as_headers_settle(PyObject *headers, as_head **head, Py_ssize_t ours);

/* asgi_send.c: acts on one message; 0, or -1 with an exception. */
int as_request_send(as_request *req, PyObject *message);
/* The two messages of a response, whatever their types are called. */
int as_send_start(as_request *req, PyObject *message, const char *type);
int as_send_body(as_request *req, PyObject *message, const char *type);
/* Calls `write` for each pair of message["headers"]. It may run any Python: req->ex can be gone
 * afterwards. */
typedef as_err (*as_field_writer)(as_exchange *ex, as_slice name, as_slice value);
int as_send_headers(as_request *req, PyObject *message, as_field_writer write, const char *type);
extern const as_message_row as_http_messages[];
extern const char *const as_http_expected[];

/* websocket.c */
struct as_websockets;
struct as_websockets *as_websockets_new(as_server *server); /* NULL with an exception */
void as_websockets_free(struct as_websockets *websockets);
struct as_websockets *as_asgi_websockets(as_server *server); /* asgi.c; NULL once it is closed */
int as_websocket_add_type(PyObject *module, as_module_state *state);
/* A request object for an exchange that asks for WebSocket. NULL: the exchange was refused and
 * released, or with an exception. */
as_request *as_websocket_new(as_server *server, as_exchange *ex);

/* asgi.c */
/* A new object of a type that begins with an as_request: all zero behind that. NULL with an
 * exception. */
as_request *as_request_new(PyTypeObject *type, as_server *server, const as_request_kind *kind,
                           as_exchange *ex);
/* For the types that begin with an as_request. */
int as_request_traverse(PyObject *op, visitproc visit, void *arg);
int as_request_clear(PyObject *op);
void as_request_fini(as_request *req);
extern PyMethodDef as_request_methods[];
/* The response is complete: to be called once when the exchange says so. */
void as_request_completed(as_request *req);
/* receive() says so from now on; timeout_cancel later, where it is set, the application ends. */
void as_request_client_leaves(as_request *req);
/* A 500, and its line in the access log; what has begun is cut. */
void as_request_respond_error(as_request *req);
/* What the step wrote leaves, if it waits for that. */
static inline void as_request_flush(as_request *req) {
    if (req->unflushed) {
        req->unflushed = false;
        if (req->ex != NULL) {
            (void)as_exchange_flush(req->ex); /* a connection that broke is told by on_abort */
        }
    }
}
/* True when send() may go on. */
bool as_request_writable(as_request *req);
/* The application returned, or raised (an exception is set, and cleared here); lets the exchange
 * go. */
void as_request_finished(as_request *req);
/* The application will never end: lets the exchange go without a word. */
void as_request_abandon(as_request *req);

/* awaitable.c */
PyObject *as_receive_awaitable(as_request *req);
PyObject *as_send_awaitable(as_request *req, PyObject *message);
/* Memory of awaitables that ended, for the next ones. */
#define AS_SPARE_AWAITABLES 8
typedef struct as_spare_awaitables {
    PyObject *objects[AS_SPARE_AWAITABLES]; /* no objects any more: without references */
    int n;
} as_spare_awaitables;
as_spare_awaitables *as_asgi_spare_awaitables(const as_server *server); /* asgi.c; NULL: closed */
void as_spare_awaitables_free(as_spare_awaitables *spare);
/* Wakes all that wait in the list; does not run them. */
void as_awaitables_wake(as_awaitable *first);
/* Raises as the arguments of a coroutine's throw() say; always NULL. */
PyObject *as_raise_thrown(PyObject *const *args, Py_ssize_t n);

/* task.c */
struct as_tasks;
struct as_tasks *as_asgi_tasks(as_server *server); /* asgi.c; NULL once the server is closed */
struct as_tasks *as_tasks_new(as_server *server);  /* NULL with an exception */
/* The idle tasks go. */
void as_tasks_free(struct as_tasks *tasks);
int as_tasks_traverse(struct as_tasks *tasks, visitproc visit, void *arg);
/* Calls the application in a fresh context inside a task and takes its first step. `args` is scope,
 * receive, send, with a free place before them. as_request_finished is called when the application
 * ends, now or later. */
void as_tasks_run(struct as_tasks *tasks, as_request *req, PyObject **args);
/* Cancels the task of an application that is suspended; -1 with an exception. */
int as_task_cancel(const as_request *req);
/* What the application waits for could not be told to it, and will not come again: the request ends
 * with the next poll, by as_tasks_end_lost. */
void as_task_lost(as_request *req);
void as_tasks_end_lost(as_server *server);

/* Types. */
int as_headers_add_type(PyObject *module, as_module_state *state);
int as_awaitable_add_type(PyObject *module, as_module_state *state);
int as_task_add_type(PyObject *module, as_module_state *state);

static inline as_module_state *as_state_of(PyObject *self) {
    return (as_module_state *)PyType_GetModuleState(Py_TYPE(self));
}

#endif

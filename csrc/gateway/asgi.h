/* What the files of the ASGI gateway share: the request object and the calls between them.
 *
 *   asgi.c        handlers: from exchange events to the application and back
 *   asgi_scope.c  the scope of a request
 *   asgi_send.c   send(): from messages to the exchange
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
    AS_SEND_DONE
} as_send_state;

typedef struct as_awaitable as_awaitable;

typedef struct as_request {
    PyObject_HEAD
    as_server *server; /* strong */
    as_exchange *ex;   /* NULL: released */
    PyObject *driver;  /* strong, while the application is suspended: keeps its task alive */
    PyObject *headers; /* strong; the lazy sequence, settled when on_request returns */
    PyObject *chunk;   /* bytes: body that came first and is not received yet */
    as_buf queued;     /* body behind `chunk` */
    as_awaitable *receivers, *senders; /* waiting ones; borrowed, they unlink themselves */
    uint8_t send_state;
    bool body_done;     /* the client has sent all of the body */
    bool body_received; /* … and the application has taken all of it */
    bool gone;          /* aborted: the client left, or a limit bit */
    bool eof;           /* the client closed its side behind the request */
    bool leaving;       /* one of both, and timeout_cancel runs */
    bool overdue;       /* … and is over: the application was cancelled */
} as_request;

/* asgi_scope.c */
struct as_scope_cache;
struct as_scope_cache *as_scope_cache_new(as_server *server); /* NULL with an exception */
void as_scope_cache_free(struct as_scope_cache *cache);
int as_scope_cache_traverse(struct as_scope_cache *cache, visitproc visit, void *arg);
/* A new scope for `req`; also sets req->headers. */
PyObject *as_scope_new(struct as_scope_cache *cache, as_request *req);
/* Per connection: the client and server tuples. */
void as_scope_connection_closed(as_conn_info *info);

/* headers.c */
PyObject *as_headers_new(as_module_state *state, as_head *head);
/* The head's bytes are about to go: keeps a copy if somebody else holds `headers`. */
int as_headers_settle(PyObject *headers, as_head *head);

/* asgi_send.c: acts on one message; 0, or -1 with an exception. */
int as_request_send(as_request *req, PyObject *message);
/* The response is complete: to be called once when the exchange says so. */
void as_request_completed(as_request *req);

/* asgi.c */
/* The next message for receive(), NULL without an exception when there is none yet. */
PyObject *as_request_next_message(as_request *req);
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

/* Types. */
int as_headers_add_type(PyObject *module, as_module_state *state);
int as_awaitable_add_type(PyObject *module, as_module_state *state);
int as_task_add_type(PyObject *module, as_module_state *state);

static inline as_module_state *as_state_of(PyObject *self) {
    return (as_module_state *)PyType_GetModuleState(Py_TYPE(self));
}

#endif

/* What the files of the WSGI gateway share: the request, and the calls between them.
 *
 *   wsgi.c          the call of the application, iteration over what it returned
 *   wsgi_inline.c   handlers: the application is called on the loop's thread
 *   wsgi_threads.c  handlers: it is called on threads of its own, through a bridge (net/bridge.h)
 *   wsgi_start.c    start_response() and write()
 *   wsgi_environ.c  the environ
 *   wsgi_input.c    wsgi.input
 *   wsgi_file.c     wsgi.file_wrapper
 *
 * LIFE OF A REQUEST
 *   BODY      the body is gathered; the application has not been called
 *   RUNNING   Python runs for it: the application, its iterable, or the iterable's close()
 *   PARKED    the iterable waits until the client has taken what was sent
 * on_abort ends a request at once in BODY and PARKED. While RUNNING (an application that cuts all
 * connections by itself) it only leaves ex->aborted, which is looked at behind every call of
 * Python.
 *
 * The exchange owns the request from on_request until it is released. What the application may keep
 * (start_response, write) points to the request without owning it, and is cut off when it ends. */
#ifndef AS_GATEWAY_WSGI_H
#define AS_GATEWAY_WSGI_H

#include "gateway/gateway.h"
#include "gateway/wsgi_environ.h"
#include "gateway/wsgi_file.h"
#include "gateway/wsgi_input.h"

typedef struct as_wsgi as_wsgi;

typedef enum as_wsgi_state { AS_WSGI_BODY, AS_WSGI_RUNNING, AS_WSGI_PARKED } as_wsgi_state;

typedef struct as_wsgi_request {
    as_wsgi *wsgi; /* of the server, outlives the request */
    as_exchange *ex;
    PyObject *start;  /* the start_response of this request, strong */
    PyObject *write;  /* what it returns, strong */
    PyObject *input;  /* strong, only in BODY */
    PyObject *result; /* what the application returned, strong; close() is owed while it is here */
    PyObject *iterator;                   /* over it, strong */
    struct as_wsgi_request *next, **link; /* list of live requests, or of free ones */
    uint8_t state;                        /* as_wsgi_state */
    bool started;                         /* start_response was called, be it in vain */
    bool from_list; /* all of the iterable is here already: nothing waits for the application */
    bool is_file;   /* a file wrapper: it ends with Content-Length */
} as_wsgi_request;

/* What one thread that calls the application has: inline server->gateway, else one for each thread
 * of the pool. */
struct as_wsgi {
    as_server *server;
    as_environ_maker *environs;
    as_file_types file_types;
    as_wsgi_request *live, *free;
    unsigned nfree;
    PyObject *status;       /* the last one that was given, strong, or NULL … */
    as_slice status_reason; /* … within it */
    unsigned status_code;
    unsigned long thread;         /* that calls the application; 0: not known yet */
    bool threaded;                /* it is not the loop's: its exchanges are remote */
    struct as_wsgi *next, **link; /* threaded: the others */
};

/* wsgi_start.c */
int as__wsgi_add_start_types(PyObject *module, as_module_state *state);
/* New callables for a request, cut off at first. */
PyObject *as__wsgi_start_new(as_module_state *state);
PyObject *as__wsgi_write_new(as_module_state *state);
/* Points a callable to the request, NULL: cuts it off. */
void as__wsgi_callable_bind(PyObject *callable, as_wsgi_request *req);

/* wsgi.c */
as_wsgi *as__wsgi_new(as_server *server); /* NULL with an exception */
void as__wsgi_free(as_wsgi *wsgi);
int as__wsgi_traverse(as_wsgi *wsgi, visitproc visit, void *arg);
/* A request in BODY; NULL with an exception. */
as_wsgi_request *as__wsgi_begin(as_wsgi *wsgi, as_exchange *ex);
/* Calls the application with req->input. When it returns, the request is over, or parked and to be
 * advanced when the client has taken something. All of these run Python. */
void as__wsgi_call(as_wsgi_request *req);
void as__wsgi_advance(as_wsgi_request *req);
/* Ends it: with what was sent, or with the present exception. */
void as__wsgi_finish(as_wsgi_request *req);
void as__wsgi_fail(as_wsgi_request *req);
/* A body of a known length that has no room is refused before it is read: as_spools_expect. */
as_err as__wsgi_expect_body(const as_server *server, const as_head *head);
/* Answers to a body that cannot be kept. */
void as__wsgi_refuse_body(as_exchange *ex, as_err err);
/* Gives body bytes to the exchange as they are. AS_E_RESPONSE_STATE before start_response. */
as_err as__wsgi_send(as_wsgi_request *req, PyObject *bytes, bool more);

/* wsgi_threads.c: waits, without the GIL, until the client has taken enough. AS_E_CLOSED: it left.
 */
as_err as__wsgi_wait(as_wsgi_request *req);

#endif

/* The WSGI gateway without threads: one application, called inline on the loop's thread.
 *
 * A request's body is gathered in full before the application is called: waiting for a slow client
 * inside of wsgi.input would hold the only thread. For the same reason "100 Continue" is sent as
 * soon as a body is announced, which PEP 3333 ("HTTP 1.1 Expect/Continue", 1) allows. */
#include <errno.h>

#include "gateway/wsgi.h"

/* ---- the body ---- */

/* The body cannot be kept. A client that sends it again and again does not fill the log. */
static void refuse_body(as_wsgi_request *req, as_err err) {
    as_server *server = req->wsgi->server;
    const char *where = err == AS_E_IO ? " in a temporary file" : "";
    const char *why = err == AS_E_IO ? strerror(errno) : as_err_text(err);
    if (err == AS_E_SPOOL_LARGE) {
        as_log_refused(server, req->ex->info, err, AS_SLICE(""), 0);
    } else if (err != AS_E_SPOOL_FULL && as_may_log_refusal(server)) { /* the loop tells of that */
        as_log_message(server, "error", "Cannot keep a request body%s: %s", where, why);
    }
    as__wsgi_refuse_body(req->ex, err);
    as__wsgi_finish(req);
}

/* All of the body is here. */
static void body_complete(as_wsgi_request *req) {
    as_err err = as__input_seal(req->input);
    if (err) {
        refuse_body(req, err);
    } else {
        as__wsgi_call(req);
    }
}

static bool start_body(as_wsgi_request *req, as_slice body) {
    as_server *server = req->wsgi->server;
    const as_head *head = req->ex->head;
    uint64_t expected = head->body == AS_BODY_LENGTH ? head->content_length : body.n;
    req->input = as__input_new(server->state, expected, server->spools);
    if (req->input == NULL) {
        as__wsgi_fail(req);
        return false;
    }
    as_err err = as__wsgi_expect_body(server, head);
    err = err != AS_OK ? err : as__input_append(req->input, body);
    if (err) {
        refuse_body(req, err);
        return false;
    }
    return true;
}

/* ---- handlers: ctx is the server ---- */

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    as_server *server = ctx;
    as_wsgi *wsgi = server->gateway;
    if (server->fatal != NULL) {
        as_respond_error(ex,
                         503); /* KeyboardInterrupt or SystemExit: the server is on its way out */
        as_exchange_release(ex);
        return;
    }
    wsgi->thread = PyThread_get_thread_ident();
    as_wsgi_request *req = as__wsgi_begin(wsgi, ex);
    if (req == NULL) {
        as_log_exception(server, ex, "Cannot handle a request");
        as_respond_error(ex, 503);
        as_exchange_release(ex);
        return;
    }
    bool is_complete = ex->req == AS_REQ_DONE;
    if (is_complete && body.n == 0) {
        as__wsgi_call(req);
    } else if (start_body(req, body)) {
        if (is_complete) {
            body_complete(req);
        } else {
            as_exchange_want_body(ex);
        }
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    (void)ctx;
    as_wsgi_request *req = ex->gateway;
    if (req == NULL || req->state != AS_WSGI_BODY) {
        return;
    }
    as_err err = as__input_append(req->input, data);
    if (err) {
        refuse_body(req, err);
    }
}

static void on_end(void *ctx, as_exchange *ex) {
    (void)ctx;
    as_wsgi_request *req = ex->gateway;
    if (req != NULL && req->state == AS_WSGI_BODY) {
        body_complete(req);
    }
}

/* A client that closed its side of a whole request may still wait for the answer. */
static void on_eof(void *ctx, as_exchange *ex) {
    (void)ctx;
    (void)ex;
}

static void on_abort(void *ctx, as_exchange *ex, as_err why) {
    (void)ctx;
    (void)why;
    as_wsgi_request *req = ex->gateway;
    if (req != NULL && req->state != AS_WSGI_RUNNING) {
        as__wsgi_finish(req);
    }
}

static void on_drain(void *ctx, as_exchange *ex) {
    (void)ctx;
    as_wsgi_request *req = ex->gateway;
    if (req != NULL && req->state == AS_WSGI_PARKED) {
        as__wsgi_advance(req);
    }
}

static void on_close(void *ctx, as_conn_info *info) {
    (void)ctx;
    as__environ_forget_connection(info);
}

/* ---- the gateway ---- */

static void wsgi_fini(as_server *server) {
    as__wsgi_free(server->gateway);
    server->gateway = NULL;
}

static int wsgi_init(as_server *server) {
    server->gateway = as__wsgi_new(server);
    return server->gateway != NULL ? 0 : -1;
}

static int wsgi_traverse(as_server *server, visitproc visit, void *arg) {
    return as__wsgi_traverse(server->gateway, visit, arg);
}

static const as_handlers wsgi_handlers = {
    .on_request = on_request,
    .on_body = on_body,
    .on_end = on_end,
    .on_eof = on_eof,
    .on_abort = on_abort,
    .on_drain = on_drain,
    .on_close = on_close,
    .on_refused = as_log_refused,
};

const as_gateway as_wsgi_gateway = {
    .handlers = &wsgi_handlers,
    .init = wsgi_init,
    .fini = wsgi_fini,
    .traverse = wsgi_traverse,
};

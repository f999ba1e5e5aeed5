/* The WSGI gateway with threads. Two sides, that meet in net/bridge.h:
 *
 *   the loop's thread   the handlers: gathers bodies, queues requests; never takes the GIL
 *   the pool            _work(): takes requests and answers them by the code of wsgi.c
 *
 * A request's body is gathered in full before a thread gets it: a slow upload occupies none. */
#include <errno.h>
#include <time.h>

#include "gateway/threads.h"
#include "gateway/wsgi.h"

#define TURN ((uint64_t)5000) /* microseconds; sys.getswitchinterval() as it usually is */

/* --- the loop's thread: handlers, ctx is the server ------------------------------------------- */

static void log_refused_body(as_server *server, as_err err) {
    char text[160];
    (void)snprintf(text, sizeof(text), "Cannot keep a request body%s: %s",
                   err == AS_E_IO ? " in a temporary file" : "",
                   err == AS_E_IO ? strerror(errno) : as_err_text(err));
    as_threads_tell(server->threads, AS_NEWS_ERROR, text);
}

/* The body cannot be kept. A client that sends it again and again does not fill the log. */
static void refuse_body(as_server *server, as_remote *remote, as_err err) {
    as_exchange *ex = remote->real;
    bool may = err != AS_E_SPOOL_FULL && as_may_log_refusal(server); /* the loop tells of that */
    if (may && err == AS_E_SPOOL_LARGE) {
        as_threads_tell_refused(server->threads, ex->info, err, AS_SLICE(""), 0);
    } else if (may) {
        log_refused_body(server, err);
    }
    as__wsgi_refuse_body(ex, err);
    as_access_log_add(server, ex);
    as_remote_drop(remote);
}

static void on_request(void *ctx, as_exchange *ex, as_slice body) {
    as_server *server = ctx;
    as_bridge *bridge = server->threads->bridge;
    as_remote *remote = NULL;
    if (!as_bridge_dismissed(bridge)) { /* else the server is on its way out */
        remote = as_remote_new(bridge, ex, server->spools);
    }
    if (remote == NULL) {
        as_respond_error(ex, 503);
        as_access_log_add(server, ex);
        as_exchange_release(ex);
        return;
    }
    as_err err = as__wsgi_expect_body(server, ex->head);
    err = err != AS_OK ? err : as_spool_append(&remote->body, body);
    if (err != AS_OK) {
        refuse_body(server, remote, err);
    } else if (ex->req == AS_REQ_DONE) {
        as_remote_queue(remote);
    } else {
        as_exchange_want_body(ex);
    }
}

static void on_body(void *ctx, as_exchange *ex, as_slice data) {
    as_remote *remote = ex->gateway;
    as_err err = remote != NULL ? as_spool_append(&remote->body, data) : AS_OK;
    if (err != AS_OK) {
        refuse_body(ctx, remote, err);
    }
}

static void on_end(void *ctx, as_exchange *ex) {
    (void)ctx;
    if (ex->gateway != NULL) {
        as_remote_queue(ex->gateway);
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
    if (ex->gateway != NULL) {
        as_remote_abort(ex->gateway);
    }
}

static void on_drain(void *ctx, as_exchange *ex) {
    (void)ctx;
    if (ex->gateway != NULL) {
        as_remote_drained(ex->gateway);
    }
}

static void on_refused(void *ctx, const as_conn_info *info, as_err why, as_slice detail,
                       uint64_t offset) {
    as_server *server = ctx;
    if (as_may_log_refusal(server)) {
        as_threads_tell_refused(server->threads, info, why, detail, offset);
    }
}

/* --- the pool: one request -------------------------------------------------------------------- */

as_err as__wsgi_wait(as_wsgi_request *req) {
    as_remote *remote = req->ex->proto;
    if (!as_remote_is_ready(remote)) {
        Py_BEGIN_ALLOW_THREADS;
        as_remote_wait(remote);
        Py_END_ALLOW_THREADS;
    }
    return as_exchange_flush(req->ex);
}

static as_wsgi_request *begin(as_wsgi *wsgi, as_remote *remote) {
    as_wsgi_request *req = as__wsgi_begin(wsgi, &remote->ex);
    if (req != NULL && remote->body.size > 0) {
        req->input = as__input_from_spool(wsgi->server->state, &remote->body);
        if (req->input == NULL) {
            as__wsgi_fail(req);
            return NULL;
        }
    } else if (req == NULL) {
        as_log_exception(wsgi->server, &remote->ex, "Cannot handle a request");
        as_respond_error(&remote->ex, 503);
        as_exchange_release(&remote->ex);
    }
    return req;
}

/* At the end the remote is the loop's again. */
static void answer(as_wsgi *wsgi, as_remote *remote) {
    as_wsgi_request *req = begin(wsgi, remote);
    if (req == NULL) {
        return;
    }
    as__wsgi_call(req);
    while (wsgi->live != NULL) { /* it is parked */
        if (as__wsgi_wait(req) == AS_OK) {
            as__wsgi_advance(req);
        } else {
            as__wsgi_finish(req);
        }
    }
}

/* --- the pool: a thread ----------------------------------------------------------------------- */

/* The interpreter lets others run while it runs Python code. An application that is none of it (a
 * compiled one) would keep the GIL as long as there are requests. */
static void give_turn(uint64_t *since) {
    uint64_t now = as_microseconds();
    if (now - *since > TURN) {
        Py_BEGIN_ALLOW_THREADS;
        Py_END_ALLOW_THREADS;
        *since = now;
    }
}

/* From one request to the next without letting go of the GIL, as long as there are any. */
static void answer_all(as_threads *threads, as_wsgi *wsgi, as_hand *hand) {
    as_bridge *bridge = threads->bridge;
    uint64_t since = as_microseconds();
    bool going = true;
    while (going) {
        as_remote *remote = as_bridge_take(bridge, hand);
        as_bridge_collect(bridge);
        if (remote == NULL) {
            Py_BEGIN_ALLOW_THREADS;
            going = as_bridge_wait(bridge, hand);
            Py_END_ALLOW_THREADS;
            since = as_microseconds();
            continue;
        }
        answer(wsgi, remote);
        if (threads->server->fatal != NULL) { /* run() raises it */
            as_bridge_dismiss(bridge);
            as_threads_poke(threads);
        }
        give_turn(&since);
    }
}

static void link_worker(as_threads *threads, as_wsgi *wsgi) {
    wsgi->next = threads->workers;
    wsgi->link = &threads->workers;
    if (wsgi->next != NULL) {
        wsgi->next->link = &wsgi->next;
    }
    threads->workers = wsgi;
}

static void unlink_worker(as_wsgi *wsgi) {
    *wsgi->link = wsgi->next;
    if (wsgi->next != NULL) {
        wsgi->next->link = wsgi->link;
    }
}

static int work(as_threads *threads) {
    as_hand hand;
    as_wsgi *wsgi = as__wsgi_new(threads->server);
    if (wsgi == NULL) {
        return -1;
    }
    if (as_hand_init(&hand) != AS_OK) {
        as__wsgi_free(wsgi);
        PyErr_NoMemory();
        return -1;
    }
    wsgi->threaded = true;
    wsgi->thread = PyThread_get_thread_ident();
    link_worker(threads, wsgi);
    answer_all(threads, wsgi, &hand);
    unlink_worker(wsgi);
    as_hand_fini(&hand);
    as__wsgi_free(wsgi);
    return 0;
}

PyObject *as_threads_work(as_threads *threads) {
    threads->working++;
    int result = work(threads);
    threads->working--;
    as_threads_poke(threads);
    return result == 0 ? Py_NewRef(Py_None) : NULL;
}

/* --- the gateway ------------------------------------------------------------------------------ */

static int threads_init(as_server *server) {
    server->threads = as_threads_new(server);
    server->gateway = server->threads;
    return server->threads != NULL ? 0 : -1;
}

static void threads_fini(as_server *server) {
    as_threads_close(server->threads);
    server->gateway = NULL;
}

static int threads_traverse(as_server *server, visitproc visit, void *arg) {
    Py_VISIT(server->threads->objects);
    for (as_wsgi *wsgi = server->threads->workers; wsgi != NULL; wsgi = wsgi->next) {
        int result = as__wsgi_traverse(wsgi, visit, arg);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

static const as_handlers threads_handlers = {
    .on_request = on_request,
    .on_body = on_body,
    .on_end = on_end,
    .on_eof = on_eof,
    .on_abort = on_abort,
    .on_drain = on_drain,
    .on_refused = on_refused,
};

const as_gateway as_wsgi_threads_gateway = {
    .handlers = &threads_handlers,
    .init = threads_init,
    .fini = threads_fini,
    .traverse = threads_traverse,
};

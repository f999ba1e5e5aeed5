/* The environ of a WSGI request (PEP 3333, "environ Variables"; RFC 3875, section 4.1).
 *
 * Each environ is a real dict: a copy of a template that holds what never changes, then the fields
 * of the request. The values that requests keep repeating (Host, User-Agent, targets, the names of
 * methods) are made once and shared.
 *
 *   REQUEST_METHOD, SCRIPT_NAME, PATH_INFO, QUERY_STRING, REQUEST_URI, RAW_URI, SERVER_NAME,
 *   SERVER_PORT, SERVER_PROTOCOL, SERVER_SOFTWARE, REMOTE_ADDR, REMOTE_PORT, HTTPS, CONTENT_TYPE,
 *   CONTENT_LENGTH, HTTP_*, wsgi.version, wsgi.url_scheme, wsgi.input, wsgi.errors,
 * wsgi.multithread, wsgi.multiprocess, wsgi.run_once, wsgi.file_wrapper, wsgi.input_terminated
 *
 * What a trusted proxy tells (http/forwarded.h) is in REMOTE_ADDR, REMOTE_PORT, SERVER_NAME,
 * SERVER_PORT, SCRIPT_NAME, wsgi.url_scheme and HTTPS; REMOTE_PORT is absent if it tells none.
 *
 * REQUEST_URI and RAW_URI are the target as it was received; REMOTE_PORT is absent and REMOTE_ADDR
 * empty for a Unix socket; HTTPS is "on" under TLS and absent without. */
#ifndef AS_GATEWAY_WSGI_ENVIRON_H
#define AS_GATEWAY_WSGI_ENVIRON_H

#include "gateway/gateway.h"

typedef struct as_environ_maker as_environ_maker;

/* Makes of state->name_environ ("HTTP_" names by name id) the keys of an environ: CONTENT_TYPE
 * loses its prefix, and what must not get in by itself becomes NULL. -1 with an exception. */
int as__environ_add_names(as_module_state *state);

/* One per server; NULL with an exception. */
as_environ_maker *as__environ_maker_new(as_server *server);
void as__environ_maker_free(as_environ_maker *maker);
int as__environ_maker_traverse(as_environ_maker *maker, visitproc visit, void *arg);

/* A new environ. `input`: the body, NULL for a request without one. Runs no Python code of others.
 */
PyObject *as__environ_new(as_environ_maker *maker, const as_exchange *ex, PyObject *input);

/* The connection is gone: drops what as__environ_new kept in info->gateway. */
void as__environ_forget_connection(as_conn_info *info);

#endif

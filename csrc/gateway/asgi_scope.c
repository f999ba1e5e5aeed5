/* The scope of a request (ASGI HTTP and WebSocket 2.5): a copy of a template, then the fields that
 * change.
 *
 * What repeats is kept: the strings of a connection with the connection, targets in a small table.
 */
#include "gateway/asgi.h"
#include "http/target.h"
#include "http/ws_handshake.h"
#include "net/tls.h"

#define TARGETS 64          /* rows, a power of two */
#define TARGET_MAX 128      /* bytes; longer targets are not kept */
#define SERVERS 8           /* addresses, a power of two */

/* The first works over HTTP/1.0 as well; the others need its chunked coding, or interim responses.
 */
static const char *const extension_names[] = {
    "http.response.pathsend",
    "http.response.trailers",
    "http.response.early_hint",
};
#define EXTENSIONS (sizeof(extension_names) / sizeof(*extension_names))

/* A target seen before. `hits` decides nothing: a newer target of the same row replaces an older
 * one. */
typedef struct cached_target {
    PyObject *target;   /* bytes as received; NULL: empty row */
    PyObject *path;     /* str */
    PyObject *raw_path; /* bytes */
    PyObject *query;    /* bytes */
} cached_target;

typedef struct as_scope_cache {
    as_server *server; /* borrowed: the server owns this */
    PyObject *template, *ws_template;
    PyObject *denial;                 /* the dict of a WebSocket's extensions, but for its value */
    PyObject *extensions[EXTENSIONS]; /* str */
    PyObject *asgi;                   /* the versions */
    PyObject *tls;                    /* str: the extension's name */
    PyObject *version_1_0, *https, *wss;
    PyObject *method[64]; /* str by llhttp's number */
    PyObject *root_bytes; /* root_path as bytes */
    cached_target targets[TARGETS];
    PyObject *servers[SERVERS]; /* (address, port), as seen lately */
} as_scope_cache;

/* Kept with a connection in info->gateway: made with its first request. */
typedef struct endpoints {
    PyObject *client, *server;
    PyObject *tls; /* dict of the extension; NULL: plain */
} endpoints;

/* ---- the template ---- */

/* `tls` goes in as a copy: what an application changes in a dict stays in its request. */
static int add_tls(const as_scope_cache *cache, PyObject *dict, PyObject *tls) {
    PyObject *own = PyDict_Copy(tls);
    int result = own != NULL ? PyDict_SetItem(dict, cache->tls, own) : -1;
    Py_XDECREF(own);
    return result;
}

/* The dict of extensions, each with a dict of its own. */
static PyObject *make_extensions(as_scope_cache *cache, bool http_1_1, PyObject *tls) {
    PyObject *dict = PyDict_New();
    size_t n = http_1_1 ? EXTENSIONS : 1;
    for (size_t i = 0; dict != NULL && i < n; i++) {
        PyObject *empty = PyDict_New();
        if (empty == NULL || PyDict_SetItem(dict, cache->extensions[i], empty) < 0) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(empty);
    }
    if (dict != NULL && tls != NULL && add_tls(cache, dict, tls) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *make_template(as_server *server) {
    PyObject *dict = Py_BuildValue(
        "{s:s, s:O, s:s, s:O, s:O, s:s, s:O, s:O, s:O, s:O, s:O, s:O, s:O}", "type", "http", "asgi",
        Py_None, "http_version", "1.1", "server", Py_None, "client", Py_None, "scheme", "http",
        "method", Py_None, "root_path", server->root_path, "path", Py_None, "raw_path", Py_None,
        "query_string", Py_None, "headers", Py_None, "extensions", Py_None);
    if (dict != NULL && server->lifespan_state != NULL &&
        PyDict_SetItem(dict, server->state->str.state, Py_None) < 0) {
        Py_CLEAR(dict);
    }
    return dict;
}

/* The same as a dict that shares its keys with its copies, as those of instances of a class do: a
 * scope lives as long as its WebSocket, and this takes a third off it. Steals. */
static PyObject *share_keys(PyObject *dict) {
    PyObject *type =
        dict != NULL ? PyObject_CallFunction((PyObject *)&PyType_Type, "s(){}", "Scope") : NULL;
    PyObject *object = type != NULL ? PyObject_CallNoArgs(type) : NULL;
    PyObject *key, *value;
    Py_ssize_t at = 0;
    int failed = object == NULL;
    while (!failed && PyDict_Next(dict, &at, &key, &value)) {
        failed = PyObject_SetAttr(object, key, value) < 0;
    }
    PyObject *attributes = failed ? NULL : PyObject_GetAttrString(object, "__dict__");
    PyObject *shared = attributes != NULL ? PyDict_Copy(attributes) : NULL;
    Py_XDECREF(attributes);
    Py_XDECREF(object);
    Py_XDECREF(type);
    Py_XDECREF(dict);
    return shared;
}

/* Fewer keys than HTTP's has: no method. */
static PyObject *make_ws_template(const as_server *server) {
    PyObject *dict = Py_BuildValue(
        "{s:s, s:O, s:s, s:O, s:O, s:s, s:O, s:O, s:O, s:O, s:O, s:O, s:O}", "type", "websocket",
        "asgi", Py_None, "http_version", "1.1", "server", Py_None, "client", Py_None, "scheme",
        "ws", "root_path", server->root_path, "path", Py_None, "raw_path", Py_None, "query_string",
        Py_None, "headers", Py_None, "subprotocols", Py_None, "extensions", Py_None);
    if (dict != NULL && server->lifespan_state != NULL &&
        PyDict_SetItem(dict, server->state->str.state, Py_None) < 0) {
        Py_CLEAR(dict);
    }
    return share_keys(dict);
}

struct as_scope_cache *as_scope_cache_new(as_server *server) {
    as_scope_cache *cache = PyMem_Calloc(1, sizeof(*cache));
    if (cache == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    cache->server = server;
    if ((cache->template = make_template(server)) == NULL ||
        (cache->ws_template = make_ws_template(server)) == NULL ||
        (cache->denial = PyUnicode_InternFromString("websocket.http.response")) == NULL ||
        (cache->wss = PyUnicode_InternFromString("wss")) == NULL ||
        (cache->asgi = Py_BuildValue("{s:s, s:s}", "version", "3.0", "spec_version", "2.5")) ==
            NULL ||
        (cache->tls = PyUnicode_InternFromString("tls")) == NULL ||
        (cache->version_1_0 = PyUnicode_InternFromString("1.0")) == NULL ||
        (cache->https = PyUnicode_InternFromString("https")) == NULL ||
        (cache->root_bytes = PyUnicode_AsUTF8String(server->root_path)) == NULL) {
        as_scope_cache_free(cache);
        return NULL;
    }
    for (size_t i = 0; i < EXTENSIONS; i++) {
        if ((cache->extensions[i] = PyUnicode_InternFromString(extension_names[i])) == NULL) {
            as_scope_cache_free(cache);
            return NULL;
        }
    }
    return cache;
}

static void clear_target(cached_target *row) {
    Py_CLEAR(row->target);
    Py_CLEAR(row->path);
    Py_CLEAR(row->raw_path);
    Py_CLEAR(row->query);
}

void as_scope_cache_free(struct as_scope_cache *cache) {
    if (cache == NULL) {
        return;
    }
    Py_CLEAR(cache->template);
    Py_CLEAR(cache->ws_template);
    Py_CLEAR(cache->denial);
    Py_CLEAR(cache->wss);
    Py_CLEAR(cache->asgi);
    for (size_t i = 0; i < EXTENSIONS; i++) {
        Py_CLEAR(cache->extensions[i]);
    }
    Py_CLEAR(cache->tls);
    Py_CLEAR(cache->version_1_0);
    Py_CLEAR(cache->https);
    Py_CLEAR(cache->root_bytes);
    for (size_t i = 0; i < sizeof(cache->method) / sizeof(*cache->method); i++) {
        Py_CLEAR(cache->method[i]);
    }
    for (size_t i = 0; i < TARGETS; i++) {
        clear_target(&cache->targets[i]);
    }
    for (size_t i = 0; i < SERVERS; i++) {
        Py_CLEAR(cache->servers[i]);
    }
    PyMem_Free(cache);
}

int as_scope_cache_traverse(struct as_scope_cache *cache, visitproc visit, void *arg) {
    if (cache != NULL) {
        Py_VISIT(cache->template);
        Py_VISIT(cache->ws_template);
        Py_VISIT(cache->asgi);
    }
    return 0;
}

/* ---- targets ---- */

/* `prefix` in front of the path, percent-decoded, read as UTF-8 with U+FFFD for what is not. */
static PyObject *decode_path(PyObject *prefix, as_slice path) {
    size_t before = (size_t)PyBytes_GET_SIZE(prefix);
    char small[512];
    char *text = before + path.n <= sizeof(small) ? small : PyMem_Malloc(before + path.n);
    if (text == NULL) {
        return PyErr_NoMemory();
    }
    memcpy(text, PyBytes_AS_STRING(prefix), before);
    size_t n = before + as_percent_decode(path, text + before);
    PyObject *decoded = PyUnicode_DecodeUTF8(text, (Py_ssize_t)n, "replace");
    if (text != small) {
        PyMem_Free(text);
    }
    return decoded;
}

static PyObject *prefixed_bytes(PyObject *prefix, as_slice path) {
    Py_ssize_t before = PyBytes_GET_SIZE(prefix);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, before + (Py_ssize_t)path.n);
    if (bytes != NULL) {
        memcpy(PyBytes_AS_STRING(bytes), PyBytes_AS_STRING(prefix), (size_t)before);
        memcpy(PyBytes_AS_STRING(bytes) + before, path.p, path.n);
    }
    return bytes;
}

/* `root`: bytes of the prefix that the path has lost. */
static int make_target(const as_head *head, PyObject *root, cached_target *row) {
    as_slice path = as_head_slice(head, head->path);
    row->target = as_pybytes(as_head_slice(head, head->target));
    row->path = decode_path(root, path);
    row->raw_path = prefixed_bytes(root, path);
    row->query = as_pybytes(as_head_slice(head, head->query));
    if (row->target == NULL || row->path == NULL || row->raw_path == NULL || row->query == NULL) {
        clear_target(row);
        return -1;
    }
    return 0;
}

/* FNV-1a over the length and up to sixteen bytes at either end: enough to spread a site's targets.
 */
static size_t hash_of(as_slice text) {
    uint32_t hash = 2166136261u ^ (uint32_t)text.n;
    size_t edge = text.n < 16 ? text.n : 16;
    for (size_t i = 0; i < edge; i++) {
        hash = (hash ^ (unsigned char)text.p[i]) * 16777619u;
        hash = (hash ^ (unsigned char)text.p[text.n - 1 - i]) * 16777619u;
    }
    return hash ^ (hash >> 16);
}

/* The row for the head's target, made if need be; `scratch` serves targets that are not kept. */
static cached_target *find_target(as_scope_cache *cache, const as_head *head,
                                  cached_target *scratch) {
    as_slice target = as_head_slice(head, head->target);
    if (target.n > TARGET_MAX) {
        return make_target(head, cache->root_bytes, scratch) == 0 ? scratch : NULL;
    }
    cached_target *row = &cache->targets[hash_of(target) & (TARGETS - 1)];
    if (row->target != NULL && (size_t)PyBytes_GET_SIZE(row->target) == target.n &&
        memcmp(PyBytes_AS_STRING(row->target), target.p, target.n) == 0) {
        return row;
    }
    cached_target fresh = {NULL, NULL, NULL, NULL};
    if (make_target(head, cache->root_bytes, &fresh) < 0) {
        return NULL;
    }
    clear_target(row);
    *row = fresh;
    return row;
}

/* ---- connections ---- */

static PyObject *make_chain(const as_tls_info *tls) {
    PyObject *chain = PyTuple_New((Py_ssize_t)tls->nclient_chain);
    for (size_t i = 0; chain != NULL && i < tls->nclient_chain; i++) {
        PyObject *pem = PyUnicode_FromString(tls->client_chain[i]);
        if (pem == NULL) {
            Py_CLEAR(chain);
        } else {
            PyTuple_SET_ITEM(chain, (Py_ssize_t)i, pem);
        }
    }
    return chain;
}

/* The TLS extension of ASGI, 0.2. */
static PyObject *make_tls(as_tls *source) {
    const as_tls_info *tls = as_tls_describe(source);
    if (tls == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *chain = make_chain(tls);
    return chain != NULL
               ? Py_BuildValue("{s:s, s:N, s:z, s:O, s:i, s:i}", "server_cert", tls->server_cert,
                               "client_cert_chain", chain, "client_cert_name", tls->client_subject,
                               "client_cert_error", Py_None, "tls_version", (int)tls->version,
                               "cipher_suite", (int)tls->cipher)
               : NULL;
}

static void free_endpoints(endpoints *ends) {
    Py_XDECREF(ends->client);
    Py_XDECREF(ends->server);
    Py_XDECREF(ends->tls);
    PyMem_Free(ends);
}

static bool is_server(PyObject *server, const as_conn_info *info) {
    return PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(server, 0), info->server) == 0 &&
           PyLong_AsLong(PyTuple_GET_ITEM(server, 1)) == (long)info->server_port;
}

/* Connections to the same address share its tuple. New reference. */
static PyObject *find_server(as_scope_cache *cache, const as_conn_info *info) {
    if (info->is_unix) {
        return as_server_tuple(info);
    }
    as_slice address = {info->server, strlen(info->server)};
    PyObject **row = &cache->servers[(hash_of(address) ^ info->server_port) & (SERVERS - 1)];
    if (*row == NULL || !is_server(*row, info)) {
        PyObject *server = as_server_tuple(info);
        if (server == NULL) {
            return NULL;
        }
        Py_XSETREF(*row, server);
    }
    return Py_NewRef(*row);
}

static endpoints *find_endpoints(as_scope_cache *cache, as_conn_info *info) {
    if (info->gateway != NULL) {
        return info->gateway;
    }
    endpoints *ends = PyMem_Calloc(1, sizeof(*ends));
    if (ends == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    if ((ends->client = as_client_tuple(info)) == NULL ||
        (ends->server = find_server(cache, info)) == NULL ||
        (info->tls != NULL && (ends->tls = make_tls(info->tls)) == NULL)) {
        free_endpoints(ends);
        return NULL;
    }
    info->gateway = ends;
    return ends;
}

void as_scope_connection_closed(as_conn_info *info) {
    endpoints *ends = info->gateway;
    info->gateway = NULL;
    if (ends != NULL) {
        free_endpoints(ends);
    }
}

/* ---- the scope ---- */

/* The method's str, borrowed from the table where llhttp knows it; *owned is set otherwise. */
static PyObject *find_method(as_scope_cache *cache, const as_head *head, PyObject **owned) {
    as_slice name = as_head_slice(head, head->method);
    size_t id = head->method_id;
    if (id >= sizeof(cache->method) / sizeof(*cache->method)) {
        return *owned = as_latin1(name);
    }
    if (cache->method[id] == NULL) {
        PyObject *method = as_latin1(name);
        if (method != NULL) {
            PyUnicode_InternInPlace(&method);
        }
        cache->method[id] = method;
    }
    return cache->method[id];
}

/* The prefix that a proxy names takes the place of the configured one. */
static cached_target *make_prefixed_target(as_scope_cache *cache, PyObject *scope,
                                           const as_head *head, cached_target *scratch) {
    as_slice prefix = as_head_slice(head, head->prefix);
    PyObject *root = as_pybytes(prefix), *root_path = as_latin1(prefix);
    int failed = root == NULL || root_path == NULL ||
                 PyDict_SetItem(scope, cache->server->state->str.root_path, root_path) < 0 ||
                 make_target(head, root, scratch) < 0;
    Py_XDECREF(root);
    Py_XDECREF(root_path);
    return failed ? NULL : scratch;
}

static int set_target(as_scope_cache *cache, PyObject *scope, const as_head *head) {
    as_module_state *state = cache->server->state;
    cached_target scratch = {NULL, NULL, NULL, NULL};
    cached_target *target = head->prefix.len > 0
                                ? make_prefixed_target(cache, scope, head, &scratch)
                                : find_target(cache, head, &scratch);
    int failed = target == NULL || PyDict_SetItem(scope, state->str.path, target->path) < 0 ||
                 PyDict_SetItem(scope, state->str.raw_path, target->raw_path) < 0 ||
                 PyDict_SetItem(scope, state->str.query_string, target->query) < 0;
    clear_target(&scratch);
    return failed ? -1 : 0;
}

/* An object of the request's own under `key`: what an application changes in a dict stays in its
 * request. Steals. */
static int set_own(PyObject *scope, PyObject *key, PyObject *object) {
    int failed = object == NULL || PyDict_SetItem(scope, key, object) < 0;
    Py_XDECREF(object);
    return failed ? -1 : 0;
}

/* As a proxy tells it. New reference. */
static PyObject *make_server(const as_exchange *ex, const endpoints *ends) {
    const as_conn_info *info = ex->info, *via = info->via;
    if (ex->head->host.len > 0) {
        PyObject *host = as_latin1(as_head_slice(ex->head, ex->head->host));
        return host != NULL ? Py_BuildValue("(Ni)", host, (int)info->server_port) : NULL;
    }
    if (info->server_port == via->server_port || via->is_unix) {
        return Py_NewRef(ends->server);
    }
    return Py_BuildValue("(si)", via->server, (int)info->server_port);
}

static int set_endpoints(as_module_state *state, PyObject *scope, const as_exchange *ex,
                         const endpoints *ends) {
    as_conn_info *info = ex->info;
    int failed = info->via == NULL
                     ? PyDict_SetItem(scope, state->str.client, ends->client) < 0 ||
                           PyDict_SetItem(scope, state->str.server, ends->server) < 0
                     : set_own(scope, state->str.client, as_client_tuple(info)) < 0 ||
                           set_own(scope, state->str.server, make_server(ex, ends)) < 0;
    return failed ? -1 : 0;
}

/* What HTTP and WebSocket have in common. `secure`: the scheme over TLS. */
static int set_common(as_scope_cache *cache, PyObject *scope, as_request *req,
                      const endpoints *ends, PyObject *secure) {
    as_module_state *state = cache->server->state;
    int failed = set_endpoints(state, scope, req->ex, ends) < 0 ||
                 PyDict_SetItem(scope, state->str.headers, req->headers) < 0 ||
                 set_target(cache, scope, req->ex->head) < 0 ||
                 set_own(scope, state->str.asgi, PyDict_Copy(cache->asgi)) < 0;
    if (!failed && req->ex->info->is_tls) {
        failed = PyDict_SetItem(scope, state->str.scheme, secure) < 0;
    }
    if (!failed && cache->server->lifespan_state != NULL) {
        failed = set_own(scope, state->str.state, PyDict_Copy(cache->server->lifespan_state)) < 0;
    }
    return failed ? -1 : 0;
}

/* Of the client's connection, be it a proxy's. */
static const endpoints *endpoints_of(as_scope_cache *cache, const as_request *req) {
    as_conn_info *info = req->ex->info;
    return find_endpoints(cache, info->via != NULL ? info->via : info);
}

static int set_fields(as_scope_cache *cache, PyObject *scope, as_request *req) {
    as_module_state *state = cache->server->state;
    const as_head *head = req->ex->head;
    const endpoints *ends = endpoints_of(cache, req);
    if (ends == NULL) {
        return -1;
    }
    PyObject *owned = NULL;
    PyObject *method = find_method(cache, head, &owned);
    int failed = method == NULL || PyDict_SetItem(scope, state->str.method, method) < 0 ||
                 set_common(cache, scope, req, ends, cache->https) < 0 ||
                 set_own(scope, state->str.extensions,
                         make_extensions(cache, head->minor == 1, ends->tls)) < 0;
    Py_XDECREF(owned);
    if (!failed && head->minor == 0) {
        failed = PyDict_SetItem(scope, state->str.http_version, cache->version_1_0) < 0;
    }
    return failed ? -1 : 0;
}

/* The list of what the client offers. */
static PyObject *make_subprotocols(const as_head *head) {
    PyObject *list = PyList_New(0);
    uint64_t at = 0;
    as_slice name;
    while (list != NULL && as_ws_next_protocol(head, &at, &name)) {
        PyObject *text = as_latin1(name);
        if (text == NULL || PyList_Append(list, text) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(text);
    }
    return list;
}

static int set_ws_fields(as_scope_cache *cache, PyObject *scope, as_request *req) {
    as_module_state *state = cache->server->state;
    const endpoints *ends = endpoints_of(cache, req);
    if (ends == NULL) {
        return -1;
    }
    PyObject *empty = PyDict_New(), *extensions = PyDict_New();
    int failed = empty == NULL || extensions == NULL ||
                 PyDict_SetItem(extensions, cache->denial, empty) < 0 ||
                 (ends->tls != NULL && add_tls(cache, extensions, ends->tls) < 0) ||
                 PyDict_SetItem(scope, state->str.extensions, extensions) < 0 ||
                 set_common(cache, scope, req, ends, cache->wss) < 0 ||
                 set_own(scope, state->str.subprotocols, make_subprotocols(req->ex->head)) < 0;
    Py_XDECREF(empty);
    Py_XDECREF(extensions);
    return failed ? -1 : 0;
}

static PyObject *scope_new(as_scope_cache *cache, as_request *req, PyObject *template,
                           int (*set)(as_scope_cache *cache, PyObject *scope, as_request *req)) {
    req->headers = as_headers_new(cache->server->state, req->ex->head);
    if (req->headers == NULL) {
        return NULL;
    }
    PyObject *scope = PyDict_Copy(template);
    if (scope != NULL && set(cache, scope, req) < 0) {
        Py_CLEAR(scope);
    }
    return scope;
}

PyObject *as_scope_new(struct as_scope_cache *cache, as_request *req) {
    return scope_new(cache, req, cache->template, set_fields);
}

PyObject *as_scope_new_websocket(struct as_scope_cache *cache, as_request *req) {
    return scope_new(cache, req, cache->ws_template, set_ws_fields);
}

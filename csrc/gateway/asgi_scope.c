/* The scope of a request (ASGI HTTP and WebSocket 2.5): a copy of a template, then the fields that
 * change.
 *
 * What repeats is kept: the strings of a connection with the connection, targets in a small table.
 * HTTP's template shows the values of the last request, so that those of the next which are the
 * same are in its copy already. The objects that an application may change (headers, and the dicts
 * "asgi" and "extensions") are shown, too, and lent again only when nobody else holds them and they
 * are as they were made. */
#include "gateway/asgi.h"
#include "http/target.h"
#include "http/ws_handshake.h"
#include "net/tls.h"

#define TARGETS 64          /* rows, a power of two */
#define TARGET_MAX 128      /* bytes; longer targets are not kept */
#define SERVERS 8           /* addresses, a power of two */
#define HOSTS 8             /* likewise, of clients */

/* The first works over HTTP/1.0 as well; the others need its chunked coding, or interim responses.
 */
static const char *const extension_names[] = {
    "http.response.pathsend",
    "http.response.trailers",
    "http.response.early_hint",
};
#define EXTENSIONS (sizeof(extension_names) / sizeof(*extension_names))

/* A target seen before. A newer one of the same row replaces it. */
typedef struct cached_target {
    PyObject *target;   /* bytes as received; NULL: empty row */
    PyObject *path;     /* str */
    PyObject *raw_path; /* bytes */
    PyObject *query;    /* bytes */
} cached_target;

/* Keys whose values HTTP's template shows. */
#define SHOWN(X)                                                                                       \
    X(method) X(client) X(server) X(path) X(raw_path) X(query_string) X(headers) X(asgi) X(extensions) X(state)

typedef struct shown_values {
#define X(key) PyObject *key;
    SHOWN(X)
#undef X
} shown_values;

typedef struct as_scope_cache {
    as_server *server; /* borrowed: the server owns this */
    PyObject *template, *ws_template;
    shown_values shown;                /* borrowed from the template; NULL: it shows None */
    PyObject *denial;                  /* str: the one extension of WebSocket */
    PyObject *ws_extensions, *ws_asgi; /* WebSocket's, without the value, and as `asgi` */
    PyObject *extensions[EXTENSIONS];  /* str */
    PyObject *asgi;                    /* the versions; a request gets a copy */
    PyObject *tls;                     /* str: the extension's name */
    PyObject *version_1_0, *https, *wss;
    PyObject *method[64]; /* str by llhttp's number */
    PyObject *root_bytes; /* root_path as bytes */
    cached_target targets[TARGETS];
    PyObject *servers[SERVERS]; /* (address, port), as seen lately */
    PyObject *hosts[HOSTS];     /* str; those of clients */
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
    return as_share_keys(dict);
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
        (cache->ws_extensions = as_share_keys(Py_BuildValue("{O:O}", cache->denial, Py_None))) ==
            NULL ||
        (cache->ws_asgi = as_share_keys(PyDict_Copy(cache->asgi))) == NULL ||
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
    cache->shown = (shown_values){0};
    Py_CLEAR(cache->template);
    Py_CLEAR(cache->ws_template);
    Py_CLEAR(cache->denial);
    Py_CLEAR(cache->ws_extensions);
    Py_CLEAR(cache->ws_asgi);
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
    for (size_t i = 0; i < HOSTS; i++) {
        Py_CLEAR(cache->hosts[i]);
    }
    PyMem_Free(cache);
}

int as_scope_cache_traverse(struct as_scope_cache *cache, visitproc visit, void *arg) {
    if (cache != NULL) {
        Py_VISIT(cache->template);
        Py_VISIT(cache->ws_template);
        Py_VISIT(cache->asgi);
        Py_VISIT(cache->ws_extensions);
        Py_VISIT(cache->ws_asgi);
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

static bool is_kept_target(const as_head *head) {
    return head->target.len <= TARGET_MAX && head->prefix.len == 0;
}

/* The row for a target that is kept, made if need be. */
static const cached_target *find_target(as_scope_cache *cache, const as_head *head) {
    as_slice target = as_head_slice(head, head->target);
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

/* (address, port) of a client. Behind a proxy or a balancer all come from a few addresses: they
 * share the address's str. New reference. */
static PyObject *find_client(as_scope_cache *cache, const as_conn_info *info) {
    if (info->is_unix) {
        return as_client_tuple(info);
    }
    as_slice address = {info->client, strlen(info->client)};
    PyObject **row = &cache->hosts[hash_of(address) & (HOSTS - 1)];
    if (*row == NULL || PyUnicode_CompareWithASCIIString(*row, info->client) != 0) {
        PyObject *host = PyUnicode_FromString(info->client);
        if (host == NULL) {
            return NULL;
        }
        Py_XSETREF(*row, host);
    }
    return Py_BuildValue("(Oi)", *row, (int)info->client_port);
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
    if ((ends->client = find_client(cache, info)) == NULL ||
        (ends->server = find_server(cache, info)) == NULL ||
        (info->tls != NULL && (ends->tls = make_tls(info->tls)) == NULL)) {
        free_endpoints(ends);
        return NULL;
    }
    info->gateway = ends;
    return ends;
}

void as_scope_forget_connection(as_conn_info *info) {
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
static int make_prefixed_target(as_scope_cache *cache, PyObject *scope, const as_head *head,
                                cached_target *made) {
    as_slice prefix = as_head_slice(head, head->prefix);
    PyObject *root = as_pybytes(prefix), *root_path = as_latin1(prefix);
    int failed = root == NULL || root_path == NULL ||
                 PyDict_SetItem(scope, cache->server->state->str.root_path, root_path) < 0 ||
                 make_target(head, root, made) < 0;
    Py_XDECREF(root);
    Py_XDECREF(root_path);
    return failed ? -1 : 0;
}

static int put_target(as_module_state *state, PyObject *scope, const cached_target *target) {
    int failed = PyDict_SetItem(scope, state->str.path, target->path) < 0 ||
                 PyDict_SetItem(scope, state->str.raw_path, target->raw_path) < 0 ||
                 PyDict_SetItem(scope, state->str.query_string, target->query) < 0;
    return failed ? -1 : 0;
}

static int set_target(as_scope_cache *cache, PyObject *scope, const as_head *head) {
    if (is_kept_target(head)) {
        const cached_target *row = find_target(cache, head);
        return row != NULL ? put_target(cache->server->state, scope, row) : -1;
    }
    cached_target made = {NULL, NULL, NULL, NULL};
    int failed = (head->prefix.len > 0 ? make_prefixed_target(cache, scope, head, &made)
                                       : make_target(head, cache->root_bytes, &made)) < 0 ||
                 put_target(cache->server->state, scope, &made) < 0;
    clear_target(&made);
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

/* A copy, so that what an application changes in it stays in its request. */
static int set_state(as_scope_cache *cache, PyObject *scope) {
    as_server *server = cache->server;
    return server->lifespan_state != NULL
               ? set_own(scope, server->state->str.state, PyDict_Copy(server->lifespan_state))
               : 0;
}

/* Of the client's connection, be it a proxy's. */
static const endpoints *endpoints_of(as_scope_cache *cache, const as_request *req) {
    as_conn_info *info = req->ex->info;
    return find_endpoints(cache, info->via != NULL ? info->via : info);
}

/* ---- what HTTP's template shows ---- */

/* What did not change since the last request costs a comparison, and is in the copy already. Only
 * what the next request is sure to show or set as well may be shown. */
static int show(as_scope_cache *cache, PyObject *key, PyObject **at, PyObject *value) {
    if (*at == value) {
        return 0;
    }
    if (PyDict_SetItem(cache->template, key, value) < 0) {
        return -1; /* it shows the old one */
    }
    *at = value;
    return 0;
}

#define SHOW(cache, key, value)                                                                        \
    show(cache, (cache)->server->state->str.key, &(cache)->shown.key, value)

/* Steals. */
static int show_own(as_scope_cache *cache, PyObject *key, PyObject **at, PyObject *object) {
    int result = object != NULL ? show(cache, key, at, object) : -1;
    Py_XDECREF(object);
    return result;
}

#define SHOW_OWN(cache, key, object)                                                                   \
    show_own(cache, (cache)->server->state->str.key, &(cache)->shown.key, object)

/* Nobody but the template holds `object`. */
static bool is_free(PyObject *object) {
    return object != NULL && Py_REFCNT(object) == 1;
}

/* The same objects under the same keys in the same order. */
static bool same_entries(PyObject *a, PyObject *b) {
    PyObject *key_a, *key_b, *value_a, *value_b;
    Py_ssize_t at_a = 0, at_b = 0;
    if (PyDict_GET_SIZE(a) != PyDict_GET_SIZE(b)) {
        return false;
    }
    for (Py_ssize_t left = PyDict_GET_SIZE(a); left > 0; left--) {
        if (!PyDict_Next(a, &at_a, &key_a, &value_a) || !PyDict_Next(b, &at_b, &key_b, &value_b) ||
            key_a != key_b || value_a != value_b) {
            return false;
        }
    }
    return true;
}

/* As make_extensions makes it for HTTP/1.1 without TLS: empty dicts that nobody else holds. */
static bool are_pristine(const as_scope_cache *cache, PyObject *extensions) {
    PyObject *key, *value;
    Py_ssize_t at = 0;
    size_t i = 0;
    if ((size_t)PyDict_GET_SIZE(extensions) != EXTENSIONS) {
        return false;
    }
    for (; i < EXTENSIONS && PyDict_Next(extensions, &at, &key, &value); i++) {
        if (key != cache->extensions[i] || !PyDict_CheckExact(value) || Py_REFCNT(value) != 1 ||
            PyDict_GET_SIZE(value) != 0) {
            return false;
        }
    }
    return i == EXTENSIONS;
}

static bool has_usual_extensions(const as_request *req, const endpoints *ends) {
    return req->ex->head->minor == 1 && ends->tls == NULL;
}

static int show_dicts(as_scope_cache *cache, const as_request *req, const endpoints *ends) {
    const shown_values *now = &cache->shown;
    if (!(is_free(now->asgi) && same_entries(now->asgi, cache->asgi)) &&
        SHOW_OWN(cache, asgi, PyDict_Copy(cache->asgi)) < 0) {
        return -1;
    }
    PyObject *state = cache->server->lifespan_state;
    if (state != NULL && !(is_free(now->state) && same_entries(now->state, state)) &&
        SHOW_OWN(cache, state, PyDict_Copy(state)) < 0) {
        return -1;
    }
    if (has_usual_extensions(req, ends) &&
        !(is_free(now->extensions) && are_pristine(cache, now->extensions))) {
        return SHOW_OWN(cache, extensions, make_extensions(cache, true, NULL));
    }
    return 0;
}

static int show_headers(as_scope_cache *cache, as_request *req) {
    if (is_free(cache->shown.headers)) {
        as_headers_lend(cache->shown.headers, req->ex->head);
    } else if (SHOW_OWN(cache, headers, as_headers_new(cache->server->state, req->ex->head)) < 0) {
        return -1;
    }
    req->headers = Py_NewRef(cache->shown.headers);
    return 0;
}

static int show_target(as_scope_cache *cache, const as_head *head) {
    const cached_target *row = find_target(cache, head);
    return row == NULL || SHOW(cache, path, row->path) < 0 ||
                   SHOW(cache, raw_path, row->raw_path) < 0 ||
                   SHOW(cache, query_string, row->query) < 0
               ? -1
               : 0;
}

static int show_request(as_scope_cache *cache, as_request *req, const endpoints *ends) {
    const as_exchange *ex = req->ex;
    PyObject *owned = NULL;
    PyObject *method = find_method(cache, ex->head, &owned);
    int failed = method == NULL || SHOW(cache, method, method) < 0 ||
                 show_dicts(cache, req, ends) < 0 || show_headers(cache, req) < 0 ||
                 (is_kept_target(ex->head) && show_target(cache, ex->head) < 0) ||
                 (ex->info->via == NULL &&
                  (SHOW(cache, client, ends->client) < 0 || SHOW(cache, server, ends->server) < 0));
    Py_XDECREF(owned);
    return failed ? -1 : 0;
}

/* What the template does not show of this request. */
static int set_rest(as_scope_cache *cache, PyObject *scope, as_request *req,
                    const endpoints *ends) {
    as_module_state *state = cache->server->state;
    const as_exchange *ex = req->ex;
    int failed = (!is_kept_target(ex->head) && set_target(cache, scope, ex->head) < 0) ||
                 (ex->info->via != NULL && set_endpoints(state, scope, ex, ends) < 0) ||
                 (!has_usual_extensions(req, ends) &&
                  set_own(scope, state->str.extensions,
                          make_extensions(cache, ex->head->minor == 1, ends->tls)) < 0) ||
                 (ex->head->minor == 0 &&
                  PyDict_SetItem(scope, state->str.http_version, cache->version_1_0) < 0) ||
                 (ex->info->is_tls && PyDict_SetItem(scope, state->str.scheme, cache->https) < 0);
    return failed ? -1 : 0;
}

PyObject *as_scope_new(struct as_scope_cache *cache, as_request *req) {
    const endpoints *ends = endpoints_of(cache, req);
    if (ends == NULL || show_request(cache, req, ends) < 0) {
        return NULL;
    }
    PyObject *scope = PyDict_Copy(cache->template);
    if (scope != NULL && set_rest(cache, scope, req, ends) < 0) {
        Py_CLEAR(scope);
    }
    return scope;
}

/* The scope's headers and the exchange share one copy of the head. */
static int settle_headers(as_request *req, PyObject *headers, as_head *head, Py_ssize_t ours) {
    as_head *kept = head;
    int result = as_headers_settle(headers, &kept, ours);
    if (kept != head && req->ex != NULL) {
        req->ex->head = as_head_keep(kept);
    }
    return result;
}

int as_scope_settle(struct as_scope_cache *cache, as_request *req, as_head *head) {
    PyObject *headers = req->headers;
    req->headers = NULL;
    if (headers == NULL) {
        return 0;
    }
    bool is_shown = cache != NULL && headers == cache->shown.headers;
    int result = settle_headers(req, headers, head, is_shown ? 2 : 1);
    if (is_shown && Py_REFCNT(headers) > 2) {
        /* An application's from here on: what clients sent is not kept for longer than needed. */
        cache->shown.headers = NULL;
        if (PyDict_SetItem(cache->template, cache->server->state->str.headers, Py_None) < 0) {
            result = -1;
        }
    }
    Py_DECREF(headers);
    return result;
}

/* ---- WebSocket's scope ---- */

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
    PyObject *empty = PyDict_New(), *extensions = PyDict_Copy(cache->ws_extensions);
    int failed =
        empty == NULL || extensions == NULL ||
        PyDict_SetItem(extensions, cache->denial, empty) < 0 ||
        (ends->tls != NULL && add_tls(cache, extensions, ends->tls) < 0) ||
        PyDict_SetItem(scope, state->str.extensions, extensions) < 0 ||
        set_endpoints(state, scope, req->ex, ends) < 0 ||
        PyDict_SetItem(scope, state->str.headers, req->headers) < 0 ||
        set_target(cache, scope, req->ex->head) < 0 ||
        set_own(scope, state->str.asgi, PyDict_Copy(cache->ws_asgi)) < 0 ||
        (req->ex->info->is_tls && PyDict_SetItem(scope, state->str.scheme, cache->wss) < 0) ||
        set_state(cache, scope) < 0 ||
        set_own(scope, state->str.subprotocols, make_subprotocols(req->ex->head)) < 0;
    Py_XDECREF(empty);
    Py_XDECREF(extensions);
    return failed ? -1 : 0;
}

PyObject *as_scope_new_websocket(struct as_scope_cache *cache, as_request *req) {
    req->headers = as_headers_new(cache->server->state, req->ex->head);
    PyObject *scope = req->headers != NULL ? PyDict_Copy(cache->ws_template) : NULL;
    if (scope != NULL && set_ws_fields(cache, scope, req) < 0) {
        Py_CLEAR(scope);
    }
    return scope;
}

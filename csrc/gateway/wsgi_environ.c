/* The environ dict, from a template and from caches of what requests repeat. */
#include "gateway/wsgi_environ.h"

#include "gateway/wsgi_input.h"
#include "http/target.h"
#include "net/tls.h"

#ifdef AS_VERSION
#define SOFTWARE "asgiserver/" AS_VERSION
#else
#define SOFTWARE "asgiserver"
#endif

/* Keys besides HTTP_*: X(identifier, "text") */
#define KEYS(X)                                                                                        \
    X(request_method, "REQUEST_METHOD")                                                                \
    X(script_name, "SCRIPT_NAME")                                                                      \
    X(path_info, "PATH_INFO")                                                                          \
    X(query_string, "QUERY_STRING")                                                                    \
    X(request_uri, "REQUEST_URI")                                                                      \
    X(raw_uri, "RAW_URI")                                                                              \
    X(server_name, "SERVER_NAME")                                                                      \
    X(server_port, "SERVER_PORT")                                                                      \
    X(server_protocol, "SERVER_PROTOCOL")                                                              \
    X(server_software, "SERVER_SOFTWARE")                                                              \
    X(remote_addr, "REMOTE_ADDR")                                                                      \
    X(remote_port, "REMOTE_PORT")                                                                      \
    X(https, "HTTPS")                                                                                  \
    X(content_length, "CONTENT_LENGTH")                                                                \
    X(wsgi_version, "wsgi.version")                                                                    \
    X(wsgi_url_scheme, "wsgi.url_scheme")                                                              \
    X(wsgi_input, "wsgi.input")                                                                        \
    X(wsgi_errors, "wsgi.errors")                                                                      \
    X(wsgi_multithread, "wsgi.multithread")                                                            \
    X(wsgi_multiprocess, "wsgi.multiprocess")                                                          \
    X(wsgi_run_once, "wsgi.run_once")                                                                  \
    X(wsgi_file_wrapper, "wsgi.file_wrapper")                                                          \
    X(wsgi_input_terminated, "wsgi.input_terminated")

/* Of TLS connections, as other servers name it: X(key, C expression of `tls`, NULL: not set) */
#define TLS_KEYS(X)                                                                                    \
    X("SSL_PROTOCOL", tls->version_name)                                                               \
    X("SSL_CIPHER", tls->cipher_name)                                                                  \
    X("SSL_TLS_SNI", tls->server_name)                                                                 \
    X("SSL_CLIENT_S_DN", tls->client_subject)                                                          \
    X("SSL_CLIENT_I_DN", tls->client_issuer)                                                           \
    X("SSL_CLIENT_M_SERIAL", tls->client_serial)                                                       \
    X("SSL_CLIENT_V_START", tls->client_start)                                                         \
    X("SSL_CLIENT_V_END", tls->client_end)                                                             \
    X("SSL_CLIENT_CERT", tls->nclient_chain > 0 ? tls->client_chain[0] : NULL)

/* Of values that are kept for the next request (AS_REPEATED_NAMES). */
#define REPEATED_MAX ((size_t)512)  /* bytes of a value that is kept */
#define TARGETS ((size_t)64)        /* entries, a power of two */
#define TARGET_MAX ((size_t)256)    /* bytes of a target that is kept */
#define METHODS ((size_t)64)        /* method numbers that have a place */

typedef struct keys {
#define X(id, text) PyObject *id;
    KEYS(X)
#undef X
} keys;

#define NKEYS (sizeof(keys) / sizeof(PyObject *))

typedef struct target {
    PyObject *uri, *path; /* the target as received, PATH_INFO; NULL: a free entry */
} target;

/* What is made once per connection; info->gateway. */
typedef struct connection {
    PyObject *remote_addr, *remote_port, *server_name, *server_port;
    PyObject *tls; /* dict of TLS_KEYS; NULL: plain */
} connection;

struct as_environ_maker {
    as_module_state *state; /* borrowed from the server */
    keys key;
    PyObject *template;
    keys
        shown; /* by key: what the template shows of the last request; borrowed from the template */
    PyObject *root; /* bytes: SCRIPT_NAME, that PATH_INFO leaves out */
    PyObject *empty, *http10, *https, *on, *zero; /* str */
    PyObject *method[METHODS];
    PyObject *repeated[AS_NAME_COUNT]; /* the last value of a field */
    bool repeats[AS_NAME_COUNT];
    PyObject *shown_field[AS_NAME_COUNT]; /* as `shown`, of fields that repeat */
    uint64_t shown_fields;                /* the bits of those that the template has */
    target targets[TARGETS];
    PyObject *server_name, *server_port; /* of the last connection, for the next */
};

/* ---- setting up ---- */

/* "HTTP_NAME" of a field name in any case; new reference. */
static PyObject *http_key(as_slice name) {
    PyObject *key = PyUnicode_New((Py_ssize_t)name.n + 5, 127);
    if (key == NULL) {
        return NULL;
    }
    Py_UCS1 *out = PyUnicode_1BYTE_DATA(key);
    memcpy(out, "HTTP_", 5);
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        out[5 + i] = (Py_UCS1)(c == '-' ? '_' : c >= 'a' && c <= 'z' ? c - 0x20 : c);
    }
    return key;
}

int as__environ_add_names(as_module_state *state) {
    PyObject *content_type = PyUnicode_InternFromString("CONTENT_TYPE");
    if (content_type == NULL) {
        return -1;
    }
    Py_XSETREF(state->name_environ[AS_NAME_CONTENT_TYPE], content_type);
    Py_CLEAR(state->name_environ[AS_NAME_CONTENT_LENGTH]);    /* made from the length of the body */
    Py_CLEAR(state->name_environ[AS_NAME_TRANSFER_ENCODING]); /* undone: the input is the body */
    /* HTTP_PROXY is an environment variable that HTTP clients obey ("httpoxy"). */
    Py_CLEAR(state->name_environ[AS_NAME_PROXY]);
    return 0;
}

/* The stream behind wsgi.errors: sys.stderr, or one that drops all where there is none. */
static PyObject *open_errors(void) {
    PyObject *errors = PySys_GetObject("stderr"); /* borrowed */
    if (errors != NULL && errors != Py_None) {
        return Py_NewRef(errors);
    }
    PyObject *io = PyImport_ImportModule("io");
    if (io == NULL) {
        return NULL;
    }
    errors = PyObject_CallMethod(io, "open", "ss", "/dev/null", "w");
    Py_DECREF(io);
    return errors;
}

/* SCRIPT_NAME as bytes of the wire: UTF-8, without a slash at its end. */
static PyObject *make_root(PyObject *root_path) {
    PyObject *root =
        root_path ? PyUnicode_AsUTF8String(root_path) : PyBytes_FromStringAndSize(NULL, 0);
    if (root == NULL) {
        return NULL;
    }
    Py_ssize_t n = PyBytes_GET_SIZE(root);
    while (n > 0 && PyBytes_AS_STRING(root)[n - 1] == '/') {
        n--;
    }
    PyObject *cut = PyBytes_FromStringAndSize(PyBytes_AS_STRING(root), n);
    Py_DECREF(root);
    return cut;
}

/* Steals `value`; NULL (with an exception) makes it fail. */
static int put(PyObject *dict, PyObject *key, PyObject *value) {
    if (value == NULL) {
        return -1;
    }
    int result = PyDict_SetItem(dict, key, value);
    Py_DECREF(value);
    return result;
}

static int fill_template(as_environ_maker *m, as_server *server) {
    PyObject *t = m->template;
    const keys *k = &m->key;
    as_slice root = {PyBytes_AS_STRING(m->root), (size_t)PyBytes_GET_SIZE(m->root)};
    if (put(t, k->request_method, PyUnicode_InternFromString("GET")) < 0 ||
        put(t, k->script_name, as_latin1(root)) < 0 ||
        put(t, k->path_info, Py_NewRef(m->empty)) < 0 ||
        put(t, k->query_string, Py_NewRef(m->empty)) < 0 ||
        put(t, k->request_uri, Py_NewRef(m->empty)) < 0 ||
        put(t, k->raw_uri, Py_NewRef(m->empty)) < 0 ||
        put(t, k->server_name, Py_NewRef(m->empty)) < 0 ||
        put(t, k->server_port, Py_NewRef(m->empty)) < 0 ||
        put(t, k->server_protocol, PyUnicode_InternFromString("HTTP/1.1")) < 0 ||
        put(t, k->server_software, PyUnicode_InternFromString(SOFTWARE)) < 0 ||
        put(t, k->remote_addr, Py_NewRef(m->empty)) < 0 ||
        put(t, k->wsgi_version, Py_BuildValue("(ii)", 1, 0)) < 0 ||
        put(t, k->wsgi_url_scheme, PyUnicode_InternFromString("http")) < 0 ||
        put(t, k->wsgi_input, as__input_new(m->state, 0, NULL)) < 0 ||
        put(t, k->wsgi_errors, open_errors()) < 0 ||
        put(t, k->wsgi_multithread, PyBool_FromLong(server->nthreads > 1)) < 0 ||
        put(t, k->wsgi_multiprocess, PyBool_FromLong(server->multiprocess)) < 0 ||
        put(t, k->wsgi_run_once, Py_NewRef(Py_False)) < 0 ||
        put(t, k->wsgi_file_wrapper, Py_NewRef((PyObject *)m->state->file_wrapper_type)) < 0 ||
        put(t, k->wsgi_input_terminated, Py_NewRef(Py_True)) < 0) {
        return -1;
    }
    /* A copy of a dict has room for as much as the dict: with its 22nd key it grows to hold 42, so
     * that usual requests fill their copies without growing them. These are taken out again. */
    for (int i = 0; i < 2; i++) {
        if (PyDict_SetItem(t, i ? k->https : k->remote_port, Py_None) < 0) {
            return -1;
        }
    }
    return PyDict_DelItem(t, k->https) < 0 || PyDict_DelItem(t, k->remote_port) < 0 ? -1 : 0;
}

static int make_keys(keys *key) {
#define X(id, text)                                                                                    \
    if ((key->id = PyUnicode_InternFromString(text)) == NULL) {                                        \
        return -1;                                                                                     \
    }
    KEYS(X)
#undef X
    return 0;
}

as_environ_maker *as__environ_maker_new(as_server *server) {
    as_environ_maker *m = PyMem_Calloc(1, sizeof *m);
    if (m == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    m->state = server->state;
#define X(id) m->repeats[AS_NAME_##id] = true;
    AS_REPEATED_NAMES(X)
#undef X
    if (make_keys(&m->key) < 0 || (m->root = make_root(server->root_path)) == NULL ||
        (m->empty = PyUnicode_InternFromString("")) == NULL ||
        (m->http10 = PyUnicode_InternFromString("HTTP/1.0")) == NULL ||
        (m->https = PyUnicode_InternFromString("https")) == NULL ||
        (m->on = PyUnicode_InternFromString("on")) == NULL ||
        (m->zero = PyUnicode_InternFromString("0")) == NULL ||
        (m->template = PyDict_New()) == NULL || fill_template(m, server) < 0) {
        as__environ_maker_free(m);
        return NULL;
    }
    return m;
}

void as__environ_maker_free(as_environ_maker *m) {
    if (m == NULL) {
        return;
    }
    PyObject **key = (PyObject **)&m->key;
    for (size_t i = 0; i < NKEYS; i++) {
        Py_XDECREF(key[i]);
    }
    PyObject *single[] = {m->template, m->root, m->empty,       m->http10,     m->https,
                          m->on,       m->zero, m->server_name, m->server_port};
    for (size_t i = 0; i < sizeof single / sizeof *single; i++) {
        Py_XDECREF(single[i]);
    }
    for (size_t i = 0; i < METHODS; i++) {
        Py_XDECREF(m->method[i]);
    }
    for (size_t i = 0; i < AS_NAME_COUNT; i++) {
        Py_XDECREF(m->repeated[i]);
    }
    for (size_t i = 0; i < TARGETS; i++) {
        Py_XDECREF(m->targets[i].uri);
        Py_XDECREF(m->targets[i].path);
    }
    PyMem_Free(m);
}

int as__environ_maker_traverse(as_environ_maker *m, visitproc visit, void *arg) {
    Py_VISIT(m->template); /* all else are str and bytes */
    return 0;
}

/* Makes the template show `value`. What did not change since the last request costs a comparison,
 * and is in the copy already; so only what the next request is sure to set as well may be shown. */
static int show(as_environ_maker *m, PyObject *key, PyObject **shown, PyObject *value) {
    if (*shown == value) {
        return 0;
    }
    if (PyDict_SetItem(m->template, key, value) < 0) {
        return -1; /* it shows the old one */
    }
    *shown = value;
    return 0;
}

/* The template has no such key any more. */
static int hide(as_environ_maker *m, PyObject *key, PyObject **shown) {
    if (*shown == NULL) {
        return 0;
    }
    if (PyDict_DelItem(m->template, key) < 0) {
        return -1;
    }
    *shown = NULL;
    return 0;
}

#define SHOW(m, id, value) show(m, (m)->key.id, &(m)->shown.id, value)

/* ---- connections ---- */

static bool str_is(PyObject *str, as_slice text) {
    return str != NULL && (size_t)PyUnicode_GET_LENGTH(str) == text.n &&
           memcmp(PyUnicode_1BYTE_DATA(str), text.p, text.n) == 0;
}

static void connection_free(connection *c) {
    Py_XDECREF(c->remote_addr);
    Py_XDECREF(c->remote_port);
    Py_XDECREF(c->server_name);
    Py_XDECREF(c->server_port);
    Py_XDECREF(c->tls);
    PyMem_Free(c);
}

/* The str in `*last` if it is `text`, else a new one that becomes the last; new reference. */
static PyObject *same_str(PyObject **last, as_slice text) {
    if (!str_is(*last, text)) {
        PyObject *str = as_latin1(text);
        if (str == NULL) {
            return NULL;
        }
        Py_XSETREF(*last, str);
    }
    return Py_NewRef(*last);
}

/* SERVER_NAME and SERVER_PORT. They are never empty (PEP 3333), and never taken from a client that
 * is no trusted proxy: an application that wants to know how it was addressed reads HTTP_HOST. */
static int name_server(as_environ_maker *m, const as_conn_info *info, connection *c) {
    char name[80], port[8];
    if (info->is_unix || *info->server == '\0') {
        snprintf(name, sizeof name, "localhost");
        snprintf(port, sizeof port, info->is_tls ? "443" : "80");
    } else {
        /* RFC 3875, 4.1.14: an IPv6 address is in brackets. */
        bool v6 = strchr(info->server, ':') != NULL;
        snprintf(name, sizeof name, "%s%s%s", v6 ? "[" : "", info->server, v6 ? "]" : "");
        snprintf(port, sizeof port, "%u", (unsigned)info->server_port);
    }
    c->server_name = same_str(&m->server_name, (as_slice){name, strlen(name)});
    c->server_port = same_str(&m->server_port, (as_slice){port, strlen(port)});
    return c->server_name && c->server_port ? 0 : -1;
}

/* NULL: there is none. */
static int put_text(PyObject *dict, const char *key, const char *text) {
    PyObject *value = text != NULL ? as_latin1((as_slice){text, strlen(text)}) : NULL;
    int result = value != NULL ? PyDict_SetItemString(dict, key, value) : text != NULL ? -1 : 0;
    Py_XDECREF(value);
    return result;
}

/* One that is not believed has ended the handshake. */
static int put_verify(PyObject *dict, const as_tls_info *tls) {
    PyObject *text = PyUnicode_FromString(tls->nclient_chain == 0 ? "NONE" : "SUCCESS");
    int result = text != NULL ? PyDict_SetItemString(dict, "SSL_CLIENT_VERIFY", text) : -1;
    Py_XDECREF(text);
    return result;
}

static PyObject *make_tls(as_tls *source) {
    const as_tls_info *tls = as_tls_describe(source);
    if (tls == NULL) {
        return PyErr_NoMemory();
    }
    PyObject *dict = PyDict_New();
    if (dict == NULL || put_verify(dict, tls) < 0) {
        Py_CLEAR(dict);
    }
#define X(key, text)                                                                                   \
    if (dict != NULL && put_text(dict, key, text) < 0) {                                               \
        Py_CLEAR(dict);                                                                                \
    }
    TLS_KEYS(X)
#undef X
    return dict;
}

static connection *connection_new(as_environ_maker *m, const as_conn_info *info) {
    connection *c = PyMem_Calloc(1, sizeof *c);
    if (c == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    c->remote_addr = as_latin1((as_slice){info->client, strlen(info->client)});
    c->remote_port = PyUnicode_FromFormat("%u", (unsigned)info->client_port);
    if (c->remote_addr == NULL || c->remote_port == NULL || name_server(m, info, c) < 0 ||
        (info->tls != NULL && (c->tls = make_tls(info->tls)) == NULL)) {
        connection_free(c);
        return NULL;
    }
    return c;
}

void as__environ_forget_connection(as_conn_info *info) {
    if (info->gateway != NULL) {
        connection_free(info->gateway);
        info->gateway = NULL;
    }
}

static connection *find_connection(as_environ_maker *m, as_conn_info *info) {
    if (info->gateway == NULL) {
        info->gateway = connection_new(m, info);
    }
    return info->gateway;
}

static int show_connection(as_environ_maker *m, as_conn_info *info) {
    const connection *c = find_connection(m, info);
    return c == NULL || SHOW(m, server_name, c->server_name) < 0 ||
                   SHOW(m, server_port, c->server_port) < 0 ||
                   SHOW(m, remote_addr, c->remote_addr) < 0 ||
                   (info->is_unix ? hide(m, m->key.remote_port, &m->shown.remote_port)
                                  : SHOW(m, remote_port, c->remote_port)) < 0
               ? -1
               : 0;
}

static int put_number(PyObject *environ, PyObject *key, unsigned number) {
    return put(environ, key, PyUnicode_FromFormat("%u", number));
}

/* As a proxy tells it, over what the template shows of the proxy's connection. */
static int set_server(as_environ_maker *m, PyObject *environ, const as_exchange *ex) {
    const as_conn_info *info = ex->info;
    as_slice host = as_head_slice(ex->head, ex->head->host);
    if (host.n > 0) {
        PyObject *name = as_latin1(host);
        if (name != NULL && memchr(host.p, ':', host.n) != NULL) {
            Py_SETREF(name, PyUnicode_FromFormat("[%U]", name));
        }
        if (put(environ, m->key.server_name, name) < 0) {
            return -1;
        }
    }
    if (info->server_port == info->via->server_port && !info->via->is_unix) {
        return 0;
    }
    unsigned usual = info->is_tls ? 443 : 80; /* for a Unix socket, which has none */
    return put_number(environ, m->key.server_port, info->server_port ? info->server_port : usual);
}

/* The same for the client, whose port proxies seldom tell. */
static int set_client(as_environ_maker *m, PyObject *environ, const as_conn_info *info) {
    if (put(environ, m->key.remote_addr,
            as_latin1((as_slice){info->client, strlen(info->client)})) < 0) {
        return -1;
    }
    if (info->client_port) {
        return put_number(environ, m->key.remote_port, info->client_port);
    }
    return info->via->is_unix ? 0 : PyDict_DelItem(environ, m->key.remote_port);
}

/* What some connections, or requests of a proxy, have and others have not. */
static int set_connection(as_environ_maker *m, PyObject *environ, const as_exchange *ex) {
    const as_conn_info *info = ex->info;
    const connection *c = info->via != NULL ? info->via->gateway : info->gateway;
    const keys *k = &m->key;
    if (c->tls != NULL && PyDict_Update(environ, c->tls) < 0) {
        return -1;
    }
    if (info->via != NULL && (set_server(m, environ, ex) < 0 || set_client(m, environ, info) < 0)) {
        return -1;
    }
    if (info->is_tls && (PyDict_SetItem(environ, k->wsgi_url_scheme, m->https) < 0 ||
                         PyDict_SetItem(environ, k->https, m->on) < 0)) {
        return -1;
    }
    return 0;
}

/* ---- the request line ---- */

/* PATH_INFO: decoded, and without SCRIPT_NAME when the path lies below it. A proxy may have taken
 * the prefix off already; then the path stays as it is. New reference. */
static PyObject *make_path_info(as_slice root, as_slice path) {
    char *decoded = NULL;
    if (!as_path_is_plain(path)) {
        decoded = PyMem_Malloc(path.n);
        if (decoded == NULL) {
            return PyErr_NoMemory();
        }
        path = (as_slice){decoded, as_percent_decode(path, decoded)};
    }
    if (root.n > 0 && path.n >= root.n && memcmp(path.p, root.p, root.n) == 0 &&
        (path.n == root.n || path.p[root.n] == '/')) {
        path.p += root.n;
        path.n -= root.n;
    }
    PyObject *str = as_latin1(path);
    PyMem_Free(decoded);
    return str;
}

/* What SCRIPT_NAME says: what a proxy names takes the place of what is configured. */
static as_slice root_of(const as_environ_maker *m, const as_head *head) {
    return head->prefix.len > 0
               ? as_head_slice(head, head->prefix)
               : (as_slice){PyBytes_AS_STRING(m->root), (size_t)PyBytes_GET_SIZE(m->root)};
}

static size_t hash_target(as_slice s) {
    uint64_t h = s.n;
    for (size_t i = 0; i < s.n; i++) {
        h = (h ^ (uint8_t)s.p[i]) * UINT64_C(0x100000001b3);
    }
    return (size_t)(h ^ (h >> 32)) & (TARGETS - 1);
}

static int make_target(const as_environ_maker *m, const as_head *head, target *out) {
    as_slice uri = as_head_slice(head, head->target), path = as_head_slice(head, head->path);
    as_slice root = root_of(m, head);
    out->uri = as_latin1(uri);
    if (out->uri == NULL) {
        return -1;
    }
    if (root.n == 0 && as_slice_eq(uri, path) && as_path_is_plain(path)) {
        out->path = Py_NewRef(out->uri);
        return 0;
    }
    out->path = make_path_info(root, path);
    if (out->path == NULL) {
        Py_CLEAR(out->uri);
        return -1;
    }
    return 0;
}

/* Targets with a query differ too often to be kept, and may bear what should not stay in memory.
 * With a prefix of its own, a request has a path of its own. */
static bool is_kept_target(const as_head *head) {
    return head->query.len == 0 && head->prefix.len == 0 && head->target.len <= TARGET_MAX;
}

static int show_target(as_environ_maker *m, const as_head *head) {
    as_slice uri = as_head_slice(head, head->target);
    target *slot = &m->targets[hash_target(uri)];
    if (!str_is(slot->uri, uri)) {
        target fresh;
        if (make_target(m, head, &fresh) < 0) {
            return -1;
        }
        Py_XSETREF(slot->uri, fresh.uri);
        Py_XSETREF(slot->path, fresh.path);
    }
    return SHOW(m, path_info, slot->path) < 0 || SHOW(m, request_uri, slot->uri) < 0 ||
                   SHOW(m, raw_uri, slot->uri) < 0
               ? -1
               : 0;
}

static int set_target(as_environ_maker *m, PyObject *environ, const as_head *head) {
    const keys *k = &m->key;
    target t;
    if (make_target(m, head, &t) < 0) {
        return -1;
    }
    int result = PyDict_SetItem(environ, k->path_info, t.path) < 0 ||
                         PyDict_SetItem(environ, k->request_uri, t.uri) < 0 ||
                         PyDict_SetItem(environ, k->raw_uri, t.uri) < 0
                     ? -1
                     : 0;
    Py_DECREF(t.uri);
    Py_DECREF(t.path);
    if (result == 0 && head->prefix.len > 0) {
        result = put(environ, k->script_name, as_latin1(as_head_slice(head, head->prefix)));
    }
    if (result < 0 || head->query.len == 0) {
        return result;
    }
    return put(environ, k->query_string, as_latin1(as_head_slice(head, head->query)));
}

/* The template says GET. */
static int set_method(as_environ_maker *m, PyObject *environ, const as_head *head) {
    as_slice method = as_head_slice(head, head->method);
    if (as_slice_eq(method, AS_SLICE("GET"))) {
        return 0;
    }
    PyObject **slot = head->method_id < METHODS ? &m->method[head->method_id] : NULL;
    if (slot != NULL && str_is(*slot, method)) {
        return PyDict_SetItem(environ, m->key.request_method, *slot);
    }
    PyObject *str = as_latin1(method);
    if (str != NULL && slot != NULL) {
        Py_XSETREF(*slot, Py_NewRef(str));
    }
    return put(environ, m->key.request_method, str);
}

/* ---- fields ---- */

_Static_assert(AS_NAME_COUNT <= 64, "a bit for each");

static bool may_show(const as_environ_maker *m, const as_field *field) {
    return m->repeats[field->name_id] && field->value_len <= REPEATED_MAX;
}

/* A field that repeats: the template shows it from here on. */
static int show_field(as_environ_maker *m, const as_head *head, const as_field *field) {
    unsigned id = field->name_id;
    as_slice text = as_field_value(head, field);
    if (!str_is(m->repeated[id], text)) {
        PyObject *value = as_latin1(text);
        if (value == NULL) {
            return -1;
        }
        Py_XSETREF(m->repeated[id], value);
    }
    if (show(m, m->state->name_environ[id], &m->shown_field[id], m->repeated[id]) < 0) {
        return -1;
    }
    m->shown_fields |= UINT64_C(1) << id;
    return 0;
}

/* The first line of each field that repeats; those that this request does not have are hidden. */
static int show_fields(as_environ_maker *m, const as_head *head) {
    uint64_t seen = 0;
    for (const as_field *f = head->fields, *end = f + head->nfields; f < end; f++) {
        uint64_t bit = UINT64_C(1) << f->name_id;
        if ((seen & bit) == 0 && may_show(m, f) && show_field(m, head, f) < 0) {
            return -1;
        }
        seen |= may_show(m, f) ? bit : 0;
    }
    uint64_t gone = m->shown_fields & ~seen;
    for (unsigned id = 0; gone != 0; id++, gone >>= 1) {
        if ((gone & 1) != 0) {
            if (hide(m, m->state->name_environ[id], &m->shown_field[id]) < 0) {
                return -1;
            }
            m->shown_fields &= ~(UINT64_C(1) << id);
        }
    }
    return 0;
}

/* A field line that came before: joined as RFC 9110, 5.3 and, for Cookie, RFC 6265, 5.4 say. */
static int join(PyObject *environ, PyObject *key, PyObject *value, bool is_cookie) {
    PyObject *before = PyDict_GetItemWithError(environ, key); /* borrowed */
    if (before == NULL) {
        return PyErr_Occurred() ? -1 : PyDict_SetItem(environ, key, value);
    }
    return put(environ, key, PyUnicode_FromFormat(is_cookie ? "%U; %U" : "%U,%U", before, value));
}

/* A field without a row in the table of names. With an underscore in its name it could pass for
 * another one ("X_Real_IP" for "X-Real-IP", which a proxy sets and trusts): it is left out. */
static int set_other(PyObject *environ, as_slice name, as_slice text) {
    if (memchr(name.p, '_', name.n) != NULL) {
        return 0;
    }
    PyObject *key = http_key(name), *value = as_latin1(text);
    int result = key != NULL && value != NULL ? join(environ, key, value, false) : -1;
    Py_XDECREF(key);
    Py_XDECREF(value);
    return result;
}

/* "Content-Length: 0" is no body, but it was said. The others without a key are left out. */
static int set_keyless(as_environ_maker *m, PyObject *environ, const as_head *head, unsigned id) {
    return id == AS_NAME_CONTENT_LENGTH && head->body == AS_BODY_NONE
               ? PyDict_SetItem(environ, m->key.content_length, m->zero)
               : 0;
}

/* What the template does not show of the fields. */
static int set_field(as_environ_maker *m, PyObject *environ, const as_head *head,
                     const as_field *field, bool is_first) {
    unsigned id = field->name_id;
    as_slice text = as_field_value(head, field);
    if (id == AS_NAME_OTHER) {
        return set_other(environ, as_field_name(head, field), text);
    }
    PyObject *key = m->state->name_environ[id];
    if (key == NULL) {
        return set_keyless(m, environ, head, id);
    }
    PyObject *value = as_latin1(text);
    if (is_first) {
        return put(environ, key, value);
    }
    int result = value != NULL ? join(environ, key, value, id == AS_NAME_COOKIE) : -1;
    Py_XDECREF(value);
    return result;
}

static int set_fields(as_environ_maker *m, PyObject *environ, const as_head *head) {
    uint64_t seen = 0;
    for (const as_field *f = head->fields, *end = f + head->nfields; f < end; f++) {
        uint64_t bit = UINT64_C(1) << f->name_id;
        bool is_first = (seen & bit) == 0;
        seen |= bit;
        if (!(is_first && may_show(m, f)) && set_field(m, environ, head, f, is_first) < 0) {
            return -1;
        }
    }
    return 0;
}

/* RFC 9112, 3.2.2: with a target in absolute form the Host field is ignored. */
static int set_authority(as_environ_maker *m, PyObject *environ, const as_head *head) {
    PyObject *key = m->state->name_environ[AS_NAME_HOST];
    return put(environ, key, as_latin1(as_head_slice(head, head->authority)));
}

/* The body is here in full, so its length is known for chunked requests, too, and is given: many
 * applications read nothing without CONTENT_LENGTH. HTTP_TRANSFER_ENCODING is left out, as PEP 3333
 * has the server undo the coding; with it some would not trust the length. */
static int set_input(as_environ_maker *m, PyObject *environ, const as_head *head, PyObject *input) {
    if (head->body == AS_BODY_NONE) {
        return 0;
    }
    uint64_t size = input ? as__input_size(input) : 0;
    PyObject *length =
        size ? PyUnicode_FromFormat("%llu", (unsigned long long)size) : Py_NewRef(m->zero);
    if (put(environ, m->key.content_length, length) < 0) {
        return -1;
    }
    return input ? PyDict_SetItem(environ, m->key.wsgi_input, input) : 0;
}

/* A copy of the template once that shows what all requests have. */
static PyObject *copy_template(as_environ_maker *m, const as_exchange *ex) {
    as_conn_info *info = ex->info->via != NULL ? ex->info->via : ex->info;
    if (show_connection(m, info) < 0 || show_fields(m, ex->head) < 0 ||
        (is_kept_target(ex->head) && show_target(m, ex->head) < 0)) {
        return NULL;
    }
    return PyDict_Copy(m->template);
}

PyObject *as__environ_new(as_environ_maker *m, const as_exchange *ex, PyObject *input) {
    const as_head *head = ex->head;
    PyObject *environ = copy_template(m, ex);
    if (environ == NULL) {
        return NULL;
    }
    if ((!is_kept_target(head) && set_target(m, environ, head) < 0) ||
        set_method(m, environ, head) < 0 || set_connection(m, environ, ex) < 0 ||
        set_fields(m, environ, head) < 0 ||
        (head->authority.len > 0 && set_authority(m, environ, head) < 0) ||
        (head->minor == 0 && PyDict_SetItem(environ, m->key.server_protocol, m->http10) < 0) ||
        set_input(m, environ, head, input) < 0) {
        Py_DECREF(environ);
        return NULL;
    }
    return environ;
}

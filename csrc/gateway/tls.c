#include "gateway/tls.h"

#define INTERVAL_MAX 86400.0 /* seconds */

typedef struct context_object {
    PyObject_HEAD
    as_tls_context *context;
} context_object;

/* --- arguments -------------------------------------------------------------------------------- */

/* What the settings point into. */
typedef struct context_args {
    PyObject *certfile, *keyfile, *ca_certs, *sni_dir; /* bytes of paths, new; NULL: none */
    PyObject *alpn;                                    /* bytes, new */
} context_args;

static void free_args(context_args *args) {
    Py_XDECREF(args->certfile);
    Py_XDECREF(args->keyfile);
    Py_XDECREF(args->ca_certs);
    Py_XDECREF(args->sni_dir);
    Py_XDECREF(args->alpn);
}

/* For PyArg_Parse: like PyUnicode_FSConverter, but None is NULL. */
static int convert_path(PyObject *object, void *out) {
    if (object == Py_None) {
        *(PyObject **)out = NULL;
        return 1;
    }
    return PyUnicode_FSConverter(object, out);
}

static const char *text_of(PyObject *bytes) {
    return bytes != NULL ? PyBytes_AS_STRING(bytes) : NULL;
}

/* Appends one name, with its length before it (RFC 7301, 3.1). */
static int append_protocol(PyObject *list, PyObject *name) {
    Py_ssize_t n;
    const char *text = PyUnicode_Check(name) ? PyUnicode_AsUTF8AndSize(name, &n) : NULL;
    if (text == NULL || n < 1 || n > 255) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_TypeError, "alpn: names of 1 to 255 bytes expected");
        }
        return -1;
    }
    Py_ssize_t at = PyByteArray_GET_SIZE(list);
    if (PyByteArray_Resize(list, at + 1 + n) < 0) {
        return -1;
    }
    PyByteArray_AS_STRING(list)[at] = (char)(unsigned char)n;
    memcpy(PyByteArray_AS_STRING(list) + at + 1, text, (size_t)n);
    return 0;
}

/* New bytes, as ALPN is on the wire. */
static PyObject *join_protocols(PyObject *names) {
    if (names == NULL) {
        return PyBytes_FromString("\x08http/1.1\x08http/1.0");
    }
    PyObject *tuple = PyUnicode_Check(names) ? NULL : PySequence_Tuple(names);
    PyObject *list = tuple != NULL ? PyByteArray_FromStringAndSize(NULL, 0) : NULL;
    int result = list != NULL ? 0 : -1;
    if (tuple == NULL && !PyErr_Occurred()) {
        PyErr_SetString(PyExc_TypeError, "alpn: a sequence of str expected");
    }
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(tuple); i++) {
        result = append_protocol(list, PyTuple_GET_ITEM(tuple, i));
    }
    PyObject *bytes = result == 0 ? PyBytes_FromObject(list) : NULL;
    Py_XDECREF(list);
    Py_XDECREF(tuple);
    return bytes;
}

/* str or bytes, borrowed from the object; `p` stays NULL for None. */
static int read_password(PyObject *object, as_slice *out) {
    Py_ssize_t n = 0;
    const char *text = NULL;
    if (object == NULL || object == Py_None) {
        return 0;
    }
    if (PyBytes_Check(object)) {
        text = PyBytes_AS_STRING(object);
        n = PyBytes_GET_SIZE(object);
    } else if (PyUnicode_Check(object)) {
        text = PyUnicode_AsUTF8AndSize(object, &n);
    } else {
        PyErr_SetString(PyExc_TypeError, "password: str or bytes expected");
    }
    *out = (as_slice){text, (size_t)n};
    return text != NULL ? 0 : -1;
}

static int read_ticket_key(const char *key, Py_ssize_t n, as_tls_settings *out) {
    if (key != NULL && (size_t)n != AS_TLS_TICKET_KEY) {
        PyErr_Format(PyExc_ValueError, "ticket_key must have %d bytes, not %zd",
                     (int)AS_TLS_TICKET_KEY, n);
        return -1;
    }
    out->ticket_key = (const unsigned char *)key;
    return 0;
}

static int read_numbers(int cert_reqs, int min_version, double interval, as_tls_settings *out) {
    if (cert_reqs < AS_TLS_VERIFY_NONE || cert_reqs > AS_TLS_VERIFY_REQUIRED) {
        PyErr_Format(PyExc_ValueError, "cert_reqs must be 0, 1 or 2, not %d", cert_reqs);
        return -1;
    }
    if (!(interval >= 0 && interval <= INTERVAL_MAX)) {
        PyErr_SetString(PyExc_ValueError, "reload_interval must be from 0 to 86400 seconds");
        return -1;
    }
    out->verify = (as_tls_verify)cert_reqs;
    out->min_version = (unsigned)min_version;
    out->reload_interval = (uint32_t)(interval * 1000);
    if (interval > 0 && out->reload_interval == 0) {
        out->reload_interval = 1;
    }
    return 0;
}

static int read_settings(PyObject *args, PyObject *kwargs, context_args *own,
                         as_tls_settings *out) {
    static char *keywords[] = {"certfile",   "keyfile", "password",        "ca_certs",
                               "cert_reqs",  "ciphers", "min_version",     "sni_dir",
                               "ticket_key", "alpn",    "reload_interval", NULL};
    PyObject *password = NULL, *alpn = NULL;
    const char *key = NULL;
    Py_ssize_t key_len = 0;
    int cert_reqs = 0, min_version = AS_TLS_1_2;
    double interval = 5;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O&|O&OO&iziO&z#Od:TLSContext", keywords,
                                     PyUnicode_FSConverter, &own->certfile, convert_path,
                                     &own->keyfile, &password, convert_path, &own->ca_certs,
                                     &cert_reqs, &out->ciphers, &min_version, convert_path,
                                     &own->sni_dir, &key, &key_len, &alpn, &interval)) {
        return -1;
    }
    out->certfile = text_of(own->certfile);
    out->keyfile = text_of(own->keyfile);
    out->ca_certs = text_of(own->ca_certs);
    out->sni_dir = text_of(own->sni_dir);
    own->alpn = join_protocols(alpn);
    if (own->alpn == NULL) {
        return -1;
    }
    out->alpn = (as_slice){PyBytes_AS_STRING(own->alpn), (size_t)PyBytes_GET_SIZE(own->alpn)};
    return read_password(password, &out->password) < 0 || read_ticket_key(key, key_len, out) < 0 ||
                   read_numbers(cert_reqs, min_version, interval, out) < 0
               ? -1
               : 0;
}

/* --- the type --------------------------------------------------------------------------------- */

static void raise_tls(const as_module_state *state, as_err err, const char *why) {
    if (err == AS_E_NOMEM) {
        PyErr_NoMemory();
        return;
    }
    PyObject *text = PyUnicode_DecodeFSDefault(why);
    if (text != NULL) {
        PyErr_SetObject(state->tls_error, text);
        Py_DECREF(text);
    }
}

static PyObject *context_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    const as_module_state *state = PyType_GetModuleState(type);
    context_args own = {NULL, NULL, NULL, NULL, NULL};
    as_tls_settings settings = {0};
    as_tls_context *context = NULL;
    char why[AS_TLS_WHY] = "";
    if (read_settings(args, kwargs, &own, &settings) == 0) {
        as_err err;
        Py_BEGIN_ALLOW_THREADS;
        err = as_tls_context_new(&settings, &context, why);
        Py_END_ALLOW_THREADS;
        if (err != AS_OK) {
            raise_tls(state, err, why);
        }
    }
    free_args(&own);
    context_object *self = context != NULL ? (context_object *)type->tp_alloc(type, 0) : NULL;
    if (self == NULL) {
        as_tls_context_unref(context);
        return NULL;
    }
    self->context = context;
    return (PyObject *)self;
}

static void context_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    as_tls_context_unref(((context_object *)op)->context);
    type->tp_free(op);
    Py_DECREF(type);
}

/* (path, [names], not_after) */
static PyObject *describe(const as_tls_certificate *certificate) {
    PyObject *names = PyList_New(0);
    for (size_t i = 0; names != NULL && i < certificate->nnames; i++) {
        PyObject *name =
            as_latin1((as_slice){certificate->names[i], strlen(certificate->names[i])});
        if (name == NULL || PyList_Append(names, name) < 0) {
            Py_CLEAR(names);
        }
        Py_XDECREF(name);
    }
    PyObject *path = names != NULL ? PyUnicode_DecodeFSDefault(certificate->path) : NULL;
    if (path == NULL) {
        Py_XDECREF(names);
        return NULL;
    }
    return Py_BuildValue("(NNs)", path, names, certificate->not_after);
}

static PyObject *context_get_certificates(PyObject *op, void *Py_UNUSED(closure)) {
    size_t n;
    const as_tls_certificate *certificates =
        as_tls_context_certificates(((context_object *)op)->context, &n);
    PyObject *list = PyList_New((Py_ssize_t)n);
    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *row = describe(&certificates[i]);
        if (row == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, row);
        }
    }
    return list;
}

static PyObject *context_get_warnings(PyObject *op, void *Py_UNUSED(closure)) {
    PyObject *text =
        PyUnicode_DecodeFSDefault(as_tls_context_warnings(((context_object *)op)->context));
    PyObject *lines = text != NULL ? PyUnicode_Splitlines(text, 0) : NULL;
    Py_XDECREF(text);
    return lines;
}

static PyGetSetDef context_getset[] = {
    {"certificates", context_get_certificates, NULL,
     "(path, names, end of validity as ISO 8601) of each; the default one is the first.", NULL},
    {"warnings", context_get_warnings, NULL, "Pairs of sni_dir that were left out, and why.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot context_slots[] = {
    {Py_tp_doc, "Certificates, keys and rules of TLS sockets."},
    {Py_tp_new, context_new},
    {Py_tp_dealloc, context_dealloc},
    {Py_tp_getset, context_getset},
    {0, NULL},
};

static PyType_Spec context_spec = {
    .name = "asgiserver._core.TLSContext",
    .basicsize = sizeof(context_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = context_slots,
};

int as_tls_add_types(PyObject *module, as_module_state *state) {
    state->tls_error = PyErr_NewExceptionWithDoc(
        "asgiserver._core.TLSError", "Certificates, keys or rules of TLS that cannot be used.",
        PyExc_ValueError, NULL);
    if (state->tls_error == NULL ||
        PyModule_AddObjectRef(module, "TLSError", state->tls_error) < 0) {
        return -1;
    }
    state->tls_context_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &context_spec, NULL);
    return state->tls_context_type != NULL ? PyModule_AddType(module, state->tls_context_type) : -1;
}

as_tls_context *as_tls_context_of(as_module_state *state, PyObject *object) {
    if (Py_TYPE(object) != state->tls_context_type) {
        PyErr_Format(PyExc_TypeError, "a TLSContext expected, not %.100s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return ((context_object *)object)->context;
}

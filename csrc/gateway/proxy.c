#include "gateway/proxy.h"

typedef struct as_proxy {
    as_forwarding forwarding;
    as_trust protocol_trust;
    as_proxy_mode protocol;
    PyObject *schemes; /* tuple: owns the bytes that forwarding.schemes points to */
} as_proxy;

/* A tuple of pairs; NULL with an exception. New reference. */
static PyObject *read_pairs(PyObject *sequence) {
    PyObject *pairs = PySequence_Tuple(sequence);
    for (Py_ssize_t i = 0; pairs != NULL && i < PyTuple_GET_SIZE(pairs); i++) {
        if (!PyTuple_Check(PyTuple_GET_ITEM(pairs, i))) {
            PyErr_SetString(PyExc_TypeError, "proxy: a tuple expected");
            Py_CLEAR(pairs);
        }
    }
    return pairs;
}

/* From a sequence of (bytes of the address, bits of the prefix). */
static int read_networks(PyObject *networks, as_trust *trust) {
    PyObject *tuple = read_pairs(networks);
    int result = tuple != NULL ? 0 : -1;
    for (Py_ssize_t i = 0; result == 0 && i < PyTuple_GET_SIZE(tuple); i++) {
        const char *bytes;
        Py_ssize_t n;
        unsigned char prefix;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(tuple, i), "y#b", &bytes, &n, &prefix)) {
            result = -1;
            break;
        }
        as_err err = as_trust_add(trust, bytes, (size_t)n, prefix);
        if (err == AS_E_NOMEM) {
            PyErr_NoMemory();
        } else if (err != AS_OK) {
            PyErr_SetString(PyExc_ValueError, "proxy: not a network");
        }
        result = err == AS_OK ? 0 : -1;
    }
    Py_XDECREF(tuple);
    return result;
}

/* From a sequence of (name, value), both bytes. */
static int read_schemes(as_proxy *proxy, PyObject *pairs) {
    proxy->schemes = read_pairs(pairs);
    if (proxy->schemes == NULL) {
        return -1;
    }
    size_t n = (size_t)PyTuple_GET_SIZE(proxy->schemes);
    as_scheme_field *rows = PyMem_Calloc(n + 1, sizeof(*rows));
    if (rows == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    proxy->forwarding.schemes = rows;
    proxy->forwarding.nschemes = n;
    for (size_t i = 0; i < n; i++) {
        PyObject *name, *value;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(proxy->schemes, (Py_ssize_t)i), "SS", &name,
                              &value)) {
            return -1;
        }
        rows[i].name = (as_slice){PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)};
        rows[i].value = (as_slice){PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value)};
    }
    return 0;
}

static int read_protocol(const char *word, as_proxy_mode *mode) {
    static const char *const words[] = {[AS_PROXY_OFF] = "off",
                                        [AS_PROXY_V1] = "v1",
                                        [AS_PROXY_V2] = "v2",
                                        [AS_PROXY_AUTO] = "auto"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp(word, words[i]) == 0) {
            *mode = (as_proxy_mode)i;
            return 0;
        }
    }
    PyErr_Format(PyExc_ValueError, "proxy: no such protocol: %s", word);
    return -1;
}

static int read_settings(as_proxy *proxy, PyObject *settings) {
    static char *keywords[] = {"trusted",  "fields",           "schemes",
                               "protocol", "protocol_trusted", NULL};
    PyObject *trusted = NULL, *schemes = NULL, *protocol_trusted = NULL;
    const char *protocol = "off";
    int fields = 0;
    PyObject *none = PyTuple_New(0);
    if (none == NULL) {
        return -1;
    }
    int parsed = PyArg_ParseTupleAndKeywords(none, settings, "|$OpOsO:proxy", keywords, &trusted,
                                             &fields, &schemes, &protocol, &protocol_trusted);
    Py_DECREF(none);
    if (!parsed || read_protocol(protocol, &proxy->protocol) < 0) {
        return -1;
    }
    proxy->forwarding.fields = fields != 0;
    protocol_trusted = protocol_trusted != NULL ? protocol_trusted : trusted;
    if ((trusted != NULL && read_networks(trusted, &proxy->forwarding.trust) < 0) ||
        (schemes != NULL && read_schemes(proxy, schemes) < 0)) {
        return -1;
    }
    return protocol_trusted != NULL ? read_networks(protocol_trusted, &proxy->protocol_trust) : 0;
}

struct as_proxy *as_proxy_new(PyObject *settings) {
    if (!PyDict_Check(settings)) {
        PyErr_SetString(PyExc_TypeError, "proxy must be a dict");
        return NULL;
    }
    as_proxy *proxy = PyMem_Calloc(1, sizeof(*proxy));
    if (proxy == NULL) {
        PyErr_NoMemory();
    } else if (read_settings(proxy, settings) < 0) {
        as_proxy_free(proxy);
        proxy = NULL;
    }
    return proxy;
}

void as_proxy_free(struct as_proxy *proxy) {
    if (proxy != NULL) {
        as_trust_fini(&proxy->forwarding.trust);
        as_trust_fini(&proxy->protocol_trust);
        PyMem_Free((void *)proxy->forwarding.schemes);
        Py_XDECREF(proxy->schemes);
        PyMem_Free(proxy);
    }
}

void as_proxy_configure(const struct as_proxy *proxy, as_loop_config *config) {
    if (proxy != NULL) {
        bool believed = proxy->forwarding.fields || proxy->forwarding.nschemes > 0;
        config->forwarding = believed ? &proxy->forwarding : NULL;
        config->proxy_protocol = proxy->protocol;
        config->proxy_trust = &proxy->protocol_trust;
    }
}

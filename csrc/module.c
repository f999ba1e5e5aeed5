/* The extension module asgiserver._core: multi-phase initialisation, all state in the module. */
#include <llhttp.h>
#include <uv.h>

#include "gateway/access_log.h"
#include "gateway/server.h"
#include "gateway/tls.h"

static as_module_state *state_of(PyObject *module) {
    return (as_module_state *)PyModule_GetState(module);
}

static int add_strings(as_module_state *state) {
#define X(name)                                                                                        \
    if ((state->str.name = PyUnicode_InternFromString(#name)) == NULL) {                               \
        return -1;                                                                                     \
    }
    AS_STRINGS(X)
#undef X
    return 0;
}

/* "HTTP_ACCEPT_ENCODING" for accept-encoding; NULL with an exception. */
static PyObject *environ_name(as_slice name) {
    char text[64] = "HTTP_";
    size_t n = 5;
    for (size_t i = 0; i < name.n && n < sizeof(text); i++, n++) {
        char c = name.p[i];
        text[n] = c == '-' ? '_' : (c >= 'a' && c <= 'z') ? (char)(c - 32) : c;
    }
    PyObject *str = PyUnicode_FromStringAndSize(text, (Py_ssize_t)n);
    if (str != NULL) {
        PyUnicode_InternInPlace(&str);
    }
    return str;
}

static int add_names(as_module_state *state) {
    for (int id = AS_NAME_OTHER + 1; id < AS_NAME_COUNT; id++) {
        as_slice name = as_name_text((as_name_id)id);
        if ((state->name_bytes[id] = as_pybytes(name)) == NULL ||
            (state->name_environ[id] = environ_name(name)) == NULL) {
            return -1;
        }
    }
    return 0;
}

static int add_exception(PyObject *module, as_module_state *state) {
    state->client_disconnected = PyErr_NewExceptionWithDoc(
        "asgiserver._core.ClientDisconnected", "Raised by send() when the client has left.",
        PyExc_OSError, NULL);
    if (state->client_disconnected == NULL) {
        return -1;
    }
    return PyModule_AddObjectRef(module, "ClientDisconnected", state->client_disconnected);
}

static int add_versions(PyObject *module) {
    char llhttp[32];
    PyOS_snprintf(llhttp, sizeof(llhttp), "%d.%d.%d", LLHTTP_VERSION_MAJOR, LLHTTP_VERSION_MINOR,
                  LLHTTP_VERSION_PATCH);
    if (PyModule_AddStringConstant(module, "LLHTTP_VERSION", llhttp) < 0) {
        return -1;
    }
    if (PyModule_AddStringConstant(module, "OPENSSL_VERSION", as_tls_library()) < 0) {
        return -1;
    }
    return PyModule_AddStringConstant(module, "LIBUV_VERSION", uv_version_string());
}

static int module_exec(PyObject *module) {
    as_module_state *state = state_of(module);
    if (add_strings(state) < 0 || add_names(state) < 0 || add_exception(module, state) < 0 ||
        add_versions(module) < 0 ||
        (state->empty_bytes = PyBytes_FromStringAndSize(NULL, 0)) == NULL ||
        (state->context_keyword = Py_BuildValue("(s)", "context")) == NULL) {
        return -1;
    }
    if (as_server_add_type(module, state) < 0 || as_asgi_add_types(module, state) < 0) {
        return -1;
    }
    return as_tls_add_types(module, state) < 0 ? -1 : as_wsgi_add_types(module, state);
}

static int module_traverse(PyObject *module, visitproc visit, void *arg) {
    as_module_state *state = state_of(module);
#define X(name) Py_VISIT(state->name);
    AS_MODULE_OBJECTS(X)
#undef X
    return 0;
}

static int module_clear(PyObject *module) {
    as_module_state *state = state_of(module);
#define X(name) Py_CLEAR(state->name);
    AS_MODULE_OBJECTS(X)
#undef X
#define X(name) Py_CLEAR(state->str.name);
    AS_STRINGS(X)
#undef X
    for (int id = 0; id < AS_NAME_COUNT; id++) {
        Py_CLEAR(state->name_bytes[id]);
        Py_CLEAR(state->name_environ[id]);
        Py_CLEAR(state->last_pair[id]);
    }
    return 0;
}

static void module_free(void *module) {
    module_clear((PyObject *)module);
}

static PyMethodDef module_methods[] = {
    {"check_access_log_format", as_check_access_log_format, METH_O,
     "Raise ValueError for a format of the access log that is none."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "asgiserver._core",
    .m_doc = "The C core: one event loop with its listeners, connections and the gateway.",
    .m_size = sizeof(as_module_state),
    .m_methods = module_methods,
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__core(void);
PyMODINIT_FUNC PyInit__core(void) {
    return PyModuleDef_Init(&core_module);
}

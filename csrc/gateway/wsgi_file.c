/* wsgi.file_wrapper, and what of it may leave by sendfile. */
#include "gateway/wsgi_file.h"

#include <fcntl.h>
#include <structmember.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLOCK 65536 /* bytes per read() unless the application says otherwise */

typedef struct file_wrapper {
    PyObject_HEAD
    PyObject *filelike;
    Py_ssize_t blksize;
} file_wrapper;

/* ---- sendfile ---- */

int as__file_types_init(as_file_types *types) {
    PyObject *io = PyImport_ImportModule("io");
    if (io == NULL) {
        return -1;
    }
    types->file_io = PyObject_GetAttrString(io, "FileIO");
    types->buffered_reader = PyObject_GetAttrString(io, "BufferedReader");
    types->buffered_random = PyObject_GetAttrString(io, "BufferedRandom");
    Py_DECREF(io);
    return types->file_io && types->buffered_reader && types->buffered_random ? 0 : -1;
}

void as__file_types_fini(as_file_types *types) {
    Py_CLEAR(types->file_io);
    Py_CLEAR(types->buffered_reader);
    Py_CLEAR(types->buffered_random);
}

/* The file inside of what tempfile.NamedTemporaryFile made, else `file` itself; new reference, NULL
 * with an exception. */
static PyObject *unwrap_temporary(PyObject *file) {
    PyObject *name = PyUnicode_FromString("tempfile");
    if (name == NULL) {
        return NULL;
    }
    PyObject *module = PyImport_GetModule(name); /* not imported: then it made no file */
    Py_DECREF(name);
    if (module == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(file);
    }
    PyObject *type = PyObject_GetAttrString(module, "_TemporaryFileWrapper");
    Py_DECREF(module);
    if (type == NULL) {
        return NULL;
    }
    bool is_wrapper = (PyObject *)Py_TYPE(file) == type;
    Py_DECREF(type);
    return is_wrapper ? PyObject_GetAttrString(file, "file") : Py_NewRef(file);
}

/* True for files whose read() gives the bytes of the descriptor. Anything else may change them on
 * the way while it has a fileno(): gzip.GzipFile, io.TextIOWrapper, somebody's own wrapper. */
static bool is_plain_file(const as_file_types *types, PyObject *file) {
    PyObject *type = (PyObject *)Py_TYPE(file);
    if (type == types->file_io) {
        return true;
    }
    if (type != types->buffered_reader && type != types->buffered_random) {
        return false;
    }
    PyObject *raw = PyObject_GetAttrString(file, "raw");
    if (raw == NULL) {
        return false;
    }
    bool plain = (PyObject *)Py_TYPE(raw) == types->file_io;
    Py_DECREF(raw);
    return plain;
}

/* Where read() would go on, which for a buffered file is not where the descriptor stands; -1 with
 * an exception. */
static off_t position(PyObject *file) {
    PyObject *at = PyObject_CallMethod(file, "tell", NULL);
    if (at == NULL) {
        return -1;
    }
    long long off = PyLong_AsLongLong(at);
    Py_DECREF(at);
    return (off_t)off;
}

static bool open_plain(PyObject *file, int *fd, off_t *off, uint64_t *n) {
    struct stat st;
    *off = position(file);
    int theirs = *off < 0 ? -1 : PyObject_AsFileDescriptor(file);
    /* A file of /proc says that it is empty: what it has is seen by reading. */
    if (theirs < 0 || fstat(theirs, &st) < 0 || !S_ISREG(st.st_mode) || st.st_size <= *off) {
        return false;
    }
    *n = (uint64_t)(st.st_size - *off);
    /* The application may close its file as soon as close() is called, the bytes leave later. */
    *fd = fcntl(theirs, F_DUPFD_CLOEXEC, 0);
    return *fd >= 0;
}

bool as__file_wrapper_open(const as_file_types *types, PyObject *wrapper, int *fd, off_t *off,
                           uint64_t *n) {
    PyObject *file = unwrap_temporary(((file_wrapper *)wrapper)->filelike);
    bool can = file != NULL && is_plain_file(types, file) && open_plain(file, fd, off, n);
    Py_XDECREF(file);
    if (PyErr_Occurred()) {
        PyErr_Clear(); /* a closed file, say: iterating raises it where it can be reported */
    }
    return can;
}

/* ---- the type ---- */

static PyObject *wrapper_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    static char *names[] = {"filelike", "blksize", NULL};
    PyObject *filelike;
    Py_ssize_t blksize = BLOCK;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|n:FileWrapper", names, &filelike, &blksize)) {
        return NULL;
    }
    file_wrapper *self = (file_wrapper *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->filelike = Py_NewRef(filelike);
    self->blksize = blksize > 0 ? blksize : BLOCK;
    return (PyObject *)self;
}

static int wrapper_traverse(PyObject *object, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((file_wrapper *)object)->filelike);
    return 0;
}

static int wrapper_clear(PyObject *object) {
    Py_CLEAR(((file_wrapper *)object)->filelike);
    return 0;
}

static void wrapper_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    wrapper_clear(object);
    type->tp_free(object);
    Py_DECREF(type);
}

/* The wrapped file, borrowed; NULL with an exception when the garbage collector took it already. */
static PyObject *wrapped(PyObject *object) {
    PyObject *filelike = ((file_wrapper *)object)->filelike;
    if (filelike == NULL) {
        PyErr_SetString(PyExc_ValueError, "the file wrapper is empty");
    }
    return filelike;
}

static PyObject *wrapper_next(PyObject *object) {
    PyObject *filelike = wrapped(object);
    if (filelike == NULL) {
        return NULL;
    }
    PyObject *data = PyObject_CallMethod(filelike, "read", "n", ((file_wrapper *)object)->blksize);
    if (data == NULL) {
        return NULL;
    }
    int more = PyObject_IsTrue(data);
    if (more <= 0) {
        Py_DECREF(data);
        return NULL;
    }
    return data;
}

static PyObject *wrapper_close(PyObject *object, PyObject *Py_UNUSED(ignored)) {
    PyObject *filelike = wrapped(object);
    PyObject *close = filelike ? PyObject_GetAttrString(filelike, "close") : NULL;
    if (close == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return NULL;
        }
        PyErr_Clear(); /* PEP 3333: a file-like object need not have close() */
        Py_RETURN_NONE;
    }
    PyObject *result = PyObject_CallNoArgs(close);
    Py_DECREF(close);
    return result;
}

static PyMethodDef wrapper_methods[] = {
    {"close", wrapper_close, METH_NOARGS, "close()\n--\n\nClose the wrapped file."},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef wrapper_members[] = {
    {"filelike", T_OBJECT_EX, offsetof(file_wrapper, filelike), READONLY, "The wrapped file."},
    {"blksize", T_PYSSIZET, offsetof(file_wrapper, blksize), READONLY, "Bytes per read()."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot wrapper_slots[] = {
    {Py_tp_doc, (void *)"FileWrapper(filelike, blksize=65536)\n--\n\nwsgi.file_wrapper."},
    {Py_tp_new, wrapper_new},
    {Py_tp_dealloc, wrapper_dealloc},
    {Py_tp_traverse, wrapper_traverse},
    {Py_tp_clear, wrapper_clear},
    {Py_tp_methods, wrapper_methods},
    {Py_tp_members, wrapper_members},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, wrapper_next},
    {0, NULL},
};

static PyType_Spec wrapper_spec = {
    .name = "asgiserver._core.FileWrapper",
    .basicsize = sizeof(file_wrapper),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = wrapper_slots,
};

PyTypeObject *as__file_wrapper_make_type(PyObject *module) {
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &wrapper_spec, NULL);
}

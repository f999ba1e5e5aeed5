/* wsgi.input over memory, then over an unlinked temporary file. */
#include "gateway/wsgi_input.h"

#include <errno.h>
#include <unistd.h>

#define FIRST_ROOM ((uint64_t)4 * 1024) /* bytes of memory that a body of unknown length starts with */
#define WINDOW ((size_t)64 * 1024)      /* bytes of the file that are kept for small reads */
#define HINT_MAX ((uint64_t)64 * 1024)  /* a client that only announces a body gets no more than this */

typedef struct input {
    PyObject_HEAD
    uint64_t size;   /* bytes in all */
    uint64_t pos;    /* the next byte to read */
    PyObject *bytes; /* the body in memory, longer than `size` until sealed; NULL: none or a file */
    as_spool_file file; /* what is gathered may outlive the server there */
    char *window;       /* a part of the file: [window_off, window_off + window_len) */
    uint64_t window_off;
    size_t window_len;
} input;

/* ---- writing ---- */

static as_err move_to_file(input *self) {
    const char *p = self->bytes != NULL ? PyBytes_AS_STRING(self->bytes) : "";
    as_err err = as_spool_file_append(&self->file, (as_slice){p, (size_t)self->size});
    Py_CLEAR(self->bytes);
    return err;
}

/* Room for `n` more bytes behind `size`, doubling, but never more than the bound. */
static as_err grow_memory(input *self, size_t n) {
    uint64_t have = self->bytes ? (uint64_t)PyBytes_GET_SIZE(self->bytes) : 0;
    uint64_t need = self->size + n, most = self->file.spools->memory_max;
    if (need <= have) {
        return AS_OK;
    }
    uint64_t room = have * 2 > FIRST_ROOM ? have * 2 : FIRST_ROOM;
    room = room > most ? most : room;
    room = room < need ? need : room;
    if (self->bytes == NULL) {
        self->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    } else {
        /* Ours alone until the input is sealed. On failure it is gone, and the body with it. */
        _PyBytes_Resize(&self->bytes, (Py_ssize_t)room);
    }
    if (self->bytes == NULL) {
        PyErr_Clear(); /* a MemoryError: the caller has the code for it */
        return AS_E_NOMEM;
    }
    return AS_OK;
}

as_err as__input_append(PyObject *object, as_slice data) {
    input *self = (input *)object;
    if (self->file.fd < 0 && self->size + data.n > self->file.spools->memory_max) {
        as_err err = move_to_file(self);
        if (err) {
            return err;
        }
    }
    as_err err;
    if (self->file.fd >= 0) {
        err = as_spool_file_append(&self->file, data);
    } else {
        err = grow_memory(self, data.n);
        if (!err && data.n > 0) {
            memcpy(PyBytes_AS_STRING(self->bytes) + self->size, data.p, data.n);
        }
    }
    if (!err) {
        self->size += data.n;
    }
    return err;
}

as_err as__input_seal(PyObject *object) {
    input *self = (input *)object;
    if (self->bytes == NULL || (uint64_t)PyBytes_GET_SIZE(self->bytes) == self->size) {
        return AS_OK;
    }
    _PyBytes_Resize(&self->bytes, (Py_ssize_t)self->size);
    if (self->bytes == NULL) {
        PyErr_Clear(); /* a MemoryError: the caller has the code for it */
        return AS_E_NOMEM;
    }
    return AS_OK;
}

uint64_t as__input_size(PyObject *object) {
    return ((input *)object)->size;
}

static input *input_new(as_module_state *state, as_spools *spools) {
    input *self = PyObject_New(input, state->input_type);
    if (self == NULL) {
        return NULL;
    }
    self->size = self->pos = 0;
    self->bytes = NULL;
    as_spool_file_init(&self->file, spools);
    self->window = NULL;
    self->window_off = 0;
    self->window_len = 0;
    return self;
}

PyObject *as__input_new(as_module_state *state, uint64_t expected, as_spools *spools) {
    input *self = input_new(state, spools);
    if (self != NULL && expected > 0 && expected <= spools->memory_max) {
        uint64_t room = expected > HINT_MAX ? HINT_MAX : expected;
        self->bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
        if (self->bytes == NULL) {
            Py_CLEAR(self);
        }
    }
    return (PyObject *)self;
}

PyObject *as__input_from_spool(as_module_state *state, as_spool *spool) {
    input *self = input_new(state, spool->file.spools);
    if (self == NULL) {
        return NULL;
    }
    if (spool->file.fd < 0 && spool->size > 0) {
        self->bytes = PyBytes_FromStringAndSize(spool->memory.data, (Py_ssize_t)spool->size);
        if (self->bytes == NULL) {
            Py_DECREF(self);
            return NULL;
        }
    }
    self->size = spool->size;
    self->file = spool->file;
    spool->file.fd = -1;
    return (PyObject *)self;
}

static void input_dealloc(PyObject *object) {
    input *self = (input *)object;
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->bytes);
    as_spool_file_close(&self->file);
    PyMem_Free(self->window);
    PyObject_Free(self);
    Py_DECREF(type);
}

/* ---- reading ---- */

static ssize_t pread_some(int fd, char *p, size_t n, uint64_t off) {
    ssize_t k;
    do {
        k = pread(fd, p, n, (off_t)off);
    } while (k < 0 && errno == EINTR);
    if (k == 0) {
        errno = EIO; /* nobody else has the file: it cannot be shorter than what was written */
        return -1;
    }
    return k;
}

/* Fills `p` from the file. With much to read others may run meanwhile. */
static int read_file(int fd, char *p, size_t n, uint64_t off) {
    int failed = 0;
    Py_BEGIN_ALLOW_THREADS while (n > 0 && !failed) {
        ssize_t k = pread_some(fd, p, n, off);
        if (k < 0) {
            failed = errno;
            break;
        }
        p += k;
        n -= (size_t)k;
        off += (uint64_t)k;
    }
    Py_END_ALLOW_THREADS if (failed) {
        errno = failed;
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    return 0;
}

/* The bytes at `pos` that are at hand without copying: all the rest in memory, else a part of the
 * file, at least one byte while any is left. Valid until the next call. */
static int look(input *self, uint64_t pos, as_slice *at) {
    if (self->bytes != NULL || pos >= self->size) {
        at->p = self->bytes ? PyBytes_AS_STRING(self->bytes) + pos : "";
        at->n = (size_t)(self->size - pos);
        return 0;
    }
    bool inside = pos >= self->window_off && pos - self->window_off < self->window_len;
    if (!inside) {
        if (self->window == NULL) {
            self->window = PyMem_Malloc(WINDOW);
            if (self->window == NULL) {
                PyErr_NoMemory();
                return -1;
            }
        }
        self->window_len = 0;
        ssize_t k = pread_some(self->file.fd, self->window, WINDOW, pos);
        if (k < 0) {
            PyErr_SetFromErrno(PyExc_OSError);
            return -1;
        }
        self->window_off = pos;
        self->window_len = (size_t)k;
    }
    size_t skip = (size_t)(pos - self->window_off);
    at->p = self->window + skip;
    at->n = self->window_len - skip;
    return 0;
}

/* The next `n` bytes, of which there are so many; new reference. */
static PyObject *take(input *self, uint64_t n) {
    if (n == 0) {
        return PyBytes_FromStringAndSize(NULL, 0);
    }
    if (self->bytes != NULL && self->pos == 0 && n == self->size) {
        /* The usual case: all at once. Nothing is copied. */
        self->pos = n;
        return Py_NewRef(self->bytes);
    }
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)n);
    if (out == NULL) {
        return NULL;
    }
    uint64_t pos = self->pos;
    self->pos += n; /* before the lock is let go in read_file: two readers get different bytes */
    char *p = PyBytes_AS_STRING(out);
    as_slice at;
    if (self->bytes == NULL && n >= WINDOW) {
        if (read_file(self->file.fd, p, (size_t)n, pos) < 0) {
            goto fail;
        }
        return out;
    }
    while (n > 0) {
        if (look(self, pos, &at) < 0) {
            goto fail;
        }
        size_t k = at.n < n ? at.n : (size_t)n;
        memcpy(p, at.p, k);
        p += k;
        pos += k;
        n -= k;
    }
    return out;
fail:
    Py_DECREF(out);
    return NULL;
}

/* Reads an optional size: none, None or a negative number mean "no bound". */
static int parse_size(const char *name, PyObject *const *args, Py_ssize_t nargs, uint64_t *size) {
    *size = UINT64_MAX;
    if (nargs > 1) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most 1 argument (%zd given)", name, nargs);
        return -1;
    }
    if (nargs == 0 || args[0] == Py_None) {
        return 0;
    }
    /* Runs the application's __index__ at most, which cannot harm: nothing is in our hands yet. */
    Py_ssize_t n = PyNumber_AsSsize_t(args[0], PyExc_OverflowError);
    if (n == -1 && PyErr_Occurred()) {
        return -1;
    }
    if (n >= 0) {
        *size = (uint64_t)n;
    }
    return 0;
}

static PyObject *input_read(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    input *self = (input *)object;
    uint64_t n;
    if (parse_size("read", args, nargs, &n) < 0) {
        return NULL;
    }
    uint64_t left = self->size - self->pos;
    return take(self, n < left ? n : left);
}

/* Bytes up to and with the next line feed, at most `max`; -1 with an exception. */
static int line_length(input *self, uint64_t max, uint64_t *length) {
    uint64_t left = self->size - self->pos, n = 0;
    max = max < left ? max : left;
    while (n < max) {
        as_slice at;
        if (look(self, self->pos + n, &at) < 0) {
            return -1;
        }
        size_t k = at.n < max - n ? at.n : (size_t)(max - n);
        const char *end = memchr(at.p, '\n', k);
        if (end != NULL) {
            *length = n + (uint64_t)(end - at.p) + 1;
            return 0;
        }
        n += k;
    }
    *length = n;
    return 0;
}

static PyObject *next_line(input *self, uint64_t max) {
    uint64_t n;
    if (line_length(self, max, &n) < 0) {
        return NULL;
    }
    return take(self, n);
}

static PyObject *input_readline(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    uint64_t max;
    if (parse_size("readline", args, nargs, &max) < 0) {
        return NULL;
    }
    return next_line((input *)object, max);
}

static PyObject *input_readlines(PyObject *object, PyObject *const *args, Py_ssize_t nargs) {
    input *self = (input *)object;
    uint64_t hint;
    if (parse_size("readlines", args, nargs, &hint) < 0) {
        return NULL;
    }
    if (hint == 0) {
        hint = UINT64_MAX; /* as io.IOBase has it */
    }
    PyObject *lines = PyList_New(0);
    if (lines == NULL) {
        return NULL;
    }
    for (uint64_t total = 0; total < hint && self->pos < self->size;) {
        PyObject *line = next_line(self, UINT64_MAX);
        if (line == NULL || PyList_Append(lines, line) < 0) {
            Py_XDECREF(line);
            Py_DECREF(lines);
            return NULL;
        }
        total += (uint64_t)PyBytes_GET_SIZE(line);
        Py_DECREF(line);
    }
    return lines;
}

static PyObject *input_next(PyObject *object) {
    input *self = (input *)object;
    return self->pos < self->size ? next_line(self, UINT64_MAX) : NULL;
}

#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef input_methods[] = {
    {"read", FAST(input_read), METH_FASTCALL,
     "read(size=-1, /)\n--\n\nUp to size bytes; all that is left by default."},
    {"readline", FAST(input_readline), METH_FASTCALL,
     "readline(size=-1, /)\n--\n\nThe next line with its line feed, at most size bytes."},
    {"readlines", FAST(input_readlines), METH_FASTCALL,
     "readlines(hint=-1, /)\n--\n\nLines until hint bytes are reached; all by default."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot input_slots[] = {
    {Py_tp_doc, (void *)"The request body (wsgi.input)."},
    {Py_tp_dealloc, input_dealloc},
    {Py_tp_methods, input_methods},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, input_next},
    {0, NULL},
};

static PyType_Spec input_spec = {
    .name = "asgiserver._core.Input",
    .basicsize = sizeof(input),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = input_slots,
};

PyTypeObject *as__input_make_type(PyObject *module) {
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &input_spec, NULL);
}

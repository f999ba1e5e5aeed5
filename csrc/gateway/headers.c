/* scope["headers"]: a sequence of (name, value) pairs of bytes that makes its pairs when it is
 * first read, and from then on answers through a list. An application that never looks costs
 * nothing. */

#include "gateway/asgi.h"

typedef struct headers {
    PyObject_HEAD
    as_head *head;  /* one that is kept is shared with us; else borrowed, until it is settled; NULL
                     * once `list` is there, or when the bytes are gone */
    PyObject *list; /* the pairs; NULL until somebody reads them */
} headers;

static PyObject *make_name(as_module_state *state, const as_head *head, const as_field *field) {
    if (field->name_id != AS_NAME_OTHER) {
        return Py_NewRef(state->name_bytes[field->name_id]);
    }
    as_slice name = as_field_name(head, field);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)name.n);
    if (bytes != NULL) {
        char *to = PyBytes_AS_STRING(bytes);
        for (size_t i = 0; i < name.n; i++) {
            to[i] = as_lower(name.p[i]);
        }
    }
    return bytes;
}

#define KEPT_MAX 512u /* bytes of a value that is kept */

/* The pair of an earlier request, new reference; NULL: it has another value, or there is none. */
static PyObject *same_pair(const as_module_state *state, const as_field *field, as_slice value) {
    PyObject *pair = state->last_pair[field->name_id];
    PyObject *last = pair != NULL ? PyTuple_GET_ITEM(pair, 1) : NULL;
    bool same = last != NULL && (size_t)PyBytes_GET_SIZE(last) == value.n &&
                memcmp(PyBytes_AS_STRING(last), value.p, value.n) == 0;
    return same ? Py_NewRef(pair) : NULL;
}

static PyObject *new_pair(as_module_state *state, const as_head *head, const as_field *field) {
    PyObject *name = make_name(state, head, field);
    PyObject *value = as_pybytes(as_field_value(head, field));
    PyObject *pair = name != NULL && value != NULL ? PyTuple_New(2) : NULL;
    if (pair == NULL) {
        Py_XDECREF(name);
        Py_XDECREF(value);
        return NULL;
    }
    PyTuple_SET_ITEM(pair, 0, name);
    PyTuple_SET_ITEM(pair, 1, value);
    return pair;
}

/* A tuple of two bytes objects cannot change: requests may share it. */
static PyObject *make_pair(as_module_state *state, const as_head *head, const as_field *field) {
    if (!state->repeats[field->name_id] || field->value_len > KEPT_MAX) {
        return new_pair(state, head, field);
    }
    PyObject *pair = same_pair(state, field, as_field_value(head, field));
    if (pair == NULL && (pair = new_pair(state, head, field)) != NULL) {
        Py_XSETREF(state->last_pair[field->name_id], Py_NewRef(pair));
    }
    return pair;
}

static bool is_kept(const as_head *head) {
    return head != NULL && head->refs > 0;
}

static as_head *share(as_head *head) {
    return is_kept(head) ? as_head_keep(head) : head;
}

static void drop_head(headers *self) {
    as_head *head = self->head;
    self->head = NULL;
    if (is_kept(head)) {
        as_head_unref(head);
    }
}

/* A new list of all pairs. */
static PyObject *make_list(as_module_state *state, const as_head *head) {
    Py_ssize_t n = head != NULL ? (Py_ssize_t)head->nfields : 0;
    PyObject *list = PyList_New(n);
    for (Py_ssize_t i = 0; list != NULL && i < n; i++) {
        PyObject *pair = make_pair(state, head, &head->fields[i]);
        if (pair == NULL) {
            Py_DECREF(list);
            return NULL;
        }
        PyList_SET_ITEM(list, i, pair);
    }
    return list;
}

/* The list of pairs, borrowed from self; NULL with an exception. Allocating may run the collector,
 * and that may read the same headers: hold the head, and let the first list win. */
static PyObject *pairs(headers *self) {
    if (self->list != NULL) {
        return self->list;
    }
    as_head *held = is_kept(self->head) ? as_head_keep(self->head) : NULL;
    PyObject *list = make_list(as_state_of((PyObject *)self), self->head);
    as_head_unref(held);
    if (list == NULL) {
        return NULL;
    }
    if (self->list != NULL) {
        Py_DECREF(list);
        return self->list;
    }
    self->list = list;
    drop_head(self);
    return list;
}

void as_headers_lend(PyObject *op, as_head *head) {
    headers *self = (headers *)op;
    drop_head(self);
    Py_CLEAR(self->list); /* emptied it was; but a debugger may have read it since */
    self->head = share(head);
}

PyObject *as_headers_new(as_module_state *state, as_head *head) {
    headers *self = PyObject_GC_New(headers, state->headers_type);
    if (self == NULL) {
        return NULL;
    }
    self->head = share(head);
    self->list = NULL;
    PyObject_GC_Track(self);
    return (PyObject *)self;
}

int as_headers_settle(PyObject *op, as_head **head, Py_ssize_t ours) {
    headers *self = (headers *)op;
    if (Py_REFCNT(op) == ours) {
        drop_head(self);
        Py_CLEAR(self->list);
        return 0;
    }
    if (self->head == NULL || is_kept(self->head)) {
        return 0;
    }
    if ((self->head = as_head_keep(*head)) == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    *head = self->head;
    return 0;
}

static int headers_traverse(PyObject *op, visitproc visit, void *arg) {
    Py_VISIT(Py_TYPE(op));
    Py_VISIT(((headers *)op)->list);
    return 0;
}

static int headers_clear(PyObject *op) {
    Py_CLEAR(((headers *)op)->list);
    return 0;
}

static void headers_dealloc(PyObject *op) {
    PyTypeObject *type = Py_TYPE(op);
    PyObject_GC_UnTrack(op);
    drop_head((headers *)op);
    headers_clear(op);
    PyObject_GC_Del(op);
    Py_DECREF(type);
}

/* The list behind `op` where it is such a sequence, `op` itself otherwise; borrowed. */
static PyObject *unwrap(PyObject *op, PyTypeObject *type) {
    return Py_IS_TYPE(op, type) ? pairs((headers *)op) : op;
}

static Py_ssize_t headers_length(PyObject *op) {
    headers *self = (headers *)op;
    if (self->list != NULL) {
        return PyList_GET_SIZE(self->list);
    }
    return self->head != NULL ? (Py_ssize_t)self->head->nfields : 0;
}

static PyObject *headers_iter(PyObject *op) {
    PyObject *list = pairs((headers *)op);
    return list != NULL ? PyObject_GetIter(list) : NULL;
}

static PyObject *headers_item(PyObject *op, Py_ssize_t i) {
    PyObject *list = pairs((headers *)op);
    return list != NULL ? PySequence_GetItem(list, i) : NULL;
}

static PyObject *headers_subscript(PyObject *op, PyObject *key) {
    PyObject *list = pairs((headers *)op);
    return list != NULL ? PyObject_GetItem(list, key) : NULL;
}

static int headers_ass_subscript(PyObject *op, PyObject *key, PyObject *value) {
    PyObject *list = pairs((headers *)op);
    if (list == NULL) {
        return -1;
    }
    return value != NULL ? PyObject_SetItem(list, key, value) : PyObject_DelItem(list, key);
}

static int headers_contains(PyObject *op, PyObject *item) {
    PyObject *list = pairs((headers *)op);
    return list != NULL ? PySequence_Contains(list, item) : -1;
}

/* Either side may be the sequence: [pair] + headers works, too. */
static PyObject *headers_add(PyObject *left, PyObject *right) {
    PyTypeObject *type = PyType_GetSlot(Py_TYPE(left), Py_nb_add) == (void *)headers_add
                             ? Py_TYPE(left)
                             : Py_TYPE(right);
    PyObject *a = unwrap(left, type);
    PyObject *b = a != NULL ? unwrap(right, type) : NULL;
    if (b == NULL) {
        return NULL;
    }
    if (!PyList_Check(a) || !PyList_Check(b)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    return PySequence_Concat(a, b);
}

static PyObject *headers_inplace_add(PyObject *op, PyObject *other) {
    PyObject *list = pairs((headers *)op);
    PyObject *same = list != NULL ? PySequence_InPlaceConcat(list, other) : NULL;
    if (same == NULL) {
        return NULL;
    }
    Py_DECREF(same);
    return Py_NewRef(op);
}

static PyObject *headers_repeat(PyObject *op, Py_ssize_t times) {
    PyObject *list = pairs((headers *)op);
    return list != NULL ? PySequence_Repeat(list, times) : NULL;
}

static PyObject *headers_richcompare(PyObject *op, PyObject *other, int how) {
    PyObject *list = pairs((headers *)op);
    PyObject *right = list != NULL ? unwrap(other, Py_TYPE(op)) : NULL;
    return right != NULL ? PyObject_RichCompare(list, right, how) : NULL;
}

static PyObject *headers_repr(PyObject *op) {
    PyObject *list = pairs((headers *)op);
    return list != NULL ? PyObject_Repr(list) : NULL;
}

/* append, sort, copy and all else that a list can do. */
static PyObject *headers_getattro(PyObject *op, PyObject *name) {
    PyObject *attribute = PyObject_GenericGetAttr(op, name);
    if (attribute != NULL || !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return attribute;
    }
    PyErr_Clear(); /* the list's answer counts */
    PyObject *list = pairs((headers *)op);
    return list != NULL ? PyObject_GetAttr(list, name) : NULL;
}

/* Copies and pickles as the list that it stands for. */
static PyObject *headers_reduce(PyObject *op, PyObject *Py_UNUSED(ignored)) {
    PyObject *list = pairs((headers *)op);
    return list != NULL ? Py_BuildValue("(O(O))", (PyObject *)&PyList_Type, list) : NULL;
}

static PyMethodDef headers_methods[] = {
    {"__reduce__", headers_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(headers_doc,
             "The request's header fields: a sequence of (name, value) pairs of bytes, names in\n"
             "lower case, made when first read. Behaves as a list.");

static PyType_Slot headers_slots[] = {
    {Py_tp_doc, (void *)headers_doc},
    {Py_tp_dealloc, headers_dealloc},
    {Py_tp_traverse, headers_traverse},
    {Py_tp_clear, headers_clear},
    {Py_tp_iter, headers_iter},
    {Py_tp_repr, headers_repr},
    {Py_tp_getattro, headers_getattro},
    {Py_tp_richcompare, headers_richcompare},
    {Py_tp_hash, PyObject_HashNotImplemented},
    {Py_tp_methods, headers_methods},
    {Py_sq_length, headers_length},
    {Py_sq_item, headers_item},
    {Py_sq_contains, headers_contains},
    {Py_sq_repeat, headers_repeat},
    {Py_mp_length, headers_length},
    {Py_mp_subscript, headers_subscript},
    {Py_mp_ass_subscript, headers_ass_subscript},
    {Py_nb_add, headers_add},
    {Py_nb_inplace_add, headers_inplace_add}, /* nb_add would come before sq_inplace_concat */
    {0, NULL},
};

static PyType_Spec headers_spec = {
    .name = "asgiserver._core.Headers",
    .basicsize = sizeof(headers),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_SEQUENCE,
    .slots = headers_slots,
};

/* isinstance(headers, collections.abc.MutableSequence) holds. */
static int register_sequence(PyTypeObject *type) {
    PyObject *abc = PyImport_ImportModule("collections.abc");
    PyObject *base = abc != NULL ? PyObject_GetAttrString(abc, "MutableSequence") : NULL;
    PyObject *done = base != NULL ? PyObject_CallMethod(base, "register", "O", type) : NULL;
    Py_XDECREF(abc);
    Py_XDECREF(base);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

int as_headers_add_type(PyObject *module, as_module_state *state) {
    state->headers_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &headers_spec, NULL);
    if (state->headers_type == NULL) {
        return -1;
    }
#define X(id) state->repeats[AS_NAME_##id] = true;
    AS_REPEATED_NAMES(X)
#undef X
    return register_sequence(state->headers_type);
}

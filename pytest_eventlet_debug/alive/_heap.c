/* What is done to many objects, or what Python itself does not let one do.

   of_types() picks objects by their types, in a list of all that the garbage collector knows. No
   object is asked anything: to hash or compare a type can run its metaclass.

   Young does the same with those that are new. Each collection moves young objects to where the
   old ones are, and a full one mixes them, so they are looked at before it begins. It is a
   callback of the collector that no profiler or tracer is told of. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

/* The generation between the youngest and the old objects. */
#define MIDDLE 1

/* What was found out about types, by their addresses. */
#define KNOWN_TYPES 512

typedef struct {
    PyObject *bases; /* a tuple of types */
    struct {
        PyTypeObject *type;
        int is_wanted;
    } known[KNOWN_TYPES];
} Wanted;

static int
is_wanted(Wanted *wanted, PyTypeObject *type)
{
    uintptr_t address = (uintptr_t)type;
    size_t place = (address >> 4 ^ address >> 13) % KNOWN_TYPES;
    if (wanted->known[place].type != type) {
        int found = 0;
        for (Py_ssize_t n = 0; !found && n < PyTuple_GET_SIZE(wanted->bases); n++) {
            found = PyType_IsSubtype(type, (PyTypeObject *)PyTuple_GET_ITEM(wanted->bases, n));
        }
        wanted->known[place].type = type;
        wanted->known[place].is_wanted = found;
    }
    return wanted->known[place].is_wanted;
}

static int
is_tuple_of_types(PyObject *bases)
{
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(bases); n++) {
        if (!PyType_Check(PyTuple_GET_ITEM(bases, n))) {
            PyErr_SetString(PyExc_TypeError, "a base is no class");
            return 0;
        }
    }
    return 1;
}

PyDoc_STRVAR(of_types_doc, "of_types(objects, bases, /)\n--\n\n"
                           "Return the objects whose type is one of these or derived from one, "
                           "in their order.");

static PyObject *
of_types(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *objects, *bases;
    if (!PyArg_ParseTuple(arguments, "O!O!:of_types", &PyList_Type, &objects, &PyTuple_Type,
                          &bases)
        || !is_tuple_of_types(bases)) {
        return NULL;
    }
    Wanted wanted = {.bases = bases};
    PyObject *found = PyList_New(0);
    for (Py_ssize_t n = 0; found != NULL && n < PyList_GET_SIZE(objects); n++) {
        PyObject *object = PyList_GET_ITEM(objects, n);
        if (is_wanted(&wanted, Py_TYPE(object)) && PyList_Append(found, object) < 0) {
            Py_CLEAR(found);
        }
    }
    return found;
}

typedef struct {
    PyObject_HEAD
    PyObject *get_objects; /* gc.get_objects, as it was before anybody could patch it */
    PyObject *bases;       /* a tuple of types */
    PyObject *found;       /* a list of weak references */
    Py_ssize_t living;     /* how many there were when the dead were last dropped */
    PyObject *canary;      /* a list; where it is not young, young objects became old unseen */
    int is_complete;
} Young;

/* Return the object, a borrowed reference that someone else keeps alive, or NULL if it is dead. */
static PyObject *
referent(PyObject *reference)
{
#if PY_VERSION_HEX >= 0x030D0000
    PyObject *object = NULL;
    if (PyWeakref_GetRef(reference, &object) == 1) {
        Py_DECREF(object);
    }
    return object;
#else
    PyObject *object = PyWeakref_GetObject(reference);
    return object == Py_None ? NULL : object;
#endif
}

/* Drop the references to objects that are dead, so that they do not become more and more. */
static int
drop_dead(Young *self)
{
    Py_ssize_t kept = 0;
    for (Py_ssize_t n = 0; n < PyList_GET_SIZE(self->found); n++) {
        PyObject *reference = PyList_GET_ITEM(self->found, n);
        if (referent(reference) != NULL) {
            PyList_SET_ITEM(self->found, n, PyList_GET_ITEM(self->found, kept));
            PyList_SET_ITEM(self->found, kept++, reference);
        }
    }
    self->living = kept;
    return PyList_SetSlice(self->found, kept, PyList_GET_SIZE(self->found), NULL);
}

/* Make a young canary. */
static int
renew_canary(Young *self)
{
    PyObject *canary = PyList_New(0);
    if (canary == NULL) {
        return -1;
    }
    Py_XSETREF(self->canary, canary);
    return 0;
}

/* Find those among the young objects that are wanted. */
static int
find_young(Young *self)
{
    Wanted wanted = {.bases = self->bases};
    int is_canary_found = 0;
    for (int generation = 0; generation <= MIDDLE; generation++) {
        PyObject *objects = PyObject_CallFunction(self->get_objects, "i", generation);
        if (objects == NULL) {
            return -1;
        }
        int failed = !PyList_Check(objects);
        for (Py_ssize_t n = 0; !failed && n < PyList_GET_SIZE(objects); n++) {
            PyObject *object = PyList_GET_ITEM(objects, n);
            is_canary_found |= object == self->canary;
            if (is_wanted(&wanted, Py_TYPE(object))) {
                PyObject *reference = PyWeakref_NewRef(object, NULL);
                if (reference != NULL && Py_REFCNT(reference) == 1) {
                    PyObject_GC_UnTrack(reference); /* nobody shall count those that we make */
                }
                failed = reference == NULL || PyList_Append(self->found, reference) < 0;
                Py_XDECREF(reference);
            }
        }
        Py_DECREF(objects);
        if (failed) {
            return -1;
        }
    }
    return is_canary_found ? 0 : -1;
}

PyDoc_STRVAR(before_collection_doc,
             "before_collection(phase, info, /)\n--\n\n"
             "Look at the objects that are about to become old; for gc.callbacks.");

static PyObject *
before_collection(Young *self, PyObject *arguments)
{
    const char *phase;
    PyObject *info;
    if (!PyArg_ParseTuple(arguments, "sO!:before_collection", &phase, &PyDict_Type, &info)) {
        return NULL;
    }
    PyObject *number = PyDict_GetItemString(info, "generation");
    long generation = number != NULL ? PyLong_AsLong(number) : 0;
    if (generation >= MIDDLE && self->is_complete) {
        if (strcmp(phase, "start") != 0) {
            self->is_complete = renew_canary(self) == 0;
        } else {
            int are_many = PyList_GET_SIZE(self->found) > 2 * self->living + 1000;
            self->is_complete = (!are_many || drop_dead(self) == 0) && find_young(self) == 0;
        }
    }
    PyErr_Clear(); /* one that takes no weak references, or no memory */
    Py_RETURN_NONE;
}

/* Say whether there are the very same types in two tuples. */
static int
are_same(PyObject *one, PyObject *other)
{
    Py_ssize_t size = PyTuple_GET_SIZE(one);
    if (PyTuple_GET_SIZE(other) != size) {
        return 0;
    }
    for (Py_ssize_t n = 0; n < size; n++) {
        if (PyTuple_GET_ITEM(one, n) != PyTuple_GET_ITEM(other, n)) {
            return 0;
        }
    }
    return 1;
}

PyDoc_STRVAR(take_doc,
             "take(bases, /)\n--\n\n"
             "Return the living instances of these types and of those derived from them that "
             "have come since the last call, or None if it is not known which. There may be "
             "some among them that are older.");

static PyObject *
take(Young *self, PyObject *bases)
{
    if (!PyTuple_Check(bases) || !is_tuple_of_types(bases)) {
        PyErr_SetString(PyExc_TypeError, "take() takes a tuple of classes");
        return NULL;
    }
    int is_complete = self->is_complete && are_same(self->bases, bases) && find_young(self) == 0;
    PyErr_Clear();
    PyObject *references = self->found;
    PyObject *fresh = PyList_New(0);
    if (fresh == NULL || renew_canary(self) < 0) {
        Py_XDECREF(fresh);
        return NULL;
    }
    self->found = fresh;
    self->living = 0;
    self->is_complete = 1;
    Py_XSETREF(self->bases, Py_NewRef(bases));
    PyObject *result = is_complete ? PyList_New(0) : Py_NewRef(Py_None);
    for (Py_ssize_t n = 0; is_complete && result != NULL && n < PyList_GET_SIZE(references); n++) {
        PyObject *object = referent(PyList_GET_ITEM(references, n));
        if (object != NULL && PyList_Append(result, object) < 0) {
            Py_CLEAR(result);
        }
    }
    Py_DECREF(references);
    return result;
}

static PyObject *
new_young(PyTypeObject *type, PyObject *arguments, PyObject *Py_UNUSED(keywords))
{
    PyObject *get_objects;
    if (!PyArg_ParseTuple(arguments, "O:Young", &get_objects)) {
        return NULL;
    }
    Young *self = (Young *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->get_objects = Py_NewRef(get_objects);
    self->found = PyList_New(0);
    if (self->found == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
free_young(Young *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_XDECREF(self->get_objects);
    Py_XDECREF(self->bases);
    Py_XDECREF(self->found);
    Py_XDECREF(self->canary);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyMethodDef young_methods[] = {
    {"before_collection", (PyCFunction)before_collection, METH_VARARGS, before_collection_doc},
    {"take", (PyCFunction)take, METH_O, take_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(young_doc, "Young(get_objects, /)\n--\n\n"
                        "Finds instances of some types among the objects that are new.");

static PyType_Slot young_slots[] = {
    {Py_tp_doc, (void *)young_doc},
    {Py_tp_new, new_young},
    {Py_tp_dealloc, free_young},
    {Py_tp_methods, young_methods},
    {0, NULL},
};

static PyType_Spec young_spec = {
    .name = "pytest_eventlet_debug.alive._heap.Young",
    .basicsize = sizeof(Young),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = young_slots,
};

PyDoc_STRVAR(type_modified_doc,
             "type_modified(type, /)\n--\n\n"
             "Have Python look up anew what it has cached of a class, see PyType_Modified().");

static PyObject *
type_modified(PyObject *Py_UNUSED(module), PyObject *type)
{
    if (!PyType_Check(type)) {
        PyErr_SetString(PyExc_TypeError, "type_modified() takes a class");
        return NULL;
    }
    PyType_Modified((PyTypeObject *)type);
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"of_types", of_types, METH_VARARGS, of_types_doc},
    {"type_modified", type_modified, METH_O, type_modified_doc},
    {NULL, NULL, 0, NULL},
};

static int
add_types(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&young_spec);
    int failed = type == NULL || PyModule_AddObjectRef(module, "Young", type) < 0;
    Py_XDECREF(type);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_types},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_heap",
    .m_doc = "Picks objects by their types, all or new ones, and has classes looked up anew.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__heap(void)
{
    return PyModuleDef_Init(&module_definition);
}

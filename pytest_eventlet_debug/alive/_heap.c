/* What is done to many objects, or what Python itself does not let one do.

   of_types() picks objects by their types, in a list of all that the garbage collector knows. No
   object is asked anything: to hash or compare a type can run its metaclass. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

/* Types by their addresses, with open addressing. There are always free places. */
typedef struct {
    size_t size;
    PyTypeObject **types;
} Types;

static PyTypeObject **
place_of(const Types *known, PyTypeObject *type)
{
    uintptr_t address = (uintptr_t)type;
    size_t place = (address >> 4 ^ address >> 14) % known->size;
    while (known->types[place] != NULL && known->types[place] != type) {
        place = (place + 1) % known->size;
    }
    return &known->types[place];
}

PyDoc_STRVAR(of_types_doc, "of_types(objects, types, /)\n--\n\n"
                           "Return the objects whose type is one of these, in their order.");

static PyObject *
of_types(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    PyObject *objects, *types;
    if (!PyArg_ParseTuple(arguments, "O!O!:of_types", &PyList_Type, &objects, &PyTuple_Type,
                          &types)) {
        return NULL;
    }
    Types known = {.size = 256};
    while (known.size < 4 * (size_t)PyTuple_GET_SIZE(types)) {
        known.size *= 2;
    }
    known.types = PyMem_Calloc(known.size, sizeof *known.types);
    if (known.types == NULL) {
        return PyErr_NoMemory();
    }
    for (Py_ssize_t n = 0; n < PyTuple_GET_SIZE(types); n++) {
        PyTypeObject *type = (PyTypeObject *)PyTuple_GET_ITEM(types, n);
        *place_of(&known, type) = type;
    }
    PyObject *found = PyList_New(0);
    for (Py_ssize_t n = 0; found != NULL && n < PyList_GET_SIZE(objects); n++) {
        PyObject *object = PyList_GET_ITEM(objects, n);
        if (*place_of(&known, Py_TYPE(object)) != NULL && PyList_Append(found, object) < 0) {
            Py_CLEAR(found);
        }
    }
    PyMem_Free(known.types);
    return found;
}

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

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_heap",
    .m_doc = "Picks objects by their types, and has classes looked up anew.",
    .m_methods = methods,
};

PyMODINIT_FUNC
PyInit__heap(void)
{
    return PyModuleDef_Init(&module_definition);
}

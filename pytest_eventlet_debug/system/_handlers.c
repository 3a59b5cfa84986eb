/* A handler of a signal that waits until a function has returned, and raises then.

   It is no function of Python's: between the instructions of one Python would run the handler
   again, and again within that. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>

typedef struct {
    PyObject_HEAD
    int number;
    PyFrameObject *entered;
    PyObject *restore; /* puts the former handler back */
    PyObject *error;
} Postponed;

static int
postponed_traverse(Postponed *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->entered);
    Py_VISIT(self->restore);
    Py_VISIT(self->error);
    return 0;
}

static int
postponed_clear(Postponed *self)
{
    Py_CLEAR(self->entered);
    Py_CLEAR(self->restore);
    Py_CLEAR(self->error);
    return 0;
}

static void
postponed_dealloc(Postponed *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    postponed_clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyObject *
postponed_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"number", "entered", "restore", "error", NULL};
    int number;
    PyObject *entered, *restore, *error;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iO!OO", names, &number, &PyFrame_Type,
                                     &entered, &restore, &error))
        return NULL;
    Postponed *self = (Postponed *)type->tp_alloc(type, 0);
    if (self == NULL)
        return NULL;
    self->number = number;
    self->entered = (PyFrameObject *)Py_NewRef(entered);
    self->restore = Py_NewRef(restore);
    self->error = Py_NewRef(error);
    return (PyObject *)self;
}

/* Say whether a function still runs, seen from a frame that does. */
static int
is_running(const PyFrameObject *entered, PyObject *frame)
{
    if (!PyFrame_Check(frame))
        return 0;
    PyFrameObject *each = (PyFrameObject *)Py_NewRef(frame);
    while (each != NULL && each != entered) {
        PyFrameObject *outer = PyFrame_GetBack(each);
        Py_DECREF(each);
        each = outer;
    }
    Py_XDECREF(each);
    return each != NULL;
}

static PyObject *
postponed_call(Postponed *self, PyObject *args, PyObject *Py_UNUSED(kwargs))
{
    int number;
    PyObject *frame;
    if (!PyArg_ParseTuple(args, "iO", &number, &frame))
        return NULL;
    if (is_running(self->entered, frame)) {
        PyErr_SetInterruptEx(number);
        Py_RETURN_NONE;
    }
    /* With the former handler in its place, this one may be gone. */
    PyObject *error = Py_NewRef(self->error);
    PyObject *restore = Py_NewRef(self->restore);
    PyObject *restored = PyObject_CallNoArgs(restore);
    Py_DECREF(restore);
    if (restored != NULL) {
        Py_DECREF(restored);
        PyErr_Restore(Py_NewRef(Py_TYPE(error)), Py_NewRef(error),
                      PyException_GetTraceback(error));
    }
    Py_DECREF(error);
    return NULL;
}

static PyType_Slot postponed_slots[] = {
    {Py_tp_new, postponed_new},
    {Py_tp_dealloc, postponed_dealloc},
    {Py_tp_traverse, postponed_traverse},
    {Py_tp_clear, postponed_clear},
    {Py_tp_call, postponed_call},
    {0, NULL},
};

static PyType_Spec postponed_spec = {
    .name = "pytest_eventlet_debug.system._handlers.Postponed",
    .basicsize = sizeof(Postponed),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
    .slots = postponed_slots,
};

static struct PyModuleDef handlers_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "pytest_eventlet_debug.system._handlers",
    .m_size = -1,
};

PyMODINIT_FUNC
PyInit__handlers(void)
{
    PyObject *type = PyType_FromSpec(&postponed_spec);
    if (type == NULL)
        return NULL;
    PyObject *module = PyModule_Create(&handlers_module);
    if (module == NULL || PyModule_AddObjectRef(module, "Postponed", type) < 0)
        Py_CLEAR(module);
    Py_DECREF(type);
    return module;
}

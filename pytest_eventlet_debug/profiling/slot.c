#include "slot.h"

#if PY_VERSION_HEX < 0x030C0000

#define LISTENERS 4

static struct {
    Listener listener;
    PyObject *object;
} listeners[LISTENERS];

static PyObject *holder; /* what sys.getprofile() returns */

static int
told(PyObject *Py_UNUSED(object), PyFrameObject *frame, int what, PyObject *arg)
{
    for (int i = 0; i < LISTENERS && listeners[i].listener != NULL; i++) {
        listeners[i].listener(listeners[i].object, frame, what, arg);
    }
    return 0;
}

int
slot_is_ours(void)
{
    return PyThreadState_Get()->c_profilefunc == told;
}

int
slot_add(Listener listener, PyObject *object)
{
    int i = 0;
    if (!slot_is_ours()) {
        if (PyThreadState_Get()->c_profilefunc != NULL) {
            PyErr_SetString(PyExc_RuntimeError, "another profiler is active in this thread");
            return -1;
        }
    }
    while (i < LISTENERS && listeners[i].listener != NULL) {
        i++;
    }
    if (i == LISTENERS) {
        PyErr_SetString(PyExc_RuntimeError, "too many listen to calls");
        return -1;
    }
    Py_INCREF(object);
    listeners[i].object = object;
    listeners[i].listener = listener;
    PyEval_SetProfile(told, holder);
    return 0;
}

void
slot_remove(PyObject *object)
{
    int count = 0;
    PyObject *removed = NULL;
    for (int i = 0; i < LISTENERS && listeners[i].listener != NULL; i++) {
        if (listeners[i].object == object) {
            removed = object;
        }
        else {
            listeners[count++] = listeners[i];
        }
    }
    for (int i = count; i < LISTENERS; i++) {
        listeners[i].listener = NULL;
        listeners[i].object = NULL;
    }
    if (count == 0 && slot_is_ours()) {
        PyEval_SetProfile(NULL, NULL);
    }
    Py_XDECREF(removed);
}

/* Whoever puts back what sys.getprofile() gave him, puts it in as a function of Python's. */
static PyObject *
holder_call(PyObject *self, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(keywords))
{
    PyEval_SetProfile(listeners[0].listener == NULL ? NULL : told, self);
    Py_RETURN_NONE;
}

static PyTypeObject Holder_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pytest_eventlet_debug.profiling._native.Holder",
    .tp_basicsize = sizeof(PyObject),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "What listens to the calls of a thread for this plugin.",
    .tp_call = holder_call,
};

int
slot_init(PyObject *module)
{
    if (PyType_Ready(&Holder_Type) < 0) {
        return -1;
    }
    holder = PyObject_New(PyObject, &Holder_Type);
    if (holder == NULL) {
        return -1;
    }
    Py_INCREF(holder);
    return PyModule_AddObject(module, "holder", holder);
}

#endif

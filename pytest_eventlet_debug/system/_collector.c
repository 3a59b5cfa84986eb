/* gc.freeze() for the functions and classes that were made after a certain object, and for what
   these consist of.

   gc.freeze() takes in all that there is by then, the user's objects too. The collector keeps the
   youngest objects in the order in which they were made, so those that came after another one are
   the end of that list. What is moved to the list of the frozen ones is in a list still: it may
   die, and gc.unfreeze() may take it back. */

#define PY_SSIZE_T_CLEAN
#define Py_BUILD_CORE_MODULE
#include <Python.h>

/* Later ones keep objects in other ways. */
#if PY_VERSION_HEX < 0x030E0000 && !defined(Py_GIL_DISABLED)
#define CAN_FREEZE
#include <internal/pycore_gc.h>
#include <internal/pycore_interp.h>
#endif

#ifdef CAN_FREEZE

static int
is_code(PyTypeObject *type)
{
    /* No other instances: a test may count its greenlets, locks or files, and the first use of a
       library makes some. */
    const PyTypeObject *const kinds[] = {
        &PyFunction_Type,
        &PyTuple_Type,
        &PyDict_Type,
        &PyCell_Type,
        &PyModule_Type,
        &PyCFunction_Type,
        &PyProperty_Type,
        &PyStaticMethod_Type,
        &PyClassMethod_Type,
        &PyGetSetDescr_Type,
        &PyMemberDescr_Type,
        &PyMethodDescr_Type,
        &PyWrapperDescr_Type,
        &PyClassMethodDescr_Type,
        &_PyWeakref_RefType,
    };
    for (size_t number = 0; number < Py_ARRAY_LENGTH(kinds); number++) {
        if (type == kinds[number])
            return 1;
    }
    return PyType_FastSubclass(type, Py_TPFLAGS_TYPE_SUBCLASS);
}

/* Say whether the list that an object is in is that of the youngest ones. */
static int
is_young(PyGC_Head *object, struct _gc_runtime_state *state)
{
    const PyGC_Head *const others[] = {
        &state->generations[1].head,
        &state->generations[2].head,
        &state->permanent_generation.head,
    };
    for (PyGC_Head *each = object; each != &state->generations[0].head; each = _PyGCHead_NEXT(each)) {
        for (size_t number = 0; number < Py_ARRAY_LENGTH(others); number++) {
            if (each == others[number])
                return 0;
        }
    }
    return 1;
}

static void
chain(PyGC_Head *former, PyGC_Head *latter)
{
    _PyGCHead_SET_NEXT(former, latter);
    _PyGCHead_SET_PREV(latter, former);
}

static void
move(PyGC_Head *object, PyGC_Head *list)
{
    chain(_PyGCHead_PREV(object), _PyGCHead_NEXT(object));
    chain(_PyGCHead_PREV(list), object);
    chain(object, list);
}

/* Say whether it could be done. */
static int
freeze(PyObject *marker)
{
    struct _gc_runtime_state *state = &PyThreadState_Get()->interp->gc;
    PyGC_Head *permanent = &state->permanent_generation.head;
    if (!is_young(_Py_AS_GC(marker), state))
        return 0;
    PyGC_Head *next = _PyGCHead_NEXT(_Py_AS_GC(marker));
    for (PyGC_Head *each = next; each != &state->generations[0].head; each = next) {
        next = _PyGCHead_NEXT(each);
        if (is_code(Py_TYPE((PyObject *)(each + 1))))
            move(each, permanent);
    }
    move(_Py_AS_GC(marker), permanent);
    return 1;
}

/* Say whether it is the collector that has moved an object to the frozen ones: that of Python 3.12
   does so with immortal objects as it comes across them. */
static int
is_moved_by_collector(PyObject *object)
{
#if PY_VERSION_HEX >= 0x030C0000
    return _Py_IsImmortal(object);
#else
    (void)object;
    return 0;
#endif
}

static void *
last(void)
{
    struct _gc_runtime_state *state = &PyThreadState_Get()->interp->gc;
    PyGC_Head *permanent = &state->permanent_generation.head;
    PyGC_Head *each = _PyGCHead_PREV(permanent);
    while (each != permanent && is_moved_by_collector((PyObject *)(each + 1)))
        each = _PyGCHead_PREV(each);
    return each == permanent ? NULL : each + 1;
}

#else

static int
freeze(PyObject *Py_UNUSED(marker))
{
    return 0;
}

static void *
last(void)
{
    return NULL;
}

#endif

PyDoc_STRVAR(freeze_since_doc, "freeze_since(marker, /)\n--\n\n\
Have the collector leave alone functions and classes that were made since a list was, and the list.\n\n\
:return: False, and nothing is done, where a collection has come since, or in Python 3.14 and later.");

static PyObject *
freeze_since(PyObject *Py_UNUSED(module), PyObject *marker)
{
    if (!PyList_CheckExact(marker)) {
        PyErr_SetString(PyExc_TypeError, "a list is expected");
        return NULL;
    }
    return PyBool_FromLong(freeze(marker));
}

PyDoc_STRVAR(last_frozen_doc, "last_frozen()\n--\n\n\
Return the id() of the object that was frozen last, 0 if none is; immortal ones do not count.");

static PyObject *
last_frozen(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(nothing))
{
    return PyLong_FromVoidPtr(last());
}

static PyMethodDef methods[] = {
    {"freeze_since", freeze_since, METH_O, freeze_since_doc},
    {"last_frozen", last_frozen, METH_NOARGS, last_frozen_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_collector",
    .m_doc = "Keeps the garbage collector from what is made to stay.",
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC
PyInit__collector(void)
{
    return PyModuleDef_Init(&module_definition);
}

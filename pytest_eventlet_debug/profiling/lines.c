/* Marks in a trace of system calls, which say which line of Python makes the next ones.

   Told of calls before they are made: by sys.monitoring, or up to Python 3.11 by the
   thread's profiler. A call of a function that may enter the kernel makes a mark (marks.c), unless
   the greenlet's last mark says the same. No Python
   runs in it, the GIL is kept, and errno is put back. */

#include "lines.h"

#include <frameobject.h>

#include <errno.h>
#include <limits.h>

#include "map.h"
#include "marks.h"
#include "slot.h"

/* How far up a stack to look for the user's own code. */
#define MAX_FRAMES 48

/* Greenlets beyond this number, counted from the start of a recording, share one memory. */
#define MAX_GREENLETS (1 << 16)

typedef struct {
    PyObject *name; /* as in recordings/kernel_calls.py */
    char by_file;   /* enters the kernel only where a file of the system is below */
    char ends;      /* its mark is over when it returns: see heard() */
} Function;

/* What a mark says. Code objects are compared and never looked into; in the place of the user's
   own there may be the name of who runs it. */
typedef struct {
    const void *function;
    const void *code;
    const void *own_code;
    int offset;
    int line;
    int own_line;
} Mark;

typedef struct {
    PyObject_HEAD
    PyObject *prefix;  /* bytes: the path before a function's name */
    PyObject *trace;   /* the Marks that marks are made in, or NULL */
    PyObject *places;  /* tuple of (prefix of file names, what it is shown as, whose it is) */
    PyObject *files;   /* from file name to (as shown, whose it is) */
    PyObject *names;   /* of the functions: a call by one of these names may be of such */
    PyObject *disable; /* what tells sys.monitoring to report a place no more, or NULL */
    PyObject *name_of_import;
    Map functions; /* from what identifies a callable to Function */
    Map others;    /* from what identifies a function in C that is none of them to its name */
    PyCodeObject *sockets; /* of the method in Python that makes a socket, or NULL */
    Function of_sockets;
    Mark *marks;   /* the last one of each greenlet */
    Py_ssize_t room;
    Py_ssize_t greenlet;
    unsigned long thread;
    unsigned long generation;
    char active;
    char ending; /* a function whose mark is over when it returns may be running */
} Lines;

/* Threads beside the one with the greenlets. */
static _Thread_local struct {
    unsigned long generation;
    Mark mark;
} elsewhere;

static const void *
key_of(PyObject *callable)
{
    if (PyCFunction_Check(callable)) {
        return ((PyCFunctionObject *)callable)->m_ml;
    }
    if (Py_IS_TYPE(callable, &PyMethodDescr_Type)) {
        return ((PyMethodDescrObject *)callable)->d_method;
    }
    if (PyType_Check(callable) || Py_IS_TYPE(callable, &PyWrapperDescr_Type)) {
        return callable;
    }
    return NULL;
}

static int
is_named(PyObject *object, const char *type)
{
    return strcmp(Py_TYPE(object)->tp_name, type) == 0;
}

/* Whether a file object of the io module stands, at last, on a file of the system. Others, such
   as one that is made of a socket, enter the kernel by a line of Python's that comes yet. */
static int
is_of_system(PyObject *file)
{
    PyObject *each = Py_NewRef(file);
    if (is_named(each, "_io.TextIOWrapper")) {
        Py_SETREF(each, PyObject_GetAttrString(each, "buffer"));
    }
    if (each != NULL
        && (is_named(each, "_io.BufferedReader") || is_named(each, "_io.BufferedWriter"))) {
        Py_SETREF(each, PyObject_GetAttrString(each, "raw"));
    }
    int found = each != NULL && is_named(each, "_io.FileIO");
    PyErr_Clear(); /* a closed or detached one */
    Py_XDECREF(each);
    return found;
}

static PyObject *
described(Lines *self, PyObject *filename)
{
    PyObject *known = PyDict_GetItemWithError(self->files, filename);
    if (known != NULL || PyErr_Occurred()) {
        return known;
    }
    Py_ssize_t length = PyUnicode_GET_LENGTH(filename);
    PyObject *shown = NULL;
    PyObject *own = length > 0 && PyUnicode_READ_CHAR(filename, 0) != '<' ? Py_True : Py_False;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self->places); i++) {
        PyObject *place = PyTuple_GET_ITEM(self->places, i);
        PyObject *prefix = PyTuple_GET_ITEM(place, 0);
        if (PyUnicode_Tailmatch(filename, prefix, 0, PY_SSIZE_T_MAX, -1) == 1) {
            PyObject *rest = PyUnicode_Substring(filename, PyUnicode_GET_LENGTH(prefix), length);
            shown = rest == NULL ? NULL : PyUnicode_Concat(PyTuple_GET_ITEM(place, 1), rest);
            Py_XDECREF(rest);
            own = PyTuple_GET_ITEM(place, 2);
            break;
        }
    }
    if (shown == NULL && !PyErr_Occurred()) {
        shown = Py_NewRef(filename);
    }
    PyObject *entry = shown == NULL ? NULL : PyTuple_Pack(2, shown, own);
    Py_XDECREF(shown);
    if (entry == NULL || PyDict_SetItem(self->files, filename, entry) < 0) {
        Py_XDECREF(entry);
        return NULL;
    }
    Py_DECREF(entry); /* the dictionary keeps it */
    return entry;
}

static int
is_import_system(PyCodeObject *code)
{
    PyObject *file = code->co_filename;
    return PyUnicode_CompareWithASCIIString(file, "<frozen importlib._bootstrap>") == 0
        || PyUnicode_CompareWithASCIIString(file, "<frozen importlib._bootstrap_external>") == 0;
}

static int
offset_of(PyFrameObject *frame)
{
#if PY_VERSION_HEX < 0x030B0000
    return frame->f_lasti;
#else
    return PyFrame_GetLasti(frame);
#endif
}

/* Go to the frame that called this one; takes a reference and gives one. */
static PyFrameObject *
back(PyFrameObject *frame)
{
    PyFrameObject *caller = PyFrame_GetBack(frame);
    Py_DECREF(frame);
    return caller;
}

static Mark *
last_mark(Lines *self)
{
    if (PyThread_get_thread_ident() != self->thread) {
        if (elsewhere.generation != self->generation) {
            elsewhere.generation = self->generation;
            memset(&elsewhere.mark, 0, sizeof(Mark));
        }
        return &elsewhere.mark;
    }
    Py_ssize_t greenlet = self->greenlet;
    if (greenlet >= self->room) {
        Py_ssize_t room = greenlet + 64;
        Mark *marks = PyMem_Realloc(self->marks, room * sizeof(Mark));
        if (marks == NULL) {
            return NULL;
        }
        memset(marks + self->room, 0, (room - self->room) * sizeof(Mark));
        self->marks = marks;
        self->room = room;
    }
    return self->marks + greenlet;
}

static PyObject *
place_in_words(Lines *self, PyCodeObject *code, int line)
{
    PyObject *file = described(self, code->co_filename);
    return file == NULL
        ? NULL
        : PyUnicode_FromFormat("%U:%d in %U", PyTuple_GET_ITEM(file, 0), line, code->co_name);
}

static void
write_mark(Lines *self, PyObject *name, PyObject *place, PyObject *own)
{
    PyObject *text = own == NULL ? PyUnicode_FromFormat("%U/%U", name, place)
                                 : PyUnicode_FromFormat("%U/%U, from %U", name, place, own);
    PyObject *rest = text == NULL ? NULL : PyUnicode_EncodeFSDefault(text);
    PyObject *path = rest == NULL
        ? NULL
        : PyBytes_FromFormat("%s%s", PyBytes_AS_STRING(self->prefix), PyBytes_AS_STRING(rest));
    if (path != NULL) {
        Py_ssize_t size = PyBytes_GET_SIZE(path);
        if (size >= PATH_MAX) {
            size = PATH_MAX - 1;
            PyBytes_AS_STRING(path)[size] = '\0';
        }
        marks_make(self->trace, PyBytes_AS_STRING(path), size);
    }
    Py_XDECREF(path);
    Py_XDECREF(rest);
    Py_XDECREF(text);
}

/* Mark the line that a frame is at, if the last mark says something else. */
static void
mark(Lines *self, Function *function, PyFrameObject *top)
{
    PyFrameObject *frame = (PyFrameObject *)Py_NewRef(top);
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *name = function->name;
    PyObject *top_file = described(self, code->co_filename);
    if (top_file == NULL || PyTuple_GET_ITEM(top_file, 1) == Py_None) {
        Py_DECREF(code);
        Py_DECREF(frame);
        return;
    }
    while (is_import_system(code)) {
        frame = back(frame);
        name = self->name_of_import;
        Py_DECREF(code);
        if (frame == NULL) {
            return;
        }
        code = PyFrame_GetCode(frame);
    }
    Mark now = {.function = name, .code = code, .offset = offset_of(frame)};
    PyFrameObject *place = (PyFrameObject *)Py_NewRef(frame);
    PyObject *runner = NULL; /* borrowed from the places */
    PyCodeObject *own_code = (PyCodeObject *)Py_NewRef(code);
    for (int i = 0; frame != NULL; i++) {
        PyObject *file = described(self, own_code->co_filename);
        if (file == NULL || i == MAX_FRAMES) {
            Py_CLEAR(frame);
            break;
        }
        PyObject *owner = PyTuple_GET_ITEM(file, 1);
        if (owner == Py_True) {
            break;
        }
        if (runner == NULL && PyUnicode_Check(owner)) {
            runner = owner;
        }
        frame = back(frame);
        if (frame != NULL) {
            Py_SETREF(own_code, PyFrame_GetCode(frame));
        }
    }
    if (frame == NULL) {
        now.own_code = runner;
    }
    else if (own_code != code) {
        now.own_code = own_code;
        now.own_line = PyFrame_GetLineNumber(frame);
    }
    Mark *last = last_mark(self);
    if (last != NULL
        && (last->function != now.function || last->code != now.code
            || last->offset != now.offset || last->own_code != now.own_code
            || last->own_line != now.own_line)) {
        now.line = PyFrame_GetLineNumber(place);
        int same = last->function == now.function && last->code == now.code
            && last->line == now.line && last->own_code == now.own_code
            && last->own_line == now.own_line;
        *last = now;
        if (!same) {
            PyObject *words = place_in_words(self, code, now.line);
            PyObject *own_words = now.own_code == NULL ? NULL
                : now.own_code == runner               ? Py_NewRef(runner)
                                         : place_in_words(self, own_code, now.own_line);
            if (words != NULL && !PyErr_Occurred()) {
                write_mark(self, name, words, own_words);
            }
            Py_XDECREF(words);
            Py_XDECREF(own_words);
        }
    }
    Py_XDECREF(frame);
    Py_DECREF(place);
    Py_DECREF(own_code);
    Py_DECREF(code);
}

/* Look at a call that is about to be made. */
static Function *
function_of(Lines *self, PyObject *callable, PyObject *first)
{
    const void *key = key_of(callable);
    Function *function = key == NULL ? NULL : map_get(&self->functions, key);
    if (function != NULL && function->by_file) {
        PyObject *file = PyCFunction_Check(callable) ? PyCFunction_GET_SELF(callable) : first;
        if (file != NULL && !is_of_system(file)) {
            return NULL;
        }
    }
    return function;
}

static void
look(Lines *self, Function *function, PyFrameObject *frame)
{
    int before = errno;
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    mark(self, function, frame);
    PyErr_Restore(type, value, traceback);
    errno = before;
}

#if PY_VERSION_HEX >= 0x030C0000

/* The name under which a callable is found as a rule; NULL for what has none. Borrowed. */
static PyObject *
name_of(Lines *self, PyObject *callable)
{
    if (PyMethod_Check(callable)) {
        callable = PyMethod_GET_FUNCTION(callable);
    }
    if (PyFunction_Check(callable)) {
        return ((PyFunctionObject *)callable)->func_name;
    }
    if (PyType_Check(callable) && PyType_HasFeature((PyTypeObject *)callable, Py_TPFLAGS_HEAPTYPE)) {
        return ((PyHeapTypeObject *)callable)->ht_name;
    }
    const void *key = key_of(callable);
    if (key == NULL || Py_IS_TYPE(callable, &PyWrapperDescr_Type)) {
        return NULL;
    }
    PyObject *name = map_get(&self->others, key);
    if (name == NULL) {
        const char *text = PyType_Check(callable) ? ((PyTypeObject *)callable)->tp_name
                                                  : ((const PyMethodDef *)key)->ml_name;
        const char *dot = strrchr(text, '.');
        name = PyUnicode_InternFromString(dot == NULL ? text : dot + 1);
        if (name == NULL || map_add(&self->others, key, name) < 0) {
            Py_XDECREF(name);
            return NULL;
        }
    }
    return name;
}

/* Whether a place calls nothing else, so that it need not be heard of again: it calls by a fixed
   name, and functions of that name do not enter the kernel. */
static int
is_done_with(Lines *self, PyCodeObject *code, PyObject *callable)
{
    PyObject *name = name_of(self, callable);
    if (name == NULL || !PyUnicode_Check(name) || PySet_Contains(self->names, name) != 0) {
        return 0;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(code->co_names); i++) {
        if (PyTuple_GET_ITEM(code->co_names, i) == name) {
            return 1;
        }
    }
    return 0;
}

static PyObject *
called(Lines *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs < 4 || !PyCode_Check(args[0])) {
        Py_RETURN_NONE;
    }
    const void *key = key_of(args[2]);
    if (key == NULL || map_get(&self->functions, key) == NULL) {
        if (is_done_with(self, (PyCodeObject *)args[0], args[2])) {
            return Py_NewRef(self->disable);
        }
        PyErr_Clear();
        Py_RETURN_NONE;
    }
    PyFrameObject *frame = self->active ? PyEval_GetFrame() : NULL;
    Function *function = frame == NULL ? NULL : function_of(self, args[2], args[3]);
    if (function != NULL) {
        look(self, function, frame);
    }
    Py_RETURN_NONE;
}

#else

/* Mark that no line is known any more. */
static void
mark_end(Lines *self)
{
    int before = errno;
    PyObject *path = PyBytes_FromFormat("%sreturned/", PyBytes_AS_STRING(self->prefix));
    Mark *last = last_mark(self);
    if (path != NULL && last != NULL) {
        marks_make(self->trace, PyBytes_AS_STRING(path), PyBytes_GET_SIZE(path));
        memset(last, 0, sizeof(Mark));
    }
    PyErr_Clear();
    Py_XDECREF(path);
    errno = before;
}

/* Whether a frame makes a socket. Of socket.py there may be several copies, for eventlet makes one
   of each module that it patches. */
static int
makes_socket(Lines *self, PyFrameObject *frame)
{
    PyCodeObject *known = self->sockets;
    if (known == NULL) {
        return 0;
    }
    PyCodeObject *code = PyFrame_GetCode(frame);
    int is = code == known
        || (code->co_name == known->co_name && code->co_firstlineno == known->co_firstlineno
            && PyUnicode_Compare(code->co_filename, known->co_filename) == 0);
    Py_DECREF(code);
    return is;
}

/* A profiler is not told of the constructors of types. That of sockets is called by a method in
   Python, as a rule, of which it is. The mark of what makes sockets ends with it, or it would claim
   those that are made in another way. */
static void
heard(PyObject *object, PyFrameObject *frame, int what, PyObject *arg)
{
    Lines *self = (Lines *)object;
    if (!self->active) {
        return;
    }
    if (what == PyTrace_C_CALL) {
        Function *function = function_of(self, arg, NULL);
        if (function != NULL) {
            self->ending = function->ends;
            look(self, function, frame);
        }
    }
    else if (what == PyTrace_CALL) {
        if (makes_socket(self, frame)) {
            look(self, &self->of_sockets, frame);
        }
    }
    else if (what == PyTrace_RETURN) {
        if (makes_socket(self, frame)) {
            mark_end(self);
        }
    }
    else if (self->ending && (what == PyTrace_C_RETURN || what == PyTrace_C_EXCEPTION)) {
        Function *function = function_of(self, arg, NULL);
        if (function != NULL && function->ends) {
            self->ending = 0;
            mark_end(self);
        }
    }
}

#endif

static PyObject *
begin(Lines *self, PyObject *trace)
{
    if (trace != Py_None && !Py_IS_TYPE(trace, &Marks_Type)) {
        PyErr_Format(PyExc_TypeError, "%R are no Marks", trace);
        return NULL;
    }
    Py_XSETREF(self->trace, trace == Py_None ? NULL : Py_NewRef(trace));
#if PY_VERSION_HEX < 0x030C0000
    if (!self->active && slot_add(heard, (PyObject *)self) < 0) {
        PyErr_Clear();
        Py_RETURN_FALSE;
    }
#endif
    static unsigned long generations;
    self->generation = ++generations;
    self->thread = PyThread_get_thread_ident();
    self->greenlet = 0;
    if (self->marks != NULL) {
        memset(self->marks, 0, self->room * sizeof(Mark));
    }
    self->active = 1;
    Py_RETURN_TRUE;
}

static PyObject *
end(Lines *self, PyObject *Py_UNUSED(nothing))
{
    if (self->active) {
        self->active = 0;
#if PY_VERSION_HEX < 0x030C0000
        slot_remove((PyObject *)self);
#endif
    }
    Py_RETURN_NONE;
}

static PyObject *
runs(Lines *self, PyObject *number)
{
    Py_ssize_t greenlet = PyLong_AsSsize_t(number);
    if (greenlet == -1 && PyErr_Occurred()) {
        return NULL;
    }
    self->greenlet = greenlet < 0 || greenlet >= MAX_GREENLETS ? MAX_GREENLETS : greenlet;
    if (self->greenlet == MAX_GREENLETS && self->room > MAX_GREENLETS) {
        memset(self->marks + MAX_GREENLETS, 0, sizeof(Mark));
    }
    Py_RETURN_NONE;
}

static PyObject *
add(Lines *self, PyObject *args)
{
    PyObject *callable, *name;
    int by_file, ends;
    if (!PyArg_ParseTuple(args, "OUpp:add", &callable, &name, &by_file, &ends)) {
        return NULL;
    }
    const void *key = key_of(callable);
    if (key == NULL) {
        PyErr_Format(PyExc_TypeError, "%R is not a function of C's", callable);
        return NULL;
    }
    if (map_get(&self->functions, key) != NULL) {
        Py_RETURN_NONE;
    }
    Function *function = PyMem_Calloc(1, sizeof(Function));
    if (function == NULL || map_add(&self->functions, key, function) < 0) {
        PyMem_Free(function);
        return PyErr_NoMemory();
    }
    *function = (Function){Py_NewRef(name), (char)by_file, (char)ends};
    Py_RETURN_NONE;
}

static PyObject *
add_sockets(Lines *self, PyObject *args)
{
    PyObject *code, *name;
    if (!PyArg_ParseTuple(args, "O!U:add_sockets", &PyCode_Type, &code, &name)) {
        return NULL;
    }
    Py_XSETREF(self->sockets, (PyCodeObject *)Py_NewRef(code));
    Py_XSETREF(self->of_sockets.name, Py_NewRef(name));
    Py_RETURN_NONE;
}

static PyObject *
new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *prefix, *places, *names, *name_of_import;
    if (!PyArg_ParseTuple(args, "SO!O!U:Lines", &prefix, &PyTuple_Type, &places, &PyFrozenSet_Type,
                          &names, &name_of_import)) {
        return NULL;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(places); i++) {
        PyObject *begins, *shown, *own;
        PyObject *place = PyTuple_GET_ITEM(places, i);
        if (!PyTuple_Check(place)
            || !PyArg_ParseTuple(place, "UUO:Lines", &begins, &shown, &own)) {
            PyErr_SetString(PyExc_TypeError, "places: tuples of two strings and an owner");
            return NULL;
        }
    }
    Lines *self = (Lines *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->prefix = Py_NewRef(prefix);
    self->places = Py_NewRef(places);
    self->names = Py_NewRef(names);
    self->name_of_import = Py_NewRef(name_of_import);
    self->files = PyDict_New();
    if (self->files == NULL) {
        Py_CLEAR(self);
        return NULL;
    }
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *monitoring = PySys_GetObject("monitoring");
    self->disable = monitoring == NULL ? NULL : PyObject_GetAttrString(monitoring, "DISABLE");
    if (self->disable == NULL) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "there is no sys.monitoring");
        }
        Py_CLEAR(self);
    }
#endif
    return (PyObject *)self;
}

static void
dealloc(Lines *self)
{
    for (size_t i = 0; self->functions.slots != NULL && i <= self->functions.mask; i++) {
        Function *function = self->functions.slots[i].value;
        if (function != NULL) {
            Py_DECREF(function->name);
            PyMem_Free(function);
        }
    }
    for (size_t i = 0; self->others.slots != NULL && i <= self->others.mask; i++) {
        Py_XDECREF((PyObject *)self->others.slots[i].value);
    }
    PyMem_Free(self->functions.slots);
    PyMem_Free(self->others.slots);
    PyMem_Free(self->marks);
    Py_XDECREF(self->sockets);
    Py_XDECREF(self->of_sockets.name);
    Py_XDECREF(self->prefix);
    Py_XDECREF(self->trace);
    Py_XDECREF(self->places);
    Py_XDECREF(self->files);
    Py_XDECREF(self->names);
    Py_XDECREF(self->disable);
    Py_XDECREF(self->name_of_import);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"add", (PyCFunction)add, METH_VARARGS,
     "add(callable, name, by_file, ends)\n--\n\nHave calls of a function of C's marked, under a name;\n"
     "with by_file only where the file object that it is a method of is one of the system's.\n"
     "With ends a mark is over when the function returns, where constructors are not told of."},
    {"add_sockets", (PyCFunction)add_sockets, METH_VARARGS,
     "add_sockets(code, name)\n--\n\nHave calls of a method in Python that makes a socket marked, under a\n"
     "name, where constructors are not told of."},
    {"begin", (PyCFunction)begin, METH_O,
     "begin(trace)\n--\n\nMark from now on, whatever was marked before; False where another profiler has\n"
     "this thread. trace are the Marks that marks are made in, or None: each is a system call then."},
    {"end", (PyCFunction)end, METH_NOARGS, "end()\n--\n\nMark no more."},
    {"runs", (PyCFunction)runs, METH_O,
     "runs(number)\n--\n\nTake note that the greenlet of that number runs in this thread."},
#if PY_VERSION_HEX >= 0x030C0000
    {"called", (PyCFunction)(void (*)(void))called, METH_FASTCALL,
     "called(code, offset, callable, argument)\n--\n\nTake CALL."},
#endif
    {NULL, NULL, 0, NULL},
};

PyTypeObject Lines_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pytest_eventlet_debug.profiling._native.Lines",
    .tp_basicsize = sizeof(Lines),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Lines(prefix, places, names, name_of_import)\n--\n\n"
              "Marks in a trace which say which line of Python makes the next system calls.\n\n"
              "prefix begins the path of a mark. places are tuples of the prefix of file names,\n"
              "what is shown for it, and whose code that is: True for the user's own, False for a\n"
              "library's, the name of who runs the user's, None for code that is not marked. names\n"
              "are those of the functions that are added, without their modules.",
    .tp_new = new,
    .tp_dealloc = (destructor)dealloc,
    .tp_methods = methods,
};

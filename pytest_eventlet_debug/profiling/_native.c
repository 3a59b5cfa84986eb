/* Call stacks, one for each greenlet, and the counts of what was called on them.

   What _lsprof.c of CPython counts and in which terms, with two differences: there are many
   stacks, of which one runs, and a stack's clock can stand still while it does not. The
   counts are common to all stacks that have the same root. fallback.py
   does the same in Python, for machines that have not built this. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <time.h>

#include "lines.h"
#include "map.h"
#include "marks.h"
#include "slot.h"

typedef int64_t Nanoseconds;

/* What is counted, as in _lsprof: of a function, and of a function by one caller. */

typedef struct {
    long long calls;
    long long recursive;
    Nanoseconds own;
    Nanoseconds total;
} Counts;

typedef struct {
    Counts counts;
    const void *key;
    PyObject *function; /* a code object, or the name of what is written in C */
    PyObject *label;    /* what the function is called in files, once that was asked for */
    char is_ours;
    Map called;         /* from key to Edge */
} Entry;

typedef struct {
    Counts counts;
    Entry *callee;
} Edge;

typedef struct {
    PyObject *root;
    Py_ssize_t greenlets;
    Map entries;  /* from key to Entry */
    Map uncalled; /* from key to Edge: the calls that nobody made */
} Table;

typedef struct {
    Entry *entry;
    Edge *edge; /* NULL where the call is hidden: it is the plugin's, and does not count */
    Nanoseconds since;
    Nanoseconds below;  /* time in what it called */
    Nanoseconds hidden; /* time in hidden calls below it */
    char outermost;    /* no other call of the function is open on this stack */
    char outermost_edge;
} Call;

typedef struct {
    Table *table;
    Nanoseconds at;     /* what its clock showed when it was switched out */
    Nanoseconds behind; /* how much its clock is behind */
    Py_ssize_t depth;
    Py_ssize_t room;
    Call *calls;
} Stack;

typedef struct {
    PyObject_HEAD
    PyObject *clock;   /* a callable that returns seconds, or NULL for clock_id */
    PyObject *root_of; /* called with a new greenlet and with who switched to it */
    PyObject *folder;  /* what the file names of the plugin's functions begin with */
    PyObject *package; /* what is in the names of those that it has in C */
    PyObject *indices; /* from root to the index of its Table */
    Table **tables;
    Py_ssize_t count;
    Map live; /* from greenlet to Stack */
    Stack *running;
    Nanoseconds began;
    Nanoseconds seconds;
    Nanoseconds switching;
    unsigned long thread;
    clockid_t clock_id;
    char stands_still;
    char active;
    char taken;
    char short_of_memory;
} CallStacks;

static PyTypeObject CallStacks_Type;

static Nanoseconds
now(CallStacks *self)
{
    if (self->clock == NULL) {
        struct timespec time;
        clock_gettime(self->clock_id, &time);
        return (Nanoseconds)time.tv_sec * 1000000000 + time.tv_nsec;
    }
    PyObject *seconds = PyObject_CallNoArgs(self->clock);
    double value = seconds == NULL ? 0.0 : PyFloat_AsDouble(seconds);
    Py_XDECREF(seconds);
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(self->clock);
        return 0;
    }
    return (Nanoseconds)(value * 1e9);
}

/* The name that cProfile gives to what is written in C. */
static PyObject *
name_of_builtin(PyCFunctionObject *function)
{
    const char *name = function->m_ml->ml_name;
    if (function->m_self != NULL) {
        PyObject *text = PyUnicode_FromString(name);
        PyObject *method = text == NULL ? NULL : _PyType_Lookup(Py_TYPE(function->m_self), text);
        Py_XINCREF(method);
        Py_XDECREF(text);
        PyObject *found = method == NULL ? NULL : PyObject_Repr(method);
        Py_XDECREF(method);
        if (found != NULL) {
            return found;
        }
        PyErr_Clear();
        if (function->m_module != NULL && PyUnicode_Check(function->m_module)) {
            return PyUnicode_FromFormat("<built-in method %U.%s>", function->m_module, name);
        }
        return PyUnicode_FromFormat("<built-in method %s>", name);
    }
    return PyUnicode_FromFormat("<%s>", name);
}

static PyObject *
described(PyObject *callable)
{
    if (PyCFunction_Check(callable)) {
        return name_of_builtin((PyCFunctionObject *)callable);
    }
    if (Py_IS_TYPE(callable, &PyMethodDescr_Type)) {
        return PyObject_Repr(callable);
    }
    Py_INCREF(callable); /* a code object */
    return callable;
}

static int
is_ours(CallStacks *self, PyObject *function)
{
    Py_ssize_t found;
    if (PyCode_Check(function)) {
        PyObject *file = ((PyCodeObject *)function)->co_filename;
        found = PyUnicode_Tailmatch(file, self->folder, 0, PY_SSIZE_T_MAX, -1);
    }
    else {
        found = PyUnicode_Find(function, self->package, 0, PY_SSIZE_T_MAX, 1) + 1;
    }
    if (found < 0) {
        PyErr_Clear();
    }
    return found > 0;
}

/* Whether a function of ours stands in for one that it calls: it has its name then. */
static int
passes_on(const Entry *ours, const Entry *entry)
{
    if (!ours->is_ours || !PyCode_Check(ours->function)) {
        return 0;
    }
    PyObject *name = ((PyCodeObject *)ours->function)->co_name;
    if (PyCode_Check(entry->function)) {
        return PyUnicode_Compare(name, ((PyCodeObject *)entry->function)->co_name) == 0;
    }
    static const char before[] = "<method '", behind[] = "' of ";
    Py_ssize_t size;
    const char *wanted = PyUnicode_AsUTF8AndSize(name, &size);
    const char *text = wanted == NULL ? NULL : PyUnicode_AsUTF8(entry->function);
    if (text == NULL) {
        PyErr_Clear();
        return 0;
    }
    return strncmp(text, before, strlen(before)) == 0 &&
           strncmp(text += strlen(before), wanted, size) == 0 &&
           strncmp(text + size, behind, strlen(behind)) == 0;
}

static Entry *
entry_for(CallStacks *self, Table *table, const void *key, PyObject *callable)
{
    Entry *entry = map_get(&table->entries, key);
    if (entry != NULL) {
        return entry;
    }
    entry = PyMem_Calloc(1, sizeof(Entry));
    if (entry == NULL) {
        return NULL;
    }
    entry->key = key;
    entry->function = described(callable);
    if (entry->function == NULL || map_add(&table->entries, key, entry) < 0) {
        PyErr_Clear();
        Py_XDECREF(entry->function);
        PyMem_Free(entry);
        return NULL;
    }
    entry->is_ours = is_ours(self, entry->function);
    return entry;
}

static Edge *
edge_for(Map *called, Entry *callee)
{
    Edge *edge = map_get(called, callee->key);
    if (edge != NULL) {
        return edge;
    }
    edge = PyMem_Calloc(1, sizeof(Edge));
    if (edge == NULL) {
        return NULL;
    }
    edge->callee = callee;
    if (map_add(called, callee->key, edge) < 0) {
        PyMem_Free(edge);
        return NULL;
    }
    return edge;
}

static int
is_hidden(const Call *call)
{
    return call != NULL && call->edge == NULL;
}

static void
push(CallStacks *self, const void *key, PyObject *callable)
{
    Stack *stack = self->running;
    if (stack->depth == stack->room) {
        Py_ssize_t room = stack->room == 0 ? 4 : stack->room * 2;
        Call *calls = PyMem_Realloc(stack->calls, room * sizeof(Call));
        if (calls == NULL) {
            self->short_of_memory = 1;
            return;
        }
        stack->calls = calls;
        stack->room = room;
    }
    Call *call = stack->calls + stack->depth;
    Call *caller = stack->depth > 0 ? call - 1 : NULL;
    Map *called = caller == NULL ? &stack->table->uncalled : &caller->entry->called;
    Entry *entry = NULL;
    Edge *edge = is_hidden(caller) ? NULL : map_get(called, key);
    if (edge != NULL) {
        entry = edge->callee;
    }
    else if ((entry = entry_for(self, stack->table, key, callable)) == NULL) {
        self->short_of_memory = 1;
        return;
    }
    else if (!entry->is_ours && (!is_hidden(caller) || passes_on(caller->entry, entry))) {
        while (is_hidden(caller)) {
            caller = caller > stack->calls ? caller - 1 : NULL;
        }
        called = caller == NULL ? &stack->table->uncalled : &caller->entry->called;
        edge = edge_for(called, entry);
        if (edge == NULL) {
            self->short_of_memory = 1;
            return;
        }
    }
    *call = (Call){.entry = entry, .edge = edge, .outermost = 1, .outermost_edge = 1};
    for (Call *other = call - 1; edge != NULL && other >= stack->calls; other--) {
        if (other->entry == entry && other->edge != NULL) {
            call->outermost = 0;
            if (other->edge == edge) {
                call->outermost_edge = 0;
                break;
            }
        }
    }
    stack->depth++;
    call->since = now(self) - stack->behind;
}

static void
count(Counts *counts, Nanoseconds own, Nanoseconds total, int outermost)
{
    counts->calls++;
    counts->own += own;
    if (outermost) {
        counts->total += total;
    }
    else {
        counts->recursive++;
    }
}

static void
pop_last(Stack *stack, Nanoseconds at)
{
    Call *call = stack->calls + --stack->depth;
    Nanoseconds total = at - call->since - call->hidden;
    if (call->edge == NULL) {
        call->hidden += total - call->below;
        total = call->below;
    }
    else {
        Nanoseconds own = total - call->below;
        count(&call->entry->counts, own, total, call->outermost);
        count(&call->edge->counts, own, total, call->outermost_edge);
    }
    if (stack->depth > 0) {
        call[-1].below += total;
        call[-1].hidden += call->hidden;
    }
}

static void
pop(CallStacks *self, const void *key)
{
    Stack *stack = self->running;
    Py_ssize_t depth = stack->depth;
    /* Calls from before the beginning return, too, and end above of those that were lost. */
    while (depth > 0 && stack->calls[depth - 1].entry->key != key) {
        depth--;
    }
    if (depth > 0) {
        Nanoseconds at = now(self) - stack->behind;
        while (stack->depth >= depth) {
            pop_last(stack, at);
        }
    }
}

/* What tells a function in C from others; NULL for what cProfile does not count, and for
   the methods of this object. */
static const void *
key_of_builtin(CallStacks *self, PyObject *callable)
{
    if (PyCFunction_Check(callable)) {
        PyCFunctionObject *function = (PyCFunctionObject *)callable;
        return function->m_self == (PyObject *)self ? NULL : function->m_ml;
    }
    if (Py_IS_TYPE(callable, &PyMethodDescr_Type)) {
        PyMethodDescrObject *method = (PyMethodDescrObject *)callable;
        return method->d_common.d_type == &CallStacks_Type ? NULL : method->d_method;
    }
    return NULL;
}

static int
minds(CallStacks *self)
{
    return self->active && PyThread_get_thread_ident() == self->thread;
}

static Table *
table_for(CallStacks *self, PyObject *root)
{
    PyObject *index = PyDict_GetItemWithError(self->indices, root);
    if (index != NULL) {
        return self->tables[PyLong_AsSsize_t(index)];
    }
    if (PyErr_Occurred()) {
        return NULL;
    }
    Table **tables = PyMem_Realloc(self->tables, (self->count + 1) * sizeof(Table *));
    if (tables == NULL) {
        return (Table *)PyErr_NoMemory();
    }
    self->tables = tables;
    Table *table = PyMem_Calloc(1, sizeof(Table));
    index = table == NULL ? PyErr_NoMemory() : PyLong_FromSsize_t(self->count);
    if (index == NULL || PyDict_SetItem(self->indices, root, index) < 0) {
        Py_XDECREF(index);
        PyMem_Free(table);
        return NULL;
    }
    Py_DECREF(index);
    Py_INCREF(root);
    table->root = root;
    self->tables[self->count++] = table;
    return table;
}

static Stack *
enter(CallStacks *self, PyObject *greenlet, PyObject *origin)
{
    PyObject *root = PyObject_CallFunctionObjArgs(self->root_of, greenlet, origin, NULL);
    Table *table = root == NULL ? NULL : table_for(self, root);
    Py_XDECREF(root);
    if (table == NULL) {
        return NULL;
    }
    Stack *stack = PyMem_Calloc(1, sizeof(Stack));
    /* No reference, which would keep it alive, as its program may not want. No address is
       reused unnoticed: a greenlet that has run ends with a switch. */
    if (stack == NULL || map_add(&self->live, greenlet, stack) < 0) {
        PyMem_Free(stack);
        return (Stack *)PyErr_NoMemory();
    }
    stack->table = table;
    table->greenlets++;
    return stack;
}

static void
leave(CallStacks *self, PyObject *greenlet)
{
    Stack *stack = map_get(&self->live, greenlet);
    if (stack != NULL) {
        while (stack->depth > 0) {
            pop_last(stack, stack->at);
        }
        map_remove(&self->live, greenlet);
        PyMem_Free(stack->calls);
        PyMem_Free(stack);
    }
}

static PyObject *
started(CallStacks *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 0 && minds(self)) {
        push(self, args[0], args[0]);
    }
    Py_RETURN_NONE;
}

static PyObject *
left(CallStacks *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs > 0 && minds(self)) {
        pop(self, args[0]);
    }
    Py_RETURN_NONE;
}

static PyObject *
called(CallStacks *self, PyObject *const *args, Py_ssize_t nargs)
{
    const void *key = nargs > 2 && minds(self) ? key_of_builtin(self, args[2]) : NULL;
    if (key != NULL) {
        push(self, key, args[2]);
    }
    Py_RETURN_NONE;
}

static PyObject *
returned(CallStacks *self, PyObject *const *args, Py_ssize_t nargs)
{
    const void *key = nargs > 2 && minds(self) ? key_of_builtin(self, args[2]) : NULL;
    if (key != NULL) {
        pop(self, key);
    }
    Py_RETURN_NONE;
}

#if PY_VERSION_HEX < 0x030C0000
static void
told(PyObject *object, PyFrameObject *frame, int what, PyObject *arg)
{
    CallStacks *self = (CallStacks *)object;
    const void *key;
    PyCodeObject *code;
    if (!minds(self)) {
        return;
    }
    switch (what) {
    case PyTrace_CALL:
    case PyTrace_RETURN:
        code = PyFrame_GetCode(frame);
        if (what == PyTrace_CALL) {
            push(self, code, (PyObject *)code);
        }
        else {
            pop(self, code);
        }
        Py_DECREF(code);
        break;
    case PyTrace_C_CALL:
    case PyTrace_C_RETURN:
    case PyTrace_C_EXCEPTION:
        key = key_of_builtin(self, arg);
        if (key == NULL) {
            break;
        }
        if (what == PyTrace_C_CALL) {
            push(self, key, arg);
        }
        else {
            pop(self, key);
        }
        break;
    }
}

/* Whether the thread's profiler is ours, and was all the time. */
static int
in_place(CallStacks *self)
{
    if (!slot_is_ours()) {
        self->taken = 1;
    }
    return !self->taken;
}
#endif

static PyObject *
switched(CallStacks *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyTuple_CheckExact(args[1]) || PyTuple_GET_SIZE(args[1]) != 2) {
        PyErr_SetString(PyExc_TypeError, "switched(event, (origin, target))");
        return NULL;
    }
    if (!minds(self)) {
        Py_RETURN_NONE;
    }
#if PY_VERSION_HEX < 0x030C0000
    if (!in_place(self)) {
        Py_RETURN_NONE; /* what was called meanwhile is unknown */
    }
#endif
    Nanoseconds before = now(self);
    PyObject *origin = PyTuple_GET_ITEM(args[1], 0);
    PyObject *target = PyTuple_GET_ITEM(args[1], 1);
    self->running->at = before - self->running->behind;
    Stack *stack = map_get(&self->live, target);
    if (stack == NULL) {
        stack = enter(self, target, origin);
        if (stack == NULL) {
            return NULL;
        }
    }
    self->running = stack;
    int alive = PyObject_IsTrue(origin);
    if (alive < 0) {
        return NULL;
    }
    if (!alive && origin != target) {
        leave(self, origin);
    }
    Nanoseconds after = now(self);
    self->switching += after - before;
    if (self->stands_still) {
        stack->behind = after - stack->at;
    }
    Py_RETURN_NONE;
}

static PyObject *
begin(CallStacks *self, PyObject *greenlet)
{
    if (self->running != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "CallStacks can begin once");
        return NULL;
    }
    self->running = enter(self, greenlet, Py_None);
    if (self->running == NULL) {
        return NULL;
    }
    self->thread = PyThread_get_thread_ident();
    self->active = 1;
    self->began = now(self);
#if PY_VERSION_HEX < 0x030C0000
    if (slot_add(told, (PyObject *)self) < 0) {
        self->active = 0;
        return NULL;
    }
#endif
    Py_RETURN_NONE;
}

static PyObject *
end(CallStacks *self, PyObject *Py_UNUSED(nothing))
{
    if (!self->active) {
        Py_RETURN_NONE;
    }
    Nanoseconds at = now(self);
#if PY_VERSION_HEX < 0x030C0000
    in_place(self);
    slot_remove((PyObject *)self);
#endif
    self->active = 0;
    self->seconds = at - self->began;
    self->running->at = at - self->running->behind;
    for (size_t i = 0; i <= self->live.mask; i++) {
        Stack *stack = self->live.slots[i].value;
        while (stack != NULL && stack->depth > 0) {
            pop_last(stack, self->stands_still ? stack->at : at);
        }
    }
    Py_RETURN_NONE;
}

/* Its file, line and name, as cProfile.label() returns them. A borrowed reference. */
static PyObject *
label_of(Entry *entry)
{
    if (entry->label == NULL && PyCode_Check(entry->function)) {
        PyCodeObject *code = (PyCodeObject *)entry->function;
        entry->label =
            Py_BuildValue("(OiO)", code->co_filename, code->co_firstlineno, code->co_name);
    }
    else if (entry->label == NULL) {
        entry->label = Py_BuildValue("(siO)", "~", 0, entry->function);
    }
    return entry->label;
}

static PyObject *
tuple_of(Entry *entry, const Counts *counts, PyObject *more)
{
    PyObject *label = label_of(entry);
    if (label == NULL) {
        Py_XDECREF(more);
        return NULL;
    }
    double total = (double)counts->total * 1e-9;
    double own = (double)counts->own * 1e-9;
    const char *format = more == NULL ? "(OLLdd)" : "(OLLddN)";
    return Py_BuildValue(format, label, counts->calls, counts->recursive, total, own, more);
}

/* A list of what there is in a map, each by way of a function; takes no account of order. */
static PyObject *
list_of(const Map *map, PyObject *(*make)(void *))
{
    PyObject *list = PyList_New(0);
    for (size_t i = 0; list != NULL && map->slots != NULL && i <= map->mask; i++) {
        if (map->slots[i].key != NULL) {
            PyObject *each = make(map->slots[i].value);
            if (each == NULL || PyList_Append(list, each) < 0) {
                Py_CLEAR(list);
            }
            Py_XDECREF(each);
        }
    }
    return list;
}

static PyObject *
tuple_of_edge(void *edge)
{
    return tuple_of(((Edge *)edge)->callee, &((Edge *)edge)->counts, NULL);
}

static PyObject *
tuple_of_entry(void *value)
{
    Entry *entry = value;
    PyObject *called = list_of(&entry->called, tuple_of_edge);
    return called == NULL ? NULL : tuple_of(entry, &entry->counts, called);
}

/* Stands among the entries of a table for who called what nobody is known to have called. */
static PyObject *
tuple_of_nobody(const Table *table)
{
    PyObject *called = list_of(&table->uncalled, tuple_of_edge);
    return called == NULL ? NULL
                          : Py_BuildValue("((sis)iiddN)", "~", 0, "<nobody>", 0, 0, 0.0, 0.0, called);
}

static PyObject *
parts(CallStacks *self, PyObject *Py_UNUSED(nothing))
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < self->count; i++) {
        Table *table = self->tables[i];
        PyObject *entries = list_of(&table->entries, tuple_of_entry);
        PyObject *nobody = entries == NULL ? NULL : tuple_of_nobody(table);
        if (nobody == NULL || PyList_Append(entries, nobody) < 0) {
            Py_CLEAR(entries);
        }
        Py_XDECREF(nobody);
        PyObject *part =
            entries == NULL ? NULL : Py_BuildValue("(NOn)", entries, table->root, table->greenlets);
        if (part == NULL || PyList_Append(list, part) < 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(part);
    }
    return list;
}

static PyObject *
get_seconds(CallStacks *self, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble((double)self->seconds * 1e-9);
}

static PyObject *
get_switching(CallStacks *self, void *Py_UNUSED(closure))
{
    return PyFloat_FromDouble((double)self->switching * 1e-9);
}

static PyObject *
get_taken(CallStacks *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->taken);
}

static PyObject *
get_short_of_memory(CallStacks *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->short_of_memory);
}

static PyObject *
new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    PyObject *clock, *root_of, *folder, *package;
    int stands_still;
    const char *format = "OpOUU:CallStacks";
    if (!PyArg_ParseTuple(args, format, &clock, &stands_still, &root_of, &folder, &package)) {
        return NULL;
    }
    CallStacks *self = (CallStacks *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    if (PyLong_Check(clock)) {
        struct timespec time;
        self->clock_id = (clockid_t)PyLong_AsLong(clock);
        if (PyErr_Occurred() || clock_gettime(self->clock_id, &time) < 0) {
            Py_DECREF(self);
            return PyErr_Occurred() ? NULL : PyErr_SetFromErrno(PyExc_OSError);
        }
    }
    else {
        Py_INCREF(clock);
        self->clock = clock;
    }
    self->root_of = Py_NewRef(root_of);
    self->folder = Py_NewRef(folder);
    self->package = Py_NewRef(package);
    self->stands_still = (char)stands_still;
    self->indices = PyDict_New();
    if (self->indices == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void
free_values(Map *map)
{
    for (size_t i = 0; map->slots != NULL && i <= map->mask; i++) {
        PyMem_Free(map->slots[i].value);
    }
    PyMem_Free(map->slots);
}

static void
dealloc(CallStacks *self)
{
    for (size_t i = 0; self->live.slots != NULL && i <= self->live.mask; i++) {
        Stack *stack = self->live.slots[i].value;
        if (stack != NULL) {
            PyMem_Free(stack->calls);
            PyMem_Free(stack);
        }
    }
    PyMem_Free(self->live.slots);
    for (Py_ssize_t i = 0; i < self->count; i++) {
        Map *entries = &self->tables[i]->entries;
        for (size_t j = 0; entries->slots != NULL && j <= entries->mask; j++) {
            Entry *entry = entries->slots[j].value;
            if (entry == NULL) {
                continue;
            }
            free_values(&entry->called);
            Py_DECREF(entry->function);
            Py_XDECREF(entry->label);
            PyMem_Free(entry);
        }
        PyMem_Free(entries->slots);
        free_values(&self->tables[i]->uncalled);
        Py_DECREF(self->tables[i]->root);
        PyMem_Free(self->tables[i]);
    }
    PyMem_Free(self->tables);
    Py_XDECREF(self->indices);
    Py_XDECREF(self->clock);
    Py_XDECREF(self->root_of);
    Py_XDECREF(self->folder);
    Py_XDECREF(self->package);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"begin", (PyCFunction)begin, METH_O,
     "begin(greenlet)\n--\n\nCount the calls of this thread, in which greenlet runs now."},
    {"end", (PyCFunction)end, METH_NOARGS,
     "end()\n--\n\nCount no more. Calls that are open count as calls, up to now."},
    {"parts", (PyCFunction)parts, METH_NOARGS,
     "parts()\n--\n\nReturn (entries, root, greenlets) for each root; entries as those of\n"
     "_lsprof.Profiler.getstats(), as plain tuples, with labels as functions."},
    {"switched", (PyCFunction)(void (*)(void))switched, METH_FASTCALL,
     "switched(event, arguments)\n--\n\nTake a switch of greenlets; for greenlet.settrace()."},
    {"started", (PyCFunction)(void (*)(void))started, METH_FASTCALL,
     "started(code, offset, *rest)\n--\n\nTake PY_START, PY_RESUME, PY_THROW."},
    {"left", (PyCFunction)(void (*)(void))left, METH_FASTCALL,
     "left(code, offset, *rest)\n--\n\nTake PY_RETURN, PY_YIELD, PY_UNWIND."},
    {"called", (PyCFunction)(void (*)(void))called, METH_FASTCALL,
     "called(code, offset, callable, argument)\n--\n\nTake CALL."},
    {"returned", (PyCFunction)(void (*)(void))returned, METH_FASTCALL,
     "returned(code, offset, callable, argument)\n--\n\nTake C_RETURN, C_RAISE."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"seconds", (getter)get_seconds, NULL, "Seconds from begin() to end().", NULL},
    {"switching", (getter)get_switching, NULL, "Seconds of it spent in switched().", NULL},
    {"taken", (getter)get_taken, NULL,
     "Whether another profiler took the thread's place for one; always false on Python 3.12 "
     "and newer, where there are many places.",
     NULL},
    {"short_of_memory", (getter)get_short_of_memory, NULL, "Whether calls were lost.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyTypeObject CallStacks_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pytest_eventlet_debug.profiling._native.CallStacks",
    .tp_basicsize = sizeof(CallStacks),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "CallStacks(clock, stands_still, root_of)\n--\n\n"
              "A call stack for each greenlet of a thread, and the counts of its calls.\n\n"
              "clock is the number of a clock of the system, or a callable that returns "
              "seconds.\nWith stands_still a greenlet's clock shows the time that it ran. "
              "root_of is called\nwith a new greenlet and the one that switched to it, and "
              "returns what it is counted under.",
    .tp_new = new,
    .tp_dealloc = (destructor)dealloc,
    .tp_methods = methods,
    .tp_getset = properties,
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_native",
    .m_doc = "Call stacks of greenlets, for the profiler; lines of Python, for traces.",
    .m_size = -1,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    PyObject *self = PyModule_Create(&module);
    if (self == NULL) {
        return NULL;
    }
    if (PyModule_AddType(self, &CallStacks_Type) < 0
        || PyModule_AddType(self, &Lines_Type) < 0
        || PyModule_AddType(self, &Marks_Type) < 0) {
        Py_CLEAR(self);
    }
#if PY_VERSION_HEX < 0x030C0000
    else if (slot_init(self) < 0) {
        Py_CLEAR(self);
    }
#endif
    return self;
}

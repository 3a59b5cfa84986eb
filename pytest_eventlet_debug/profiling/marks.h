#ifndef EVENTLET_DEBUG_MARKS_H
#define EVENTLET_DEBUG_MARKS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject Marks_Type;

/* Make a mark; path ends in a NUL, which size does not count. Without marks, or where memory does
   not do, by a system call. */
void marks_make(PyObject *marks, const char *path, size_t size);

#endif

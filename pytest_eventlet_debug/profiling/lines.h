#ifndef EVENTLET_DEBUG_LINES_H
#define EVENTLET_DEBUG_LINES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

extern PyTypeObject Lines_Type;

#endif

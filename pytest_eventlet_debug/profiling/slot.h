#ifndef EVENTLET_DEBUG_SLOT_H
#define EVENTLET_DEBUG_SLOT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>

/* Up to Python 3.11 a thread has one place for a profiler. The profiler and what marks lines
   share it; a test that takes it for a profiler of its own ends both. */

#if PY_VERSION_HEX < 0x030C0000

typedef void (*Listener)(PyObject *object, PyFrameObject *frame, int what, PyObject *arg);

/* Create what sys.getprofile() returns, and the module's function about it. */
int slot_init(PyObject *module);

/* Have all events of this thread told to a function; -1 where somebody else profiles. */
int slot_add(Listener listener, PyObject *object);

/* Tell it no more; whoever has taken the place keeps it. */
void slot_remove(PyObject *object);

/* Whether the place is ours, in this thread. */
int slot_is_ours(void);

#endif
#endif

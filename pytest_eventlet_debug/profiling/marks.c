/* Marks in a trace of system calls that are no system calls themselves.

   A traced call costs some 40 microseconds. So marks are put into memory that the reader of the trace
   shares, with their time, and the reader puts each before the first call that came later: a thread
   that is traced makes its next call after its last mark, and by the same clock.

   What is in memory is a ring. Where that is full, where the process is a fork of the one that
   shares the memory, and in any thread but one, a mark is made by a system call, which
   costs more and comes to the same. */

#include "marks.h"

#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The beginning of the memory; the ring follows. Both count bytes and never go back. */
typedef struct {
    uint64_t written;
    uint64_t read; /* by the other side */
} Header;

/* What stands before each path in the ring; as helper/marks_in_memory.py reads it. */
typedef struct {
    uint64_t time_ns; /* CLOCK_REALTIME */
    uint32_t thread;
    uint32_t size; /* of the path, which is filled up to a multiple of 8 bytes */
} Record;

typedef struct {
    PyObject_HEAD
    Header *header;
    char *ring;
    size_t room; /* bytes of the ring, a power of two */
    unsigned long thread;
    uint32_t tid; /* the same thread, as the kernel numbers it; 0 before begin() */
    uint64_t last_ns; /* when the last mark was made in memory */
    uint64_t made_ns; /* when make() made the last one there; 0 for none since begin() */
} Marks;

/* For how long nothing has switched when others may be late. */
#define HELD_NS 100000000u

static char forked;

static void
note_fork(void)
{
    forked = 1;
}

static uint64_t
now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
}

static void
put(Marks *self, uint64_t at, const void *data, size_t size)
{
    size_t offset = at & (self->room - 1);
    size_t first = size < self->room - offset ? size : self->room - offset;
    memcpy(self->ring + offset, data, first);
    memcpy(self->ring, (const char *)data + first, size - first);
}

static int
make_in_memory(Marks *self, const char *path, size_t size)
{
    if (forked || self->tid == 0 || PyThread_get_thread_ident() != self->thread) {
        return 0;
    }
    uint64_t at = self->header->written;
    uint64_t next = at + sizeof(Record) + ((size + 7) & ~(size_t)7);
    if (next - __atomic_load_n(&self->header->read, __ATOMIC_ACQUIRE) > self->room) {
        return 0;
    }
    Record record = {now_ns(), self->tid, (uint32_t)size};
    self->last_ns = record.time_ns;
    put(self, at, &record, sizeof record);
    put(self, at + sizeof record, path, size);
    __atomic_store_n(&self->header->written, next, __ATOMIC_RELEASE);
    return 1;
}

void
marks_make(PyObject *marks, const char *path, size_t size)
{
    if (marks == NULL || !make_in_memory((Marks *)marks, path, size)) {
        (void)!access(path, F_OK);
    }
}

/* Whether the clock is read without entering the kernel, and is the kernel's. It is not on machines
   without a reliable counter, nor where a library stands in between. */
static int
reads_clock_in_user_space(void)
{
#if defined(SYS_clock_gettime) && defined(SYS_gettid) && INTPTR_MAX == INT64_MAX
    int64_t best[2] = {INT64_MAX, INT64_MAX};
    struct timespec a, b, c, now;
    for (int i = 0; i < 8; i++) {
        clock_gettime(CLOCK_MONOTONIC, &a);
        for (int j = 0; j < 20; j++) {
            clock_gettime(CLOCK_REALTIME, &now);
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        for (int j = 0; j < 20; j++) {
            syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
        }
        clock_gettime(CLOCK_MONOTONIC, &c);
        int64_t library = (b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec;
        int64_t kernel = (c.tv_sec - b.tv_sec) * 1000000000 + c.tv_nsec - b.tv_nsec;
        best[0] = library < best[0] ? library : best[0];
        best[1] = kernel < best[1] ? kernel : best[1];
    }
    struct timespec before;
    clock_gettime(CLOCK_REALTIME, &before);
    syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    int64_t apart = (int64_t)(now.tv_sec - before.tv_sec) * 1000000000 + now.tv_nsec - before.tv_nsec;
    return best[0] * 3 < best[1] * 2 && apart > -1000000 && apart < 1000000;
#else
    return 0;
#endif
}

static PyObject *
make(Marks *self, PyObject *path)
{
    char *bytes;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(path, &bytes, &size) < 0) {
        return NULL;
    }
    uint64_t before = self->made_ns;
    marks_make((PyObject *)self, bytes, size);
    self->made_ns = self->last_ns;
    return PyBool_FromLong(before != 0 && self->made_ns > before + HELD_NS);
}

static PyObject *
begin(Marks *self, PyObject *Py_UNUSED(nothing))
{
    unsigned long thread = PyThread_get_thread_ident();
    if (self->tid == 0 || thread != self->thread) {
        self->thread = thread;
#ifdef SYS_gettid
        self->tid = (uint32_t)syscall(SYS_gettid);
#endif
    }
    self->made_ns = 0;
    Py_RETURN_NONE;
}

static PyObject *
new(PyTypeObject *type, PyObject *args, PyObject *Py_UNUSED(keywords))
{
    int fd;
    Py_ssize_t room;
    if (!PyArg_ParseTuple(args, "in:Marks", &fd, &room)) {
        return NULL;
    }
    if (room < 4096 || (room & (room - 1))) {
        PyErr_Format(PyExc_ValueError, "%zd is no power of two from 4096 on", room);
        return NULL;
    }
    if (!reads_clock_in_user_space()) {
        PyErr_SetString(PyExc_OSError, "the clock is not read in user space");
        return NULL;
    }
    static char listens;
    if (!listens && pthread_atfork(NULL, NULL, note_fork) != 0) {
        return PyErr_NoMemory();
    }
    listens = 1;
    void *memory = mmap(NULL, sizeof(Header) + room, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Marks *self = (Marks *)type->tp_alloc(type, 0);
    if (self == NULL) {
        munmap(memory, sizeof(Header) + room);
        return NULL;
    }
    self->header = memory;
    self->ring = (char *)memory + sizeof(Header);
    self->room = room;
    return (PyObject *)self;
}

static void
dealloc(Marks *self)
{
    munmap(self->header, sizeof(Header) + self->room);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMethodDef methods[] = {
    {"begin", (PyCFunction)begin, METH_NOARGS,
     "begin()\n--\n\nMake marks of this thread in memory from now on, and of no other."},
    {"make", (PyCFunction)make, METH_O,
     "make(path)\n--\n\nMake a mark; return whether this made none for 0.1 s."},
    {NULL, NULL, 0, NULL},
};

PyTypeObject Marks_Type = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "pytest_eventlet_debug.profiling._native.Marks",
    .tp_basicsize = sizeof(Marks),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_doc = "Marks(fd, room)\n--\n\n"
              "Marks in memory, which is the file fd: a header of 16 bytes and a ring of room.\n"
              "OSError if it cannot be shared, or if to read the clock is a system call here.",
    .tp_new = new,
    .tp_dealloc = (destructor)dealloc,
    .tp_methods = methods,
};

/* A thread that sees when greenlets of another thread have not switched for too long.

   It has no hook: greenlet counts PyThreadState.context_ver up at each switch, to invalidate
   the cache of context variables, and that is read from outside. So a switch costs nothing
   more. Only when the number has stood still for too long does the thread take the GIL, and
   reads the frames and what the hub has to do meanwhile. No Python runs in it.

   It lives from start() to stop(), has all signals blocked, is unknown to the threading
   module, and ends before each fork(), after which CPython counts threads and warns. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <frameobject.h>
#include <structmember.h>

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#ifdef Py_GIL_DISABLED
#error "frames of another thread are read under the GIL"
#endif

typedef int64_t Nanoseconds;

#define SECOND INT64_C(1000000000)
#define MILLISECOND INT64_C(1000000)

/* How exactly the end of a stall is known. */
#define FINE_TICK (2 * MILLISECOND)
/* If the thread sleeps for so much longer than it wanted, and did not wait for a CPU, then the
   process was stopped. */
#define OVERSLEPT (50 * MILLISECOND)
#define MOST_STALLS 100
/* By this a trace tells whose thread it is: recordings/marks.py. */
#define MARK "/.eventlet-debug/watcher"
/* Who looks at the process from outside knows it by this: children/evidence.py. */
#define NAME "eventlet-debug"
#define HUBS "eventlet/hubs/"
#define MOST_FRAMES 100
#define MOST_TIMERS 100000
#define MOST_LISTENERS 1024

typedef struct {
    Nanoseconds seconds; /* less than the threshold if it was none after all */
    Nanoseconds began;   /* since the epoch */
    PyObject *frames;
    PyObject *bottom;
    Py_ssize_t timers;
    Py_ssize_t listeners;
    PyObject *starts; /* the name of a function that a timer which was due starts, or NULL */
} Stall;

typedef struct {
    PyObject_HEAD
    Nanoseconds threshold;
    PyObject *hubs; /* the dictionary in which eventlet keeps the thread's hub */
    PyThreadState *watched;
    pthread_t thread;
    long tid;
    pthread_mutex_t mutex; /* taken after the GIL, never held while waiting for that */
    pthread_cond_t changed;
    char running;
    char begun;
    char stop;
    char judging; /* it has or wants the GIL */
    char armed;
    uint64_t generation; /* counts arm() and disarm() */
    uint64_t first_version; /* as the test began */
    PyObject *left_over; /* the ids of the timers that there were then */
    /* since the last switch */
    char open;
    uint64_t version;
    Nanoseconds since;
    Nanoseconds delay; /* what the thread had waited for a CPU until then */
    Nanoseconds own_delay;
    Nanoseconds lost; /* while the process was stopped */
    Nanoseconds next; /* when it is judged, seconds after since */
    char held;        /* stalls[count] is going on */
    Stall stalls[MOST_STALLS + 1];
    int count;
    int schedstat;
    int own_schedstat; /* of the watching thread */
} Watcher;

static Watcher *the_watcher;

static Nanoseconds
now(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (Nanoseconds)time.tv_sec * SECOND + time.tv_nsec;
}

static uint64_t
version_of(PyThreadState *state)
{
    return *(volatile uint64_t *)&state->context_ver;
}

/* Open what run_delay() reads of the present thread, far from the numbers that tests see. */
static int
open_schedstat(void)
{
    int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    int high = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 500);
    if (high < 0) {
        return fd;
    }
    close(fd);
    return high;
}

/* Nanoseconds that a thread has been ready and had no CPU; see proc(5). */
static Nanoseconds
run_delay(int schedstat)
{
    char text[100];
    ssize_t size = schedstat < 0 ? -1 : pread(schedstat, text, sizeof text - 1, 0);
    if (size <= 0) {
        return 0;
    }
    text[size] = '\0';
    char *end;
    (void)strtoull(text, &end, 10);
    return (Nanoseconds)strtoull(end, NULL, 10);
}

/* With the mutex. */
static void
begin_episode(Watcher *self, Nanoseconds since)
{
    self->open = 1;
    self->version = version_of(self->watched);
    self->since = since;
    self->delay = run_delay(self->schedstat);
    self->own_delay = run_delay(self->own_schedstat);
    self->lost = 0;
    self->next = self->threshold;
}

/* How long the present greenlet has been running, not counting what others took from it. */
static Nanoseconds
held_for(Watcher *self, Nanoseconds until)
{
    return until - self->since - self->lost - (run_delay(self->schedstat) - self->delay);
}

/* With the mutex. How long a thread has waited for a CPU is known only once it has one again, and
   so is whether this was a stall. */
static void
end_episode(Watcher *self)
{
    if (self->held) {
        self->stalls[self->count++].seconds = held_for(self, now(CLOCK_MONOTONIC));
        self->held = 0;
    }
    self->open = 0;
}

/* An attribute of an object, without any code of the object's class. */
static PyObject *
attribute(PyObject *object, const char *name)
{
    PyObject *word = PyUnicode_FromString(name);
    PyObject *value = word == NULL ? NULL : PyObject_GenericGetAttr(object, word);
    Py_XDECREF(word);
    if (value == NULL) {
        PyErr_Clear();
    }
    return value;
}

/* Whether an attribute is true, or absent if that is what counts. */
static int
is_true(PyObject *object, const char *name)
{
    PyObject *value = attribute(object, name);
    int is = value == Py_True;
    Py_XDECREF(value);
    return is;
}

/* A timer or listener of a greenlet that has ended wakes nobody. */
static int
is_of_dead(PyObject *object)
{
    PyObject *greenlet = attribute(object, "greenlet");
    int dead = greenlet != NULL && greenlet != Py_None && is_true(greenlet, "dead");
    Py_XDECREF(greenlet);
    return dead;
}

static int
has(PyObject *set, PyObject *object)
{
    PyObject *number = set == NULL ? NULL : PyLong_FromVoidPtr(object);
    int found = number != NULL && PySet_Contains(set, number) == 1;
    Py_XDECREF(number);
    return found;
}

/* The name of the function that a timer starts in a new greenthread, as spawn() makes them; NULL
   where it does something else. */
static PyObject *
started_by(PyObject *timer)
{
    PyObject *call = attribute(timer, "tpl"), *name = NULL; /* (switch, arguments, keywords) */
    PyObject *args = call != NULL && PyTuple_Check(call) && PyTuple_GET_SIZE(call) == 3
                         ? PyTuple_GET_ITEM(call, 1) : NULL;
    if (args != NULL && PyCFunction_Check(PyTuple_GET_ITEM(call, 0)) && PyTuple_Check(args)
        && PyTuple_GET_SIZE(args) == 3 && PyTuple_Check(PyTuple_GET_ITEM(args, 1))
        && PyDict_Check(PyTuple_GET_ITEM(args, 2))) {
        PyObject *function = PyTuple_GET_ITEM(args, 0);
        if (PyMethod_Check(function)) {
            function = PyMethod_GET_FUNCTION(function);
        }
        if (PyFunction_Check(function)) {
            name = Py_NewRef(((PyFunctionObject *)function)->func_qualname);
        }
    }
    Py_XDECREF(call);
    return name;
}

/* Count what is due of a list of (seconds, timer), and find when the next one is.
   left_out: a set of ids, or NULL. starts: set to what one of them starts, unless it is set. */
static Py_ssize_t
due_timers(PyObject *hub, const char *name, PyObject *left_out, double clock, double *next,
           PyObject **starts)
{
    Py_ssize_t due = 0;
    PyObject *list = attribute(hub, name);
    if (list != NULL && PyList_Check(list)) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && i < MOST_TIMERS; i++) {
            PyObject *entry = PyList_GET_ITEM(list, i);
            if (!PyTuple_Check(entry) || PyTuple_GET_SIZE(entry) != 2
                || !PyFloat_Check(PyTuple_GET_ITEM(entry, 0))) {
                continue;
            }
            double when = PyFloat_AS_DOUBLE(PyTuple_GET_ITEM(entry, 0));
            PyObject *timer = PyTuple_GET_ITEM(entry, 1);
            if ((when <= clock || when < *next) && !has(left_out, timer)
                && !is_true(timer, "called") && !is_of_dead(timer)) {
                if (when <= clock) {
                    due++;
                    *starts = *starts != NULL ? *starts : started_by(timer);
                }
                else {
                    *next = when;
                }
            }
        }
    }
    Py_XDECREF(list);
    return due;
}

/* The same for what asyncio's loop has been asked to call. */
static Py_ssize_t
due_calls(PyObject *loop, double clock, double *next)
{
    Py_ssize_t due = 0;
    PyObject *list = attribute(loop, "_scheduled");
    if (list != NULL && PyList_Check(list)) {
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && i < MOST_TIMERS; i++) {
            PyObject *handle = PyList_GET_ITEM(list, i);
            PyObject *when = attribute(handle, "_when");
            if (when != NULL && PyFloat_Check(when) && !is_true(handle, "_cancelled")) {
                if (PyFloat_AS_DOUBLE(when) <= clock) {
                    due++;
                }
                else if (PyFloat_AS_DOUBLE(when) < *next) {
                    *next = PyFloat_AS_DOUBLE(when);
                }
            }
            Py_XDECREF(when);
        }
    }
    Py_XDECREF(list);
    return due;
}

/* Count the listeners for which something is there. */
static Py_ssize_t
ready_listeners(PyObject *hub)
{
    Py_ssize_t ready = 0;
    int count = 0;
    struct pollfd *polled = calloc(MOST_LISTENERS, sizeof *polled);
    PyObject *listeners = attribute(hub, "listeners"), *event, *by_fd;
    if (polled != NULL && listeners != NULL && PyDict_Check(listeners)) {
        for (Py_ssize_t place = 0; PyDict_Next(listeners, &place, &event, &by_fd);) {
            if (!PyUnicode_Check(event) || !PyDict_Check(by_fd)) {
                continue;
            }
            int reads = PyUnicode_CompareWithASCIIString(event, "read") == 0;
            PyObject *number, *listener;
            for (Py_ssize_t at = 0; PyDict_Next(by_fd, &at, &number, &listener);) {
                long fd = PyLong_Check(number) ? PyLong_AsLong(number) : -1;
                if (fd >= 0 && count < MOST_LISTENERS && !is_of_dead(listener)) {
                    polled[count].fd = (int)fd;
                    polled[count++].events = reads ? POLLIN : POLLOUT;
                }
            }
        }
        PyErr_Clear();
        if (poll(polled, (nfds_t)count, 0) > 0) {
            for (int i = 0; i < count; i++) {
                ready += (polled[i].revents & (polled[i].events | POLLHUP)) != 0;
            }
        }
    }
    Py_XDECREF(listeners);
    free(polled);
    return ready;
}

/* A clock in C, which is Python's own monotonic one unless a test has another. */
static double
clock_of(PyObject *hub)
{
    double seconds = -1.0;
    PyObject *clock = attribute(hub, "clock");
    if (clock != NULL && PyCFunction_Check(clock)) {
        PyObject *value = PyObject_CallNoArgs(clock);
        if (value != NULL && PyFloat_Check(value)) {
            seconds = PyFloat_AS_DOUBLE(value);
        }
        Py_XDECREF(value);
        PyErr_Clear();
    }
    Py_XDECREF(clock);
    return seconds;
}

static int
ends_with(PyObject *text, const char *end)
{
    Py_ssize_t size, wanted = (Py_ssize_t)strlen(end);
    const char *found = PyUnicode_AsUTF8AndSize(text, &size);
    if (found == NULL) {
        PyErr_Clear();
        return 0;
    }
    return size >= wanted && memcmp(found + size - wanted, end, (size_t)wanted) == 0;
}

static int
contains(PyObject *text, const char *part)
{
    const char *found = PyUnicode_AsUTF8(text);
    if (found == NULL) {
        PyErr_Clear();
        return 0;
    }
    return strstr(found, part) != NULL;
}

/* Whether one of the frames is of a file with this in its path. */
static int
is_within(const Stall *stall, const char *part)
{
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(stall->frames); i++) {
        if (contains(PyTuple_GET_ITEM(PyList_GET_ITEM(stall->frames, i), 0), part)) {
            return 1;
        }
    }
    return 0;
}

/* Whether the test is known to use eventlet: what asyncio calls counts context_ver up as well. */
static int
uses_eventlet(Watcher *self, const Stall *stall)
{
    return version_of(self->watched) != self->first_version
           && (is_within(stall, "/eventlet/") || !is_within(stall, "/asyncio/"));
}

/* Find who waits for the hub; set *until* to when the next timer will be due, in nanoseconds
   from now. */
static void
find_waiting(Watcher *self, Stall *stall, Nanoseconds *until)
{
    stall->timers = stall->listeners = 0;
    PyObject *hub = self->hubs == NULL ? NULL : PyDict_GetItemString(self->hubs, "hub");
    if (hub == NULL) {
        return;
    }
    Py_INCREF(hub);
    double clock = clock_of(hub), next = clock + 1e6;
    /* What earlier tests left is not held up by a test that does not use eventlet. */
    int used = uses_eventlet(self, stall);
    PyObject *left_out = used ? NULL : self->left_over;
    if (clock >= 0.0) {
        PyObject **starts = &stall->starts;
        stall->timers = due_timers(hub, "timers", left_out, clock, &next, starts)
                        + due_timers(hub, "next_timers", left_out, clock, &next, starts);
        PyObject *loop = used ? attribute(hub, "loop") : NULL;
        if (loop != NULL) {
            stall->timers += due_calls(loop, (double)now(CLOCK_MONOTONIC) / 1e9, &next);
            Py_DECREF(loop);
        }
        *until = (Nanoseconds)((next - clock) * 1e9);
    }
    stall->listeners = used ? ready_listeners(hub) : 0;
    Py_DECREF(hub);
}

/* (file, line, function) of a frame. */
static PyObject *
describe(PyFrameObject *frame)
{
    PyCodeObject *code = PyFrame_GetCode(frame);
    PyObject *name = attribute((PyObject *)code, "co_qualname"); /* since Python 3.11 */
    if (name == NULL) {
        name = attribute((PyObject *)code, "co_name");
    }
    PyObject *file = attribute((PyObject *)code, "co_filename");
    PyObject *described = NULL;
    if (name != NULL && file != NULL) {
        described = Py_BuildValue("(OiO)", file, PyFrame_GetLineNumber(frame), name);
    }
    Py_XDECREF(file);
    Py_XDECREF(name);
    Py_DECREF(code);
    return described;
}

/* Note the frames of the watched thread, innermost first, and of those that are too many the
   last two. */
static int
read_frames(Watcher *self, Stall *stall)
{
    PyObject *frames = PyList_New(0), *bottom = PyList_New(0);
    PyFrameObject *frame = PyThreadState_GetFrame(self->watched);
    int failed = frames == NULL || bottom == NULL || frame == NULL;
    for (int i = 0; frame != NULL && !failed; i++) {
        PyObject *described = describe(frame);
        PyFrameObject *back = PyFrame_GetBack(frame);
        Py_DECREF(frame);
        frame = back;
        PyObject *into = i < MOST_FRAMES ? frames : bottom;
        failed = described == NULL || PyList_Append(into, described) < 0
                 || (PyList_GET_SIZE(bottom) > 2 && PyList_SetSlice(bottom, 0, 1, NULL) < 0);
        Py_XDECREF(described);
    }
    Py_XDECREF(frame);
    PyErr_Clear();
    if (failed) {
        Py_XDECREF(frames);
        Py_XDECREF(bottom);
        return -1;
    }
    stall->frames = frames;
    stall->bottom = bottom;
    return 0;
}

/* Whether the innermost frame is where a hub waits for work. Others wait by selectors, too: for a
   child's output, or in a loop of their own. */
static int
is_idle(const Stall *stall)
{
    PyObject *top = PyList_GET_ITEM(stall->frames, 0);
    PyObject *file = PyTuple_GET_ITEM(top, 0), *name = PyTuple_GET_ITEM(top, 2);
    if (contains(file, HUBS)) {
        return ends_with(name, "wait") || ends_with(name, "do_poll");
    }
    return ends_with(file, "/selectors.py") && ends_with(name, "select") && is_within(stall, HUBS);
}

/* Judge what goes on; without the mutex, and with none of the thread's state in use. */
static void
judge(Watcher *self, uint64_t generation)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    int collected = PyGC_Disable(); /* or finalizers might run here */
    Stall found = {0};
    Nanoseconds until = INT64_MAX / 4;
    pthread_mutex_lock(&self->mutex);
    /* It has the GIL, so that nothing changes from here on. */
    int same = self->armed && self->generation == generation
               && version_of(self->watched) == self->version;
    pthread_mutex_unlock(&self->mutex);
    int read = same ? read_frames(self, &found) : -1;
    int idle = read == 0 && is_idle(&found);
    if (read == 0 && !idle) {
        find_waiting(self, &found, &until);
    }
    pthread_mutex_lock(&self->mutex);
    if (read == 0 && !idle && found.timers + found.listeners > 0 && self->count < MOST_STALLS) {
        found.began = now(CLOCK_REALTIME) - (now(CLOCK_MONOTONIC) - self->since);
        self->stalls[self->count] = found;
        self->held = 1;
    }
    else {
        Py_XDECREF(found.frames);
        Py_XDECREF(found.bottom);
        Py_XDECREF(found.starts);
        Nanoseconds held = now(CLOCK_MONOTONIC) - self->since;
        /* A listener may become ready at any time; what waits for a timer is known. */
        Nanoseconds again = held + held / 2;
        self->next = idle ? INT64_MAX : held + until < again ? held + until : again;
    }
    pthread_mutex_unlock(&self->mutex);
    if (collected) {
        PyGC_Enable();
    }
    PyGILState_Release(gil);
}

static void
look(Watcher *self, Nanoseconds slept, Nanoseconds wanted)
{
    Nanoseconds time = now(CLOCK_MONOTONIC);
    if (slept - wanted > OVERSLEPT) {
        Nanoseconds stopped = slept - wanted - (run_delay(self->own_schedstat) - self->own_delay);
        self->lost += stopped > OVERSLEPT ? stopped : 0;
    }
    if (!self->open || version_of(self->watched) != self->version) {
        end_episode(self);
        begin_episode(self, time);
        return;
    }
    if (self->held || time - self->since - self->lost < self->next
        || held_for(self, time) < self->next) {
        return;
    }
    uint64_t generation = self->generation;
    self->judging = 1;
    pthread_mutex_unlock(&self->mutex);
    judge(self, generation);
    pthread_mutex_lock(&self->mutex);
    self->judging = 0;
}

static void *
watch(void *argument)
{
    Watcher *self = argument;
    uint64_t marked = 0;
    pthread_setname_np(pthread_self(), NAME);
    pthread_mutex_lock(&self->mutex);
    self->tid = syscall(SYS_gettid);
    self->own_schedstat = open_schedstat();
    self->begun = 1;
    pthread_cond_broadcast(&self->changed);
    while (!self->stop) {
        if (!self->armed) {
            pthread_cond_wait(&self->changed, &self->mutex);
            continue;
        }
        if (marked != self->generation) {
            marked = self->generation;
            (void)!access(MARK, F_OK);
        }
        Nanoseconds tick = self->threshold / 10;
        Nanoseconds wanted = tick < MILLISECOND ? MILLISECOND
                             : self->held && tick > FINE_TICK ? FINE_TICK : tick;
        Nanoseconds before = now(CLOCK_MONOTONIC), until = before + wanted;
        uint64_t generation = self->generation;
        struct timespec end = {until / SECOND, until % SECOND};
        pthread_cond_timedwait(&self->changed, &self->mutex, &end);
        if (!self->stop && self->armed && self->generation == generation) {
            look(self, now(CLOCK_MONOTONIC) - before, wanted);
        }
    }
    if (self->held) {
        end_episode(self); /* before a fork, after which nobody sees how long it goes on */
    }
    if (self->own_schedstat >= 0) {
        close(self->own_schedstat);
        self->own_schedstat = -1;
    }
    pthread_mutex_unlock(&self->mutex);
    return NULL;
}

static void
make_locks(Watcher *self)
{
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&self->mutex, NULL);
    pthread_cond_init(&self->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

/* Have the thread wait to be armed; return 0, or an error number. */
static int
start_thread(Watcher *self)
{
    sigset_t all, before;
    self->stop = self->judging = self->begun = 0;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&self->thread, NULL, watch, self);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    self->running = error == 0;
    pthread_mutex_lock(&self->mutex);
    while (self->running && !self->begun) {
        pthread_cond_wait(&self->changed, &self->mutex);
    }
    pthread_mutex_unlock(&self->mutex);
    return error;
}

/* Wait for the end of the thread, until the system does not count it any more either. */
static void
join(Watcher *self)
{
    const struct timespec moment = {0, MILLISECOND / 20};
    pthread_join(self->thread, NULL);
    for (int i = 0; i < 2000 && syscall(SYS_tgkill, getpid(), self->tid, 0) == 0; i++) {
        nanosleep(&moment, NULL);
    }
    self->running = 0;
}

/* End the thread, unless it waits for the GIL, which the caller may have. */
static void
end_thread(Watcher *self)
{
    pthread_mutex_lock(&self->mutex);
    int waits = self->judging;
    self->stop = 1;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
    if (!waits) {
        join(self);
    }
}

static void
before_fork(void)
{
    if (the_watcher != NULL && the_watcher->running) {
        end_thread(the_watcher);
    }
}

/* From Python 3.12 on, os.fork() warns of threads after this. */
static void
after_fork_in_parent(void)
{
    if (PY_VERSION_HEX < 0x030C0000 && the_watcher != NULL && the_watcher->armed
        && !the_watcher->running) {
        start_thread(the_watcher);
    }
}

static void
after_fork_in_child(void)
{
    if (the_watcher != NULL) {
        the_watcher->running = the_watcher->armed = the_watcher->judging = 0;
        the_watcher->held = the_watcher->open = 0;
        make_locks(the_watcher);
    }
}

/* Tell a trace whose calls are to come, before there is one. */
static void
mark_thread(Watcher *self)
{
    char path[sizeof MARK + 30];
    snprintf(path, sizeof path, MARK "/%ld", self->tid);
    (void)!access(path, F_OK);
}

static int
watcher_init(PyObject *object, PyObject *arguments, PyObject *keywords)
{
    Watcher *self = (Watcher *)object;
    double threshold;
    if (the_watcher != NULL || (keywords != NULL && PyDict_GET_SIZE(keywords) > 0)) {
        PyErr_SetString(PyExc_RuntimeError, "there can be one watcher, with one argument");
        return -1;
    }
    if (!PyArg_ParseTuple(arguments, "d:Watcher", &threshold)) {
        return -1;
    }
    self->threshold = (Nanoseconds)(threshold * 1e9);
    self->watched = PyThreadState_Get();
    make_locks(self);
    self->schedstat = open_schedstat();
    self->own_schedstat = -1;
    the_watcher = self;
    return 0;
}

static PyObject *
watcher_start(PyObject *object, PyObject *unused)
{
    (void)unused;
    Watcher *self = (Watcher *)object;
    if (PyThreadState_Get() != self->watched) {
        PyErr_SetString(PyExc_RuntimeError, "only the thread that made it is watched");
        return NULL;
    }
    if (self->running && self->stop) { /* left behind by a fork */
        PyThreadState *saved = PyEval_SaveThread();
        join(self);
        PyEval_RestoreThread(saved);
    }
    errno = self->running ? 0 : start_thread(self);
    if (errno != 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *
watcher_arm(PyObject *object, PyObject *arguments)
{
    Watcher *self = (Watcher *)object;
    PyObject *hubs;
    double threshold;
    PyObject *left_over;
    if (!PyArg_ParseTuple(arguments, "dOO:arm", &threshold, &hubs, &left_over)) {
        return NULL;
    }
    PyObject *started = watcher_start(object, NULL);
    if (started == NULL) {
        return NULL;
    }
    Py_DECREF(started);
    PyObject *hubs_before = self->hubs; /* its end may run Python, which needs no mutex */
    pthread_mutex_lock(&self->mutex);
    self->hubs = PyDict_Check(hubs) ? Py_NewRef(hubs) : NULL;
    self->threshold = (Nanoseconds)(threshold * 1e9);
    end_episode(self);
    mark_thread(self);
    begin_episode(self, now(CLOCK_MONOTONIC));
    if (PyAnySet_Check(left_over)) {
        self->first_version = self->version;
        Py_XSETREF(self->left_over, Py_NewRef(left_over));
    }
    self->armed = 1;
    self->generation++;
    pthread_cond_signal(&self->changed);
    pthread_mutex_unlock(&self->mutex);
    Py_XDECREF(hubs_before);
    Py_RETURN_NONE;
}

static PyObject *
watcher_disarm(PyObject *object, PyObject *unused)
{
    (void)unused;
    Watcher *self = (Watcher *)object;
    pthread_mutex_lock(&self->mutex);
    end_episode(self);
    self->armed = 0;
    self->generation++;
    pthread_mutex_unlock(&self->mutex);
    PyObject *list = PyList_New(0);
    for (int i = 0; i < self->count; i++) {
        Stall *each = &self->stalls[i];
        if (list != NULL && each->seconds >= self->threshold) {
            PyObject *described = Py_BuildValue(
                "(dLOOnnO)", (double)each->seconds / 1e9, (long long)each->began, each->frames,
                each->bottom, each->timers, each->listeners,
                each->starts == NULL ? Py_None : each->starts);
            if (described == NULL || PyList_Append(list, described) < 0) {
                Py_CLEAR(list);
            }
            Py_XDECREF(described);
        }
        Py_CLEAR(each->frames);
        Py_CLEAR(each->bottom);
        Py_CLEAR(each->starts);
    }
    self->count = 0;
    return list;
}

static PyObject *
watcher_stop(PyObject *object, PyObject *unused)
{
    (void)unused;
    Watcher *self = (Watcher *)object;
    if (self->running) {
        Py_BEGIN_ALLOW_THREADS
        end_thread(self);
        if (self->running) {
            join(self);
        }
        Py_END_ALLOW_THREADS
    }
    if (self->schedstat >= 0) {
        close(self->schedstat);
        self->schedstat = -1;
    }
    if (the_watcher == self) {
        the_watcher = NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *
watcher_switches(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(version_of(((Watcher *)object)->watched));
}

static void
watcher_dealloc(PyObject *object)
{
    Watcher *self = (Watcher *)object;
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(watcher_stop(object, NULL));
    Py_CLEAR(self->hubs);
    Py_CLEAR(self->left_over);
    type->tp_free(object);
    Py_DECREF(type);
}

static PyMethodDef watcher_methods[] = {
    {"start", watcher_start, METH_NOARGS, "See that the thread is there."},
    {"arm", watcher_arm, METH_VARARGS, "arm(seconds, hubs, left_over): Watch from now on."},
    {"disarm", watcher_disarm, METH_NOARGS, "Watch no more; return the stalls that were seen."},
    {"stop", watcher_stop, METH_NOARGS, "End the thread."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef watcher_properties[] = {
    {"switches", watcher_switches, NULL, "A number that grows with each switch.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef watcher_members[] = {
    {"descriptor", T_INT, offsetof(Watcher, schedstat), READONLY, "What it has open, or -1."},
    {"other_descriptor", T_INT, offsetof(Watcher, own_schedstat), READONLY, "The same."},
    {"running", T_BOOL, offsetof(Watcher, running), READONLY, "Whether its thread lives."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot watcher_slots[] = {
    {Py_tp_doc, "Watcher(seconds): Sees when greenlets of the present thread do not switch."},
    {Py_tp_init, watcher_init},
    {Py_tp_dealloc, watcher_dealloc},
    {Py_tp_methods, watcher_methods},
    {Py_tp_getset, watcher_properties},
    {Py_tp_members, watcher_members},
    {0, NULL},
};

static PyType_Spec watcher_spec = {
    .name = "pytest_eventlet_debug.stalls._watcher.Watcher",
    .basicsize = sizeof(Watcher),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = watcher_slots,
};

static int
module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&watcher_spec);
    if (type == NULL || PyModule_AddObjectRef(module, "Watcher", type) < 0) {
        Py_XDECREF(type);
        return -1;
    }
    Py_DECREF(type);
    if (pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child) != 0) {
        PyErr_SetString(PyExc_ImportError, "fork() cannot be watched");
        return -1;
    }
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static struct PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_watcher",
    .m_doc = "Sees from another thread when greenlets do not switch.",
    .m_slots = module_slots,
};

PyMODINIT_FUNC
PyInit__watcher(void)
{
    return PyModuleDef_Init(&module_definition);
}

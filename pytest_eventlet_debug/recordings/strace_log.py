"""Read what ``strace -f -ttt -T -yy -s N -o FILE`` writes, one event at a time.

The format is strace(1)'s own; the forms that the manual does not list (``<detached ...>``,
``<... name resumed>`` without a start, ``<unavailable>``) are those of strace's source,
``strace.c`` and ``syscall.c``. A call that another thread interrupts takes two lines
there and is one event here.

Some harmless calls are our own: :mod:`~pytest_eventlet_debug.recordings.marks`.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Generator
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import io
from itertools import chain
import os
from pathlib import Path
import re
from typing import Final
from typing import NamedTuple
from typing import TextIO
from typing import TypeAlias
from typing import TypeVar

from pytest_eventlet_debug.artifact_names import STRACE_FILE
from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.recordings import kernel_calls
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.recordings import packing
from pytest_eventlet_debug.recordings.trace_events import Event
from pytest_eventlet_debug.recordings.trace_events import Exit
from pytest_eventlet_debug.recordings.trace_events import Gap
from pytest_eventlet_debug.recordings.trace_events import Phase
from pytest_eventlet_debug.recordings.trace_events import Signal
from pytest_eventlet_debug.recordings.trace_events import State
from pytest_eventlet_debug.recordings.trace_events import Switch
from pytest_eventlet_debug.recordings.trace_events import Syscall
from pytest_eventlet_debug.recordings.trace_events import Unparsed


class StraceLogError(Exception):
    """A strace log cannot be read, or no further; the message says why, and not which file."""


#: What ``-yy`` puts behind a descriptor, for the patterns of those who read arguments.
ANNOTATION: Final = r"<(?:->|[^<>]|<[^<>]*>)*>"

# Digits are bounded so that no line, however broken, meets int()'s own limit. In nanoseconds, the
# time fits into the 63 bits that test.json takes.
_HEAD = r"(\d{1,10}) +([0-8]?\d{1,9})\.(\d{1,9}) "
# A path in a descriptor or return value has its < and > escaped; only TCP:[a->b] and
# a device's <char 1:3> nest.
_ANNOTATION = r"<(?:->|[^<>\n]|<[^<>\n]*>)*>(?:\(deleted\))?"
# Strict to the end of the line: data may hold `) = 5 <0.1>`, and then it is the last
# `) =` followed by a well-formed result that counts.
_RESULT = (
    r"\) += ((-?\d{1,20}|0x[0-9a-f]{1,16}|\?)"
    rf"(?:{_ANNOTATION})?(?: (E[A-Z0-9_]+))?(?: <unavailable>)?(?: \(.*\))?)"
    r"(?: <(\d{1,12}\.\d{1,9})>)?\n\Z"
)
_CUT = r" ?<(?:(unfinished|detached) \.\.\.|ptrace\(\w+\):[^<>\n]*)>\n\Z"

_RETURNED = re.compile(_HEAD + r"([\w?]+)\((.*)" + _RESULT, re.ASCII)
_BEGUN = lazily(_HEAD + r"([\w?]+)\((.*?)" + _CUT, re.ASCII)
_RESUMED = lazily(_HEAD + r"<\.\.\. ([\w?]+) resumed>(.*)" + _RESULT, re.ASCII)
_RESUMED_CUT = lazily(_HEAD + r"<\.\.\. ([\w?]+) resumed>(.*?)" + _CUT, re.ASCII)
_SIGNAL = lazily(_HEAD + r"--- (?:stopped by (\w+)|(\w+) (.*)) ---\n\Z", re.ASCII)
_EXIT = lazily(
    _HEAD + r"\+\+\+ (?:exited with (\d{1,10})|killed by (\w+)(?: \(core dumped\))?"
    r"|superseded by execve in pid (\d{1,10})) \+\+\+\n\Z",
    re.ASCII,
)
_GAP = lazily(r"--- (\d{1,18}) bytes are left out here: ", re.ASCII)
_TRUNCATED = lazily(_HEAD + r"(?:<\.\.\. ([\w?]+) resumed>|([\w?]+)\()(.*)(?<!\n)\Z", re.ASCII)

_ACCESS = frozenset(marks.CALLS)
_MARKER = re.compile(
    rf'(?:AT_FDCWD(?:<[^"]*>)?, )?"{re.escape(marks.PREFIX)}'
    rf"(?:{marks.PHASE}/\d{{1,20}}/([^/\"]+)/|{marks.GREENLET}/(\d{{1,20}})/"
    rf"|{marks.LINE}/([\w.]+)/)"
    r'((?:[^"\\]|\\.)*)"',
    re.ASCII,
)
_LATE = lazily(r"\d{1,18}", re.ASCII)
_ESCAPE = lazily(rb"\\(x[0-9a-fA-F]{2}|[0-7]{1,3}|.)", re.DOTALL)
_CONTROL = {
    b"a": b"\a",
    b"b": b"\b",
    b"f": b"\f",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"v": b"\v",
}
_UNFINISHED = " <unfinished ...>"
_STACK = " > "
#: How many times and numbers are remembered with what they mean.
_MOST_TEXTS = 4096
_SCALE: tuple[int, ...] = tuple(10 ** (9 - digits) for digits in range(10))


_Text = TypeVar("_Text")
_Meaning = TypeVar("_Meaning")

#: The system calls that a line of Python may make, and the line.
_Place: TypeAlias = tuple[frozenset[str], str]
#: Behind the line that imports, in what is said of a call of the import system.
IMPORTING = " (import)"
#: How many greenthreads are remembered with their lines.
_MOST_PLACES = 65536


class _Begun(NamedTuple):
    line: int
    start_ns: int
    name: str
    args: str


def is_traced(directory: Path) -> bool:
    """Say whether there is a trace in a test's directory."""
    return packing.is_there(directory / STRACE_FILE)


def open_log(path: str | os.PathLike[str]) -> TextIO:
    """Open a strace log for :func:`parse`, whatever bytes it holds.

    :param path: the file that ``strace -o`` wrote; it may still be growing, or be packed.
    :raises StraceLogError: the file cannot be opened.
    """
    try:
        source = packing.open_to_read(Path(path))
    except OSError as error:
        raise StraceLogError(f"cannot be read: {error.strerror or error}") from error
    return io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape", newline="\n")


def ends(path: str | os.PathLike[str], most: int) -> Iterator[str]:
    """Yield the lines of a log for :func:`parse`; of a long one, those at its beginning and end.

    What is left out between is a :class:`Gap`.

    :param path: as for :func:`open_log`. Its middle may be a hole, as the helper makes it.
    :param most: bytes that are read, at least a line.
    :raises StraceLogError: the file cannot be read.
    """
    with open_log(path) as log:
        size = os.fstat(log.fileno()).st_size
        if size <= most or not os.path.exists(path):
            yield from log
            return
        first = log.buffer.read(most // 2).rpartition(b"\n")[0] + b"\n"
        log.buffer.seek(size - most // 2)
        last = log.buffer.read(most // 2)
    first = first.partition(b"\0")[0].rpartition(b"\n")[0] + b"\n"
    last = last.rpartition(b"\0")[2].partition(b"\n")[2]
    missing = marks.left_out(size - len(first) - len(last))
    for part in (first, missing, last):
        for line in io.BytesIO(part):
            yield line.decode("utf-8", "surrogateescape")


def unescape(text: str) -> str:
    """Return the string that strace wrote with C escapes, decoded as UTF-8.

    :param text: what stood between the quotes. Bytes that are not UTF-8 become lone
        surrogates, as :func:`os.fsdecode` does it.
    """
    if "\\" not in text:
        return text

    def replace(match: re.Match[bytes]) -> bytes:
        escape = match[1]
        if escape[:1] == b"x" and len(escape) == 3:
            return bytes((int(escape[1:], 16),))
        if escape[:1].isdigit() and escape[:1] < b"8":
            return bytes((int(escape, 8) & 0xFF,))
        return _CONTROL.get(escape, escape)

    raw = text.encode("utf-8", "surrogateescape")
    return _ESCAPE.sub(replace, raw).decode("utf-8", "surrogateescape")


class Unread:
    """Counts the lines of a log that are of no known form."""

    def __init__(self) -> None:
        self._count = 0
        self._first = 0

    def add(self, line: Unparsed) -> None:
        """Take note of one. Those of the stacks that ``strace -k`` prints do not count."""
        if not line.text.startswith(_STACK):
            self._first = self._first or line.line
            self._count += 1

    def describe(self) -> str | None:
        """Say how many there are and where; ``None`` if there is none."""
        if self._count == 0:
            return None
        if self._count == 1:
            return f"line {self._first} is not in strace's format and is left out"
        return (
            f"{self._count:,} lines are not in strace's format and are left out; "
            f"the first is line {self._first}"
        )


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Yield the events of a strace log in the order in which they end.

    Within one thread that is also the order in which they begin. Memory is bounded by
    the number of threads alive at once. Nothing is dropped: a line of unknown form
    becomes :class:`Unparsed`, a call without its end a :class:`Syscall` of another
    ``state``.

    :param lines: the log's lines, as :func:`open_log` or :meth:`str.splitlines` gives
        them. If they carry newlines, a last line without one is a truncated line.
    :raises StraceLogError: the log cannot be read further.
    """
    try:
        source = iter(lines)
        for first in source:
            whole = chain((first,), source)
            yield from _parse(whole if first.endswith("\n") else (line + "\n" for line in whole))
    except (OSError, ValueError) as error:
        raise StraceLogError(f"cannot be read: {error}") from error


def _parse(lines: Iterable[str]) -> Iterator[Event]:
    # What is looked up for each of a million lines is a local variable.
    threads = _Threads()
    begun = threads.begun
    label_of = threads.labels.get
    place_of = threads.places.get
    returned, scale = _RETURNED.match, _SCALE
    pids, seconds = _Memory(int), _Memory(_whole_seconds)
    durations, values = _Memory(_duration), _Memory(_number)
    make = tuple.__new__  # Syscall() itself is written in Python
    for number, line in enumerate(lines, 1):
        match = returned(line)
        if match is None:
            yield from _rare(threads, number, line)
            continue
        pid_, sec, frac, name, args, ret, value_, errno, took = match.groups()
        pid = pids[pid_]
        if begun and pid in begun:
            yield from threads.abandon(pid)
        value = values[value_]
        if value is None:  # the call's end was not seen
            args = args.removesuffix(_UNFINISHED)
        start_ns = seconds[sec] + int(frac) * scale[len(frac)]
        label, place = label_of(pid), place_of(pid)
        at = place[1] if place is not None and name in place[0] else None
        duration = durations[took]
        call = make(
            Syscall,
            (number, pid, start_ns, name, args, ret, value, errno, duration, label, "returned", at),
        )
        if name in _ACCESS:
            yield from _marked(call, threads)
        else:
            if name == "execve" and errno is None:
                # The new program has no greenthreads of ours.
                threads.forget(pid)
            yield call
    for pid in list(begun):
        yield from threads.abandon(pid)


class _Memory(dict[_Text, _Meaning]):
    """What texts mean that are repeated, so that most are read once.

    Faster than :func:`functools.lru_cache`, which calls something.
    """

    def __init__(self, read: Callable[[_Text], _Meaning]) -> None:
        self._read = read

    def __missing__(self, text: _Text) -> _Meaning:
        if len(self) == _MOST_TEXTS:
            self.clear()
        meaning = self[text] = self._read(text)
        return meaning


class _Threads:
    """What is known of the threads between two lines.

    :ivar begun: the call that each is in.
    :ivar labels: the greenthread that each runs.
    :ivar places: the line of Python that each is at, as the last mark says.
    """

    def __init__(self) -> None:
        self.begun: dict[int, _Begun] = {}
        self.labels: dict[int, str] = {}
        self.places: dict[int, _Place] = {}
        self._last: dict[tuple[int, str], _Place] = {}

    def switch(self, pid: int, label: str) -> None:
        """Have a thread run another greenthread, at the line at which that ran last."""
        self.labels[pid] = label
        place = self._last.get((pid, label.partition(":")[0]))
        if place is not None:
            self.places[pid] = place
        else:
            self.places.pop(pid, None)

    def go(self, pid: int, place: _Place) -> None:
        """Have a thread, and the greenthread that it runs, be at another line."""
        self.places[pid] = place
        if len(self._last) == _MOST_PLACES:
            self._last.clear()
        self._last[pid, self.labels.get(pid, "").partition(":")[0]] = place

    def forget(self, pid: int) -> None:
        """Know no more of a thread, as it runs another program or none."""
        if self.labels.pop(pid, None) is not None or self.places.pop(pid, None) is not None:
            self.places.pop(pid, None)
            for key in [key for key in self._last if key[0] == pid]:
                del self._last[key]

    def forget_all(self) -> None:
        """Know of no thread what it runs."""
        self.labels.clear()
        self.places.clear()
        self._last.clear()

    def place(self, pid: int, name: str) -> str | None:
        """Return the line of Python that makes a call of that name in a thread, if it is known."""
        place = self.places.get(pid)
        return place[1] if place is not None and name in place[0] else None

    def abandon(self, pid: int, state: State = "unfinished") -> Iterator[Event]:
        """Yield the call that a thread is in, if any, as one whose end is missing."""
        if pid not in self.begun:
            return
        line, start_ns, name, args = self.begun.pop(pid)
        label, at = self.labels.get(pid), self.place(pid, name)
        call = Syscall(line, pid, start_ns, name, args, None, None, None, None, label, state, at)
        yield from _marked(call, self)

    def resume(self, pid: int, here: _Begun) -> Generator[Event, None, _Begun]:
        """Return the start of the call that goes on in this line; yield a stale one before.

        :param here: what takes the place of a start that strace has not seen.
        """
        head = self.begun.get(pid)
        if head is not None and head.name == here.name:
            return self.begun.pop(pid)
        yield from self.abandon(pid)
        return here


def _rare(threads: _Threads, number: int, line: str) -> Iterator[Event]:
    """Yield the events of a line that is not a whole call."""
    for pattern, read in _RARE:
        match = pattern.match(line)
        if match is not None:
            return read(threads, number, match)
    return iter((Unparsed(number, line.rstrip("\n")),))


def _begin(threads: _Threads, number: int, match: re.Match[str]) -> Iterator[Event]:
    pid_, sec, frac, name, args, cut = match.groups()
    pid = int(pid_)
    yield from threads.abandon(pid)
    threads.begun[pid] = _Begun(number, _ns(sec, frac), name, args)
    if cut == "detached":
        yield from threads.abandon(pid, "detached")


def _end(threads: _Threads, number: int, match: re.Match[str]) -> Iterator[Event]:
    pid_, sec, frac, name, rest, ret, value, errno, took = match.groups()
    pid = int(pid_)
    head = yield from threads.resume(pid, _Begun(number, _ns(sec, frac), name, ""))
    call = Syscall(
        head.line,
        pid,
        head.start_ns,
        name,
        _joined(head.args, rest.removesuffix(_UNFINISHED)),
        ret,
        _number(value),
        errno,
        _duration(took),
        threads.labels.get(pid),
        "returned" if head.line != number else "resumed",
        threads.place(pid, name),
    )
    if name == "execve" and errno is None:
        threads.forget(pid)
    yield from _marked(call, threads)


def _go_on(threads: _Threads, number: int, match: re.Match[str]) -> Iterator[Event]:
    pid_, sec, frac, name, rest, cut = match.groups()
    pid = int(pid_)
    head = yield from threads.resume(pid, _Begun(number, _ns(sec, frac), name, ""))
    threads.begun[pid] = head._replace(args=_joined(head.args, rest))
    if cut == "detached":
        yield from threads.abandon(pid, "detached")


def _signal(threads: _Threads, number: int, match: re.Match[str]) -> Iterator[Event]:
    pid, sec, frac, stopped, signal, info = match.groups()
    name, info = (signal, info) if stopped is None else (stopped, "stopped")
    yield Signal(number, int(pid), _ns(sec, frac), name, info)


def _exit(threads: _Threads, number: int, match: re.Match[str]) -> Iterator[Event]:
    pid_, sec, frac, status_, signal, by = match.groups()
    pid = int(pid_)
    yield from threads.abandon(pid)
    threads.forget(pid)
    heir = int(by) if by is not None else None
    if heir is not None:
        if heir in threads.begun:
            # From here on the thread that called execve goes by this thread's id.
            threads.begun[pid] = threads.begun.pop(heir)
        threads.forget(heir)
    status = int(status_) if status_ is not None else None
    yield Exit(number, pid, _ns(sec, frac), status, signal, heir)


def _break_off(threads: _Threads, number: int, match: re.Match[str]) -> Iterator[Event]:
    pid_, sec, frac, resumed, name, args = match.groups()
    pid = int(pid_)
    if resumed is not None:
        head = yield from threads.resume(pid, _Begun(number, _ns(sec, frac), resumed, ""))
        threads.begun[pid] = head._replace(args=_joined(head.args, args))
    else:
        yield from threads.abandon(pid)
        threads.begun[pid] = _Begun(number, _ns(sec, frac), name, args)
    yield from threads.abandon(pid, "truncated")


def _gap(threads: _Threads, number: int, match: re.Match[str]) -> Iterator[Event]:
    # Whatever went on before it is not known to go on behind it.
    for pid in list(threads.begun):
        yield from threads.abandon(pid)
    threads.forget_all()
    yield Gap(number, int(match[1]))


_Read: TypeAlias = Callable[[_Threads, int, re.Match[str]], Iterator[Event]]

#: The forms of a line that is not a whole call; the first that fits counts.
_RARE: tuple[tuple[re.Pattern[str], _Read], ...] = (
    (_BEGUN, _begin),
    (_RESUMED, _end),
    (_RESUMED_CUT, _go_on),
    (_SIGNAL, _signal),
    (_EXIT, _exit),
    (_TRUNCATED, _break_off),
    (_GAP, _gap),
)


def _marked(call: Syscall, threads: _Threads) -> Iterator[Event]:
    """Yield a call, or the event that it stands for if it is one of our own marks."""
    match = _MARKER.match(call.args) if call.name in _ACCESS else None
    if match is None:
        yield call
        return
    phase, greenlet, function, text = match.groups()
    if function is not None:
        threads.go(call.pid, _place(function, text))
    elif greenlet is None:
        yield Phase(call.line, call.pid, call.start_ns, unescape(phase), unescape(text))
    else:
        name, _, late = unescape(text).partition("/")
        label = f"{greenlet}:{name}"
        threads.switch(call.pid, label)
        late_ns = int(late) if _LATE.fullmatch(late) else 0
        yield Switch(call.line, call.pid, call.start_ns, label, late_ns)


@functools.lru_cache(maxsize=1024)
def _place(function: str, text: str) -> _Place:
    calls = frozenset(kernel_calls.CALLS.get(function, ()))
    if function == kernel_calls.IMPORT:
        place, of, own = text.partition(", from ")
        text = f"{place}{IMPORTING}{of}{own}"
    return calls, unescape(text)


def _joined(head: str, rest: str) -> str:
    # strace < 5 put a space after `resumed>`.
    return head + rest.lstrip(" ") if head[-1:] in ("", " ") else head + rest


def _ns(seconds: str, fraction: str) -> int:
    return int(seconds + fraction) * _SCALE[len(fraction)]


def _whole_seconds(text: str) -> int:
    return int(text) * 1_000_000_000


def _duration(text: str | None) -> int | None:
    """Return nanoseconds; ``None`` where strace did not measure it."""
    if text is None:
        return None
    seconds, _, fraction = text.partition(".")
    return _ns(seconds, fraction)


def _number(text: str) -> int | None:
    if text == "?":
        return None
    if text[:2] == "0x":
        return int(text, 16)
    if text[0] == "0" and len(text) > 1:
        # Only umask(2) returns octal; an 8 or 9 is then no number strace writes.
        return int(text, 8) if text.strip("01234567") == "" else int(text)
    return int(text)

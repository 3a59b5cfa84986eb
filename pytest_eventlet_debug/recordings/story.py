"""What happened in a test, told from all rows of its timeline.

Left out is what no reader asks for: the calls of pytest and of this plugin, those of the memory
allocator, those that read a clock, and the switches, which each call's greenthread tells. An
import is one row, and what repeats is told once with its count.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence

import msgspec

from pytest_eventlet_debug.patterns import lazily
from pytest_eventlet_debug.phrasing import and_more
from pytest_eventlet_debug.recordings import marks
from pytest_eventlet_debug.recordings.findings.call_names import names
from pytest_eventlet_debug.recordings.rows import Row
from pytest_eventlet_debug.recordings.strace_log import ANNOTATION
from pytest_eventlet_debug.recordings.strace_log import IMPORTING
from pytest_eventlet_debug.system.files import HANDED_OVER
from pytest_eventlet_debug.system.high_descriptors import HIGH_DESCRIPTOR

#: How many rows may make one turn of what repeats.
_LONGEST_TURN = 12
#: So often a turn of one row is to come before it is folded; longer ones come twice.
_LEAST_REPEATS = 3
_NAMED_MODULES = 4

#: Of the memory allocator, and what tells the time.
_BOOKKEEPING = names(
    """mmap mmap2 munmap mremap mprotect madvise brk membarrier getpid
    clock_gettime clock_gettime64 gettimeofday time"""
)
#: Threads of Python hand the interpreter to each other by these.
_FUTEX = frozenset(("futex", "futex_time64", "sched_yield"))
_SHORT_NS = 1_000_000

_BY_RUNNER = f", from {marks.RUNNER}"
_OWN = lazily(r"\w+\((\d+)<")
_HANDED_OVER = lazily(rf'\w+\((?:\d+</memfd:{HANDED_OVER}>|"{HANDED_OVER}", MFD_)')
_SOCKET = lazily(r"<(?:TCP|UDP|UNIX)")
_MODULE = lazily(
    r"/(?:__pycache__/)?([\w.-]+?)(?:\.cpython-[\w-]+)?(?:\.opt-\d)?\.(?:pyc|so)\b(?![^\"]*>)"
)
#: What the import system looks at, where no mark says so.
_IMPORTED = lazily(
    r"\.(?:py|pyc|so)(?:[\">]|$)|/__pycache__[\">]|/(?:site-packages|lib-dynload)[\">]"
    r"|/lib/python3(?:\d*\.zip|\.\d+(?:/[\w-]+)*)[\">]"
)
_OBJECT = lazily(rf"\w+\((-?\d+(?:{ANNOTATION})?)?")
_DATA = lazily(r'"((?:[^"\\]|\\.){64})(?:[^"\\]|\\.)+"(?:\.\.\.)?')
_ADDRESS = lazily(
    r'\{sa_family=AF_INET, sin_port=htons\((\d+)\), sin_addr=inet_addr\("([\d.]+)"\)\}'
)
_FILES = names(
    """openat open close read pread64 fstat newfstatat stat lstat statx lseek ioctl getdents64
    readlink readlinkat access faccessat"""
)


class Chapter(msgspec.Struct, frozen=True):
    """Some rows of a timeline in a row, told once.

    :param rows: one turn; where ``count`` is 1 there is one row in it.
    :param count: how often the turn came.
    :param until_ns: when the last of it ended.
    """

    rows: tuple[Row, ...]
    count: int = 1
    until_ns: int = 0


class LeftOut(msgspec.Struct):
    """How many calls are not told, by whose they are."""

    runner: int = 0
    bookkeeping: int = 0

    def describe(self) -> str:
        """Say it in a line; ``""`` where nothing is left out."""
        parts = []
        if self.runner:
            parts.append(f"{self.runner:,} calls of pytest and of this plugin")
        if self.bookkeeping:
            parts.append(f"{self.bookkeeping:,} of the memory allocator, of clocks and of locks")
        return " and ".join(parts)


def tell(rows: Sequence[Row], left_out: LeftOut, *, switches: bool = False) -> Iterator[Chapter]:
    """Yield what happened.

    :param rows: of a timeline, in the order of their times.
    :param left_out: is added to.
    :param switches: whether to tell of these as well.
    """
    yield from _repeated(list(_imports(_worth_telling(rows, left_out, switches))))


def told(rows: Sequence[Row]) -> dict[int, Row]:
    """Return what happened without folding what repeats, for a picture of it.

    :param rows: of a timeline, in the order of their times.
    :return: rows by their place among *rows*; that of an import is the place of its first call.
    """
    found: dict[int, Row] = {}
    at = 0
    for row in _imports(_worth_telling(rows, LeftOut(), switches=False)):
        while (rows[at].time_ns, rows[at].line, rows[at].kind) != (row.time_ns, row.line, row.kind):
            at += 1
        found[at] = row
        at += 1
    return found


def repeats(told_rows: Mapping[int, Row]) -> Iterator[tuple[int, int, Chapter]]:
    """Yield what repeats, with the places of its first row and of its last.

    :param told_rows: as :func:`told` returns them.
    """
    places = list(told_rows)
    at = 0
    for chapter in _repeated(list(told_rows.values())):
        end = at + len(chapter.rows) * chapter.count
        if chapter.count > 1:
            yield places[at], places[end - 1], chapter
        at = end


def _worth_telling(rows: Iterable[Row], left_out: LeftOut, switches: bool) -> Iterator[Row]:
    for row in rows:
        if row.kind == "syscall":
            if is_runners(row.text, row.at):
                left_out.runner += 1
                continue
            if _is_bookkeeping(row):
                left_out.bookkeeping += 1
                continue
        if switches or row.kind != "switch":
            yield row


def is_runners(call: str, at: str | None) -> bool:
    """Say whether a call is pytest's or this plugin's, and has nothing to do with the test.

    :param call: as strace wrote it.
    :param at: the line of Python that made it, if the trace tells.
    """
    match = _OWN.match(call)
    if match is not None and int(match[1]) >= HIGH_DESCRIPTOR:
        return True
    if _HANDED_OVER.match(call) is not None:
        return True
    if at is None or (at != marks.RUNNER and not at.endswith(_BY_RUNNER)):
        return False
    # What a test has left is closed as pytest drops it.
    return at.startswith(("_pytest/", "pluggy/")) or _SOCKET.search(call) is None


def _is_bookkeeping(row: Row) -> bool:
    short = row.duration_ns is not None and row.duration_ns < _SHORT_NS
    return row.name in _BOOKKEEPING or (row.name in _FUTEX and short)


def _imports(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows, and one in the place of those that an import makes."""
    imports: list[Row] = []
    for row in rows:
        if _is_import(row) and (not imports or row.pid == imports[0].pid):
            imports.append(row)
            continue
        if imports:
            yield _import(imports)
            imports = []
        if _is_import(row):
            imports.append(row)
        else:
            yield row
    if imports:
        yield _import(imports)


def _is_import(row: Row) -> bool:
    if row.kind != "syscall" or row.name not in _FILES:
        return False
    return IMPORTING in (row.at or "") or _IMPORTED.search(row.text) is not None


def _import(rows: list[Row]) -> Row:
    first, last = rows[0], rows[-1]
    if len(rows) == 1:
        return first
    modules = dict.fromkeys(
        match[1]
        for row in rows
        if row.name in ("openat", "open") and not row.failed
        for match in [_MODULE.search(row.text)]
        if match is not None
    )
    named = ", ".join(list(modules)[:_NAMED_MODULES]) + and_more(len(modules) - _NAMED_MODULES)
    what = f"import of {named}" if modules else "import"
    duration = last.time_ns + (last.duration_ns or 0) - first.time_ns
    at = first.at.replace(IMPORTING, "") if first.at is not None else None
    text = f"{what}: {len(rows):,} calls"
    return first._replace(text=text, name="import", duration_ns=duration, failed=False, at=at)


def shortened(text: str) -> str:
    """Return a call as strace wrote it with its long data cut, and addresses as one knows them."""
    return _ADDRESS.sub(r"{\2:\1}", _DATA.sub(r'"\1"...', text))


def _repeated(rows: list[Row]) -> Iterator[Chapter]:
    """Yield rows, and turns of them that come again and again once."""
    numbers: dict[object, int] = {}
    keys = [numbers.setdefault(_key(row), len(numbers)) for row in rows]
    at = 0
    while at < len(rows):
        length, count = _turn(keys, at)
        end = at + length * count
        last = rows[end - 1]
        yield Chapter(tuple(rows[at : at + length]), count, last.time_ns + (last.duration_ns or 0))
        at = end


def _turn(keys: list[int], at: int) -> tuple[int, int]:
    """Return the length of the turn that begins at a place, and how often it comes."""
    best = (1, 1)
    for length in range(1, min(_LONGEST_TURN, (len(keys) - at) // 2) + 1):
        if keys[at + length] != keys[at]:
            continue
        turn = keys[at : at + length]
        count = 1
        while keys[at + count * length : at + (count + 1) * length] == turn:
            count += 1
        if count >= (_LEAST_REPEATS if length == 1 else 2) and length * count > best[0] * best[1]:
            best = (length, count)
    return best


def _key(row: Row) -> object:
    """Return what makes two rows say the same."""
    if row.kind != "syscall":
        return id(row)
    match = _OBJECT.match(row.text)
    what = match[0] if match is not None else row.text
    outcome = row.text.rpartition(" = ")[2] if row.failed else ""
    return row.pid, row.greenthread, row.name, what, outcome, row.at

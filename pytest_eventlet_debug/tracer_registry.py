"""Which tracers there are. To add one, write its module and its entry here.

This is loaded with every pytest, for the options; a tracer's module is imported when the
tracer is first asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any
from typing import Literal
from typing import NamedTuple

from pytest_eventlet_debug import option_types
from pytest_eventlet_debug.option_types import Choice
from pytest_eventlet_debug.option_types import Option
from pytest_eventlet_debug.option_types import Switch
from pytest_eventlet_debug.option_types import Value
from pytest_eventlet_debug.option_types import Values

if TYPE_CHECKING:
    from pytest_eventlet_debug.profiling.clock import ClockName
    from pytest_eventlet_debug.profiling.engine import EngineName


class TracerKind(NamedTuple):
    """What is known of a tracer before its module is imported.

    :param name: what ``eventlet_trace`` calls it.
    :param module: where it is; see :class:`~.tracers.maker.TracerModule`.
    :param options: its switch, and what else it reads. A tracer is asked for by any of its
        options that activates the plugin.
    :param nests: whether a block within a test may be recorded while the whole test is.
    """

    name: str
    module: str
    options: tuple[Option[Any], ...]
    nests: bool = False

    def is_asked_for(self, values: Values) -> bool:
        """Say whether an option asks for this tracer around every test."""
        return any(values.value(option) for option in self.options if option.activates)


STRACE_ARGS: Option[tuple[str, ...]] = Value(
    "--strace-args",
    "ARGS",
    "Extra arguments for strace, such as '-e trace=network'.",
    option_types.words,
    default=(),
)
STRACE_LIMIT: Option[int | None] = Value(
    "--strace-limit",
    "SIZE",
    "If a test's trace is longer than this, such as 1GB, keep only its beginning and its end; "
    "0: keep everything. Default: 256MB.",
    option_types.size,
    default=256_000_000,
)

STRACE_LINES: Option[Literal["on", "off"]] = Choice(
    "--strace-lines",
    "Mark in a test's trace which line of Python makes each system call. Default: on.",
    ("on", "off"),
    default="on",
)

CPROFILE_CLOCK: Option[ClockName] = Choice(
    "--cprofile-clock",
    "What the profile measures: the time a greenlet was running (run), that plus the time it "
    "was waiting (wall), or CPU time (cpu). Default: run.",
    ("run", "wall", "cpu"),
    default="run",
)
CPROFILE_ENGINE: Option[EngineName] = Choice(
    "--cprofile-engine",
    "Profile with one call stack per greenlet, or with plain cProfile. Default: greenlet.",
    ("greenlet", "plain"),
    default="greenlet",
)

PCAP_INTERFACE: Option[str] = Value(
    "--pcap-interface",
    "NAME",
    "The network interface to capture on. Default: lo.",
    str,
    default="lo",
)
PCAP_FILTER: Option[str | None] = Value(
    "--pcap-filter",
    "EXPRESSION",
    "Capture filter (pcap-filter(7) syntax), such as 'tcp port 80'; requires libpcap. "
    "Default: all.",
    lambda text: text or None,
    default=None,
)
PCAP_LIMIT: Option[int | None] = Value(
    "--pcap-limit",
    "SIZE",
    "If a test's capture is longer than this, such as 1GB, keep only its beginning and its end; "
    "0: keep everything. Default: 256MB.",
    option_types.size,
    default=256_000_000,
)

_kinds: dict[str, TracerKind] = {}


def register(kind: TracerKind) -> None:
    """Add a tracer; tracers start in the order in which they were added."""
    _kinds[kind.name] = kind


def kinds() -> tuple[TracerKind, ...]:
    """Return all tracers, in the order in which they start."""
    return tuple(_kinds.values())


def named(names: Sequence[str]) -> list[TracerKind]:
    """Return the tracers of those names, each once, in the order in which they start.

    :raises ValueError: a name that is not a tracer's, or none at all.
    """
    __tracebackhide__ = True
    unknown = [name for name in names if name not in _kinds]
    if unknown or not names:
        given = f"{unknown[0]!r} is not a tracer" if unknown else "no tracer is named"
        raise ValueError(f"eventlet_trace: {given}. There are: {', '.join(sorted(_kinds))}.")
    return [kind for kind in kinds() if kind.name in names]


def nests(name: str) -> bool:
    """Say whether the tracer of that name can record a block while it records the test."""
    return name in _kinds and _kinds[name].nests


register(
    TracerKind(
        "pcap",
        "pytest_eventlet_debug.tracers.pcap",
        (
            Switch("--pcap", "Capture the packets of each test (capture.pcapng).", activates=True),
            PCAP_INTERFACE,
            PCAP_FILTER,
            PCAP_LIMIT,
        ),
        nests=True,
    )
)
register(
    TracerKind(
        "cprofile",
        "pytest_eventlet_debug.tracers.cprofile",
        (
            Switch(
                "--cprofile",
                "Profile each test (profile.cprof, profile.callgrind).",
                activates=True,
            ),
            CPROFILE_CLOCK,
            CPROFILE_ENGINE,
        ),
    )
)
register(
    TracerKind(
        "strace",
        "pytest_eventlet_debug.tracers.strace",
        (
            Switch(
                "--strace",
                "Record the system calls of each test, labelled by greenthread (strace.txt).",
                activates=True,
            ),
            STRACE_ARGS,
            STRACE_LIMIT,
            STRACE_LINES,
        ),
    )
)

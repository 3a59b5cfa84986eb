"""The ports that this process uses, learnt as its sockets are bound and connected.

Where several programs share a network, these tell whose a packet is. A trace of system
calls knows more (the children's sockets too); this is for captures without one.

Python tells an audit hook (PEP 578) of each ``bind`` and ``connect`` before it is done. A
hook cannot be taken out again, sees every audited call, and must never raise.
"""

from __future__ import annotations

import sys
from typing import Any
import weakref

from pytest_eventlet_debug.system.handler_errors import put_off

#: More ports than this are not told one by one.
MANY = 4000

_DNS = 53

_ports: set[int] = set()
_bound: list[weakref.ref[Any]] = []
_state = {"installed": False, "children": False}

_CHILDREN = frozenset(
    ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty", "os.system", "os.spawn")
)
_TARGETS = frozenset(("socket.connect", "socket.sendto", "socket.sendmsg"))


def install() -> None:
    """Learn the ports from now on."""
    if not _state["installed"]:
        _state["installed"] = True
        sys.addaudithook(_hook)


def begin() -> None:
    """Forget that children were started; a test begins."""
    _state["children"] = False


def used() -> list[int] | None:
    """Return the ports used so far, or ``None`` if they cannot all be known.

    They cannot where the test started other processes, or before :func:`install`.
    """
    _look()
    if not _state["installed"] or _state["children"] or len(_ports) > MANY:
        return None
    return sorted(_ports)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event[:3] not in ("soc", "os.", "sub"):
        return
    try:
        if event in _TARGETS:
            _look()
            _note(arguments[1])
        elif event == "socket.bind":
            _look()
            _note(arguments[1])
            # The kernel may choose the port, so look once it has.
            _bound.append(weakref.ref(arguments[0]))
        elif event == "socket.getaddrinfo":
            _ports.add(_DNS)
        elif event in _CHILDREN:
            _look()
            _state["children"] = True
    except Exception as error:
        put_off(error)  # or a socket without weak references, an address that is none


def _note(address: object) -> None:
    if type(address) is tuple and len(address) >= 2 and type(address[1]) is int and address[1]:
        _ports.add(address[1])


def _look() -> None:
    """See which ports the kernel gave to the sockets bound since the last look."""
    while _bound:
        try:
            socket = _bound.pop()()
            if socket is not None:
                _note(socket.getsockname())
        except Exception as error:
            put_off(error)  # or it is closed by now

"""Sets of system calls' names."""

from __future__ import annotations


def names(text: str) -> frozenset[str]:
    """Return the words of a text."""
    return frozenset(text.split())


#: Start a thread or a process.
STARTS = names("clone clone3 fork vfork")
#: Make an epoll set.
EPOLL_SETS = names("epoll_create epoll_create1")
#: A thread sleeps in these until a time has come.
SLEEPS = names("nanosleep clock_nanosleep clock_nanosleep_time64 pause")
#: And in these until something happens to one of several descriptors.
POLLS = names(
    """epoll_wait epoll_pwait epoll_pwait2 epoll_wait_old poll ppoll ppoll_time64 select
    _newselect pselect6 pselect6_time64"""
)
#: A thread waits in any of these.
WAITS = SLEEPS | POLLS
#: Take a connection from a listener.
ACCEPTS = names("accept accept4")

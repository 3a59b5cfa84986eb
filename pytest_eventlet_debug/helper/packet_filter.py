"""Compile a packet filter, such as ``tcp port 80``, with libpcap where that is installed.

The language is that of ``pcap-filter(7)``, the result a program of the kernel's, see
https://docs.kernel.org/networking/filter.html.
"""

from __future__ import annotations

import ctypes

from pytest_eventlet_debug.recordings.pcapng import LINKTYPE_RAW
from pytest_eventlet_debug.recordings.pcapng import SNAPLEN

#: libpcap calls raw IP otherwise than the files do.
_DLT_RAW = 12

_LIBRARIES = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")
_NETMASK_UNKNOWN = 0xFFFFFFFF


class FilterError(ValueError):
    """A filter cannot be used; the reason in libpcap's words, or that there is no libpcap."""


class _Program(ctypes.Structure):
    """``struct bpf_program``, the same as the kernel's ``struct sock_fprog``."""

    _fields_ = (("length", ctypes.c_uint), ("instructions", ctypes.c_void_p))


class Filter:
    """A compiled filter."""

    def __init__(self, program: _Program) -> None:
        self._instructions = ctypes.string_at(program.instructions, program.length * 8)
        self._buffer = ctypes.create_string_buffer(self._instructions)
        address = ctypes.addressof(self._buffer)
        #: The value for ``SO_ATTACH_FILTER``; it points into this object.
        self.option = bytes(_Program(program.length, address))


def compile_filter(expression: str, linktype: int) -> Filter:
    """Return the kernel's program for an expression.

    :param linktype: of the packets, as in a capture file: 1 for Ethernet, 101 for raw IP.
    :raises FilterError: it is no valid expression, or libpcap is not installed.
    """
    library = _libpcap()
    handle = library.pcap_open_dead(_DLT_RAW if linktype == LINKTYPE_RAW else linktype, SNAPLEN)
    if not handle:
        raise FilterError("libpcap has no memory")
    program = _Program()
    try:
        text = expression.encode("utf-8", "replace")
        if library.pcap_compile(handle, ctypes.byref(program), text, 1, _NETMASK_UNKNOWN):
            raise FilterError(library.pcap_geterr(handle).decode("utf-8", "replace"))
        try:
            return Filter(program)
        finally:
            library.pcap_freecode(ctypes.byref(program))
    finally:
        library.pcap_close(handle)


def _libpcap() -> ctypes.CDLL:
    for name in _LIBRARIES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_compile.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        )
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_geterr.argtypes = (ctypes.c_void_p,)
        library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
        library.pcap_close.argtypes = (ctypes.c_void_p,)
        return library
    raise FilterError(
        "there is no libpcap to compile it (`apt install libpcap0.8`, `dnf install libpcap`)"
    )

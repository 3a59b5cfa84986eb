"""The keys of the TLS connections that tests make, so that their packets can be read.

OpenSSL calls a function of a context's for each secret it derives. ``SSLContext`` can set
one of Python's own, ``keylog_filename``; but that shows in the context, opens a file
for each, and a test may set it itself. So the function is set in OpenSSL, behind Python's
back, whenever a context is made. It is a method of a list, run without a frame of Python's:
there no signal handler can run, whose exception would be lost, and no profiler sees it.

A test that sets ``keylog_filename`` replaces it, and has the keys to itself; so does a
class of contexts that does not call ``SSLContext.__init__``.
"""

from __future__ import annotations

import sys
from typing import Any

_keys: list[bytes] = []
_recordings: list[int] = []
_callback: Any = None

#: The context's OpenSSL pointer is the first field behind the object's head, in all of these.
_KNOWN = ((3, 10), (3, 14))


def install() -> bool:
    """Gather the keys of every context made from now on; say whether that is possible.

    It is not where Python was built without TLS, or with OpenSSL hidden within itself.
    """
    global _callback
    if _callback is not None:
        return True
    known = sys.implementation.name == "cpython" and _KNOWN[0] <= sys.version_info[:2] <= _KNOWN[1]
    if not known:
        return False
    try:
        import _ssl  # with what follows some 20 ms, for those who capture packets
        import ctypes
        import ssl

        library = ctypes.PyDLL(getattr(_ssl, "__file__", None))
        set_callback = library.SSL_CTX_set_keylog_callback
        get_options = library.SSL_CTX_get_options
    except (ImportError, AttributeError, OSError):
        return False
    set_callback.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    set_callback.restype = None
    get_options.argtypes = (ctypes.c_void_p,)
    get_options.restype = ctypes.c_uint64

    def pointer(context: ssl.SSLContext) -> int | None:
        return ctypes.c_void_p.from_address(id(context) + object.__basicsize__).value

    trial = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if get_options(pointer(trial)) & 0xFFFFFFFF != trial.options & 0xFFFFFFFF:
        return False
    # An index as large as a pointer is behind the end: insert() appends.
    _callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p)(_keys.insert)
    address = ctypes.cast(_callback, ctypes.c_void_p)

    # Not in __new__, whose warnings name the caller of that frame.
    def __init__(self: ssl.SSLContext, *args: object, **kwargs: object) -> None:
        set_callback(pointer(self), address)

    ssl.SSLContext.__init__ = __init__  # type: ignore[method-assign,assignment]
    return True


def begin() -> int:
    """Begin to gather for one recording; return what :func:`end` wants."""
    if not _recordings:
        _keys.clear()
    _recordings.append(len(_keys))
    return len(_keys)


def end(begun: int) -> bytes:
    """Return the keys since :func:`begin`, in the format of SSLKEYLOGFILE.

    Both ends of a connection within the test tell the same ones; they are given once.
    """
    if begun in _recordings:
        _recordings.remove(begun)
    return b"".join(line + b"\n" for line in dict.fromkeys(_keys[begun:]))

"""Files that only their owner can read, written where a test may have laid something in the way.

Whatever the umask, files have the mode 0600 and directories 0700. No symbolic link and no hard
link is written through, no fifo is waited for. All is done by the C module ``posix``, with
functions taken before a test can have patched them.
"""

from __future__ import annotations

from collections.abc import Container
import errno
import os
import posix
import stat

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700

#: Bytes that a file system keeps together, and a call writes at once.
_BLOCK = 4096

_strerror = posix.strerror
_temporary = os.environ.get("TMPDIR") or "/tmp"

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
# Without O_NONBLOCK a fifo of that name would wait for its reader.
_WRITE = posix.O_WRONLY | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
_READ = posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC


def split(path: str | os.PathLike[str]) -> tuple[str, str]:
    """Return the directory of a path, and the name in it."""
    directory, _, name = posix.fspath(path).rpartition("/")
    return directory or ("/" if posix.fspath(path).startswith("/") else "."), name


def make_directory(path: str | os.PathLike[str]) -> None:
    """Make a directory, and its parents where they are missing.

    :raises OSError: it cannot be made, or is there already.
    """
    parent, _ = split(path)
    try:
        posix.mkdir(path, DIRECTORY_MODE)
    except FileNotFoundError:
        try:
            make_directory(parent)
        except FileExistsError:
            pass  # another process was faster
        posix.mkdir(path, DIRECTORY_MODE)
    posix.chmod(path, DIRECTORY_MODE)  # the umask may have taken our own rights


def is_there(path: str | os.PathLike[str]) -> bool:
    """Say whether there is anything of that name, be it a link to nowhere."""
    try:
        posix.lstat(path)
    except OSError:
        return False
    return True


def replace(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all; what had its name before, goes.

    :raises OSError: the disk is full, or the directory is gone or a link.
    """
    parent, name = split(path)
    draft = f".{name}.{posix.getpid()}"
    directory = posix.open(parent, _DIRECTORY)
    try:
        try:
            _fill(_create(draft, directory), data)
            posix.replace(draft, name, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            _remove(draft, directory)
            raise
    finally:
        posix.close(directory)


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file whole or not at all; on a full disk, in the room that it has already.

    :raises OSError: as :func:`replace` does.
    """
    try:
        replace(path, data)
    except OSError as error:
        if error.errno != errno.ENOSPC or not is_there(path):
            raise
        overwrite(path, data)


def extend(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a short file again that has got longer, by a single call; any other as :func:`write`.

    No file is made and none deleted for that. Both are dear, and ext4 looks at each file that was
    deleted in the last five seconds when it makes one.

    :raises OSError: as :func:`replace` does.
    """
    if len(data) > _BLOCK or not _is_extended(path, data):
        write(path, data)


def _is_extended(path: str | os.PathLike[str], data: bytes) -> bool:
    try:
        fd = _open(path, _WRITE & ~posix.O_CREAT)
        try:
            status = posix.fstat(fd)
            is_own = status.st_mode == stat.S_IFREG | FILE_MODE and status.st_nlink == 1
            if not is_own or status.st_size > len(data):
                return False
            return posix.pwrite(fd, data, 0) == len(data)
        finally:
            posix.close(fd)
    except OSError:
        return False


def write_new(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that is not there yet, in a directory that is nobody else's.

    The umask may take rights of our own from it. What replaces it later has them.

    :raises OSError: it cannot be written, and is not there then; or it is there already.
    """
    fd = posix.open(path, _WRITE | posix.O_EXCL, FILE_MODE)
    try:
        _fill(fd, data)
    except BaseException:
        try:
            posix.unlink(path)
        except FileNotFoundError:
            pass
        raise


def write_first(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file that nobody looks for yet; who is killed in that may leave a part of it.

    That is cheaper than :func:`replace`, which does it if there is something of that name.

    :raises OSError: as :func:`replace` does.
    """
    parent, name = split(path)
    directory = posix.open(parent, _DIRECTORY)
    try:
        try:
            fd = posix.open(name, _WRITE | posix.O_EXCL, FILE_MODE, dir_fd=directory)
        except FileExistsError:
            replace(path, data)
            return
        try:
            posix.fchmod(fd, FILE_MODE)  # the umask may have taken our own rights
            _fill(fd, data)
        except BaseException:
            _remove(name, directory)
            raise
    finally:
        posix.close(directory)


def overwrite(path: str | os.PathLike[str], data: bytes) -> None:
    """Write a file anew in the room that it has already; where that ends, it is cut.

    :raises OSError: it is not there, or cannot be written.
    """
    fd = _open(path, _WRITE & ~posix.O_CREAT)
    posix.ftruncate(fd, min(len(data), posix.fstat(fd).st_size))
    _fill(fd, data)


def create(path: str | os.PathLike[str], *, readable: bool = False) -> int:
    """Make a new file in the place of what had its name; return a descriptor to write to it.

    :param readable: whether the descriptor can be read from as well.
    :raises OSError: it cannot be made.
    """
    parent, name = split(path)
    directory = posix.open(parent, _DIRECTORY)
    try:
        return _create(name, directory, readable)
    finally:
        posix.close(directory)


#: What the files in memory are called that a test process hands to its helper; readers of traces
#: know the calls on them by it.
HANDED_OVER = "eventlet-debug"


def memory_file(name: str) -> int:
    """Return a descriptor of a new file in memory, which no directory has.

    :param name: what is seen of it in ``/proc``.
    :raises OSError: there is no memory or no descriptor for it.
    """
    if hasattr(posix, "memfd_create"):
        return posix.memfd_create(name, posix.MFD_CLOEXEC)
    # A Python that was built for a glibc before 2.27.
    return posix.open(_temporary, posix.O_TMPFILE | posix.O_RDWR | posix.O_CLOEXEC, FILE_MODE)


def close_all_but(kept: Container[int]) -> None:
    """Close all descriptors but those *kept*: somebody may wait for the end of one."""
    for name in posix.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                posix.close(int(name))
            except OSError:
                pass  # the descriptor of the listing itself


def append(path: str | os.PathLike[str], data: bytes) -> None:
    """Add to a file, made now if it is not there.

    :raises OSError: as :func:`open_to_append` does, or the disk is full.
    """
    _fill(open_to_append(path), data)


def open_to_append(path: str | os.PathLike[str]) -> int:
    """Return a descriptor that adds to a file, made now if it is not there.

    :raises OSError: it cannot be written, or is a link or no regular file.
    """
    fd = _open(path, _WRITE | posix.O_APPEND)
    status = posix.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
        posix.close(fd)
        raise OSError(errno.EINVAL, "it is a hard link or no regular file", posix.fspath(path))
    posix.fchmod(fd, FILE_MODE)
    return fd


def read(path: str | os.PathLike[str], most: int) -> bytes:
    """Return the content of a regular file.

    :param most: the bytes of the longest file that is read.
    :raises OSError: it cannot be read, is no regular file, or is longer.
    """
    fd = open_to_read(path)
    try:
        parts, left = [], most + 1
        while left and (part := posix.read(fd, min(left, 1 << 20))):
            parts.append(part)
            left -= len(part)
    finally:
        posix.close(fd)
    if not left:
        raise OSError(errno.EFBIG, _strerror(errno.EFBIG))
    return b"".join(parts)


def open_to_read(path: str | os.PathLike[str]) -> int:
    """Return a descriptor of a regular file; no fifo is waited for, and no device read.

    :raises OSError: it cannot be opened, or is no regular file.
    """
    fd = posix.open(path, _READ)
    mode = posix.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    posix.close(fd)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, _strerror(errno.EISDIR))
    raise OSError(errno.EINVAL, "it is not a regular file")


def names_below(directory: str | os.PathLike[str]) -> list[str]:
    """Return all that is no directory below one, relative to it. Links are not followed.

    :raises OSError: the directory cannot be read.
    """
    found = []
    for entry in posix.scandir(posix.fspath(directory)):
        if entry.is_dir(follow_symlinks=False):
            found += [f"{entry.name}/{name}" for name in names_below(entry.path)]
        else:
            found.append(entry.name)
    return found


def remove(directory: str | os.PathLike[str]) -> None:
    """Delete a directory with all that is in it. Links are not followed.

    :raises OSError: something of it cannot be deleted.
    """
    for entry in list(posix.scandir(posix.fspath(directory))):
        if entry.is_dir(follow_symlinks=False):
            remove(entry.path)
        else:
            posix.unlink(entry.path)
    posix.rmdir(directory)


def _open(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file, made now if the flags say so, in a directory that is no link."""
    parent, name = split(path)
    directory = posix.open(parent, _DIRECTORY)
    try:
        return posix.open(name, flags, FILE_MODE, dir_fd=directory)
    finally:
        posix.close(directory)


def _create(name: str, directory: int, readable: bool = False) -> int:
    _remove(name, directory)
    flags = _WRITE & ~posix.O_WRONLY | posix.O_RDWR if readable else _WRITE
    fd = posix.open(name, flags | posix.O_EXCL, FILE_MODE, dir_fd=directory)
    posix.fchmod(fd, FILE_MODE)  # the umask may have taken our own rights
    return fd


def _remove(name: str, directory: int) -> None:
    try:
        posix.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass


def _fill(fd: int, data: bytes) -> None:
    """Write to a descriptor, and close it."""
    view = memoryview(data)
    try:
        while view:
            view = view[posix.write(fd, view) :]
    finally:
        posix.close(fd)

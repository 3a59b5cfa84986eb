"""What an option is: how it is declared to pytest, and how its value is read.

This is loaded with every pytest, so it imports nothing but what pytest has loaded already.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
import math
import os
from pathlib import Path
import re
import shlex
from typing import Any
from typing import Generic
from typing import Literal
from typing import TypeVar
from typing import overload

import pytest

_T = TypeVar("_T")

#: Bytes below which a limit would leave nothing that tells anything.
LEAST_SIZE = 100_000

#: Reruns take longer than a night beyond that, and a list of them more memory.
MOST_TIMES = 10_000

#: Seconds below which every import and every collection of garbage would be a stall.
LEAST_THRESHOLD = 0.01

#: Seconds of a day. What counts in nanoseconds has no room for some numbers beyond that.
MOST_THRESHOLD = 86_400


class Option(Generic[_T]):
    """One option of the command line, and its twin in the ini file.

    As an attribute of a subclass of :class:`Values` it stands for the value that was given.
    """

    ini_type: Literal["string", "bool"] = "string"
    action: Literal["store", "store_true", "append"] = "store"
    bare: str | None = None

    def __init__(
        self,
        flag: str,
        metavar: str | None,
        words: str,
        *,
        default: _T,
        activates: bool = False,
    ) -> None:
        """Declare an option.

        :param metavar: what stands for the value in the help; a switch has none.
        :param words: the help.
        :param default: the value where none is given.
        :param activates: whether giving it switches the plugin on. The other options only say
            how it works then.
        """
        self.flag = flag
        self.metavar = metavar
        self.words = words
        self.default = default
        self.activates = activates
        #: Its name in the code of pytest and in the ini file.
        self.dest = "eventlet_" + flag.lstrip("-").removeprefix("eventlet-").replace("-", "_")

    @overload
    def __get__(self, values: None, owner: object) -> Option[_T]: ...
    @overload
    def __get__(self, values: Values, owner: object) -> _T: ...

    def __get__(self, values: Values | None, owner: object) -> Option[_T] | _T:
        return self if values is None else values.value(self)

    def declare(self, parser: pytest.Parser, group: pytest.OptionGroup) -> None:
        """Add the option and its ini twin. The default is ``None``, so that ini counts."""
        value: dict[str, Any] = {"metavar": self.metavar} if self.metavar else {}
        if self.bare is not None:
            value |= {"nargs": "?", "const": self.bare}
        group.addoption(
            self.flag,
            dest=self.dest,
            default=None,
            help=self.words,
            action=self.action,
            **value,
        )
        parser.addini(self.dest, self.words, type=self.ini_type, default=None)

    def is_on_command_line(self, config: pytest.Config) -> bool:
        """Say whether the command line has the option."""
        return _on_command_line(config, self.dest) is not None

    def is_given(self, config: pytest.Config) -> bool:
        """Say whether the command line has the option, or the ini file a value for it."""
        return self.text(config) is not None

    def name(self, config: pytest.Config) -> str:
        """Return what the user called the option, for error messages."""
        on_command_line = self.is_on_command_line(config)
        return self.flag if on_command_line else f"{self.dest} in the ini file"

    def text(self, config: pytest.Config) -> str | None:
        """Return what was given, a list joined by commas, or ``None``.

        An ini value that is empty counts as none, so ``-o NAME=`` ignores the file's.

        :raises pytest.UsageError: the ini file has a value of another type.
        """
        value = _on_command_line(config, self.dest)
        if value is None:
            return self._in_ini_file(config) or None
        return ",".join(value) if isinstance(value, list) else value

    def read(self, config: pytest.Config) -> _T:
        """Return the value: the command line's, else the ini file's, else the default.

        :raises pytest.UsageError: it cannot be used; says why and what would do.
        """
        text = self.text(config)
        if text is None:
            return self.default
        try:
            return self.parse(text)
        except ValueError as error:
            raise pytest.UsageError(f"{self.name(config)}: {text!r} {error}") from None

    def parse(self, text: str) -> _T:
        """Return the value that a text stands for.

        :raises ValueError: none; says what would do.
        """
        raise NotImplementedError

    def _in_ini_file(self, config: pytest.Config) -> Any:
        try:
            return config.getini(self.dest)
        except (ValueError, TypeError, pytest.UsageError) as error:
            remedy = "; it must be true or false" if self.ini_type == "bool" else ""
            raise pytest.UsageError(f"{self.dest} in the ini file: {error}{remedy}") from None


class Switch(Option[bool]):
    """On or off, and off by default."""

    ini_type = "bool"
    action = "store_true"

    def __init__(self, flag: str, words: str, *, activates: bool = False) -> None:
        super().__init__(flag, None, words, default=False, activates=activates)

    def is_given(self, config: pytest.Config) -> bool:
        return self.read(config)

    def read(self, config: pytest.Config) -> bool:
        return self.is_on_command_line(config) or bool(self._in_ini_file(config))


class Choice(Option[_T]):
    """One of a few words, which are its metavar as well."""

    def __init__(
        self,
        flag: str,
        words: str,
        choices: tuple[_T, ...],
        *,
        default: _T,
        activates: bool = False,
    ) -> None:
        self._choices = choices
        metavar = "|".join(map(str, choices))
        super().__init__(flag, metavar, words, default=default, activates=activates)

    def parse(self, text: str) -> _T:
        for choice in self._choices:
            if text == choice:
                return choice
        *first, last = map(str, self._choices)
        raise ValueError(f"is not valid; use {', '.join(first)} or {last}")


class Value(Option[_T]):
    """Anything that a function makes of a text.

    :param parse: returns the value, or raises :class:`ValueError` with what would do.
    :param bare: what the option stands for without a value; ``None`` where it needs one.
    """

    def __init__(
        self,
        flag: str,
        metavar: str,
        words: str,
        parse: Callable[[str], _T],
        *,
        default: _T,
        activates: bool = False,
        repeatable: bool = False,
        bare: str | None = None,
    ) -> None:
        super().__init__(flag, metavar, words, default=default, activates=activates)
        self.bare = bare
        self._parse = parse
        if repeatable:
            self.action = "append"

    def parse(self, text: str) -> _T:
        return self._parse(text)


class PathOption(Option[Any]):
    """A path: relative to the working directory, or from the ini file to rootdir.

    :param default: a path relative to rootdir, or ``None`` for none.
    """

    def __init__(
        self,
        flag: str,
        metavar: str,
        words: str,
        *,
        default: str | None = None,
        activates: bool = False,
    ) -> None:
        super().__init__(flag, metavar, words, default=default, activates=activates)

    def read(self, config: pytest.Config) -> Path | None:
        text = self.text(config) or self.default
        if text is None:
            return None
        given = self.is_on_command_line(config)
        if os.path.isabs(text):
            return Path(text)
        base = config.invocation_params.dir if given else config.rootpath
        return Path(os.path.normpath(base / text))


class Values:
    """What was given for options, read once."""

    def __init__(self, config: pytest.Config, options: Iterable[Option[Any]]) -> None:
        """Read all of *options*.

        :raises pytest.UsageError: a value that cannot be used.
        """
        self._values = {option.dest: option.read(config) for option in options}

    def value(self, option: Option[_T]) -> _T:
        """Return the value of one option."""
        value: _T = self._values[option.dest]
        return value


def _on_command_line(config: pytest.Config, dest: str) -> Any:
    # While the first conftests load, config.option does not hold the command line yet.
    return getattr(getattr(config, "known_args_namespace", config.option), dest, None)


def nodeid(text: str) -> str:
    """Take a node id as it is."""
    if not text:
        raise ValueError("is not valid; use the node id of a test")
    return text


def jobs(text: str) -> int:
    """Parse ``auto``, for as many as there are CPUs for this process, or a number from 1."""
    if text == "auto":
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1  # macOS
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError("is not valid; use auto or a whole number, at least 1")
    return int(text)


def count(text: str) -> int:
    """Parse how many times something is done, perhaps never."""
    if not re.fullmatch(r"\d{1,5}", text, re.ASCII) or int(text) > MOST_TIMES:
        raise ValueError(f"is not valid; use a whole number, at most {MOST_TIMES:,}")
    return int(text)


def seconds(text: str) -> float | None:
    """Parse a number of seconds; 0 means no limit."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise ValueError("is not valid; use a number of seconds, 0 for no limit")
    return number or None


def threshold(text: str) -> float:
    """Parse a number of seconds from a hundredth to a day."""
    number = _number(text)
    if not LEAST_THRESHOLD <= number <= MOST_THRESHOLD:
        raise ValueError(
            f"is not valid; use a number of seconds, from {LEAST_THRESHOLD} to {MOST_THRESHOLD:,}, "
            "after an equals sign; without one, name the tests first"
        )
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def size(text: str) -> int | None:
    """Parse a number of bytes such as ``256MB``, with K, M or G for powers of 1,000.

    0 means no limit.
    """
    match = re.fullmatch(r"(\d{1,9}) ?([KMG]?)B?", text, re.IGNORECASE | re.ASCII)
    number = int(match[1]) * 1000 ** " KMG".index(match[2].upper() or " ") if match else -1
    if 0 < number < LEAST_SIZE or number < 0:
        raise ValueError(
            "is not valid; use a size of 100K or more, such as 256MB, or 0 for no limit"
        )
    return number or None


def words(text: str) -> tuple[str, ...]:
    """Split the words of a command line as a shell does."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise ValueError(f"cannot be split into words ({error})") from None


def any_of(*choices: _T) -> Callable[[str], frozenset[_T]]:
    """Return a parser of comma lists of *choices*."""

    def parse(text: str) -> frozenset[_T]:
        given = {word.strip() for word in text.split(",")}
        chosen = frozenset(choice for choice in choices if choice in given)
        if len(chosen) != len(given):
            raise ValueError(
                f"is not valid; use a comma-separated list of {', '.join(map(str, choices))}"
            )
        return chosen

    return parse

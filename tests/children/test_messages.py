"""What a child sends arrives as it was, wherever the bytes are cut."""

from __future__ import annotations

import enum
import marshal
import struct
import sys
from typing import Any
import warnings

from hypothesis import given
from hypothesis import strategies as st
import msgspec
import pytest

from pytest_eventlet_debug.children.messages import Collected
from pytest_eventlet_debug.children.messages import Decoder
from pytest_eventlet_debug.children.messages import LogReport
from pytest_eventlet_debug.children.messages import LogStart
from pytest_eventlet_debug.children.messages import Message
from pytest_eventlet_debug.children.messages import MessageError
from pytest_eventlet_debug.children.messages import SessionFinish
from pytest_eventlet_debug.children.messages import SessionStart
from pytest_eventlet_debug.children.messages import Text
from pytest_eventlet_debug.children.messages import WarningRecorded
from pytest_eventlet_debug.children.messages import encode
from pytest_eventlet_debug.children.messages import original_warning
from pytest_eventlet_debug.children.messages import warning_recorded

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters())  # lone surrogates, too
    | st.binary()
)
plain_data = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def sent_and_read(message: Message) -> Message:
    (arrived,) = Decoder().feed(encode(message))
    return arrived


def through(content: object) -> Any:
    """Return what arrives of something in a report."""
    arrived = sent_and_read(LogReport("test_x.py::test_a", {"content": content}))
    assert isinstance(arrived, LogReport)
    return arrived.data["content"]


@pytest.mark.parametrize(
    "message",
    [
        SessionStart(None),
        SessionStart([3, 5]),
        Collected(["a", "b"], 2, ["said"], "listed"),
        LogStart("test_x.py::test_a", ("test_x.py", None, "test_a")),
        SessionFinish(1, shouldstop="enough"),
        WarningRecorded("t", "builtins", "UserWarning", "f.py", 3, "runtest", "", ("f.py", 3, "t")),
    ],
)
def test_a_message_arrives_with_its_type_and_fields(message: Message) -> None:
    assert sent_and_read(message) == message


@given(st.lists(plain_data, max_size=4), st.data())
def test_plain_data_arrives_as_it_was_wherever_the_bytes_are_cut(
    contents: list[Any], data: st.DataObject
) -> None:
    sent = b"".join(encode(LogReport(str(n), {"content": each})) for n, each in enumerate(contents))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    decoder = Decoder()
    arrived: list[Any] = []
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        arrived += decoder.feed(sent[start:end])
    assert [message.nodeid for message in arrived] == [str(n) for n in range(len(contents))]
    # repr tells a tuple from a list and True from 1.
    assert repr([message.data["content"] for message in arrived]) == repr(contents)


def test_a_message_of_many_megabytes_arrives() -> None:
    text = "x" * (20 << 20)
    assert sent_and_read(Text(text)) == Text(text)


def test_bytes_one_at_a_time_are_enough() -> None:
    decoder = Decoder()
    sent = encode(Text("words"))
    assert [m for byte in sent for m in decoder.feed(bytes([byte]))] == [Text("words")]


def behind_its_length(value: object) -> bytes:
    data = marshal.dumps(value)
    return len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        (behind_its_length({"message": "NoSuch"}), "NoSuch"),
        (behind_its_length({"message": "Text", "text": 1}), "Expected `str`, got `int`"),
        (behind_its_length({"message": "LogStart", "nodeid": "a"}), "location"),
        (behind_its_length([1, 2]), "Expected `object`, got `array`"),
        (b"\0\0\0\3abc", ""),
        (b"GET / HTTP/1.1\r\n", "bytes are announced"),
    ],
)
def test_bytes_that_are_no_message_are_refused_in_one_line(sent: bytes, says: str) -> None:
    with pytest.raises(MessageError) as caught:
        list(Decoder().feed(sent))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_messages_are_encoded_while_a_test_patches_what_encodes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = encode(Text("words"))
    # No longer than that: a worker of pytest-xdist reports a test before its teardown.
    with monkeypatch.context() as patched:
        patched.setattr(marshal, "dumps", None)
        patched.setattr(struct, "pack", None)
        patched.setattr(msgspec.structs, "asdict", None)
        encoded = encode(Text("words"))
    assert encoded == expected


class Words(str):
    """As numpy's str_ is: a str with a repr of its own."""

    def __repr__(self) -> str:
        return f"Words({str(self)!r})"

    def __str__(self) -> str:
        return "not what it is"


class Number(int):
    def __int__(self) -> int:
        return 99


class Real(float): ...


class Bytes(bytes): ...


class Colour(enum.IntEnum):
    RED = 3


class Raising:
    def __repr__(self) -> str:
        raise ZeroDivisionError


class Shown:
    def __repr__(self) -> str:
        return "<shown>"


@pytest.mark.parametrize(
    ("sent", "arrives"),
    [
        (Words("abc"), "abc"),
        (Number(7), 7),
        (Real(1.5), 1.5),
        (Bytes(b"abc"), b"abc"),
        (Colour.RED, 3),
        ({Words("key"): [Number(1)]}, {"key": [1]}),
        (Shown(), "<shown>"),
        ([Raising()], ["<Raising: repr raised ZeroDivisionError>"]),
        ({Raising(): 1}, {"<Raising: repr raised ZeroDivisionError>": 1}),
        (frozenset([4]), [4]),
        ((1, (2, [3])), (1, (2, [3]))),
    ],
)
def test_what_is_not_plain_data_arrives_as_its_value_or_its_text(
    sent: object, arrives: object
) -> None:
    content = through(sent)
    assert content == arrives
    assert repr(content) == repr(arrives)


def test_data_that_is_nested_too_deep_arrives_cut() -> None:
    deep: list[Any] = []
    for _ in range(sys.getrecursionlimit() // 2):
        deep = [deep]
    content = through(deep)
    while isinstance(content, list):
        (content,) = content
    assert isinstance(content, str)


def test_data_that_contains_itself_arrives_cut() -> None:
    itself: list[Any] = []
    itself.append(itself)
    assert "[...]" in repr(through(itself))


class HomeMade(UserWarning):
    def __init__(self, one: object, two: object) -> None:
        super().__init__(f"{one} and {two}")


def record(warning: Warning | str, category: type[Warning]) -> warnings.WarningMessage:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn_explicit(warning, category, "some/file.py", 7)  # type: ignore[arg-type]
    return caught[0]


@pytest.mark.parametrize(
    "original",
    [
        record("plain", UserWarning),
        record("of pytest", pytest.PytestUnraisableExceptionWarning),
        record(HomeMade(1, 2), HomeMade),
    ],
)
def test_a_warning_prints_as_the_original_did(original: warnings.WarningMessage) -> None:
    arrived = sent_and_read(warning_recorded(original, "runtest", "test_x.py::test_a", None))
    assert isinstance(arrived, WarningRecorded)
    shown = original_warning(arrived)
    assert str(shown.message) == str(original.message)
    assert shown.category.__name__ == original.category.__name__
    assert (shown.filename, shown.lineno) == ("some/file.py", 7)


def recorded(module: str, category: str) -> WarningRecorded:
    return WarningRecorded("text", module, category, "some/file.py", 7, "runtest", "", None)


def test_a_warnings_class_that_is_not_loaded_here_is_made_up() -> None:
    arrived = original_warning(recorded("not.loaded", "TheirWarning"))
    assert arrived.category.__name__ == "TheirWarning"
    assert arrived.category.__module__ == "not.loaded"
    assert issubclass(arrived.category, Warning)


def test_a_name_that_is_no_warning_here_is_not_called() -> None:
    arrived = original_warning(recorded("builtins", "exit"))
    assert issubclass(arrived.category, Warning)
    assert str(arrived.message) == "text"

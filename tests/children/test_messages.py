"""What a child sends arrives as it was, wherever the bytes are cut."""

from __future__ import annotations

import enum
import sys
from typing import Any
import warnings

from hypothesis import given
from hypothesis import strategies as st
import pytest

from pytest_eventlet_debug.children.messages import Decoder
from pytest_eventlet_debug.children.messages import decode_warning
from pytest_eventlet_debug.children.messages import encode
from pytest_eventlet_debug.children.messages import encode_warning

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


def through(content: object) -> Any:
    (message,) = Decoder().feed(encode("kind", content))
    assert message.kind == "kind"
    return message.content


@given(st.lists(plain_data, max_size=4), st.data())
def test_plain_data_arrives_as_it_was_wherever_the_bytes_are_cut(
    contents: list[Any], data: st.DataObject
) -> None:
    sent = b"".join(encode(str(number), content) for number, content in enumerate(contents))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sent)), max_size=5)))
    decoder = Decoder()
    arrived = []
    for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True):
        arrived += list(decoder.feed(sent[start:end]))
    assert [message.kind for message in arrived] == [str(n) for n in range(len(contents))]
    # repr tells a tuple from a list and True from 1.
    assert repr([message.content for message in arrived]) == repr(contents)


def test_a_message_of_many_megabytes_arrives() -> None:
    text = "x" * (20 << 20)
    assert through(text) == text


def test_bytes_one_at_a_time_are_enough() -> None:
    decoder = Decoder()
    messages = [m for byte in encode("kind", (1, [2])) for m in decoder.feed(bytes([byte]))]
    assert [(m.kind, m.content) for m in messages] == [("kind", (1, [2]))]


class Text(str):
    """As numpy's str_ is: a str with a repr of its own."""

    def __repr__(self) -> str:
        return f"Text({str(self)!r})"

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
        (Text("abc"), "abc"),
        (Number(7), 7),
        (Real(1.5), 1.5),
        (Bytes(b"abc"), b"abc"),
        (Colour.RED, 3),
        ({Text("key"): [Number(1)]}, {"key": [1]}),
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
    for _ in range(50):
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
    arrived = decode_warning(through(encode_warning(original)))
    assert str(arrived.message) == str(original.message)
    assert arrived.category.__name__ == original.category.__name__
    assert (arrived.filename, arrived.lineno) == ("some/file.py", 7)


def test_a_warnings_class_that_is_not_loaded_here_is_made_up() -> None:
    data = encode_warning(record("text", UserWarning))
    arrived = decode_warning({**data, "module": "not.loaded", "category": "TheirWarning"})
    assert arrived.category.__name__ == "TheirWarning"
    assert arrived.category.__module__ == "not.loaded"
    assert issubclass(arrived.category, Warning)


def test_a_name_that_is_no_warning_here_is_not_called() -> None:
    data = encode_warning(record("text", UserWarning))
    arrived = decode_warning({**data, "module": "builtins", "category": "exit"})
    assert issubclass(arrived.category, Warning)
    assert str(arrived.message) == "text"

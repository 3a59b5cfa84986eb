"""Find out which locks a stack holds, and which one it waits for, from its code alone.

A semaphore of eventlet does not know who has acquired it, nor does a lock of a thread or of
asyncio. But a frame that stands inside of ``with lock:`` has acquired it and will release it, and
so has one that has passed ``lock.acquire()`` on its only way here. What cannot be proven so is not
claimed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from collections.abc import Iterator
import functools
import inspect
import itertools
import types
from typing import Any
from typing import NamedTuple

import msgspec

from pytest_eventlet_debug.alive import source
from pytest_eventlet_debug.system.code_places import STANDARD_LIBRARY

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)
_LOOPS = (ast.For, ast.AsyncFor, ast.While)
_WITHS = (ast.With, ast.AsyncWith)
_BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")

_UNKNOWN = object()


class _Place(NamedTuple):
    """Where a frame is in its source; columns are in bytes and known since Python 3.11."""

    lineno: int
    column: int | None


class _Acquired(msgspec.Struct, frozen=True):
    """An expression whose lock is held from a statement on."""

    expression: ast.expr
    since: ast.stmt


def held_by(frames: Iterable[types.FrameType]) -> list[Any]:
    """Return the locks that frames of one stack hold, proven by the frames' source.

    Whether they are locks is for the caller to know; it may be any context manager.
    """
    found: list[Any] = []
    released: list[Any] = []
    for frame in frames:
        code = frame.f_code
        # A condition's has released the lock.
        if code.co_name == "wait" and code.co_filename.startswith(STANDARD_LIBRARY):
            released.append(_field(frame.f_locals.get("self"), "_lock"))
        if _may_hold(code):
            try:
                found += _held_in(frame)
            except Exception:
                continue  # source that has changed, or syntax of another Python
    return [each for each in found if not any(each is other for other in released)]


def name_of(lock: object, frame: types.FrameType) -> str:
    """Return the expression by which a frame has acquired a lock; ``""`` if that is not sure."""
    try:
        function = _function_of(frame.f_code)
        if function is None:
            return ""
        acquired = (each.expression for each in _acquired(function, _place(frame)))
        same = (each for each in acquired if _evaluate(each, frame) is lock)
        return next(map(ast.unparse, same), "")
    except Exception:
        return ""  # source that has changed, or syntax of another Python


def yet_to_call(frame: types.FrameType, names: frozenset[str]) -> Iterator[tuple[Any, int]]:
    """Yield the things of which a frame may still come to call a method, and the lines.

    :param names: of the methods.
    """
    if names.isdisjoint(frame.f_code.co_names):
        return
    try:
        function = _function_of(frame.f_code)
        if function is None:
            return
        for call, owner, name in _calls_ahead(function, _place(frame)):
            if name in names and (value := _evaluate(owner, frame)) is not _UNKNOWN:
                yield value, call.lineno
    except Exception:
        return  # source that has changed, or syntax of another Python


def _calls_ahead(node: ast.AST, place: _Place) -> Iterator[tuple[ast.Call, ast.expr, str]]:
    """Yield the calls of methods that may follow a place in a node."""
    ahead = list(_ahead(node, place))
    while ahead:
        each = ahead.pop(0)
        if isinstance(each, _FUNCTIONS):
            continue
        if isinstance(each, ast.Call) and isinstance(each.func, ast.Attribute):
            yield each, each.func.value, each.func.attr
        ahead += ast.iter_child_nodes(each)


def _ahead(node: ast.AST, place: _Place) -> Iterator[ast.AST]:
    """Yield the statements that may follow a place in a node, the next ones first."""
    for statements in _blocks(node):
        for number, statement in enumerate(statements):
            if not hasattr(statement, "lineno") or not _contains(statement, place):
                continue
            if not isinstance(statement, _FUNCTIONS):
                yield from _ahead(statement, place)
            if isinstance(statement, _LOOPS):
                yield statement
            elif isinstance(statement, ast.Try):
                yield from _after_a_part(statement, place)
            if not isinstance(statement, ast.ExceptHandler):  # of these, only one is run
                yield from statements[number + 1 :]
            return


def _after_a_part(statement: ast.Try, place: _Place) -> Iterator[ast.AST]:
    """Yield what may follow in a ``try`` after the part of it that a place is in."""
    if any(_contains(each, place) for each in statement.body):
        yield from statement.handlers
        yield from statement.orelse
    if not any(_contains(each, place) for each in statement.finalbody):
        yield from statement.finalbody


def awaited_by(frame: types.FrameType) -> Any:
    """Return what a frame is about to acquire, by ``with`` or ``acquire()``; else ``None``."""
    try:
        function = _function_of(frame.f_code)
        if function is None or not _may_hold(frame.f_code):
            return None
        value = _awaited(frame, function)
    except Exception:
        return None
    return None if value is _UNKNOWN else value


def _may_hold(code: types.CodeType) -> bool:
    return "acquire" in code.co_names or _has_with(code)


@functools.lru_cache(maxsize=1000)
def _has_with(code: types.CodeType) -> bool:
    function = _function_of(code)
    return function is not None and any(isinstance(each, _WITHS) for each in ast.walk(function))


@functools.lru_cache(maxsize=1000)
def _function_of(code: types.CodeType) -> ast.AST | None:
    """Return the syntax tree of a function, with the line numbers of its file."""
    lines = source.lines(code.co_filename)
    if code.co_name == "<module>":
        text, first = "".join(lines), 1
    elif code.co_name.startswith("<"):
        return None
    else:
        first = code.co_firstlineno
        text = "".join(inspect.getblock(list(lines[first - 1 :])))
    indented = text[:1].isspace()
    try:
        tree = ast.parse(f"if 1:\n{text}" if indented else text)
    except (SyntaxError, ValueError):
        return None
    ast.increment_lineno(tree, first - (2 if indented else 1))
    if code.co_name == "<module>":
        return tree
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return node if node.name == code.co_name else None
    return None


def _held_in(frame: types.FrameType) -> Iterator[Any]:
    function = _function_of(frame.f_code)
    place = _place(frame)
    if function is None:
        return
    for acquired in _acquired(function, place):
        if not _may_have_changed(function, acquired):
            value = _evaluate(acquired.expression, frame)
            if value is not _UNKNOWN:
                yield value


def _place(frame: types.FrameType) -> _Place:
    positions = getattr(frame.f_code, "co_positions", None)
    if positions is not None:
        here = itertools.islice(positions(), frame.f_lasti // 2, None)
        line, _, column, _ = next(here, (None, None, None, None))
        if line is not None:
            return _Place(line, column)
    return _Place(frame.f_lineno, None)


def _contains(node: Any, place: _Place) -> bool:
    """Say whether a place is surely within a node's source."""
    if not node.lineno <= place.lineno <= node.end_lineno:
        return False
    if place.column is None:
        return True
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return bool(start <= (place.lineno, place.column) <= end)


def _acquired(node: ast.AST, place: _Place) -> Iterator[_Acquired]:
    """Yield what has surely been acquired on the way from a node's start to a place in it."""
    for statements in _blocks(node):
        for number, statement in enumerate(statements):
            if not hasattr(statement, "lineno") or not _contains(statement, place):
                continue
            for earlier in statements[:number]:
                expression = _plain_acquire(earlier)
                if expression is not None and not _released(node, expression, earlier, place):
                    yield _Acquired(expression, earlier)
            if isinstance(statement, _WITHS):
                yield from _entered(statement, place)
            if not isinstance(statement, _FUNCTIONS):
                yield from _acquired(statement, place)
            return


def _blocks(node: ast.AST) -> Iterator[list[Any]]:
    for name in _BLOCKS:
        block = getattr(node, name, None)
        if isinstance(block, list) and block:
            yield block
            for each in block:
                if isinstance(each, ast.match_case):
                    yield each.body  # the case itself has no line


def _entered(statement: ast.With | ast.AsyncWith, place: _Place) -> Iterator[_Acquired]:
    """Yield the managers of a ``with`` that a place in its body, or in a later manager, is past."""
    body = statement.body[0]
    same_line = body.lineno <= statement.items[-1].context_expr.lineno
    if place.column is None and same_line:
        return  # before Python 3.11 only the line is known
    for item in statement.items:
        expression = item.context_expr
        end = (expression.end_lineno or 0, expression.end_col_offset or 0)
        in_body = any(_contains(each, place) for each in statement.body)
        later = place.column is not None and (place.lineno, place.column) >= end
        # The call of __exit__ after the body has the place of the expression, as __enter__ has.
        if in_body or later:
            yield _Acquired(expression, statement)


def _plain_acquire(statement: ast.stmt) -> ast.expr | None:
    """Return whose ``acquire()`` a statement is, one that does not give up."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    if isinstance(call, ast.Await):
        call = call.value
    if (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "acquire"
        and not call.args
        and not call.keywords
    ):
        return call.func.value
    return None


def _released(block_owner: ast.AST, lock: ast.expr, since: ast.stmt, place: _Place) -> bool:
    """Say whether anything between two places, or in a loop around the later, may release."""
    end = since.end_lineno or since.lineno
    name = ast.dump(lock)
    loops = [
        node
        for node in ast.walk(block_owner)
        if isinstance(node, _LOOPS) and node.lineno > end and _contains(node, place)
    ]
    for node in ast.walk(block_owner):
        line: int = getattr(node, "lineno", 0)
        if line <= end or not isinstance(node, (ast.Name, ast.Attribute)):
            continue
        inside = any(each.lineno <= line <= (each.end_lineno or 0) for each in loops)
        releases = isinstance(node, ast.Attribute) and node.attr == "release"
        # Whoever is handed the lock may release it, too.
        if (releases and (line <= place.lineno or inside)) or (
            line < place.lineno and ast.dump(node) == name
        ):
            return True
    return False


def _may_have_changed(function: ast.AST, acquired: _Acquired) -> bool:
    """Say whether a name in an expression is bound anew after its lock was acquired."""
    names = {
        each.id if isinstance(each, ast.Name) else each.attr
        for each in ast.walk(acquired.expression)
        if isinstance(each, (ast.Name, ast.Attribute))
    }
    for node in ast.walk(function):
        if isinstance(node, (ast.Name, ast.Attribute)) and not isinstance(node.ctx, ast.Load):
            name = node.id if isinstance(node, ast.Name) else node.attr
            if name in names and node.lineno >= acquired.since.lineno:
                return True
    return False


def _awaited(frame: types.FrameType, function: ast.AST) -> Any:
    place = _place(frame)
    for node in ast.walk(function):
        if isinstance(node, ast.With):
            for item in node.items:
                if _contains(item.context_expr, place) or _is_entry(node, place):
                    return _evaluate(item.context_expr, frame)
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "acquire"
            and _contains(node, place)
        ):
            return _evaluate(node.func.value, frame)
    return _UNKNOWN


def _is_entry(statement: ast.With, place: _Place) -> bool:
    """Say whether a place is the call of ``__enter__``, which Python 3.11 and 3.12 put there."""
    return len(statement.items) == 1 and place == (statement.lineno, statement.col_offset)


def _field(owner: Any, name: str) -> Any:
    return getattr(owner, "__dict__", {}).get(name)


def _evaluate(expression: ast.AST, frame: types.FrameType) -> Any:
    """Return the value of names, attributes and items; runs no code of anybody's."""
    if isinstance(expression, ast.Name):
        for scope in (frame.f_locals, frame.f_globals):
            if expression.id in scope:
                return scope[expression.id]
    elif isinstance(expression, ast.Attribute):
        owner = _evaluate(expression.value, frame)
        if owner is not _UNKNOWN:
            value = inspect.getattr_static(owner, expression.attr, _UNKNOWN)
            if type(value) is types.MemberDescriptorType:
                return value.__get__(owner)  # a slot of the owner's class
            return _UNKNOWN if hasattr(type(value), "__get__") else value
    elif isinstance(expression, ast.Subscript):
        owner, key = _evaluate(expression.value, frame), _evaluate(expression.slice, frame)
        if type(owner) in (dict, list, tuple) and type(key) in (int, str):
            return owner[key]
    elif isinstance(expression, ast.Constant):
        return expression.value
    return _UNKNOWN

"""Hubs: names, aliases, which work here, and which one is in force."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pytest_eventlet_debug.hubs.names import HubNameError
from pytest_eventlet_debug.hubs.names import available
from pytest_eventlet_debug.hubs.names import select_hubs


def python(program: str) -> str:
    """Run a program in a fresh interpreter and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.usefixtures("unmeasured")
def test_which_hubs_work_is_known_without_importing_eventlet() -> None:
    printed = python(
        "import sys\n"
        "from pytest_eventlet_debug.hubs import names as hubs\n"
        "names = hubs.available()\n"
        "hubs.select_hubs('all'), hubs.default(), hubs.in_force()\n"
        "print(names, sorted({'eventlet', 'greenlet', 'psutil', 'asyncio'} & set(sys.modules)))"
    )
    assert printed == f"{available()} []"


def test_eventlet_itself_agrees_which_hubs_work() -> None:
    printed = python(
        "import importlib\n"
        "from pytest_eventlet_debug.hubs import names as hubs\n"
        "for name in hubs.BUILTIN:\n"
        "    try: module = importlib.import_module('eventlet.hubs.' + name)\n"
        "    except ImportError: continue\n"
        "    if module.is_available(): print(name)"
    )
    assert tuple(printed.split()) == available()


def test_which_hubs_work_does_not_change_with_monkey_patching() -> None:
    printed = python(
        "import eventlet; eventlet.monkey_patch()\n"
        "from pytest_eventlet_debug.hubs import names as hubs; print(hubs.available())"
    )
    assert printed == str(available())


def test_the_default_hub_is_the_one_that_eventlet_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVENTLET_HUB", raising=False)
    printed = python(
        "from pytest_eventlet_debug.hubs import names as hubs\n"
        "name = hubs.default().name\n"
        "from eventlet.hubs import get_hub; get_hub()\n"
        "print(name, hubs.in_force())"
    )
    ours, theirs = printed.split()
    assert ours == theirs


@pytest.mark.parametrize("name", available())
def test_the_hub_in_force_has_the_name_that_it_was_asked_for_by(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EVENTLET_HUB", name)
    printed = python(
        "from pytest_eventlet_debug.hubs import names as hubs\n"
        "import eventlet.hubs\n"
        "before = hubs.in_force()\n"
        "eventlet.hubs.get_hub()\n"
        "print(before, hubs.in_force(), hubs.same(hubs.default(), hubs.in_force()))"
    )
    assert printed == f"None {name} True"


@pytest.mark.parametrize(
    ("names", "hubs"),
    [
        ("poll", ["poll"]),
        ("select,poll", ["selects", "poll"]),
        ("epoll", ["epolls"]),
        ("epoll,epolls, epoll", ["epolls"]),
        (" asyncio , poll", ["asyncio", "poll"]),
        ("poll,all", ["poll", *(name for name in available() if name != "poll")]),
        ("eventlet.hubs.poll:Hub", ["eventlet.hubs.poll:Hub"]),
        ("eventlet.hubs.poll", ["eventlet.hubs.poll"]),
    ],
)
@pytest.mark.skipif("epolls" not in available(), reason="epolls needs Linux")
def test_names_and_aliases_become_hubs_in_order_each_once(names: str, hubs: list[str]) -> None:
    assert [hub.name for hub in select_hubs(names)] == hubs


@pytest.mark.fault("no-hub")
@pytest.mark.parametrize(
    ("names", "words"),
    [
        ("", "a hub's name is empty"),
        ("poll,", "a hub's name is empty"),
        ("epol", "'epol' is not an eventlet hub"),
        ("Poll", "'Poll' is not an eventlet hub"),
        ("poll asyncio", "'poll asyncio' is not an eventlet hub"),
        ("../poll", "'../poll' cannot be imported"),
        ("no.such:Hub", "'no.such:Hub' cannot be imported (ModuleNotFoundError: "),
        ("eventlet.hubs.poll:Nub", "cannot be imported (AttributeError: "),
        ("json:dumps", "'json:dumps' is not a hub: it is not a class with the methods add, "),
        ("json:JSONDecoder", "'json:JSONDecoder' is not a hub: "),
        (":Hub", "cannot be imported (ValueError: "),
    ],
)
def test_a_name_that_is_no_hub_is_one_line_that_says_what_would_do(names: str, words: str) -> None:
    with pytest.raises(HubNameError) as caught:
        select_hubs(names)
    message = str(caught.value)
    assert words in message
    assert message.endswith(f"Available here: {', '.join(available())}.")
    assert "\n" not in message


@pytest.mark.skipif("kqueue" in available(), reason="kqueue works here")
def test_a_hub_of_another_system_is_not_available_but_may_be_marked_for() -> None:
    with pytest.raises(HubNameError, match="'kqueue' is not available on this machine"):
        select_hubs("kqueue")
    assert [hub.name for hub in select_hubs("kqueue", only_available=False)] == ["kqueue"]


@pytest.mark.parametrize("mock", ["mock.MagicMock()", "types.ModuleType('eventlet')"])
def test_the_hubs_stay_known_where_eventlet_is_mocked(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, mock: str
) -> None:
    monkeypatch.delenv("EVENTLET_HUB", raising=False)
    pytester.makeconftest(f"""
        import sys
        import types
        from unittest import mock
        sys.modules["eventlet"] = {mock}
    """)
    pytester.makepyfile("""
        import pytest

        @pytest.mark.eventlet_hub("epolls", "poll", "selects")
        def test_it(eventlet_hub):
            assert eventlet_hub == "epolls"
    """)
    result = pytester.runpytest("--cprofile")
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*hubs: epolls (eventlet's default)*", "report: */index.html"])

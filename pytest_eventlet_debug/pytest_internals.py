"""Every private part of pytest that the plugin touches, each behind a name of ours.

Nothing else imports ``_pytest``. All of them were seen in pytest 8.4.0 to 9.2.0 unless a
function says otherwise. Where one is gone, what is shown is poorer, and the tests still run.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
import contextlib
import io
from typing import Any
from typing import TextIO
from xml.etree.ElementTree import Element

from _pytest._code.code import ReprFileLocation as ReprFileLocation
from _pytest._code.code import TerminalRepr as TerminalRepr
from _pytest._io import TerminalWriter as TerminalWriter
from _pytest.config import create_terminal_writer
from _pytest.junitxml import xml_key
from _pytest.unittest import TestCaseFunction
import pytest

# -- imports


def leave_asserts_alone(config: pytest.Config, package: str) -> None:
    """Have what is still to be imported of a package imported as any module is.

    pytest marks the packages of its plugins, to rewrite what they assert. So it reads and hashes
    the source of each of their modules at every start, and compiles it where it may not write.
    """
    hook = getattr(config.pluginmanager, "rewrite_hook", None)
    marked: set[str] = getattr(hook, "_must_rewrite", set())
    known: dict[str, bool] = getattr(hook, "_marked_for_rewrite_cache", {})
    for names in (marked, known):
        for name in [each for each in names if f"{each}.".startswith(f"{package}.")]:
            marked.discard(name)
            known.pop(name, None)


# -- items


def set_nodeid(item: pytest.Item, nodeid: str) -> None:
    """Give an item another node id; pytest has it settled once and for all.

    Since 9.2 it is a structured ``NodeId`` in ``_id``; before, the text stood in ``_nodeid``.
    """
    renamed: Any = item
    structured = getattr(item, "_id", None)
    if structured is not None:
        renamed._id = type(structured).parse(nodeid)
    else:
        renamed._nodeid = nodeid


def is_unittest(item: pytest.Item) -> bool:
    """Tell the methods of a ``unittest.TestCase``, whose class pytest exports nowhere."""
    return isinstance(item, TestCaseFunction)


def take_not_found(session: pytest.Session) -> list[tuple[str, str]]:
    """Take the node ids that the command line names and that the session did not find.

    ``Session.perform_collect`` raises a usage error for what stands in ``_notfound`` after the
    session's own collect report, and has no hook before it.

    :returns: each id, with an absolute path, and the reason where the module skips itself.
        Paths that lead to nothing stay: they are wrong under every hub.
    """
    entries: list[Any] = getattr(session, "_notfound", [])
    taken = [nodeid for nodeid, _ in entries if "::" in nodeid]
    entries[:] = [entry for entry in entries if "::" not in entry[0]]
    return [(nodeid, _why_skipped(session, nodeid.partition("::")[0])) for nodeid in taken]


def _why_skipped(session: pytest.Session, path: str) -> str:
    """Return why a file's tests are skipped as a whole; pytest keeps reports as it collects."""
    cache: dict[Any, pytest.CollectReport] = getattr(session, "_collection_cache", {})
    for collector, report in cache.items():
        if str(collector.path) == path and report.skipped and isinstance(report.longrepr, tuple):
            return report.longrepr[2].removeprefix("Skipped: ")
    return ""


def tear_down_in_stages(session: pytest.Session, note: Callable[[int, bool], None]) -> None:
    """Have a session's collectors torn down one after the other.

    :param note: called after each, the innermost first, with the number of those that are still
        set up, and whether it has failed. No longer called for a test after the first that fails.
    """
    state: Any = getattr(session, "_setupstate", None)
    tear_down: Callable[[Any], None] | None = getattr(state, "teardown_exact", None)
    if tear_down is None:
        return

    def in_stages(nextitem: pytest.Item | None) -> None:
        following = nextitem.listchain() if nextitem is not None else []
        failure: BaseException | None = None
        while (stack := list(state.stack)) and stack != following[: len(stack)]:
            left = len(stack) - 1
            try:
                tear_down(stack[left - 1] if left else None)
            except BaseException as error:
                failure = error
            note(left, failure is not None)
            if failure is not None:
                try:
                    tear_down(nextitem)  # all the others
                finally:
                    raise failure

    state.teardown_exact = in_stages


# -- reports


def keep_subtest_parameters(report: pytest.TestReport, data: dict[str, Any]) -> None:
    """Show a subtest's parameters as the child did: a report that is read quotes them again.

    pytest-subtests, and pytest itself since 9.0, send them as ``_subtest.context``.
    """
    sent = data.get("_subtest.context")
    if sent is not None:
        object.__setattr__(report.context, "kwargs", sent["kwargs"])


def report_internal_error(config: pytest.Config, text: str) -> None:
    """Show an internal error in the terminal and in the JUnit report.

    Not through the hook: its other implementations want the exception itself.
    """
    reporters: tuple[Any, ...] = (_terminal(config), config.stash.get(xml_key, None))
    for reporter in reporters:
        if reporter is not None:
            reporter.pytest_internalerror(excrepr=text)


# -- JUnit XML


def add_junit_property(
    config: pytest.Config, report: pytest.TestReport | pytest.CollectReport, name: str, value: str
) -> None:
    """Add a property to the open case of a report, once."""
    xml: Any = config.stash.get(xml_key, None)
    if xml is not None:
        case = xml.node_reporter(report)
        if (name, value) not in case.properties:
            case.add_property(name, value)


def finish_junit_case(config: pytest.Config, report: pytest.TestReport) -> None:
    """End the case of a report, with the properties that the report has."""
    xml: Any = config.stash.get(xml_key, None)
    if xml is not None:
        xml.finalize(report)


def add_to_last_junit_case(config: pytest.Config, name: str, value: str) -> None:
    """Add a property to the case that was opened last, if it has none of that name and is over."""
    xml: Any = config.stash.get(xml_key, None)
    cases = getattr(xml, "node_reporters_ordered", ())
    if cases:
        case: Element = cases[-1].to_xml()
        properties = case.find("properties")
        if properties is None:
            properties = Element("properties")
            case.insert(0, properties)
        if all(each.get("name") != name for each in properties):
            properties.append(Element("property", name=name, value=value))


def end_junit_case(
    config: pytest.Config, report: pytest.CollectReport, rename: Callable[[str], str]
) -> None:
    """Give the case of a file without tests another name, and let no other report into it.

    pytest has one case for all reports of such a file, which those of several hubs would share.
    """
    xml: Any = config.stash.get(xml_key, None)
    if xml is not None:
        case = xml.node_reporter(report)
        case.attrs["name"] = rename(case.attrs["name"])
        for key in [key for key, each in xml.node_reporters.items() if each is case]:
            del xml.node_reporters[key]


def junit_properties(config: pytest.Config) -> Iterator[Element]:
    """Yield the properties of all cases that are over, to be changed."""
    xml: Any = config.stash.get(xml_key, None)
    for case in getattr(xml, "node_reporters_ordered", ()):
        yield from case.to_xml().iter("property")


# -- the terminal


def _terminal(config: pytest.Config) -> Any:
    return config.pluginmanager.getplugin("terminalreporter")


def name_no_files(config: pytest.Config) -> None:
    """Have no line begin with a file's name, for lines of several files come mixed."""
    if (terminal := _terminal(config)) is not None:
        terminal.showfspath = False


def end_line(config: pytest.Config) -> None:
    """End a line that tests have begun; pytest itself does so if a file's name stands in front."""
    if (terminal := _terminal(config)) is not None:
        terminal.ensure_newline()
        if getattr(getattr(terminal, "_tw", None), "width_of_current_line", 0):
            terminal.write_line("")


def set_collected(config: pytest.Config, count: int) -> None:
    """Set the number of tests that progress is a part of; pytest counts them as it collects."""
    terminal = _terminal(config)
    if hasattr(terminal, "_numcollected"):
        deselected = len(terminal.stats.get("deselected", ()))
        terminal._numcollected = count + deselected
    if hasattr(terminal, "tests_count"):  # pytest-sugar's own
        terminal.tests_count = count


def set_interruption(config: pytest.Config, place: TerminalRepr) -> None:
    """Set where the summary says that Ctrl-C came; pytest has noted this process's place."""
    terminal = _terminal(config)
    if hasattr(terminal, "_keyboardinterrupt_memo"):
        terminal._keyboardinterrupt_memo = place


def redirect_terminal(config: pytest.Config, terminal: Any, file: TextIO) -> None:
    """Have a terminal reporter write to a file from now on."""
    terminal._tw = create_terminal_writer(config, file)


def list_items(config: pytest.Config, terminal: Any, items: list[pytest.Item]) -> str:
    """Return what ``--collect-only`` prints of some items."""
    text = io.StringIO()
    writer, terminal._tw = terminal._tw, create_terminal_writer(config, text)
    try:
        terminal._printcollecteditems(items)
    finally:
        terminal._tw = writer
    return text.getvalue()


# -- capture


@contextlib.contextmanager
def stdin_uncaptured(config: pytest.Config) -> Iterator[None]:
    """Have the real stdin, as pytest's output always is between tests."""
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    if capture is None:
        yield
        return
    capture.suspend_global_capture(in_=True)
    try:
        yield
    finally:
        capture.resume_global_capture()
        capture.suspend_global_capture()


def captured_files(config: pytest.Config) -> list[int] | None:
    """Return the descriptors of the files that descriptors 1 and 2 are captured into.

    :returns: ``None`` where there are none, as with ``--capture=sys`` and ``no``.
    """
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    streams = getattr(capture, "_global_capturing", None)
    files: list[Any] = [
        getattr(getattr(streams, stream, None), "tmpfile", None) for stream in ("out", "err")
    ]
    try:
        return [file.fileno() for file in files]
    except (AttributeError, OSError, ValueError):
        return None


# -- what one run leaves for the next


def make_basetemp(config: pytest.Config) -> None:
    """Make the directory of ``--basetemp``, which the first use of ``tmp_path`` would empty."""
    factory: Any = getattr(config, "_tmp_path_factory", None)
    if factory is not None:  # -p no:tmpdir
        factory.getbasetemp()


def remember_for_new_first(config: pytest.Config, nodeids: Iterable[str]) -> None:
    """Let ``--nf`` know tests that other processes have collected."""
    plugin = config.pluginmanager.getplugin("nfplugin")
    cached: set[str] | None = getattr(plugin, "cached_nodeids", None)
    if cached is not None:
        cached.update(nodeids)


def stepwise_skips(config: pytest.Config) -> bool:
    """Say whether ``--stepwise-skip`` still has its failure to ignore."""
    return bool(getattr(config.pluginmanager.getplugin("stepwiseplugin"), "skip", False))


def stepwise_info(config: pytest.Config) -> Any:
    """Return what ``--stepwise`` remembers: ``last_failed`` and ``last_test_count``, or None."""
    return getattr(config.pluginmanager.getplugin("stepwiseplugin"), "cached_info", None)


def set_stepwise_status(config: pytest.Config, status: str) -> None:
    """Let ``--stepwise`` report this of the tests that it chose."""
    plugin: Any = config.pluginmanager.getplugin("stepwiseplugin")
    if plugin is not None:
        plugin.report_status = [status]

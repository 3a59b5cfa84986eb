"""The report in Chromium, opened from a file, as a user does it."""

from __future__ import annotations

import json
from pathlib import Path
import re
import shutil

from hostile_run import Recorded
from hostile_run import line_of
from hostile_run import report
from playwright.sync_api import Browser
from playwright.sync_api import Locator
from playwright.sync_api import Page
from playwright.sync_api import expect
import pytest

ROOT = Path(__file__).parent.parent.parent
DIFFERS = "#/test/test_hostile.py%3A%3Atest_differs"


def names_in(page: Page) -> Locator:
    """Return the names of the tests that the matrix shows."""
    return page.locator("#matrix .tabulator-row .test-name")


def test_the_matrix_says_in_words_how_each_test_ended_on_each_hub(
    page: Page, recorded: Recorded
) -> None:
    page.goto(recorded.page)
    row = page.locator("#matrix .tabulator-row", has_text="test_differs")
    expect(row.locator(".outcome")).to_have_text(["Ppassed", "Ffailed"])
    expect(page.locator(".overview h2")).to_have_text(["poll", "selects"])


def test_a_filter_leaves_its_tests_and_stands_in_the_address(
    page: Page, recorded: Recorded
) -> None:
    page.goto(recorded.page)
    expect(names_in(page)).to_have_count(4)
    page.get_by_role("button", name="Differs").click()
    expect(names_in(page)).to_have_text(["test_differs"])
    page.goto("about:blank")
    page.goto(f"{recorded.page}#/?f=differs")
    expect(names_in(page)).to_have_text(["test_differs"])


def test_the_search_finds_tests_by_their_errors(page: Page, recorded: Recorded) -> None:
    page.goto(recorded.page)
    page.get_by_role("searchbox").fill("assertionerror")
    expect(page.locator(".shown")).to_have_text("1 of 4 tests")
    expect(names_in(page)).to_have_text(["test_differs"])


def test_keys_alone_lead_to_a_test_and_back(page: Page, recorded: Recorded) -> None:
    page.goto(recorded.page)
    expect(names_in(page)).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("test_d")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(".title h2")).to_contain_text("test_differs")
    page.keyboard.press("Escape")
    expect(names_in(page)).to_have_text(["test_differs"])


def test_escape_empties_the_search_and_then_leaves_it_to_the_arrow_keys(
    page: Page, recorded: Recorded
) -> None:
    page.goto(recorded.page)
    expect(names_in(page)).to_have_count(4)
    page.keyboard.press("/")
    page.keyboard.type("test_d")
    expect(names_in(page)).to_have_text(["test_differs"])
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).to_have_value("")
    expect(names_in(page)).to_have_count(4)
    expect(page.get_by_role("searchbox")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_role("searchbox")).not_to_be_focused()
    page.keyboard.press("ArrowDown")
    expect(page.locator("#matrix a").first).to_be_focused()


@pytest.mark.parametrize("way", ["key", "link"])
def test_the_list_is_as_it_was_when_one_comes_back_from_a_test(
    page: Page, recorded: Recorded, way: str
) -> None:
    page.goto(recorded.page)
    page.get_by_role("button", name="Failed").click()
    page.get_by_role("searchbox").fill("differs")
    page.locator("#matrix a", has_text="test_differs").click()
    back = page.get_by_role("link", name="All tests")
    expect(back).to_be_visible()
    assert page.title().startswith("test_hostile.py::test_differs ")
    if way == "key":
        page.keyboard.press("Escape")
    else:
        back.click()
    expect(names_in(page)).to_have_text(["test_differs"])
    expect(page.get_by_role("button", name="Failed")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#matrix a", has_text="test_differs")).to_be_focused()
    assert not page.title().startswith("test_hostile.py")


def test_the_link_to_the_content_stays_on_the_page_of_a_test(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}")
    expect(page.get_by_role("link", name="All tests")).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    assert page.url.endswith(DIFFERS)


def test_a_test_shows_its_failure_and_what_it_printed(page: Page, recorded: Recorded) -> None:
    page.goto(recorded.page + DIFFERS)
    card = page.get_by_role("region", name="selects").first
    expect(card).to_contain_text("AssertionError")
    expect(card).to_contain_text("<script>window.attacked=1</script> printed")
    expect(page.locator(".verdict")).to_contain_text("failed under selects")


def test_the_verdict_says_how_the_hubs_set_it_apart_and_why(page: Page, recorded: Recorded) -> None:
    page.goto(recorded.page + DIFFERS)
    verdict = page.locator(".verdict")
    expect(verdict).to_contain_text("on the hub: poll failed 0 of 3, selects failed 3 of 3.")
    expect(verdict.locator(".reasons li").first).to_contain_text("selects: AssertionError")
    # What the terminal showed of it, reruns and all.
    for line in verdict.locator(".reasons li").all_inner_texts():
        assert f"    {line}" in recorded.stdout.splitlines()


def test_the_verdict_of_a_run_counts_for_more_than_one_look_at_its_outcomes(
    page: Page, recorded: Recorded, tmp_path: Path
) -> None:
    copied = shutil.copytree(recorded.directory, tmp_path / "copied")
    results = json.loads((copied / "results.json").read_text())
    (verdict,) = (each for each in results["verdicts"] if each["kind"] == "differs")
    parting = ["they diverge <b>here</b>:", "  left  right"]
    verdict.update(kind="flaky", parting=parting)
    results["verdicts"].append({"test": "test_hostile.py::x", "kind": "costs more"})
    results["upgrade"] = ["eventlet upgrade: <b>nothing</b> got worse"]
    (copied / "results.json").write_text(json.dumps(results))
    # Of an attempt after the run there may be a dump alone.
    again = copied / "again"
    again.mkdir()
    record = json.loads((copied / recorded.of("differs-selects").name / "test.json").read_text())
    record.update(attempt=2, phases={"teardown": [1, 2]}, artifacts=["tasks.txt"])
    (again / "test.json").write_text(json.dumps(record))
    (again / "tasks.txt").write_text("no greenthreads")
    report(copied, "-o", tmp_path / "out")
    page.goto((tmp_path / "out" / "index.html").as_uri())
    expect(page.get_by_role("button", name="Flaky")).to_contain_text("1")
    expect(page.get_by_role("button", name="Differs")).to_contain_text("0")
    page.goto(f"{page.url.partition('#')[0]}{DIFFERS}")
    expect(page.locator(".verdict")).to_contain_text("It is flaky: poll failed 0 of 3")
    expect(page.locator(".parting pre")).to_have_text("\n".join(parting))
    expect(page.get_by_role("region", name="selects").first).to_contain_text("call ")
    page.get_by_role("tab", name="Tasks").click()
    expect(page.locator(".recording summary")).to_have_text("tasks.txt, attempt 2")
    page.get_by_role("link", name="Run").click()
    expect(page.locator("pre")).to_have_text("eventlet upgrade: <b>nothing</b> got worse")


def test_a_finding_leads_to_the_line_that_shows_it_and_its_kind_to_the_documentation(
    page: Page, recorded: Recorded
) -> None:
    page.goto(recorded.page + DIFFERS)
    kind = page.get_by_role("link", name="storm")
    (site,) = re.findall(r'^Documentation = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    expect(kind).to_have_attribute("href", f"{site}en/latest/findings/storm.html")
    expect(kind).to_have_attribute("rel", "noopener noreferrer")
    page.locator(".evidence a").click()
    marked = page.locator(".tabulator-row.focus")
    expect(marked).to_contain_text("connect(")
    line = line_of(recorded.of("differs-selects") / "strace.txt", "connect(")
    assert marked.locator("[tabulator-field=line]").inner_text() == str(line)


def test_the_timeline_zooms_by_wheel_and_by_key(page: Page, recorded: Recorded) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    canvas = page.locator("canvas.timeline").first
    scale = "document.querySelector('canvas.timeline').timeline.scale"
    canvas.hover()
    whole = page.evaluate(scale)
    page.keyboard.down("Control")
    page.mouse.wheel(0, -300)
    page.keyboard.up("Control")
    # wait_for_function() asks again by eval(), which the page's policy forbids.
    for _ in range(100):
        if page.evaluate(scale) < whole:
            break
        page.wait_for_timeout(50)
    zoomed = page.evaluate(scale)
    canvas.focus()
    page.keyboard.press("+")
    assert page.evaluate(scale) == zoomed / 2
    page.keyboard.press("Home")
    assert page.evaluate(scale) == whole
    page.keyboard.press("n")
    page.keyboard.press("n")
    times = "(({ data: { t }, order, selected }) => [t[order[0]], t[order[1]], t[selected]])"
    first, second, selected = page.evaluate(f"{times}(document.querySelector('canvas').timeline)")
    assert first <= second == selected
    expect(page.locator(".event-details").first).to_contain_text(" ms")


def test_the_timeline_leaves_out_what_is_not_the_tests_until_all_is_asked_for(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    canvas = page.locator("canvas.timeline").first
    canvas.wait_for()
    count = """document.querySelector("canvas.timeline").timeline.lanes
        .reduce((sum, lane) => sum + lane.rows.length, 0)"""
    told = page.evaluate(count)
    choice = page.get_by_label(re.compile("more calls?$")).first
    left_out = int(choice.locator("..").inner_text().split()[0].replace(",", ""))
    assert left_out > 0
    choice.check()
    assert page.evaluate(count) == told + left_out
    expect(canvas).to_have_attribute("aria-label", re.compile(f"of {told + left_out:,} events"))


def test_lanes_of_the_same_name_say_which_thread_each_is(page: Page, recorded: Recorded) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    page.locator("canvas.timeline").first.wait_for()
    found, expected = page.evaluate(
        """() => {
            const { timeline } = document.querySelector("canvas.timeline");
            const { data } = timeline;
            const row = timeline.lanes.find(({ label }) => /serve/.test(label)).rows[0];
            const [pid, name] = data.lanes[data.l[row]];
            const l = Array.from(data.l);
            l[row] = data.lanes.length;  // as if a child process had made this call
            timeline.take({ ...data, l, lanes: [...data.lanes, [7, name]] });
            const labels = timeline.lanes.map(({ label }) => label);
            const found = labels.filter((each) => /serve/.test(each));
            return [found, [`${name} (${pid})`, `${name} (7)`]];
        }"""
    )
    assert sorted(found) == sorted(expected)


def test_an_import_has_not_failed_because_it_looked_in_one_place_after_another(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    page.locator("canvas.timeline").first.wait_for()
    page.evaluate(
        """() => {
            const { data } = document.querySelector("canvas.timeline").timeline;
            const first = data.n.findIndex((name) => data.names[name] === "accept4");
            const f = Array.from(data.f);
            f[first] = 1;
            window.made = { ...data, f, untold: data.hidden, repeats: [],
              imports: { [first]: [1000, "import of json: 9 calls"] } };
            const body = document.createElement("div");
            document.body.append(body);
            eventletReport.timeline.show(body, window.made, { address: () => "" });
        }"""
    )
    groups = """[...document.querySelectorAll("canvas.timeline")].at(-1).timeline.lanes
        .flatMap(({ rows, groups }) => [...rows].map((row, at) => [row, groups[at]]))
        .filter(([row]) => row in window.made.imports).map(([, group]) => group)"""
    assert page.evaluate(groups) == ["file"]


def test_a_lane_of_a_child_process_has_the_name_of_its_program(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    page.locator("canvas.timeline").first.wait_for()
    labels = page.evaluate(
        """() => {
            const { timeline } = document.querySelector("canvas.timeline");
            const { data } = timeline;
            const row = timeline.lanes.find(({ label }) => /serve/.test(label)).rows[0];
            const l = Array.from(data.l), n = Array.from(data.n), texts = [...data.texts];
            l[row] = data.lanes.length;
            n[row] = data.names.length;
            texts[row] = 'execve("/usr/bin/python3", ["python3"], 0x7f /* 9 vars */) = 0';
            timeline.take({ ...data, l, n, texts, programs: null,
              lanes: [...data.lanes, [4711, null]], names: [...data.names, "execve"] });
            return timeline.lanes.map(({ label }) => label);
        }"""
    )
    assert "python3 4711" in labels


def test_a_signal_is_on_the_lane_of_the_greenthread_that_ran(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    page.locator("canvas.timeline").first.wait_for()
    before, after = page.evaluate(
        """() => {
            const { timeline } = document.querySelector("canvas.timeline");
            const { data, lanes } = timeline;
            const row = lanes.find(({ label }) => /serve/.test(label)).rows.at(-1);
            const [pid] = data.lanes[data.l[row]];
            const k = Array.from(data.k), l = Array.from(data.l);
            k[row] = data.kinds.length;
            l[row] = data.lanes.length;  // strace does not say which greenthread ran
            const before = lanes.map(({ label }) => label);
            timeline.take({ ...data, k, l, kinds: [...data.kinds, "signal"],
              lanes: [...data.lanes, [pid, null]] });
            return [before, timeline.lanes.map(({ label }) => label)];
        }"""
    )
    assert after == before


def test_the_table_of_calls_leaves_out_what_is_not_the_tests_until_all_is_asked_for(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=calls")
    table = page.get_by_role("region", name="poll: System calls")
    choice = table.get_by_label(re.compile("more calls?$"))
    left_out = int(choice.locator("..").inner_text().split()[0].replace(",", ""))
    assert left_out > 0
    count = table.get_by_text(re.compile("^[0-9,]+ calls?$"))
    told = int(count.inner_text().split()[0].replace(",", ""))
    choice.check()
    expect(count).to_have_text(f"{told + left_out:,} calls")
    expect(table.locator("[tabulator-field=text]", has_text="dup2(").first).to_be_visible()


def test_a_link_to_a_line_that_is_left_out_shows_all_lines(page: Page, recorded: Recorded) -> None:
    line = line_of(recorded.of("differs-poll") / "strace.txt", "dup2(")
    page.goto(f"{recorded.page}{DIFFERS}?tab=calls&hub=0&line={line}")
    expect(page.locator(".tabulator-row.focus [tabulator-field=line]")).to_have_text(str(line))
    table = page.get_by_role("region", name="poll: System calls")
    expect(table.get_by_label(re.compile("more calls?$"))).to_be_checked()


def test_a_call_has_the_line_of_the_users_own_code_beside_it(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=calls")
    table = page.get_by_role("region", name="poll: System calls")
    row = table.locator(".tabulator-row", has_text="sendto(").first
    place = row.locator("[tabulator-field=place] span")
    expect(place).to_have_text(re.compile(r"^test_hostile\.py:\d+ in serve$"))
    assert re.search(r"\.py:\d+ in ", place.get_attribute("title") or "")
    expect(row.locator("[tabulator-field=text]")).to_have_text(re.compile(r" = \d+$"))


@pytest.mark.parametrize("tab", ["timeline", "calls", "packets", "profile", "files"])
def test_a_telephone_shows_what_matters_without_being_scrolled_sideways(
    browser: Browser, recorded: Recorded, tab: str
) -> None:
    page = browser.new_page(viewport={"width": 400, "height": 800})
    page.goto(recorded.page)
    name = page.locator(".name-cell a", has_text="test_differs")
    assert name.evaluate("(each) => each.scrollHeight - each.clientHeight") <= 1
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    page.goto(f"{recorded.page}{DIFFERS}?tab={tab}")
    expect(page.locator(".recording").first).to_be_visible()
    expect(page.locator(".loading")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") == 400
    if tab in ("calls", "packets"):
        box = page.locator("[role=gridcell][tabulator-field=text]").first.bounding_box()
        assert box is not None
        assert box["x"] + 150 < 400
    page.close()


def test_colours_explain_the_timeline_beside_words_that_can_be_read(
    page: Page, recorded: Recorded
) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    page.locator("canvas.timeline").first.wait_for()
    colours = "(legend) => [legend, ...legend.children].map((each) => getComputedStyle(each).color)"
    assert len(set(page.locator(".legend").first.evaluate(colours))) == 1


def test_an_event_of_the_timeline_leads_to_its_line(page: Page, recorded: Recorded) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=timeline")
    canvas = page.locator("canvas.timeline").first
    canvas.wait_for()
    x, y = page.evaluate(
        """() => {
            const { timeline } = document.querySelector("canvas.timeline");
            const lane = timeline.lanes.findIndex(({ label }) => /serve/.test(label));
            const time = timeline.data.t[timeline.lanes[lane].rows[0]];
            return [150 + (time - timeline.left) / timeline.scale, 22 + lane * 22 + 11];
        }"""
    )
    canvas.click(position={"x": x, "y": y})
    link = page.locator(".event-details a").first
    number = link.inner_text().rpartition(" ")[2]
    link.click()
    expect(page.locator(".tabulator-row.focus [tabulator-field=line]")).to_have_text(number)


def test_the_profile_is_a_flame_graph_for_each_root(page: Page, recorded: Recorded) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=profile")
    choice = page.get_by_label("Root of the flame graph").first
    root = choice.locator("option", has_text="<greenthread").first
    choice.select_option(root.get_attribute("value"))
    expect(page.locator(".flames").first).to_contain_text("serve (")


def test_packets_name_the_call_that_sent_them(page: Page, recorded: Recorded) -> None:
    page.goto(f"{recorded.page}{DIFFERS}?tab=packets")
    searches = page.get_by_label("Search packets")
    expect(searches).to_have_count(2)  # the other hub's may come first
    searches.first.fill("PSH")
    row = page.locator(".recording .tabulator-row").first
    sender = row.get_by_role("link")
    expect(sender).to_contain_text("sendto(fd")
    line = sender.inner_text().rpartition(" ")[2]
    sender.click()
    expect(page.locator(".tabulator-row.focus [tabulator-field=line]")).to_have_text(line)


def test_what_is_searched_for_while_the_table_is_made_is_found(
    page: Page, recorded: Recorded
) -> None:
    page.add_init_script("""
        new MutationObserver(() => {
          const search = document.querySelector("[aria-label='Search packets']");
          if (!search || search.value) return;
          search.value = "PSH";
          search.dispatchEvent(new Event("input"));
        }).observe(document, { childList: true, subtree: true });
    """)
    page.goto(f"{recorded.page}{DIFFERS}?tab=packets")
    row = page.locator(".recording .tabulator-row").first
    expect(row.get_by_role("link")).to_contain_text("sendto(fd")


def test_the_theme_follows_the_system_until_one_is_chosen(
    browser: Browser, recorded: Recorded
) -> None:
    page = browser.new_page(color_scheme="dark")
    page.goto(recorded.page)
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.get_by_role("button", name="Switch to the light theme").click()
    assert page.evaluate(background) != dark
    page.reload()
    expect(page.get_by_role("button", name="Switch to the dark theme")).to_be_visible()
    page.close()


@pytest.mark.fault("hostile-report")
@pytest.mark.parametrize("tab", ["timeline", "calls", "packets", "profile", "files"])
def test_hostile_names_output_and_packets_run_nothing(
    page: Page, recorded: Recorded, tab: str
) -> None:
    page.goto(recorded.page)
    expect(names_in(page).filter(has_text="<script>").first).to_be_visible()
    page.goto(f"{recorded.page}{DIFFERS}?tab={tab}")
    page.wait_for_selector(".recording")
    expect(page.locator(".loading")).to_have_count(0)
    assert page.evaluate("window.attacked") is None
    assert page.locator("main img, main script").count() == 0


def test_no_script_runs_that_stands_in_the_page(browser: Browser, recorded: Recorded) -> None:
    page = browser.new_page()
    page.goto(recorded.page)
    page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.attacked = 1";
            document.body.append(script);
            const link = document.createElement("div");
            link.innerHTML = "<b onclick='window.attacked = 1'>x</b>";
            document.body.append(link);
            link.firstChild.click();
        }"""
    )
    assert page.evaluate("window.attacked") is None
    page.close()


def test_several_runs_become_one_matrix(page: Page, recorded: Recorded, tmp_path: Path) -> None:
    shutil.copytree(recorded.directory, tmp_path / "other-job")
    out = tmp_path / "out"
    made = report(recorded.directory, tmp_path / "other-job", "-o", out)
    assert made.returncode == 0, made.stderr
    page.goto((out / "index.html").as_uri())
    expect(page.locator(".overview h2")).to_have_text(
        [
            "poll · eventlet-debug",
            "poll · other-job",
            "selects · eventlet-debug",
            "selects · other-job",
        ]
    )
    page.goto(f"{(out / 'index.html').as_uri()}{DIFFERS}?tab=calls")
    expect(page.locator(".recording")).to_have_count(4)
    expect(page.locator(".recording .tabulator-row").first).to_be_visible()

"""The page itself: complete, escaped, self-contained, accessible."""

import errno
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from luts.format.errors import StorageError
from luts.format.store import LutStore
from orchestrator.report.draw import MAX_TABLE_ROWS
from orchestrator.report.inputs import ReportInputs, read_named_lut, read_run
from orchestrator.report.page import render, write_report
from tests.support.report_world import BLOCK_MS, entry, make_lut, make_search, write_run

BY_REMOVAL = "by removal"
HOSTILE = "<script>alert('$x$')</script>&\"'"


class Page(HTMLParser):
    """Tags, ids, what refers to an id, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != [("style", {})]:
            self.text += data

    def values(self, attribute: str) -> list[str]:
        return [value for _, found in self.tags if (value := found.get(attribute))]

    def titles(self) -> list[str]:
        return [value for tag, found in self.tags if tag == "section" and (value := found.get("id"))]


def page_of_lut(folder, lut) -> str:
    store = LutStore([folder])
    return render(ReportInputs(lut=read_named_lut(store.resolve(store.write(lut)))))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("whole")
    inputs = read_run(folder / "run", write_run(folder))
    page = render(inputs)
    assert render(inputs) == page, "equal inputs give equal pages"
    return page


def test_a_run_has_all_pictures_and_their_numbers(whole) -> None:
    page = Page(whole)
    sections = ["tradeoff", "architecture", "latency", "entries", "agreement", "history", "quiet"]
    assert page.titles() == [*sections, "provenance"]
    assert sum(tag == "svg" for tag, _ in page.tags) == 14
    assert sum(tag == "table" for tag, _ in page.tags) == 7
    for text in (
        "87.50\N{NO-BREAK SPACE}% at a predicted 3.000\N{NO-BREAK SPACE}ms",
        "Measured again: 4.200\N{NO-BREAK SPACE}ms (4.158 to 4.242)",
        "Held out of the LUT (1): mean error 25.00\N{NO-BREAK SPACE}%",
        "New random networks (2): mean error 10.00\N{NO-BREAK SPACE}%, largest 20.00\N{NO-BREAK SPACE}%, "
        "50\N{NO-BREAK SPACE}% of them within 5\N{NO-BREAK SPACE}%",
        "+1.000 %",
        "1 batch was rejected",
        "tiny-recipe",
    ):
        assert text in page.text
    assert "simulated" not in page.text.lower()


def test_provenance_tells_everything_that_decides_a_comparison(whole) -> None:
    text = Page(whole).text
    for fact in (
        "Made-up 3000", "S1", "OS 1A2B", "runtime 1", "exporter 2", "agent 3", "2026-02-03T04:05:06+00:00",
        "executorch-xnnpack-fp32-t2", "half_width", "0.01", "warmup", "2.250 ms (2.200 to 2.300)",
    ):  # fmt: skip
        assert fact in text
    assert len(re.findall("<dd>[0-9a-f]{64}</dd>", whole)) == 7, "four files, weights, data, price"


def test_a_lut_alone_has_its_own_pictures(tmp_path) -> None:
    page = Page(page_of_lut(tmp_path, make_lut()))
    assert page.titles() == ["entries", "agreement", "quiet", "provenance"]
    assert "autovit-nano on phone" in page.text


def test_a_run_says_what_it_lacks(tmp_path) -> None:
    store = write_run(tmp_path)
    for name in ("lut.txt", "validation.json", "search/measured.json"):
        (tmp_path / "run" / name).unlink()
    page = Page(render(read_run(tmp_path / "run", store)))
    assert page.titles() == ["tradeoff", "architecture", "history", "absent", "provenance"]
    assert "the LUT (lut.txt)" in page.text
    assert "Measured again" not in page.text


def test_the_page_asks_nobody_for_anything(whole) -> None:
    page = Page(whole)
    assert "//" not in re.sub(r"<!doctype html>", "", whole)
    assert not {"script", "link", "img", "iframe", "object", "base", "a"} & {tag for tag, _ in page.tags}
    assert page.values("src") == []
    assert all(value.startswith("#") for value in page.values("href"))
    assert re.findall(r"@import|url\((?!#)", whole) == []


def test_ids_are_unique_and_every_reference_has_its_target(whole) -> None:
    page = Page(whole)
    ids = page.values("id")
    assert [name for name, times in Counter(ids).items() if times > 1] == []
    wanted = [value[1:] for value in page.values("href")]
    wanted += re.findall(r"url\(#([^)]+)\)", whole)
    wanted += [name for value in page.values("aria-labelledby") for name in value.split()]
    assert len(wanted) > 12
    assert set(wanted) <= set(ids)


def test_every_picture_has_a_title_and_a_description(whole) -> None:
    page = Page(whole)
    pictures = [found for tag, found in page.tags if tag == "svg"]
    assert all(found["role"] == "img" and found["aria-labelledby"] for found in pictures)
    for name in ("title", "desc"):
        assert sum(tag == name and "id" in found for tag, found in page.tags) == len(pictures)


def test_hostile_strings_stay_text(tmp_path) -> None:
    key = "".join(HOSTILE.split()) + "$\\frac$"
    lut = make_lut(device_model=HOSTILE, entries=(entry(key, "odd", ms=9.0, ci_low=8.0, ci_high=10.0),))
    html = page_of_lut(tmp_path, lut)
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert HOSTILE in page.text
    assert page.text.count(key) == 3, "two pictures and a table"
    assert not any(name.startswith("on") for _, found in page.tags for name in found)


def test_simulated_numbers_say_so(tmp_path) -> None:
    html = page_of_lut(tmp_path, make_lut(measured="simulated"))
    page = Page(html)
    assert "SIMULATED These latencies come from a simulated device" in page.text
    assert page.text.count("simulated") >= 4, "banner and every picture's heading"
    assert "<title>autovit-nano on phone – blocktime – SIMULATED</title>" in html


def test_removals_and_the_prior_have_their_marks(tmp_path) -> None:
    marked = (
        entry(
            "conv(a)@8",
            "conv",
            ms=3.0,
            ci_high=4.0,
            removal_ms=-0.25,
            removal_ci_low=-1.0,
            removal_ci_high=1.0,
        ),
        entry("conv(b)@8", "conv", ms=2.0, ci_high=4.0, method="prior"),
    )
    text = Page(page_of_lut(tmp_path, make_lut(entries=marked))).text
    assert "by removal" in text
    assert "-0.2500" in text
    assert "pale: not measured, from the prior" in text
    assert "1 of all could not be measured" in text


def test_a_removal_that_moved_others_is_no_cost_and_says_so(tmp_path) -> None:
    reported = {"removal_ms": 7.5, "removal_ci_low": 7.0, "removal_ci_high": 8.0}
    flagged = entry("conv(a)@8", "conv", ms=3.0, ci_high=4.0, migrated_operations=12, **reported)
    page = page_of_lut(tmp_path / "moved", make_lut(entries=(flagged,)))
    text = Page(page).text
    assert "7.5000 (12 migrated)" in text
    assert "1 removals moved operations of other blocks to another compute unit" in text
    other = page_of_lut(
        tmp_path / "stayed", make_lut(entries=(flagged.model_copy(update={"migrated_operations": 0}),))
    )
    assert "migrated)" not in Page(other).text
    assert other.count(BY_REMOVAL) == 2 + page.count(BY_REMOVAL)


def test_conditions_are_part_of_the_provenance(tmp_path) -> None:
    lut = make_lut()
    seen = {"caveats": ("debuggable_build",), "qos": ("user_interactive",), "keep_warm": "both"}
    text = Page(page_of_lut(tmp_path, replace(lut, meta=lut.meta.model_copy(update=seen)))).text
    for words in ("debuggable build", "user_interactive", "on in some batches, off in others"):
        assert words in text


def test_long_tables_are_cut_and_say_so(tmp_path) -> None:
    many = tuple(entry(f"conv(n={number})@8", "conv", ms=BLOCK_MS) for number in range(MAX_TABLE_ROWS))
    lut = make_lut(entries=many)
    page = Page(page_of_lut(tmp_path, lut))
    assert f"{len(lut.entries) - MAX_TABLE_ROWS} more rows are not shown" in page.text


def test_a_full_disk_is_one_line_and_leaves_the_old_report(tmp_path, monkeypatch) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="No space left on device; free some space") as caught:
        write_report(path, ReportInputs())
    assert "\n" not in str(caught.value)
    assert [found.name for found in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


@pytest.mark.filterwarnings("error")
def test_the_smallest_search_and_lut_are_drawn_without_a_warning(tmp_path) -> None:
    lut = make_lut()
    lut = replace(lut, entries=lut.entries[:1], models=lut.models[1:])
    search = make_search()
    only = search.evaluated[0].model_copy(update={"accuracy": 0.0})
    search = search.model_copy(
        update={"evaluated": (only,), "winner": only, "history": search.history[:1]},
    )
    store = LutStore([tmp_path])
    named = read_named_lut(store.resolve(store.write(lut)))
    page = Page(render(ReportInputs(lut=named, search=search)))
    assert page.titles() == ["tradeoff", "entries", "history", "quiet", "provenance"]


def test_a_lut_without_entries_or_pairs_of_loads_has_provenance_alone(tmp_path) -> None:
    lut = make_lut()
    bare = replace(lut, entries=(), models=(), samples=lut.samples.slice(0, 1))
    assert Page(page_of_lut(tmp_path, bare)).titles() == ["provenance"]

"""`bench lut board`: which rows compare, what it says of each, and its page."""

import csv
import html.parser
import json
from dataclasses import replace

import pytest

from luts.format.store import LutStore
from orchestrator.report.board import render_board
from orchestrator.tasks.board import make_board
from tests.support.bench import answer, bench


def of_device(lut, name, times, **meta):
    device = lut.meta.device.model_copy(update={"name": name, "model": f"<b>{name}</b>"})
    changed = {"device": device, "reference_ms": times * lut.meta.reference_ms} | meta
    return replace(lut, meta=lut.meta.model_copy(update=changed))


@pytest.fixture
def store(lut, tmp_path):
    """Three devices beside one reference network, and one of another space."""
    store = LutStore([tmp_path / "luts"], lambda _: None)
    for name, times in (("slow", 4.0), ("fast", 1.0), ("middle", 2.5)):
        store.write(of_device(lut, name, times))
    store.write(of_device(lut, "fast", 9.0, space="another"))
    return store


def test_devices_are_ordered_and_compared_within_a_space(store, lut):
    rows = make_board(store=store)
    assert [row.lut for row in rows[:1]] == ["fast/another/simulated-t1/v1"]
    assert [row.lut.split("/")[0] for row in rows[1:]] == ["fast", "middle", "slow"]
    assert [row.times for row in rows] == pytest.approx([1.0, 1.0, 2.5, 4.0])
    assert rows[3].reference_ms == pytest.approx(4 * lut.meta.reference_ms)
    assert {row.noise_floor for row in rows} == {lut.meta.noise_floor}


def test_another_reference_network_does_not_compare(store, lut):
    store.write(of_device(lut, "odd", 8.0, reference_id="other"))
    odd = next(row for row in make_board(store=store) if row.lut.startswith("odd"))
    assert odd.times == 1.0


def test_what_can_t_be_read_is_left_out_and_named(store):
    told = []
    (store.roots[0] / "slow/toy/simulated-t1/v1/lut.json").chmod(0o644)
    (store.roots[0] / "slow/toy/simulated-t1/v1/lut.json").write_text("{")
    assert len(make_board(store=store, tell=told.append)) == 3
    assert "slow/toy/simulated-t1 is left out" in told[0]


def test_a_place_s_luts_are_claims(refs, tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "mine"))
    place = tmp_path / "place"
    for ref in refs:
        answer("lut", "push", ref.path, place)
    rows = json.loads(answer("lut", "board", place, "--json"))
    assert [(row["lut"].split("/")[0], row["trust"]) for row in rows] == [
        ("host", "not pulled"),
        ("other", "not pulled"),
    ]
    answer("lut", "pull", place, "other", "--no-verify")
    mine = json.loads(answer("lut", "board", "--json"))
    assert {row["trust"] for row in mine} == {"packaged", "unverified, unsigned"}


def test_table_csv_and_page(store, tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_LUTS", str(store.roots[0]))
    page, table = tmp_path / "board.html", tmp_path / "board.csv"
    done = bench("lut", "board", "-o", page, "-o", table)
    assert done.returncode == 0, done.stderr
    assert "SIMULATED rows" in done.stdout
    with table.open() as file:
        names = [row["lut"].split("/") for row in csv.DictReader(file)]
    assert {device for device, *_ in names} >= {"slow", "fast", "middle", "linux-x86-64"}
    assert "fast/another" in done.stdout
    assert page.read_text().count("<section>") == 1 + len({space for _, space, *_ in names})
    assert bench("lut", "board", "-o", tmp_path / "board.pdf").returncode == 2


class Page(html.parser.HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data.strip())


def test_the_page_says_simulated_escapes_and_asks_for_nothing(store):
    page = Page(render_board(make_board(store=store), "a place"))
    names = [name for name, _ in page.tags]
    assert not {"script", "link", "img"} & set(names)
    assert names.count("b") == 4
    assert "<b>slow</b>" in " ".join(page.words)
    assert page.words.count("simulated") == 4
    widths = [attributes["style"] for name, attributes in page.tags if name == "i"]
    assert widths == ["width: 100.0%", "width: 25.0%", "width: 62.5%", "width: 100.0%"]
    assert "There is no LUT here." in render_board([], "a place")


def test_a_board_of_nothing_is_written_too(tmp_path, monkeypatch):
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "mine"))
    (tmp_path / "place").mkdir()
    assert (
        answer(
            "lut", "board", tmp_path / "place", "-o", tmp_path / "b.csv", "-o", tmp_path / "b.html", "--json"
        )
        == "[]\n"
    )

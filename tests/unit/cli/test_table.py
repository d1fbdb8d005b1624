"""Tables on terminals of any width: figures whole, keys without what they share, columns by what they matter."""

import io

import pytest
from rich.console import Console

from luts.format.table import Column, Facts, count_text
from orchestrator.cli import output
from orchestrator.cli.output import fitting, short_keys, table_of
from tests.support.bench import answer

KEYS = [
    "mvit.layer(d=64,heads=4,head_dim=32,ratio=2,patch=2)@32",
    "mvit.layer(d=48,heads=4,head_dim=32,ratio=1.5,patch=2)@16",
    "head.fc(in=112,classes=1000)@8",
]
COLUMNS = [
    Column("key", "block", key=True),
    Column("ms", "ms", 4),
    Column("low", "95 % low", 4),
    Column("loads", "loads", spare=2),
    Column("note", "remark", spare=1),
]
ROWS = [{"key": key, "ms": 12.34567, "low": 1.0, "loads": 1234, "note": "a b"} for key in KEYS]


def lines(width, columns=COLUMNS, rows=ROWS):
    shown, notes = fitting(columns, rows, width)
    file = io.StringIO()
    Console(width=width, file=file).print(table_of("", shown))
    return [line.rstrip() for line in file.getvalue().splitlines()], notes


def test_with_room_all_is_stated_in_full():
    (head, _, first, _, last), notes = lines(120)
    assert head == f"{'block':57}       ms  95 % low  loads  remark"
    assert first == f"{KEYS[0]:57}  12.3457    1.0000  1,234  a b"
    assert last.split() == [KEYS[2], "12.3457", "1.0000", "1,234", "a", "b"]
    assert notes == []


def test_with_less_keys_are_short_and_say_what_they_share():
    (*_, first, second, third), notes = lines(75)
    assert first.split() == ["mvit.layer(d=64,ratio=2)@32", "12.3457", "1.0000", "1,234", "a", "b"]
    assert second.startswith("mvit.layer(d=48,ratio=1.5)@16")
    assert third.startswith("head.fc(in=112,classes=1000)@8")
    assert notes == ["every mvit.layer: heads=4, head_dim=32, patch=2"]


def test_columns_that_matter_less_are_left_out_and_named():
    (head, *_), notes = lines(55)
    assert head.split() == ["95", "%"]
    (_, head, *_), _ = lines(55)
    assert head.split() == ["block", "ms", "low", "remark"]
    assert notes[-1] == "on a wider terminal, or with --json: loads"


@pytest.mark.parametrize("width", range(40, 140))
def test_no_figure_is_broken_and_no_line_too_long(width):
    reported, _ = lines(width)
    assert max(map(len, reported)) <= width
    assert sum("12.3457" in line for line in reported) == 3
    assert sum("1.0000" in line for line in reported) in (0, 3)


def test_text_is_folded_where_it_may_be():
    rows = [{"name": "a/long/path/of/some/folder, and more words", "ms": 1.5}]
    reported, _ = lines(30, [Column("name", "file"), Column("ms", "ms", 3)], rows)
    assert reported[2:] == ["a/long/path/of/some/     1.500", "folder, and more words"]


def test_only_what_all_of_a_kind_share_goes():
    short, notes = short_keys(["a(x=1,y=2)@8", "a(x=1,y=3)@8", "b(x=1)@8", "no key"])
    assert short == {"a(x=1,y=2)@8": "a(y=2)@8", "a(x=1,y=3)@8": "a(y=3)@8", "b(x=1)@8": "b(x=1)@8"}
    assert notes == ["every a: x=1"]


def test_cells_as_people_read_them():
    column = Column("", "")
    assert [column.text(v) for v in (True, False, None, "", 1234567, 0.123456)] == [
        "yes",
        "no",
        "-",
        "-",
        "1,234,567",
        "0.1235",
    ]
    assert Column("", "", 2, percent=True).text(0.9499) == "94.99 %"
    assert [count_text(n) for n in (2_585_560, 309_480_832, 1.397e9, 60_210, 512)] == [
        "2.586 M",
        "309.5 M",
        "1.397 G",
        "60.21 k",
        "512",
    ]


def test_facts_are_as_exact_as_a_person_needs(capsys):
    facts = {"top1": 0.9554317593574524, "loss": 0.123456789, "steps": 12345, "final": True}
    output.show(Facts("", facts, ["top1"]), False)
    assert capsys.readouterr().out.split() == [
        "top1",
        "95.54",
        "%",
        "loss",
        "0.1235",
        "steps",
        "12,345",
        "final",
        "yes",
    ]


def test_a_lut_has_a_line_for_each_entry_at_80_columns(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(output, "_out", Console(width=80, file=file, markup=False))
    answer("lut", "show", "linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1")
    reported = file.getvalue().splitlines()
    assert sum("@" in line for line in reported) == 117
    assert len(reported) < 150

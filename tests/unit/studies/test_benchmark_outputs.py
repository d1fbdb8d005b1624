"""The benchmark of what follows a network."""

import re

from tools.benchmarks.outputs import main


def test_its_table_has_both_scores_and_the_mask():
    rows = re.findall(r"^\| `(\S+)` \| (\w+).* \| (\d+|-) \| ([0-9.]+) \|", main(calls=2), re.MULTILINE)
    assert [row[:2] for row in rows] == [
        ("autovit-xxs-paper.ssdlite20", "decoding"),
        ("autovit-xxs-paper.ssdlite20", "decoding"),
        ("autovit-xxs-paper.deeplablite20", "mask"),
    ]
    every, shown = (int(row[2]) for row in rows[:2])
    assert every > shown
    assert all(float(row[3]) > 0 for row in rows)

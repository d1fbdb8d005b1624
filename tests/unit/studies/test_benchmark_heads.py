"""The benchmark of classifiers, on a simulated device."""

import re

from tools.benchmarks.heads import main


def test_its_table_has_both_profiles_and_both_numbers_of_classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    section = main("simulated", "autovit-nano", models=16, networks=2, budget_s=30.0, check_s=30.0)
    rows = re.findall(r"^\| (1000|10 and 1000) \| (10|1000) classes \| ([0-9.]+) %", section, re.MULTILINE)
    assert [row[:2] for row in rows] == [
        ("1000", "1000"),
        ("1000", "10"),
        ("10 and 1000", "1000"),
        ("10 and 1000", "10"),
    ]
    assert all(float(error) < 15 for *_, error in rows)

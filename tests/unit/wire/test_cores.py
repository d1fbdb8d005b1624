"""Lists of cores, and how many of a device's cores are not little."""

from __future__ import annotations

from pathlib import Path

import pytest

from luts.format.errors import UsageError
from orchestrator.agent.device import core_list, parse_cores, threads_by_default
from orchestrator.export.artifacts.spec import Variant
from orchestrator.tasks.target import Target
from tests.support.errors import raises

PIXEL_8 = [1704] * 4 + [2367] * 4 + [2914]


NO_LITTLE_CORES = [800] * 6 + [1024] * 2


def capacities(root: Path, values: list[int | None]) -> Path:
    for core, capacity in enumerate(values):
        (root / f"cpu{core}").mkdir(parents=True, exist_ok=True)
        if capacity is not None:
            (root / f"cpu{core}/cpu_capacity").write_text(f"{capacity}\n")
    return root


def clocks(root: Path, highest_mhz: list[int | None]) -> Path:
    for core, mhz in enumerate(highest_mhz):
        folder = root / f"cpu{core}/cpufreq"
        folder.mkdir(parents=True)
        if mhz is not None:
            (folder / "cpuinfo_max_freq").write_text(f"{mhz}000\n")
    return root


def test_lists_are_those_of_linux() -> None:
    assert parse_cores("4-8") == (4, 5, 6, 7, 8)
    assert parse_cores("2-3,0") == (0, 2, 3)
    assert parse_cores("4095") == (4095,)
    assert core_list([3, 0, 2]) == "0,2-3"
    assert core_list(range(9)) == "0-8"
    assert core_list([]) == ""


@pytest.mark.parametrize("text", ["", "4-", "8-4", "-1", "a", "1,,2", "99999", "4096", "1-2-3"])
def test_what_is_not_a_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a list of cores"):
        parse_cores(text)


@pytest.mark.parametrize(
    ("highest_mhz", "threads"),
    [
        (PIXEL_8, 4),  # 1704 is more than half of 2914: clocks alone do not tell
        ([1400] * 5 + [2800] * 2 + [3000], 3),
        ([3000] * 4, 2),
        ([1300, 1300, 2800, None], 2),
        ([None] * 7, 3),
        ([None], 1),
    ],
)
def test_default_threads_without_capacities_skip_cores_of_low_clocks(
    tmp_path: Path, highest_mhz: list[int | None], threads: int
) -> None:
    root = capacities(clocks(tmp_path, highest_mhz), [100] + [None] * (len(highest_mhz) - 1))
    if len(highest_mhz) == 1:
        (root / "cpu0/cpu_capacity").unlink()
    assert threads_by_default(range(len(highest_mhz)), root) == threads


@pytest.mark.parametrize(
    ("values", "threads"),
    [([200] * 4 + [700] * 4 + [1024], 5), (NO_LITTLE_CORES, 8), ([511, 512, 1024], 2), ([1024] * 4, 2)],
)
def test_default_threads_skip_cores_of_less_than_half_the_capacity(
    tmp_path: Path, values: list[int], threads: int
) -> None:
    root = capacities(clocks(tmp_path, [1000] * (len(values) - 2) + [3000] * 2), values)
    assert threads_by_default(range(len(values)), root) == threads


def test_unusable_cores_do_not_count(tmp_path: Path) -> None:
    assert threads_by_default([0, 1, 8], capacities(tmp_path, [200] * 4 + [700] * 4 + [1024])) == 1


def test_sustained_performance_is_off_by_default_and_another_variant_where_it_is_asked_for() -> None:
    assert Target("pixel8", threads=5).variant.name == "executorch-xnnpack-fp32-t5"
    variant = Target("pixel8", threads=5, cores="4-8", sustained_performance=True).variant
    assert variant.name == "executorch-xnnpack-fp32-t5-c4-8-sustained"
    assert Variant.parse(variant.name) == variant
    assert variant.load_options == {"threads": 5, "cores": "4-8", "sustained_performance": True}
    for target in (
        Target("iphone13", runtime="coreml", sustained_performance=True),
        Target("simulated", sustained_performance=True),
    ):
        with raises("option_does_not_apply"):
            _ = target.variant


def test_pinned_threads_are_as_many_as_their_cores() -> None:
    assert Target("pixel8", cores="4-8").variant.name == "executorch-xnnpack-fp32-t5-c4-8"
    assert Target("pixel8", cores="5,4", threads=1).variant.load_options == {"threads": 1, "cores": "4-5"}
    for target, reported in [
        (Target("pixel8", cores="4", threads=2), "2 threads are too many for cores 4"),
        (Target("pixel8", cores="big"), "not a list of cores"),
        (Target("iphone13", runtime="coreml", cores="4"), "coreml chooses its own cores"),
        (Target("simulated", cores="4"), "simulated chooses its own cores"),
    ]:
        with pytest.raises(UsageError, match=reported):
            _ = target.variant

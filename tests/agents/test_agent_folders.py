"""The agents in three languages have the same folders for the same jobs."""

from __future__ import annotations

import re

from tests.support.agent_programs import ROOT

KOTLIN = ROOT / "android_bench/core/src/main/kotlin/dev/blocktime/core"
SWIFT = ROOT / "ios_bench/BenchKit/Sources/BenchKit"

# Each imports those before it alone.
JOBS = ["wire", "store", "device", "runtime", "timing", "agent", "bundle"]


def test_folders_have_the_same_names() -> None:
    assert {folder.name for folder in KOTLIN.iterdir()} == {*JOBS, "ui"}
    assert {folder.name.lower() for folder in SWIFT.iterdir()} == set(JOBS)
    python = {path.stem for path in (ROOT / "orchestrator/agent").iterdir()}
    shared = {"wire", "bundle"}  # with who measures from outside
    assert set(JOBS) - shared <= python
    assert all((ROOT / "orchestrator" / name).is_dir() for name in shared)


def test_tests_lie_in_folders_of_the_same_names() -> None:
    tests = ROOT / "android_bench/core/src/test/kotlin/dev/blocktime/core"
    assert {folder.name for folder in tests.iterdir()} <= {folder.name for folder in KOTLIN.iterdir()}
    tests = ROOT / "ios_bench/BenchKit/Tests/BenchKitTests"
    assert {folder.name for folder in tests.iterdir()} <= {
        *(folder.name for folder in SWIFT.iterdir()),
        "Support",
    }


def test_packages_form_no_circle() -> None:
    order = [*JOBS, "ui"]
    for place, job in enumerate(order):
        sources = [path.read_text() for path in (KOTLIN / job).glob("*.kt")]
        imported = {
            name
            for text in sources
            for name in re.findall(r"^import dev\.blocktime\.core\.(\w+)", text, re.M)
        }
        assert imported <= set(order[:place]), job

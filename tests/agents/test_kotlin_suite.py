"""The Kotlin code's own tests (JUnit), on this machine's JVM."""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.support.agent_programs import ROOT, require_built
from tests.support.tiny_model import Exported

JUNIT = Path("/usr/share/java/junit-platform-console-standalone.jar")
BUILD = ROOT / "build/kotlin"
JARS = ("tests", "core", "executorch", "jvm", "standin", "kotlin-stdlib")

# Fewer would mean that whole classes of tests were not found.
LEAST_TESTS = 200


@pytest.fixture(scope="module")
def built() -> None:
    if not JUNIT.exists():
        pytest.skip(f"no {JUNIT}; run tools/toolchains/kotlin.sh")
    require_built("kotlin", "--tests")


def test_build_does_nothing_twice(built: None) -> None:
    jars = [BUILD / f"{name}.jar" for name in JARS]
    before = [jar.stat().st_mtime_ns for jar in jars]
    subprocess.run([ROOT / "tools/build_kotlin.sh", "--tests"], timeout=500, check=True)
    assert [jar.stat().st_mtime_ns for jar in jars] == before


def test_junit(built: None, exported: Exported, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [
        "java",
        f"-Djava.library.path={ROOT / 'build/native'}",
        f"-Dblocktime.protocol={ROOT / 'protocol'}",
        f"-Dblocktime.pte={exported.path}",
        *("-jar", str(JUNIT), "--class-path", ":".join(str(BUILD / f"{name}.jar") for name in JARS)),
        *("--scan-class-path", str(BUILD / "tests.jar"), "--fail-if-no-tests", "--details=none"),
        *("--disable-banner", "--disable-ansi-colors", f"--reports-dir={tmp_path}"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-20_000:]
    (report,) = tmp_path.glob("*jupiter*.xml")
    suite = ElementTree.parse(report).getroot()
    counts = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")}
    assert counts["tests"] >= LEAST_TESTS
    assert counts == {"tests": counts["tests"], "failures": 0, "errors": 0, "skipped": 0}
    with capsys.disabled():
        print(f" {counts['tests']} Kotlin tests", end="")

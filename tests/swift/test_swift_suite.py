"""The Swift package's own tests and its style, on Linux."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SWIFT = ROOT / ".toolchains/swift/usr/libexec/swift/bin/swift"
PACKAGE = ROOT / "ios_bench/BenchKit"
BUILD = ROOT / "tools/build_swift.sh"

# Fewer would mean that whole suites were not found.
LEAST_TESTS = 125

pytestmark = pytest.mark.skipif(not SWIFT.exists(), reason="no Swift; run tools/toolchains/swift.sh")


def test_swift_tests_pass(capsys: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([BUILD, "--test"], capture_output=True, text=True, timeout=600, check=False)
    output = done.stdout + done.stderr
    failures = "\n".join(line for line in output.splitlines() if "✘" in line or "error:" in line)
    assert done.returncode == 0, failures or output[-20_000:]
    counts = [int(count) for count in re.findall(r"Test run with (\d+) tests? passed", output)]
    assert len(counts) == 1, output[-20_000:]
    assert counts[0] >= LEAST_TESTS
    with capsys.disabled():
        print(f" {counts[0]} Swift tests", end="")


def test_agent_is_built_once() -> None:
    agent = ROOT / "build/swift/blocktime-agent"
    subprocess.run([BUILD], timeout=600, check=True)
    before = agent.stat().st_mtime_ns
    subprocess.run([BUILD], timeout=60, check=True)
    assert agent.stat().st_mtime_ns == before


def test_style() -> None:
    command: list[str | Path] = [SWIFT, "format", "lint", "--strict", "--recursive", PACKAGE]
    command += ["--configuration", PACKAGE / ".swift-format"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_one_version_of_executorch() -> None:
    """The app is built with the release whose Python package exports its models."""
    release = version("executorch").partition("+")[0]
    package = (PACKAGE / "Package.swift").read_text()
    platform = (PACKAGE / "Sources/ExecuTorchRunner/Platform.swift").read_text()
    assert re.findall(r'branch: "swiftpm-([^"]+)"', package) == [release]
    assert re.findall(r'static let version = "([^"]+)"', platform) == [release]


def test_stand_ins_are_built_on_linux_alone() -> None:
    manifest = (PACKAGE / "Package.swift").read_text()
    linux, elsewhere = manifest.partition("#if os(Linux)")[2].split("#else", 1)
    stand_ins = {folder.name for folder in (PACKAGE / "standin").iterdir()}
    assert set(re.findall(r'path: "standin/(\w+)"', linux)) == stand_ins
    assert "standin" not in elsewhere
    assert not stand_ins & {folder.name for folder in (PACKAGE / "Sources").iterdir()}


def test_version_follows_the_sources(tmp_path: Path) -> None:
    """Any change of a source gives another version; the place of the clone does not."""
    for name in ("ios_bench", "native/include", "native/src"):
        subprocess.run(["cp", "-r", "--parents", name, tmp_path], cwd=ROOT, check=True)
    subprocess.run(["cp", ROOT / "pyproject.toml", tmp_path], check=True)

    def told() -> str:
        script = tmp_path / "ios_bench/agent_version.sh"
        return subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip()

    first = told()
    assert re.fullmatch(r"\d+\.\d+\.\d+\+[0-9a-f]{16}", first)
    here = subprocess.run([ROOT / "ios_bench/agent_version.sh"], capture_output=True, text=True, check=True)
    assert here.stdout.strip() == first
    loop = tmp_path / "ios_bench/BenchKit/Sources/BenchKit/Timing/TimingLoop.swift"
    loop.write_text(loop.read_text() + "\n")
    assert told() != first

"""The Swift package's own tests and its style, on Linux."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.tiny_model import Exported

ROOT = Path(__file__).resolve().parents[2]
SWIFT = ROOT / ".toolchains/swift/usr/libexec/swift/bin/swift"
PACKAGE = ROOT / "ios_bench/BenchKit"
BUILD = ROOT / "tools/build_swift.sh"

# Fewer would mean that whole suites were not found.
LEAST_TESTS = 125

pytestmark = pytest.mark.skipif(not SWIFT.exists(), reason="no Swift; run tools/toolchains/swift.sh")


def test_swift_tests_pass(exported: Exported, capsys: pytest.CaptureFixture[str]) -> None:
    environment = os.environ | {"BLOCKTIME_PTE": str(exported.path)}
    done = subprocess.run(
        [BUILD, "--test"], capture_output=True, text=True, timeout=600, check=False, env=environment
    )
    output = done.stdout + done.stderr
    failures = "\n".join(line for line in output.splitlines() if "✘" in line or "error:" in line)
    assert done.returncode == 0, failures or output[-20_000:]
    assert "skipped" not in output, output[-20_000:]
    counts = [int(count) for count in re.findall(r"Test run with (\d+) tests? passed", output)]
    assert len(counts) == 1, output[-20_000:]
    assert counts[0] >= LEAST_TESTS
    with capsys.disabled():
        print(f" {counts[0]} Swift tests", end="")


def test_agent_is_built_once() -> None:
    agent = ROOT / "build/swift/blocktime-agent"
    subprocess.run([BUILD], timeout=600, check=True)
    before = agent.stat().st_mtime_ns
    subprocess.run([BUILD], timeout=600, check=True)
    assert agent.stat().st_mtime_ns == before


def test_style() -> None:
    command: list[str | Path] = [SWIFT, "format", "lint", "--strict", "--recursive", PACKAGE]
    command += ["--configuration", PACKAGE / ".swift-format"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def on_apple(tmp_path: Path, **environment: str) -> dict[str, Any]:
    """The package as its manifest describes it where it is not Linux."""
    manifest = (PACKAGE / "Package.swift").read_text()
    assert manifest.count("#if os(Linux)") == 1
    (tmp_path / "Package.swift").write_text(manifest.replace("#if os(Linux)", "#if false"))
    described = subprocess.run(
        [SWIFT, "package", "dump-package", "--package-path", tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PATH": f"{SWIFT.parent}:{os.environ['PATH']}", **environment},
        check=False,
    )
    assert described.returncode == 0, described.stderr
    package: dict[str, Any] = json.loads(described.stdout)
    return package


def dependencies(package: dict[str, Any], target: str) -> set[str]:
    """Targets and products that a target of the package needs directly."""
    (found,) = (one for one in package["targets"] if one["name"] == target)
    return {next(iter(needed.values()))[0] for needed in found["dependencies"]}


def test_executorch_is_pinned_by_revision(tmp_path: Path) -> None:
    """Branches move or are missing; the agent reports the release that the revision is of."""
    package = on_apple(tmp_path)
    (pinned,) = (one["sourceControl"][0] for one in package["dependencies"])
    assert pinned["requirement"] == {"revision": ["56cc93a96d5fb8d21554ec5f00fbad5a5b228bc4"]}
    platform = (PACKAGE / "Sources/ExecuTorchRunner/Platform.swift").read_text()
    assert re.findall(r'static let version = "([^"]+)"', platform) == ["1.5.0"]
    assert "executorch" in dependencies(package, "ExecuTorchRunner")
    assert "ExecuTorchRunner" in dependencies(package, "BenchApp")


def test_core_ml_builds_without_executorch(tmp_path: Path) -> None:
    package = on_apple(tmp_path, BLOCKTIME_EXECUTORCH="0")
    assert package["dependencies"] == []
    assert dependencies(package, "BenchApp") == {"AppleSystem", "BenchKit", "CoreMLRunner"}
    assert not [one["name"] for one in package["targets"] if "ExecuTorch" in one["name"]]
    named = re.compile(r"^\s*(import ExecuTorchRunner|.*\bExecuTorchRuntime\()", re.MULTILINE)
    outside = re.compile(r"#if EXECUTORCH\n.*?#endif", re.DOTALL)
    for source in (PACKAGE / "Sources/BenchApp").glob("*.swift"):
        assert not named.search(outside.sub("", source.read_text())), source.name


def test_a_mac_has_an_agent_with_core_ml(tmp_path: Path) -> None:
    package = on_apple(tmp_path, BLOCKTIME_EXECUTORCH="0")
    kinds = {target["name"]: target["type"] for target in package["targets"]}
    assert kinds["blocktime-agent"] == "executable"
    needed = dependencies(package, "blocktime-agent")
    assert {"BenchKit", "CoreMLRunner", "MacProbe"} <= needed <= kinds.keys()


def test_on_a_mac_the_agent_is_built_by_its_own_swift(tmp_path: Path) -> None:
    """With stand-ins for what only a Mac has: the command, and what it leaves for bench to start."""
    for name in ("tools", "ios_bench", "native/include", "native/src", "pyproject.toml"):
        subprocess.run(["cp", "-r", "--parents", name, tmp_path], cwd=ROOT, check=True)
    programs = {
        "uname": "echo Darwin",
        "swift": 'echo "$BLOCKTIME_EXECUTORCH $*" >"$CALLS"; mkdir -p build/swift-package/release; '
        "echo agent >build/swift-package/release/blocktime-agent",
    }
    for name, script in programs.items():
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    search = f"{tmp_path}/bin:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": search, "CALLS": str(tmp_path / "calls")}
    subprocess.run([tmp_path / "tools/build_swift.sh"], env=environment, check=True)
    assert (tmp_path / "build/swift/blocktime-agent").read_text() == "agent\n"
    without_executorch, *words = (tmp_path / "calls").read_text().split()
    assert without_executorch == "0"
    assert words[:3] == ["build", "--configuration", "release"]
    assert words[-2:] == ["--product", "blocktime-agent"]
    assert "BLOCKTIME_AGENT_VERSION" in (tmp_path / "build/swift/agent_version.h").read_text()


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

    def reported() -> str:
        script = tmp_path / "ios_bench/agent_version.sh"
        return subprocess.run([script], capture_output=True, text=True, check=True).stdout.strip()

    first = reported()
    assert re.fullmatch(r"\d+\.\d+\.\d+\+[0-9a-f]{16}", first)
    here = subprocess.run([ROOT / "ios_bench/agent_version.sh"], capture_output=True, text=True, check=True)
    assert here.stdout.strip() == first
    loop = tmp_path / "ios_bench/BenchKit/Sources/BenchKit/Timing/TimingLoop.swift"
    loop.write_text(loop.read_text() + "\n")
    assert reported() != first

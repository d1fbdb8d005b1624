"""The iPhone app as far as it can be checked without a Mac: its settings and its Swift sources."""

from __future__ import annotations

import os
import plistlib
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator.agent.contract import PHONE_PORT
from orchestrator.devices.iphone.state import BUNDLE

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "ios_bench/App"
SOURCES = ROOT / "ios_bench/BenchKit/Sources"
STAND_INS = Path(__file__).parent / "stand_ins"
TOOLCHAIN = ROOT / ".toolchains/swift/usr/libexec/swift/bin"
VIEWS = sorted((APP / "Bench").glob("*.swift"))

needs_swift = pytest.mark.skipif(
    not (TOOLCHAIN / "swiftc").exists(), reason="there is no Swift toolchain; run make toolchains"
)


def test_the_app_is_the_one_that_the_transport_looks_for() -> None:
    settings = dict(re.findall(r"^(\w+) = (.*)$", (APP / "App.xcconfig").read_text(), re.MULTILINE))
    assert settings["PRODUCT_BUNDLE_IDENTIFIER"] == BUNDLE
    assert (APP / settings["INFOPLIST_FILE"]).exists()
    agent = (SOURCES / "BenchApp/PhoneAgent.swift").read_text()
    assert f"port: UInt16 = {PHONE_PORT}\n" in agent
    manifest = (ROOT / "ios_bench/BenchKit/Package.swift").read_text()
    assert f".iOS(.v{settings['IPHONEOS_DEPLOYMENT_TARGET'].removesuffix('.0')})" in manifest


def test_the_version_is_stamped_where_the_app_reads_it(tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    plutil = tmp_path / "plutil"
    plutil.write_text(f'#!/bin/sh\necho "$@" >"{calls}"\n')
    plutil.chmod(0o755)
    paths = {"SRCROOT": str(APP), "TARGET_BUILD_DIR": "/products", "INFOPLIST_PATH": "Bench.app/Info.plist"}
    search = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run([APP / "stamp_version.sh"], check=True, env={**os.environ, **paths, "PATH": search})
    words = calls.read_text().split()
    version = subprocess.run(
        [APP.parent / "agent_version.sh"], check=True, capture_output=True, text=True
    ).stdout
    key = "BlocktimeAgentVersion"
    assert words == ["-replace", key, "-string", version.strip(), "/products/Bench.app/Info.plist"]
    assert key in plistlib.loads((APP / "Info.plist").read_bytes())
    assert f'forInfoDictionaryKey: "{key}"' in (SOURCES / "BenchApp/PhoneAgent.swift").read_text()


def test_export_options_are_a_property_list() -> None:
    assert plistlib.loads((APP / "ExportOptions.plist").read_bytes())["method"] == "debugging"


@needs_swift
def test_sources_are_in_format() -> None:
    configuration = ROOT / "ios_bench/BenchKit/.swift-format"
    files = [*VIEWS, *STAND_INS.glob("*.swift")]
    _swift("swift", "format", "lint", "--strict", "--configuration", configuration, *files)


@needs_swift
def test_views_and_probe_type_check(tmp_path: Path) -> None:
    """Against stand-ins for UIKit, SwiftUI and Darwin whose declarations follow Apple's documentation."""
    modules = tmp_path / "modules"
    modules.mkdir()
    for name in ("BenchKit", "CoreML", "CoreMLRunner", "ExecuTorch", "ExecuTorchRunner"):
        _emit_module(name, sorted((SOURCES / name).rglob("*.swift")), modules)
    # Not before: what is compiled above must see Linux, where there is no Darwin.
    for name, language in (("UIKit", 6), ("SwiftUI", 6), ("Darwin", 5), ("os", 5)):
        _emit_module(name, [STAND_INS / f"{name}.swift"], modules, language=language)
    as_on_ios = []
    for source in sorted((SOURCES / "BenchApp").glob("*.swift")):
        copy = tmp_path / source.name
        copy.write_text(source.read_text().replace("#if os(iOS)", "#if true"))
        as_on_ios.append(copy)
    _emit_module("BenchApp", as_on_ios, modules, skip_bodies=False)
    _emit_module("Bench", VIEWS, modules, skip_bodies=False)


def _emit_module(
    name: str, sources: Sequence[Path], modules: Path, language: int = 6, skip_bodies: bool = True
) -> None:
    assert sources
    bodies = ["-Xfrontend", "-experimental-skip-all-function-bodies"] if skip_bodies else []
    _swift(
        "swiftc",
        *("-emit-module", "-emit-module-path", modules / f"{name}.swiftmodule", "-module-name", name),
        *(
            "-parse-as-library",
            "-swift-version",
            language,
            "-package-name",
            "benchkit",
            "-warnings-as-errors",
        ),
        *("-I", modules, "-I", SOURCES / "CETShim"),
        *bodies,
        *sources,
    )


def _swift(program: str, *arguments: object) -> None:
    environment = {**os.environ, "PATH": f"{TOOLCHAIN}:{os.environ['PATH']}"}
    command = [TOOLCHAIN / program, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr

"""The iPhone app as far as it can be checked without a Mac: its settings and its Swift sources."""

from __future__ import annotations

import json
import os
import plistlib
import re
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.agent.agent import PHONE_PORT
from orchestrator.devices.iphone.state import BUNDLE_PREFIX, is_bench_app

ROOT = Path(__file__).resolve().parents[2]
APP = ROOT / "ios_bench/App"
SOURCES = ROOT / "ios_bench/BenchKit/Sources"
TOOLCHAIN = ROOT / ".toolchains/swift/usr/libexec/swift/bin"

needs_swift = pytest.mark.skipif(
    not (TOOLCHAIN / "swiftc").exists(), reason="there is no Swift toolchain; run make toolchains"
)


def test_the_app_is_the_one_that_the_transport_looks_for() -> None:
    settings = dict(re.findall(r"^(\w+) = (.*)$", (APP / "App.xcconfig").read_text(), re.MULTILINE))
    prefix, team = settings["PRODUCT_BUNDLE_IDENTIFIER"].rsplit(".", 1)
    assert (prefix, team) == (BUNDLE_PREFIX, "$(DEVELOPMENT_TEAM:default=unsigned)")
    assert is_bench_app(f"{prefix}.ABCDE12345")
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


def test_the_icon_is_the_android_apps() -> None:
    """One opaque picture of 1024 px, which Xcode scales (since 14), and the name by which it is found."""
    settings = dict(re.findall(r"^(\w+) = (.*)$", (APP / "App.xcconfig").read_text(), re.MULTILINE))
    icons = APP / f"Bench/Assets.xcassets/{settings['ASSETCATALOG_COMPILER_APPICON_NAME']}.appiconset"
    (image,) = json.loads((icons / "Contents.json").read_text())["images"]
    assert (image["idiom"], image["platform"], image["size"]) == ("universal", "ios", "1024x1024")
    android = ROOT / "android_bench/app/src/main/res"
    names = ("drawable/ic_launcher_foreground.xml", "values/colors.xml")
    colours = re.findall(r"#FF(\w{6})", "".join((android / name).read_text() for name in names))
    with Image.open(icons / image["filename"]) as icon:
        assert (icon.format, icon.mode, icon.size) == ("PNG", "RGB", (1024, 1024))
        drawn = {"".join(f"{part:02X}" for part in colour) for _, colour in icon.getcolors()}
    assert drawn == set(colours)


@needs_swift
def test_sources_are_in_format() -> None:
    configuration = ROOT / "ios_bench/BenchKit/.swift-format"
    folders = (APP / "Bench", APP / "BenchTests", ROOT / "ios_bench/typecheck")
    _swift("swift", "format", "lint", "--strict", "--recursive", "--configuration", configuration, *folders)


@pytest.fixture(scope="module")
def modules() -> Path:
    """The compiled package and declarations of what is Apple's alone; the app was checked against them."""
    checked = subprocess.run([ROOT / "tools/check_ios.sh"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    return ROOT / "build/ios/modules"


@needs_swift
def test_views_probe_and_the_farms_test_type_check(modules: Path) -> None:
    assert {"AppleSystem", "BenchApp", "Bench", "BenchTests", "MacProbe", "Agent"} <= {
        path.stem for path in (modules.parent / "checked").iterdir()
    }


@needs_swift
def test_type_check_knows_what_the_phone_lacks(modules: Path, tmp_path: Path) -> None:
    """A check that accepts all would not be one."""
    source = tmp_path / "Wrong.swift"
    source.write_text(
        "import UIKit\n"
        "@MainActor func known() -> Float { UIDevice.current.batteryLevel }\n"
        "@MainActor func unknown() -> Float { UIDevice.current.temperature }\n"
        "@MainActor func argument() { UIApplication.shared.isIdleTimerDisabled = 1 }\n"
    )
    with pytest.raises(AssertionError) as reported:
        _swift("swiftc", "-typecheck", "-parse-as-library", "-swift-version", 6, "-I", modules, source)
    assert sorted(set(re.findall(r"Wrong\.swift:(\d+):\d+: error", str(reported.value)))) == ["3", "4"]


def _swift(program: str, *arguments: object) -> None:
    environment = {**os.environ, "PATH": f"{TOOLCHAIN}:{os.environ['PATH']}"}
    command = [str(TOOLCHAIN / program), *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr

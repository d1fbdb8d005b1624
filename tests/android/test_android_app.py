"""The Android app as far as it can be checked without an SDK: types, packaging, what it shares with others."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any, get_args

import pytest

from orchestrator.agent.agent import PHONE_PORT
from orchestrator.devices.android.app import PACKAGE
from orchestrator.wire.messages import Caveat

ROOT = Path(__file__).parents[2]
BENCH = ROOT / "android_bench"
BUILT = ROOT / "build/android"
KOTLIN = ROOT / ".toolchains/kotlin"
ANDROID = "{http://schemas.android.com/apk/res/android}"


@pytest.fixture(scope="module")
def checked() -> subprocess.CompletedProcess[str]:
    """The check's own account; its reports are in build/android/report."""
    for tool, script in (("kotlin/kotlinc", "kotlin"), ("android_api/framework-res.apk", "android_api")):
        if not (ROOT / ".toolchains" / tool).exists():
            pytest.skip(f"no {tool}: run tools/toolchains/{script}.sh")
    missing = [
        tool for tool in ("java", "aapt", "zipalign", "apksigner", "dexdump") if not shutil.which(tool)
    ]
    if missing:
        pytest.skip(f"{missing[0]} is not installed: run tools/toolchains/android_api.sh")
    return subprocess.run([ROOT / "tools/check_android.sh"], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def report(checked: subprocess.CompletedProcess[str]) -> Path:
    assert (BUILT / ".blocktime-unrunnable.apk.inputs").exists(), checked.stderr
    return BUILT / "report"


@pytest.fixture(scope="module")
def versions() -> dict[str, str]:
    catalog: dict[str, Any] = tomllib.loads((BENCH / "gradle/libs.versions.toml").read_text())
    return catalog["versions"]


@pytest.fixture(scope="module")
def manifest() -> ET.Element:
    return ET.parse(BENCH / "app/src/main/AndroidManifest.xml").getroot()


def test_types_packaging_and_style(checked: subprocess.CompletedProcess[str]) -> None:
    assert checked.returncode == 0, checked.stderr


def test_type_check_knows_what_android_lacks(report: Path, tmp_path: Path) -> None:
    """A check that accepts all would not be one: unknown members, Java classes outside of Android."""
    source = tmp_path / "Wrong.kt"
    source.write_text(
        "fun known(power: android.os.PowerManager) = power.getThermalHeadroom(0) + power.currentThermalStatus\n"
        "fun unknown(power: android.os.PowerManager) = power.thermalTemperature\n"
        "fun argument(power: android.os.PowerManager) = power.getThermalHeadroom(0.5)\n"
        "fun outside() = ProcessHandle.current().pid()\n"
        "fun hidden() = android.os.PowerManager()\n"
    )
    compiled = subprocess.run(
        [KOTLIN / "kotlinc", "-no-jdk", "-cp", BUILT / "work/android.jar", "-d", tmp_path / "out", source],
        capture_output=True,
        text=True,
        check=False,
    )
    errors = re.findall(r"Wrong\.kt:(\d+):\d+: error", compiled.stderr)
    assert sorted(set(errors)) == ["2", "3", "4", "5"], compiled.stderr


def test_package_is_what_the_orchestrator_looks_for(report: Path, versions: dict[str, str]) -> None:
    badging = (report / "badging.txt").read_text()
    name, code, version = re.search(
        r"^package: name='(.*?)' versionCode='(.*?)' versionName='(.*?)'", badging, re.MULTILINE
    ).groups()
    assert (name, code, version) == (PACKAGE, versions["appCode"], versions["appName"])
    assert f"sdkVersion:'{versions['minSdk']}'" in badging
    assert f"targetSdkVersion:'{versions['targetSdk']}'" in badging
    assert re.findall(r"^launchable-activity: name='(.*?)'", badging, re.MULTILINE) == [
        f"{PACKAGE}.MainActivity"
    ]


def test_app_asks_for_no_more_than_it_needs(report: Path) -> None:
    permissions = re.findall(
        r"^uses-permission: name='(.*)'$", (report / "badging.txt").read_text(), re.MULTILINE
    )
    assert sorted(name.removeprefix("android.permission.") for name in permissions) == [
        "FOREGROUND_SERVICE",
        "FOREGROUND_SERVICE_SPECIAL_USE",
        "INTERNET",
        "POST_NOTIFICATIONS",
    ]


def test_only_the_launcher_and_the_shell_get_in(manifest: ET.Element) -> None:
    application = manifest.find("application")
    assert application.get(f"{ANDROID}allowBackup") == "false"
    components = [
        part for tag in ("activity", "service", "receiver", "provider") for part in application.iter(tag)
    ]
    exported = {
        part.get(f"{ANDROID}name"): part.get(f"{ANDROID}permission")
        for part in components
        if part.get(f"{ANDROID}exported") != "false"
    }
    assert exported == {".MainActivity": None, ".ControlProvider": "android.permission.DUMP"}


def test_service_has_a_type_without_a_time_limit(manifest: ET.Element) -> None:
    service = manifest.find("application/service")
    assert service.get(f"{ANDROID}foregroundServiceType") == "specialUse"
    subtype = service.find("property")
    assert subtype.get(f"{ANDROID}name") == "android.app.PROPERTY_SPECIAL_USE_FGS_SUBTYPE"
    assert subtype.get(f"{ANDROID}value")


def test_apk_is_signed_and_holds_the_projects_classes_and_kotlins_library(report: Path) -> None:
    assert (report / "signature.txt").read_text().splitlines()[0] == "Verifies"
    classes = set((report / "classes.txt").read_text().split())
    assert {
        "Ldev/blocktime/bench/MainActivity;",
        "Ldev/blocktime/bench/AgentService;",
        "Ldev/blocktime/bench/ControlProvider;",
        "Ldev/blocktime/bench/AndroidProbe;",
        "Ldev/blocktime/core/agent/AgentServer;",
        "Ldev/blocktime/executorch/ExecutorchRuntime;",
    } <= classes
    assert {"Lkotlin/Unit;", "Lkotlin/jvm/internal/Intrinsics;", "Lkotlin/text/Regex;"} <= classes
    assert not [name for name in classes if not name.startswith(("Ldev/blocktime/", "Lkotlin/"))]


def test_every_component_of_the_manifest_exists(report: Path, manifest: ET.Element) -> None:
    classes = set((report / "classes.txt").read_text().split())
    application = manifest.find("application")
    named = [
        application,
        *(part for tag in ("activity", "service", "provider") for part in application.iter(tag)),
    ]
    names = [part.get(f"{ANDROID}name").removeprefix(".") for part in named]
    assert len(names) == 4
    assert {f"Ldev/blocktime/bench/{name};" for name in names} <= classes


def test_device_farms_find_the_instrumentation(report: Path, manifest: ET.Element) -> None:
    instrumentation = manifest.find("instrumentation")
    assert instrumentation.get(f"{ANDROID}targetPackage") == PACKAGE
    name = instrumentation.get(f"{ANDROID}name").removeprefix(".")
    assert f"Ldev/blocktime/bench/{name};" in (report / "classes.txt").read_text().split()
    assert (
        f"am instrument -w -r -e bundle FILE {PACKAGE}/.{name}"
        in (BENCH / f"app/src/main/kotlin/dev/blocktime/bench/{name}.kt").read_text()
    )
    gradle = (BENCH / "app/build.gradle.kts").read_text()
    assert f'testInstrumentationRunner = "{PACKAGE}.{name}"' in gradle, "of the APK of tests"
    assert 'testBuildType = "release"' in gradle, "a debuggable build is not measured"


def test_app_and_orchestrator_agree(manifest: ET.Element) -> None:
    core = BENCH / "core/src/main/kotlin/dev/blocktime/core"
    app = BENCH / "app/src/main/kotlin/dev/blocktime/bench"
    assert f"const val PHONE_PORT = {PHONE_PORT}" in (core / "agent/AgentConfig.kt").read_text()
    assert manifest.find("application/provider").get(f"{ANDROID}authorities") == f"{PACKAGE}.control"
    assert 'EXTRA_BUNDLE = "bundle"' in (app / "MainActivity.kt").read_text()
    assert 'EXTRA_ALLOW = "allow"' in (app / "MainActivity.kt").read_text()
    caveats = re.findall(
        r'^    [A-Z_]+\("([a-z_]+)", "', (core / "device/Readiness.kt").read_text(), re.MULTILINE
    )
    assert tuple(caveats) == get_args(Caveat)


def test_shell_may_profile_the_release_build(report: Path, manifest: ET.Element) -> None:
    assert manifest.find("application/profileable").get(f"{ANDROID}shell") == "true"
    assert "E: profileable" in (report / "manifest.txt").read_text()


def test_screen_is_dark_while_models_are_measured() -> None:
    activity = (BENCH / "app/src/main/kotlin/dev/blocktime/bench/MainActivity.kt").read_text()
    assert "dim(status.connected || bench.bundles.isRunning)" in activity
    assert 0 < float(re.search(r"DARKEST = ([\d.]+)f", activity)[1]) < 0.1


def test_a_refused_start_of_the_service_does_not_crash_the_app() -> None:
    """ForegroundServiceStartNotAllowedException, of Android 12 and later, is an IllegalStateException."""
    for path in _kotlin("app"):
        lines = path.read_text().splitlines()
        for number, line in enumerate(lines):
            if re.search(r"\bstartForeground(Service)?\(", line):
                before, after = "\n".join(lines[:number]), "\n".join(lines[number:])
                assert before.rfind("try {") > max(before.rfind("fun "), before.rfind("} catch")), path
                assert after.index("catch (error: IllegalStateException)") < after.index("\n    }\n"), path


def test_garbage_is_collected_before_rounds_and_not_in_them() -> None:
    """Android's System.gc() collects only after finalizers ran (libcore, System.java); Runtime.gc() always does."""
    sources = [path.read_text() for part in ("core", "executorch", "app", "jvm") for path in _kotlin(part)]
    assert len(sources) > 60
    assert not [line for text in sources for line in text.splitlines() if "System.gc" in line]
    loop = (BENCH / "core/src/main/kotlin/dev/blocktime/core/timing/TimingLoop.kt").read_text()
    assert loop.index("Runtime.getRuntime().gc()") < loop.index("repeat(warmup)")


def test_core_is_compiled_against_java_8(checked: subprocess.CompletedProcess[str], tmp_path: Path) -> None:
    """Gradle builds :core as a JVM library, against whatever JDK there is; Android lacks what came after Java 8."""
    build = (ROOT / "tools/build_kotlin.sh").read_text()
    option = re.search(r"^module core .* -- (-Xjdk-release=\S+)$", build, re.MULTILINE)[1]
    assert f'freeCompilerArgs.add("{option}")' in (BENCH / "core/build.gradle.kts").read_text()
    source = tmp_path / "Newer.kt"
    source.write_text("fun all(stream: java.io.InputStream) = stream.readAllBytes()\n")
    command = [KOTLIN / "kotlinc", "-jvm-target", "1.8", option, "-d", tmp_path / "out", source]
    compiled = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compiled.returncode != 0
    assert "readAllBytes" in compiled.stderr


def _kotlin(part: str) -> list[Path]:
    return sorted((BENCH / part / "src/main").rglob("*.kt"))


def test_versions_are_those_of_the_project(versions: dict[str, str]) -> None:
    """The library that runs a model is that which exported it; what is checked here is what Gradle builds with."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert versions["appName"] == project["version"]
    assert f"executorch=={versions['executorch']}" in project["dependencies"]
    assert f"kotlin-compiler@{versions['kotlin']}" in (ROOT / "tools/toolchains/kotlin.sh").read_text()

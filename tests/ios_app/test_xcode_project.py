"""The Xcode project of the iPhone app holds together: nobody here can open it in Xcode."""

from __future__ import annotations

import os
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from openstep_parser import OpenStepDecoder
from pbxproj import XcodeProject

APP = Path(__file__).resolve().parents[2] / "ios_bench/App"
PROJECT = APP / "Bench.xcodeproj/project.pbxproj"

_TOKEN = re.compile(
    r"""\s+ | //[^\n]* | /\*.*?\*/ | (?P<text>"(?:\\.|[^"\\])*" | [A-Za-z0-9_.$/:<>-]+) | (?P<mark>[{}()=;,])""",
    re.VERBOSE | re.DOTALL,
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return read_project(PROJECT)


def test_every_object_of_the_project_is_there_and_used(project: dict[str, Any]) -> None:
    assert problems(project) == []
    assert project["objectVersion"] == "77"
    kinds = {value["isa"] for value in project["objects"].values()}
    assert {"PBXProject", "PBXNativeTarget", "XCLocalSwiftPackageReference"} <= kinds


def test_another_parser_reads_the_same_and_would_write_the_same(
    project: dict[str, Any], tmp_path: Path
) -> None:
    """The file is as a tool that edits Xcode's projects leaves it: sections, order, comments; not line breaks."""
    assert OpenStepDecoder.ParseFromString(PROJECT.read_text()) == project
    other = XcodeProject.load(PROJECT)
    assert [target.name for target in other.objects.get_targets()] == ["Bench", "BenchTests"]
    other.save(tmp_path / "project.pbxproj")
    written = (tmp_path / "project.pbxproj").read_text()
    assert "".join(written.split()) == "".join(PROJECT.read_text().split())


def test_what_the_project_names_exists(project: dict[str, Any]) -> None:
    (package,) = of_kind(project, "XCLocalSwiftPackageReference")
    manifest = (APP / package["relativePath"] / "Package.swift").read_text()
    (product,) = of_kind(project, "XCSwiftPackageProductDependency")
    library = re.search(rf'\.library\(name: "{product["productName"]}", targets: \[(.*?)\]\)', manifest)
    assert library
    assert {'"BenchApp"', '"BenchKit"'} <= set(library[1].split(", "))
    files = of_kind(project, "PBXFileReference") + of_kind(project, "PBXFileSystemSynchronizedRootGroup")
    missing = [
        one["path"] for one in files if one["sourceTree"] == "<group>" and not (APP / one["path"]).exists()
    ]
    assert missing == []
    (script,) = of_kind(project, "PBXShellScriptBuildPhase")
    assert script["shellScript"] == '"$SRCROOT/stamp_version.sh"\n'
    assert os.access(APP / "stamp_version.sh", os.X_OK)


def test_both_configurations_take_their_settings_from_the_file(project: dict[str, Any]) -> None:
    (root,) = of_kind(project, "PBXProject")
    for owner in (*of_kind(project, "PBXNativeTarget"), root):
        lists = project["objects"][owner["buildConfigurationList"]]["buildConfigurations"]
        assert [project["objects"][one]["name"] for one in lists] == ["Debug", "Release"]
    bases = [
        project["objects"][one["baseConfigurationReference"]]["path"]
        for one in of_kind(project, "XCBuildConfiguration")
        if "baseConfigurationReference" in one
    ]
    assert sorted(bases) == ["App.xcconfig"] * 2 + ["Tests.xcconfig"] * 2
    assert of_kind(project, "XCConfigurationList")[0]["defaultConfigurationName"] == "Release"


def test_the_scheme_builds_the_target_and_runs_it_as_it_is_measured(project: dict[str, Any]) -> None:
    scheme = ET.parse(APP / "Bench.xcodeproj/xcshareddata/xcschemes/Bench.xcscheme").getroot()
    names = {one.get("BlueprintIdentifier") for one in scheme.iter("BuildableReference")}
    assert {project["objects"][name]["isa"] for name in names} == {"PBXNativeTarget"}
    launch = scheme.find("LaunchAction")
    assert launch is not None
    assert launch.get("buildConfiguration") == "Release"
    assert launch.get("selectedDebuggerIdentifier") == ""


def test_the_scheme_tests_what_is_hosted_in_the_app(project: dict[str, Any]) -> None:
    """A test that linked the app's code again would have an agent of its own, and no port for it."""
    scheme = ET.parse(APP / "Bench.xcodeproj/xcshareddata/xcschemes/Bench.xcscheme").getroot()
    (reference,) = scheme.findall("TestAction/Testables/TestableReference/BuildableReference")
    tests = project["objects"][reference.get("BlueprintIdentifier")]
    assert tests["productType"] == "com.apple.product-type.bundle.unit-test"
    (needed,) = (project["objects"][one]["target"] for one in tests["dependencies"])
    assert project["objects"][needed]["name"] == "Bench"
    assert "packageProductDependencies" not in tests
    settings = dict(re.findall(r"^(\w+) = (.*)$", (APP / "Tests.xcconfig").read_text(), re.MULTILINE))
    product = project["objects"][project["objects"][needed]["productReference"]]["path"]
    assert settings["TEST_HOST"] == f"$(BUILT_PRODUCTS_DIR)/{product}/Bench"
    assert settings["BUNDLE_LOADER"] == "$(TEST_HOST)"
    assert scheme.find("TestAction").get("buildConfiguration") == "Release"
    settings = dict(re.findall(r"^(\w+) = (.*)$", (APP / "App.xcconfig").read_text(), re.MULTILINE))
    assert settings["ENABLE_TESTABILITY"] == "YES"


def read_project(path: Path) -> dict[str, Any]:
    """Xcode's old-style (OpenStep) property list; raises ValueError where it is not one."""
    text = path.read_text()
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"unexpected {text[at : at + 20]!r}")
        at = found.end()
        if found.lastgroup:
            tokens.append((found.lastgroup, found.group()))
    value, rest = _value(tokens)
    if rest or not isinstance(value, dict):
        raise ValueError("it is not a single dictionary")
    return value


def problems(project: dict[str, Any]) -> list[str]:
    """References to objects that are not there, and objects that nothing refers to."""
    objects = project["objects"]
    identifiers = {text for value in objects.values() for text in _texts(value) if _is_identifier(text)}
    missing = sorted(identifiers - objects.keys())
    unused = sorted(objects.keys() - identifiers - {project["rootObject"]})
    return [f"{one} is missing" for one in missing] + [f"{one} is unused" for one in unused]


def of_kind(project: dict[str, Any], isa: str) -> list[dict[str, Any]]:
    return [value for value in project["objects"].values() if value["isa"] == isa]


def _value(tokens: list[tuple[str, str]]) -> tuple[Any, list[tuple[str, str]]]:
    kind, text = tokens[0] if tokens else ("mark", "the end")
    if kind == "text":
        return _unquoted(text), tokens[1:]
    rest = tokens[1:]
    if text == "{":
        pairs: dict[str, Any] = {}
        while rest and rest[0] != ("mark", "}"):
            key, rest = _value(rest)
            if key in pairs or rest[:1] != [("mark", "=")]:
                raise ValueError(f"key {key} is there twice or has no value")
            pairs[key], rest = _value(rest[1:])
            if rest[:1] != [("mark", ";")]:
                raise ValueError(f"no ; behind {key}")
            rest = rest[1:]
        return pairs, rest[1:]
    if text == "(":
        items: list[Any] = []
        while rest and rest[0] != ("mark", ")"):
            item, rest = _value(rest)
            items.append(item)
            if rest[:1] == [("mark", ",")]:
                rest = rest[1:]
        return items, rest[1:]
    raise ValueError(f"unexpected {text}")


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return re.sub(r"\\(.)", lambda found: {"n": "\n", "t": "\t"}.get(found[1], found[1]), text[1:-1])


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in [key, *_texts(item)]]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value]


def _is_identifier(text: str) -> bool:
    return re.fullmatch(r"[0-9A-F]{24}", text) is not None

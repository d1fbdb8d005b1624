"""How the Gradle wrapper is made: with any Gradle, or with none and a download that is checked."""

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "android_bench"
PROPERTIES = "gradle/wrapper/gradle-wrapper.properties"
GRADLE = '#!/bin/sh\necho "$@" > "$CALLED"\n'
CURL = '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\ncp "$SERVED" "$2"\necho "$3" > "$FETCHED"\n'


@pytest.fixture
def place(tmp_path):
    """A copy of what makes the wrapper, and programs of the test's own before this machine's."""
    bench = tmp_path / "bench"
    shutil.copytree(BENCH / "wrapper", bench / "wrapper")
    (bench / "gradle/wrapper").mkdir(parents=True)
    shutil.copy(BENCH / PROPERTIES, bench / PROPERTIES)
    shutil.copy(BENCH / "make_wrapper.sh", bench)
    (tmp_path / "bin").mkdir()
    program(tmp_path, "curl", CURL)
    with zipfile.ZipFile(tmp_path / "served.zip", "w") as archive:
        entry = zipfile.ZipInfo("gradle-9.5.0/bin/gradle")
        entry.create_system, entry.external_attr = 3, 0o100755 << 16
        archive.writestr(entry, GRADLE)
    return tmp_path


def program(place, name, text):
    path = place / "bin" / name
    path.write_text(text)
    path.chmod(0o755)


def make(place):
    own = {
        "PATH": f"{place / 'bin'}:/usr/bin:/bin",
        "CALLED": str(place / "called"),
        "SERVED": str(place / "served.zip"),
        "FETCHED": str(place / "fetched"),
    }
    command = ["sh", place / "bench/make_wrapper.sh", "--download"]
    if (place / "bin/gradle").exists():
        command.pop()
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)


def test_any_gradle_that_is_installed_makes_it(place):
    program(place, "gradle", GRADLE)
    assert make(place).returncode == 0
    assert (place / "called").read_text() == "-p wrapper wrapper\n"
    assert not (place / "fetched").exists()


def test_without_a_gradle_the_wrappers_own_makes_it(place):
    sha256 = hashlib.sha256((place / "served.zip").read_bytes()).hexdigest()
    properties = place / "bench" / PROPERTIES
    properties.write_text(re.sub("Sha256Sum=.*", f"Sha256Sum={sha256}", properties.read_text()))
    done = make(place)
    assert done.returncode == 0, done.stderr
    assert (place / "called").read_text() == "-p wrapper wrapper\n"
    url = "https://services.gradle.org/distributions/gradle-9.5.0-bin.zip\n"
    assert (place / "fetched").read_text() == url


def test_another_file_than_the_expected_one_is_not_run(place):
    done = make(place)
    assert done.returncode == 1
    assert "has the sha256" in done.stderr
    assert not (place / "called").exists()


def test_the_build_that_makes_it_has_no_plugins():
    text = (BENCH / "wrapper/build.gradle").read_text()
    assert not re.search(r"^\s*(plugins|apply|buildscript|id )", text, re.MULTILINE)
    assert "wanted.distributionSha256Sum" in text


def test_androidx_is_used():
    assert "android.useAndroidX=true" in (BENCH / "gradle.properties").read_text().splitlines()

"""The scripts of toolchains wait while another program holds apt's locks."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

import pytest

TOOLCHAINS = Path(__file__).resolve().parents[3] / "tools/toolchains"

CONF = """Dir::Etc "{0}/etc"; Dir::State "{0}/state"; Dir::State::status "{0}/status"; Dir::Cache "{0}/cache";
APT::Sandbox::User "";
"""


@pytest.fixture
def apt_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private state of the real apt-get, without package sources."""
    if shutil.which("apt-get") is None:
        pytest.skip("apt-get is not installed")
    for folder in ("etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d", "state/lists/partial"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "cache/archives/partial").mkdir(parents=True)
    for file in ("status", "etc/sources.list"):
        (tmp_path / file).touch()
    (tmp_path / "apt.conf").write_text(CONF.format(tmp_path))
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))
    return tmp_path


def test_apt_is_asked_again_while_the_package_lists_are_locked(apt_root: Path) -> None:
    """`sleep` is replaced: it reports that apt was refused, and ends when this test has released the lock."""
    script = f". {TOOLCHAINS}/apt.sh; sleep() {{ echo refused; read -r; }}; apt_get update && echo updated"
    with (apt_root / "state/lists/lock").open("w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        waiting = subprocess.Popen(
            ["bash", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stdout.readline() == "refused\n"
    output, errors = waiting.communicate("\n", timeout=60)
    assert (output, waiting.returncode) == ("updated\n", 0)
    assert errors == "waiting for another program that uses apt\n"


def test_other_errors_of_apt_are_shown_at_once(apt_root: Path) -> None:
    script = f". {TOOLCHAINS}/apt.sh; sleep() {{ echo refused; }}; apt_get install --yes no-such-package"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no-such-package" in done.stderr


def test_every_script_calls_apt_that_way() -> None:
    for script in TOOLCHAINS.glob("*.sh"):
        text = script.read_text()
        assert re.findall(r"^ *apt-get .*|(?:&& |; |! )apt-get .*", text, re.MULTILINE) == [], script.name
        assert "apt_get " not in text or "apt.sh" in text, script.name

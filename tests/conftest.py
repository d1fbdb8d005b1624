"""Models that are exported once for all tests, and the order of the files.

Each of xdist's workers, and each process that a test starts, computes with one thread: with more they would wait
for each other's cores.
"""

import gc
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.order import longest_first
from tests.support.tiny_model import Exported, export_tiny

os.environ.setdefault("OMP_NUM_THREADS", "1")
for _name in [name for name in os.environ if name.startswith("BLOCKTIME_")]:
    if _name not in ("BLOCKTIME_SHARED_DATA", "BLOCKTIME_EXECUTORCH"):  # what there is to test with
        del os.environ[_name]
# A background job ignores Ctrl-C, and so would every program that a test starts and interrupts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = longest_first(items, lambda item: item.nodeid.partition("::")[0])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """Close with how many tests were skipped, by reason, so that a missing toolchain is noticed."""
    yield
    skipped = terminalreporter.getreports("skipped")
    reasons = Counter(report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    if reasons:
        text = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"skipped {reasons.total()} tests ({text})", yellow=True)


@pytest.fixture(scope="session", autouse=True)
def _nothing_of_the_users(tmp_path_factory: pytest.TempPathFactory, export_cache: Path) -> Iterator[None]:
    """What the user has set, measured and exported changes no test, and no test adds to it.

    Each of xdist's workers measures on this machine as if it were alone: no test tells how long things take.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BLOCKTIME_LOCKS", str(tmp_path_factory.mktemp("locks")))
        patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        patch.setenv("BLOCKTIME_CACHE", str(export_cache))
        patch.setenv("ANDROID_ADB_SERVER_PORT", "1")  # where no adb server answers, nor can be started
        patch.setenv("ADBUTILS_ADB_PATH", "/nonexistent/adb")
        yield


@pytest.fixture(scope="module", autouse=True)
def _plugins_of_studies_stay_there(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hide the plug-ins that studies load on import from the processes that other tests start."""
    with pytest.MonkeyPatch.context() as patch:
        if "tools" not in request.node.nodeid and "stud" not in request.node.nodeid:
            patch.delenv("BLOCKTIME_IMPORT", raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def _collected_quickly() -> None:
    """What earlier modules left is not looked through again before every run that is timed (`time_schedule`).

    A worker that has imported the exporter has half a million objects: a third of a second a run.
    """
    gc.freeze()


@pytest.fixture(scope="session")
def export_cache(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache of exported models for all tests, all of xdist's workers and all runs from the same sources.

    Its keys cover the sources and libraries that decide the bytes, and every read checks them; a fresh clone, and
    `--cache-clear`, export again; so does each run without pytest's cache.
    """
    cache = getattr(pytestconfig, "cache", None)
    return tmp_path_factory.mktemp("exports") if cache is None else cache.mkdir("exports")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """A small model for agents to run."""
    return export_tiny(tmp_path_factory.mktemp("model"))

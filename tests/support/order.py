"""The order in which files of tests are handed to the workers: the longest first, so that none ends alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

LONGEST_FIRST = (
    "tests/integration/test_readme.py",
    "tests/swift/test_swift_suite.py",
    "tests/agents/test_kotlin_suite.py",
    "tests/integration/test_export_coreml.py",
    "tests/integration/test_export_executorch.py",
    "tests/agents/test_host_profile.py",
    "tests/agents/test_conformance.py",
    "tests/agents/test_deadly_models.py",
    "tests/agents/test_agent_programs.py",
    "tests/agents/test_heartbeat.py",
    "tests/agents/test_strangers.py",
    "tests/agents/test_agent_models.py",
    "tests/native/test_installed_package.py",
    "tests/integration/test_main_job.py",
    "tests/integration/test_search_command.py",
    "tests/integration/test_distributed_training.py",
    "tests/integration/test_breakdown_command.py",
    "tests/phones/android/test_android_profile.py",
    "tests/integration/test_search_pool.py",
    "tests/integration/test_compare.py",
    "tests/integration/test_trained_weights.py",
)
"""One worker takes README's while the other builds the agents, which no two should do at once."""


def longest_first(tests: Iterable[T], file_of: Callable[[T], str]) -> list[T]:
    """The tests of `LONGEST_FIRST` before all others; what shares a file stays together and as it was."""
    places = {name: place for place, name in enumerate(LONGEST_FIRST)}
    return sorted(tests, key=lambda test: places.get(file_of(test), len(places)))

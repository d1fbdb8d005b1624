"""Published networks measured side by side, beside the figures of their papers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from luts.format.errors import UsageError
from orchestrator.suites import Suite, load_suite
from orchestrator.suites.suite import Comparison, Measured, compare
from orchestrator.tasks.measured import Setup, measured_networks, setup_of
from orchestrator.tasks.models import Lowered, check_any_left, files_that_can_be
from orchestrator.tasks.networks import Network, count_networks, named_network, spec_of
from orchestrator.tasks.progress import Progress, silent
from orchestrator.tasks.side_by_side import measure_what_can_be
from orchestrator.tasks.target import Target


@dataclass(frozen=True)
class MeasuredSuite:
    """A suite's measurements beside the published figures; `folder` is the run's."""

    name: str
    suite: Suite
    setup: Setup
    comparison: Comparison
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"suite": self.name} | self.setup.to_dict() | self.comparison.to_dict()


def run_suite(
    name: str,
    target: Target | str,
    *,
    budget_s: float = 120.0,
    seed: int = 0,
    self_test: bool = True,
    workers: int | None = None,
    progress: Progress = silent,
) -> MeasuredSuite:
    """Measure a suite's networks, and put them beside what is published; what can't be measured says why.

    The arguments and errors are those of `measure_networks`; that a network can't be exported or run is not one.
    """
    target = Target.of(target)
    variant = target.variant
    suite = load_suite(name)
    networks, absent = _networks(suite)
    specs = {model: spec_of(network, variant) for model, network in networks.items()}
    with target.found() as device:
        files, artifacts, unexported = files_that_can_be(variant, specs, workers, progress)
        check_any_left(variant, files, unexported)
        variant = target.variant_on(device)
        together = measure_what_can_be(
            device, variant, files, budget_s=budget_s, seed=seed, self_test=self_test, progress=progress
        )
    together.run.finish("measured")
    counts = count_networks(networks, specs, progress)
    lowerings = {model: Lowered.of(artifact) for model, artifact in artifacts.items()}
    measured = {
        model: Measured(row.ms, row.ci_low, row.ci_high, row.percentiles, row.delegates, row.outside)
        for model, row in measured_networks(files, together, counts, lowerings).items()
    }
    failures = absent | unexported | dict(together.failures)
    comparison = compare(suite.networks, counts, measured, failures)
    setup = setup_of(together.measurement, variant)
    return MeasuredSuite(name, suite, setup, comparison, together.run.folder)


def _networks(suite: Suite) -> tuple[dict[str, Network], dict[str, str]]:
    """The suite's networks, the reference first, and reasons for those that nothing here is called."""
    networks, absent = {}, {}
    for entry in suite.in_order:
        try:
            networks[entry.model] = named_network(entry.model)
        except UsageError as error:
            absent[entry.model] = str(error)
    return networks, absent

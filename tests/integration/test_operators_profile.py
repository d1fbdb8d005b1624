"""A table of operators end to end: programs exported, listed and measured, by a computer and from a bundle.

The programs of a whole table are in `make slow`, since exporting them takes a quarter of an hour.
"""

import json
from pathlib import Path

import pytest

from luts.format.errors import UsageError
from luts.format.lut import Lut
from luts.format.operators import OPERATORS, parse_operator
from luts.format.store import LutStore
from luts.verify import verify_lut
from orchestrator.export import ExportFailure, ExportSpec, export_each
from orchestrator.export.artifacts.artifact import Artifact, ArtifactCache
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.operators import read_operators
from orchestrator.plan.operators import designed_programs, plan_operators
from orchestrator.tasks import exported_plan
from orchestrator.tasks.bundle import BundleCommand, ImportCommand, bundle, import_journals
from orchestrator.tasks.models import export_possible
from orchestrator.tasks.plan import PlanOptions, ProfileCommand
from orchestrator.tasks.profile import _programs_to_trace, profile
from orchestrator.tasks.target import Target
from search.spaces.scope import covered_space
from tests.support.bundle_world import POLICY, run
from tests.support.errors import raises
from tests.support.slow import mostly_slow

SMALL = PlanOptions(design=3, models=4)
KEPT = ["chain:attention-0", "portable:roll-0", "portable:variance-0"]


@pytest.fixture
def store(tmp_path, monkeypatch) -> LutStore:
    monkeypatch.setenv("BLOCKTIME_RUNS", str(tmp_path / "runs"))
    return LutStore([tmp_path / "luts"])


def check(lut: Lut) -> None:
    """Every model's blocks are the operators of its file, and its architecture names it."""
    archs = {model.model_id: json.loads(model.arch) for model in lut.models}
    assert {arch["program"] for arch in archs.values()} == {
        "timm:mobilenetv3_small_100", "chain:pointwise-0", "chain:dense-0", "chain:linear-0",
    }  # fmt: skip
    assert json.loads(lut.reference.arch) == {
        "family": "mobilenetv3",
        "program": "timm:mobilenetv3_small_100",
    }
    cache = ArtifactCache()
    for model in lut.models:
        artifact = cache.get(ExportSpec(module=archs[model.model_id]["program"]))
        assert artifact is not None
        assert model.blocks == tuple(operator.key for operator in read_operators(artifact.path))
        assert (model.boundary_bytes, model.split) == (0, "fit")
    assert {entry.key for entry in lut.entries} == {key for model in lut.models for key in model.blocks}


def profiled(store: LutStore, target: Target, sources: str | None = None) -> Lut:
    command = ProfileCommand(
        space=OPERATORS,
        target=target,
        plan=SMALL,
        self_test=False,
        budget_s=0.1,
        store=store,
        sources=sources,
    )
    return verify_lut(profile(command).path)


def test_a_simulated_device_is_profiled(store: LutStore) -> None:
    lut = profiled(store, Target("simulated:quiet"))
    check(lut)
    assert lut.meta.measured == "simulated"
    with raises("table_of_operators", UsageError):
        covered_space(lut)
    (source,) = store.list()
    learned = profiled(store, Target("simulated:noisy"), str(source))
    assert [one.name for one in learned.meta.sources] == [str(source)]
    assert {entry.key for entry in learned.entries} == {entry.key for entry in lut.entries}


def test_this_machine_is_profiled(store: LutStore) -> None:
    lut = profiled(store, Target("host", threads=1))
    check(lut)
    assert lut.meta.measured == "measured"
    for model in lut.models:
        assert model.operator_ms
        traced = dict(zip(model.blocks, model.operator_ms, strict=True))
        assert all(ms > 0 for key, ms in traced.items() if key.startswith(("gemm", "conv", "depthwise")))


@pytest.mark.parametrize(("name", "traced"), [("fp32-t1", 4), ("fp32-t2", 0), ("int8-t1", 0)])
def test_programs_are_traced_in_fp32_on_one_thread(name: str, traced: int) -> None:
    programs = _programs_to_trace(plan_operators(0, 3, 4), Variant.parse(f"executorch-xnnpack-{name}"))
    assert len(programs) == traced


def test_a_bundle_gives_the_same_table(store: LutStore, tmp_path: Path) -> None:
    path = tmp_path / "operators.bundle"
    simulated = Variant("simulated", "", threads=1)
    bundle(
        BundleCommand(
            space=OPERATORS, kind="linux", output=path, fixed_variant=simulated, plan=SMALL, policy=POLICY
        )
    )
    (made,) = import_journals(ImportCommand(journals=(run(path, tmp_path),), store=store))
    check(verify_lut(made.path))


def test_programs_that_cannot_be_exported_are_failures(store: LutStore, monkeypatch) -> None:
    def failing(specs, *rest):
        refused = next(name for name, spec in specs.items() if spec.module == "chain:dense-0")
        artifacts, reasons = export_possible(
            {name: spec for name, spec in specs.items() if name != refused}, *rest
        )
        return artifacts, {**reasons, refused: "no memory"}

    monkeypatch.setattr(exported_plan, "export_possible", failing)
    lut = profiled(store, Target("simulated:quiet"))
    assert list(lut.meta.failures.values()) == ["no memory"]
    assert len(lut.models) == 3


@pytest.mark.parametrize("name", mostly_slow([name for _, name in designed_programs(180, 0)], KEPT))
def test_designed_programs_have_known_operators(name: str) -> None:
    (artifact,) = export_each([ExportSpec(module=name)], workers=1)
    assert isinstance(artifact, Artifact), artifact.message if isinstance(artifact, ExportFailure) else ""
    operators = read_operators(artifact.path)
    assert all(parse_operator(operator.key) == operator for operator in operators)
    assert "other" not in {operator.kind for operator in operators}

"""`import luts`, as somebody in a notebook uses it."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import luts
from luts.build import build_lut
from luts.format.store import LutStore
from search.spaces import get_arch
from tests.support.errors import raises
from tests.support.lut_world import small_study


@pytest.fixture(autouse=True)
def no_own_luts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path))


@pytest.fixture(scope="module")
def lut() -> luts.Lut:
    return luts.load("linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1")


def test_import_is_light() -> None:
    heavy = "numpy", "pandas", "pyarrow", "pydantic"
    code = f"import luts, sys; assert not sys.modules.keys() & set({heavy}); assert 'load' in dir(luts)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_of_the_package() -> None:
    assert {"Lut", "LatencyModel", "load", "list", "UsageError", "__version__"} <= set(dir(luts))
    for name in dir(luts):
        assert hasattr(luts, name)
    with pytest.raises(AttributeError):
        luts.nothing  # type: ignore[attr-defined]  # noqa: B018
    assert luts.__version__[0].isdigit()


def test_load_by_name_reference_and_folder(tmp_path: Path) -> None:
    refs = luts.list()
    assert {"autovit-nano", "autovit-xxs"} <= {ref.space for ref in refs}
    nano = next(ref for ref in refs if ref.space == "autovit-nano")
    assert luts.load(nano) == luts.load("autovit-nano") == luts.load(str(nano)) == luts.load(nano.path)
    with raises("ambiguous_lut"):
        luts.load("autovit-xxs")


def test_prediction_with_interval(lut: luts.Lut) -> None:
    arch = get_arch("autovit-xxs-paper")
    prediction = lut.predict(arch)
    assert prediction.low < prediction.ms < prediction.high
    assert prediction.level == 0.95
    assert prediction.ms == pytest.approx(lut.meta.reference_ms, rel=0.02)
    assert lut.predict(arch.keys(), arch.boundary_bytes()) == prediction
    assert lut.predict(list(arch.keys()), arch.boundary_bytes()) == prediction


def test_block_keys_suffice_without_transfer_cost(lut: luts.Lut) -> None:
    keys = get_arch("autovit-xxs-paper").keys()
    free, costly = (
        replace(lut, meta=lut.meta.model_copy(update={"transfer_ms_per_mib": price})) for price in (0.0, 0.5)
    )
    assert free.predict(keys) == free.predict(keys, 10**6)
    assert costly.predict(keys, 2**20).ms == pytest.approx(costly.predict(keys, 0).ms + 0.5)
    with raises("missing_boundary_bytes"):
        costly.predict(keys)


def test_tables_become_data_frames(lut: luts.Lut) -> None:
    entries = lut.to_pandas()
    assert entries["key"].tolist() == [entry.key for entry in lut.entries]
    np.testing.assert_array_equal(entries["ms"], [entry.ms for entry in lut.entries])
    slowest = entries.sort_values("ms").iloc[-1]
    assert slowest["ms"] == max(entry.ms for entry in lut.entries)
    models = lut.to_pandas("models")
    assert models["model_id"].tolist() == [model.model_id for model in lut.models]
    assert models["blocks"].iloc[0] == lut.models[0].blocks
    samples = lut.to_pandas("samples")
    assert len(samples) == lut.samples.num_rows
    assert set(samples["model"].unique()) == set(models["model_id"])


def test_unknown_count_is_missing_in_the_data_frame() -> None:
    study = small_study(removals=1)
    specs = [
        spec.model_copy(update={"migrated_operations": 3 if spec.role == "removal" else None})
        for spec in study.models
    ]
    built = build_lut(study.inputs, specs, study.estimation, study.features)
    column = built.to_pandas().set_index("key")["migrated_operations"]
    removed = next(spec.removed_key for spec in specs if spec.role == "removal")
    assert column[removed] == 3
    assert column.isna().sum() == len(column) - 1
    assert luts.Lut(built.meta, (), (), built.samples).to_pandas().columns.tolist()[:2] == ["key", "ms"]


def test_luts_of_another_folder(lut: luts.Lut, tmp_path: Path) -> None:
    folder = tmp_path / "own"
    path = LutStore([folder]).write(lut)
    assert path in [ref.path for ref in luts.list(folder)]
    assert luts.load("linux-x86-64/autovit-xxs/executorch-xnnpack-fp32-t1/v1", folder) == lut


def test_unpriced_blocks_are_refused(lut: luts.Lut) -> None:
    with raises("missing_entry"):
        lut.predict(["conv(in=3,out=16,k=3,s=2)@8"], 0)
    with raises("not_a_network"):
        lut.predict("conv(in=3,out=16,k=3,s=2)@256")

"""Damaged models: opening never crashes, loading hardly (XNNPACK trusts its own data; native/README.md)."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.agent.native import ShimError
from tests.support.native_models import Exported
from tests.support.native_shim import Shim
from tests.support.slow import mostly_slow

ROOT = Path(__file__).parents[2]
CHILD = "tests.support.native_mutants"


def outcomes(exported: Exported, native: Path, scratch: Path, mutants: int) -> Counter[str]:
    """How many mutants were `loaded` and `refused`, and at how many the child died: `open`, `load`."""
    found: Counter[str] = Counter()
    first = 0
    while first < mutants:
        child = subprocess.run(
            [sys.executable, "-m", CHILD, exported.path, native, scratch, str(first), str(mutants)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=ROOT,
        )
        last = {int(line.split()[0]): line.split()[1] for line in child.stdout.splitlines()}
        assert last, child.stderr
        found.update(last.values())
        first = max(last) + 1
    return found


@pytest.mark.parametrize("mutants", mostly_slow([50, 200], kept=[50]))
@pytest.mark.parametrize(("name", "deaths"), [("lookup", 0), ("convolution", 2)])
def test_mutants_are_loaded_or_refused(
    name: str, deaths: int, mutants: int, native: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    found = outcomes(request.getfixturevalue(name), native, tmp_path / "mutant.pte", mutants)
    assert found.total() == mutants
    assert found["open"] == 0
    assert found["load"] <= deaths
    assert found["loaded"] > mutants // 20
    assert found["refused"] > mutants // 4


def test_a_truncated_model_is_refused(native: Path, convolution: Exported, tmp_path: Path) -> None:
    shim = Shim(native)
    data = convolution.path.read_bytes()
    path = tmp_path / "truncated.pte"
    for length in [*range(0, len(data), 29), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(ShimError), shim.model(path) as model:
            model.load()

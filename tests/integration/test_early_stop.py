"""A simulated device that stays noisy: a profile ends as soon as its predictions are narrow enough, and says so."""

import os
import subprocess
import sys
from pathlib import Path

from luts.store import LutStore
from luts.verify import verify_lut


def test_a_profile_ends_once_predictions_are_narrow(tmp_path):
    sizes = ("--removals", "none", "--design", "5", "--heldout", "9", "--budget", "1h")
    what = ("--device", "simulated:noisy", "--space", "autovit-nano", "--narrow", "40")
    result = subprocess.run(
        [Path(sys.executable).parent / "bench", "profile", *what, *sizes, "--run", tmp_path / "run"],
        env={**os.environ, "BLOCKTIME_LUTS": str(tmp_path / "luts")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert (
        "ended because predictions are within 40 %, held-out networks are predicted within" in result.stderr
    )
    assert "known only as a sum with others" in result.stdout
    store = LutStore([tmp_path / "luts"])
    (ref,) = store.list()
    lut = verify_lut(ref.path)
    assert lut.meta.policy["heldout_half_width"] == 0.4
    assert lut.meta.conformal.half_width_90 < 0.4
    assert {model.loads for model in lut.models if model.role == "heldout"} == {lut.meta.policy["min_passes"]}
    assert {entry.identified for entry in lut.entries} == {"sum", "prior"}

"""A simulated device that stays noisy: a profile ends as soon as its predictions are narrow enough, and says so."""

from luts.format.store import LutStore
from luts.verify import verify_lut
from tests.support.bench import bench


def test_a_profile_ends_once_predictions_are_narrow(tmp_path, monkeypatch):
    sizes = ("--removals", "none", "--design", "5", "--heldout", "9", "--budget", "1h")
    what = ("--device", "simulated:noisy", "--space", "autovit-nano", "--narrow", "40")
    monkeypatch.setenv("BLOCKTIME_LUTS", str(tmp_path / "luts"))
    result = bench("profile", *what, *sizes, "--run", tmp_path / "run")
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

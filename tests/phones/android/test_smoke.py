"""`bench doctor --device pixel8 --smoke` with a fake phone whose app is the Kotlin agent, and with no phone."""

import json

from tests.support.bench import answer, bench, refused
from tests.support.fake_android import APK


def test_a_phone_without_the_app_goes_through_the_whole_chain(
    home, attach_kotlin_phone, export_cache, monkeypatch
):
    monkeypatch.setenv("BLOCKTIME_CACHE", str(export_cache))
    attach_kotlin_phone()
    (home / "app.apk").write_bytes(APK)
    smoke = ("doctor", "--device", "pixel8", "--smoke", "--app", home / "app.apk")
    assert "SIMULATED: not measured on any device" in answer(*smoke)
    rows = json.loads(answer(*smoke, "--json"))
    results = {row["step"]: row["result"] for row in rows}
    assert results["connected"].startswith("Pixel 8, ")
    assert results["sent"] == "earlier"
    assert float(results["checked"].split()[1]) < 1e-4
    assert results["timed"].endswith(" ms")
    assert not (home / "luts").exists()


def test_a_phone_that_is_not_attached_is_told_before_any_export(home, server):
    refused(bench("doctor", "--device", "pixel8", "--smoke"), 3, "no Pixel 8 found")
    assert not (home / "cache").exists()

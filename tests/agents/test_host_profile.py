"""`bench profile` of this machine by the agents in Kotlin and Swift."""

import pytest

from tests.support.agent_programs import BUILT, require_built
from tests.support.profiling import Profiling


@pytest.mark.parametrize("language", BUILT)
def test_other_agent_makes_another_lut(language, tmp_path, export_cache):
    require_built(language)
    device = f"host-{language}"
    run = Profiling("host", tmp_path, {"BLOCKTIME_CACHE": str(export_cache)}, "--agent", language)
    try:
        run.finish()
    finally:
        run.kill()
    meta = run.lut(device).meta
    assert meta.device.name == device
    assert meta.versions.agent.startswith(f"blocktime-{language} ")
    assert meta.measured == "measured"

"""`bench agent` serves until Ctrl-C, which is how it is meant to end."""

import os
import signal
import subprocess
import sys


def test_ctrl_c_ends_the_agent_without_advice(tmp_path):
    command = [sys.executable, "-c", "from orchestrator.cli.entry import main; main()", "agent"]
    environment = os.environ | {"BLOCKTIME_TOKEN": "t" * 32}
    with subprocess.Popen(
        [*command, "--store", tmp_path / "store"], stderr=subprocess.PIPE, text=True, env=environment
    ) as serving:
        assert serving.stderr is not None
        assert serving.stderr.readline().startswith("listening on port ")
        serving.send_signal(signal.SIGINT)
        assert serving.stderr.read().splitlines() == ["the agent has ended"]
    assert serving.returncode == 0

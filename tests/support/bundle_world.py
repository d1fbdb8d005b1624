"""A bundle run by a simulated agent in this process."""

import tarfile

from orchestrator.agent.server import run_bundle
from orchestrator.agent.store import ModelStore
from orchestrator.bundle.journal import read_journal
from orchestrator.plan.plan import Policy
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.device import SCENARIOS, Scenario

DEVICE = Scenario(name="made-up", noise_seed=3)
OTHER = Scenario(name="another", noise_seed=4)
NOISY = SCENARIOS["noisy"].model_copy(update={"noise_seed": 5})
POLICY = Policy(
    batch_models=9,
    warmup=1,
    warmup_ms=0,
    settle_runs=0,
    cooling_s=0.0,
    min_rounds=10,
    max_rounds=10,
    min_passes=2,
    max_passes=2,
)


class Ended(BaseException):
    """The process of an agent is ended."""


def run(made, folder, scenario=DEVICE, tell=lambda _: None):
    models = ModelStore(folder / f"store-{scenario.name}")
    journal = folder / f"{scenario.name}.jsonl"
    return run_bundle(made.path, journal, lambda token: simulated_agent(scenario, token, models), tell)


def kinds(journal):
    return [record["kind"] for record in read_journal(journal)[1]]


def rewritten(made, change):
    """The bundle with its files changed."""
    with tarfile.open(made.path) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar}
    change(files)
    with tarfile.open(made.path, "w") as tar:
        for name, content in files.items():
            path = made.path.with_name("part")
            path.write_bytes(content)
            tar.add(path, name)

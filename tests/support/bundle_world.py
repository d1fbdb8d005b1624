"""A bundle run by a simulated agent in this process."""

from orchestrator.agent.alone import run_bundle
from orchestrator.agent.store import ModelStore
from orchestrator.bundle.journal import read_journal
from orchestrator.plan.bundled import fixed_policy
from orchestrator.plan.policy import Policy
from orchestrator.simulate.__main__ import simulated_agent
from orchestrator.simulate.scenario import Scenario

DEVICE = Scenario(name="made-up", noise_seed=3)
OTHER = Scenario(name="another", noise_seed=4)
POLICY = fixed_policy(Policy(batch_models=9, warmup=1, warmup_ms=0, settle_runs=0, cooling_s=0.0), 2, 10)


class Ended(BaseException):
    """The process of an agent is ended."""


def run(made, folder, scenario=DEVICE, tell=lambda _: None):
    models = ModelStore(folder / f"store-{scenario.name}")
    journal = folder / f"{scenario.name}.jsonl"
    return run_bundle(made.path, journal, lambda token: simulated_agent(scenario, token, models), tell)


def kinds(journal):
    return [record["kind"] for record in read_journal(journal)[1]]

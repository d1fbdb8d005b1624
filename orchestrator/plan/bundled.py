"""What a bundle says about its measurement beside the script: enough to make a LUT of the journal anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from luts.format.errors import InvalidArtifactError
from luts.format.messages import first_problem
from luts.format.values import Name, Sha256, Value
from orchestrator.plan.plan import Plan
from orchestrator.plan.policy import Policy

PASSES = 4
"""Fresh loads of every model: one more than an interval takes, for the batches that do not count afterwards."""

ROUNDS = 30
"""Of each batch: nobody is there to look whether 20 are enough or 40 are needed."""


class BundledPlan(Value):
    """`plan.json` of a bundle.

    Attributes:
        plan: The models; `model_id` is what `artifacts` knows them by.
        variant: How they run; without threads the agent's default.
        policy: By which they are measured.
        artifacts: Digests of the model files.
        unexported: Models that could not be exported, with the reason.
        exporter: The tools that made the files.
        batches: How many the script has.
    """

    plan: Plan
    variant: str
    policy: Policy
    artifacts: dict[str, Sha256]
    unexported: dict[str, str]
    exporter: str
    batches: int

    def to_bytes(self) -> bytes:
        """As it stands in the bundle."""
        return self.model_dump_json().encode()

    @classmethod
    def parse(cls, text: str, path: Path) -> BundledPlan:
        """InvalidArtifactError where it does not fit."""
        try:
            return TypeAdapter(cls).validate_json(text)
        except ValidationError as error:
            raise InvalidArtifactError(
                f"{path}: its plan is not one of this version of bench ({first_problem(error)}); make it again"
            ) from None


def fixed_policy(policy: Policy, passes: int = PASSES, rounds: int = ROUNDS) -> Policy:
    """A policy that decides nothing while it is carried out."""
    return replace(
        policy,
        self_test=False,
        min_passes=passes,
        max_passes=passes,
        min_rounds=rounds,
        max_rounds=rounds,
    )


def device_label(model: str) -> Name:
    """A name for a device that no registry has: `Pixel 42 Pro` is `pixel-42-pro`."""
    label = "".join(character if character.isascii() and character.isalnum() else "-" for character in model)
    return "-".join(part for part in label.lower().split("-") if part)[:40] or "unknown"

"""What a bundle says about its measurement beside the script: enough to make a LUT of the journal anywhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from luts.format.errors import InvalidArtifactError, first_problem
from luts.format.schema import Name, Sha256, Value
from orchestrator.plan.plan import Plan, Policy

SPARE_PASSES = 1
"""Beyond those of a live run, for batches that do not count: nobody judges them while one can be repeated."""


class BundledPlan(Value):
    """`plan.json` of a bundle.

    Attributes:
        plan: The models; `model_id` is what `artifacts` knows them by.
        variant: How they run; without threads the agent's default.
        policy: By which they are measured.
        artifacts: Digests of the model files.
        unexported: Models that could not be exported, with the reason.
        exporter: The tools that made the files.
        batches: How many the script has, of which those of later passes may not be needed.
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


def policy_alone(policy: Policy) -> Policy:
    """A policy as an agent carries it out alone: without a self-test, with a pass to spare."""
    fewest = policy.min_passes + SPARE_PASSES
    return replace(policy, self_test=False, min_passes=fewest, max_passes=max(policy.max_passes, fewest))


def device_label(model: str) -> Name:
    """A name for a device that no registry has: `Pixel 42 Pro` is `pixel-42-pro`."""
    label = "".join(character if character.isascii() and character.isalnum() else "-" for character in model)
    return "-".join(part for part in label.lower().split("-") if part)[:40] or "unknown"

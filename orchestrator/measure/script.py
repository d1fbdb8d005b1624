"""A measurement written down beforehand: the batches that `Engine` would draw, as a script for an agent alone."""

from __future__ import annotations

from orchestrator.bundle.script import LoadFields, Rules, RunFields, Script, ScriptBatch, Stop
from orchestrator.export.artifacts.variant import Variant
from orchestrator.journal.throttle import HOT_HEADROOM
from orchestrator.measure.readiness import COOL_HEADROOM
from orchestrator.measure.schedule import load_order, pass_groups, round_orders
from orchestrator.measure.session import Subject
from orchestrator.plan.policy import Policy


def script_of(
    subject: Subject,
    variant: Variant,
    policy: Policy,
    budget_s: float,
    *,
    poll_s: float = 10.0,
    wait_s: float = 900.0,
) -> Script:
    """The script of all that a policy may take, with its rules of when less is enough."""
    digests = {name: file.sha256 for name, file in subject.files.items()}
    reference = digests[subject.reference_id]
    others = [name for name in subject.files if name != subject.reference_id]
    batches: list[ScriptBatch] = []
    for pass_index in range(policy.max_passes):
        groups = pass_groups(others, subject.seed, pass_index, policy.batch_models)
        for group, models in enumerate(groups):
            slots, number = [reference, reference, *(digests[name] for name in models)], len(batches)
            batches.append(
                ScriptBatch(
                    pass_index=pass_index,
                    group=group,
                    slots=slots,
                    loading=load_order(len(slots), subject.seed, number, 0),
                    orders=[
                        round_orders(
                            len(slots),
                            subject.seed,
                            number,
                            first,
                            min(policy.chunk_rounds, policy.max_rounds - first),
                            policy.settle_runs,
                        )
                        for first in range(0, policy.max_rounds, policy.chunk_rounds)
                    ],
                    placement=pass_index == 0,
                )
            )
    return Script(
        rules=Rules(
            attempts=policy.max_attempts,
            poll_s=poll_s,
            wait_s=wait_s,
            hot_headroom=HOT_HEADROOM,
            cool_headroom=COOL_HEADROOM,
        ),
        load=LoadFields(runtime=variant.runtime, options=variant.load_options),
        run=RunFields(warmup=policy.warmup, warmup_ms=policy.warmup_ms, pace_us=policy.pace_us),
        batches=batches,
        stop=Stop(
            min_rounds=policy.min_rounds,
            load_se=policy.load_se,
            min_passes=policy.min_passes,
            half_width=policy.half_width,
            budget_s=budget_s,
        ),
    )

"""From model files and a device to estimates: opens the journal, checks who answers, runs the engine."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.errors import UsageError
from luts.estimate.ratios import RatioEstimates
from luts.estimate.reference import QuietLatency, quiet_latency
from luts.estimate.rounds import sessions
from luts.samples import kept_samples
from orchestrator.devices.base import Device
from orchestrator.measure.engine import Ending, Engine, PredictionWidth, Progress
from orchestrator.measure.link import Link, ModelFile
from orchestrator.measure.loads import LoadTimes, load_times
from orchestrator.measure.log import MeasurementLog
from orchestrator.measure.policy import Policy
from orchestrator.measure.records import Header, Identity
from orchestrator.variant import Variant
from orchestrator.wire.messages import HelloReply


@dataclass(frozen=True)
class Subject:
    """What is measured: models by id with their files, the reference among them, and a name for the set."""

    files: Mapping[str, ModelFile]
    reference_id: str
    plan_digest: str
    seed: int


@dataclass(frozen=True)
class Measurement:
    """What came out: ratios of all models to the reference, and the reference's quiet milliseconds.

    `failures` are the models that this device can't run, with the reason; they have no ratio. `ending` says why
    measuring ended, `prediction_half_width` how narrow predictions were then (None: not asked for, or not known).
    """

    hello: HelloReply
    header: Header
    estimates: RatioEstimates
    reference: QuietLatency
    batches_kept: int
    batches_rejected: int
    failures: Mapping[str, str]
    loads: Mapping[str, LoadTimes]
    ending: Ending
    prediction_half_width: float | None

    def ms(self, model_id: str, reference_ms: float | None = None) -> tuple[float, float, float]:
        """Latency and its 95 % interval (of the ratio), in ms of this or of another reference latency."""
        ratio = self.estimates.ratios[model_id]
        scale = self.reference.ms if reference_ms is None else reference_ms
        return scale * math.exp(ratio.log_ratio), scale * math.exp(ratio.low), scale * math.exp(ratio.high)


def identity_of(hello: HelloReply, variant: Variant, subject: Subject, policy: Policy) -> Identity:
    """What must stay the same for a journal to go on."""
    runtime = hello.runtimes[variant.runtime]
    return Identity(
        device_model=hello.device.model,
        soc=hello.device.soc or "",
        os=hello.device.os,
        os_build=hello.device.os_build or "",
        agent=f"{hello.agent.name} {hello.agent.version}",
        runtime=f"{variant.runtime} {runtime.version}",
        variant=variant.name,
        plan=subject.plan_digest,
        policy=policy.to_dict(),
        artifacts={name: file.sha256 for name, file in subject.files.items()},
    )


def check_runtime(device_name: str, hello: HelloReply, variant: Variant) -> None:
    """`UsageError` if the agent cannot run the variant."""
    runtime = hello.runtimes.get(variant.runtime)
    if runtime is None:
        known = ", ".join(hello.runtimes)
        raise UsageError(f"the agent on {device_name} has no runtime {variant.runtime}; it has {known}")
    threads = runtime.options.get("threads")
    if threads is None and variant.threads:
        raise UsageError(f"{device_name} can't be told how many threads to use; leave --threads out")
    if threads is not None and threads.max is not None and variant.threads > threads.max:
        raise UsageError(
            f"{device_name} has {threads.max} cores for {variant.threads} threads; use --threads"
        )


def default_threads(device: Device, variant: Variant) -> Variant:
    """The variant with as many threads as the device's agent takes by default.

    0 where the agent leaves that to the runtime.

    DeviceError where the device does not answer; UsageError where its agent does not have the runtime.
    """
    with device.connect() as client:
        hello = client.hello()
    runtime = hello.runtimes.get(variant.runtime)
    option = runtime.options.get("threads") if runtime else None
    if variant.runtime != "executorch":
        return variant
    chosen = option.default if option is not None and isinstance(option.default, int) else 0
    return dataclasses.replace(variant, threads=chosen)


def measure(
    device: Device,
    variant: Variant,
    subject: Subject,
    journal: Path,
    policy: Policy,
    *,
    models: Sequence[str] | None = None,
    budget_s: float,
    progress: Progress,
    prediction_width: PredictionWidth | None = None,
) -> Measurement:
    """Measure the subject's models on a device, going on where the journal ends.

    With `prediction_width` it ends as soon as predictions are narrow.

    Raises:
        UsageError: the device's agent does not have the variant's runtime.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the journal belongs to another measurement, or the device is too noisy.
        InvalidArtifactError: the device can't run the reference model.
    """
    link = Link(device, variant.runtime, variant.load_options)
    hello = link.hello()
    check_runtime(device.name, hello, variant)
    header = Header(
        identity=identity_of(hello, variant, subject, policy),
        reference_id=subject.reference_id,
        seed=subject.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        simulated=hello.device.simulated,
    )
    try:
        with MeasurementLog(journal, header) as log:
            chosen = models or list(subject.files)
            engine = Engine(
                link, subject.files, chosen, log, policy, subject.seed, progress, prediction_width
            )
            outcome = engine.run(budget_s)
            estimates = outcome.estimates
            kept = sessions(kept_samples(log.samples()))
            quiet = quiet_latency(kept, subject.reference_id, estimates.load_variance.sd)
            verdicts = [end.kept for end in log.ends().values()]
            return Measurement(
                hello,
                log.header,
                estimates,
                quiet,
                batches_kept=sum(verdicts),
                batches_rejected=len(verdicts) - sum(verdicts),
                failures=log.failures(),
                loads=load_times(log.records),
                ending=outcome.ending,
                prediction_half_width=outcome.prediction_half_width,
            )
    finally:
        link.drop()

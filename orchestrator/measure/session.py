"""From model files and a device to estimates: opens the journal, checks who answers, runs the engine."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.estimate.latencies import LatencyEstimates, QuietLatency
from luts.estimate.ratios import RatioEstimates
from luts.format.errors import UsageError
from orchestrator.devices.common.device import Device
from orchestrator.export.artifacts.spec import HOST_RUNTIMES, Variant
from orchestrator.journal.conditions import (
    Conditions,
    LoadTimes,
    Usage,
    load_times,
    read_conditions,
    usage_by_model,
)
from orchestrator.journal.log import MeasurementLog, policy_in_effect
from orchestrator.journal.records import Header, Identity, PlacedType
from orchestrator.measure.engine import (
    AdaptivePlanner,
    BatchTask,
    DeviceExecutor,
    Engine,
    EngineResult,
    PredictionHalfWidth,
    ProgressCallback,
    SingleDevice,
    StopReason,
)
from orchestrator.measure.interference import InterferenceTest
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.sustained import record_usage
from orchestrator.plan.plan import Policy
from orchestrator.wire.client import ModelFile
from orchestrator.wire.messages import HelloReply

_DELEGATES = {"xnnpack": "XnnpackBackend", "vulkan": "VulkanBackend", "coreml": "CoreMLBackend"}
"""What ExecuTorch calls the delegates that models are lowered to; `portable` ones need none."""


@dataclass(frozen=True)
class ModelSet:
    """What is measured: models by id with their files, the reference among them, and a name for the set."""

    files: Mapping[str, ModelFile]
    reference_id: str
    plan_digest: str
    seed: int


@dataclass(frozen=True)
class Measurement:
    """What came out: ratios of all models to the reference, and the reference's quiet milliseconds.

    Attributes:
        failures: Models that this device can't run, with the reason; they have no ratio.
        loads: How long models take to load.
        conditions: How kept batches were measured.
        placements: Operations with their compute units, of the models whose runtime tells.
        ending: Why measuring ended...
        prediction_half_width: ...and how narrow predictions were then; None: not asked for, or not known.
        policy: What decided it, with what the self-test changed.
        usages: Memory and energy of models that were asked for, where the device tells.
    """

    hello: HelloReply
    header: Header
    estimation: LatencyEstimates
    batches_kept: int
    batches_rejected: int
    failures: Mapping[str, str]
    loads: Mapping[str, LoadTimes]
    conditions: Conditions
    placements: Mapping[str, Sequence[PlacedType]]
    ending: StopReason
    prediction_half_width: float | None
    policy: Mapping[str, int | float | str]
    usages: Mapping[str, Usage]

    @property
    def estimates(self) -> RatioEstimates:
        """Ratios of all models to the reference."""
        return self.estimation.ratios

    @property
    def reference(self) -> QuietLatency:
        """The reference's quiet latency."""
        return self.estimation.quiet

    def ms(self, model_id: str, reference_ms: float | None = None) -> tuple[float, float, float]:
        """Latency and its 95 % interval (of the ratio), in ms of this or of another reference latency."""
        ratio = self.estimates.ratios[model_id]
        scale = self.reference.ms if reference_ms is None else reference_ms
        return scale * math.exp(ratio.log_ratio), scale * math.exp(ratio.low), scale * math.exp(ratio.high)


def make_identity(
    hello: HelloReply, variant: Variant, subject: ModelSet, policy: Policy, fixed_performance: bool
) -> Identity:
    """What must stay the same for a journal to go on."""
    runtimes = dict.fromkeys([variant.runtime, *(f.runtime for f in subject.files.values() if f.runtime)])
    return Identity(
        device_model=hello.device.model,
        soc=hello.device.soc or "",
        os=hello.device.os,
        os_build=hello.device.os_build or "",
        agent=f"{hello.agent.name} {hello.agent.version}",
        runtime=", ".join(f"{name} {hello.runtimes[name].version}" for name in runtimes),
        variant=variant.name,
        plan=subject.plan_digest,
        fixed_performance=fixed_performance,
        policy=policy.to_dict(),
        artifacts={name: file.sha256 for name, file in subject.files.items()},
    )


def check_runtime(device_name: str, hello: HelloReply, variant: Variant) -> None:
    """`UsageError` if the agent cannot run the variant."""
    runtime = hello.runtimes.get(variant.runtime)
    if runtime is None:
        known = ", ".join(hello.runtimes)
        if variant.runtime in HOST_RUNTIMES and device_name == "host":
            raise UsageError(
                f"{HOST_RUNTIMES[variant.runtime]} is not installed; pip install 'blocktime[{variant.runtime}]'"
            )
        raise UsageError(f"the agent on {device_name} has no runtime {variant.runtime}; it has {known}")
    delegate = _DELEGATES.get(variant.target) if variant.runtime == "executorch" else None
    if delegate is not None and delegate not in runtime.backends:
        has = [name for name, called in _DELEGATES.items() if called in runtime.backends] + ["portable"]
        raise UsageError(
            f"the ExecuTorch on {device_name} has no {variant.target}; choose --backend {' or '.join(has)}"
        )
    threads = runtime.options.get("threads")
    if threads is None and variant.threads:
        raise UsageError(f"{device_name} can't be told how many threads to use; leave --threads out")
    if threads is not None and threads.max is not None and variant.threads > threads.max:
        raise UsageError(
            f"{device_name} has {threads.max} cores for {variant.threads} threads; use --threads"
        )
    if variant.cores and "cores" not in runtime.options:
        raise UsageError(
            f"threads can't be pinned to cores on {device_name}, its system has no call for that; leave --cores out"
        )


def threads_warning(device_name: str, hello: HelloReply, variant: Variant) -> str:
    """What speaks against as many threads, in a line; "" where nothing does.

    ExecuTorch's own threads wait for the slowest of them: on little cores, or on cores that others use too, more
    threads have been up to ten times slower.
    """
    runtime = hello.runtimes.get(variant.runtime)
    option = runtime.options.get("threads") if runtime else None
    if (
        option is None
        or variant.cores
        or not isinstance(option.default, int)
        or variant.threads <= option.default
    ):
        return ""
    return (
        f"{variant.threads} threads are more than the {option.default} that {device_name} takes by default; "
        "on little or busy cores they slow each other down"
    )


def default_threads(hello: HelloReply, variant: Variant) -> Variant:
    """The variant with as many threads as the device's agent takes by default.

    0 where the agent leaves that to the runtime.
    """
    runtime = hello.runtimes.get(variant.runtime)
    option = runtime.options.get("threads") if runtime else None
    if variant.runtime != "executorch":
        return variant
    chosen = option.default if option is not None and isinstance(option.default, int) else 0
    return dataclasses.replace(variant, threads=chosen)


def measure(
    device: Device,
    variant: Variant,
    subject: ModelSet,
    journal: Path,
    policy: Policy,
    *,
    models: Sequence[str] | None = None,
    budget_s: float,
    progress: ProgressCallback,
    prediction_width: PredictionHalfWidth | None = None,
    further: AdaptivePlanner | None = None,
    usage_of: Sequence[str] = (),
) -> Measurement:
    """Measure the subject's models on a device, going on where the journal ends.

    With `prediction_width` it ends as soon as predictions are narrow; until then `further` may add networks.
    What the models in `usage_of` take besides time is found out first.

    Raises:
        UsageError: the device's agent does not have the variant's runtime.
        DeviceError: the device is not there, or was lost for good.
        MeasurementRejectedError: the journal belongs to another measurement, or the device is too noisy.
        ReferenceFailedError: the device can't run the reference model.
    """
    link = DeviceConnection(device, variant.runtime, variant.load_options)
    hello = link.hello()
    check_runtime(device.name, hello, variant)
    header = make_header(hello, variant, subject, policy, device.fixed_performance)
    try:
        with MeasurementLog(journal, header) as log:
            record_usage(link, subject.files, log, policy, usage_of, lambda said: progress(said, 0, 0))
            return measure_with(
                SingleDevice(link, log),
                log,
                hello,
                subject,
                policy,
                models=models,
                budget_s=budget_s,
                progress=progress,
                prediction_width=prediction_width,
                further=further,
            )
    finally:
        link.drop()


def make_header(
    hello: HelloReply, variant: Variant, subject: ModelSet, policy: Policy, fixed_performance: bool
) -> Header:
    """What a journal that is begun now begins with."""
    return Header(
        identity=make_identity(hello, variant, subject, policy, fixed_performance),
        reference_id=subject.reference_id,
        seed=subject.seed,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        simulated=hello.device.simulated,
    )


def measure_with(
    crew: DeviceExecutor,
    log: MeasurementLog,
    hello: HelloReply,
    subject: ModelSet,
    policy: Policy,
    *,
    models: Sequence[str] | None = None,
    budget_s: float,
    progress: ProgressCallback,
    prediction_width: PredictionHalfWidth | None = None,
    further: AdaptivePlanner | None = None,
) -> Measurement:
    """Let a crew do what the log has not yet: the self-test, then passes; `hello` is that of one of its devices.

    Raises:
        DeviceError: no device is left.
        MeasurementRejectedError: the devices are too noisy.
        ReferenceFailedError: they can't run the reference model.
    """
    chosen = models or list(subject.files)
    if log.header.identity.policy.get("self_test"):
        policy = _self_tested(crew, subject, chosen, policy, progress)
    engine = Engine(
        crew, subject.files, chosen, log, policy, subject.seed, progress, prediction_width, further
    )
    return make_measurement(hello, log, engine.run(budget_s))


def _self_tested(
    crew: DeviceExecutor, subject: ModelSet, models: Sequence[str], policy: Policy, progress: ProgressCallback
) -> Policy:
    decided = [policy]

    def do(link: DeviceConnection, log: MeasurementLog) -> None:
        test = InterferenceTest(link, subject.files, log, policy, lambda said: progress(said, 0, 0))
        decided.append(test.decide(models))

    crew.share([BatchTask(tuple(models), do)])
    return decided[-1]


def make_measurement(hello: HelloReply, log: MeasurementLog, outcome: EngineResult) -> Measurement:
    """What came out, from the log of a measurement that ended."""
    verdicts = [end.kept for end in log.ends().values()]
    return Measurement(
        hello,
        log.header,
        outcome.estimation,
        batches_kept=sum(verdicts),
        batches_rejected=len(verdicts) - sum(verdicts),
        failures=log.failures(),
        loads=load_times(log.records),
        conditions=read_conditions(log.records),
        placements=log.placements(),
        ending=outcome.ending,
        prediction_half_width=outcome.prediction_half_width,
        policy=policy_in_effect(log.header, log.self_test_decision()),
        usages=usage_by_model(log.records),
    )

"""From model files and a device to estimates: opens the journal, checks who answers, runs the engine."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from luts.estimate.latencies import LatencyEstimates, QuietLatency
from luts.format.errors import UsageError, install_extra
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
from orchestrator.journal.log import MeasurementLog, placements, policy_in_effect, self_test_decision, traces
from orchestrator.journal.records import Header, Identity, PlacedType
from orchestrator.measure.engine import (
    BatchTask,
    DeviceExecutor,
    Engine,
    EngineOptions,
    EngineResult,
    ModelSet,
    SingleDevice,
    StopReason,
)
from orchestrator.measure.interference import InterferenceTest
from orchestrator.measure.readiness import DeviceConnection
from orchestrator.measure.sustained import record_usage
from orchestrator.measure.traces import record_traces
from orchestrator.plan.plan import Policy
from orchestrator.wire.messages import HelloReply, OptionInfo

_DELEGATES = {"xnnpack": "XnnpackBackend", "vulkan": "VulkanBackend", "coreml": "CoreMLBackend"}
"""ExecuTorch's names of the delegates that models are lowered to; `portable` ones need none."""


@dataclass(frozen=True)
class Measurement:
    """Result of a measurement: ratios of all models to the reference, and the reference's quiet latency.

    Attributes:
        header: The journal's first record.
        failures: Models that this device can't run, with the reason; they have no ratio.
        loads: Load times by model.
        conditions: Conditions under which kept batches were measured.
        placements: Operations with their compute units, of the models whose runtime reports them.
        prediction_half_width: Relative half-width of predictions at the end; None if unknown.
        policy: The policy, with what the self-test changed.
        usages: Memory and energy of the requested models, if the device reports them.
        traces: Milliseconds of the operators of traced programs.
    """

    hello: HelloReply
    header: Header
    estimates: LatencyEstimates
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
    traces: Mapping[str, Sequence[float]]

    @property
    def reference(self) -> QuietLatency:
        """The reference's quiet latency."""
        return self.estimates.quiet

    def ms(self, model_id: str, reference_ms: float | None = None) -> tuple[float, float, float]:
        """Return a model's latency and the 95 % interval of its ratio, in ms.

        The ratio is scaled by `reference_ms`, by default this measurement's.
        """
        ratio = self.estimates.ratios[model_id]
        scale = self.reference.ms if reference_ms is None else reference_ms
        return scale * math.exp(ratio.log_ratio), scale * math.exp(ratio.low), scale * math.exp(ratio.high)

    def ms_with_reference(self, model_id: str) -> tuple[float, float, float]:
        """Return a model's latency and its 95 % interval in ms, with the uncertainty of the reference's own."""
        ms, low, high = self.ms(model_id)
        return ms, *self.reference.widen(ms, low, high)


def make_identity(
    hello: HelloReply, variant: Variant, model_set: ModelSet, policy: Policy, fixed_performance: bool
) -> Identity:
    """Return what must stay the same for a journal to be resumed."""
    extra = (file.runtime for file in model_set.files.values() if file.runtime)
    runtimes = dict.fromkeys([variant.runtime, *extra])
    return Identity(
        device_model=hello.device.model,
        soc=hello.device.soc or "",
        os=hello.device.os,
        os_build=hello.device.os_build or "",
        agent=f"{hello.agent.name} {hello.agent.version}",
        runtime=", ".join(f"{name} {hello.runtimes[name].version}" for name in runtimes),
        variant=variant.name,
        plan=model_set.plan_digest,
        fixed_performance=fixed_performance,
        policy=policy.to_dict(),
        artifacts={name: file.sha256 for name, file in model_set.files.items()},
    )


def make_header(
    hello: HelloReply,
    variant: Variant,
    model_set: ModelSet,
    policy: Policy,
    fixed_performance: bool,
    created: str = "",
) -> Header:
    """Return the first record of a journal, which starts now unless it was `created` before."""
    return Header(
        identity=make_identity(hello, variant, model_set, policy, fixed_performance),
        reference_id=model_set.reference_id,
        seed=model_set.seed,
        created=created or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        simulated=hello.device.simulated,
    )


def check_runtime(device_name: str, hello: HelloReply, variant: Variant) -> None:
    """Check that an agent can run a variant; UsageError: it lacks the runtime, delegate, cores or option."""
    runtime = hello.runtimes.get(variant.runtime)
    if runtime is None:
        raise _no_runtime(device_name, hello, variant)
    delegate = _DELEGATES.get(variant.target) if variant.runtime == "executorch" else None
    if delegate is not None and delegate not in runtime.backends:
        available = [name for name, called in _DELEGATES.items() if called in runtime.backends] + ["portable"]
        raise UsageError(
            f"the ExecuTorch on {device_name} has no {variant.target}; choose --backend {' or '.join(available)}",
            code="unsupported_backend",
        )
    _check_threads(device_name, runtime.options, variant)


def _no_runtime(device_name: str, hello: HelloReply, variant: Variant) -> UsageError:
    if variant.runtime in HOST_RUNTIMES and device_name == "host":
        title = HOST_RUNTIMES[variant.runtime]
        return UsageError(
            f"{title} is not installed; {install_extra(variant.runtime)}", code="missing_package"
        )
    return UsageError(
        f"the agent on {device_name} has no runtime {variant.runtime}; it has {', '.join(hello.runtimes)}",
        code="unsupported_runtime",
    )


def _check_threads(device_name: str, options: Mapping[str, OptionInfo], variant: Variant) -> None:
    threads = options.get("threads")
    if threads is None and variant.threads:
        raise UsageError(
            f"the number of threads can't be set on {device_name}; leave --threads out",
            code="unsupported_option",
        )
    if threads is not None and threads.max is not None and variant.threads > threads.max:
        raise UsageError(
            f"{device_name} has {threads.max} cores, fewer than {variant.threads} threads; use fewer --threads",
            code="too_many_threads",
        )
    if variant.cores and "cores" not in options:
        raise UsageError(
            f"{device_name} can't pin threads to cores, its system has no call for that; leave --cores out",
            code="unsupported_option",
        )
    if variant.sustained_performance and "sustained_performance" not in options:
        raise UsageError(
            f"{device_name} has no sustained performance mode; leave --sustained-performance out",
            code="unsupported_option",
        )


def _default_threads(hello: HelloReply, variant: Variant) -> int | None:
    runtime = hello.runtimes.get(variant.runtime)
    option = runtime.options.get("threads") if runtime else None
    return option.default if option is not None and isinstance(option.default, int) else None


def threads_warning(device_name: str, hello: HelloReply, variant: Variant) -> str:
    """Return a one-line warning if so many threads are likely to be slow, else an empty string.

    ExecuTorch's threads wait for the slowest of them: on little cores, or on cores that other programs use too,
    more threads have been up to ten times slower.
    """
    default = _default_threads(hello, variant)
    if default is None or variant.cores or variant.threads <= default:
        return ""
    return (
        f"{variant.threads} threads are more than the default of {default} on {device_name}; "
        "on little or busy cores they slow each other down"
    )


def default_threads(hello: HelloReply, variant: Variant) -> Variant:
    """Return the variant with the agent's default number of threads; 0 if the agent leaves that to the runtime."""
    if variant.runtime != "executorch":
        return variant
    return dataclasses.replace(variant, threads=_default_threads(hello, variant) or 0)


def measure(
    device: Device,
    variant: Variant,
    model_set: ModelSet,
    journal: Path,
    policy: Policy,
    options: EngineOptions,
    *,
    usage_of: Sequence[str] = (),
    trace: Mapping[str, Sequence[str]] | None = None,
) -> Measurement:
    """Measure models on a device, resuming where the journal ends.

    Memory and energy of the models `usage_of` are measured first, then times of the operators of programs `trace`.

    Raises:
        UsageError: The device's agent cannot run the variant.
        DeviceError: The device is not there, or was lost.
        MeasurementRejectedError: The journal belongs to another measurement, or the device is too noisy.
        ReferenceFailedError: The device can't run the reference.
    """
    with DeviceConnection.opened(device, variant) as connection:
        hello = connection.hello()
        check_runtime(device.name, hello, variant)
        header = make_header(hello, variant, model_set, policy, device.fixed_performance)
        with MeasurementLog(journal, header) as log:
            record_usage(connection, model_set.files, log, policy, usage_of, options.notify)
            record_traces(connection, model_set.files, log, trace or {}, options.notify)
            return measure_with(SingleDevice(connection, log), log, hello, model_set, policy, options)


def measure_with(
    executor: DeviceExecutor,
    log: MeasurementLog,
    hello: HelloReply,
    model_set: ModelSet,
    policy: Policy,
    options: EngineOptions,
) -> Measurement:
    """Run what the log lacks on one device or on a fleet: the self-test, then passes.

    `hello` describes one of the devices.

    Raises:
        DeviceError: No device is left.
        MeasurementRejectedError: The devices are too noisy.
        ReferenceFailedError: They can't run the reference.
    """
    if log.header.identity.policy.get("self_test"):
        policy = _run_self_test(executor, model_set, policy, options)
    result = Engine(executor, model_set, log, policy, options).run()
    return make_measurement(hello, log, result)


def _run_self_test(
    executor: DeviceExecutor, model_set: ModelSet, policy: Policy, options: EngineOptions
) -> Policy:
    models, policies = options.models or list(model_set.files), [policy]

    def run(connection: DeviceConnection, log: MeasurementLog) -> None:
        test = InterferenceTest(connection, model_set.files, log, policy, options.notify)
        policies.append(test.choose_policy(models))

    executor.run_all([BatchTask(tuple(models), run)])
    return policies[-1]


def make_measurement(hello: HelloReply, log: MeasurementLog, result: EngineResult) -> Measurement:
    """Return the result of a measurement that ended, from its log."""
    verdicts = [end.kept for end in log.ends().values()]
    return Measurement(
        hello,
        log.header,
        result.estimation,
        batches_kept=sum(verdicts),
        batches_rejected=len(verdicts) - sum(verdicts),
        failures=log.failures(),
        loads=load_times(log.records),
        conditions=read_conditions(log.records),
        placements=placements(log.records),
        ending=result.ending,
        prediction_half_width=result.prediction_half_width,
        policy=policy_in_effect(log.header, self_test_decision(log.records)),
        usages=usage_by_model(log.records),
        traces=traces(log.records),
    )

"""Where models run: a device, how it is driven, and by which runtime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import get_args

from luts.format.errors import UsageError
from orchestrator.agent.device import parse_cores, threads_by_default
from orchestrator.agent.programs import core_ml_agent
from orchestrator.devices.android.phones import EMULATOR
from orchestrator.devices.common.device import Access, Device, ignore_message, refuse_question
from orchestrator.devices.common.registry import known_phone
from orchestrator.devices.discover import Kind, kind_of, resolve
from orchestrator.devices.host import scenario_of
from orchestrator.devices.lock import lock_device
from orchestrator.export.artifacts.spec import HOST_RUNTIMES, Variant
from orchestrator.journal.runs import runs_root
from orchestrator.measure.session import check_runtime, default_threads, threads_warning
from orchestrator.tasks.options import REQUIRED, advanced_option, target_option
from orchestrator.wire.messages import Caveat, HelloReply


def parse_caveats(text: str, flag: str = "--allow") -> tuple[str, ...]:
    """Return the conditions of `debuggable-build,low-battery` under which a phone is measured all the same.

    Raises:
        UsageError: an unknown condition.
    """
    known = get_args(Caveat)
    allowed = tuple(part.strip().replace("-", "_") for part in text.split(",") if part.strip())
    for name in allowed:
        if name not in known:
            names = ", ".join(caveat.replace("_", "-") for caveat in known)
            raise UsageError(
                f"{flag} {name!r}: use one or more of {names}, separated by commas", code="unknown_caveat"
            )
    return allowed


@dataclass(frozen=True)
class DeviceOptions:
    """A device and how it is driven.

    Attributes:
        allow: Conditions that an agent ignores (`caveats` of PROTOCOL.md).
        say: Called with what is waited for, a line.
        ask: Asked for what only a person can see, such as a pairing code.
    """

    device: str = target_option(
        REQUIRED, "host, a phone's name (iphone13, pixel8) or serial, or simulated[:SCENARIO] to try a plan."
    )
    agent: str = advanced_option(
        "python", "Language of the host's agent: python, kotlin or swift.", metavar="LANGUAGE"
    )
    allow: tuple[str, ...] = advanced_option(
        (),
        "Measure despite these conditions, recorded in every result: debuggable-build, power-save, low-battery, "
        "throttled, background.",
        parse=parse_caveats,
        metavar="CONDITIONS",
    )
    app: Path | None = advanced_option(
        None, "Benchmark app (.apk, signed .ipa) to install on the phone first."
    )
    fixed_performance: bool = advanced_option(
        False, "Fix an Android phone's clocks (below the highest) while it is measured."
    )
    say: Callable[[str], None] = ignore_message
    ask: Callable[[str], str] = refuse_question

    @property
    def access(self) -> Access:
        """How the device is driven, as the devices take it."""
        return Access(self.agent, self.allow, self.app, self.say, self.ask, self.fixed_performance)

    def access_for(self, runtime: str) -> Access:
        """Return how the device is driven: this machine's Core ML by the one agent that calls it.

        Raises:
            DeviceError: there is no such agent here.
        """
        is_core_ml = self.device == "host" and runtime == "coreml"
        return replace(self.access, agent=core_ml_agent()) if is_core_ml else self.access


@dataclass(frozen=True)
class VariantOptions:
    """How models run; what is None is left to runtime and device."""

    runtime: str | None = target_option(
        None,
        "executorch or coreml; on the host also onnx and litert.",
        shown="coreml on iPhones, else executorch",
    )
    backend: str | None = target_option(None, "ExecuTorch delegate (xnnpack) or Core ML compute units (all).")
    precision: str | None = target_option(None, "fp32, fp16, int8 or mixed.", shown="the backend's default")
    threads: int | None = target_option(
        None, "Threads of ExecuTorch's pool.", shown="big cores, or half of all"
    )
    cores: str = advanced_option(
        "", "Cores that ExecuTorch's threads are pinned to, such as 4-8.", metavar="CORES"
    )
    sustained_performance: bool = advanced_option(
        False, "Ask an Android phone for its sustained performance mode; another variant than without."
    )

    def variant_for(self, kind: str) -> Variant:
        """Return how models run on a kind of device, without threads unless they are given.

        Raises:
            UsageError: there is no such variant.
        """
        runtime = self.runtime or ("coreml" if kind == "iphone" else "executorch")
        if runtime == "coreml" and self.threads is not None:
            raise UsageError(
                "--threads is for --runtime executorch; Core ML chooses its own", code="coreml_threads"
            )
        default = "all" if runtime == "coreml" else "cpu" if runtime in HOST_RUNTIMES else "xnnpack"
        chosen = runtime, self.backend or default, self.precision or "", self.threads or 0, self.cores
        return Variant(*chosen, self.sustained_performance)


@dataclass(frozen=True)
class Target(VariantOptions, DeviceOptions):
    """A device and how models run on it."""

    @classmethod
    def of(cls, target: Target | str) -> Target:
        """Return a target from the name of its device."""
        return cls(target) if isinstance(target, str) else target

    @cached_property
    def variant(self) -> Variant:
        """The variant as far as it is known before the device is asked.

        A simulated device has a runtime of its own in the place of ExecuTorch, and one thread.

        Raises:
            UsageError: there is no such variant.
            DeviceError: without a runtime, an unknown device.
        """
        if scenario_of(self.device) and self.runtime in (None, "executorch", "simulated"):
            return Variant(
                "simulated",
                self.backend or "",
                self.precision or "",
                self.threads or 1,
                self.cores,
                self.sustained_performance,
            )
        variant = self.variant_for("" if self.runtime else self.kind)
        if variant.runtime == "coreml":
            return variant
        pinned = len(parse_cores(variant.cores)) if variant.cores else 0
        return replace(variant, threads=self.threads or pinned or threads_by_default())

    @cached_property
    def kind(self) -> Kind:
        """The kind of device; errors as those of `kind_of`."""
        return kind_of(self.device, self.access)

    @contextmanager
    def found(self) -> Iterator[Device]:
        """Reserve the device until the end, and check that it can run the variant.

        A phone is checked, but not connected to: its screen would go dark while models are exported.

        Raises:
            DeviceError: there is no such device, it does not answer, or another process measures on it.
            UsageError: there is no such variant, or the device does not have its runtime.
        """
        variant = self.variant
        runs_root()  # whether measurements can be kept is found out before models are exported
        with resolve(self.device, self.access_for(variant.runtime)) as device, lock_device(device):
            if self.kind in ("host", "simulated"):
                hello = greet(device)
                check_runtime(device.name, hello, variant)
                self._warn(device, hello)
            else:
                device.check_ready()
            yield device

    @property
    def is_settled(self) -> bool:
        """Whether the variant is known before the device is asked."""
        return (
            bool(self.threads or self.cores)
            or self.kind in ("host", "simulated")
            or self.variant.threads == 0
        )

    def variant_on(self, device: Device) -> Variant:
        """Return the variant with the default threads of the phone's agent if none are given.

        Raises:
            DeviceError: the phone does not answer.
        """
        if self.kind in ("host", "simulated") or not self.variant.threads:
            return self.variant
        hello = greet(device)
        if not self.is_settled:
            return default_threads(hello, self.variant)
        self._warn(device, hello)
        return self.variant

    def _warn(self, device: Device, hello: HelloReply) -> None:
        if warning := threads_warning(device.name, hello, self.variant):
            self.say(warning)


def lut_name(device: Device, name: str | None) -> str:
    """Return the device's name in a LUT; UsageError if `name` calls an emulator a phone."""
    phone = known_phone(name) if name and device.name == EMULATOR else None
    if phone:
        raise UsageError(
            f"--name {name}: this is an emulator, not a {phone.title}; leave --name out", code="emulator_name"
        )
    return name or device.name


def greet(device: Device) -> HelloReply:
    """Who answers there; `DeviceError` where nobody does."""
    with device.connect() as client:
        return client.hello()

"""Latency of whole networks by a LUT, on its own device or, with wider intervals, on another (a proxy)."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from luts.format.latency import Prediction
from luts.format.lut import Lut
from luts.format.operator_latency import OperatorPrediction
from luts.format.operators import Operator
from luts.format.schema import DeviceInfo
from luts.format.store import LutRef, LutStore
from luts.format.table import Column, DrawnResult, Table
from orchestrator.agent.device import describe_host
from orchestrator.agent.programs import AGENTS
from orchestrator.devices.common.registry import known_phone
from orchestrator.devices.discover import resolve
from orchestrator.devices.host import scenario_of, simulated_program
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import Variant
from orchestrator.export.lower.operators import lower_with_operators, read_operators
from orchestrator.plan.plan import classifier_note, with_classifier_prices
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import Network, Networks, at_resolution, by_name, spec_of
from orchestrator.tasks.options import REQUIRED, StoreOptions, argument, option
from orchestrator.tasks.progress import Note, Progress, silent
from search.spaces import Arch
from search.spaces.plugins import load_plugin
from search.spaces.scope import covered_space

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class PredictOptions(StoreOptions):
    """Predict the latency of whole networks by a LUT: of their space, or of operators for any network."""

    networks: tuple[str, ...] = argument(
        REQUIRED,
        "Network by name, timm:NAME, or an architecture's JSON file (-: stdin); with a LUT of operators also a "
        ".pte, or FILE.py:FUNCTION that returns a module, alone or with its inputs.",
        metavar="NETWORK",
        flag="--model --arch",
        repeated=True,
    )
    lut: str = option(REQUIRED, "LUT, by name or path.")
    resolution: int | None = option(
        None, "Side of the input image in pixels.", minimum=1, shown="the network's own"
    )
    device: str | None = option(
        None, "Predict for this device; intervals are wider if the LUT is of another device."
    )


@dataclass(frozen=True)
class Predictions(DrawnResult):
    """Predicted latencies of networks by name; `operators` says whether they are made of operators."""

    by_name: Mapping[str, Prediction]
    operators: bool

    COLUMNS: ClassVar = (
        Column("arch", "network"),
        Column("ms", "ms", 3),
        Column("low", "low", 3),
        Column("high", "high", 3),
        Column("level", "level", percent=True),
        Column("basis", "interval from", spare=1),
    )
    OF_OPERATORS: ClassVar = (
        Column("outside", "outside", percent=True),
        Column("arithmetic", "arithmetic", percent=True),
        Column("memory", "memory", percent=True),
        Column("extrapolated", "extrapolated"),
    )
    OPERATORS: ClassVar = (
        Column("key", "operator", key=True),
        Column("count", "count"),
        Column("ms", "ms", 3),
        Column("share", "share", 1, percent=True),
        Column("arithmetic", "arithmetic", percent=True, spare=1),
        Column("memory", "memory", percent=True, spare=1),
    )

    def to_dict(self) -> list[dict[str, Any]]:
        """Return a row for each network; of operators with the fractions of its time, and all operators."""
        return [self._row(name, prediction) for name, prediction in self.by_name.items()]

    def _row(self, name: str, prediction: Prediction) -> dict[str, Any]:
        known = {"arch": name, **asdict(prediction)}
        row = {column.name: known[column.name] for column in self.COLUMNS}
        if not isinstance(prediction, OperatorPrediction):
            return row | {"weak": " ".join(prediction.weak_keys)}
        operators = [
            {**asdict(each), "share": each.ms / sum(other.ms for other in prediction.operators)}
            for each in prediction.operators
        ]
        parts = {
            part: sum(each["share"] * each[part] for each in operators)
            for part in ("arithmetic", "memory", "call")
        }
        outside = sum(each["share"] for each in operators if each["key"].startswith("portable."))
        return row | {
            "outside": outside,
            **parts,
            "extrapolated": bool(prediction.weak_keys),
            "uncertain": list(prediction.weak_keys),
            "operators": operators,
        }

    def report(self) -> Iterator[Table | str]:
        """Yield the networks, then the dearest operators of each and why its prediction is extrapolated."""
        rows = self.to_dict()
        weak = (Column("weak", "weakly known blocks"),)
        yield Table("", (*self.COLUMNS, *(self.OF_OPERATORS if self.operators else weak)), rows)
        for row in rows if self.operators else ():
            dearest = row["operators"][:DEAREST]
            yield Table(
                f"{row['arch']}: {len(dearest)} of {len(row['operators'])} operators", self.OPERATORS, dearest
            )
            if row["extrapolated"]:
                yield (
                    f"{row['arch']} is extrapolated: networks as uncertain mostly missed 10 %; "
                    f"least is known of {', '.join(row['uncertain'])}"
                )

    def draw(self) -> Any:
        """Draw a bar of operators for each network. Raises UsageError: the LUT is not of operators."""
        from orchestrator.report.figures import predictions_figure

        if not self.operators:
            raise UsageError(
                "predictions of a space's networks have no operators to draw; use a LUT of operators, or --json",
                code="option_does_not_apply",
            )
        return predictions_figure(self.to_dict())


def predict_latencies(options: PredictOptions, progress: Progress = silent) -> Predictions:
    """Return the latencies of networks on a LUT's device or on another; errors as `predict` and `proxy_for`."""
    store = options.open_store(progress)
    ref = store.resolve(options.lut)
    lut = store.load(ref)
    predicted = predict(lut, options.networks, options.resolution, progress)
    if options.device is not None and (proxy := proxy_for(ref, lut, options.device, store)) is not None:
        progress(Note(f"warning: {proxy.warning(ref)}"))
        predicted = {name: proxy.widen(prediction) for name, prediction in predicted.items()}
    return Predictions(predicted, lut.meta.operators is not None)


def predict(
    lut: Lut, networks: Networks, resolution: int | None = None, progress: Progress = silent
) -> dict[str, Prediction]:
    """Predict latencies by name, at each network's own resolution by default.

    A LUT of operators prices any network, which is exported if the cache does not have it. A note says where
    classifiers are priced that the LUT did not measure.

    Raises:
        UsageError: an unknown network, or one that the LUT can't price; the message says what is needed.
        InvalidArtifactError: a damaged file of an architecture or a program.
        BlocktimeError: a network can't be exported.
    """
    if lut.meta.operators is not None:
        keys = operators_of(networks, _exported_variant(lut), resolution, progress)
        return {name: lut.predict(own) for name, own in keys.items()}
    sized = {name: at_resolution(name, network, resolution) for name, network in _named(networks).items()}
    luts = {
        network.classes: lut
        for network in sized.values()
        if isinstance(network, Arch) and network.space == lut.meta.space
    }
    for classes in luts:
        luts[classes] = with_classifier_prices(lut, classes)
        if note := classifier_note(lut, luts[classes], classes):
            progress(Note(note))
    return {
        name: _predicted(luts.get(network.classes, lut) if isinstance(network, Arch) else lut, name, network)
        for name, network in sized.items()
    }


def predict_module(lut: Lut, module: nn.Module, *inputs: Tensor) -> Prediction:
    """Predict the latency of a PyTorch module by a LUT of operators, without inputs for an image of 224 pixels.

    Raises UsageError: the LUT is of a search space, or the module can't be exported, with torch's reason.
    """
    if lut.meta.operators is None:
        raise UsageError(
            f"the LUT is of {lut.meta.space}, which prices its own networks; use one of operators (bench profile "
            "--space operators)",
            code="not_priceable",
        )
    given, variant = inputs or _image(DEFAULT_SIDE), _exported_variant(lut)
    operators = _lowered(type(module).__name__, module.eval(), given, variant)
    return lut.predict([operator.key for operator in operators])


def _exported_variant(lut: Lut) -> Variant:
    """Return the variant that networks are exported for; a simulated device runs those of the host."""
    variant = Variant.parse(lut.meta.variant)
    return Variant("executorch", "xnnpack") if variant.is_simulated else variant


def _image(side: int) -> tuple[Tensor, ...]:
    import torch

    return (torch.zeros(1, 3, side, side),)


def operators_of(
    networks: Networks, variant: Variant, resolution: int | None, progress: Progress
) -> dict[str, list[str]]:
    """Return the keys of networks' operators by name, as exported for a variant; errors as `predict`."""
    found: dict[str, Sequence[Operator]] = {}
    specs: dict[str, ExportSpec] = {}
    for name, network in _named(networks).items():
        if not isinstance(network, str) or network.startswith("timm:"):
            specs[name] = spec_of(at_resolution(name, network, resolution), variant)
        elif network.endswith(".pte"):
            found[name] = read_operators(Path(network))
        else:
            found[name] = _lowered(network, *module_of(network, resolution or DEFAULT_SIDE), variant)
    exported = export_all(specs, progress=progress) if specs else {}
    found |= {name: read_operators(artifact.path) for name, artifact in exported.items()}
    return {name: [operator.key for operator in operators] for name, operators in found.items()}


def _named(networks: Networks) -> dict[str, Network]:
    """Return networks by name, `.pte` and `FILE.py:FUNCTION` as they are; timm's need no `timm:`."""
    if isinstance(networks, Mapping):
        return dict(networks)
    found: dict[str, Network] = {}
    for network in [networks] if isinstance(networks, Network) else networks:
        if isinstance(network, str) and (network.endswith(".pte") or ".py:" in network):
            found[network] = network
            continue
        try:
            found |= by_name(network)
        except UsageError as error:
            from timm import is_model  # imports torch

            if error.code != "unknown_network" or not is_model(str(network)):
                raise
            found |= by_name(f"timm:{network}")
    return found


def _lowered(
    name: str, module: nn.Module, inputs: tuple[Tensor, ...], variant: Variant
) -> Sequence[Operator]:
    """Return the operators of a module. Raises UsageError with torch's reason, and where, if it has none."""
    from orchestrator.export.lower import quiet  # imports torch

    try:
        with quiet():
            return lower_with_operators(module, inputs, precision=variant.precision)[1]
    except BlocktimeError as error:
        where = re.search(r"Caused by: (.*)", str(error.__cause__))
        sizes = ", ".join("x".join(map(str, x.shape)) for x in inputs)
        raise UsageError(
            f"{name} can't be exported for inputs of {sizes}: {error}{f' at {where[1]}' if where else ''}; change "
            "that, or give other inputs with the module",
            code=error.code,
        ) from error


def module_of(text: str, side: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the module of `FILE.py:FUNCTION` in eval mode, and its inputs, by default an image of this side.

    Raises:
        UsageError: the file can't be imported, or the function does not return a module.
    """
    import torch

    path, _, function = text.rpartition(":")
    made = getattr(load_plugin(path), function, None)
    made = made() if callable(made) else made
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, _image(side))
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    if not isinstance(module, torch.nn.Module) or not all(isinstance(x, torch.Tensor) for x in inputs):
        raise UsageError(
            f"{text} is not a function that returns a torch.nn.Module, alone or with its inputs; correct it",
            code="not_a_module",
        )
    return module.eval(), inputs


def _predicted(lut: Lut, name: str, network: Network) -> Prediction:
    """Predict a network; UsageError says whether its kind, space or resolution explain why blocks are missing."""
    if isinstance(network, str):
        raise UsageError(
            f"{name} does not consist of blocks of {lut.meta.space}; use a LUT of operators (bench profile --space "
            "operators), or measure it with bench measure",
            code="not_priceable",
        )
    if {entry.key for entry in lut.entries}.issuperset(network.keys()):
        return lut.predict(network)
    if not isinstance(network, Arch):
        raise UsageError(
            f"{name} is a published network, not one of a search space; measure it with bench measure",
            code="not_priceable",
        )
    if network.space != lut.meta.space:
        raise UsageError(
            f"{name} is of the space {network.space}, the LUT of {lut.meta.space}; "
            f"use a LUT of {network.space} (all: bench lut list), or profile the space",
            code="wrong_space",
        )
    covered = covered_space(lut)
    if network.resolution not in covered.resolutions:
        sides = ", ".join(str(side) for side in covered.resolutions)
        raise UsageError(
            f"{name} has {network.resolution} px, the LUT covers {sides} px; "
            f"profile with --resolution {network.resolution}, or predict with --resolution "
            f"{covered.resolutions[0]}",
            code="wrong_resolution",
        )
    return lut.predict(network)  # raises, and names the blocks


DEAREST = 10
"""Operators that are shown; JSON has all."""

DEFAULT_SIDE = 224
"""Pixels of a module whose function does not say them, as of most classifiers."""

HOSTS = ("host", *(f"host-{agent}" for agent in AGENTS))
"""Device names of LUTs that this machine's agents measured."""

MEMORY_TOLERANCE = 0.02
"""Relative: another kernel reports slightly more or less of the same memory."""


@dataclass(frozen=True)
class DeviceSpread:
    """Standard deviation of log latency between a LUT's device and others, estimated from `devices`."""

    log_sd: float
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Proxy:
    """A LUT used for another device than its own; `spread` is None if no second device with a LUT is known."""

    device: str
    spread: DeviceSpread | None

    @property
    def log_sd(self) -> float:
        """Standard deviation of log latency between devices; 0 if unknown."""
        return self.spread.log_sd if self.spread else 0.0

    def widen(self, prediction: Prediction) -> Prediction:
        """Return the prediction with an interval for this device; without a level if the spread is unknown."""
        if self.spread is None:
            return replace(prediction, level=None)
        return prediction.for_other_device(self.spread.log_sd)

    def warning(self, ref: LutRef) -> str:
        """Return what a user of the LUT's predictions for this device must know, in one line."""
        reliability = (
            "no second device has a LUT of this space, so the difference between devices is unknown, and intervals "
            f"and limits are those of {ref.device}"
            if self.spread is None
            else f"predictions may be off by a factor of {math.exp(1.96 * self.spread.log_sd):.2f}, "
            f"the difference between {', '.join(self.spread.devices)}; intervals and limits include it"
        )
        return (
            f"{ref} was measured on {ref.device}, not on {self.device}: {reliability}; "
            f"run bench lut adapt {ref} --device {self.device} to adapt it"
        )


def proxy_for(ref: LutRef, lut: Lut, device: str, store: LutStore) -> Proxy | None:
    """Return how a LUT is used for a device as a proxy; None if it is the device's own.

    A LUT is a device's own if it has the device's name or product type; for this machine, which every other machine
    calls `host` too, if model, processor and memory are the same.

    `device` is `host`, a phone's name or serial, `simulated[:SCENARIO]`, or the device name of a LUT in the store.

    Raises:
        DeviceError: unknown device, or no phone with this serial.
        UsageError: unknown scenario.
    """
    scenario, name = scenario_of(device), device
    if scenario is not None:
        name = simulated_program(scenario).device_name
    elif not (
        name in HOSTS or known_phone(name) or name in {ref.device, *(each.device for each in store.list())}
    ):
        name = resolve(name).name
    phone = known_phone(name)
    if name in HOSTS:
        own = _same_machine(lut.meta.device)
    else:
        own = name == ref.device or (phone is not None and lut.meta.device.model in phone.product_types)
    return None if own else Proxy(device, device_spread(store, ref))


def device_spread(store: LutStore, ref: LutRef) -> DeviceSpread | None:
    """Return the spread of log latency over pairs of known devices; None with fewer than two.

    Latencies are sums of a LUT's blocks, one version per device, over the blocks that all have in common: of the
    LUT's own variant if two devices have it, else of its runtime. Simulated devices count only among each other.
    """
    family = [name for name in sorted({each.name for each in store.list()}) if _comparable(name, ref)]
    sums: dict[tuple[str, str], dict[str, float]] = {}
    for name in family:
        try:
            known = store.current(name)
            sums[known.device, known.variant] = {entry.key: entry.ms for entry in store.load(known).entries}
        except InvalidArtifactError:
            continue
    own = {device: ms for (device, variant), ms in sums.items() if variant == ref.variant}
    return _spread(own) or _spread({device: ms for (device, _), ms in reversed(sums.items())} | own)


def _comparable(name: str, ref: LutRef) -> bool:
    """Return whether a LUT is of the same space and runtime; simulated devices have a runtime of their own."""
    _, space, variant = name.split("/")
    return space == ref.space and variant.split("-")[0] == ref.variant.split("-")[0]


def _spread(sums: Mapping[str, Mapping[str, float]]) -> DeviceSpread | None:
    common = set.intersection(*(set(entries) for entries in sums.values())) if sums else set()
    if len(sums) < 2 or not common:
        return None
    logs = np.log([sum(entries[key] for key in common) for entries in sums.values()])
    differences = [one - other for i, one in enumerate(logs) for other in logs[:i]]
    return DeviceSpread(float(np.sqrt(np.mean(np.square(differences)))), tuple(sums))


def _same_machine(device: DeviceInfo) -> bool:
    here = describe_host()
    return (here.model, here.soc or "") == (device.model, device.soc) and math.isclose(
        here.memory_bytes, device.memory_bytes, rel_tol=MEMORY_TOLERANCE
    )

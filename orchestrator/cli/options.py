"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, get_args

import typer

from luts.errors import UsageError
from luts.schema import NAME_PATTERN
from orchestrator.cli.output import ask, say
from orchestrator.cores import usable_cores
from orchestrator.devices.base import Access
from orchestrator.names import unknown
from orchestrator.simulate.device import scenario_of
from orchestrator.variant import Variant
from orchestrator.wire.messages import Caveat
from search.spaces import Arch, Published, get_space, list_archs, list_published

DeviceOption = Annotated[
    str,
    typer.Option(
        "--device",
        help="host, a phone's name (iphone13, pixel8), or its serial; simulated[:SCENARIO] to try a plan.",
    ),
]
AgentOption = Annotated[
    str, typer.Option("--agent", help="Language of the host's agent: python, kotlin or swift.")
]
AllowOption = Annotated[
    str | None,
    typer.Option(
        "--allow",
        help="Measure a phone although: debuggable-build, power-save, low-battery, throttled, background. "
        "Every result says so.",
    ),
]
AppOption = Annotated[
    Path | None,
    typer.Option("--app", help="The benchmark app (.apk, signed .ipa) to put on the phone first."),
]
RuntimeOption = Annotated[str, typer.Option("--runtime", help="executorch or coreml.")]
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", help="ExecuTorch delegate (xnnpack) or Core ML compute units (all)."),
]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="fp32, fp16, int8; the backend's default.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", help="Threads of ExecuTorch's pool; all cores.")
]
BudgetOption = Annotated[
    str, typer.Option("--budget", help="Time after which no further pass is begun: 90s, 15m or 2h.")
]
ResolutionOption = Annotated[
    int | None,
    typer.Option("--resolution", min=1, help="Side of the input image in pixels; the network's own."),
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Exporting processes; all cores.")
]

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def parse_access(agent: str, allow: str | None, app: Path | None) -> Access:
    """How the options say that a device is driven."""
    allowed = [reason.strip().replace("-", "_") for reason in (allow or "").split(",") if reason.strip()]
    for reason in allowed:
        if reason not in get_args(Caveat):
            known = ", ".join(caveat.replace("_", "-") for caveat in get_args(Caveat))
            raise UsageError(f"--allow {reason!r}: expected one or more of {known}, with commas between")
    return Access(agent, tuple(allowed), app, say, ask)


def parse_budget(text: str) -> float:
    """Seconds of `90s`, `15m` or `2h`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([smh])", text)
    if match is None:
        raise UsageError(f"--budget {text!r}: expected a time such as 90s, 15m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def parse_name(text: str) -> str:
    """A device's name as LUTs may have it."""
    if re.fullmatch(NAME_PATTERN, text) is None:
        raise UsageError(
            f"--name {text!r}: expected small letters, digits, dots and dashes, such as pixel8-work"
        )
    return text


def parse_variant(
    device: str, runtime: str, backend: str | None, precision: str | None, threads: int | None
) -> Variant:
    """The variant that the options describe.

    ExecuTorch gets as many threads as there are cores. A simulated device has a runtime of its own in the place of
    ExecuTorch, and one thread.
    """
    if scenario_of(device) and runtime in ("executorch", "simulated"):
        return Variant("simulated", backend or "", precision or "", threads or 1)
    if runtime == "coreml":
        if threads is not None:
            raise UsageError("--threads is for executorch; Core ML chooses its own")
        return Variant("coreml", backend or "all", precision or "")
    return Variant(runtime, backend or "xnnpack", precision or "", threads or usable_cores())


def parse_deployment_target(text: str) -> str:
    """`iOS17` of `17` or `iOS17`; which there are is the exporter's to say."""
    match = re.fullmatch(r"(?:ios)?([0-9]{1,2})", text.lower())
    if match is None:
        raise UsageError(f"--ios {text!r}: expected a version such as 17")
    return f"iOS{match[1]}"


def parse_latency(text: str, option: str = "--latency") -> float:
    """Milliseconds of `10ms` or `10`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*(?:ms)?", text)
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{option} {text!r}: expected milliseconds, e.g. 10ms")
    return float(match[1])


def parse_count(text: str, option: str) -> float:
    """A number with an optional K, M or G, e.g. `1.8M`."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)([KMG]?)", text)
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{option} {text!r}: expected a number such as 1.8M")
    return float(match[1]) * {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9}[match[2]]


def named_arch(name: str) -> Arch | Published | None:
    """The network of our blocks that `--model` names; None for timm's networks, which export knows.

    Raises:
        UsageError: neither.
    """
    if name.startswith("timm:"):
        return None
    known: dict[str, Arch | Published] = {**list_archs(), **list_published()}
    if name not in known:
        raise UsageError(unknown("network", name, known, "all: bench arch list; or timm:NAME"))
    return known[name]


def at_resolution(name: str, network: Arch | Published, resolution: int | None) -> Arch | Published:
    """A network of ours at another input resolution; None leaves it as it is.

    Raises:
        UsageError: its space does not have that resolution, or it is of one resolution only.
    """
    if resolution is None or resolution == network.resolution:
        return network
    taken = get_space(network.space).resolutions if isinstance(network, Arch) else (network.resolution,)
    if not isinstance(network, Arch) or resolution not in taken:
        sizes = ", ".join(str(side) for side in taken)
        raise UsageError(f"{name} can't take {resolution} px; it takes {sizes} px")
    return network.with_resolution(resolution)


def timm_at(name: str, resolution: int | None) -> str:
    """`timm:NAME` at another resolution than its own, which the exporter checks; None leaves it as it is."""
    return name if resolution is None else f"{name.partition('@')[0]}@{resolution}"

"""Options that several commands share, and how their text becomes values."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_type_hints

import typer

from luts.format.errors import UsageError
from luts.format.schema import NAME_PATTERN
from orchestrator.cli.output import ask, say
from orchestrator.devices.common.device import Access
from orchestrator.tasks.networks import Networks, for_task
from orchestrator.tasks.target import Target
from orchestrator.wire.messages import Caveat
from search.spaces.arch import MAX_CLASSES

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
FixedPerformanceOption = Annotated[
    bool,
    typer.Option(
        "--fixed-performance",
        help="Fix an Android phone's clocks, below the highest; they are freed again at the end.",
    ),
]
PaceOption = Annotated[
    str | None,
    typer.Option("--pace", help="Calls a second, such as 30/s, as in an app; back to back without it."),
]
SelfTestOption = Annotated[
    bool,
    typer.Option(
        "--self-test/--no-self-test",
        help="Ask the device first what following another model, and company in memory, cost a model; seconds.",
    ),
]
RuntimeOption = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="executorch or coreml; coreml on iPhones, else executorch. On the host onnx and litert too.",
    ),
]
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", help="ExecuTorch delegate (xnnpack) or Core ML compute units (all)."),
]
PrecisionOption = Annotated[
    str | None, typer.Option("--precision", help="fp32, fp16, int8; the backend's default.")
]
Fp32Option = Annotated[
    list[str] | None,
    typer.Option(
        "--fp32",
        help="What --precision mixed keeps out of int8: places of blocks (4), paths of modules (blocks.2), or the "
        "file of bench sensitivity; repeatable.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads", help="Threads of ExecuTorch's pool; the cores that are not little, or half of them."
    ),
]
CoresOption = Annotated[
    str | None,
    typer.Option(
        "--cores", help="Cores that ExecuTorch's threads are pinned to, such as 4-8; the system chooses."
    ),
]
BudgetOption = Annotated[
    str, typer.Option("--budget", help="Time after which no further pass is begun: 90s, 15m or 2h.")
]
ResolutionOption = Annotated[
    int | None,
    typer.Option("--resolution", min=1, help="Side of the input image in pixels; the network's own."),
]
NetworksOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "--arch",
        help="Network by name, JSON file of an architecture (-: stdin), or timm:NAME; repeatable.",
    ),
]
ArchOption = Annotated[
    str, typer.Option("--arch", "--model", help="Architecture by name, or its JSON file (-: stdin).")
]
WorkersOption = Annotated[
    int | None, typer.Option("--workers", min=1, help="Exporting processes; all cores.")
]


@dataclass(frozen=True)
class VariantOptions:
    """How models run: runtime, delegate, precision, threads and cores."""

    runtime: RuntimeOption = None
    backend: BackendOption = None
    precision: PrecisionOption = None
    threads: ThreadsOption = None
    cores: CoresOption = None


@dataclass(frozen=True)
class AccessOptions:
    """How a device is driven."""

    agent: AgentOption = "python"
    allow: AllowOption = None
    app: AppOption = None
    fixed_performance: FixedPerformanceOption = False

    def parse(self) -> Access:
        """The device's access. Raises UsageError for a reason to allow that there is not."""
        allowed = [
            reason.strip().replace("-", "_") for reason in (self.allow or "").split(",") if reason.strip()
        ]
        for reason in allowed:
            if reason not in get_args(Caveat):
                known = ", ".join(caveat.replace("_", "-") for caveat in get_args(Caveat))
                raise UsageError(f"--allow {reason!r}: expected one or more of {known}, with commas between")
        return Access(self.agent, tuple(allowed), self.app, say, ask, self.fixed_performance)


@dataclass(frozen=True)
class TaskOptions:
    """What networks are for: other tasks than classification have heads of their own."""

    task: Annotated[
        str | None,
        typer.Option(help="detection or segmentation: networks with that head; by name also NAME.ssdlite20."),
    ] = None
    classes: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_CLASSES, help="Categories of --task, the background not among them; 80, 20."
        ),
    ] = None

    def of(self, networks: Sequence[str] | None) -> Networks:
        """The networks that were given with that head. Raises UsageError for a task that there is not."""
        return for_task(networks or (), self.task, self.classes)


def target_of(device: str, variant: VariantOptions, access: AccessOptions) -> Target:
    """The device and how models run on it, as the options say."""
    how = access.parse()
    return Target(
        device, variant.runtime, variant.backend, variant.precision, variant.threads, how, variant.cores or ""
    )


def with_blocks(command: Callable[..., None]) -> Callable[..., None]:
    """The command with, in the place of each parameter that is a dataclass, an option for each of its fields.

    Options stand in the help in the order of the parameters, of which a command takes all but the first few by
    keyword, so that a block needs no default.

    Raises:
        TypeError: two options have the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    signature = inspect.signature(command)
    blocks = {name: hints[name] for name in signature.parameters if dataclasses.is_dataclass(hints[name])}
    options: dict[str, inspect.Parameter] = {}
    for parameter in signature.parameters.values():
        for option in _options_of(parameter, hints[parameter.name]):
            if option.name in options:
                raise TypeError(f"{command.__name__} has two options of the name {option.name}")
            options[option.name] = option

    @functools.wraps(command)
    def expanded(**given: Any) -> None:
        values = {
            name: block(**{field.name: given.pop(field.name) for field in dataclasses.fields(block)})
            for name, block in blocks.items()
        }
        command(**given, **values)

    expanded.__signature__ = signature.replace(parameters=list(options.values()))  # type: ignore[attr-defined]
    return expanded


def _options_of(parameter: inspect.Parameter, hint: Any) -> Iterator[inspect.Parameter]:
    """One of an ordinary parameter, all of a block; by keyword, since a default may stand before none."""
    if not dataclasses.is_dataclass(hint):
        yield parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)
        return
    hints = get_type_hints(hint, include_extras=True)
    for field in dataclasses.fields(hint):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name]
        )


def parse_name(text: str, option: str = "--name", example: str = "pixel8-work") -> str:
    """A device's name, or another part of a LUT's."""
    if re.fullmatch(NAME_PATTERN, text) is None:
        raise UsageError(
            f"{option} {text!r}: expected small letters, digits, dots and dashes, such as {example}"
        )
    return text


def parse_deployment_target(text: str) -> str:
    """`iOS17` of `17` or `iOS17`; which there are is the exporter's to say."""
    match = re.fullmatch(r"(?:ios)?([0-9]{1,2})", text.lower())
    if match is None:
        raise UsageError(f"--ios {text!r}: expected a version such as 17")
    return f"iOS{match[1]}"


def parse_heads(text: str | None) -> tuple[int, ...]:
    """Numbers of classes of `10,100,1000`; none of None."""
    heads = [int(part) if part.isdecimal() else 0 for part in text.split(",")] if text is not None else []
    if not all(0 < number <= MAX_CLASSES for number in heads):
        raise UsageError(f"--heads {text!r}: expected numbers of classes, e.g. 10,100,1000")
    return tuple(heads)


def parse_resolutions(text: str | None) -> tuple[int, ...] | None:
    """`256` or `192,256` as numbers; None stays None."""
    if text is None:
        return None
    try:
        return tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError as error:
        raise UsageError(f"--resolution {text!r}: expected numbers, e.g. 256 or 192,256") from error

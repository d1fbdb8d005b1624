"""All commands of `bench`: where each is declared, and its line in `bench --help`.

The table is static so that `bench --help` and `bench --version` import no command.
"""

from __future__ import annotations

from dataclasses import dataclass

MEASURE, SEARCH, TABLES, SET_UP = "Measure", "Search and train", "Tables", "Set-up"

FLOWS = (
    ("Time a network", "bench measure mobilevit-xs timm:resnet18 --device host"),
    ("Make a LUT", "bench profile --space autovit-nano --device host"),
    ("Find a network", "bench search --lut LUT --latency 5ms"),
)
"""What most people come for, a line each."""


@dataclass(frozen=True)
class CommandInfo:
    """A command: its panel and line in the help, and the module of `orchestrator.cli` that declares it."""

    panel: str
    module: str
    summary: str


COMMANDS = {
    "measure": CommandInfo(MEASURE, "measure", "latency of networks, measured together"),
    "measure suite": CommandInfo(MEASURE, "measure", "published networks next to their papers' figures"),
    "measure sustained": CommandInfo(MEASURE, "measure", "one network for minutes: heat and clock"),
    "measure runtimes": CommandInfo(MEASURE, "measure", "ExecuTorch, ONNX Runtime and LiteRT"),
    "compare": CommandInfo(MEASURE, "networks", "accuracy next to latency, size and memory"),
    "breakdown": CommandInfo(MEASURE, "measure", "latency by kind of operation"),
    "blocks": CommandInfo(MEASURE, "measure", "rank token mixers by latency at equal width"),
    "runs": CommandInfo(MEASURE, "runs", "past measurements, and the latencies of one"),
    "report": CommandInfo(MEASURE, "report", "self-contained HTML report of a run or a LUT"),
    "space": CommandInfo(SEARCH, "space", "list and show search spaces"),
    "arch": CommandInfo(SEARCH, "space", "list, show and sample architectures"),
    "train": CommandInfo(SEARCH, "train", "train a supernet, or one network of it"),
    "train detection": CommandInfo(SEARCH, "train", "train a detector on a trained backbone"),
    "train segmentation": CommandInfo(SEARCH, "train", "train a segmentation network on a trained backbone"),
    "train qat": CommandInfo(SEARCH, "train", "fine-tune a network for int8"),
    "search": CommandInfo(SEARCH, "search", "most accurate architecture within a latency"),
    "eval": CommandInfo(SEARCH, "networks", "accuracy of an architecture with a supernet's weights"),
    "sensitivity": CommandInfo(SEARCH, "networks", "int8 sensitivity of a network's blocks"),
    "export": CommandInfo(SEARCH, "networks", "export networks, checked against PyTorch"),
    "export blocks": CommandInfo(SEARCH, "networks", "export every block of a space"),
    "profile": CommandInfo(TABLES, "profile", "measure every block of a space: a new LUT"),
    "fleet": CommandInfo(TABLES, "profile", "profile on many phones at once"),
    "bundle": CommandInfo(TABLES, "profile", "write a profile as a file that a phone runs alone"),
    "import": CommandInfo(TABLES, "profile", "make a LUT of the journal that a bundle left"),
    "validate": CommandInfo(TABLES, "profile", "compare a LUT's predictions with new measurements"),
    "predict": CommandInfo(TABLES, "profile", "latency of any network by a LUT, without the device"),
    "lut": CommandInfo(TABLES, "lut", "list, show, share, adapt and verify LUTs"),
    "doctor": CommandInfo(SET_UP, "doctor", "check packages, tools and phones"),
    "doctor native": CommandInfo(SET_UP, "doctor", "build the native timing functions (needs g++)"),
    "doctor cache": CommandInfo(SET_UP, "doctor", "show or clear the cache of exported models"),
    "devices": CommandInfo(SET_UP, "doctor", "attached devices, and what to do about the rest"),
    "agent": CommandInfo(SET_UP, "doctor", "run the host's measuring agent in the foreground"),
}
"""By name; names of two words are modes of the first word's command."""

MOVED_COMMANDS = {
    "native": "bench doctor native",
    "cache": "bench doctor cache",
    "lut predict": "bench predict NETWORK --lut LUT",
}
"""Former names of commands: the command to type instead."""

MOVED: dict[str, dict[str, str]] = {
    "export": {"--blocks": "bench export blocks SPACE", "--space": "bench export blocks SPACE"},
    "train": {"--qat": "bench train qat", "--task": "bench train detection, or bench train segmentation"},
    "measure": {
        "--suite": "bench measure suite SUITE",
        "--sustained": "bench measure sustained NETWORK --duration 10m",
        "--runtime onnx": "bench measure runtimes NETWORK --runtime onnx",
        "--runtime litert": "bench measure runtimes NETWORK --runtime litert",
    },
}
"""Options that became commands, by command, and by flag or flag with its first value: what to type instead."""


def root_help() -> str:
    """Return the help of `bench` itself: three flows, and the commands by panel."""
    width = max(map(len, (*COMMANDS, *(title for title, _ in FLOWS)))) + 2
    lines = [
        "Usage: bench COMMAND [OPTIONS] [ARGS]...",
        "",
        "Milliseconds per building block of a mobile vision network, and architecture",
        "search with them.",
        "",
        *(f"  {title:<{width}}{command}" for title, command in FLOWS),
    ]
    for panel in dict.fromkeys(info.panel for info in COMMANDS.values()):
        lines += ["", panel]
        lines += [
            f"  {name:<{width}}{info.summary}" for name, info in COMMANDS.items() if info.panel == panel
        ]
    options = {
        "--version": "print the version",
        "--import FILE": "import your own blocks or spaces; with any command",
        "--debug": "print the traceback of an error; with any command",
        "--install-completion": "install completion for this shell",
        "--help": "help of bench, or of a command: bench measure --help",
    }
    lines += ["", "Options", *(f"  {name:<{width + 3}}{text}" for name, text in options.items())]
    return "\n".join(lines)

"""Write what a command printed with `--json` into its section of docs/results.md.

`bench measure --suite autovit-table2 --device host --json > F`, then
`python -m tools.results suite F --command "..."`; `blocks` and `breakdown` likewise. What follows from the figures
is written by hand around the sections.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.export.lower.kinds import KINDS
from tools.documents import stamp, write_section

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "results.md"

Json = Mapping[str, Any]

METHODS = {"tracer": "event tracer", "removal": "removal"}


def main(arguments: Sequence[str] | None = None) -> None:
    """Render one file."""
    parser = argparse.ArgumentParser(prog="python -m tools.results", description=__doc__)
    parser.add_argument("section", choices=SECTIONS)
    parser.add_argument("file", type=Path, help="what the command printed with --json")
    parser.add_argument("--command", required=True, help="the command, as a reader would type it")
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    given = parser.parse_args(arguments)
    printed = json.loads(given.file.read_text(encoding="utf-8"))
    body = SECTIONS[given.section](printed)
    simulated = " SIMULATED: not measured on any device." if printed.get("simulated") else ""
    write_section(
        given.document, given.section, f"{body}\n\n{printed['variant']}.{simulated} {stamp(given.command)}"
    )


def suite(printed: Json) -> str:
    """Networks in the order of their measured latency."""
    rows = sorted(printed["networks"], key=lambda row: (row["ms"] is None, row["ms"] or 0))
    lines = [
        _row(
            row["row"],
            _number(row["params"], 1e6, 2),
            _number(row["conv_linear_macs"], 1e9, 2),
            _number(row["all_macs"], 1e9, 2),
            _with_interval(row["ms"], row["ci_low"], row["ci_high"], 2) if row["ms"] else row["failure"],
            row["rank"],
            row["shared_rank"],
            _number(row["published_ms"], 1, 1),
            row["published_rank"],
            _number(row["published_top1_percent"], 1, 1),
            row.get("delegates"),
            sum((row["outside"] or {}).values()),
        )
        for row in rows
    ]
    head = _head(
        "network",
        "parameters, M",
        "conv+linear MACs, G",
        "all MACs, G",
        "ms (95 %)",
        "rank",
        "of shared",
        "paper's ms",
        "its rank",
        "paper's top-1, %",
        "delegates",
        "operators outside",
    )
    tau = (
        f"Kendall's tau of measured and published latency: {printed['kendall_tau']:.2f} over the "
        f"{printed['kendall_tau_networks']} networks that have both (`of shared` ranks these alone). "
        f"Noise floor {100 * printed['noise_floor']:.2f} %."
    )
    return "\n".join([head, *lines, "", tau])


def blocks(printed: Json) -> str:
    """Mixers, then layers; the fastest of each number of tokens first."""
    head = _head(
        "tokens N",
        "rank",
        "block",
        "one more, ms (95 %)",
        "alone, ms",
        "parameters",
        "all MACs, M",
        "ns per MAC",
        "MACs in N and d",
        "delegates, operators outside (three copies)",
    )
    lines = [
        _row(
            row["tokens"],
            row["rank"],
            row["block"],
            _with_interval(row["ms"], row["ms_low"], row["ms_high"], 4),
            f"{row['alone_ms']:.4f}",
            f"{row['params']:,}",
            _number(row["total_macs"], 1e6, 2),
            "-" if row["ns_per_mac"] is None else f"{row['ns_per_mac']:.4f}",
            row["complexity"],
            f"{row['delegates']}, {sum(int(part.rpartition('x')[2]) for part in row['outside'].split())}",
        )
        for row in printed["blocks"]
    ]
    left_out = [f"Left out: {line}." for line in printed["left_out"]]
    return "\n".join([head, *lines, "", f"Noise floor {100 * printed['noise_floor']:.2f} %.", *left_out])


def breakdown(printed: Json) -> str:
    """A row a network and method: milliseconds by kind, and what is left unexplained."""
    head = _head("network", "by", "whole, ms", *KINDS, "unexplained")
    lines = [
        _row(
            network["model"],
            METHODS[method],
            f"{item['whole_ms']:.3f}",
            *(_share(item["shares"].get(kind)) for kind in KINDS),
            f"{item['unexplained_ms']:.3f} ({item['unexplained_ms'] / item['whole_ms']:.0%})",
        )
        for network in printed["networks"]
        for method, item in network["by"].items()
    ]
    return "\n".join([head, *lines])


SECTIONS: Mapping[str, Callable[[Json], str]] = {"suite": suite, "blocks": blocks, "breakdown": breakdown}


def _head(*cells: str) -> str:
    return f"{_row(*cells)}\n{_row(*('---' for _ in cells))}"


def _row(*cells: object) -> str:
    return "| " + " | ".join("-" if cell is None else str(cell) for cell in cells) + " |"


def _number(value: float | None, unit: float, digits: int) -> str:
    return "-" if value is None else f"{value / unit:.{digits}f}"


def _with_interval(value: float, low: float, high: float, digits: int) -> str:
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _share(share: Json | None) -> str:
    if share is None:
        return "-"
    if share["ci_low"] is None:
        return f"{share['ms']:.3f}"
    return _with_interval(share["ms"], share["ci_low"], share["ci_high"], 3)


if __name__ == "__main__":
    main()

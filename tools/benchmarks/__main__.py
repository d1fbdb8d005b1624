"""Measure what docs/benchmarks.md states and print the tables: `python -m tools.benchmarks [NAME...] [--json]`."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

from tools.tables import log, show

BENCHMARKS = (
    "accuracy",
    "agents",
    "controls",
    "coreml",
    "exports",
    "fleet",
    "heads",
    "hybrid",
    "lut",
    "lut_minutes",
    "outputs",
    "search",
    "supernet_step",
    "transfer",
    "transfer_host",
)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmarks that are named, or all."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", choices=[*BENCHMARKS, []], metavar="NAME", help=", ".join(BENCHMARKS)
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    given = parser.parse_args(arguments)
    for name in given.names or BENCHMARKS:
        log(f"benchmark {name} ...")
        show(importlib.import_module(f"tools.benchmarks.{name}").main(), as_json=given.json)


if __name__ == "__main__":
    main()

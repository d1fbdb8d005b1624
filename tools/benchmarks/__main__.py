"""Measure what docs/benchmarks.md states and print the tables: `python -m tools.benchmarks [NAME...] [--json]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from tools.tables import entry_point, log, show

BENCHMARKS = {
    "accuracy": "accuracy:main",
    "agents": "agents:main",
    "blocks_from_operators": "operators:blocks",
    "controls": "controls:main",
    "coreml": "exports:export_coreml",
    "delegate_latencies": "lowerings:delegate_latencies",
    "delegates": "lowerings:delegates",
    "exports": "exports:export_plan",
    "fleet": "fleet:main",
    "lowerings": "lowerings:main",
    "operator_transfer": "operators:transfer",
    "operators": "operators:main",
    "outputs": "torch_host:time_outputs",
    "search": "search:main",
    "supernet_step": "torch_host:time_steps",
    "transfer": "transfer:main",
}
"""Benchmarks by name: module and function of `tools.benchmarks`."""


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
        show(entry_point("tools.benchmarks", BENCHMARKS[name])(), as_json=given.json)


if __name__ == "__main__":
    main()

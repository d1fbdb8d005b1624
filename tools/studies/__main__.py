"""Run a study: print its tables in Markdown (or JSON), draw its figures, and resume what was interrupted.

Example: `python -m tools.studies head_similarity --data cifar10:FILE.npz --seeds 2`
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence

from luts.format.errors import BlocktimeError
from orchestrator.wire.errors import exit_code
from tools.studies.shared import Options
from tools.tables import entry_point, show

STUDIES = {
    "attention_accuracy": "attention:measure_accuracy",
    "attention_share": "attention:measure_latency",
    "boundaries": "boundaries:main",
    "detection": "detection:main",
    "distillation": "supernets:compare_teachers",
    "front": "macro:draw_front",
    "head_similarity": "heads:compare_heads",
    "importance": "heads:compare_channels",
    "inheritance": "supernets:compare_inherited",
    "int8": "int8:main",
    "lengths": "macro:compare_lengths",
    "mixers": "kinds:compare_mixers",
    "objectives": "objectives:main",
    "positions": "kinds:compare_positions",
    "promise": "macro_winners:find_winners",
    "ranges": "supernets:compare_ranges",
    "ranking": "macro:rank_networks",
    "reductions": "kinds:compare_reductions",
    "strategies": "macro_search:compare_strategies",
    "winners": "winners:compare_winners",
}
"""Studies by name: module and function of `tools.studies`, called with `Options`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one study."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--json", action="store_true", help="print JSON instead of Markdown")
    for field in dataclasses.fields(Options):
        flag, (help_text, parse) = "--" + field.name.replace("_", "-"), field.metadata.values()
        if parse is bool:
            parser.add_argument(flag, action="store_true", help=help_text)
        else:
            parser.add_argument(flag, type=parse, default=field.default, help=help_text)
    try:
        given = vars(parser.parse_args(arguments))
        study, as_json = given.pop("study"), given.pop("json")
        tables = entry_point("tools.studies", STUDIES[study])(Options(**given))
    except BlocktimeError as error:
        print(f"studies: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    show(tables, as_json=as_json)


if __name__ == "__main__":
    main()

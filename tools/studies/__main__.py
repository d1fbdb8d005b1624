"""Run a study: print its tables in Markdown (or JSON), draw its figures, and resume what was interrupted.

Example: `python -m tools.studies head_similarity --data cifar10:FILE.npz --seeds 2`
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from luts.format.errors import BlocktimeError
from orchestrator.wire.errors import exit_code
from tools.studies.shared import Options
from tools.tables import entry_point, show

STUDIES = {
    "attention_accuracy": "attention:measure_accuracy",
    "attention_share": "attention:measure_latency",
    "boundaries": "boundaries:main",
    "compare": "exported:compare_winners",
    "detection": "detection:main",
    "distillation": "supernets:compare_teachers",
    "efficientvit": "efficientvit:main",
    "front": "macro:draw_front",
    "head_similarity": "attention:compare_heads",
    "importance": "attention:compare_channels",
    "inheritance": "supernets:compare_inherited",
    "int8": "exported:compare_precisions",
    "promise": "macro_search:find_winners",
    "ranges": "supernets:compare_ranges",
    "ranking": "macro:rank_networks",
    "runtimes": "exported:compare_runtimes",
    "sampler": "supernets:compare_sampling",
    "strategies": "macro_search:compare_strategies",
    "winners": "supernets:compare_winners",
}
"""Studies by name: module and function of `tools.studies`, called with `Options`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one study."""
    given = vars(_parser().parse_args(arguments))
    study, as_json = given.pop("study"), given.pop("json")
    try:
        tables = entry_point("tools.studies", STUDIES[study])(Options(**given))
    except BlocktimeError as error:
        print(f"studies: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    show(tables, as_json=as_json)


def _parser() -> argparse.ArgumentParser:
    default = {field.name: field.default for field in dataclasses.fields(Options)}
    parser = argparse.ArgumentParser(
        prog="python -m tools.studies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("study", choices=STUDIES)
    add("--data", help="image source as in `bench train`: npz:FILE, cifar10:DIR, ...")
    add("--quick", action="store_true", help="tiny networks and few images: check that the study works")
    add("--seeds", type=_positive, default=default["seeds"], help="trainings of each kind")
    add("--epochs", type=_positive, default=default["epochs"], help="epochs of each training")
    add("--alone-epochs", type=_positive, help="epochs of networks trained on their own (default: --epochs)")
    add("--jobs", type=_positive, default=os.cpu_count() or 1, help="processes that train in parallel")
    add("--device", default=default["device"], help="device that latency is measured on")
    add(
        "--budget",
        dest="budget_s",
        type=_seconds,
        default="5m",
        help="time limit of a measurement: 90s, 5m, 2h",
    )
    add("--pictures", type=Path, default=default["pictures"], help="folder of the figures")
    add("--truth", type=Path, help="nas-bench-macro.json: published accuracies")
    add(
        "--lut",
        default=default["lut"],
        help="LUT that prices networks; `boundaries` takes several with commas",
    )
    add("--supernet", type=Path, help="folder that `bench train --arch` wrote, for `int8`")
    add("--on", default=default["on"], help="device of training and evaluation: auto, cpu, cuda or mps")
    add("--json", action="store_true", help="print JSON instead of Markdown")
    return parser


def _seconds(text: str) -> float:
    return float(text.rstrip("smh")) * {"m": 60, "h": 3600}.get(text[-1:], 1)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


if __name__ == "__main__":
    main()

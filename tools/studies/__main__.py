"""Run a study and write its section of docs/results.md: `python -m tools.studies head_similarity --data npz:FILE`.

With `--quick` a study runs on next to nothing in seconds, and only prints what it would write.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tools.studies
from luts.format.errors import BlocktimeError, UsageError
from orchestrator.wire.errors import exit_code
from tools.documents import stamp, write_section
from tools.studies._options import Options

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "results.md"
STUDIES = [m.name for m in pkgutil.iter_modules(tools.studies.__path__) if not m.name.startswith("_")]

TRAINED = ("data", "seeds", "epochs")
TYPED: dict[str, tuple[str, ...]] = {
    "attention_accuracy": (*TRAINED, "device", "budget"),
    "attention_share": ("device", "budget"),
    "boundaries": ("lut",),
    "compare": ("data", "epochs", "lut", "device", "budget"),
    "detection": (*TRAINED, "lut", "device", "budget"),
    "efficientvit": ("device", "budget"),
    "front": ("truth", "lut"),
    "inheritance": (*TRAINED, "alone_epochs"),
    "int8": ("supernet", "data", "epochs", "device", "budget"),
    "promise": ("truth", *TRAINED, "device", "lut"),
    "ranking": ("truth", *TRAINED),
    "runtimes": ("device", "budget"),
    "strategies": ("truth", "seeds"),
    "winners": (*TRAINED, "alone_epochs", "lut"),
}
"""Options that decide a study's section, where they are others than `TRAINED`."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one study."""
    given = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        pictures = Path(scratch) if given.quick else given.document.parent / "pictures"
        try:
            options = Options(
                data=given.data,
                quick=given.quick,
                seeds=given.seeds,
                epochs=given.epochs,
                jobs=given.jobs,
                device=given.device,
                budget_s=_seconds(given.budget),
                pictures=pictures,
                truth=given.truth,
                lut=given.lut,
                on=given.on,
                supernet=given.supernet,
                alone_epochs=given.alone_epochs,
            )
            section = importlib.import_module(f"tools.studies.{given.study}").main(options)
        except BlocktimeError as error:
            print(f"studies: {error}", file=sys.stderr)
            sys.exit(exit_code(error))
    print(section)
    if not given.quick:
        write_section(given.document, given.study, f"{section.strip()}\n\n{stamp(_command(given))}")
        print(given.document)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.studies", description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--data", help="images as `bench train` takes them: npz:FILE, cifar10:DIR, ...")
    parser.add_argument("--quick", action="store_true", help="show that it runs; writes no document")
    parser.add_argument("--seeds", type=_positive, default=3, help="networks trained of each kind")
    parser.add_argument("--epochs", type=_positive, default=3, help="of each training")
    parser.add_argument(
        "--alone-epochs",
        type=_positive,
        metavar="N",
        help="of networks that `inheritance` and `winners` train alone; as many as --epochs by default",
    )
    parser.add_argument("--jobs", type=_positive, default=os.cpu_count() or 1, help="trainings side by side")
    parser.add_argument("--device", default="host", help="what latency is measured on")
    parser.add_argument(
        "--budget", default="5m", help="longest time of each measurement: seconds, or 90s, 5m, 2h"
    )
    parser.add_argument("--truth", type=Path, help="nas-bench-macro.json: published accuracies")
    parser.add_argument(
        "--lut",
        default="host/nasbench-macro",
        help="LUT by which networks are priced; `boundaries` takes several, with commas",
    )
    parser.add_argument(
        "--on", default="cpu", help="where supernets train and are judged: auto, cpu, cuda, mps"
    )
    parser.add_argument("--supernet", type=Path, help="folder of `bench train --arch`, for `int8`")
    parser.add_argument("--document", type=Path, default=DOCUMENT, help="where the section goes")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        return float(text.rstrip("smh")) * units.get(text[-1:], 1)
    except ValueError as error:
        raise UsageError(f"--budget {text!r}: expected a time such as 90s, 5m or 2h") from error


def _command(given: argparse.Namespace) -> str:
    """What to type again; paths are the reader's own."""
    kind, colon, _ = (given.data or "").partition(":")
    own = {"truth": "nas-bench-macro.json", "supernet": "DIR", "data": f"{kind}:..." if colon else kind}
    values = {name: own.get(name, getattr(given, name)) for name in TYPED.get(given.study, TRAINED)}
    typed = (f"--{name.replace('_', '-')} {value}" for name, value in values.items() if value is not None)
    return " ".join(["python -m tools.studies", given.study, *typed])


if __name__ == "__main__":
    main()

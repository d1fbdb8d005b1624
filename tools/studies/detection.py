"""mAP and mIoU on a SYNTHETIC set over epochs: two backbones beside a network of timm of about their latency."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from luts.format.errors import UsageError
from luts.format.files import write_json
from orchestrator.accuracy.program import outputs_of_program
from orchestrator.export.artifacts.spec import Variant
from orchestrator.report.draw import BLUE, MUTED, ORANGE, figure
from orchestrator.tasks.dense_scores import dense_spec, open_run_scenes
from orchestrator.tasks.measure import measure_networks
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import Network, as_named
from orchestrator.tasks.target import DeviceOptions, Target
from orchestrator.tasks.validate import ValidateCommand, validate
from search.dense.data import plain_batches
from search.dense.scenes import Task
from search.dense.training import load_run
from search.spaces import Arch, get_arch
from search.spaces.tasks import with_task
from tools.studies._dense_runs import BACKBONE_EPOCHS, Setting, curve
from tools.studies._options import Options

TASKS: tuple[Task, ...] = get_args(Task)
FIGURES: Mapping[Task, str] = {"detection": "map", "segmentation": "miou"}
CATEGORIES = 10

RIVALS = tuple(
    f"timm:{name}"
    for name in (
        "mobilenetv3_large_100@160",
        "mobilenetv3_large_100@192",
        "mobilenetv2_100@160",
        "mobilenetv2_100@192",
        "efficientnet_lite0@160",
    )
)
QUICK_RIVALS = ("timm:mobilenetv3_small_050@128",)
"""The one whose detector is nearest in milliseconds to the mean of the two backbones' is trained beside them."""

VALIDATED = 10
"""Backbones with heads that the LUT's predictions are held against."""

OUTPUT_IMAGES = 8
"""Whose raw outputs are compared."""


@dataclass(frozen=True)
class Trained:
    """One network for one task: figures of every epoch for each seed, and the largest difference as exported."""

    name: str
    task: Task
    curves: tuple[list[float], ...]
    difference: float


def main(options: Options) -> str:
    """Measure, choose the rival, train, compare; what is done is kept, and the same command goes on."""
    setting = Setting.of(options)
    ours = setting.backbones()
    milliseconds = _measured(setting, ours)
    rival = _rival(milliseconds, list(ours), QUICK_RIVALS if options.quick else RIVALS)
    networks = ours | {rival: get_arch(rival)}
    kinds = [(name, backbone, task) for task in TASKS for name, backbone in networks.items()]
    folders = iter(setting.trained([(*kind, seed) for kind in kinds for seed in range(options.seeds)]))
    trained = []
    for name, _, task in kinds:
        runs = [next(folders) for _ in range(options.seeds)]
        curves = tuple(curve(run, FIGURES[task]) for run in runs)
        trained.append(Trained(name, task, curves, _difference(runs[0])))
    _draw(trained, options)
    return section(trained, milliseconds, _validated(setting), options)


def _measured(setting: Setting, ours: Mapping[str, Arch]) -> dict[str, dict[str, Any]]:
    """Rows of a measurement by network and head, kept in a file."""
    path, options = setting.folder / "latency.json", setting.options
    if path.exists():
        kept: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    archs = {**ours, **{name: get_arch(name) for name in (QUICK_RIVALS if options.quick else RIVALS)}}
    networks: dict[str, Network] = {}
    for name, arch in archs.items():
        networks[_called(name)] = as_named(arch)
        for task in TASKS:
            networks[_called(name, task)] = as_named(with_task(arch, task, CATEGORIES))
    target = Target(options.device, threads=1)
    measured = measure_networks(networks, target, budget_s=options.budget_s, progress=print)
    rows = {row["model"]: row for row in measured.to_dict()["models"]}
    setting.folder.mkdir(parents=True, exist_ok=True)
    write_json(path, rows)
    return rows


def _called(name: str, task: str = "") -> str:
    return f"{name}, {task}" if task else name


def _rival(rows: Mapping[str, Mapping[str, Any]], ours: Sequence[str], rivals: Sequence[str]) -> str:
    """The candidate whose detector is nearest to the mean of ours in milliseconds.

    Raises:
        UsageError: none was measured.
    """
    mean = float(np.mean([rows[_called(name, "detection")]["ms"] for name in ours]))
    known = [name for name in rivals if _called(name, "detection") in rows]
    if not known:
        raise UsageError("no network of timm could be measured with a head; see what failed above")
    return min(known, key=lambda name: abs(rows[_called(name, "detection")]["ms"] - mean))


@torch.no_grad()
def _difference(run: Path) -> float:
    """Largest difference of raw outputs, exported to PyTorch's, relative to the largest of these."""
    network, info = load_run(run)
    scenes = open_run_scenes(info)
    indices = scenes.validation[:OUTPUT_IMAGES]
    program = export_all({"network": dense_spec(run, Variant("executorch", "xnnpack", threads=1))}, 1)
    ((_, images),) = plain_batches(scenes, indices, info.network.resolution, OUTPUT_IMAGES)
    plain = network(images)
    shape = (1, *plain.shape[1:])
    parts = outputs_of_program(program["network"].path, scenes, info.task, indices, shape)
    exported = torch.cat([outputs for _, outputs in parts])
    return float((exported - plain).abs().max() / plain.abs().max())


def _validated(setting: Setting) -> str:
    """What a LUT of a space with heads predicts, against measurements; a sentence where none is named."""
    options = setting.options
    if not options.lut.rpartition("/")[2].split("@")[0].endswith("ssdlite"):
        return (
            "Predictions of a LUT were not held against measurements: name one of backbones with heads by --lut, "
            "which `bench profile --space SPACE.ssdlite` makes."
        )
    done = validate(
        ValidateCommand(
            lut=options.lut,
            target=DeviceOptions(options.device),
            count=VALIDATED,
            budget_s=options.budget_s,
        ),
        print,
    )
    return (
        f"The LUT `{options.lut}` predicts {len(done.comparisons)} backbones with heads that it has not seen: "
        f"{100 * done.coverage:.0f} % lie inside of their intervals, mean error {100 * done.mape:.2f} %."
    )


def _draw(trained: Sequence[Trained], options: Options) -> None:
    """Curves of every seed, a panel a task."""
    with figure(980, 420) as drawn:
        (panels,) = drawn.subplots(1, len(TASKS), squeeze=False)
        for panel, task in zip(panels, TASKS, strict=True):
            for colour, one in zip(
                (BLUE, ORANGE, MUTED), (t for t in trained if t.task == task), strict=True
            ):
                for number, values in enumerate(one.curves):
                    label = one.name if not number else None
                    epochs = range(1, len(values) + 1)
                    panel.plot(epochs, [100 * value for value in values], color=colour, label=label)
            panel.set(
                xlabel="epoch", ylabel=f"{'mAP' if task == 'detection' else 'mIoU'}, %, SYNTHETIC images"
            )
            panel.legend(frameon=False, fontsize=8)
            panel.grid()
        options.save(drawn, "detection")


def section(
    trained: Sequence[Trained], rows: Mapping[str, Mapping[str, Any]], validated: str, options: Options
) -> str:
    """The tables, with the picture."""
    seeds = f"{options.seeds} seed{'s' if options.seeds > 1 else ''}"
    return f"""### Detection and segmentation on SYNTHETIC images

Images placed on canvases of noise by `tools/synthetic_coco.py`, not photographs: figures show that training
works, and say nothing of COCO. Backbones were trained on the labelled images first, {BACKBONE_EPOCHS} epoch, then
{options.epochs} epochs with a head; {seeds}. Figures on the validation canvases after the first, the middle and the
last epoch, each seed's; no epoch is chosen. Exported: largest difference of raw outputs on {OUTPUT_IMAGES} images,
ExecuTorch's to PyTorch's, relative to the largest output.

| network | task | first epoch, % | middle, % | last, % | exported |
|---|---|---|---|---|---|
{chr(10).join(map(_row, trained))}

Milliseconds on {options.device}, XNNPACK in fp32, one thread, with 95 % intervals; without decoding.
A head takes the place of the classifier, and with it of what the backbone has behind its last map.

| network | as a classifier | SSDLite | DeepLabv3 lite |
|---|---|---|---|
{chr(10).join(_latencies(rows))}

{validated}

![mAP and mIoU over epochs](pictures/detection.png)
"""


def _row(one: Trained) -> str:
    middle = len(one.curves[0]) // 2
    cells = [", ".join(f"{100 * values[at]:.2f}" for values in one.curves) for at in (0, middle, -1)]
    return f"| {one.name} | {one.task} | {' | '.join(cells)} | {one.difference:.1e} |"


def _latencies(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    names = [name for name in rows if not name.endswith(TASKS)]
    return [
        f"| {name} | {' | '.join(_ms(rows.get(_called(name, task))) for task in ('', *TASKS))} |"
        for name in names
    ]


def _ms(row: Mapping[str, Any] | None) -> str:
    return f"{row['ms']:.3f} ({row['ci_low']:.3f} to {row['ci_high']:.3f})" if row else "-"

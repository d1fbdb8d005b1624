"""mAP and mIoU on a SYNTHETIC set over epochs: two backbones and a network of timm of about their latency."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch

from luts.format.errors import UsageError
from luts.format.files import write_json
from orchestrator.accuracy.program import outputs_of_program
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.candidates import dense_candidate
from orchestrator.tasks.measure import MeasureCommand, measure_networks
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import as_named
from orchestrator.tasks.target import DeviceOptions
from orchestrator.tasks.train import train_dense
from orchestrator.tasks.train_options import DenseOptions
from orchestrator.tasks.validate import ValidateCommand, validate
from search.dense.data import open_scenes, plain_batches
from search.dense.scenes import DenseTaskName
from search.dense.training import load_dense
from search.spaces import Arch, get_arch, get_space
from search.spaces.registry import with_task, without_task
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import changed, get_recipe
from tools.studies.shared import Options, draw_lines, run_parallel
from tools.studies.trainings import Training
from tools.synthetic_coco import make_set
from tools.tables import Interval, Rows, Tables, log, mean_and_range

TASKS: tuple[DenseTaskName, ...] = get_args(DenseTaskName)
METRICS: Mapping[DenseTaskName, str] = {"detection": "map", "segmentation": "miou"}
CATEGORIES = 10
CANVASES, QUICK_CANVASES = (1500, 300, 192), (8, 4, 64)
"""Training and validation canvases, and their side in pixels."""
RIVALS = (
    "timm:mobilenetv3_large_100@160",
    "timm:mobilenetv3_large_100@192",
    "timm:mobilenetv2_100@160",
    "timm:mobilenetv2_100@192",
    "timm:efficientnet_lite0@160",
)
"""The one whose detector is nearest in latency to the mean of the two backbones' is trained, too."""
QUICK_RIVALS = ("timm:mobilenetv3_small_050@128",)
VALIDATED = 10
"""Backbones with heads on which the LUT's predictions are checked."""
OUTPUT_IMAGES = 8
"""Images whose raw outputs are compared."""


@dataclass(frozen=True)
class Run:
    """Training of a head on a backbone."""

    name: str
    backbone: Arch
    task: DenseTaskName
    seed: int


class DetectionStudy:
    """The networks and images of one run of the study, and the folder that keeps its results."""

    def __init__(self, options: Options):
        """Choose networks and sizes.

        Raises:
            UsageError: no images were given.
        """
        self.options, self.data = options, options.images
        self.folder = runs_root() / "studies" / ("detection-quick" if options.quick else "detection")
        self.rivals = QUICK_RIVALS if options.quick else RIVALS
        if options.quick:
            archs = [arch for arch in get_space("autovit-nano") if len(arch.stages) == 4]
            self.backbones = {"autovit-nano, smallest": archs[0], "autovit-nano, largest": archs[-1]}
        else:
            self.backbones = {
                "mobilevit-xxs at 160 px": get_arch("mobilevit-xxs").with_resolution(160),
                "autovit-xxs-paper at 192 px": get_arch("autovit-xxs-paper").with_resolution(192),
            }

    @cached_property
    def scenes(self) -> str:
        """The synthetic set, made if it is missing."""
        folder = self.folder / "set"
        if not (folder / "annotations" / "instances_val.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            train, val, side = QUICK_CANVASES if self.options.quick else CANVASES
            make_set(open_source(self.data), folder, train=train, val=val, side=side, objects=4, seed=0)
        return f"coco:{folder}"

    def latencies(self) -> dict[str, dict[str, Any]]:
        """Return measured rows by `NAME` and `NAME, TASK`; kept in a file."""
        path = self.folder / "latency.json"
        if path.exists():
            kept: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        networks = {}
        for name, arch in {**self.backbones, **{name: get_arch(name) for name in self.rivals}}.items():
            networks[name] = as_named(arch)
            networks |= {f"{name}, {task}": as_named(with_task(arch, task, CATEGORIES)) for task in TASKS}
        measured = measure_networks(
            MeasureCommand(networks=networks, target=self.options.target, budget_s=self.options.budget_s),
            log,
        )
        rows = {row["model"]: row for row in measured.to_dict()["models"]}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_json(path, rows)
        return rows

    def pretraining(self, backbone: Arch) -> Training:
        """Return the training of a backbone on the labelled images, before it gets a head."""
        values = {"arch": without_task(backbone).to_json(), "epochs": 1}
        if self.options.quick:
            values["batch_size"] = 512
        return Training(backbone.space, changed(get_recipe("finetune"), values, {}), self.data)

    def output(self, run: Run) -> Path:
        """Return the folder of a head's training."""
        digest = with_task(run.backbone, run.task).digest
        return self.folder / f"{digest}-{self.options.epochs}-{run.seed}"

    def train(self, run: Run, on: str, _number: int) -> None:
        """Train a head on a pretrained backbone, or resume."""
        options = DenseOptions(
            task=run.task,
            arch=run.backbone,
            data=self.scenes,
            output=self.output(run),
            epochs=self.options.epochs,
            batch_size=4 if self.options.quick else 16,
            warmup_epochs=0.5,
            seed=run.seed,
            init=f"supernet:{self.pretraining(run.backbone).folder}",
            on=on,
        )
        train_dense(options)

    def curve(self, run: Run) -> list[float]:
        """Return the task's metric in percent on the validation canvases, after every epoch."""
        with (self.output(run) / "log.csv").open(encoding="utf-8") as file:
            return [100 * float(row[METRICS[run.task]] or 0) for row in csv.DictReader(file)]


def main(options: Options) -> Tables:
    """Measure, choose the rival, train, compare exported outputs with PyTorch's, validate a LUT's predictions."""
    study = DetectionStudy(options)
    latencies = study.latencies()
    rival = nearest_detector(latencies, list(study.backbones), study.rivals)
    networks = study.backbones | {rival: get_arch(rival)}
    runs = [
        Run(name, backbone, task, seed)
        for task in TASKS
        for name, backbone in networks.items()
        for seed in range(options.seeds)
    ]
    assert study.scenes
    run_parallel(Training.run, [study.pretraining(backbone) for backbone in networks.values()], options)
    run_parallel(study.train, runs, options)
    curves = {run: study.curve(run) for run in runs}
    _draw(curves, options)
    rows = [
        {
            "network": run.name,
            "task": run.task,
            "seed": run.seed,
            "first epoch, %": curve[0],
            "middle, %": curve[len(curve) // 2],
            "last, %": curve[-1],
            "exported": output_difference(study.output(run)) if run.seed == 0 else None,
        }
        for run, curve in curves.items()
    ]
    return {
        "Detection and segmentation on SYNTHETIC images": rows,
        "Latency in ms": _latency_rows(latencies),
        "Predictions of the LUT": _validation(options),
    }


def nearest_detector(
    rows: Mapping[str, Mapping[str, Any]], ours: Sequence[str], rivals: Sequence[str]
) -> str:
    """Return the rival whose detector is nearest in latency to the mean of ours.

    Raises:
        UsageError: none was measured.
    """
    mean = sum(rows[f"{name}, detection"]["ms"] for name in ours) / len(ours)
    known = [name for name in rivals if f"{name}, detection" in rows]
    if not known:
        raise UsageError(
            "no network of timm could be measured with a head; see the failures above", code="no_measurements"
        )
    return min(known, key=lambda name: abs(float(rows[f"{name}, detection"]["ms"]) - mean))


@torch.no_grad()
def output_difference(run: Path) -> float:
    """Return the largest difference of raw outputs, exported to PyTorch's, relative to the largest output."""
    network, info = load_dense(run)
    scenes = open_scenes(info.source, info.task)
    indices = scenes.validation[:OUTPUT_IMAGES]
    program = export_all(
        {"network": dense_candidate(run).spec(Variant("executorch", "xnnpack", threads=1))}, 1
    )
    ((_, images),) = plain_batches(scenes, indices, info.network.resolution, OUTPUT_IMAGES)
    plain = network(images)
    shape = (1, *plain.shape[1:])
    parts = outputs_of_program(program["network"].path, scenes, info.task, indices, shape)
    exported = torch.cat([outputs for _, outputs in parts])
    return float((exported - plain).abs().max() / plain.abs().max())


def _latency_rows(latencies: Mapping[str, Mapping[str, Any]]) -> Rows:
    columns = {"as a classifier": "", "SSDLite": ", detection", "DeepLabv3 lite": ", segmentation"}
    return [
        {
            "network": name,
            **{
                column: Interval(*(latencies[f"{name}{task}"][key] for key in ("ms", "ci_low", "ci_high")))
                for column, task in columns.items()
                if f"{name}{task}" in latencies
            },
        }
        for name in latencies
        if not name.endswith(TASKS)
    ]


def _validation(options: Options) -> Rows:
    """Return how a LUT of backbones with heads predicts unseen ones; nothing for a LUT of classifiers."""
    if not options.lut.rpartition("/")[2].split("@")[0].endswith("ssdlite"):
        return []
    command = ValidateCommand(
        lut=options.lut,
        target=DeviceOptions(options.device),
        count=VALIDATED,
        budget_s=options.budget_s,
    )
    done = validate(command, log)
    return [
        {
            "LUT": options.lut,
            "networks": len(done.comparisons),
            "within their interval, %": 100 * done.coverage,
            "mean error, %": 100 * done.mape,
        }
    ]


def _draw(curves: Mapping[Run, Sequence[float]], options: Options) -> None:
    with options.draw("detection", 980, 420, len(TASKS)) as panels:
        for panel, task in zip(panels, TASKS, strict=True):
            of_seeds: dict[tuple[str, int], list[float]] = {}
            for run, values in curves.items():
                for epoch, value in enumerate(values, 1):
                    if run.task == task:
                        of_seeds.setdefault((run.name, epoch), []).append(value)
            metric = f"{METRICS[task]}, %, SYNTHETIC images"
            rows = [
                {"network": name, "epoch": epoch, metric: mean_and_range(values)}
                for (name, epoch), values in of_seeds.items()
            ]
            draw_lines(panel, rows, "epoch", metric, "network")

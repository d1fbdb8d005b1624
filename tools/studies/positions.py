"""Kinds of positions at other resolutions than the one of training: a network of `vit-cifar` for each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from luts.format.errors import UsageError
from luts.format.store import load_lut
from search.spaces import Arch, get_space
from search.spaces.positions import ATTENTIONS, POSITIONS
from search.spaces.registry import arch_from_json
from search.supernet.recipe.recipe import changed
from tools.studies.shared import Options
from tools.studies.trainings import RECIPE, Training, one_cycle
from tools.tables import Tables, mean_and_range, run_parallel

SPACE = get_space("vit-cifar")
PLAIN = ATTENTIONS[0]
KINDS: Mapping[str, tuple[str, str]] = {
    **{position: (position, PLAIN) for position in POSITIONS},
    **{attention: ("none", attention) for attention in ATTENTIONS[1:]},
}
"""Absolute positions and attention by name; each has one of both at most."""

FIXED: Mapping[str, Mapping[str, int | str]] = {
    "embed": {"width": 48, "embed": "patch"},
    "layers": {"width": 64, "depth": 3, "mlp_ratio": 2, "head_dim": 16},
}
"""What all networks share: patches side by side, so that nothing but positions mixes them before attention."""

CALIBRATION_BATCHES = 16
"""Of 128 images, for BN statistics of a network at one resolution."""


def main(options: Options) -> Tables:
    """Train every kind at the default resolution, and judge it at all resolutions of the space.

    Latency is predicted by `--lut` if that option is given. Trainings of one seed share images and augmentation.
    They run seed by seed, so that a run cut off has all kinds of a seed.

    Raises:
        UsageError: `--only` has an unknown kind, or the LUT lacks a block.
    """
    names = [name.strip() for name in options.only.split(",")] if options.only else list(KINDS)
    if unknown := [name for name in names if name not in KINDS]:
        raise UsageError(
            f"no kind of positions {unknown[0]!r}; --only takes: {', '.join(KINDS)}", code="unknown_positions"
        )
    archs = {name: network(name) for name in names}
    trainings = [_training(options, arch, seed) for seed in range(options.seeds) for arch in archs.values()]
    found = run_parallel(partial(_top1, on=options.on), trainings, options.jobs)
    top1 = {name: found[at :: len(names)] for at, name in enumerate(names)}
    return {"Positions": [_row(name, archs[name], top1[name], options) for name in names]}


def network(kind: str) -> Arch:
    """Return the network of a kind of positions."""
    position, attention = KINDS[kind]
    stages = {
        "embed": {**FIXED["embed"], "position": position},
        "layers": {**FIXED["layers"], "mixer": attention},
    }
    document = {"space": SPACE.name, "resolution": SPACE.default_resolution, "head": SPACE.heads[0]}
    return SPACE.from_document({**document, "classes": SPACE.default_classes, "stages": stages})


def _training(options: Options, arch: Arch, seed: int) -> Training:
    recipe = changed(one_cycle(RECIPE, options.epochs, seed), {"arch": arch.to_json()}, {})
    return Training(SPACE.name, recipe, options.images)


def _top1(training: Training, on: str) -> list[float]:
    """Train, and return validation top-1 in percent at every resolution."""
    training.run(on)
    arch = arch_from_json(training.recipe.arch or "")
    judged = training.evaluators(on, final=True, calibration_batches=CALIBRATION_BATCHES).top1
    return [
        100 * value for value in judged.accuracies([arch.with_resolution(px) for px in SPACE.resolutions])
    ]


def _row(name: str, arch: Arch, top1: Sequence[Sequence[float]], options: Options) -> dict[str, object]:
    row: dict[str, object] = {"positions": name, "parameters": arch.params()}
    for px, values in zip(SPACE.resolutions, zip(*top1, strict=True), strict=True):
        row[f"top-1 at {px} px"] = mean_and_range(values)
        if options.lut != Options.lut:
            model = load_lut(options.lut).latency_model
            at = arch.with_resolution(px)
            row[f"ms at {px} px"] = model.predict(at.keys(), at.boundary_bytes()).ms
    return row

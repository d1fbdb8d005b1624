"""Kinds of a part, one network trained alone for each: positions, token mixers, reductions of tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from luts.format.errors import UsageError
from luts.format.store import load_lut
from search.spaces import Arch, get_space
from search.spaces.positions import ATTENTIONS, POSITIONS
from search.spaces.registry import arch_from_json
from search.spaces.vit import REDUCERS
from search.supernet.recipe.recipe import changed
from tools.studies.shared import Options
from tools.studies.trainings import RECIPE, Training, one_cycle
from tools.tables import Tables, mean_and_range, run_parallel

Values = Mapping[str, int | float | str]

CALIBRATION_BATCHES = 16
"""Of 128 images, for BN statistics of a network at one resolution."""

MIXERS = ("pool", "shift", "separable", "linear", "mlp", "fourier", "window", "outlook", "mha")
RATES = (0.5, 0.7)


def compare_positions(options: Options) -> Tables:
    """Compare positions in `vit-cifar` at all its resolutions; raises UsageError like `_compare`.

    Each network has absolute positions or an attention with positions of its own, or neither. Patches lie side by
    side, so that nothing but positions mixes them before attention.
    """
    plain = ATTENTIONS[0]
    kinds = {position: (position, plain) for position in POSITIONS}
    kinds |= {attention: ("none", attention) for attention in ATTENTIONS[1:]}
    layers: Values = {"width": 64, "depth": 3, "mlp_ratio": 2, "head_dim": 16}
    archs = {
        name: _network(
            "vit-cifar",
            embed={"width": 48, "embed": "patch", "position": position},
            layers={**layers, "mixer": attention},
        )
        for name, (position, attention) in kinds.items()
    }
    return _compare("positions", archs, options)


def compare_mixers(options: Options) -> Tables:
    """Compare token mixers in `metaformer-cifar`, one in both stages; raises UsageError like `_compare`."""
    archs = {
        mixer: _network(
            "metaformer-cifar",
            stage1={"width": 32, "depth": 2, "mlp_ratio": 2, "mixer": mixer},
            stage2={"width": 64, "depth": 2, "mlp_ratio": 2, "mixer": mixer},
        )
        for mixer in MIXERS
    }
    return _compare("mixer", archs, options)


def compare_reductions(options: Options) -> Tables:
    """Compare kinds and rates of token reduction in `vit-tokens-cifar`; raises UsageError like `_compare`."""
    plain: Values = {"width": 64, "depth": 5, "heads": 4, "mlp_ratio": 2, "keep": 1, "first": 1, "every": 2}
    kinds: dict[str, Values] = {"none": {**plain, "reducer": "none"}}
    for reducer in list(REDUCERS)[1:]:
        kinds |= {f"{reducer} {rate:g}": {**plain, "reducer": reducer, "keep": rate} for rate in RATES}
    archs = {name: _network("vit-tokens-cifar", encoder=values) for name, values in kinds.items()}
    return _compare("reduction", archs, options)


def _network(space_name: str, **stages: Values) -> Arch:
    """Return a network of a space at its default resolution, by the values of its stages' choices."""
    space = get_space(space_name)
    document = {"space": space.name, "resolution": space.default_resolution, "head": space.heads[0]}
    return space.from_document({**document, "classes": space.default_classes, "stages": stages})


def _compare(column: str, archs: Mapping[str, Arch], options: Options) -> Tables:
    """Train every network at its space's default resolution, and judge it at all resolutions of the space.

    Latency is predicted by `--lut` if that option is given. Trainings of one seed share images and augmentation.
    They run seed by seed, so that a run cut off has all networks of a seed.

    Raises:
        UsageError: `--only` has an unknown name, or the LUT lacks a block.
    """
    names = [name.strip() for name in options.only.split(",")] if options.only else list(archs)
    if unknown := [name for name in names if name not in archs]:
        raise UsageError(
            f"this study has no {unknown[0]!r}; --only takes: {', '.join(archs)}", code="unknown_row"
        )
    trainings = [_training(options, archs[name], seed) for seed in range(options.seeds) for name in names]
    found = run_parallel(partial(_top1, on=options.on), trainings, options.jobs)
    top1 = {name: found[at :: len(names)] for at, name in enumerate(names)}
    return {"Networks": [{column: name, **_row(archs[name], top1[name], options)} for name in names]}


def _training(options: Options, arch: Arch, seed: int) -> Training:
    recipe = changed(one_cycle(RECIPE, options.epochs, seed), {"arch": arch.to_json()}, {})
    return Training(arch.space, recipe, options.images)


def _top1(training: Training, on: str) -> list[float]:
    """Train, and return validation top-1 in percent at every resolution."""
    training.run(on)
    arch = arch_from_json(training.recipe.arch or "")
    judged = training.evaluators(on, final=True, calibration_batches=CALIBRATION_BATCHES).top1
    resolutions = get_space(arch.space).resolutions
    return [100 * value for value in judged.accuracies([arch.with_resolution(px) for px in resolutions])]


def _row(arch: Arch, top1: Sequence[Sequence[float]], options: Options) -> dict[str, object]:
    row: dict[str, object] = {"parameters": arch.params(), "M MACs": arch.macs().conv_linear / 1e6}
    for px, values in zip(get_space(arch.space).resolutions, zip(*top1, strict=True), strict=True):
        row[f"top-1 at {px} px"] = mean_and_range(values)
        if options.lut != Options.lut:
            model = load_lut(options.lut).latency_model
            at = arch.with_resolution(px)
            row[f"ms at {px} px"] = model.predict(at.keys(), at.boundary_bytes()).ms
    return row

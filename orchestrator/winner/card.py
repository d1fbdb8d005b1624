"""The winner's files: weights, exported models and the model card, which says how it was found and measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from luts.format.errors import InvalidArtifactError, shorten
from luts.format.files import storage_error, write_json, write_text
from luts.format.lut import Lut
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.artifacts.artifact import deliver, digest
from orchestrator.export.artifacts.spec import Variant
from orchestrator.plan.plan import model_id
from orchestrator.winner.winner import MeasuredBest
from search.algorithms import SearchResult
from search.algorithms.record import Evaluated, LutPin
from search.spaces import Arch
from search.spaces.registry import is_timm

if TYPE_CHECKING:
    from search.supernet.inherit import InheritedAccuracy
    from search.supernet.train.checkpoint import CheckpointInfo


@dataclass(frozen=True)
class Card:
    """Contents of a model card.

    Attributes:
        search: The search.
        winner: The winner, which is not the search's own if `measured` chose another.
        lut: LUT of the first latency target.
        supernet: Where the weights come from.
        measured: None if no device was given.
    """

    search: SearchResult
    winner: Evaluated
    lut: Lut
    supernet: CheckpointInfo
    measured: MeasuredBest | None


def model_card(card: Card, files: Mapping[str, str]) -> str:
    """Return the card as Markdown; `files`: name to sha256, of a Core ML package that of its archive."""
    arch, macs = card.winner.architecture(), card.winner.architecture().macs()
    facts = {
        "architecture": f"`{card.winner.arch}`",
        "input": f"1 x 3 x {arch.resolution} x {arch.resolution}, RGB, normalised by ImageNet's mean and deviation",
        "output": f"{arch.classes} classes: {shorten(card.supernet.classes, 12)}",
        "parameters": f"{card.winner.params:,}",
        "MACs": f"{macs.conv_linear / 1e6:.2f} M conv+linear, {macs.total / 1e6:.2f} M all",
    }
    parts = [
        f"# A network of {card.search.space} for {_proxy_device(card) or card.lut.meta.device.name}",
        _table(facts),
        "## Latency",
        *_latency(card),
        "## Accuracy",
        _accuracy(card),
        "## How it was found",
        _table(_provenance(card)),
        "## Not measured",
        "\n".join(f"- {line}" for line in _not_measured(card)),
        "## Files",
        _table({name: f"sha256 `{sha256}`" for name, sha256 in files.items()}),
        "## Licence",
        "blocktime is under Apache-2.0 and claims nothing in this model. The terms of the images "
        f"(`{card.supernet.source}`){_teacher_terms(card)} apply to the weights; blocktime does not know them.",
    ]
    return "\n\n".join(parts) + "\n"


def constraints_text(search: SearchResult) -> str:
    """Return a search's constraints as text."""
    constraints = search.constraints
    pins = search.provenance.luts if search.provenance else ()
    limits = [f"{ms:.3f} ms" for ms in constraints.latencies]
    parts = [" and ".join(by_lut(limits, search.lut_names)), *constraints.other_limits()]
    certainty = "by prediction"
    if constraints.cautious:
        certainty = f"latency with {100 * constraints.confidence:g} % confidence"
        if proxies := [pin for pin in pins if pin.read_for]:
            known = all(pin.device_log_sd for pin in proxies)
            certainty += (
                ", including the difference between devices"
                if known
                else " on the LUT's own device, unknown on others"
            )
    return ", ".join([*parts, certainty])


def lut_text(pin: LutPin) -> str:
    """Return a LUT's name, and the device it is a proxy for."""
    if not pin.read_for:
        return pin.name
    factor = (
        f"within a factor of {math.exp(1.96 * pin.device_log_sd):.2f}" if pin.device_log_sd else "unknown"
    )
    return f"{pin.name}, a proxy for {pin.read_for}: error between the devices {factor}"


def by_lut(texts: Sequence[str], luts: Sequence[str]) -> list[str]:
    """Return texts that hold for each LUT, with the LUT's name if there are several."""
    if len(luts) == 1:
        return list(texts)
    return [f"{text} by {lut}" for text, lut in zip(texts, luts, strict=True)]


def _accuracy(card: Card) -> str:
    if own := card.search.own_objective:
        return (
            f"{card.winner.accuracy:.4g} by the objective `{own}`, which is not an accuracy. "
            "The weights are inherited from the supernet; `bench eval` gives their accuracy."
        )
    return (
        f"{100 * card.winner.accuracy:.2f} % top-1 on the {_split(card)} split of `{card.supernet.source}`, with "
        "weights inherited from the supernet and not trained further. The search chose the network by this "
        "number, so it is optimistic; `bench eval --final` gives the accuracy on the validation split."
    )


def _latency(card: Card) -> list[str]:
    meta, winner = card.lut.meta, card.winner
    where = f"{meta.device.model}, {meta.device.os}, {meta.variant}"
    cautious = card.search.constraints.cautious
    predicted = [
        f"{ms:.3f} ms" + (f", at most {high_ms:.3f} ms with that confidence" if cautious else "")
        for ms, high_ms in winner.latencies
    ]
    luts = card.search.lut_names
    rows = {"constraints": constraints_text(card.search), "predicted": "; ".join(by_lut(predicted, luts))}
    if card.measured is not None:
        row = card.measured.chosen
        rows["predicted interval"] = f"{row.predicted_low:.3f} to {row.predicted_high:.3f} ms"
        rows["measured"] = (
            f"{row.measured_ms:.3f} ms, 95 % interval {row.measured_low:.3f} to {row.measured_high:.3f} ms, "
            f"{'within' if card.measured.meets_budget else 'NOT within'} the latency limit"
        )
        if row.percentiles is not None:
            rows["percentiles"] = str(row.percentiles)
    simulated = [] if meta.measured == "measured" else ["**The LUT's numbers are simulated.**"]
    others = []
    if len(luts) > 1:
        others = [
            f"The first is for this device; on the others ({', '.join(luts[1:])}) nothing was measured."
        ]
    how = f"At batch 1 on {where}, in milliseconds of the LUT's reference model."
    if device := _proxy_device(card):
        how = (
            f"At batch 1. **Predictions are by a LUT of another device: {where}.** Measurements are of {device}, "
            "in milliseconds of its own reference model on that day."
        )
    return [*simulated, how, *others, _table(rows)]


def _proxy_device(card: Card) -> str:
    """Return the target device if the first LUT is another device's, else ""."""
    provenance = card.search.provenance
    return provenance.luts[0].read_for if provenance else ""


def _provenance(card: Card) -> Mapping[str, str]:
    search, info = card.search, card.supernet
    provenance = search.provenance
    facts = {
        "LUT": f"lut.json `{search.price}`",
        "supernet": f"weights `{info.weights_sha256}`",
        "recipe": f"{info.recipe.name}, {info.recipe.epochs} epochs, {info.step} steps, seed {info.recipe.seed}"
        + ("" if info.finished else ", NOT trained to its end"),
        "trained subnets": str(info.scope or "unknown"),
        "teacher": info.teacher or "none",
        "data": f"`{info.source}`, digest `{info.data_digest}`",
        "split": f"seed {info.split_seed}, {100 * info.split_fraction:g} % held out for the search",
        "search": f"{search.settings.strategy}, seed {search.settings.seed}, {len(search.evaluated)} evaluations",
    }
    if provenance is not None:
        code = provenance.code
        commit = f", commit `{code.commit}`" if code.commit else ""
        facts["code"] = f"blocktime {code.package}{commit}, sources of search `{code.sources}`"
        facts["LUT"] = "; ".join(f"{lut_text(lut)}, lut.json `{lut.sha256}`" for lut in provenance.luts)
    return facts


def _not_measured(card: Card) -> list[str]:
    device = _proxy_device(card) or card.lut.meta.device.name
    lines = [
        "accuracy on the validation split, on other images, or after further training",
        "memory, energy and heat on the device, and latency under sustained load",
        f"latency other than with {card.lut.meta.variant} on {device}: one of the two exported models is for "
        "another runtime",
    ]
    if card.measured is None:
        lines.insert(0, "the latency: it is predicted from the LUT (`bench search --device` measures it)")
    return lines


def _split(card: Card) -> str:
    return card.search.provenance.split if card.search.provenance else "search"


def _teacher_terms(card: Card) -> str:
    return f" and of the teacher (`{card.supernet.teacher}`)" if card.supernet.teacher else ""


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        ["| | |", "|---|---|", *(f"| {name} | {text.replace('|', '/')} |" for name, text in rows.items())]
    )


def save_weights(evaluator: InheritedAccuracy, arch: Arch, folder: Path) -> Path:
    """Write a subnet's weights with its own batch-norm statistics as safetensors, and return the file.

    Weights of a timm network have timm's names.
    """
    from safetensors.torch import save_file  # imports torch, which most commands do not need

    path = folder / f"{model_id(arch.keys())}.safetensors"
    network = evaluator.network(arch).cpu()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = (network[0] if is_timm(arch.space) else network).state_dict()
        # training leaves convolutions in channels-last layout, which the format cannot express
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error, "choose another --output") from error
    return path


def weighted_spec(variant: Variant, arch: Arch, weights: Path) -> ExportSpec:
    """Return how an architecture is exported with weights from a file."""
    return weighted(variant.export_spec(arch.keys()), weights)


def weighted(spec: ExportSpec, weights: Path) -> ExportSpec:
    """Return a spec with weights from a file; raise InvalidArtifactError if it cannot be read."""
    try:
        sha256, _ = digest(weights)
    except OSError as error:
        raise InvalidArtifactError(
            f"{weights}: cannot read the weights ({error.strerror}); check the path", code="unreadable_file"
        ) from error
    return replace(spec, weights=f"sha256:{sha256}", weights_path=str(weights))


def winner_variants(variant: Variant) -> tuple[Variant, Variant]:
    """Return what a winner is exported for: ExecuTorch and Core ML, one of them in the LUT's own variant."""
    if variant.runtime == "executorch":
        return variant, Variant("coreml", "all")
    if variant.is_simulated:
        return Variant("executorch", "xnnpack", threads=1), Variant("coreml", "all")
    return Variant("executorch", "xnnpack", threads=1), variant


def write_winner(folder: Path, card: Card, weights: Path, artifacts: Iterable[Artifact]) -> None:
    """Write `winner.json`, the weights, the exported models, and last the card with their digests."""
    arch_file = folder / "winner.json"
    write_json(arch_file, card.winner.architecture().to_document())
    files = {arch_file.name: digest(arch_file)[0]}
    models = [(artifact.path, artifact.suffix, artifact.sha256) for artifact in artifacts]
    for path, suffix, sha256 in [*models, (weights, ".safetensors", digest(weights)[0])]:
        files[deliver(path, folder / f"winner{suffix}").name] = sha256
    write_text(folder / "winner.md", model_card(card, files))

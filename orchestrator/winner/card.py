"""The winner's model card: what it is, how it was found, what is known of it, and what is not."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from luts.format.errors import InvalidArtifactError, few
from luts.format.files import storage_error, write_json, write_text
from luts.format.lut import Lut
from orchestrator.export import Artifact, ExportSpec
from orchestrator.export.artifacts.artifact import deliver, digest
from orchestrator.export.artifacts.spec import Variant
from orchestrator.plan.plan import model_id
from orchestrator.winner.winner import MeasuredBest
from search.algorithms import Budget, SearchResult
from search.algorithms.record import Evaluated, LutPin
from search.spaces import Arch
from search.spaces.registry import is_timm

if TYPE_CHECKING:
    from search.supernet.inherit import InheritedAccuracy
    from search.supernet.train.checkpoint import CheckpointInfo


@dataclass(frozen=True)
class Card:
    """What a model card tells.

    Attributes:
        winner: May be another than the search's own, if `measured` chose it.
        measured: None where no device was given.
    """

    search: SearchResult
    winner: Evaluated
    lut_name: str
    lut: Lut
    supernet: CheckpointInfo
    measured: MeasuredBest | None


def model_card(card: Card, files: Mapping[str, str]) -> str:
    """Markdown; `files` beside it: name to sha256, a Core ML package's being that of its packed form."""
    arch, macs = card.winner.architecture(), card.winner.architecture().macs()
    facts = {
        "architecture": f"`{card.winner.arch}`",
        "input": f"1 x 3 x {arch.resolution} x {arch.resolution}, RGB, normalised by ImageNet's mean and deviation",
        "output": f"{arch.classes} classes: {few(card.supernet.classes, 12)}",
        "parameters": f"{card.winner.params:,}",
        "MACs": f"{macs.conv_linear / 1e6:.2f} M conv+linear, {macs.total / 1e6:.2f} M all",
    }
    parts = [
        f"# A network of {card.search.space} for {_read_for(card) or card.lut.meta.device.name}",
        _table(facts),
        "## Latency",
        *_latency(card),
        "## Accuracy",
        _judged(card),
        "## How it was found",
        _table(_provenance(card)),
        "## Not measured",
        "\n".join(f"- {line}" for line in _unknown(card)),
        "## Files",
        _table({name: f"sha256 `{sha256}`" for name, sha256 in files.items()}),
        "## Licence",
        "blocktime is under Apache-2.0 and claims nothing in this model. Terms of the images "
        f"(`{card.supernet.source}`){_teacher_terms(card)} apply to the weights; blocktime does not know them.",
    ]
    return "\n\n".join(parts) + "\n"


def budget_text(search: SearchResult) -> str:
    """A search's budget as people read it."""
    latencies = (search.budget.latency_ms, *search.budget.further_latency_ms)
    pins = search.provenance.luts if search.provenance else ()
    return limits_text(search.budget, by_lut([f"{ms:.3f} ms" for ms in latencies], search.lut_names), pins)


def limits_text(budget: Budget, latencies: Sequence[str], pins: Sequence[LutPin] = ()) -> str:
    """A budget as people read it, with its latencies as texts, by LUTs that may be another device's."""
    parts = [" and ".join(latencies)]
    parts += [f"{budget.params:,} parameters"] if budget.params is not None else []
    parts += [f"at least {budget.least_params:,} of them"] if budget.least_params is not None else []
    parts += [f"{budget.macs:,} conv+linear MACs"] if budget.macs is not None else []
    parts += [f"{budget.memory_bytes:,} bytes of activations"] if budget.memory_bytes is not None else []
    held = (
        f"latency held with {100 * budget.confidence:g} % confidence" if budget.cautious else "by prediction"
    )
    read = [pin for pin in pins if pin.read_for]
    if budget.cautious and read:
        known = all(pin.device_log_sd for pin in read)
        held += (
            ", how far devices are apart included"
            if known
            else " on the LUT's own device; on others not known"
        )
    return ", ".join([*parts, held])


def lut_text(pin: LutPin) -> str:
    """A LUT's name, and for which device it was read where it is another's."""
    if not pin.read_for:
        return pin.name
    factor = (
        f"within a factor of {math.exp(1.96 * pin.device_log_sd):.2f}" if pin.device_log_sd else "unknown"
    )
    return f"{pin.name}, read for {pin.read_for}: another device's, how far off {factor}"


def by_lut(texts: Sequence[str], luts: Sequence[str]) -> list[str]:
    """What holds by each LUT, with its name where there are several."""
    if len(luts) == 1:
        return list(texts)
    return [f"{text} by {lut}" for text, lut in zip(texts, luts, strict=True)]


def _judged(card: Card) -> str:
    if own := card.search.own_objective:
        return (
            f"{card.winner.accuracy:.4g} by the objective `{own}`, which is no accuracy. "
            "The weights are inherited from the supernet; `bench eval` gives their accuracy."
        )
    return (
        f"{100 * card.winner.accuracy:.2f} % top-1 on the {_split(card)} split of `{card.supernet.source}`, with "
        "weights inherited from the supernet and not trained further. The search chose the network by this "
        "number, so it is optimistic; `bench eval --final` gives the accuracy on the validation split."
    )


def _latency(card: Card) -> list[str]:
    meta, winner, budget = card.lut.meta, card.winner, card.search.budget
    where = f"{meta.device.model}, {meta.device.os}, {meta.variant}"
    predicted = [
        f"{ms:.3f} ms" + (f", at most {high_ms:.3f} ms with that confidence" if budget.cautious else "")
        for ms, high_ms in winner.latencies
    ]
    luts = card.search.lut_names
    rows = {"budget": budget_text(card.search), "predicted": "; ".join(by_lut(predicted, luts))}
    if card.measured is not None:
        row = card.measured.chosen
        rows["predicted interval"] = f"{row.predicted_low:.3f} to {row.predicted_high:.3f} ms"
        rows["measured"] = (
            f"{row.measured_ms:.3f} ms, 95 % interval {row.measured_low:.3f} to {row.measured_high:.3f} ms, "
            f"{'within' if card.measured.meets_budget else 'NOT within'} the budget"
        )
        if row.percentiles is not None:
            rows["percentiles"] = str(row.percentiles)
    simulated = [] if meta.measured == "measured" else ["**The LUT's numbers are simulated.**"]
    others = []
    if len(luts) > 1:
        others = [f"The first is of this phone; on the others ({', '.join(luts[1:])}) nothing was measured."]
    how = f"At batch 1 on {where}, in milliseconds of the LUT's reference model."
    if device := _read_for(card):
        how = (
            f"At batch 1. **Predictions are by a LUT of another device: {where}.** Measurements are of {device}, "
            "in its own milliseconds of that day."
        )
    return [*simulated, how, *others, _table(rows)]


def _read_for(card: Card) -> str:
    """The device that was meant where the first LUT is another's."""
    pins = card.search.provenance
    return pins.luts[0].read_for if pins else ""


def _provenance(card: Card) -> Mapping[str, str]:
    search, info = card.search, card.supernet
    pins = search.provenance
    facts = {
        "LUT": f"{card.lut_name}, lut.json `{search.price}`",
        "supernet": f"weights `{info.weights_sha256}`",
        "recipe": f"{info.recipe.name}, {info.recipe.epochs} epochs, {info.step} steps, seed {info.recipe.seed}"
        + ("" if info.finished else ", NOT trained to its end"),
        "trained subnets": str(info.scope or "unknown"),
        "teacher": info.teacher or "none",
        "data": f"`{info.source}`, digest `{info.data_digest}`",
        "split": f"seed {info.split_seed}, {100 * info.split_fraction:g} % held out for the search",
        "search": f"{search.settings.strategy}, seed {search.settings.seed}, {len(search.evaluated)} evaluations",
    }
    if pins is not None:
        commit = f", commit `{pins.code.commit}`" if pins.code.commit else ""
        facts["code"] = f"blocktime {pins.code.package}{commit}, sources of search `{pins.code.sources}`"
        facts["LUT"] = "; ".join(f"{lut_text(lut)}, lut.json `{lut.sha256}`" for lut in pins.luts)
    return facts


def _unknown(card: Card) -> list[str]:
    device = _read_for(card) or card.lut.meta.device.name
    lines = [
        "accuracy on the validation split, on other images, or after training of its own",
        "memory, energy and heat on the device, and latency under sustained load",
        f"latency anywhere but as {card.lut.meta.variant} on {device}: of the two exported models one is for "
        "another runtime",
    ]
    if card.measured is None:
        lines.insert(
            0, "the latency: what stands above is predicted from the LUT (`bench search --device` measures)"
        )
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
    """Write a subnet's weights, its own BN statistics among them, as safetensors; the file.

    Those of a network of timm have timm's names.
    """
    from safetensors.torch import save_file  # brings torch, which most commands can do without

    path = folder / f"{model_id(arch.keys())}.safetensors"
    network = evaluator.network(arch).cpu()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        state = (network[0] if is_timm(arch.space) else network).state_dict()
        # training leaves convolutions with their channels last, which the format has no word for
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    except OSError as error:
        raise storage_error(f"cannot write {path}", error, "choose another --output") from error
    return path


def weighted_spec(variant: Variant, arch: Arch, weights: Path) -> ExportSpec:
    """How an architecture is exported with weights from a file."""
    return weighted(variant.export_spec(arch.keys()), weights)


def weighted(spec: ExportSpec, weights: Path) -> ExportSpec:
    """A spec with the weights of a file; `InvalidArtifactError` where that can't be read."""
    try:
        sha256, _ = digest(weights)
    except OSError as error:
        raise InvalidArtifactError(
            f"{weights}: cannot read the weights ({error.strerror}); check the path"
        ) from error
    return replace(spec, weights=f"sha256:{sha256}", weights_path=str(weights))


def winner_variants(variant: Variant) -> tuple[Variant, Variant]:
    """What a winner is exported for: ExecuTorch and Core ML, the LUT's own variant one of them."""
    if variant.runtime == "executorch":
        return variant, Variant("coreml", "all")
    if variant.is_simulated:
        return Variant("executorch", "xnnpack", threads=1), Variant("coreml", "all")
    return Variant("executorch", "xnnpack", threads=1), variant


def write_winner(folder: Path, card: Card, weights: Path, artifacts: Iterable[Artifact]) -> None:
    """Write `winner.json`, the weights, the exported models, and last the card, which has their digests."""
    arch = card.winner.architecture()
    described = folder / "winner.json"
    write_json(described, arch.to_document())
    files = {described.name: digest(described)[0]}
    models = [(artifact.path, artifact.suffix, artifact.sha256) for artifact in artifacts]
    for path, suffix, sha256 in [*models, (weights, ".safetensors", digest(weights)[0])]:
        files[deliver(path, folder / f"winner{suffix}").name] = sha256
    write_text(folder / "winner.md", model_card(card, files))

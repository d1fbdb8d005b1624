"""Lower a network for XNNPACK from fragments, lowering only units that no network before it had."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from luts.format.errors import BlocktimeError
from orchestrator.export.lower.executorch import LoweredProgram, lower_to_executorch
from orchestrator.export.lower.rewrite import linear_layernorm
from orchestrator.export.lower.xnnpack import recorded_graphs
from orchestrator.export.reuse.cut import CutError, cut
from orchestrator.export.reuse.fragment import Fragment, FragmentStore
from orchestrator.export.reuse.program import arguments_of, serialize
from orchestrator.export.reuse.splice import SpliceError, splice
from orchestrator.export.reuse.units import Unit, donor_of, units_of
from search.blocks import parse_keys
from search.networks.fusion import fuse_for_inference

DONOR_UNITS = 2
"""A unit's donor takes about as long to lower as this many units of a whole network, where capturing, the two
convolutions beside it and the program around it are shared."""


def splice_network(blocks: Sequence[str], network: nn.Module, store: FragmentStore) -> LoweredProgram | None:
    """The program that lowering the network gives, from fragments; missing ones are made, where they are few.

    Returns None where lowering the whole network is quicker, or its fragments can't be had.

    Args:
        blocks: Keys of the network.
        network: Their network with the weights to export; it is left as it was.
        store: Fragments that are known; new ones are added.

    Raises:
        OSError: the store's disk is full.
    """
    specs = parse_keys(blocks)
    units = units_of(specs)
    known = {unit.identity: store.get(unit.identity) for unit in units}
    missing = {u.identity: u for u in units if known[u.identity] is None}
    if not units or len(missing) * DONOR_UNITS > len(units):
        return None
    try:
        for identity, unit in missing.items():
            known[identity] = store.get(identity) or _donate(unit, store)
        pairs = [(unit, fragment) for unit in units if (fragment := known[unit.identity]) is not None]
        spliced = splice(pairs, _lowered_tensors(network))
        return LoweredProgram(serialize(spliced, specs[0].resolution, specs[-1].out_channels), 1, ())
    except (CutError, SpliceError, BlocktimeError):
        return None


def lower_and_keep(
    blocks: Sequence[str], network: nn.Module, inputs: Sequence[Tensor], store: FragmentStore
) -> LoweredProgram:
    """Lower a network whole, and keep the fragments of its units; its weights must be random ones.

    Raises:
        BlocktimeError: XNNPACK's tools cannot lower it.
        OSError: the store's disk is full.
    """
    return _lower(network, inputs, units_of(parse_keys(blocks)), store)[0]


def _donate(unit: Unit, store: FragmentStore) -> Fragment:
    donor = donor_of(unit)
    fragments = _lower(donor.module, donor.inputs, donor.units, store)[1]
    if unit.identity not in fragments:
        raise CutError("a donor without its unit's fragment")
    return fragments[unit.identity]


def _lower(
    module: nn.Module, inputs: Sequence[Tensor], units: Sequence[Unit], store: FragmentStore
) -> tuple[LoweredProgram, dict[str, Fragment]]:
    """The lowered module, and its fragments by identity: none where it can't be cut."""
    with recorded_graphs() as graphs:
        lowered = lower_to_executorch(module, inputs)
    if not units or len(graphs) != 1 or (lowered.delegates, lowered.operators) != (1, ()):
        return lowered, {}
    try:
        cuts = cut(graphs[0], arguments_of(lowered.data), units, _lowered_tensors(module))
    except (CutError, SpliceError):
        return lowered, {}
    fragments = {unit.identity: fragment for unit, fragment in cuts.items()}
    for identity, fragment in fragments.items():
        store.put(identity, fragment)
    return lowered, fragments


def _lowered_tensors(module: nn.Module) -> dict[str, Tensor]:
    return linear_layernorm(fuse_for_inference(module)).state_dict()

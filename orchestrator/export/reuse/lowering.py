"""Lower a network for XNNPACK from fragments; only units that no network before had are lowered."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import (
    CONSTANT_TENSOR_ALIGNMENT,
    serialize_xnnpack_binary,
)
from executorch.exir import schema
from executorch.exir._serialize._named_data_store import NamedDataStore
from executorch.exir._serialize._program import PTEFile, deserialize_pte_binary
from torch import Tensor, nn

from luts.format.errors import BlocktimeError
from orchestrator.export.lower.executorch import LoweredProgram, lower_to_executorch
from orchestrator.export.lower.rewrite import linear_layernorm
from orchestrator.export.lower.source import build_seeded, serialize_program
from orchestrator.export.lower.xnnpack import recorded_graphs
from orchestrator.export.reuse.fragment import Fragment, FragmentStore, ReusableUnit, donor_of, units_of
from orchestrator.export.reuse.splice import Argument, ReuseError, Spliced, cut, splice
from search.blocks import FcHead, parse_keys
from search.networks import build_block
from search.networks.layers import fuse_for_inference


def serialize(spliced: Spliced, resolution: int, classes: int) -> bytes:
    """Return the `.pte` of a spliced graph from (1, 3, resolution, resolution) to (1, classes).

    Raises:
        ReuseError: ExecuTorch emits other programs than expected.
    """
    program = deserialize_pte_binary(_skeleton(resolution, classes)).program
    (plan,) = program.execution_plan
    call = plan.chains[0].instructions[0].instr_args
    if list(call.args) != [0, 1] or len(program.backend_delegate_data) != 1 or len(plan.values) != 2:
        raise ReuseError("a classifier is not one delegate call with two values")
    buffers = [schema.Buffer(storage=b"")]
    constants = [_constant(argument, buffers) for argument in spliced.arguments]
    plan.values = [schema.EValue(tensor) for tensor in constants] + plan.values
    plan.inputs, plan.outputs = [len(constants)], [len(constants) + 1]
    call.args = list(range(len(plan.values)))
    program.constant_buffer = buffers
    payload = serialize_xnnpack_binary(spliced.graph, bytearray())
    program.backend_delegate_data[0].data = payload
    store = NamedDataStore()
    for key, data in spliced.constants.items():
        store.add_named_data(key, data, alignment=CONSTANT_TENSOR_ALIGNMENT)
    named = store.get_named_data_store_output()
    return serialize_program(PTEFile(program=program, mutable_data=None, named_data=named))


def arguments_of(program: bytes) -> tuple[Argument, ...]:
    """Return the constants that a `.pte` passes to its delegate, in order.

    Raises:
        ReuseError: The program is not a single delegate call from one input to one output.
    """
    whole = deserialize_pte_binary(program).program
    (plan,) = whole.execution_plan
    instructions = plan.chains[0].instructions
    call = instructions[0].instr_args
    if len(instructions) != 1 or len(plan.inputs) != 1 or len(plan.outputs) != 1:
        raise ReuseError("not one delegate call with one input and one output")
    if list(call.args) != list(range(len(plan.values))) or [*plan.inputs, *plan.outputs] != call.args[-2:]:
        raise ReuseError("arguments of the delegate in another order")
    arguments = []
    for value in plan.values[:-2]:
        tensor = value.val
        data = whole.constant_buffer[tensor.data_buffer_idx].storage[: 4 * math.prod(tensor.sizes)]
        arguments.append(Argument(bytes(data), tuple(tensor.sizes), tensor.requires_grad))
    return tuple(arguments)


def _constant(argument: Argument, buffers: list[Any]) -> Any:
    """Return the program's tensor of an argument; equal bytes share a buffer."""
    storages = [buffer.storage for buffer in buffers]
    if argument.data not in storages:
        buffers.append(schema.Buffer(storage=argument.data))
        storages.append(argument.data)
    return schema.Tensor(
        scalar_type=schema.ScalarType.FLOAT,
        storage_offset=0,
        sizes=list(argument.sizes),
        dim_order=list(range(len(argument.sizes))),
        requires_grad=argument.is_parameter,
        layout=0,
        data_buffer_idx=storages.index(argument.data),
        allocation_info=None,
        shape_dynamism=schema.TensorShapeDynamism.STATIC,
    )


@functools.lru_cache(maxsize=8)
def _skeleton(resolution: int, classes: int) -> bytes:
    """Return the `.pte` of the smallest classifier of these shapes; all share its input, output and memory plan."""
    head = FcHead(resolution=resolution, inputs=3, classes=classes)
    module = build_seeded(lambda: build_block(head)[0], 0)
    return lower_to_executorch(module, (torch.zeros(1, 3, resolution, resolution),)).data


DONOR_UNITS = 2
"""A unit's donor takes about as long to lower as this many units of a whole network, in which capturing, the
two convolutions around it and the program around it are shared.
"""


def splice_network(blocks: Sequence[str], network: nn.Module, store: FragmentStore) -> LoweredProgram | None:
    """Return the program that lowering the network gives, from fragments; a few missing ones are lowered.

    None if lowering the whole network is faster, or its fragments are not available. New fragments are stored.

    Raises:
        OSError: The store's disk is full.
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
    except (ReuseError, BlocktimeError):
        return None


def _donate(unit: ReusableUnit, store: FragmentStore) -> Fragment:
    donor = donor_of(unit)
    _, fragments = lower_and_keep(donor.module, donor.inputs, donor.units, store)
    if unit.identity not in fragments:
        raise ReuseError("a donor without its unit's fragment")
    return fragments[unit.identity]


def lower_and_keep(
    module: nn.Module, inputs: Sequence[Tensor], units: Sequence[ReusableUnit], store: FragmentStore
) -> tuple[LoweredProgram, dict[str, Fragment]]:
    """Lower a module with random weights, and store the fragments of its units: none if it can't be cut.

    Raises:
        BlocktimeError: XNNPACK's tools cannot lower it.
        OSError: The store's disk is full.
    """
    with recorded_graphs() as graphs:
        lowered = lower_to_executorch(module, inputs)
    if (
        not units
        or len(graphs) != 1
        or not graphs[0].paths
        or (lowered.delegates, lowered.operators) != (1, ())
    ):
        return lowered, {}
    try:
        cuts = cut(graphs[0], arguments_of(lowered.data), units, _lowered_tensors(module))
    except ReuseError:
        return lowered, {}
    fragments = {unit.identity: fragment for unit, fragment in cuts.items()}
    for identity, fragment in fragments.items():
        store.put(identity, fragment)
    return lowered, fragments


def _lowered_tensors(module: nn.Module) -> dict[str, Tensor]:
    return linear_layernorm(fuse_for_inference(module)).state_dict()

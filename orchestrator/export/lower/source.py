"""From an export spec to its module and an example input."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from luts.format.errors import InvalidArtifactError, UsageError
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.programs import Program
from orchestrator.export.lower.removal import without
from search.blocks import parse_keys
from search.blocks.timm_networks import WIDTHS, create_classifier, native_side
from search.networks import build_block, build_segment, module_of
from search.spaces import get_arch
from search.spaces.stages import TaskName
from search.supernet.model.weights_file import misfit, read_weights, unreadable_weights

KEY = "blocktime.weights"


def serialize_program(file: Any) -> bytes:
    """Return the `.pte` of a program (`PTEFile`), laid out as ExecuTorch does by default."""
    from executorch.exir import ExecutorchBackendConfig
    from executorch.exir._serialize._program import serialize_pte_binary

    config = ExecutorchBackendConfig()
    return bytes(
        serialize_pte_binary(
            file,
            extract_delegate_segments=config.extract_delegate_segments,
            segment_alignment=config.segment_alignment,
            constant_tensor_alignment=config.constant_tensor_alignment,
            delegate_alignment=config.delegate_alignment,
        )
    )


def stamp_program(data: bytes, weights: str) -> bytes:
    """Return the `.pte` with a line about its weights; nothing else changes."""
    from executorch.exir._serialize._named_data_store import NamedDataStore
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir._serialize.data_serializer import DataEntry

    file = deserialize_pte_binary(data)
    named = file.named_data or NamedDataStore().get_named_data_store_output()
    named.pte_data[KEY] = DataEntry(buffer_index=len(named.buffers), alignment=1, tensor_layout=None)
    named.buffers.append(weights.encode())
    file.named_data = named
    return serialize_program(file)


def stamp_package(package: Path, weights: str) -> None:
    """Write a line about its weights into the model of an `.mlpackage`."""
    from coremltools.proto import Model_pb2

    path = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model = Model_pb2.Model()
    model.ParseFromString(path.read_bytes())
    model.description.metadata.userDefined[KEY] = weights
    path.write_bytes(model.SerializeToString(deterministic=True))


MAX_SCALE = 1e3
"""Largest output of random weights that is accepted: far above those of our networks, far below fp16's limit."""

MAX_GAIN = 30.0
"""Largest gain of random weights that is accepted: relative change of the output over that of the input.

Published networks have up to 0.6; at 1000 rounding alone changes the third digit, so that a parity check
would say nothing.
"""

PERTURBATION = 1e-4
"""Relative change of the input for the gain: far above rounding, small enough to be about linear."""

MAX_HALVINGS = 8
"""Most halvings of the linear weights of a network without norms; AutoViT-XXS needs two, MobileViT-XS and
DeiT-T one.
"""


def build_seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a module in eval mode with weights of `seed`; the global generator is unchanged."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.modules():
            _draw(part, generator)
    return module


def _draw(part: nn.Module, generator: torch.Generator) -> None:
    """Draw convolutions after He et al. 2015 (gain 2, near SiLU's), linear layers with unit gain."""
    if isinstance(part, nn.Conv2d | nn.Linear):
        gain = 2.0 if isinstance(part, nn.Conv2d) else 1.0
        fan_in = part.weight[0].numel()
        part.weight.normal_(0.0, math.sqrt(gain / fan_in), generator=generator)
        if part.bias is not None:
            part.bias.normal_(0.0, 0.1, generator=generator)
    elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm):
        if part.weight is not None:
            part.weight.uniform_(0.7, 1.3, generator=generator)
        if part.bias is not None:
            part.bias.normal_(0.0, 0.1, generator=generator)
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            part.running_mean.normal_(0.0, 0.1, generator=generator)
            assert part.running_var is not None
            part.running_var.uniform_(0.7, 1.3, generator=generator)


def settle(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Give BN the scale of its inputs if random weights exceed `MAX_SCALE` or `MAX_GAIN`; else change nothing.

    Dozens of residuals, each of which triples the variance, take a network to 1e11; attention over values of
    100 depends on their last digits.
    """
    if not _wild(module, inputs):
        return
    with ExitStack() as hooks, torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                hooks.enter_context(part.register_forward_pre_hook(_take_scale))
        module(*inputs)


def calm(module: nn.Module, inputs: Sequence[Tensor]) -> None:
    """Halve the weights of linear layers until a network without norms is within these limits.

    At most `MAX_HALVINGS` times; a network that still exceeds them fails the parity check.
    """
    for _ in range(MAX_HALVINGS):
        if not _wild(module, inputs):
            return
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() == 2:
                    parameter.mul_(0.5)


def _wild(module: nn.Module, inputs: Sequence[Tensor]) -> bool:
    """Return whether the output exceeds `MAX_SCALE`, or changes by more than `MAX_GAIN` with the input."""
    with torch.no_grad():
        outputs = module(*inputs)
        if not isinstance(outputs, Tensor):
            return False
        scale = outputs.abs().max()
        moved = (module(*(x + PERTURBATION * x.flip(-1) for x in inputs)) - outputs).abs().max()
    return not (scale <= MAX_SCALE and moved <= MAX_GAIN * PERTURBATION * scale)


def _take_scale(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
    """Scale BN's statistics, drawn for inputs of unit scale, to these inputs.

    One scale for all channels: one for each would enlarge what is small by chance.
    """
    assert isinstance(norm, nn.BatchNorm2d)
    square = given[0].square().mean()
    if norm.running_mean is not None and norm.running_var is not None and square > 0:
        norm.running_mean.mul_(square.sqrt())
        norm.running_var.mul_(square)


def rows_in(path: Path, name: str) -> int | None:
    """Return the rows of a tensor of a safetensors file, from its header; None if there is no such tensor.

    Raises:
        InvalidArtifactError: Not a safetensors file.
    """
    try:
        with safe_open(path, "pt") as file:
            return int(file.get_slice(name).get_shape()[0]) if name in file.keys() else None
    except (OSError, SafetensorError) as error:
        raise unreadable_weights(path, error) from error


def load_weights(module: nn.Module, path: Path, sha256: str) -> None:
    """Load a safetensors file that must have the digest and exactly the module's tensors.

    Raises:
        InvalidArtifactError: Missing, too large, another digest, tensors that do not fit or are not finite.
    """
    tensors = read_weights(path, sha256)
    own = module.state_dict()
    tensors = {name: own[name] for name in own if name.endswith("num_batches_tracked")} | tensors
    problem = misfit(own, tensors)
    if problem:
        raise InvalidArtifactError(
            f"{path}: {problem}; give the weights of this network", code="wrong_weights"
        )
    module.load_state_dict(tensors)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch run on one thread while the context lasts."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def build_module(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the spec's module in eval mode with its weights, and example inputs of its batch.

    Raises:
        UsageError: timm does not know the model, it does not support the resolution, or it has no operation
            of the kind to be removed.
        InvalidArtifactError: The weights file is damaged or of another network.
    """
    if spec.module.startswith("timm:"):
        module, inputs = _build_timm(spec)
    elif spec.module:
        module = build_seeded(lambda: Program(spec.module), _seed(spec))
        assert isinstance(module, Program)
        inputs = (torch.randn(module.input_shape, generator=torch.Generator().manual_seed(0)),)
    else:
        module, inputs = _build_blocks(spec)
    if spec.weights.startswith("sha256:"):
        load_weights(module, Path(spec.weights_path), spec.weights.removeprefix("sha256:"))
    else:
        settle(module, inputs)
    if spec.batch > 1:
        # no two images alike: each is shifted by its number
        inputs = tuple(torch.cat([x.roll(index, -1) for index in range(spec.batch)]) for x in inputs)
    if not spec.without:
        return module, inputs
    removed = without(module, inputs, spec.without, spec.backend)
    calm(removed, inputs)
    return removed, inputs


def _seed(spec: ExportSpec) -> int:
    return int(spec.weights.removeprefix("seed:")) if spec.weights.startswith("seed:") else 0


def _build_blocks(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    blocks = parse_keys(spec.blocks)
    if len(blocks) == 1:
        module = build_seeded(lambda: build_block(blocks[0])[0], _seed(spec))
        _, x = build_block(blocks[0])
        return module, (x,)
    module = build_seeded(lambda: build_segment(blocks, spec.segment), _seed(spec))
    generator = torch.Generator().manual_seed(0)
    return module, (torch.randn(blocks[0].input_shape, generator=generator),)


def _build_timm(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return a network of timm with seeded weights, `timm:NAME` or `timm:NAME@PX` at another resolution.

    It has as many classes as its weights file, if there is one.
    """
    import timm

    if TaskName.parse(spec.module):
        return _build_timm_task(spec)
    name, _, size = spec.module.removeprefix("timm:").partition("@")
    native = native_side(name)
    config = timm.get_pretrained_cfg(WIDTHS.get(name, (name, 1.0))[0])
    classes = None
    if spec.weights_path and isinstance(config.classifier, str):
        classes = rows_in(Path(spec.weights_path), f"{config.classifier}.weight")
    side = int(size) if size else native
    try:
        module = build_seeded(lambda: create_classifier(name, side, classes), _seed(spec))
        x = torch.randn(1, config.input_size[0], side, side, generator=torch.Generator().manual_seed(0))
        if side != native:
            _check_patches(module, side)
            with torch.no_grad():
                module(x)
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError) as error:
        if side == native:
            raise
        first = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise UsageError(
            f"timm:{name} can't take {side} px ({first[0][:200]}); its own are {native} px",
            code="bad_resolution",
        ) from error
    return module, (x,)


def _build_timm_task(spec: ExportSpec) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return `timm:NAME.HEAD[CLASSES][@PX]` with seeded weights."""
    (block,) = get_arch(spec.module).blocks()
    module = build_seeded(lambda: module_of(block), _seed(spec))
    return module, (torch.randn(block.input_shape, generator=torch.Generator().manual_seed(0)),)


def _check_patches(module: nn.Module, side: int) -> None:
    """Raise ValueError if patches do not cover the image: timm would silently ignore the rest."""
    projection = getattr(getattr(module, "patch_embed", None), "proj", None)
    if isinstance(projection, nn.Conv2d) and projection.kernel_size == projection.stride:
        size = projection.kernel_size[0]
        if side % size:
            raise ValueError(f"its patches are {size} px wide, and {side} is not a multiple of that")


def places_of(module: nn.Module) -> tuple[str, ...]:
    """Return the paths of the modules that a precision can be chosen for, in order.

    They are the network's children that have matrices or kernels to quantise; of a list of blocks (timm's `blocks`,
    `stages`), its own children.
    """
    return tuple(_places(module))


def _places(module: nn.Module) -> Iterator[str]:
    for name, child in module.named_children():
        listed = type(child) in (nn.Sequential, nn.ModuleList) and not isinstance(module, nn.Sequential)
        for path, part in (
            [(f"{name}.{n}", c) for n, c in child.named_children()] if listed else [(name, child)]
        ):
            if any(parameter.dim() > 1 for parameter in part.parameters()):
                yield path


def check_paths(name: str, module: nn.Module, paths: Sequence[str]) -> None:
    """Raise UsageError if the network has no module at one of the paths."""
    known = dict(module.named_modules())
    for path in paths:
        if path not in known:
            raise UsageError(
                f"{name} has no block {path!r} to keep in fp32; it has {', '.join(places_of(module))}",
                code="unknown_block",
            )

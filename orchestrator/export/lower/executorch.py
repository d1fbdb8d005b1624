"""Lower a module to an ExecuTorch program (.pte) for one backend."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luts.format.errors import BlocktimeError, first_line
from luts.format.provenance import repo_file
from orchestrator.export.artifacts.spec import QUANTISED
from orchestrator.export.lower import quiet
from orchestrator.export.lower.rewrite import SPELLINGS, SpelledOut, capture, rewritten, spelled_out


class _Half(nn.Module):
    """A module in fp16 between fp32 inputs and outputs."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(module).half()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        out: Tensor | tuple[Tensor, ...] = self.module(*(x.half() for x in inputs))
        return out.float() if isinstance(out, Tensor) else tuple(x.float() for x in out)


_WITH_NUMBERS = {
    torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__,
    torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__,
    torch.sub, Tensor.sub, Tensor.__sub__, torch.div, Tensor.div, Tensor.__truediv__,
}  # fmt: skip


def _silu(x: Tensor, inplace: bool = False) -> Tensor:
    """Compute x sigmoid(x) (Elfwing et al. 2017, equation 6)."""
    del inplace
    return x * torch.sigmoid(x)


def _hardswish(x: Tensor, inplace: bool = False) -> Tensor:
    """Compute x relu6(x + 3) / 6 (Howard et al. 2019, section 5.2)."""
    del inplace
    return x * (functional.relu6(x + 3.0) * (1.0 / 6.0))


class _SpelledInHalf(SpelledOut):
    """Activations as operations that stay fp16."""

    spellings = SPELLINGS | {functional.silu: _silu, functional.hardswish: _hardswish}

    def __torch_function__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Keep numbers of sums and products in fp16: ExecuTorch makes fp32 tensors of them, and converts."""
        if func in _WITH_NUMBERS:
            args = [torch.tensor(x, dtype=torch.half) if isinstance(x, float) else x for x in args]
        return super().__torch_function__(func, types, args, kwargs)


_GLUE = {"getitem", "alloc"}


@dataclass(frozen=True)
class LoweredProgram:
    """A .pte, its delegates, the operators that run outside them with their counts, and all calls in order.

    A call is an operator and the path of the module that it was called in, or a delegate and its name; spliced
    programs have none.
    """

    data: bytes
    delegates: int
    operators: tuple[tuple[str, int], ...]
    calls: tuple[tuple[str, str], ...] = ()


def lower_to_executorch(
    module: nn.Module,
    inputs: Sequence[Tensor],
    backend: str = "xnnpack",
    precision: str = "fp32",
    deployment_target: str = "iOS16",
    *,
    plain: bool = False,
    images: Tensor | None = None,
    fp32: Sequence[str] = (),
) -> LoweredProgram:
    """Lower an eval-mode module; it is unchanged.

    Args:
        module: Any exportable module; convolution and BN in sequence are folded.
        inputs: Example inputs; their shapes become the program's.
        backend: `xnnpack`, `portable` (no delegate), `coreml` or `vulkan`.
        precision: Computation inside the delegate; the interface stays fp32 (for XNNPACK in fp16 by a
            conversion outside of it at either end).
        deployment_target: Oldest iOS of the Core ML delegate.
        plain: Without our rewrites.
        images: (N, 3, H, W) that decide int8's ranges; None for seeded inputs.
        fp32: Paths of modules that stay fp32.

    Raises:
        BlocktimeError: The backend's tools are missing, or cannot lower an operator; both are named.
    """
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    if module.training:
        raise BlocktimeError(
            "only a module in eval mode can be exported; call .eval() first", code="not_in_eval_mode"
        )
    module = module if plain else rewritten(module, backend)
    with quiet(), torch.no_grad():
        try:
            partitioners = _partitioners(backend, precision, deployment_target)
            captured = _captured(module, inputs, backend, precision, plain=plain)
            if precision in QUANTISED:
                from orchestrator.export.lower.quantize import quantized

                captured = torch.export.export(quantized(captured, inputs, images, fp32), tuple(inputs))
            manager = to_edge_transform_and_lower(
                captured,
                partitioner=partitioners,
                compile_config=EdgeCompileConfig(_check_ir_validity=False),
            )
            graph = manager.exported_program().graph
            calls = tuple(_calls(graph))
            operators = Counter(name for name, _ in calls)
            data = bytes(manager.to_executorch().buffer)
        except ImportError as error:
            raise BlocktimeError(
                f"ExecuTorch's {backend} backend is not installed here ({error}); "
                f"see {repo_file('docs/lowering.md')}",
                code="missing_package",
            ) from error
        except (RuntimeError, ValueError, NotImplementedError, AssertionError, KeyError, TypeError) as error:
            raise BlocktimeError(
                f"{backend} cannot lower this model: {first_line(error)}", code="unsupported_operator"
            ) from error
    delegates = operators.pop("executorch_call_delegate", 0)
    return LoweredProgram(data, delegates, tuple(sorted(operators.items())), calls)


def _captured(
    module: nn.Module, inputs: Sequence[Tensor], backend: str, precision: str, *, plain: bool
) -> torch.export.ExportedProgram:
    if backend == "xnnpack" and precision == "fp16":
        return torch.export.export(spelled_out(_Half(module).eval(), _SpelledInHalf), tuple(inputs))
    if backend == "xnnpack" and not plain:
        return capture(module, inputs)
    return torch.export.export(module, tuple(inputs))


def _partitioners(backend: str, precision: str, deployment_target: str) -> list[Any]:
    """Return the delegate's partitioner, imported only when needed; none for portable."""
    match backend:
        case "portable":
            return []
        case "xnnpack":
            from orchestrator.export.lower.xnnpack import FastXnnpackPartitioner

            return [FastXnnpackPartitioner()]
        case "vulkan":
            from executorch.backends.vulkan.partitioner.vulkan_partitioner import VulkanPartitioner

            return [VulkanPartitioner({"force_fp16": precision == "fp16"})]
        case "coreml":
            return [_coreml_partitioner(precision, deployment_target)]
    raise ValueError(f"unknown backend {backend!r}")


def _coreml_partitioner(precision: str, deployment_target: str) -> Any:
    import coremltools
    from executorch.backends.apple.coreml.compiler import CoreMLBackend
    from executorch.backends.apple.coreml.partition import CoreMLPartitioner

    compile_specs = CoreMLBackend.generate_compile_specs(
        minimum_deployment_target=coremltools.target[deployment_target],
        compute_precision=coremltools.precision("float16" if precision == "fp16" else "float32"),
    )
    return CoreMLPartitioner(compile_specs=compile_specs)


def _calls(graph: torch.fx.Graph) -> Iterator[tuple[str, str]]:
    """Return what a graph calls, such as `aten.native_layer_norm.default`, and where: see `LoweredProgram`."""
    for node in graph.nodes:
        if node.op == "call_function":
            name = getattr(node.target, "__name__", str(node.target))
            if name == "executorch_call_delegate":
                yield name, str(node.args[0])
            elif name not in _GLUE:
                stack = node.meta.get("nn_module_stack")
                yield name, list(stack.values())[-1][0] if stack else ""

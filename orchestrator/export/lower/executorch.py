"""Lower a module to an ExecuTorch program (.pte) for one backend."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from luts.format.errors import BlocktimeError, first_line
from luts.format.provenance import repo_file
from orchestrator.export.artifacts.spec import QUANTISED
from orchestrator.export.lower import quiet
from orchestrator.export.lower.decompositions import DECOMPOSITIONS, aten, constant
from orchestrator.export.lower.rewrite import capture, decompose, rewritten


class _Half(nn.Module):
    """A module in fp16 between fp32 inputs and outputs."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(module).half()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        out: Tensor | tuple[Tensor, ...] = self.module(*(x.half() for x in inputs))
        return out.float() if isinstance(out, Tensor) else tuple(x.float() for x in out)


def _in_half(operator: Any) -> Callable[..., Any]:
    """Keep numbers of an operator in fp16: ExecuTorch makes fp32 tensors of them, and converts."""

    def decomposed(x: Tensor, number: Any) -> Any:
        if not isinstance(number, float):
            return NotImplemented
        return operator(x, constant(x, lambda: torch.tensor(number)))

    return decomposed


_HALF = {
    **DECOMPOSITIONS,
    **{each: _in_half(each) for each in (aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.div.Tensor)},
    aten.silu.default: lambda x: x * torch.sigmoid(x),
    aten.hardswish.default: lambda x: x * (functional.relu6(x + 3.0) * (1.0 / 6.0)),
}
"""Operators as others that stay fp16: Elfwing et al. 2017, equation 6, and Howard et al. 2019, section 5.2."""


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
        except Exception as error:  # that is what ExecuTorch's passes raise
            reason = error.__cause__ if type(error) is Exception and error.__cause__ else error
            raise BlocktimeError(
                f"{backend} cannot lower this model: {first_line(reason)}", code="unsupported_operator"
            ) from error
    delegates = operators.pop("executorch_call_delegate", 0)
    return LoweredProgram(data, delegates, tuple(sorted(operators.items())), calls)


def _captured(
    module: nn.Module, inputs: Sequence[Tensor], backend: str, precision: str, *, plain: bool
) -> torch.export.ExportedProgram:
    if backend == "xnnpack" and precision == "fp16":
        return decompose(torch.export.export(_Half(module).eval(), tuple(inputs)), _HALF)
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

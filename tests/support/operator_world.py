"""A simulated device whose costs of operators are known: tiles, inefficient short sums, effects of kinds."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from luts.format.operators import OPERATORS, Operator, parse_operator
from luts.format.schema import MeasuredModel
from tests.support.lut_world import Noise, Study, lut_inputs, model_spec, simulate

MAC_NS = {"gemm": 0.02, "conv": 0.025, "depthwise": 0.08}
ACTIVATIONS = ("hardswish", "sigmoid", "clamp", "gelu")


@dataclass(frozen=True)
class Program:
    """A program by name and family, with its operators' keys."""

    family: str
    name: str
    blocks: tuple[str, ...]

    @property
    def arch(self) -> str:
        return json.dumps({"family": self.family, "program": self.name})


@dataclass(frozen=True)
class OperatorWorld:
    """Milliseconds of operators: physics with MACs padded to columns of tiles, and a factor of each operator."""

    columns: Mapping[str, int]
    stray: float = 0.03
    slower: float = 1.0
    memory: float = 1.0
    """Times the milliseconds of all, and of bytes."""

    def operator_ms(self, key: str) -> float:
        operator = parse_operator(key)
        features, sizes = operator.features, operator.all_sizes
        columns = self.columns.get(operator.kind, 1)
        extent = sizes.get({"gemm": "n", "conv": "out", "depthwise": "c"}.get(operator.kind, ""), 1)
        macs = features.macs * (-(-extent // columns) * columns) / extent
        mib_ms = self.memory * (0.6 if operator.kind.startswith("portable.") else 0.06)
        moved = features.traffic_bytes + 8 * features.params
        ms = 0.0012 + 1e-6 * macs * MAC_NS.get(operator.kind, 0) + mib_ms * moved / 2**20
        if operator.kind == "gemm":
            ms *= 1 + 16 / sizes["k"]
        seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")
        return self.slower * ms * math.exp(np.random.default_rng(seed).normal(0, self.stray))

    def program_ms(self, blocks: Sequence[str]) -> float:
        return sum(map(self.operator_ms, blocks))


def _keys(operators: Sequence[tuple[str, Mapping[str, int]]]) -> tuple[str, ...]:
    return tuple(Operator.build(kind, sizes).key for kind, sizes in operators)


def network(family: int, seed: int) -> Program:
    """A network of inverted bottlenecks, or of convolutions; a third of the families have portable means."""
    own, common = np.random.default_rng([seed, family]), np.random.default_rng(1000 + family)
    activation, side = str(common.choice(ACTIVATIONS)), 112
    taps, expansion, style = int(common.choice([3, 5])), int(common.choice([2, 3, 4, 6])), family % 3
    width = int(own.choice([8, 12, 16, 24, 32]))
    stem = {"h": 112, "w": 112, "in": 3, "out": width, "kh": 3, "kw": 3, "sh": 2, "sw": 2}
    found: list[tuple[str, Mapping[str, int]]] = [("conv", stem)]
    for _ in range(4):
        side //= 2
        wider = int(width * own.uniform(1.3, 2.2)) // 4 * 4
        for _ in range(int(own.integers(1, 4))):
            inner, pixels = width * expansion, side * side
            if style == 2:
                found.append(("conv", {"h": side, "w": side, "in": width, "out": wider, "kh": 3, "kw": 3}))
            else:
                found += [
                    ("gemm", {"m": pixels, "k": width, "n": inner}),
                    (activation, {"n": pixels * inner}),
                    ("depthwise", {"h": side, "w": side, "c": inner, "kh": taps, "kw": taps}),
                    ("gemm", {"m": pixels, "k": inner, "n": wider}),
                ]
            if style == 1:
                mean = {"in": pixels * inner, "out": inner, "stride": inner, "run": inner}
                found.append(("portable.mean", mean))
            width = wider
    found += [("globalavgpooling", {"m": side * side, "c": width}), ("gemm", {"m": 1, "k": width, "n": 1000})]
    return Program(
        f"family{family}", f"timm:net{seed}_{family}", (*_keys(found), "border(n=151528,tensors=2)")
    )


def designed(seed: int) -> Program:
    """A chain of 2 to 7 operators of one kind, of random sizes."""
    own = np.random.default_rng([seed, 7])

    def width() -> int:
        return int(math.exp(own.uniform(math.log(8), math.log(400)))) // 4 * 4

    kind = ("gemm", "conv", "depthwise", "activation", "portable.mean")[seed % 5]
    found: list[tuple[str, Mapping[str, int]]] = []
    side = int(own.choice([56, 28, 14, 7]))
    for _ in range(int(own.integers(2, 8))):
        one, other, pixels = width(), width(), side * side
        found += {
            "gemm": [("gemm", {"m": pixels, "k": one, "n": other})],
            "conv": [("conv", {"h": side, "w": side, "in": one // 2, "out": other // 2, "kh": 3, "kw": 3})],
            "depthwise": [
                ("depthwise", {"h": side, "w": side, "c": one, "kh": taps, "kw": taps})
                for taps in (int(own.choice([3, 5])),)
            ],
            "activation": [
                (str(own.choice(ACTIVATIONS)), {"n": pixels * one}),
                ("globalavgpooling", {"m": pixels, "c": other}),
            ],
            "portable.mean": [("portable.mean", {"in": pixels * one, "out": one, "stride": one, "run": one})],
        }[kind]
    if kind.startswith("portable."):
        return Program("portable.mean", f"portable:mean-{seed}", _keys(found))
    return Program(
        f"chain.{kind}", f"chain:{kind}-{seed}", (*_keys(found), f"border(n={side * 400},tensors=2)")
    )


def programs(chains: int, networks: int, families: int = 20, seed: int = 0) -> list[Program]:
    """Designed programs, then networks of so many families in turn."""
    drawn = [network(number % families, seed * 1000 + number // families) for number in range(networks)]
    return [*(designed(number) for number in range(chains)), *drawn]


def measured(program: Program, world: OperatorWorld, noise: float = 0.01) -> MeasuredModel:
    """A program as measured with a relative error."""
    seed = int.from_bytes(hashlib.sha256(program.name.encode()).digest()[4:8], "big")
    ms = world.program_ms(program.blocks) * math.exp(np.random.default_rng(seed).normal(0, noise))
    spec = model_spec(program.name.replace(":", "."), program.blocks, "design").model_copy(
        update={"arch": program.arch}
    )
    low, high = ms * math.exp(-1.96 * noise), ms * math.exp(1.96 * noise)
    return MeasuredModel(**dict(spec), ms=ms, ci_low=low, ci_high=high, loads=3, rounds=60)


def operator_study(chains: int = 20, networks: int = 6, rounds: int = 5) -> Study:
    """Samples of designed programs and networks, the first program as reference; keys of one more network too."""
    world, known = OperatorWorld({"gemm": 16}), programs(chains, networks, families=3)
    specs = [
        model_spec(
            program.name.replace(":", "."), program.blocks, "design" if place else "reference"
        ).model_copy(update={"arch": program.arch})
        for place, program in enumerate(known)
    ]
    truth = {spec.model_id: world.program_ms(spec.blocks) for spec in specs}
    names = [spec.model_id for spec in specs[1:]]
    batches = [names[start : start + 8] for start in range(0, len(names), 8)]
    samples = simulate(
        {name: math.log(ms) for name, ms in truth.items()},
        specs[0].model_id,
        batches,
        np.random.default_rng(0),
        noise=Noise(outlier_share=0.0),
        segments=1,
        rounds=rounds,
    )
    inputs = lut_inputs().model_copy(update={"space": OPERATORS, "reference_id": specs[0].model_id})
    keys = {key for program in [*known, network(4, 9)] for key in program.blocks}
    return Study(inputs, tuple(specs), samples, {key: parse_operator(key).features for key in keys}, truth)

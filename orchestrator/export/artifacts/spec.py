"""What is exported and how: a frozen value whose cache key covers everything that decides the bytes."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from luts.format.errors import UsageError
from orchestrator.agent.device import core_list, parse_cores
from search.blocks import check_chain, kinds, parse_keys
from search.spaces import Space
from search.spaces.plugins import files_of, plugin_files

PRECISIONS: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("executorch", "xnnpack"): ("fp32", "fp16", "int8", "mixed"),
    ("executorch", "portable"): ("fp32",),
    ("executorch", "coreml"): ("fp16", "fp32"),
    ("executorch", "vulkan"): ("fp32", "fp16"),
    ("coreml", "mlprogram"): ("fp16", "fp32", "int8"),
    ("onnx", "cpu"): ("fp32",),
    ("litert", "cpu"): ("fp32",),
}
"""Precisions by (runtime, backend), the default one first; the first backend of a runtime is its default.
`int8` is that of weights and activations; the rest computes in fp32 (XNNPACK) or fp16 (Core ML). `mixed`
is int8 except for the blocks that `ExportSpec.fp32` names.
"""

QUANTISED = ("int8", "mixed")
"""Precisions whose ranges of activations are calibrated."""

MAX_FP32 = 1024
"""Most modules that a mixed-precision model keeps in fp32."""

DEPLOYMENT_TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18")
"""Oldest iOS that a Core ML model must run on; iOS15 is the first with ML programs."""

DEFAULT_DEPLOYMENT_TARGET = "iOS16"
INT8_DEPLOYMENT_TARGET = "iOS17"
"""The first iOS with int8 activations, hence the default for int8."""

OPTIONS: Mapping[tuple[str, str], Mapping[str, tuple[str, ...]]] = {
    ("executorch", "coreml"): {"deployment_target": DEPLOYMENT_TARGETS},
    ("coreml", "mlprogram"): {"deployment_target": DEPLOYMENT_TARGETS},
}
"""Options and their values by (runtime, backend)."""

MAX_BATCH = 256
"""Most images that a model computes at once; activations of hundreds fill a machine's memory."""

_WEIGHTS = re.compile(r"seed:[0-9]{1,9}|sha256:[0-9a-f]{64}")
_CALIBRATION = re.compile(
    r"[0-9]{1,7} images of [0-9a-f]{12}, seed [0-9]{1,9}(, middle [0-9.]{1,6} %)?: sha256:[0-9a-f]{64}"
)
_MODULE = re.compile(r"timm:[a-z0-9_.]{1,80}(@[1-9][0-9]{0,3})?|(chain|portable):[a-z0-9_]{1,40}-[0-9]{1,9}")
_PATH = re.compile(r"[A-Za-z0-9_]{1,80}(\.[A-Za-z0-9_]{1,80}){0,15}")
_PLACES = ("weights_path", "calibration_path")
_LIBRARIES = ("torch", "executorch", "coremltools", "timm", "safetensors", "onnxscript")
_ROOT = Path(__file__).resolve().parents[3]
_SOURCES = ("search/blocks", "search/networks", "orchestrator/export")


@dataclass(frozen=True)
class ExportSpec:
    """One model to export.

    Attributes:
        blocks: Keys of a network in order of execution, or one key: that block as a network.
        module: Instead of blocks, `timm:NAME`, or `timm:NAME@PX` for another resolution than its own, or a designed
            program, `chain:KIND-SEED` or `portable:KIND-SEED` (`orchestrator.export.lower.programs`).
        runtime: `executorch` (.pte), `coreml` (a zip of one .mlpackage), `onnx` or `litert` (.tflite).
        backend: Delegate of ExecuTorch, `mlprogram`, or `cpu`; the runtime's default if empty.
        precision: Precision of the computation; the backend's default if empty.
        options: Pairs of name and value, in order of name.
        weights: `seed:N` (random), or `sha256:HEX` of the safetensors file `weights_path`.
        weights_path: Path of that file; not part of the identity.
        fp32: With precision `mixed` the parts that stay fp32: paths of modules of the network in PyTorch. For
            blocks, the position of a block, counted from 0 (`4`), or a path in it (`4.layers.0`).
        calibration: Images that decide int8's ranges, `N images of SOURCE, seed S, middle P %: sha256:HEX`,
            where ranges contain that percentage of values, all of them without P (older files); empty for
            seeded random inputs.
        calibration_path: Path of these images; not part of the identity.
        segment: Empty for a whole network. `prefix`: the blocks end in a classifier that is an exit, and the map
            that it reads is a second output. `tail`: the blocks after that, which take this map.
        batch: Images that the model computes at once. LUTs, spaces and searches only use batch 1.
        without: Kind of operation that is removed (`orchestrator.export.lower.kinds`); empty for none.
    """

    blocks: tuple[str, ...] = ()
    module: str = ""
    runtime: str = "executorch"
    backend: str = ""
    precision: str = ""
    options: tuple[tuple[str, str], ...] = ()
    weights: str = "seed:0"
    weights_path: str = ""
    without: str = ""
    calibration: str = ""
    calibration_path: str = ""
    batch: int = 1
    segment: str = ""
    fp32: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Fill in defaults and check every field; raises UsageError with the allowed values."""
        backends = [backend for runtime, backend in PRECISIONS if runtime == self.runtime]
        if not backends:
            runtimes = ", ".join(dict.fromkeys(runtime for runtime, _ in PRECISIONS))
            raise UsageError(f"unknown runtime {self.runtime!r}; known: {runtimes}", code="unknown_runtime")
        backend = self.backend or backends[0]
        if backend not in backends:
            raise UsageError(
                f"{self.runtime} has no backend {backend!r}; it has {', '.join(backends)}",
                code="unknown_backend",
            )
        precision = self.precision or PRECISIONS[self.runtime, backend][0]
        if precision not in PRECISIONS[self.runtime, backend]:
            allowed = ", ".join(PRECISIONS[self.runtime, backend])
            raise UsageError(
                f"{self.runtime}/{backend} has no precision {precision!r}; it has {allowed}",
                code="unknown_precision",
            )
        object.__setattr__(self, "backend", backend)
        object.__setattr__(self, "precision", precision)
        object.__setattr__(self, "options", tuple(sorted(self.options)))
        for code, problem in (*self._mix_problems(), *self._option_problems(), *self._source_problems()):
            raise UsageError(problem, code=code)
        object.__setattr__(self, "fp32", tuple(sorted(set(self.fp32), key=_in_order)))
        specs = parse_keys(self.blocks)
        if len(specs) > 1:
            check_chain(specs, from_map=self.segment == "tail")

    def _mix_problems(self) -> Iterator[tuple[str, str]]:
        """Yield error code and message of each problem, as the two methods below."""
        if self.fp32 and self.precision != "mixed":
            yield "bad_precision", f"--fp32 is for --precision mixed, not for {self.precision}"
        if not self.fp32 and self.precision == "mixed":
            yield (
                "bad_precision",
                "precision mixed is of one network, whose blocks --fp32 of bench export, eval, measure and compare "
                "names; there is no LUT of it, so measure the exported file",
            )
        if len(self.fp32) > MAX_FP32 or not all(map(_PATH.fullmatch, self.fp32)):
            named = " ".join(self.fp32)[:80]
            yield (
                "bad_option",
                f"--fp32 {named!r}: expected places of blocks, such as 4, or paths of modules",
            )

    def _option_problems(self) -> Iterator[tuple[str, str]]:
        allowed = OPTIONS.get((self.runtime, self.backend), {})
        if len(dict(self.options)) != len(self.options):
            yield "bad_option", "an export option is given twice"
        for name, value in self.options:
            if name not in allowed:
                known = ", ".join(allowed) or "none"
                yield "bad_option", f"{self.runtime}/{self.backend} has no option {name!r}; it has {known}"
            elif value not in allowed[name]:
                words, values = name.replace("_", " "), ", ".join(allowed[name])
                yield "bad_option", f"{words} {value!r}: there is {values}"
        if self.precision == "int8" and self.deployment_target < INT8_DEPLOYMENT_TARGET:
            yield (
                "bad_option",
                f"{self.deployment_target} has no int8 activations; export for {INT8_DEPLOYMENT_TARGET} or later, "
                "or with precision fp16",
            )

    def _source_problems(self) -> Iterator[tuple[str, str]]:
        if not 1 <= self.batch <= MAX_BATCH:
            yield "bad_batch", f"batch {self.batch}: a model computes 1 to {MAX_BATCH} images at once"
        if bool(self.blocks) == bool(self.module):
            yield (
                "bad_spec",
                "an export needs either block keys or a module such as timm:mobilenetv3_small_100",
            )
        if self.segment not in ("", "prefix", "tail") or (self.segment and len(self.blocks) < 2):
            yield "bad_spec", f"segment {self.segment[:80]!r}: expected prefix or tail, of two blocks or more"
        if self.module and not _MODULE.fullmatch(self.module):
            named = self.module[:80]
            yield "unknown_network", f"unknown module {named!r}; modules read timm:NAME or timm:NAME@PX"
        if not _WEIGHTS.fullmatch(self.weights):
            yield "bad_weights", f"weights {self.weights[:80]!r}: expected seed:N or sha256:HEX"
        if self.weights.startswith("sha256:") != bool(self.weights_path):
            yield (
                "bad_weights",
                "weights of a file need both its sha256 and its path; seeded ones need no path",
            )
        yield from self._calibration_problems()

    def _calibration_problems(self) -> Iterator[tuple[str, str]]:
        code, named = "bad_calibration", self.calibration[:80]
        if self.calibration and not _CALIBRATION.fullmatch(self.calibration):
            yield code, f"calibration {named!r}: expected N images of HEX, seed S, middle P %: sha256:HEX"
        if self.calibration and self.precision not in QUANTISED:
            yield code, f"calibration decides ranges of int8, not of {self.precision}"
        if bool(self.calibration) != bool(self.calibration_path):
            yield code, "calibration images need both their sha256 and their path"

    @property
    def name(self) -> str:
        """A short name for progress bars and messages."""
        name = f"{self._source_name} without {self.without}" if self.without else self._source_name
        return name if self.batch == 1 else f"{name}, batch {self.batch}"

    @property
    def _source_name(self) -> str:
        if self.module:
            return self.module
        if len(self.blocks) == 1:
            return self.blocks[0]
        digest = hashlib.sha256(" ".join(self.blocks).encode()).hexdigest()[:12]
        return f"{self.segment or 'network'} {digest} of {len(self.blocks)} blocks"

    @property
    def weights_label(self) -> str:
        """What a model's file says about its weights."""
        kind, _, value = self.weights.partition(":")
        weights = f"random, seed {value}: for measuring alone" if kind == "seed" else self.weights
        if self.fp32:
            weights += f"; int8 but for {' '.join(self.fp32)}"
        return f"{weights}; int8 ranges of {self.calibration}" if self.calibration else weights

    @property
    def reusable(self) -> bool:
        """Whether its program can be assembled from parts of others (`orchestrator.export.reuse`)."""
        return (
            len(self.blocks) > 1
            and self.batch == 1
            and not (self.without or self.segment)
            and (self.backend, self.precision) == ("xnnpack", "fp32")
        )

    @property
    def deployment_target(self) -> str:
        """Oldest iOS of a Core ML model."""
        default = INT8_DEPLOYMENT_TARGET if self.precision == "int8" else DEFAULT_DEPLOYMENT_TARGET
        return dict(self.options).get("deployment_target", default)

    @functools.cached_property
    def cache_key(self) -> str:
        """SHA-256 over this spec, the toolchain's versions and the sources that build and lower."""
        identity = {
            "spec": {name: value for name, value in asdict(self).items() if name not in _PLACES},
            "toolchain": toolchain_of(self.blocks),
        }
        return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def _in_order(path: str) -> tuple[tuple[int, str], ...]:
    """Return paths in order of their number, before names."""
    return tuple((int(part) if part.isdecimal() else MAX_FP32, part) for part in path.split("."))


@functools.cache
def toolchain() -> dict[str, str]:
    """Return everything besides the spec that decides the bytes: versions, sources, Python, processor."""
    versions = {name: _version(name) for name in _LIBRARIES}
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    return versions | {"python": python, "machine": platform.machine(), "sources": source_digest(_ROOT)}


def toolchain_of(keys: Sequence[str]) -> dict[str, str]:
    """Return `toolchain` and, if a block comes from a plug-in, the plug-in's files."""
    known = kinds()
    modules = {known[key.partition("(")[0]].__module__ for key in keys}
    files = {
        file
        for module in map(sys.modules.get, modules)
        if module is not None and not module.__name__.startswith("search.")
        for file in files_of(module)
    }
    if not files:
        return toolchain()
    digests = sorted({hashlib.sha256(file.read_bytes()).hexdigest() for file in files.union(plugin_files())})
    return toolchain() | {"plugins": " ".join(digests)}


def source_digest(root: Path) -> str:
    """Return the sha256 over the Python files, by path relative to `root`, that build and lower networks."""
    digest = hashlib.sha256()
    for folder in _SOURCES:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def block_specs_for(
    space: Space,
    resolutions: tuple[int, ...] | None = None,
    *,
    runtime: str = "executorch",
    backend: str = "",
    precision: str = "",
    options: tuple[tuple[str, str], ...] = (),
) -> tuple[ExportSpec, ...]:
    """Return every searchable block of a space as a network, sorted by key; default: all its resolutions."""
    return tuple(
        ExportSpec((block.key,), "", runtime, backend, precision, options)
        for block in space.block_specs(resolutions)
    )


COMPUTE_UNITS = ("all", "cpuonly", "cpuandgpu", "cpuandneuralengine")
"""Compute units for Core ML; the same model file runs on each."""

MAX_THREADS = 64

HOST_RUNTIMES = {"onnx": "ONNX Runtime", "litert": "LiteRT"}
"""Runtimes that only run on the host, for comparison with ExecuTorch; an extra of their name installs each."""

_THREADED = re.compile(
    r"(?P<runtime>executorch|onnx|litert)-(?P<target>[a-z]+)-(?P<precision>[a-z0-9]+)-t(?P<threads>[0-9]{1,2})"
    r"(?:-c(?P<cores>[0-9][0-9.-]*))?(?P<sustained>-sustained)?"
)
_SIMULATED = re.compile(r"simulated-t(?P<threads>[0-9]{1,2})")
_COREML = re.compile(r"coreml-(?P<precision>[a-z0-9]+)-(?P<target>[a-z]+)")


@dataclass(frozen=True)
class Variant:
    """How models run.

    Attributes:
        runtime: `executorch`, `coreml`, `onnx`, `litert`, or `simulated`, whose models are lists of blocks.
        target: ExecuTorch's delegate, Core ML's compute units, or `cpu`; empty for `simulated`, as the
            precision.
        precision: Precision of the computation; the default of runtime and delegate if empty.
        threads: Threads of the runtime's pool, or simulated ones; 0 if the runtime chooses and has no such option
            (iOS), and for Core ML.
        cores: Cores that the threads are pinned to (`4-8`); empty if the system chooses.
        sustained_performance: An Android phone is in the mode of that name while it is measured.
    """

    runtime: str
    target: str
    precision: str = ""
    threads: int = 0
    cores: str = ""
    sustained_performance: bool = False

    def __post_init__(self) -> None:
        """Fill in defaults and check every field; raises UsageError with the allowed values."""
        if self.runtime == "coreml" and self.target not in COMPUTE_UNITS:
            raise UsageError(
                f"coreml has no compute units {self.target!r}; it has {', '.join(COMPUTE_UNITS)}",
                code="unknown_backend",
            )
        if self.is_simulated:
            if self.target or self.precision or not self.threads:
                raise UsageError(
                    "a simulated device has threads, but no backends and no precisions", code="bad_variant"
                )
        else:
            backend = self._backend()
            probe = ExportSpec(
                module="timm:none",
                runtime=self.runtime,
                backend=backend,
                precision=self.precision,
                fp32=("any",) if self.precision == "mixed" else (),
            )
            object.__setattr__(self, "precision", probe.precision)
        most = 0 if self.runtime == "coreml" else MAX_THREADS
        if not 0 <= self.threads <= most:
            raise UsageError(
                f"{self.runtime} takes up to {most} threads, not {self.threads}", code="too_many_threads"
            )
        if self.cores:
            self._check_cores()
        if self.sustained_performance and self.runtime != "executorch":
            raise UsageError(
                "--sustained-performance is a mode of Android phones, whose runtime is executorch",
                code="option_does_not_apply",
            )

    def _check_cores(self) -> None:
        if self.runtime != "executorch":
            raise UsageError(f"{self.runtime} chooses its own cores; leave --cores out", code="bad_cores")
        try:
            cores = parse_cores(self.cores)
        except ValueError as error:
            raise UsageError(f"--cores: {error}", code="bad_cores") from None
        if self.threads > len(cores):
            raise UsageError(
                f"{self.threads} threads are too many for cores {self.cores}; use --threads",
                code="too_many_threads",
            )
        object.__setattr__(self, "cores", core_list(cores))

    def _backend(self) -> str:
        return "mlprogram" if self.runtime == "coreml" else self.target

    @property
    def is_simulated(self) -> bool:
        """Whether its numbers are simulated."""
        return self.runtime == "simulated"

    @property
    def may_use_neural_engine(self) -> bool:
        """Whether Core ML may run it on the neural engine, which has no fp32."""
        engines = ("all", "cpuandneuralengine")
        return self.runtime == "coreml" and self.target in engines and self.precision != "fp32"

    @property
    def name(self) -> str:
        """Folder: `executorch-xnnpack-fp32-t2` (`…-c4-8`, `…-sustained`), `coreml-fp16-all`, `simulated-t1`."""
        if self.is_simulated:
            return f"simulated-t{self.threads}"
        if self.runtime == "coreml":
            return f"coreml-{self.precision}-{self.target}"
        pinned = f"-c{self.cores.replace(',', '.')}" if self.cores else ""
        mode = "-sustained" if self.sustained_performance else ""
        return f"{self.runtime}-{self.target}-{self.precision}-t{self.threads}{pinned}{mode}"

    @property
    def load_options(self) -> dict[str, bool | int | str]:
        """Options of the agent's `load`."""
        if self.runtime == "coreml":
            return {"compute_units": self.target}
        chosen: dict[str, bool | int | str] = {
            "threads": self.threads,
            "cores": self.cores,
            "sustained_performance": self.sustained_performance,
        }
        return {name: value for name, value in chosen.items() if value}

    def export_spec(
        self, blocks: tuple[str, ...] = (), module: str = "", fp32: tuple[str, ...] = ()
    ) -> ExportSpec:
        """Return how a model is exported for this variant; a simulated one only uses the blocks.

        Raises:
            UsageError: The precision is mixed and `fp32` is empty, or the other way round.
        """
        if self.is_simulated:
            return ExportSpec(blocks, module)
        return ExportSpec(
            blocks,
            module,
            runtime=self.runtime,
            backend=self._backend(),
            precision=self.precision,
            fp32=fp32,
        )

    @classmethod
    def parse(cls, name: str) -> Variant:
        """Return the variant of a name; raises UsageError."""
        if match := _THREADED.fullmatch(name):
            cores = (match["cores"] or "").replace(".", ",")
            chosen = match["runtime"], match["target"], match["precision"], int(match["threads"]), cores
            return cls(*chosen, match["sustained"] is not None)
        if match := _COREML.fullmatch(name):
            return cls("coreml", match["target"], match["precision"])
        if match := _SIMULATED.fullmatch(name):
            return cls("simulated", "", threads=int(match["threads"]))
        raise UsageError(
            f"{name!r} is not a variant; they read executorch-xnnpack-fp32-t2 or coreml-fp16-all",
            code="unknown_variant",
        )

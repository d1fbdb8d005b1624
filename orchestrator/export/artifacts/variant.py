"""A variant: which runtime, delegate, precision and threads run a model; a LUT's folder is named after it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from luts.format.errors import UsageError
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.wire.core_list import core_list, parse_cores

COMPUTE_UNITS = ("all", "cpuonly", "cpuandgpu", "cpuandneuralengine")
"""What Core ML may use; the same model file runs on each."""

MAX_THREADS = 64

HOST_RUNTIMES = {"onnx": "ONNX Runtime", "litert": "LiteRT"}
"""Runtimes of the host alone, that ExecuTorch's figures are held against; an extra of their name installs each."""

_THREADED = re.compile(
    r"(?P<runtime>executorch|onnx|litert)-(?P<target>[a-z]+)-(?P<precision>[a-z0-9]+)-t(?P<threads>[0-9]{1,2})"
    r"(?:-c(?P<cores>[0-9][0-9.-]*))?"
)
_SIMULATED = re.compile(r"simulated-t(?P<threads>[0-9]{1,2})")
_COREML = re.compile(r"coreml-(?P<precision>[a-z0-9]+)-(?P<target>[a-z]+)")


@dataclass(frozen=True)
class Variant:
    """How models run.

    Attributes:
        runtime: `executorch`, `coreml`, `onnx`, `litert`, or `simulated`, which is none: models are lists of
            blocks.
        target: ExecuTorch's delegate, Core ML's compute units, or `cpu`; empty for `simulated`, as the precision.
        precision: Of the computation; the default of runtime and delegate if empty.
        threads: Of the runtime's thread pool, or a simulated one; 0 where the runtime chooses and can't be told
            (iOS), and for Core ML.
        cores: Those that the threads are pinned to (`4-8`); empty where the system chooses.
    """

    runtime: str
    target: str
    precision: str = ""
    threads: int = 0
    cores: str = ""

    def __post_init__(self) -> None:
        """Check and fill in; `UsageError` says what may stand there."""
        if self.runtime == "coreml" and self.target not in COMPUTE_UNITS:
            raise UsageError(
                f"coreml has no compute units {self.target!r}; it has {', '.join(COMPUTE_UNITS)}"
            )
        if self.is_simulated:
            if self.target or self.precision or not self.threads:
                raise UsageError("a simulated device has threads, but no backends and no precisions")
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
            raise UsageError(f"{self.runtime} takes up to {most} threads, not {self.threads}")
        if self.cores:
            self._check_cores()

    def _check_cores(self) -> None:
        if self.runtime != "executorch":
            raise UsageError(f"{self.runtime} chooses its own cores; leave --cores out")
        try:
            cores = parse_cores(self.cores)
        except ValueError as error:
            raise UsageError(f"--cores: {error}") from None
        if self.threads > len(cores):
            raise UsageError(f"{self.threads} threads are too many for cores {self.cores}; use --threads")
        object.__setattr__(self, "cores", core_list(cores))

    def _backend(self) -> str:
        return "mlprogram" if self.runtime == "coreml" else self.target

    @property
    def is_simulated(self) -> bool:
        """Whether its numbers are made up."""
        return self.runtime == "simulated"

    @property
    def may_use_neural_engine(self) -> bool:
        """Whether Core ML may run it on the neural engine, which computes nothing in fp32."""
        engines = ("all", "cpuandneuralengine")
        return self.runtime == "coreml" and self.target in engines and self.precision != "fp32"

    @property
    def name(self) -> str:
        """Folder name: `executorch-xnnpack-fp32-t2`, pinned `…-t5-c4-8`; `coreml-fp16-all` or `simulated-t1`."""
        if self.is_simulated:
            return f"simulated-t{self.threads}"
        if self.runtime == "coreml":
            return f"coreml-{self.precision}-{self.target}"
        pinned = f"-c{self.cores.replace(',', '.')}" if self.cores else ""
        return f"{self.runtime}-{self.target}-{self.precision}-t{self.threads}{pinned}"

    @property
    def load_options(self) -> dict[str, bool | int | str]:
        """Options of the agent's `load`."""
        if self.runtime == "coreml":
            return {"compute_units": self.target}
        chosen: dict[str, bool | int | str] = {"threads": self.threads, "cores": self.cores}
        return {name: value for name, value in chosen.items() if value}

    def export_spec(
        self, blocks: tuple[str, ...] = (), module: str = "", fp32: tuple[str, ...] = ()
    ) -> ExportSpec:
        """How a model is exported for this variant; a simulated one takes of it nothing but the blocks.

        Raises:
            UsageError: the precision is mixed and nothing says what stays `fp32`, or the other way round.
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
        """The variant of a name; `UsageError` if it is none."""
        if match := _THREADED.fullmatch(name):
            cores = (match["cores"] or "").replace(".", ",")
            return cls(match["runtime"], match["target"], match["precision"], int(match["threads"]), cores)
        if match := _COREML.fullmatch(name):
            return cls("coreml", match["target"], match["precision"])
        if match := _SIMULATED.fullmatch(name):
            return cls("simulated", "", threads=int(match["threads"]))
        raise UsageError(
            f"{name!r} is not a variant; they read executorch-xnnpack-fp32-t2 or coreml-fp16-all"
        )

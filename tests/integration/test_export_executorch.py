import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from luts.format.errors import BlocktimeError, InvalidArtifactError
from orchestrator.export import Artifact, ArtifactCache, ExportSpec, block_specs_for, export_many
from orchestrator.export.build import export_module, export_spec
from orchestrator.export.lower import parity
from orchestrator.export.lower.executorch import lower_to_executorch
from orchestrator.export.lower.parity import check_parity, run_pte, run_pte_isolated
from orchestrator.export.lower.source import build_module
from orchestrator.export.pool import ExportError
from search.blocks import parse_key
from search.spaces import get_arch, get_space
from tests.support.errors import raises
from tests.support.slow import mostly_slow
from tests.support.waiting import until

NANO = ExportSpec(
    (
        "conv(in=3,out=8,k=3,s=2)@64",
        "mbconv(in=8,out=16,k=3,e=1,s=2)@32",
        "mbconv(in=16,out=32,k=3,e=2,s=2)@16",
        "mvit.shell(c=32,d=32,patch=2)@8",
        "mvit.layer(d=32,heads=2,head_dim=16,ratio=2,patch=2)@8",
        "head.fc(in=32,classes=10)@8",
    )
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> ArtifactCache:
    return ArtifactCache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def nano(cache: ArtifactCache) -> Artifact:
    return export_spec(NANO, cache)


def one_of_each_kind() -> list[ExportSpec]:
    specs = {parse_key(s.blocks[0]).kind: s for s in block_specs_for(get_space("autovit-nano"))}
    return list(specs.values())


def test_nano_is_one_delegate_and_computes_what_pytorch_computes(nano: Artifact) -> None:
    assert nano.report.delegates == 1
    assert nano.report.operators == ()
    assert nano.report.max_relative_error is not None
    assert nano.report.max_relative_error < 1e-5


@pytest.mark.slow
def test_the_searched_network_of_the_paper_is_one_delegate() -> None:
    module, inputs = build_module(ExportSpec(get_arch("autovit-xxs-paper").keys()))
    lowered = lower_to_executorch(module, inputs)
    assert (lowered.delegates, lowered.operators) == (1, ())
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-5)


@pytest.mark.parametrize("side", mostly_slow([14, 18], kept=[14]))
def test_odd_maps(side: int) -> None:
    """The last maps of 224 and 288 px have 7 and 9 pixels: padded before the unfold, cut after the fold."""
    half = side // 2
    keys = (
        f"conv(in=3,out=16,k=3,s=2)@{side}",
        f"mvit.shell(c=16,d=24,patch=2)@{half}",
        f"mvit.layer(d=24,heads=2,head_dim=32,ratio=1.5,patch=2)@{half}",
        f"head.mbpool(in=16,classes=10)@{half}",
    )
    module, inputs = build_module(ExportSpec(keys))
    lowered = lower_to_executorch(module, inputs)
    assert lowered.delegates == 1
    check_parity(run_pte(lowered.data, inputs), module, inputs, tolerance=1e-5)


def test_equal_specs_give_equal_bytes_and_a_truncated_file_is_rebuilt(
    nano: Artifact, cache: ArtifactCache
) -> None:
    nano.path.write_bytes(nano.path.read_bytes()[:1000])
    assert cache.get(NANO) is None
    (rebuilt,) = export_many([NANO], cache=cache)
    assert rebuilt.sha256 == nano.sha256


def test_other_weights_are_refused(nano: Artifact) -> None:
    module, inputs = build_module(NANO)
    outputs = run_pte(nano.path.read_bytes(), inputs)
    check_parity(outputs, module, inputs)
    with torch.no_grad():
        module.get_parameter("4.fc.weight").mul_(1.001)
    with pytest.raises(InvalidArtifactError, match="differs from PyTorch"):
        check_parity(outputs, module, inputs)


def test_every_kind_of_block_alone_in_parallel(cache: ArtifactCache) -> None:
    seen: list[tuple[int, int]] = []
    specs = one_of_each_kind()
    artifacts = export_many(
        [*specs, specs[0]], cache=cache, workers=2, progress=lambda done, total, _: seen.append((done, total))
    )
    assert [a.spec for a in artifacts] == [*specs, specs[0]]
    assert all(a.report.delegates == 1 and not a.report.operators for a in artifacts)
    assert seen == [(i + 1, len(specs)) for i in range(len(specs))]
    assert [a.sha256 for a in export_many(specs, cache=cache)] == [a.sha256 for a in artifacts[:-1]]


def test_a_failure_names_its_model_and_spares_the_others(cache: ArtifactCache) -> None:
    broken = ExportSpec(NANO.blocks, weights="sha256:" + "0" * 64, weights_path="absent.safetensors")
    stem = ExportSpec(NANO.blocks[:1], weights="seed:9")
    with pytest.raises(ExportError, match=r"1 of 2 models.*network .*absent.safetensors") as caught:
        export_many([broken, stem], cache=cache, workers=1)
    assert [failure.spec for failure in caught.value.failures] == [broken]
    assert cache.get(stem) is not None


def test_a_worker_that_dies_is_replaced(tmp_path: Path) -> None:
    """It dies while it waits for the weights of its model, which come out of a pipe."""
    cache = ArtifactCache(tmp_path / "cache")
    pipe = tmp_path / "weights.safetensors"
    os.mkfifo(pipe)
    specs = [
        ExportSpec(NANO.blocks, weights="sha256:" + "0" * 64, weights_path=str(pipe)),
        ExportSpec(NANO.blocks[:1], weights="seed:21"),
    ]

    def other_end() -> int | None:
        """Nobody can write into a pipe that nobody reads."""
        with contextlib.suppress(OSError):
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        return None

    def kill_the_worker() -> None:
        held = until(other_end)
        for server in psutil.Process().children():
            if "forkserver" in " ".join(server.cmdline()):
                for worker in server.children():
                    worker.kill()
        os.close(held)

    killer = threading.Thread(target=kill_the_worker)
    killer.start()
    with pytest.raises(ExportError, match=r"1 of 2 .* unexpectedly \(signal 9"):
        export_many(specs, cache=cache, workers=1)
    killer.join()
    assert [cache.get(spec) is not None for spec in specs] == [False, True]


INTERRUPTED = """
import sys
from pathlib import Path
from orchestrator.export import ArtifactCache, ExportSpec, export_many
if __name__ == "__main__":
    specs = [ExportSpec((f"conv(in=3,out={w},k=3,s=2)@32",)) for w in range(8, 72)]
    def progress(done, total, result):
        print(result.spec.blocks[0], flush=True)
    export_many(specs, cache=ArtifactCache(Path(sys.argv[1])), workers=1, progress=progress)
"""


def test_ctrl_c_ends_the_workers_and_keeps_what_is_done(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "cache")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
    )
    assert process.stdout is not None
    first = process.stdout.readline().strip()
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=300)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    gone, alive = psutil.wait_procs(workers, timeout=300)
    assert gone
    assert not alive
    artifact = ArtifactCache(tmp_path / "cache").get(ExportSpec((first,)))
    assert artifact is not None


def test_portable_has_no_delegate_and_agrees(tmp_path: Path) -> None:
    module, inputs = build_module(NANO)
    report = export_module(module, inputs, tmp_path / "m.pte", backend="portable")
    assert report.delegates == 0
    assert dict(report.operators)["aten.native_layer_norm.default"] == 3
    assert not any("batch_norm" in name for name, _ in report.operators)
    assert report.max_relative_error is not None
    assert report.max_relative_error < 1e-5


@pytest.mark.parametrize(
    ("backend", "precision"),
    mostly_slow(
        [("coreml", "fp16"), ("coreml", "fp32"), ("vulkan", "fp32")],
        kept=[("coreml", "fp16")],
    ),
)
def test_phone_delegates_take_the_whole_network(backend: str, precision: str) -> None:
    module, inputs = build_module(NANO)
    lowered = lower_to_executorch(module, inputs, backend, precision)
    assert (lowered.delegates, lowered.operators) == (1, ())


@pytest.mark.parametrize(
    "kind",
    mostly_slow(
        sorted(parse_key(spec.blocks[0]).kind for spec in one_of_each_kind()), kept=["mbconv", "mvit.layer"]
    ),
)
def test_the_core_ml_delegate_takes_every_kind_of_block_whole(kind: str) -> None:
    (spec,) = (spec for spec in one_of_each_kind() if parse_key(spec.blocks[0]).kind == kind)
    module, inputs = build_module(spec)
    lowered = lower_to_executorch(module, inputs, "coreml", "fp16", "iOS17")
    assert (lowered.delegates, lowered.operators) == (1, ())


def test_a_timm_model(cache: ArtifactCache) -> None:
    artifact = export_spec(ExportSpec(module="timm:test_efficientnet"), cache)
    assert artifact.report.delegates >= 1
    with pytest.raises(BlocktimeError, match="unknown timm model 'no_such_model'"):
        export_spec(ExportSpec(module="timm:no_such_model"), cache)


def test_an_operator_that_the_runtime_lacks_is_named() -> None:
    class LogGamma(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.lgamma(x)

    lowered = lower_to_executorch(LogGamma().eval(), (torch.ones(2),))
    with pytest.raises(InvalidArtifactError, match=r"has no aten::lgamma\.out, .* choose another --backend"):
        run_pte(lowered.data, (torch.ones(2),))


def test_what_cannot_be_lowered_is_one_line(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(BlocktimeError, match="xnnpack cannot lower") as caught:
        export_module(Branches().eval(), (torch.ones(2),), tmp_path / "m.pte")
    assert "\n" not in str(caught.value)
    with pytest.raises(BlocktimeError, match="eval"):
        lower_to_executorch(nn.Conv2d(3, 4, 1), (torch.ones(1, 3, 8, 8),))


@pytest.mark.parametrize("damage", ["truncated", "noise"])
def test_a_bad_program_cannot_take_the_caller_along(nano: Artifact, damage: str) -> None:
    data = nano.path.read_bytes()
    bad = data[: len(data) // 2] if damage == "truncated" else data[:64] + b"\xff" * (len(data) - 64)
    with pytest.raises(InvalidArtifactError):
        run_pte_isolated(bad, build_module(NANO)[1])


def test_a_program_that_hangs_is_ended(nano: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "CHILD_TIMEOUT_S", 0.001)
    with raises("runtime_hangs", InvalidArtifactError):
        run_pte_isolated(nano.path.read_bytes(), build_module(NANO)[1])

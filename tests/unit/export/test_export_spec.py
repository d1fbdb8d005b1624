import dataclasses
import shutil
from pathlib import Path

import pytest
import torch

from luts.format.errors import UsageError
from orchestrator.export.artifacts import spec as spec_module
from orchestrator.export.artifacts.spec import ExportSpec, Variant, block_specs_for, source_digest
from orchestrator.export.lower.source import build_module
from search.spaces import get_arch, get_space

KEY = "conv(in=3,out=8,k=3,s=2)@64"
ROOT = Path(spec_module.__file__).resolve().parents[3]


def test_defaults_are_part_of_the_value() -> None:
    spec = ExportSpec((KEY,))
    assert (spec.backend, spec.precision) == ("xnnpack", "fp32")
    assert spec == ExportSpec((KEY,), backend="xnnpack", precision="fp32")
    assert spec.cache_key == ExportSpec((KEY,), backend="xnnpack").cache_key
    core_ml = ExportSpec((KEY,), runtime="coreml")
    assert (core_ml.backend, core_ml.precision) == ("mlprogram", "fp16")
    assert core_ml.deployment_target == "iOS16"
    assert ExportSpec((KEY,), runtime="coreml", precision="int8").deployment_target == "iOS17"


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": ("conv(in=3,out=16,k=3,s=2)@64",)},
        {"blocks": (), "module": "timm:mobilenetv3_small_100"},
        {"runtime": "coreml", "backend": "", "precision": ""},
        {"backend": "portable"},
        {"backend": "coreml", "precision": "fp16"},
        {"backend": "coreml", "precision": "fp32"},
        {"backend": "coreml", "precision": "fp16", "options": (("deployment_target", "iOS18"),)},
        {"weights": "seed:1"},
        {"batch": 8},
        {"weights": "sha256:" + "0" * 64, "weights_path": "w.safetensors"},
    ],
)
def test_every_field_changes_the_key(change: dict[str, object]) -> None:
    base = ExportSpec((KEY,))
    assert dataclasses.replace(base, **change).cache_key != base.cache_key  # type: ignore[arg-type]


def test_batch_of_images_shares_weights() -> None:
    small = ("conv(in=3,out=8,k=3,s=2)@16", "head.fc(in=8,classes=4)@8")
    one, eight = ExportSpec(small), ExportSpec(small, batch=8)
    assert (one.reusable, eight.reusable) == (True, False)
    assert eight.name == f"{one.name}, batch 8"
    (module, (image,)), (batched, (images,)) = build_module(one), build_module(eight)
    assert images.shape == (8, 3, 16, 16)
    assert len({tuple(each.flatten().tolist()) for each in images}) == 8
    assert torch.equal(images[:1], image)
    for ours, theirs in zip(module.state_dict().values(), batched.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_mix_is_what_it_keeps_in_fp32() -> None:
    whole, first, both = (
        ExportSpec((KEY,), precision=precision, fp32=fp32)
        for precision, fp32 in (("int8", ()), ("mixed", ("0",)), ("mixed", ("10", "2", "0", "blocks.1", "2")))
    )
    assert len({whole.cache_key, first.cache_key, both.cache_key}) == 3
    assert both.fp32 == ("0", "2", "10", "blocks.1")
    assert both.cache_key == dataclasses.replace(both, fp32=("blocks.1", "2", "10", "0")).cache_key
    assert both.weights_label.endswith("int8 but for 0 2 10 blocks.1")


def test_mixed_variant_needs_fp32_parts() -> None:
    variant = Variant.parse("executorch-xnnpack-mixed-t1")
    assert variant.name == "executorch-xnnpack-mixed-t1"
    assert variant.export_spec((KEY,), fp32=("0",)).fp32 == ("0",)
    with pytest.raises(UsageError, match="there is no LUT of it"):
        variant.export_spec((KEY,))
    assert Variant.parse("executorch-xnnpack-fp16-t2").export_spec((KEY,)).precision == "fp16"


def test_a_file_may_move() -> None:
    weights = "sha256:" + "0" * 64
    here, there = (ExportSpec((KEY,), weights=weights, weights_path=path) for path in ("a", "b"))
    assert here.cache_key == there.cache_key


def test_a_new_toolchain_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = ExportSpec((KEY,)).cache_key
    newer = spec_module.toolchain() | {"executorch": "99"}
    monkeypatch.setattr(spec_module, "toolchain", lambda: newer)
    assert ExportSpec((KEY,)).cache_key != before


def test_an_edited_source_changes_the_digest(tmp_path: Path) -> None:
    for folder in spec_module._SOURCES:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert source_digest(tmp_path) == source_digest(ROOT)
    with (tmp_path / "search/networks/mobilevit.py").open("a", encoding="utf-8") as file:
        file.write("\n")
    assert source_digest(tmp_path) != source_digest(ROOT)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"blocks": (KEY,), "runtime": "tflite"}, "unknown runtime"),
        ({"blocks": (KEY,), "backend": "qnn"}, "no backend"),
        ({"blocks": (KEY,), "precision": "fp8"}, "no precision 'fp8'; it has fp32, fp16, int8, mixed"),
        ({"blocks": (KEY,), "precision": "mixed"}, "there is no LUT of it"),
        ({"blocks": (KEY,), "precision": "mixed", "fp32": ("../x",)}, "expected places of blocks"),
        ({"blocks": (KEY,), "precision": "mixed", "fp32": tuple(map(str, range(1025)))}, "expected places"),
        (
            {"blocks": (KEY,), "precision": "int8", "fp32": ("0",)},
            "--fp32 is for --precision mixed, not for int8",
        ),
        (
            {"blocks": (KEY,), "backend": "portable", "precision": "mixed", "fp32": ("0",)},
            "no precision 'mixed'",
        ),
        ({"blocks": (KEY,), "backend": "portable", "precision": "int8"}, "no precision 'int8'; it has fp32"),
        ({"blocks": (KEY,), "options": (("deployment_target", "iOS18"),)}, "no option"),
        ({"blocks": (KEY,), "runtime": "coreml", "options": (("deployment_target", "iOS9"),)}, "iOS15"),
        (
            {
                "blocks": (KEY,),
                "runtime": "coreml",
                "precision": "int8",
                "options": (("deployment_target", "iOS16"),),
            },
            "iOS16 has no int8 activations; export for iOS17",
        ),
        *(
            ({"blocks": (KEY,), "batch": batch}, f"batch {batch}: a model computes 1 to 256 images")
            for batch in (0, -1, 257)
        ),
        ({}, "block keys"),
        ({"blocks": (KEY,), "module": "timm:resnet18"}, "block keys"),
        ({"module": "timm:../../etc"}, "timm:NAME"),
        ({"blocks": ("conv(in=3,out=8)@64",)}, "lacks"),
        ({"blocks": (KEY, KEY)}, "takes shape"),
        ({"blocks": (KEY,), "weights": "random"}, "seed:N"),
        ({"blocks": (KEY,), "weights": "sha256:" + "0" * 64}, "path"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ExportSpec(**fields)  # type: ignore[arg-type]


def test_block_specs_cover_every_network_of_the_space() -> None:
    space = get_space("autovit-xxs")
    blocks = {spec.blocks[0] for spec in block_specs_for(space, (256,))}
    assert set(get_arch("autovit-xxs-paper").keys()) <= blocks
    assert blocks == {block.key for block in space.block_specs((256,))}

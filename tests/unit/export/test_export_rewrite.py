from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from luts.format.errors import InvalidArtifactError
from orchestrator.export.artifacts.artifact import digest
from orchestrator.export.artifacts.spec import ExportSpec
from orchestrator.export.lower.rewrite import LinearLayerNorm, linear_layernorm
from orchestrator.export.lower.source import build_module, load_weights
from search.networks.mobilevit import fold_patches, unfold_patches
from search.spaces import get_arch

BLOCK = ExportSpec(("mvit.shell(c=16,d=24,patch=2)@8",))


@pytest.mark.parametrize("affine", [True, False])
def test_linear_layernorm_equals_layernorm(affine: bool) -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(48, elementwise_affine=affine)
    if affine:
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    x = 5 * torch.randn(4, 16, 48) + 3
    rewritten = linear_layernorm(nn.Sequential(norm))
    assert isinstance(rewritten[0], LinearLayerNorm)
    torch.testing.assert_close(rewritten(x), norm(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch", "height", "width"), [(1, 8, 8), (3, 7, 8), (2, 9, 5)])
def test_unfold_and_fold(batch: int, height: int, width: int) -> None:
    x = torch.randn(batch, 5, height, width)
    tokens = unfold_patches(x, 2)
    patches = -(-height // 2) * -(-width // 2)
    assert tokens.shape == (4 * batch, patches, 5)
    lower_left_of_second_patch = tokens.reshape(4, batch, patches, 5)[2, :, 1]
    assert torch.equal(lower_left_of_second_patch, x[:, :, 1, 2])
    assert torch.equal(fold_patches(tokens, 2, batch, height, width), x)


def test_seeded_weights() -> None:
    keys = get_arch("autovit-xxs-paper").keys()
    state = torch.random.get_rng_state()
    module, inputs = build_module(ExportSpec(keys))
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(7)
    again, _ = build_module(ExportSpec(keys))
    other, _ = build_module(ExportSpec(keys, weights="seed:1"))
    own = module.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in again.state_dict().items())
    assert not torch.equal(own["0.conv.weight"], other.state_dict()["0.conv.weight"])
    scales = []
    for part in module.children():
        part.register_forward_hook(lambda _m, _i, output: scales.append(output.std().item()))
    module(*inputs)
    assert min(scales) > 0.1
    assert max(scales) < 100


def test_weights_of_a_file(tmp_path: Path) -> None:
    module, inputs = build_module(ExportSpec(BLOCK.blocks, weights="seed:5"))
    path = tmp_path / "w.safetensors"
    save_file(module.state_dict(), path)
    sha256, _ = digest(path)
    loaded, _ = build_module(ExportSpec(BLOCK.blocks, weights=f"sha256:{sha256}", weights_path=str(path)))
    assert torch.equal(loaded(*inputs), module(*inputs))
    stem, _ = build_module(ExportSpec(("conv(in=3,out=8,k=3,s=2)@64",)))
    with pytest.raises(InvalidArtifactError, match="another network"):
        load_weights(stem, path, sha256)
    with pytest.raises(InvalidArtifactError, match="sha256 differs"):
        load_weights(module, path, "0" * 64)
    with pytest.raises(InvalidArtifactError, match="cannot read"):
        load_weights(module, tmp_path / "absent", sha256)
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(InvalidArtifactError, match="not a safetensors file"):
        load_weights(module, path, digest(path)[0])

"""DeepLabv3's heads against torchvision's, and masks of their outputs."""

from typing import Any

import torch
from torch import nn
from torchvision.models.segmentation import deeplabv3
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from search.blocks import parse_key
from search.networks import build_block
from search.outputs.detection import masks
from tests.support.seeded import seeded

WHOLE = parse_key("deeplab.aspp(in=24,classes=20,mid=256,rate=12)@33")


def theirs_to_ours(theirs: Any) -> list[torch.Tensor]:
    """Tensors of torchvision's head in the order of ours, the joining convolution cut at the pooled branch."""
    aspp, *classifier = theirs
    local, *atrous, pool = aspp.convs
    conv, norm = aspp.project[0], aspp.project[1]
    tensors = [t for part in (local, *atrous, pool) for t in part.state_dict().values()]
    tensors += [conv.weight[:, : 4 * 256], conv.weight[:, 4 * 256 :], *norm.state_dict().values()]
    return tensors + [t for part in classifier for t in part.state_dict().values()]


def test_whole_head_equals_torchvisions():
    theirs = seeded(deeplabv3.DeepLabHead(24, 21).eval())
    ours = build_block(WHOLE)[0].eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs_to_ours(theirs), strict=True)))
    assert sum(p.numel() for p in theirs.parameters()) == WHOLE.params()
    x = torch.randn(2, 24, 33, 33, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours(x), expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


def test_lite_head_is_the_whole_one_without_its_atrous_branches():
    spec = parse_key("deeplab.lite(in=24,classes=20,mid=32)@9")
    ours = seeded(build_block(spec)[0].eval())
    pooled = deeplabv3.ASPPPooling(24, 32).eval()
    pooled.load_state_dict(dict(zip(pooled.state_dict(), ours.pool.state_dict().values(), strict=True)))
    whole = deeplabv3.ASPP(24, [], 32).eval()
    whole.convs[-1] = pooled
    values = [*ours.local.state_dict().values()]
    whole.convs[0].load_state_dict(dict(zip(whole.convs[0].state_dict(), values, strict=True)))
    join: Any = ours.join
    with torch.no_grad():
        whole.project[0].weight.copy_(torch.cat((join.of_map.weight, join.of_pooled.weight), 1))
        whole.project[1].load_state_dict(join.rest[0].state_dict())
        x = torch.randn(1, 24, 9, 9, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(ours(x), ours.classifier(whole(x)), rtol=1e-4, atol=1e-4)


def test_masks_are_those_of_torchvisions_model():
    logits = torch.randn(2, 21, 8, 8, generator=torch.Generator().manual_seed(0))

    class Backbone(nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"out": logits}

    theirs = _SimpleSegmentationModel(Backbone(), nn.Identity())(torch.zeros(2, 3, 100, 120))["out"]
    assert torch.equal(masks(logits, (100, 120)), theirs.argmax(1))
    assert len(masks(logits, (100, 120)).unique()) > 5

"""Modules of MobileNets: the first convolution, inverted residuals, classifiers, with SiLU or ReLU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from torch import nn

from search.blocks import Conv, FcHead, MBConv
from search.blocks.mobilenet import LinearConv, ReluConv, ReluConvHead, ReluMBConv, WideHead
from search.networks.layers import Classifier, ConvBnAct, Residual
from search.networks.network import module_of


def inverted_residual(spec: MBConv, act: Callable[[], nn.Module] = nn.SiLU) -> nn.Sequential:
    """Create an inverted residual: (B, inputs, H, W) -> (B, outputs, ceil(H / stride), ceil(W / stride)).

    The expansion may be the identity; `act` creates the activations.
    """
    wide = spec.middle
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        expand=ConvBnAct(spec.inputs, wide, act=act()) if spec.expands else nn.Identity(),
        depthwise=ConvBnAct(wide, wide, spec.kernel, spec.stride, groups=wide, act=act()),
        project=ConvBnAct(spec.middle, spec.outputs, act=False),
    )
    return Residual(parts) if spec.residual else nn.Sequential(parts)


module_of.register(Conv, lambda spec: ConvBnAct(spec.inputs, spec.outputs, spec.kernel, spec.stride))
module_of.register(MBConv, lambda spec: inverted_residual(spec))
module_of.register(FcHead, lambda spec: Classifier(spec.inputs, spec.classes))
module_of.register(WideHead, lambda spec: Classifier(spec.inputs, spec.classes, spec.middle))


def _conv(spec: ReluConv) -> nn.Module:
    return ConvBnAct(spec.inputs, spec.outputs, spec.kernel, spec.stride, act=nn.ReLU())


def _projection(spec: LinearConv) -> nn.Module:
    return ConvBnAct(spec.inputs, spec.outputs, spec.kernel, spec.stride, act=False)


module_of.register(ReluConv, _conv)
module_of.register(LinearConv, _projection)
module_of.register(ReluMBConv, lambda spec: inverted_residual(spec, nn.ReLU))
module_of.register(ReluConvHead, lambda spec: Classifier(spec.inputs, spec.classes, spec.middle, nn.ReLU()))

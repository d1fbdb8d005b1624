"""Modules of MobileNets: the first convolution, inverted residuals, classifiers, with SiLU or ReLU."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from search.blocks import Conv, ConvHead, FcHead, MBConv, MbPoolHead
from search.blocks.mobilenet import ActivationName, PooledStem
from search.networks.layers import Classifier, ConvBnAct, Residual
from search.networks.network import module_of


def activation(name: ActivationName) -> nn.Module | None:
    """Create an activation; None if there is none."""
    return {"silu": nn.SiLU, "relu": nn.ReLU}[name]() if name else None


@module_of.register
def _(spec: Conv) -> nn.Module:
    return ConvBnAct(spec.inputs, spec.outputs, spec.kernel, spec.stride, act=activation(spec.activation))


@module_of.register
def _(spec: PooledStem) -> nn.Module:
    conv = ConvBnAct(spec.inputs, spec.outputs, spec.kernel, 2, act=activation(spec.activation))
    return nn.Sequential(conv, nn.MaxPool2d(3, 2, padding=1))


@module_of.register
def inverted_residual(spec: MBConv) -> nn.Module:
    """Create an inverted residual; the expansion may be the identity."""
    wide, act = spec.middle, spec.activation
    parts: OrderedDict[str, nn.Module] = OrderedDict(
        expand=ConvBnAct(spec.inputs, wide, act=activation(act)) if spec.expansion > 1 else nn.Identity(),
        depthwise=ConvBnAct(wide, wide, spec.kernel, spec.stride, groups=wide, act=activation(act)),
        project=ConvBnAct(wide, spec.outputs, act=None),
    )
    return Residual(parts) if spec.removable else nn.Sequential(parts)


@module_of.register
def _(spec: ConvHead) -> nn.Module:
    return Classifier(spec.inputs, spec.classes, spec.middle, act=activation(spec.activation))


module_of.register(FcHead, lambda spec: Classifier(spec.inputs, spec.classes, act=None))
module_of.register(MbPoolHead, lambda spec: module_of(spec.as_conv_head))

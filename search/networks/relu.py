"""Modules of the blocks with ReLU of NAS-Bench-Macro."""

from __future__ import annotations

from torch import nn

from search.blocks.relu import LinearConv, ReluConv, ReluConvHead, ReluMBConv
from search.networks.layers import Classifier, ConvBnAct
from search.networks.mobilenet import inverted_residual
from search.networks.module import module_of


def _conv(spec: ReluConv) -> nn.Module:
    return ConvBnAct(spec.inputs, spec.outputs, spec.kernel, spec.stride, act=nn.ReLU())


def _projection(spec: LinearConv) -> nn.Module:
    return ConvBnAct(spec.inputs, spec.outputs, spec.kernel, spec.stride, act=False)


module_of.register(ReluConv, _conv)
module_of.register(LinearConv, _projection)
module_of.register(ReluMBConv, lambda spec: inverted_residual(spec, nn.ReLU))
module_of.register(ReluConvHead, lambda spec: Classifier(spec.inputs, spec.classes, spec.middle, nn.ReLU()))

import pytest

from orchestrator.export.lower.kinds import Place, family_of, place_of

BLOCK = [("", "VisionTransformer"), ("blocks", "Sequential"), ("blocks.0", "Block")]
LAYER = [
    ("", "Network"),
    ("4", "MobileViTBlock"),
    ("4.layers", "Sequential"),
    ("4.layers.0", "TransformerLayer"),
]


@pytest.mark.parametrize(
    ("operation", "family"),
    [
        ("aten.permute_copy.default", "reshape"),
        ("native_call_native_layer_norm.out", "normalisation"),
        ("aten.silu_.default", "activation"),
        ("aten._to_copy.default", "reshape"),
        ("XNNConcatenate4", "reshape"),
        ("XNNDepthwiseConv2d", "convolution"),
        ("XNNBatchMatrixMultiply", "product"),
        ("XNNReciprocalSquareRoot", "elementwise"),
        ("aten.fft_rfft2.default", "other"),
    ],
)
def test_operation_families(operation, family):
    assert family_of(operation) == family


def test_kinds_inside_attention_and_mlp():
    attention = [*BLOCK, ("blocks.0.attn", "Attention")]
    for operation in ("aten.softmax.int", "aten.reshape.default", "aten.mul.Tensor"):
        assert place_of(operation, attention) == Place("attention", "blocks.0.attn")
    qkv = [*attention, ("blocks.0.attn.qkv", "Linear")]
    assert place_of("aten.linear.default", qkv) == Place("attention", "blocks.0.attn")
    act = [*BLOCK, ("blocks.0.mlp", "Mlp"), ("blocks.0.mlp.act", "GELU")]
    assert place_of("aten.gelu.default", act) == Place("mlp", "blocks.0.mlp")


def test_efficientvit_ffn_is_mlp():
    feed = [("", "Network"), ("3", "Sequential"), ("3.feed", "Residual"), ("3.feed.expand", "ConvBnAct")]
    assert place_of("aten.conv2d.default", [*feed, ("3.feed.expand.conv", "Conv2d")]) == Place(
        "mlp", "3.feed"
    )
    mix = [("", "Network"), ("3", "Sequential"), ("3.mix", "Residual"), ("3.mix.conv.conv", "Conv2d")]
    assert place_of("aten.conv2d.default", mix).kind == "convolution"


def test_nested_attention_and_mlp():
    window = [("", "Net"), ("0", "LocalWindowAttention"), ("0.attn", "CascadedGroupAttention")]
    assert place_of("aten.matmul.default", window) == Place("attention", "0")
    block = [("", "Net"), ("0", "ClassAttentionBlock"), ("0.mlp", "Mlp")]
    assert place_of("aten.linear.default", block) == Place("mlp", "0.mlp")


def test_misleading_names_are_not_attention():
    assert place_of("aten.add.Tensor", [("", "MlpMixer")]).kind == "elementwise"
    head = [("", "Net"), ("head", "NormMlpClassifierHead"), ("head.fc", "Linear")]
    assert place_of("aten.linear.default", head).kind == "other"
    gate = [("", "Net"), ("se", "SqueezeExciteAttention"), ("se.conv", "Conv2d")]
    assert place_of("aten.conv2d.default", gate).kind == "convolution"


def test_kinds_outside_attention_and_mlp():
    assert place_of("aten.add.Tensor", BLOCK).kind == "elementwise"
    assert place_of("aten.conv2d.default", [*BLOCK, ("proj", "Conv2d")]).kind == "convolution"
    assert (
        place_of("aten.linear.default", [*BLOCK, ("blocks.0.norm1", "LinearLayerNorm")]).kind
        == "normalisation"
    )
    assert (
        place_of("aten.relu.default", [*BLOCK, ("n", "BatchNormAct2d"), ("n.act", "ReLU")]).kind
        == "activation"
    )
    assert place_of("XNNMultiply", [*BLOCK, ("act", "SiLU")], "activation").kind == "activation"


def test_kinds_in_our_transformer_layer():
    attention, mlp = Place("attention", "4.layers.0"), Place("mlp", "4.layers.0")
    assert place_of("aten.linear.default", [*LAYER, ("4.layers.0.qkv", "Linear")]) == attention
    assert place_of("aten.bmm.default", LAYER) == attention
    assert place_of("aten.mul.Tensor", LAYER) == attention
    assert place_of("aten.linear.default", [*LAYER, ("4.layers.0.fc2", "Linear")]) == mlp
    assert place_of("aten.silu.default", LAYER) == mlp
    assert place_of("aten.add.Tensor", LAYER).kind == "elementwise"
    assert (
        place_of("aten.sub.Tensor", [*LAYER, ("4.layers.0.norm1", "LinearLayerNorm")]).kind == "normalisation"
    )

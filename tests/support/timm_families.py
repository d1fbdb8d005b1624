"""Networks of timm for sweeps: the smallest of their families, at few pixels where they can be."""

_NAMES = """
cait_xxs24_224@32 coat_lite_tiny@64 convit_tiny@32 convnext_atto@64 crossvit_9_240 cs3darknet_s@64
deit_tiny_patch16_224@32 densenet121@64 dla46x_c@64 edgenext_xx_small@64 efficientformer_l1 efficientformerv2_s0
efficientnet_b0@64 efficientvim_m1@64 efficientvit_b0@64 efficientvit_m0 ese_vovnet19b_slim_dw@64
eva02_tiny_patch14_224@28 fasternet_t0@64 fastvit_t8@64 gcvit_xxtiny gernet_s@64 ghostnet_050@64
ghostnetv2_100@64 hardcorenas_a@64 hgnetv2_b0@64 hrnet_w18_small@64 inception_next_atto@64 lcnet_050@64
levit_128s levit_conv_128s mixer_s32_224@64 mixnet_s@64 mnasnet_small@64 mobilenetv1_100@64 mobilenetv2_050@64
mobilenetv3_large_100@64 mobilenetv3_small_050@64 mobilenetv4_hybrid_medium@64 mobilevit_xxs@64
mobilevitv2_050@64 nf_regnet_b0@64 pit_ti_224 poolformer_s12@64 pvt_v2_b0@64 regnetx_002@64 regnety_002@64
repghostnet_050@64 repvit_m1@64 resnet18@64 rexnet_100@64 semnasnet_075@64 shvit_s1@64 starnet_s050@64
swiftformer_xs@64 swin_tiny_patch4_window7_224 test_mambaout@64 tiny_vit_5m_224 vit_tiny_patch16_224@32
xcit_nano_12_p16_224@32
"""
NETWORKS = _NAMES.split()

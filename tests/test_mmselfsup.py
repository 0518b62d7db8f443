"""MMSelfSup's published base configurations of its sixteen algorithms, built as they are written there."""

import copy

import pytest
import torch
from torch import nn

import nenya_nb.models as nb
from nenya_nb.models import MODELS
from nenya_nb.models.mmselfsup import from_mmselfsup

IMAGES = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), bgr_to_rgb=True)
CE = dict(type="mmcls.CrossEntropyLoss")


def resnet(norm="BN", **more):
    return dict(type="ResNet", depth=50, in_channels=3, norm_cfg=dict(type=norm), **more)


def projection(hidden, out, inputs=2048, kind="NonLinearNeck", **more):
    return dict(type=kind, in_channels=inputs, hid_channels=hidden, out_channels=out, **more)


BYOL = dict(num_layers=2, with_bias=True, with_last_bn=False)
CONFIGS = {
    "BarlowTwins": dict(
        backbone=resnet("SyncBN", zero_init_residual=True),
        neck=projection(
            8192,
            8192,
            num_layers=3,
            with_last_bn=False,
            with_last_bn_affine=False,
            with_avg_pool=True,
            init_cfg=dict(type="Kaiming", distribution="uniform", layer=["Linear"]),
        ),
        head=dict(
            type="LatentCrossCorrelationHead",
            in_channels=8192,
            loss=dict(type="CrossCorrelationLoss"),
        ),
    ),
    "BYOL": dict(
        base_momentum=0.99,
        backbone=resnet("SyncBN"),
        neck=projection(4096, 256, with_avg_pool=True, **BYOL),
        head=dict(
            type="LatentPredictHead",
            loss=dict(type="CosineSimilarityLoss"),
            predictor=projection(4096, 256, 256, with_avg_pool=False, **BYOL),
        ),
    ),
    "CAE": dict(
        backbone=dict(type="CAEViT", arch="b", patch_size=16, init_values=0.1, qkv_bias=False),
        neck=dict(
            type="CAENeck",
            patch_size=16,
            embed_dims=768,
            num_heads=12,
            regressor_depth=4,
            decoder_depth=4,
            mlp_ratio=4,
            init_values=0.1,
        ),
        head=dict(type="CAEHead", loss=dict(type="CAELoss", lambd=2)),
        target_generator=dict(type="PixelClusters", num_clusters=8192, patch_size=16),
        base_momentum=0.0,
    ),
    "DeepCluster": dict(
        length=1281167,  # ours: MMSelfSup asks the data set
        backbone=resnet("SyncBN"),
        neck=dict(type="AvgPool2dNeck"),
        head=dict(
            type="ClsHead", loss=CE, with_avg_pool=False, in_channels=2048, num_classes=10000
        ),
    ),
    "DenseCL": dict(
        queue_len=65536,
        feat_dim=128,
        momentum=0.999,
        loss_lambda=0.5,
        backbone=resnet(),
        neck=projection(2048, 128, kind="DenseCLNeck", num_grid=None),
        head=dict(type="ContrastiveHead", loss=CE, temperature=0.2),
    ),
    "MAE": dict(
        backbone=dict(type="MAEViT", arch="b", patch_size=16, mask_ratio=0.75),
        neck=dict(
            type="MAEPretrainDecoder",
            patch_size=16,
            in_chans=3,
            embed_dim=768,
            decoder_embed_dim=512,
            decoder_depth=8,
            decoder_num_heads=16,
            mlp_ratio=4.0,
        ),
        head=dict(
            type="MAEPretrainHead",
            norm_pix=True,
            patch_size=16,
            loss=dict(type="MAEReconstructionLoss"),
        ),
        init_cfg=[dict(type="Xavier", distribution="uniform", layer="Linear")],
    ),
    "MoCo": dict(
        queue_len=65536,
        feat_dim=128,
        momentum=0.999,
        backbone=resnet(),
        neck=projection(2048, 128, kind="MoCoV2Neck", with_avg_pool=True),
        head=dict(type="ContrastiveHead", loss=CE, temperature=0.2),
    ),
    "MoCoV3": dict(
        base_momentum=0.99,
        backbone=dict(
            type="MoCoV3ViT",
            arch="mocov3-small",
            img_size=224,
            patch_size=16,
            stop_grad_conv1=True,
        ),
        neck=projection(
            4096,
            256,
            384,
            num_layers=3,
            with_bias=False,
            with_last_bn=True,
            with_last_bn_affine=False,
            with_last_bias=False,
            with_avg_pool=False,
            vit_backbone=True,
        ),
        head=dict(
            type="MoCoV3Head",
            predictor=projection(4096, 256, 256, num_layers=2, with_last_bn_affine=False),
            loss=dict(type="mmcls.CrossEntropyLoss", loss_weight=2 * 0.2),
            temperature=0.2,
        ),
    ),
    "NPID": dict(
        neg_num=65536,
        backbone=resnet(),
        neck=dict(type="LinearNeck", in_channels=2048, out_channels=128, with_avg_pool=True),
        head=dict(type="ContrastiveHead", loss=CE, temperature=0.07),
        memory_bank=dict(type="SimpleMemory", length=1281167, feat_dim=128, momentum=0.5),
    ),
    "ODC": dict(
        backbone=resnet("SyncBN"),
        neck=projection(512, 256, kind="ODCNeck", norm_cfg=dict(type="BN1d"), with_avg_pool=True),
        head=dict(type="ClsHead", loss=CE, with_avg_pool=False, in_channels=256, num_classes=10000),
        memory_bank=dict(
            type="ODCMemory",
            length=1281167,
            feat_dim=256,
            momentum=0.5,
            num_classes=10000,
            min_cluster=20,
            debug=False,
        ),
    ),
    "RelativeLoc": dict(
        backbone=resnet(),
        neck=dict(type="RelativeLocNeck", in_channels=2048, out_channels=4096, with_avg_pool=True),
        head=dict(
            type="ClsHead",
            loss=CE,
            with_avg_pool=False,
            in_channels=4096,
            num_classes=8,
            init_cfg=[dict(type="Normal", std=0.005, layer="Linear")],
        ),
    ),
    "RotationPred": dict(
        backbone=resnet(),
        head=dict(type="ClsHead", loss=CE, with_avg_pool=True, in_channels=2048, num_classes=4),
    ),
    "SimCLR": dict(
        backbone=resnet("SyncBN", zero_init_residual=True),
        neck=projection(2048, 128, num_layers=2, with_avg_pool=True),
        head=dict(type="ContrastiveHead", loss=CE, temperature=0.1),
    ),
    "SimMIM": dict(
        backbone=dict(
            type="SimMIMSwinTransformer",
            arch="B",
            img_size=192,
            stage_cfgs=dict(block_cfgs=dict(window_size=6)),
        ),
        neck=dict(type="SimMIMNeck", in_channels=128 * 2**3, encoder_stride=32),
        head=dict(
            type="SimMIMHead",
            patch_size=4,
            loss=dict(type="SimMIMReconstructionLoss", encoder_in_channels=3),
        ),
    ),
    "SimSiam": dict(
        backbone=resnet("SyncBN", zero_init_residual=True),
        neck=projection(2048, 2048, num_layers=3, with_last_bn_affine=False, with_avg_pool=True),
        head=dict(
            type="LatentPredictHead",
            loss=dict(type="CosineSimilarityLoss"),
            predictor=projection(
                512, 2048, 2048, with_avg_pool=False, with_last_bn=False, with_last_bias=True
            ),
        ),
    ),
    "SwAV": dict(
        backbone=resnet("SyncBN", zero_init_residual=True),
        neck=projection(2048, 128, kind="SwAVNeck", with_avg_pool=True),
        head=dict(
            type="SwAVHead",
            loss=dict(
                type="SwAVLoss", feat_dim=128, epsilon=0.05, temperature=0.1, num_crops=[2, 6]
            ),
        ),
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_base_configuration_builds(name):
    config = dict(type=name, data_preprocessor=IMAGES, **CONFIGS[name])
    given = copy.deepcopy(config)
    with torch.device("meta"):
        algorithm = MODELS.build(config)
    assert config == given, "the caller's dictionary was changed"
    assert type(algorithm) is getattr(nb, name) and isinstance(algorithm, nb.Algorithm)
    ours = nb.to_config(algorithm)
    assert from_mmselfsup(ours) == ours, "something was left untranslated"
    with torch.device("meta"):
        again = nb.build(ours)
    shapes = {key: value.shape for key, value in algorithm.state_dict().items()}
    assert {key: value.shape for key, value in again.state_dict().items()} == shapes


def test_sizes_and_losses_arrive_where_they_belong():
    with torch.device("meta"):
        built = {name: MODELS.build(dict(type=name, **CONFIGS[name])) for name in CONFIGS}
    assert built["MoCo"].memory.features.shape == built["DenseCL"].memory.features.shape
    assert built["MoCo"].memory.features.shape == (65536, 128)
    assert built["NPID"].memory.features.shape == (1281167, 128)
    assert built["NPID"].num_negatives == 65536 and built["NPID"].head.temperature == 0.07
    assert built["SwAV"].head.prototypes.weight.shape == (3000, 128)
    assert built["SwAV"].views == {"type": "multi_crop", "num_local": 6}
    assert built["SimSiam"].neck.layers[-1].affine is False
    assert any(isinstance(m, nn.SyncBatchNorm) for m in built["SimCLR"].backbone.modules())
    assert built["BarlowTwins"].neck.output_dim == 8192
    assert built["CAE"].loss_fn.lambd == 2 and built["ODC"].memory.min_cluster == 20
    assert built["ODC"].loss_fn.reduction == built["DeepCluster"].loss_fn.reduction == "none"
    assert isinstance(built["RotationPred"].loss_fn, nn.CrossEntropyLoss)


def test_one_algorithm_runs_as_built():
    small = dict(CONFIGS["SimCLR"], backbone=resnet())
    algorithm = MODELS.build(dict(type="mmselfsup.SimCLR", **small))
    losses = algorithm([torch.randn(4, 3, 32, 32)] * 2, mode="loss")
    assert losses["loss"].isfinite()


def test_a_word_that_nobody_knows_is_an_error_with_a_suggestion():
    config = dict(type="SimCLR", **CONFIGS["SimCLR"])
    config["head"] = dict(type="ContrastiveHead", loss=CE, temprature=0.1)
    with pytest.raises(TypeError, match="Did you mean 'temperature'"):
        MODELS.build(config)
    with pytest.raises(KeyError, match="Did you mean 'SimCLR'"):
        MODELS.build(dict(config, type="SimCRL"))

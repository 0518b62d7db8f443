"""MMSelfSup's published base configurations of its sixteen algorithms, built as they are written there."""

import copy

import pytest
import torch
from torch import nn

import nenya_nb.models as nb
from nenya_nb.models import MODELS
from nenya_nb.models.init_cfg import apply_init_cfg
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


# ---- nothing is lost without a word ------------------------------------------------------------
def small_simclr(**more):
    backbone = dict(type="ResNet", depth=18, in_channels=3, norm_cfg=dict(type="BN"))
    parts = dict(
        backbone=backbone,
        neck=projection(16, 8, 512, with_avg_pool=True),
        head=dict(type="ContrastiveHead", loss=CE, temperature=0.1),
    )
    return copy.deepcopy(dict(type="SimCLR", **parts) | more)


@pytest.mark.parametrize("kind", ["SimpleMemory", "ODCMemory"])
def test_momentum_of_a_memory_weighs_the_new_vector_there_and_the_old_one_here(kind):
    sizes = dict(length=4, feat_dim=3) | (
        dict(num_classes=2, min_cluster=1) if kind[0] == "O" else {}
    )
    memory = MODELS.build(dict(type=kind, momentum=0.9, **sizes))
    assert memory.momentum == pytest.approx(0.1)
    old, new = memory.features[2].clone(), torch.nn.functional.normalize(torch.randn(1, 3), dim=1)
    memory.update(torch.tensor([2]), new)
    theirs = torch.nn.functional.normalize(0.1 * old + 0.9 * new[0], dim=0)
    torch.testing.assert_close(memory.features[2], theirs)
    ours = from_mmselfsup(dict(type=kind, momentum=0.9, dim=3, length=4))
    assert ours["momentum"] == 0.9, "in our own words it stays"


def wrong(path, value, name="SimCLR"):
    config = dict(type=name, **copy.deepcopy(CONFIGS[name]))
    part, keys = config, path.split(".")
    for key in keys[:-1]:
        part = part[key]
    part[keys[-1]] = value
    return config


@pytest.mark.parametrize(
    "config, error, text",
    [
        (wrong("data_preprocessor", dict(men=(0, 0, 0))), TypeError, "Did you mean 'mean'"),
        (wrong("head.loss", CE | dict(loss_weight=0.5)), ValueError, "loss_weight=0.5 is not supp"),
        (wrong("head.loss", CE | dict(use_sigmoid=True)), ValueError, "use_sigmoid=True"),
        (wrong("head.loss", CE | dict(loss_weight=3.0), "MoCoV3"), ValueError, "give 0.4"),
        (
            wrong("backbone.norm_cfg", dict(type="BN", requires_grad=False)),
            ValueError,
            "requires_grad=False is not supported here, because what learns is chosen after",
        ),
        (wrong("backbone.norm_cfg", dict(type="BN", ep=1e-3)), TypeError, "Did you mean 'eps'"),
        (wrong("neck.norm_cfg", dict(type="BN", eps=1e-3)), ValueError, "norm_cfg: eps=0.001"),
        (wrong("neck.with_avg_pool", "nonsense"), ValueError, "with_avg_pool='nonsense'"),
        (wrong("neck.vit_backbone", 3), ValueError, "vit_backbone=3"),
        (wrong("neck.mask_tokens_num", 999, "CAE"), ValueError, "num_masked goes from 1 to 195"),
        (wrong("neck.patch_size", 8, "CAE"), ValueError, "patch_size=8 in the neck, but 16"),
        (wrong("feat_dim", 77, "MoCo"), ValueError, "feat_dim=77, but the neck gives 128"),
        (wrong("feat_dim", 77, "SimCLR"), TypeError, "Unknown setting of SimCLR 'feat_dim'"),
        (wrong("init_cfg", dict(type="Kaimin")), ValueError, "Did you mean 'Kaiming'"),
        (wrong("neck.init_cfg", dict(type="Normal", st=1)), TypeError, "Did you mean 'std'"),
        (
            wrong("backbone.frozen_stages", 1),
            ValueError,
            r"layer1.requires_grad_\(False\); leave it",
        ),
        (wrong("backbone.norm_eval", True), ValueError, "norm_eval=True .* follows train"),
        (wrong("backbone.with_cp", True), ValueError, "with_cp=True"),
        (wrong("backbone.style", "caffe"), ValueError, "style='caffe'"),
        (wrong("backbone.num_stages", 3), ValueError, r"use block=… and layers=\[…\]"),
        (wrong("backbone.dilations", (1, 1, 1, 2)), ValueError, "replace_stride_with_dilation"),
        (
            wrong("target_generator", dict(type="VQKD"), "CAE"),
            ValueError,
            "'VQKD' is not supported",
        ),
    ],
)
def test_what_would_be_lost_is_refused_by_name(config, error, text):
    with pytest.raises(error, match=text), torch.device("meta"):
        MODELS.build(config)


def test_values_that_say_nothing_are_dropped():
    more = dict(num_stages=4, style="pytorch", frozen_stages=-1, norm_eval=False, with_cp=False)
    config = dict(resnet(), dilations=(1, 1, 1, 1), conv_cfg=None, **more)
    config["norm_cfg"] = dict(type="BN", requires_grad=True)
    assert from_mmselfsup(config) == dict(type="ResNet", depth=50, in_channels=3, out_indices=(4,))


def test_settings_of_the_resnet_that_ours_has():
    with torch.device("meta"):
        config = dict(type="ResNet", depth=18, stem_channels=32, base_channels=16)
        net = MODELS.build(config | dict(norm_cfg=dict(type="BN", eps=1e-3, momentum=0.01)))
        deep = MODELS.build(dict(type="ResNet", depth=18, deep_stem=True, stem_channels=48))
        down = MODELS.build(dict(type="ResNetV1d", depth=50))
        sobel = MODELS.build(dict(type="ResNetSobel", depth=18))
        grouped = MODELS.build(dict(type="ResNeXt", depth=50))
    assert net.conv1.out_channels == 32 and net.layer1[0].conv1.out_channels == 16
    assert net.output_dim == 128 and (net.bn1.eps, net.bn1.momentum) == (1e-3, 0.01)
    assert [m.out_channels for m in deep.conv1 if isinstance(m, nn.Conv2d)] == [24, 24, 48]
    assert isinstance(down.layer2[0].downsample[0], nn.AvgPool2d) and len(down.conv1) > 1
    assert isinstance(sobel, nb.Sobel) and sobel.backbone.in_channels == 2
    assert sobel.backbone.out_indices == (4,) and grouped.layer1[0].conv2.groups == 32


def test_sobel_resnet_clusters():
    config = dict(
        type="DeepCluster", length=8, num_classes=4, backbone=dict(type="ResNetSobel", depth=18)
    )
    config["head"] = dict(type="ClsHead", loss=CE, in_channels=512, num_classes=4)
    algorithm = MODELS.build(config)
    losses = algorithm([torch.randn(4, 3, 32, 32)], torch.arange(4), mode="loss")
    assert losses["loss"].isfinite()


def test_decoder_of_mae_honours_its_number_of_patches():
    decoder = dict(type="MAEPretrainDecoder", num_patches=64, patch_size=8)
    assert from_mmselfsup(decoder) == dict(type="MAEPretrainDecoder", patch_size=8, img_size=64)


def test_tokens_of_caes_neck_are_patches_of_its_views():
    assert from_mmselfsup(wrong("neck.mask_tokens_num", 75, "CAE"))["num_masked"] == 75


def test_dalle_by_its_name_there(tmp_path):
    small = dict(n_hid=8, n_blk_per_group=1, vocab_size=16)
    donor = nb.DALLEEncoder(hidden_dim=8, num_blocks=1, num_classes=16)
    torch.save(donor.state_dict(), tmp_path / "dalle.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "dalle.pth"))
    found = MODELS.build(dict(type="DALL-E", init_cfg=init, **small))
    assert torch.equal(found.blocks.input.w, donor.blocks.input.w)
    with pytest.raises(FileNotFoundError, match="download dalle_encoder.pth"):
        MODELS.build(dict(type="DALL-E", init_cfg=dict(type="Pretrained", checkpoint="none.pth")))


# ---- weights to begin with ---------------------------------------------------------------------
def test_pretrained_is_read_or_refused(tmp_path):
    donor = nb.ResNet(depth=18, num_classes=0)
    torch.save({"state_dict": donor.state_dict()}, tmp_path / "net.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "net.pth"))
    algorithm = MODELS.build(small_simclr(init_cfg=init))
    assert torch.equal(algorithm.backbone.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
    assert nb.to_config(algorithm)["init_cfg"] == init
    for missing in ("/does/not/exist", "https://host/net.pth", None):
        config = small_simclr(init_cfg=dict(type="Pretrained", checkpoint=missing))
        with pytest.raises((FileNotFoundError, ValueError), match="no weights|download"):
            MODELS.build(config)
    with pytest.raises(ValueError, match="leave it out of a stranger's"):
        nb.build(from_mmselfsup(small_simclr(init_cfg=init)), trusted=False)


def test_pretrained_with_a_prefix_and_foreign_necks(tmp_path, capsys):
    donor = nb.ResNet(depth=18, num_classes=0)
    weights = {f"backbone.{k}": v for k, v in donor.state_dict().items()}
    torch.save(weights | {"neck.fc0.weight": torch.zeros(1)}, tmp_path / "run.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "run.pth"))
    config = small_simclr()
    config["backbone"]["init_cfg"] = init | dict(prefix="backbone.")
    inside, around = MODELS.build(config), MODELS.build(small_simclr(init_cfg=init))
    assert "the backbone is loaded; neck of" in capsys.readouterr().out
    for algorithm in (inside, around):
        assert torch.equal(algorithm.backbone.conv1.weight, donor.conv1.weight)
    config["backbone"]["init_cfg"] = init | dict(prefix="backbne")
    with pytest.raises(ValueError, match="Did you mean 'backbone'"):
        MODELS.build(config)


def test_teachers_start_with_the_weights_that_were_read(tmp_path):
    donor = nb.ResNet(depth=18, num_classes=0)
    torch.save(donor.state_dict(), tmp_path / "net.pth")
    neck = projection(
        16, 8, 512, kind="MoCoV2Neck", init_cfg=dict(type="Normal", std=0.3, layer="Linear")
    )
    config = dict(type="MoCo", queue_len=8, backbone=small_simclr()["backbone"], neck=neck)
    config["init_cfg"] = dict(type="Pretrained", checkpoint=str(tmp_path / "net.pth"))
    algorithm = MODELS.build(config)
    slow = algorithm.momentum_encoder
    for ours, theirs in ((algorithm.backbone, slow.backbone), (algorithm.neck, slow.neck)):
        for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True):
            assert torch.equal(a, b)
    assert torch.equal(slow.backbone.conv1.weight, donor.conv1.weight)


def test_a_whole_checkpoint_brings_its_teacher(tmp_path):
    config = dict(type="MoCo", queue_len=8, backbone=small_simclr()["backbone"])
    config["neck"] = projection(16, 8, 512, kind="MoCoV2Neck")
    donor = MODELS.build(config)
    for p in donor.momentum_encoder.parameters():
        p.data.add_(1)
    torch.save(donor.state_dict(), tmp_path / "whole.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "whole.pth"))
    again = MODELS.build(config | dict(init_cfg=init))
    for key, value in donor.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize(
    "init, weight",
    [
        (dict(type="Constant", val=2, bias=1), lambda w: (w == 2).all()),
        (dict(type="Normal", mean=3, std=0.01), lambda w: (w.mean() - 3).abs() < 0.01),
        (dict(type="TruncNormal", std=0.02), lambda w: w.abs().max() <= 2 and w.std() < 0.03),
        (dict(type="Uniform", a=4, b=5), lambda w: w.min() >= 4 and w.max() <= 5),
        (dict(type="Xavier"), lambda w: (w.std() - (2 / 96) ** 0.5).abs() < 0.02),
        (
            dict(type="Kaiming", distribution="uniform", mode="fan_in"),
            lambda w: w.abs().max() <= (6 / 64) ** 0.5,
        ),
    ],
)
def test_ways_to_draw(init, weight):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.Conv2d(1, 1, 1))
    before = net[2].weight.clone()
    apply_init_cfg(
        net, [dict(layer=["Linear"], **init), dict(type="Constant", val=7, layer="_BatchNorm")]
    )
    assert weight(net[0].weight) and (net[0].bias == init.get("bias", 0)).all()
    assert (net[1].weight == 7).all() and torch.equal(net[2].weight, before)


def test_a_parts_own_beginning_has_the_last_word():
    config = small_simclr(init_cfg=dict(type="Constant", val=1, layer="Linear"))
    assert (MODELS.build(config).neck.layers[0].weight == 1).all()
    config["neck"]["init_cfg"] = dict(type="Constant", val=2, layer="Linear")
    assert (MODELS.build(config).neck.layers[0].weight == 2).all()


def test_clips_tokenizer_is_a_path():
    ours = from_mmselfsup(dict(type="mmselfsup.CLIPGenerator", tokenizer_path="clip.pth"))
    assert ours == dict(type="mmselfsup.CLIPGenerator", path="clip.pth")


# ---- algorithms of one's own


class Theirs(nb.BaseModel):
    "A constructor as MMSelfSup's page writes it: it names its arguments and hands them on."

    def __init__(self, backbone, neck=None, head=None, target_generator=None, pretrained=None,
                 data_preprocessor=None, init_cfg=None):  # fmt: skip
        super().__init__(
            backbone=backbone, neck=neck, head=head, target_generator=target_generator,
            pretrained=pretrained, data_preprocessor=data_preprocessor, init_cfg=init_cfg,
        )  # fmt: skip


class OnTorch(nn.Module):
    "Not even derived from ours: it builds its parts itself, a module or a dictionary."

    def __init__(self, backbone, head=None):
        super().__init__()
        self.backbone, self.head = MODELS.build(backbone), MODELS.build(head)


class WithLoss(nn.Module):
    "A head with a loss inside, as theirs are."

    def __init__(self, loss, scale=1.0):
        super().__init__()
        self.loss, self.scale = MODELS.build(loss), scale


@pytest.fixture(autouse=True)
def own_types():
    for kind in (Theirs, OnTorch, WithLoss):
        MODELS.register_module(module=kind, force=True)


HEADS = {
    name: config["head"] for name, config in CONFIGS.items() if "loss" in config.get("head", ())
}


@pytest.mark.parametrize("name", sorted(HEADS.keys() - {"MoCoV3"}))
@pytest.mark.parametrize("make", ["BaseModel(…)", "BaseModel", "Theirs"])
def test_a_base_model_takes_every_head_with_its_loss(name, make):
    parts = {
        key: CONFIGS[name][key] for key in ("backbone", "neck", "head") if key in CONFIGS[name]
    }
    given = copy.deepcopy(parts)
    with torch.device("meta"):
        model = nb.BaseModel(**parts) if "(" in make else MODELS.build(dict(type=make, **parts))
        again = nb.build(nb.to_config(model)) if make != "Theirs" else model
    assert parts == given
    kind = parts["head"]["loss"]["type"].removeprefix("mmcls.")
    assert type(model.loss_fn).__name__ == type(again.loss_fn).__name__ == kind
    assert type(model.head).__name__ == parts["head"]["type"]
    assert not hasattr(model.head, "loss")


def test_a_head_of_ones_own_keeps_its_loss():
    head = dict(type="WithLoss", loss=CE, scale=2.0)
    config = dict(backbone=dict(type="ResNet", depth=18), head=head)
    for model in (
        MODELS.build(dict(type="Theirs", **config)),
        MODELS.build(dict(type="OnTorch", **config)),
        nb.BaseModel(**config),
        MODELS.build(dict(type="SimCLR", neck=None, **config)),
    ):
        assert isinstance(model.head.loss, nn.CrossEntropyLoss) and model.head.scale == 2
    with pytest.raises(TypeError, match="overrides|expected a dict"):
        MODELS.build(model, scale=3)


def test_words_that_algorithms_inherit(tmp_path):
    config = dict(type="SimCLR", backbone=dict(type="ResNet", depth=18), target_generator=None)
    first = MODELS.build(dict(config, pretrained=None))
    torch.save(first.backbone.state_dict(), tmp_path / "b.pth")
    other = MODELS.build(dict(config, pretrained=str(tmp_path / "b.pth")))
    assert torch.equal(other.backbone.conv1.weight, first.backbone.conv1.weight)
    with pytest.raises(ValueError, match="data_preprocessor is a module; normalise in the views"):
        MODELS.build(dict(config, data_preprocessor=nb.SelfSupDataPreprocessor()))


def test_a_neck_of_cae_alone_and_spellings():
    neck = MODELS.build(CONFIGS["CAE"]["neck"] | dict(mask_tokens_num=75, num_classes=10))
    assert isinstance(neck, nb.CAENeck)
    assert MODELS.get("mmselfsup.MoCov3") is nb.MoCoV3 and "DALL-E" in MODELS
    assert "MoCov4" not in MODELS

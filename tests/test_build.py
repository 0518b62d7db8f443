"""Models from configurations: rows M1 to M11, P…, and the rules of `build`."""

import copy
import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import nenya_nb.models as nb
from nenya_nb.models import MODELS, BaseModel, build
from nenya_nb.models import config as lesson

torch.set_num_threads(1)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(lesson, "_REGISTERED", {})


def on_meta(config):
    with torch.device("meta"):
        return MODELS.build(config)


# ---- MMSelfSup's rows -------------------------------------------------------------------------
def test_row_m1_base_model_builds_its_backbone():
    model = BaseModel(backbone=dict(type="ResNet", depth=18))
    assert isinstance(model.backbone, nb.ResNet) and not model.backbone.has_fc()
    assert not hasattr(model, "neck") and not hasattr(model, "head")
    assert not model.with_neck and not model.with_head and not model.with_target_generator


def test_row_m1_all_slots_including_the_target_generator():
    model = BaseModel(
        backbone=dict(type="get_backbone", name="resnet_tiny"),
        neck=dict(type="LinearNeck", input_dim=128, output_dim=8),
        head=dict(type="ContrastiveHead", temperature=0.2),
        target_generator=dict(type="Identity"),
    )
    assert isinstance(model.neck, nb.LinearNeck) and model.head.temperature == 0.2
    assert isinstance(model.target_generator, nn.Identity)
    assert model.with_neck and model.with_head and model.with_target_generator
    assert model(torch.randn(2, 3, 32, 32), mode="predict").shape == (2, 8)


@pytest.mark.parametrize("whole", [False, True])
def test_row_m2_pretrained_is_init_cfg(tmp_path, whole):
    donor = BaseModel(backbone=dict(type="ResNet", depth=18))
    path = tmp_path / "weights.pth"
    torch.save({"state_dict": (donor if whole else donor.backbone).state_dict()}, path)
    model = BaseModel(backbone=dict(type="ResNet", depth=18), pretrained=str(path))
    assert model.init_cfg == dict(type="Pretrained", checkpoint=str(path))
    for ours, theirs in zip(model.parameters(), donor.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    other = BaseModel(
        backbone=dict(type="ResNet", depth=18),
        init_cfg=dict(type="Pretrained", checkpoint=str(path)),
    )
    assert torch.equal(other.backbone.conv1.weight, donor.backbone.conv1.weight)


def test_row_m2_poisoned_checkpoint_does_not_run(tmp_path):
    ran = []

    class Poison:
        def __reduce__(self):
            return ran.append, (1,)

    torch.save({"state_dict": Poison()}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="not read"):
        BaseModel(nb.resnet_tiny(), pretrained=str(tmp_path / "evil.pth"))
    assert not ran


def test_init_cfg_that_nobody_knows_is_refused():
    with pytest.raises(ValueError, match="Unknown init_cfg 'Xavir'. Did you mean 'Xavier'"):
        BaseModel(nb.resnet_tiny(), init_cfg=dict(type="Xavir"))
    drawn = BaseModel(nb.resnet_tiny(), init_cfg=dict(type="Constant", val=3, layer="Conv2d"))
    assert (drawn.backbone.conv1.weight == 3).all()


def test_base_model_of_dictionaries_knows_its_configuration():
    given = dict(backbone=dict(type="ResNet", depth=18), neck=dict(type="AvgPool2dNeck"))
    model = BaseModel(**given)
    again = build(nb.to_config(model))
    assert type(again) is BaseModel and again.backbone.out_indices == (4,)
    assert again.state_dict().keys() == model.state_dict().keys()


def test_row_m3_data_preprocessor_dict_none_or_module():
    settings = dict(mean=[1.0, 2.0, 3.0], std=[1.0, 1.0, 1.0])
    before = copy.deepcopy(settings)
    model = BaseModel(nb.resnet_tiny(), data_preprocessor=settings)
    assert settings == before
    x = torch.zeros(2, 3, 4, 4)
    assert model.data_preprocessor(x)[0, :, 0, 0].tolist() == [-1, -2, -3]
    assert isinstance(BaseModel(nb.resnet_tiny()).data_preprocessor, nb.SelfSupDataPreprocessor)
    scoped = settings | dict(type="mmselfsup.SelfSupDataPreprocessor", bgr_to_rgb=True)
    assert BaseModel(nb.resnet_tiny(), data_preprocessor=scoped).data_preprocessor.bgr_to_rgb
    mine = nn.Identity()
    assert BaseModel(nb.resnet_tiny(), data_preprocessor=mine).data_preprocessor is mine


def test_row_m4_three_modes_and_the_exact_error():
    class Model(BaseModel):
        def loss(self, batch_inputs, data_samples=None):
            return {"loss": batch_inputs.sum()}

    model, x = Model(nb.resnet_tiny()).eval(), torch.randn(2, 3, 32, 32)
    assert model(x).shape == (2, 128)
    assert model(x, mode="loss")["loss"] == x.sum()
    assert torch.equal(model(x, None, "predict"), model(x))
    with pytest.raises(RuntimeError) as caught:
        model(x, mode="x")
    assert str(caught.value) == 'Invalid mode "x".'
    with pytest.raises(NotImplementedError):
        BaseModel(nb.resnet_tiny())(x, mode="loss")


@pytest.mark.parametrize("takes", [False, True])
def test_row_m5_extract_feat_with_or_without_data_samples(takes):
    if takes:

        class Model(BaseModel):
            def extract_feat(self, batch_inputs, data_samples):
                return batch_inputs, data_samples
    else:

        class Model(BaseModel):
            def extract_feat(self, batch_inputs):
                return batch_inputs, "none"

    x = torch.zeros(1)
    assert Model(nb.resnet_tiny())(x, "samples") == (x, "samples" if takes else "none")


M6 = {
    "ResNet": dict(depth=50),
    "MAEViT": dict(arch="b", patch_size=16, mask_ratio=0.75),
    "CAEViT": dict(arch="b", patch_size=16, init_values=0.1, qkv_bias=False),
    "MoCoV3ViT": dict(arch="mocov3-small", patch_size=16, stop_grad_conv1=True),
    "SimMIMSwinTransformer": dict(
        arch="B", img_size=192, stage_cfgs=dict(block_cfgs=dict(window_size=6))
    ),
}


@pytest.mark.parametrize("kind", M6)
@pytest.mark.parametrize("scope", ["", "mmselfsup.", "mmcls."])
def test_row_m6_types_of_the_table(kind, scope):
    assert type(on_meta(dict(type=scope + kind, **M6[kind]))) is getattr(nb, kind)


def test_row_m6_unknown_type_is_a_key_error_with_near_names():
    with pytest.raises(KeyError) as caught:
        MODELS.build(dict(type="MAEVit"))
    assert str(caught.value).startswith("Unknown type 'MAEVit'. Did you mean 'MAEViT'?")
    with pytest.raises(ValueError, match="dotted path"):
        build(dict(type="nowhere.Net"))


def test_row_m7_resnet_with_out_indices():
    x = torch.empty(1, 3, 224, 224, device="meta")
    maps = on_meta(dict(type="ResNet", depth=50, out_indices=(0, 1, 2, 3, 4)))(x)
    sizes = [(64, 112, 112), (256, 56, 56), (512, 28, 28), (1024, 14, 14), (2048, 7, 7)]
    assert [tuple(m.shape[1:]) for m in maps] == sizes and type(maps) is tuple
    (last,) = on_meta(dict(type="ResNet", depth=50))(x)
    assert last.shape == (1, 2048, 7, 7)


@pytest.mark.parametrize("norm, kind", [("BN", nn.BatchNorm2d), ("SyncBN", nn.SyncBatchNorm)])
def test_row_m7_norm_cfg(norm, kind):
    config = dict(type="ResNet", depth=18, in_channels=3, norm_cfg=dict(type=norm))
    assert type(on_meta(config).bn1) is kind
    with pytest.raises(ValueError, match="norm_cfg 'GN'"):
        MODELS.build(config | dict(norm_cfg=dict(type="GN")))


def test_build_reads_resnet_as_the_constructor_does():
    with torch.device("meta"):
        assert build(dict(type="ResNet", depth=18)).has_fc()


def test_row_m8_mae_vit():
    tokens, mask, restore = on_meta(dict(type="MAEViT", **M6["MAEViT"]))(
        torch.empty(2, 3, 224, 224, device="meta")
    )
    assert (tokens.shape, mask.shape, restore.shape) == ((2, 50, 768), (2, 196), (2, 196))


def test_row_m9_cae_vit():
    mask = torch.zeros(2, 196, dtype=torch.bool)
    mask[:, :75] = True
    model = MODELS.build(dict(type="CAEViT", **M6["CAEViT"]) | dict(arch=small()))
    assert model(torch.randn(2, 3, 224, 224), mask).shape == (2, 122, 24)
    MODELS.build(dict(type="CAEViT", arch=small(), init_values=None))


def small():
    return dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=48)


def test_row_m10_moco_v3_vit():
    model = on_meta(dict(type="MoCoV3ViT", **M6["MoCoV3ViT"]))
    ((last, cls),) = model(torch.empty(2, 3, 224, 224, device="meta"))
    assert last.shape == (2, 384, 14, 14) and cls.shape == (2, 384)
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    frozen = on_meta(dict(type="MoCoV3ViT", frozen_stages=12, **M6["MoCoV3ViT"]))
    assert not any(p.requires_grad for p in frozen.parameters())


def test_row_m11_simmim_swin():
    model = on_meta(dict(type="SimMIMSwinTransformer", **M6["SimMIMSwinTransformer"]))
    x = torch.empty(2, 3, 192, 192, device="meta")
    (last,) = model(x, torch.empty(2, 48, 48, device="meta"))
    assert last.shape == (2, 1024, 6, 6)


# ---- build ------------------------------------------------------------------------------------
SIMCLR = {
    "type": "SimCLR",
    "backbone": {"type": "get_backbone", "name": "resnet_tiny", "in_channels": 1},
    "neck": {"type": "NonLinearNeck", "input_dim": 128, "hidden_dim": 64, "output_dim": 32},
    "head": {"type": "ContrastiveHead", "temperature": 0.2},
}


def test_nested_configuration_equals_the_constructors():
    torch.manual_seed(0)
    built = build(SIMCLR)
    torch.manual_seed(0)
    backbone = nb.get_backbone("resnet_tiny", in_channels=1)
    direct = nb.SimCLR(backbone, nb.NonLinearNeck(128, 64, 32), nb.ContrastiveHead(0.2))
    assert built.state_dict().keys() == direct.state_dict().keys()
    for ours, theirs in zip(built.parameters(), direct.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_caller_keeps_its_dictionary():
    before = copy.deepcopy(SIMCLR)
    build(SIMCLR)
    MODELS.build(SIMCLR)
    assert SIMCLR == before


def test_overrides_replace_settings():
    assert build(SIMCLR["neck"], output_dim=7).output_dim == 7


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_files(tmp_path, suffix):
    path = tmp_path / f"simclr{suffix}"
    path.write_text(json.dumps(SIMCLR))  # JSON is YAML
    assert lesson.read_config(path) == SIMCLR
    assert isinstance(build(path), nb.SimCLR)


def test_yaml_cannot_run_python(tmp_path):
    path = tmp_path / "evil.yaml"
    path.write_text("type: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(Exception, match="could not determine a constructor"):
        build(path)


def test_dataclass_namespace_and_missing_file(tmp_path):
    neck = dataclasses.make_dataclass("Neck", [(k, object, v) for k, v in SIMCLR["neck"].items()])
    assert build(neck()).output_dim == 32
    assert build(SimpleNamespace(**SIMCLR["neck"])).output_dim == 32
    with pytest.raises(FileNotFoundError, match="no configuration"):
        build(tmp_path / "nothing.yaml")
    with pytest.raises(TypeError, match="expected a dict"):
        build(3)


@pytest.mark.parametrize(
    "config, near",
    [
        (dict(type="ContrastiveHead", temprature=0.1), "temperature"),
        (dict(type="ResNet", dept=50), "depth"),
        (dict(type="MAEViT", embed_dims=12), "embed_dim"),
        (dict(type="resnet18", num_clases=10), "num_classes"),
        (dict(type="get_resnet", name="resnet18", in_chanels=1), "in_channels"),
        (SIMCLR | dict(neck=SIMCLR["neck"] | dict(hiden_dim=3)), "hidden_dim"),
    ],
)
def test_unknown_keys_are_errors_with_a_suggestion(config, near):
    with pytest.raises(TypeError, match=f"Did you mean '{near}'"):
        build(config)


def test_without_type():
    with pytest.raises(ValueError, match="needs a type"):
        build(dict(depth=50))


def test_type_may_be_a_class_a_layer_of_torch_or_a_dotted_path():
    assert build(dict(type=nn.Linear, in_features=1, out_features=2)).out_features == 2
    assert isinstance(build(dict(type="mmcls.CrossEntropyLoss")), nn.CrossEntropyLoss)
    with torch.device("meta"):
        assert build(dict(type="torchvision.models.resnet18", num_classes=2)).fc.out_features == 2


def test_modules_pass_through_and_lists_are_resolved():
    layer = nn.Linear(2, 2)
    config = dict(type="Algorithm", backbone=layer, neck=nn.Identity())
    assert build(config).backbone is layer
    parts = [dict(type="ReLU"), dict(type="Identity")]
    chain = build(dict(type="torch.nn.ModuleList", modules=parts))
    assert [type(part) for part in chain] == [nn.ReLU, nn.Identity]


def test_register_module_as_in_mmengine(registered):
    @MODELS.register_module()
    class Mine(nn.Module):
        def __init__(self, width=1):
            super().__init__()
            self.width = width

    assert MODELS.build(dict(type="Mine", width=3)).width == 3
    assert "Mine" in MODELS and MODELS.get("Mine") is Mine and "Mine" in repr(MODELS)
    with pytest.raises(KeyError, match="registered already"):
        MODELS.register_module(module=Mine)
    MODELS.register_module(name="Other", module=Mine)
    assert build(dict(type="Other")).width == 1
    assert "Nothing" not in MODELS


@pytest.mark.parametrize(
    "kind", ["os.system", "builtins.eval", "push_to_hub", "read_config", "torch.load", "build"]
)
def test_untrusted_configurations_name_networks_only(kind):
    with pytest.raises(KeyError, match="Unknown type"):
        build(dict(type=kind), trusted=False)
    nested = dict(type="SimCLR", backbone=dict(type=kind))
    with pytest.raises(KeyError, match="Unknown type"):
        build(nested, trusted=False)


BASE = dict(type="BaseModel", backbone=dict(type="resnet_tiny"))


@pytest.mark.parametrize(
    "config",
    [
        BASE | dict(data_preprocessor=dict(type="os.mkdir", path="{folder}/made")),
        BASE | dict(neck=dict(layers=[dict(type="os.mkdir", path="{folder}/made")])),
        BASE | dict(init_cfg=dict(type="Pretrained", checkpoint="{folder}/yours.pth")),
        BASE | dict(pretrained="{folder}/yours.pth"),
        BASE | dict(data_preprocessor=dict(init_cfg=dict(checkpoint="{folder}/yours.pth"))),
        BASE | dict(neck={"model": "{folder}/yours.yaml"}),
        {"model": "{folder}/yours.yaml"},
        dict(type="DINO", backbone={"model": "{folder}/yours.yaml"}),
        dict(type="DINO", backbone=dict(backbone="resnet18", backbone_pretrained=True)),
        dict(model=dict(backbone="resnet18", projection_output_dim=4, backbone_pretrained=True)),
        dict(type="resnet18", pretrained="{folder}/yours.pth"),
        dict(type="get_backbone", name="timm:resnet10t", checkpoint_path="{folder}/yours.pth"),
        dict(type="DALLEEncoder", path="{folder}/yours.pth"),
        BASE | dict(target_generator=dict(type="CLIPGenerator", path="{folder}/yours.pth")),
    ],
    ids=str,
)
def test_untrusted_configurations_run_nothing_and_read_no_file(
    config, tmp_path, monkeypatch, no_weights
):
    (tmp_path / "yours.yaml").write_text(json.dumps(DINO_YAML))
    torch.save(nb.resnet_tiny().state_dict(), tmp_path / "yours.pth")
    config = json.loads(json.dumps(config).replace("{folder}", str(tmp_path)))
    read = []
    monkeypatch.setattr(torch, "load", lambda *_, **__: read.append("weights"))
    monkeypatch.setattr(lesson.Path, "read_text", lambda *_, **__: read.append("text"))
    with pytest.raises((KeyError, ValueError), match="Unknown type|stranger's"):
        build(config, trusted=False)
    assert not read and not (tmp_path / "made").exists()


def test_trust_comes_back_after_a_strangers_configuration(tmp_path):
    for config in (SIMCLR, dict(type="os.getcwd")):
        try:
            build(config, trusted=False)
        except KeyError:
            pass
        assert build(dict(type="os.getcwd"))


def test_untrusted_configurations_may_name_ours():
    assert isinstance(build(SIMCLR, trusted=False), nb.SimCLR)


def test_keys_are_checked_before_the_parts_are_built(registered):
    built = []
    MODELS.register_module("Slow", lambda: built.append(1) or nn.Identity())
    for mistake in (dict(nek=None), dict(init_cgf={})):
        with pytest.raises(TypeError, match="Unknown setting of SimCLR"):
            build(dict(type="SimCLR", backbone=dict(type="Slow")) | mistake)
    with pytest.raises(TypeError, match="DeepCluster needs length"):
        build(dict(type="DeepCluster", backbone=dict(type="Slow")))
    assert not built


@pytest.mark.parametrize("kind", ["SupConResNet", "SupCEResNet"])
def test_encoders_begin_as_init_cfg_says(kind):
    drawn = dict(type="Constant", val=3, layer="Conv2d")
    model = build(dict(type=kind, name="resnet_tiny", feat_dim=8, init_cfg=drawn))
    assert (model.encoder.conv1.weight == 3).all() and model.head[2].out_features == 8


def test_what_is_missing_is_named():
    with pytest.raises(
        TypeError, match="DeepCluster needs length; the configuration gives backbone"
    ):
        build(dict(type="DeepCluster", backbone=dict(type="resnet_tiny")))
    with pytest.raises(TypeError, match="NonLinearNeck needs input_dim, hidden_dim, output_dim"):
        build(dict(type="NonLinearNeck", num_layers=3))


def test_an_unknown_type_names_the_nearest_few():
    with pytest.raises(KeyError) as caught:
        build(dict(type="MoCov3"))
    assert "Did you mean 'MoCoV3'? Near it: MoCo, " in str(caught.value)
    assert len(str(caught.value)) < 200
    with pytest.raises(KeyError, match="see nenya_nb.models.__all__"):
        build(dict(type="qqqqqqqq"))


# ---- DINO's own words -------------------------------------------------------------------------
DINO_YAML = dict(
    backbone="resnet_tiny",
    backbone_pretrained=False,
    backbone_args=dict(in_channels=1),
    projection_hidden_dim=24,
    projection_bottleneck_dim=12,
    projection_output_dim=10,
    use_weight_norm=True,
)


def same_shapes(a, b):
    return [(k, v.shape) for k, v in a.state_dict().items()] == [
        (k, v.shape) for k, v in b.state_dict().items()
    ]


@pytest.mark.parametrize("top", [None, "model", "model_config"])
def test_build_understands_dinos_settings(tmp_path, top):
    path = tmp_path / "dino.yaml"
    path.write_text(json.dumps({top: DINO_YAML} if top else DINO_YAML))
    algorithm = build(path)
    assert type(algorithm) is nb.DINO and algorithm.neck.output_dim == 10
    assert algorithm.backbone.in_channels == 1
    assert same_shapes(build(nb.to_config(algorithm)), algorithm)
    with pytest.raises(TypeError, match="Did you mean 'projection_output_dim'"):
        build({"model": DINO_YAML | {"projection_outpt_dim": 3}})


@pytest.mark.parametrize("kind", ["DINO", "DinoModel"])
def test_from_config_and_back(kind):
    made = getattr(nb, kind).from_config({"model": DINO_YAML})
    config = nb.to_config(made)
    assert json.loads(json.dumps(config)) == config and config["type"] == kind
    again = build(config)
    assert type(again) is type(made) and same_shapes(again, made)


def test_options_of_dino_come_back():
    loss = build(dict(type="DINOLoss", output_dim=10, teacher_temperature=0.05))
    made = nb.DINO.from_config(DINO_YAML, base_momentum=0.9, num_local=2, loss_fn=loss)
    again = build(nb.to_config(made))
    assert again.base_momentum == 0.9 and again.views == made.views
    assert again.loss_fn.teacher_temperature == 0.05 and again.loss_fn is not loss


def test_a_configuration_may_be_a_class_with_attributes():
    class Shared:
        projection_output_dim = 33
        _hidden = 1

        def method(self): ...

    class Config(Shared):
        backbone = "resnet_tiny"
        projection_hidden_dim: int = 16

        @property
        def computed(self): ...

    config = Config()
    config.projection_hidden_dim = 8
    found = nb.read_config(config)
    assert found == dict(projection_output_dim=33, backbone="resnet_tiny", projection_hidden_dim=8)
    assert nb.DinoModel.from_config(config).output_dim == 33

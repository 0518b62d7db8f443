"""DINO's network, head and teacher: rows D1 to D16 of the specification."""

import copy
import dataclasses
import inspect
import json
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

import nenya_nb.models as nb
from nenya_nb.models import DinoModel, DinoProjectionHead, get_backbone, update_teacher_EMA

torch.set_num_threads(1)
YAML = {
    "projection_hidden_dim": 1024,
    "projection_bottleneck_dim": 256,
    "projection_output_dim": 4096,
    "use_weight_norm": True,
}
SMALL = {"backbone": "resnet_tiny", "projection_hidden_dim": 16, "projection_output_dim": 32}


def n_params(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(config):
    with torch.device("meta"):
        return DinoModel.from_config(config)


def test_row_d1_backbone_and_projection_head():
    model, x = DinoModel.from_config(SMALL).eval(), torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), model.projection_head(model.backbone(x)))


@dataclasses.dataclass
class ModelConfig:
    backbone: str = "resnet_tiny"
    is_backbone_pretrained: bool = False
    projection_hidden_dim: int = 16
    projection_bottleneck_dim: int = 8
    projection_output_dim: int = 32
    use_weight_norm: bool = True


@dataclasses.dataclass
class Config:
    model_config: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    epochs: int = 100


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        {"model": SMALL, "training": {"epochs": 3}},
        {"model": SMALL | {"backbone_pretrained": False}},
        ModelConfig(),
        Config(),
        Config().model_config,
        SimpleNamespace(model_config=SimpleNamespace(**SMALL)),
    ],
)
def test_row_d5_every_shape_of_configuration(config):
    before = copy.deepcopy(config)
    model = DinoModel.from_config(config)
    assert model.projection_head.output_dim == model.output_dim == 32
    assert model.projection_head.input_dim == model.backbone.output_dim == 128
    assert config == before


@pytest.mark.parametrize("top", [True, False])
def test_row_d5_yaml_files(tmp_path, top):
    path = tmp_path / "config.yaml"
    path.write_text(json.dumps({"model": SMALL} if top else SMALL))
    assert DinoModel.from_config(path).output_dim == 32


def test_row_d5_mistakes():
    with pytest.raises(TypeError, match="Did you mean 'projection_output_dim'"):
        DinoModel.from_config(SMALL | {"projection_out_dim": 3})
    with pytest.raises(ValueError, match="names no backbone"):
        DinoModel.from_config(YAML)
    both = {"backbone_pretrained": True, "is_backbone_pretrained": False}
    with pytest.raises(ValueError, match="disagree"):
        DinoModel.from_config(SMALL | both)


@pytest.mark.parametrize("key", ["backbone_pretrained", "is_backbone_pretrained"])
def test_row_d5_both_spellings_of_pretrained(key, no_weights):
    with pytest.raises(nb.WeightsUnavailable, match="resnet18"):
        DinoModel.from_config({"backbone": "resnet18", key: True})


def test_row_d6_layers_of_the_head():
    head = DinoProjectionHead(512)
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (512, 1024),
        (1024, 1024),
        (1024, 256),
        (256, 4096),
    ]
    assert sum(isinstance(m, nn.GELU) for m in head.modules()) == 2
    assert linear[-1].bias is None and all(m.bias is not None for m in linear[:-1])
    seen = []
    head.last_layer.register_forward_pre_hook(lambda m, args: seen.append(args[0]))
    head(torch.randn(5, 512))
    torch.testing.assert_close(seen[0].norm(dim=1), torch.ones(5))


@pytest.mark.parametrize(
    "backbone, count",
    [
        ("resnet18", 2_889_984),
        ("dino_vits16", 2_758_912),
        ("dino_vitb16", 3_152_128),
        ("resnet50", 4_462_848),
    ],
)
def test_row_d7_sizes_from_the_yaml(backbone, count):
    model = on_meta({"model": YAML | {"backbone": backbone}})
    assert n_params(model.projection_head) == count


def test_row_d8_the_papers_head_is_larger_than_its_backbone():
    config = YAML | {"projection_hidden_dim": 2048, "projection_output_dim": 65536}
    model = on_meta(config | {"backbone": "dino_vits16"})
    assert n_params(model.projection_head) == 22_352_128 > n_params(model.backbone) == 21_665_664


def test_row_d10_signature_and_positive_sizes():
    head = DinoProjectionHead(
        input_dim=512, hidden_dim=1024, bottleneck_dim=256, output_dim=4096, use_weight_norm=True
    )
    assert head(torch.randn(2, 512)).shape == (2, 4096)
    for name in ("input_dim", "hidden_dim", "bottleneck_dim", "output_dim"):
        with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
            DinoProjectionHead(**{"input_dim": 8, name: 0})


def test_row_d11_head_fits_the_backbone():
    model = on_meta({"backbone": "resnet50"})
    assert model.projection_head.input_dim == model.backbone.output_dim == 2048
    with pytest.raises(ValueError, match="gives 128 features but the head expects 512"):
        DinoModel(nb.resnet_tiny(), DinoProjectionHead(512))


def test_row_d12_scale_of_the_bottleneck_does_not_matter():
    head = DinoProjectionHead(16, 16, 8, 32).double()
    x = torch.randn(4, 16, dtype=torch.float64)
    before = head(x)
    with torch.no_grad():
        head.mlp[-1].weight.mul_(10)
        head.mlp[-1].bias.mul_(10)
    torch.testing.assert_close(head(x), before)


def test_row_d12_norm_last_layer_is_facebooks_head():
    head = DinoProjectionHead(16, 16, 8, 32, norm_last_layer=True)
    lengths = head.last_layer.parametrizations.weight.original0
    assert (lengths == 1).all() and not lengths.requires_grad
    torch.testing.assert_close(head.last_layer.weight.norm(dim=1), torch.ones(32))
    free = DinoProjectionHead(16, 16, 8, 32).last_layer.parametrizations.weight.original0
    assert free.requires_grad and (free == 1).all()  # it starts so too, and may grow
    with pytest.raises(ValueError, match="needs use_weight_norm"):
        DinoProjectionHead(16, 16, 8, 32, use_weight_norm=False, norm_last_layer=True)
    parameter = inspect.signature(DinoProjectionHead).parameters["norm_last_layer"]
    assert parameter.kind is parameter.KEYWORD_ONLY and parameter.default is False


def test_weight_norm_against_plain_arithmetic():
    head = DinoProjectionHead(16, 16, 8, 32)
    g, v = (getattr(head.last_layer.parametrizations.weight, f"original{i}") for i in (0, 1))
    x = torch.randn(3, 16)
    bottleneck = F.normalize(head.mlp(x), dim=1)
    torch.testing.assert_close(head(x), bottleneck @ (g * v / v.norm(dim=1, keepdim=True)).T)
    plain = DinoProjectionHead(16, 16, 8, 32, use_weight_norm=False)
    assert not parametrizations.parametrize.is_parametrized(plain.last_layer)
    assert n_params(head) == n_params(plain) + 32


def test_old_weight_norm_keys_load():
    head = DinoProjectionHead(16, 16, 8, 32)
    state = head.state_dict()
    old = {k: v for k, v in state.items() if "parametrizations" not in k}
    old["last_layer.weight_g"] = state["last_layer.parametrizations.weight.original0"]
    old["last_layer.weight_v"] = state["last_layer.parametrizations.weight.original1"]
    other = DinoProjectionHead(16, 16, 8, 32)
    other.load_state_dict(old)
    x = torch.randn(2, 16)
    assert torch.equal(head(x), other(x))


def test_row_d13_manual_creation():
    model = DinoModel(get_backbone("resnet18"), DinoProjectionHead(input_dim=512, output_dim=2048))
    assert n_params(model.projection_head) == 2_363_648
    assert n_params(model) == 13_540_160 and model.output_dim == 2048


def test_row_d14_forward_and_backbone_features():
    model, x = DinoModel.from_config(SMALL).eval(), torch.randn(2, 3, 32, 32)
    features, projections = model(x, return_backbone_features=True)
    assert features.shape == (2, 128) and projections.shape == (2, 32)
    assert torch.equal(projections, model(x)) and torch.equal(features, model.backbone(x))


def test_row_d15_teacher_starts_as_the_student():
    student, teacher = DinoModel.from_config(SMALL), DinoModel.from_config(SMALL)
    teacher.load_state_dict(student.state_dict())
    for param in teacher.parameters():
        param.requires_grad = False
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(student.eval()(x), teacher.eval()(x))
    assert torch.equal(copy.deepcopy(student)(x), student(x))


def test_every_parameter_gets_a_gradient():
    model = DinoModel.from_config(SMALL)
    model(torch.randn(4, 3, 32, 32)).logsumexp(1).mean().backward()
    assert all(p.grad is not None for p in model.parameters())


# ---- the teacher's average --------------------------------------------------------------------
def networks():
    student, teacher = DinoModel.from_config(SMALL), DinoModel.from_config(SMALL)
    teacher.requires_grad_(False)
    return student, teacher


def test_row_d16_import_path_and_signature():
    from nenya_nb.utils import update_teacher_EMA as update

    assert update is update_teacher_EMA is nb.update_teacher_EMA
    parameters = list(inspect.signature(update).parameters.values())
    assert [p.name for p in parameters[:3]] == ["student", "teacher", "momentum"]
    assert parameters[2].default == 0.996


def test_row_d16_every_parameter_against_the_formula():
    student, teacher = networks()
    expected = {
        name: 0.996 * t + 0.004 * student.get_parameter(name).detach()
        for name, t in teacher.named_parameters()
    }
    addresses = [p.data_ptr() for p in teacher.parameters()]
    update_teacher_EMA(student, teacher, momentum=0.996)
    for name, parameter in teacher.named_parameters():
        torch.testing.assert_close(parameter, expected[name])
    assert addresses == [p.data_ptr() for p in teacher.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_row_d16_ends_of_the_range(momentum):
    student, teacher = networks()
    wanted = copy.deepcopy(student if momentum == 0 else teacher)
    update_teacher_EMA(student, teacher, momentum)
    for ours, theirs in zip(teacher.parameters(), wanted.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs.detach())
    with pytest.raises(ValueError, match="between 0 and 1"):
        update_teacher_EMA(student, teacher, 1.1)


def test_row_d16_buffers_stay_or_are_copied():
    student, teacher = networks()
    student(torch.randn(4, 3, 32, 32))
    own = {name: b.clone() for name, b in teacher.named_buffers()}
    update_teacher_EMA(student, teacher)
    assert all(torch.equal(b, own[name]) for name, b in teacher.named_buffers())
    update_teacher_EMA(student, teacher, buffers="copy")
    for name, buffer in teacher.named_buffers():
        assert torch.equal(buffer, student.get_buffer(name)) and buffer.dtype == own[name].dtype
    with pytest.raises(ValueError, match="'keep' or 'copy'"):
        update_teacher_EMA(student, teacher, buffers="mean")


def test_row_d16_matched_by_name_not_by_order():
    student = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    teacher = nn.ModuleDict({"b": nn.Linear(2, 2), "a": nn.Linear(2, 2)})
    update_teacher_EMA(student, teacher, momentum=0.0)
    torch.testing.assert_close(teacher["a"].weight, student["a"].weight)
    torch.testing.assert_close(teacher["b"].weight, student["b"].weight)


def test_row_d16_other_networks_are_refused_and_left_alone():
    teacher = nn.Linear(2, 2)
    before = teacher.weight.clone()
    for student in (nn.Linear(2, 2, bias=False), nn.Sequential(nn.Linear(2, 2)), nn.Linear(3, 2)):
        with pytest.raises(ValueError, match="different networks"):
            update_teacher_EMA(student, teacher)
    assert torch.equal(teacher.weight, before)

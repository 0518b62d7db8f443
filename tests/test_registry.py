"""Backbones by name: rows N9, N10, D2, D3, D4, D17, D18 of the specification."""

import copy
import fnmatch

import pytest
import timm
import torch
from torch import nn
from torchvision.models import get_model_weights

import nenya_nb.models as nb
from nenya_nb.models.backbones import registry
from nenya_nb.models.backbones.weights import WeightsUnavailable

torch.set_num_threads(1)


@pytest.fixture
def register(monkeypatch):
    "`register_backbone` that is undone after the test."
    monkeypatch.setattr(registry, "_REGISTERED", {})
    return nb.register_backbone


def n_params(module):
    return sum(p.numel() for p in module.parameters())


def on_meta(name, **settings):
    with torch.device("meta"):
        return nb.get_backbone(name, **settings)


D2 = {  # output_dim, parameters without head
    "resnet18": (512, 11_176_512),
    "resnet34": (512, 21_284_672),
    "resnet50": (2048, 23_508_032),
    "resnet101": (2048, 42_500_160),
    "resnet152": (2048, 58_143_808),
    "dino_vits8": (384, 21_670_272),
    "dino_vits16": (384, 21_665_664),
    "dino_vitb8": (768, 85_807_872),
    "dino_vitb16": (768, 85_798_656),
}


@pytest.mark.parametrize("name", D2)
def test_row_d2_dims_and_parameters(name):
    backbone = on_meta(name)
    assert (backbone.output_dim, n_params(backbone)) == D2[name]
    assert type(backbone.output_dim) is int


@pytest.mark.parametrize("name", nb.list_models())
def test_every_listed_backbone_gives_pooled_features(name):
    backbone = on_meta(name).eval()
    x = torch.empty(2, 3, 224, 224, device="meta")
    assert backbone(x).shape == (2, backbone.output_dim)
    assert backbone.get_output_shape([2, 3, 224, 224]) == [2, backbone.output_dim]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "dino_vits16", "swin_tiny"])
def test_row_d3_d4_features_of_real_images(name):
    backbone = nb.get_backbone(name, in_channels=1).eval()
    with torch.no_grad():
        assert backbone(torch.randn(2, 1, 64, 64)).shape == (2, backbone.output_dim)
    assert copy.deepcopy(backbone).output_dim == backbone.output_dim


@pytest.mark.parametrize("alias", ["in_chans", "nchannels"])
def test_c12_other_words_for_channels(alias):
    assert nb.get_backbone("resnet_tiny", **{alias: 2}).in_channels == 2


@pytest.mark.parametrize("spelling, name", [("resnet_18", "resnet18"), ("resnet_50", "resnet50")])
def test_c13_other_spellings(spelling, name):
    assert n_params(on_meta(spelling)) == n_params(on_meta(name))
    assert spelling not in nb.list_models() and name in nb.list_models()


def test_row_n9_get_resnet_is_the_same_entry():
    with torch.device("meta"):
        for name in ("resnet18", "resnet_50", "wide_resnet_50", "resnet_tiny"):
            ours, theirs = nb.get_resnet(name), nb.get_backbone(name)
            assert type(ours) is type(theirs) and n_params(ours) == n_params(theirs)


@pytest.mark.parametrize("name", ["resnet7", "dino_vits16", "resnet26d"])
def test_row_n10_get_resnet_knows_resnets_only(name):
    with pytest.raises(ValueError, match=f"Unknown ResNet '{name}'.*resnet18.*resnet50"):
        nb.get_resnet(name)


def test_unknown_name_suggests_and_points_to_timm():
    with pytest.raises(ValueError) as caught:
        nb.get_backbone("resnet51")
    assert str(caught.value).startswith("Unknown backbone 'resnet51'. Did you mean 'resnet50'?")
    assert str(caught.value).endswith("Any timm name works as 'timm:NAME'.")


def test_unknown_timm_name_lists_few():
    with pytest.raises(ValueError, match="Unknown timm model 'vit_smal_patch16'") as caught:
        nb.get_backbone("timm:vit_smal_patch16")
    assert "vit_sma" in str(caught.value) and len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["timm:resnet18", "timm:mobilenetv3_small_050", "convnext_atto"])
def test_any_timm_name_is_a_backbone(name):
    backbone = nb.get_backbone(name, in_channels=2).eval()
    assert isinstance(backbone, nb.TimmBackbone)
    x = torch.randn(2, 2, 64, 64)
    with torch.no_grad():
        features = backbone(x)
        stages = backbone.forward_stages(x)
    assert features.shape == (2, backbone.output_dim)
    assert backbone.get_output_shape(x.shape) == [2, backbone.output_dim]
    assert all(m.dim() == 4 and len(m) == 2 for m in stages) and len(stages) > 2


def test_timm_backbone_is_timms_network():
    torch.manual_seed(0)
    ours = nb.get_backbone("timm:resnet18").eval()
    theirs = timm.create_model("resnet18", num_classes=0).eval()
    theirs.load_state_dict(ours.model.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(x), theirs(x))


def test_row_d17_custom_backbone_as_in_the_seed():
    from nenya_nb.models.backbone import BackboneBase

    class EfficientNetBackbone(BackboneBase):
        def __init__(self, variant="efficientnet_b0", pretrained=False):
            super().__init__()
            self.model = timm.create_model(variant, pretrained=pretrained, num_classes=0)
            self.output_dim = self.model.num_features

        def forward(self, x):
            return self.model(x)

    backbone = EfficientNetBackbone().eval()
    assert backbone.output_dim == 1280
    with torch.no_grad():
        assert backbone(torch.randn(1, 3, 32, 32)).shape == (1, 1280)


def test_row_d18_register_a_family_without_editing_the_library(register):
    calls = []

    @register("efficientnet*")
    class EfficientNetBackbone(nb.BackboneBase):
        def __init__(self, variant="efficientnet_b0", pretrained=False):
            super().__init__()
            calls.append((variant, pretrained))
            with torch.device("meta"):
                self.model = timm.create_model(variant, num_classes=0)
            self.output_dim = self.model.num_features

    backbone = nb.get_backbone("efficientnet_b2", pretrained=True)
    assert type(backbone) is EfficientNetBackbone and backbone.output_dim == 1408
    assert calls == [("efficientnet_b2", True)]
    assert isinstance(nb.get_backbone("resnet_tiny"), nb.ResNet)


def test_newest_registration_wins_and_names_are_listed(register):
    register("mine")(lambda name, pretrained=False: nb.resnet_tiny())
    register("mi*")(lambda name, pretrained=False: nb.resnet_tiny(in_channels=7))
    assert nb.get_backbone("mine").in_channels == 7
    assert "mine" in nb.list_models() and "mi*" not in nb.list_models()
    assert "mine" in nb.list_models(pretrained=False) and nb.list_models("mine", True) == []


def test_registered_without_output_dim_says_so(register):
    register("flat")(lambda name, pretrained=False: nn.Flatten())
    with pytest.raises(TypeError, match="'flat' .Flatten. .* set self.output_dim"):
        nb.get_backbone("flat")


def test_list_models_patterns_and_order():
    names = nb.list_models()
    assert names.index("resnet18") < names.index("resnet101") and len(names) == len(set(names))
    assert nb.list_models("dino*") == fnmatch.filter(names, "dino*")
    assert nb.list_models("nothing*") == []


def test_list_models_pretrained_is_the_table_of_section_5():
    with_weights = set(nb.list_models(pretrained=True))
    assert with_weights >= set(D2) | {f"efficientnet_b{i}" for i in range(8)}
    assert with_weights >= {"mae_vitb16", "mae_vitl16", "mae_vith14", "wide_resnet50_2"}
    assert not with_weights & {"resnet200", "resnet269", "resnet1001", "resnet_tiny", "swin_base"}
    assert with_weights | set(nb.list_models(pretrained=False)) == set(nb.list_models())


def test_list_models_of_timm():
    names = nb.list_models("timm:vit_small_patch16*")
    assert "timm:vit_small_patch16_224" in names
    assert "timm:resnet200" in nb.list_models("timm:resnet200", pretrained=False)
    assert nb.list_models("timm:resnet200", pretrained=True) == []


def test_import_of_the_models_does_not_import_timm():
    import subprocess
    import sys

    code = "import sys, nenya_nb.models; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_row_l2_import_paths():
    import nenya_nb.models as models
    import nenya_nb.nn

    assert nenya_nb.nn.ResNet is models.ResNet and nenya_nb.nn.Bottleneck is models.Bottleneck
    assert nenya_nb.nn.Module is torch.nn.Module  # for a block of one's own
    from nenya_nb.models.backbone import get_backbone, register_backbone

    assert get_backbone is models.get_backbone and register_backbone is models.register_backbone


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "deit_tiny_distilled_patch16_224"])
def test_timm_backbone_takes_an_ordinary_file(name, tmp_path):
    donor = timm.create_model(name)
    torch.save(donor.state_dict(), tmp_path / "mine.pth")
    mine = nb.get_backbone(f"timm:{name}", checkpoint_path=tmp_path / "mine.pth").model.state_dict()
    assert all(torch.equal(value, donor.state_dict()[key]) for key, value in mine.items())
    grey = nb.get_backbone(f"timm:{name}", checkpoint_path=tmp_path / "mine.pth", in_channels=1)
    assert grey.in_channels == 1
    with pytest.raises(ValueError, match=f"timm:{name}: .*of another network|in the weights"):
        torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
        nb.get_backbone(f"timm:{name}", checkpoint_path=tmp_path / "other.pth")


def test_configurations_name_published_weights_and_no_files(tmp_path, register):
    register("tiny")(lambda name, pretrained=False, **more: nb.resnet_tiny())
    enum = get_model_weights("resnet18").IMAGENET1K_V1
    for given, kept in ((True, True), ("V1", "V1"), (enum, "IMAGENET1K_V1")):
        config = nb.to_config(nb.get_backbone("tiny", given, width=2))
        assert config == {"type": "get_backbone", "name": "tiny", "width": 2, "pretrained": kept}
    assert "pretrained" not in nb.to_config(nb.get_backbone("tiny"))
    path = tmp_path / "mine.pth"
    torch.save(nb.get_backbone("resnet18").state_dict(), path)
    for more in (
        {"checkpoint_path": path},
        {"checkpoint_path": str(path)},
        {"pretrained": str(path)},
    ):
        model = nb.get_backbone("resnet18", in_channels=1, **more)
        assert nb.to_config(model) == {"type": "get_backbone", "name": "resnet18", "in_channels": 1}
        nb.save_pretrained(model, tmp_path / "saved")
    again = nb.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.conv1.weight, model.conv1.weight)


def test_loading_a_saved_model_fetches_no_published_weights(tmp_path, no_weights):
    model = nb.get_backbone("resnet18")
    model.build_config["pretrained"] = True  # as if they had been there
    nb.save_pretrained(model, tmp_path / "saved")
    again = nb.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.conv1.weight, model.conv1.weight)
    with pytest.raises(WeightsUnavailable):
        nb.build(nb.to_config(model))


def test_timm_backbone_takes_a_file_as_pretrained(tmp_path):
    donor = nb.get_backbone("timm:resnet10t")
    torch.save(donor.model.state_dict(), tmp_path / "mine.pth")
    mine = nb.get_backbone("timm:resnet10t", pretrained=str(tmp_path / "mine.pth"))
    weights = mine.model.state_dict()
    assert all(torch.equal(weights[key], value) for key, value in donor.model.state_dict().items())

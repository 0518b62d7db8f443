"""Pretrained weights: section 5 of the specification. No network; torchvision and timm are the oracle for the facts."""

import hashlib
import io
import os
import time
from dataclasses import replace

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from timm.models._manipulate import adapt_input_conv
from torch import nn
from torchvision.models import get_model_weights

import nenya_nb.models as nb
from nenya_nb.models.backbones import pretrained as lesson
from nenya_nb.models.backbones.pretrained import (
    adapt_channels,
    fit_weights,
    load_pretrained,
    read_weights,
    weights_file,
)
from nenya_nb.models.backbones.weights import WeightsUnavailable, published_weights, weights_of

torch.set_num_threads(1)
TORCHVISION = ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"]
TORCHVISION += ["resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2"]
TORCHVISION += [f"efficientnet_b{i}" for i in range(8)]
TIMM = {
    "dino_vits8": "vit_small_patch8_224.dino",
    "dino_vits16": "vit_small_patch16_224.dino",
    "dino_vitb8": "vit_base_patch8_224.dino",
    "dino_vitb16": "vit_base_patch16_224.dino",
    "mae_vitb16": "vit_base_patch16_224.mae",
    "mae_vitl16": "vit_large_patch16_224.mae",
    "mae_vith14": "vit_huge_patch14_224.mae",
}


class Poison:
    "Creates a file when it is unpickled."

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def sha(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def published(no_weights, monkeypatch):
    "A function that publishes a state dict as the weights of a name: patched entry, file in the cache."

    def publish(name, state, cached=True, **facts):
        entry = published_weights(name)
        no_weights.mkdir(parents=True, exist_ok=True)
        file = no_weights / entry.file
        save_file(state, file) if file.suffix == ".safetensors" else torch.save(state, file)
        entry = replace(entry, **({"sha256": sha(file)[:8], "size_mib": 1.0} | facts))
        if not cached:
            file.unlink()
        monkeypatch.setattr(lesson, "published_weights", lambda n, tag=True: entry)
        return entry

    return publish


# ---- the facts --------------------------------------------------------------------------------
@pytest.mark.parametrize("name", TORCHVISION)
def test_facts_are_torchvisions(name):
    known = get_model_weights(name)
    assert published_weights(name).tag == known.DEFAULT.name
    for theirs in known:
        for tag in (theirs.name, theirs.name.removeprefix("IMAGENET1K_"), theirs):
            ours = published_weights(name, tag)
            how = theirs.transforms()
            assert (ours.tag, ours.url) == (theirs.name, theirs.url)
            assert ours.file == theirs.url.split("/")[-1] and ours.sha256 in ours.file
            assert len(ours.sha256) == 8 and ours.size_mib == theirs.meta["_file_size"]
            assert ours.accuracy == theirs.meta["_metrics"]["ImageNet-1K"]["acc@1"]
            assert [ours.resize, ours.crop] == [how.resize_size[0], how.crop_size[0]]


def test_table_of_section_5():
    assert published_weights("resnet50", "V1").accuracy == 76.130
    assert published_weights("resnet50").accuracy == 80.858
    assert published_weights("efficientnet_b1").interpolation == "bilinear"
    assert published_weights("efficientnet_b0").interpolation == "bicubic"
    assert published_weights("resnet50").resize == 232
    assert (
        published_weights("resnet50").licence == timm.get_pretrained_cfg("resnet50.tv_in1k").license
    )


@pytest.mark.parametrize("name", TIMM)
def test_facts_are_timms(name):
    theirs, ours = timm.get_pretrained_cfg(TIMM[name]), published_weights(name)
    assert ours.hub_id == theirs.hf_hub_id and ours.tag == theirs.tag
    assert ours.url == f"https://huggingface.co/{theirs.hf_hub_id}/resolve/main/model.safetensors"
    assert (ours.licence, ours.mean, ours.std) == (theirs.license, theirs.mean, theirs.std)
    assert (ours.crop, ours.resize, ours.interpolation) == (224, 248, "bicubic")


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "efficientnet_b0", "efficientnet_b2"])
def test_transforms_are_torchvisions(name):
    image = torch.randint(0, 256, (3, 300, 400), dtype=torch.uint8)
    ours = published_weights(name).transforms()(image)
    theirs = get_model_weights(name).DEFAULT.transforms()(image)
    assert torch.equal(ours, theirs)
    photo = torchvision.transforms.functional.to_pil_image(image)
    assert torch.equal(
        published_weights(name).transforms()(photo),
        get_model_weights(name).DEFAULT.transforms()(photo),
    )


def test_unknown_tags_and_names():
    with pytest.raises(ValueError, match="Unknown weights of resnet50 'V3'"):
        nb.resnet50(pretrained="V3")
    with pytest.raises(ValueError, match="resnet_tiny: nobody publishes"):
        nb.get_backbone("resnet_tiny", pretrained=True)
    with pytest.raises(ValueError, match="Unknown weights of dino_vits16 'x'.*dino"):
        nb.get_backbone("dino_vits16", pretrained="x", depth=1)


# ---- loading ----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_cached_file_gives_torchvisions_answers(name, published):
    torch.manual_seed(0)
    theirs = getattr(torchvision.models, name)().eval()
    published(name, theirs.state_dict())
    ours = getattr(nb, name)(pretrained=True).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))
    features = nb.get_backbone(name, pretrained=True).eval()
    with torch.no_grad():
        assert features(x).shape == (1, features.output_dim)
        torch.testing.assert_close(features(x), ours.forward_feat(x))


def test_safetensors_give_timms_answers(published):
    torch.manual_seed(0)
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, depth=2).eval()
    published("dino_vits16", theirs.state_dict())
    ours = nb.dino_vits16(pretrained=True, depth=2).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


def test_facts_travel_with_the_model(published):
    entry = published("resnet18", nb.resnet18().state_dict())
    model = nb.resnet18(pretrained=True)
    assert weights_of(model) == entry and weights_of(model).crop == 224
    assert model.pretrained_cfg["tag"] == "IMAGENET1K_V1"
    assert not any("pretrained" in key for key in model.state_dict())
    with pytest.raises(ValueError, match="not built with published"):
        weights_of(nb.resnet_tiny())


def test_mae_encoder_and_its_licence(published, capsys):
    theirs = timm.create_model("vit_base_patch16_224", num_classes=0, depth=1)
    published("mae_vitb16", theirs.state_dict())
    ours = nb.MAEViT("b", pretrained=True, depth=1)
    assert torch.equal(ours.pos_embed, theirs.pos_embed) and not ours.pos_embed.requires_grad
    said = capsys.readouterr().out
    assert "cc-by-nc-4.0" in said and "not for commercial use" in said
    backbone = nb.get_backbone("mae_vitb16", pretrained=True, depth=1)
    assert torch.equal(backbone.norm.weight, theirs.norm.weight)


def test_no_licence_note_where_nothing_is_restricted(published, capsys):
    published("resnet18", nb.resnet18().state_dict())
    nb.resnet18(pretrained=True)
    assert capsys.readouterr().out == ""


def test_head_of_another_width_is_fresh_and_said_so(published, capsys):
    donor = nb.resnet18()
    published("resnet18", donor.state_dict())
    model = nb.resnet18(num_classes=10, pretrained=True)
    assert model.fc.out_features == 10 and "classifier is untrained" in capsys.readouterr().out
    assert torch.equal(model.layer4[1].bn2.weight, donor.layer4[1].bn2.weight)
    nb.resnet18(num_classes=0, pretrained=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6, 7])
def test_channels_are_adapted_as_timm_does(channels, published):
    weight = torch.randn(4, 3, 5, 5)
    if channels != 3:
        expected = adapt_input_conv(channels, weight.clone())
        torch.testing.assert_close(adapt_channels(weight, channels), expected)
    donor = nb.resnet18()
    published("resnet18", donor.state_dict())
    model = nb.resnet18(pretrained=True, in_channels=channels)
    expected = adapt_input_conv(channels, donor.conv1.weight.detach().clone())
    torch.testing.assert_close(model.conv1.weight.detach(), expected)


def test_other_stem_names_the_layer(published):
    published("resnet18", nb.resnet18().state_dict())
    with pytest.raises(ValueError, match=r"conv1.weight is \[64, 3, 3, 3\], but \[64, 3, 7, 7\]"):
        nb.resnet18(pretrained=True, stem_type="small")
    with pytest.raises(ValueError, match="img_size=224|of another network"):
        published("dino_vits16", nb.dino_vits16(depth=1).state_dict())
        nb.dino_vits16(pretrained=True, depth=1, img_size=96)


def test_weights_of_another_network(published):
    published("resnet18", nb.resnet34().state_dict())
    with pytest.raises(ValueError, match="left over"):
        nb.resnet18(pretrained=True)


# ---- safety -----------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["resnet18", "dino_vits16"])
def test_poisoned_cache_does_not_run(name, published, tmp_path, monkeypatch):
    entry = published(name, {"x": torch.zeros(1)})
    torch.save({"conv1.weight": Poison(tmp_path / "ran")}, entry.path)
    entry = replace(entry, sha256=sha(entry.path)[:8])  # even if its fingerprint were right
    monkeypatch.setattr(lesson, "published_weights", lambda n, tag=True: entry)
    with pytest.raises(WeightsUnavailable):
        nb.get_backbone(name, pretrained=True)
    assert not (tmp_path / "ran").exists()


def test_poisoned_checkpoint_does_not_run(tmp_path):
    torch.save(Poison(tmp_path / "ran"), tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="more than weights"):
        nb.resnet18(checkpoint_path=tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_truncated_cached_file_is_noticed(published):
    entry = published("resnet18", nb.resnet18().state_dict())
    entry.path.write_bytes(entry.path.read_bytes()[:-100])
    with pytest.raises(WeightsUnavailable, match="incomplete or replaced; delete it"):
        nb.resnet18(pretrained=True)
    assert entry.path.exists()  # a user's file is not deleted


def test_truncated_file_without_known_hash_is_noticed(published):
    entry = published("dino_vits16", nb.dino_vits16(depth=1).state_dict(), sha256="")
    entry.path.write_bytes(entry.path.read_bytes()[:1000])
    with pytest.raises(WeightsUnavailable, match="damaged"):
        nb.dino_vits16(pretrained=True, depth=1)


def test_replaced_cached_file_is_noticed(published):
    entry = published("resnet18", nb.resnet18().state_dict())
    torch.save(nb.resnet18().state_dict(), entry.path)
    with pytest.raises(WeightsUnavailable, match=f"expected {entry.sha256}"):
        nb.resnet18(pretrained=True)


# ---- caches and network -----------------------------------------------------------------------
@pytest.mark.parametrize("name", ["resnet18", "dino_vits16", "mae_vitb16", "timm:resnet18"])
def test_offline_fails_fast_and_says_what_to_do(name, no_weights):
    start = time.perf_counter()
    settings = {"depth": 1} if "vit" in name else {}
    with pytest.raises(WeightsUnavailable) as caught:
        nb.get_backbone(name, pretrained=True, **settings)
    assert time.perf_counter() - start < 20
    message, weights = str(caught.value), caught.value.weights
    for part in (name, weights.tag, weights.url, str(weights.path), "checkpoint_path="):
        assert part in message
    assert "pretrained=False" in message and isinstance(caught.value, RuntimeError)
    assert "MiB" in message or name.startswith("timm:")
    assert not list(no_weights.glob("*"))  # nothing half-made is left


class Answer(io.BytesIO):
    def __init__(self, content, length=None):
        super().__init__(content)
        self.headers = {"Content-Length": str(len(content) if length is None else length)}


def test_download_once_then_cache(published, monkeypatch):
    donor, calls = nb.resnet18(), []
    entry = published("resnet18", donor.state_dict())
    content = entry.path.read_bytes()
    entry.path.unlink()

    def server(url, timeout):
        calls.append((url, timeout))
        return Answer(content)

    monkeypatch.setattr(lesson.urllib.request, "urlopen", server)
    for _ in range(2):
        model = nb.resnet18(pretrained=True)
        assert torch.equal(model.fc.weight, donor.fc.weight)
    assert calls == [(entry.url, 10)]


@pytest.mark.parametrize("fault", ["replaced", "broken off"])
def test_bad_downloads_leave_nothing(fault, published, monkeypatch):
    entry = published("resnet18", {"x": torch.zeros(1)}, cached=False)
    answer = Answer(b"something else") if fault == "replaced" else Answer(b"half", length=8)
    monkeypatch.setattr(lesson.urllib.request, "urlopen", lambda url, timeout: answer)
    with pytest.raises(WeightsUnavailable, match="incomplete or replaced|broke off"):
        nb.resnet18(pretrained=True)
    assert not list(entry.path.parent.glob("*"))


def hub_file(cache, hub_id, state):
    "A file as huggingface_hub stores it: a link to a blob named by its sha256."
    folder = cache / f"models--{hub_id.replace('/', '--')}"
    (folder / "blobs").mkdir(parents=True)
    (folder / "snapshots" / "abc").mkdir(parents=True)
    save_file(state, folder / "blobs" / "new")
    blob = (folder / "blobs" / "new").rename(folder / "blobs" / sha(folder / "blobs" / "new"))
    link = folder / "snapshots" / "abc" / "model.safetensors"
    link.symlink_to(blob)
    return link, blob


def test_hugging_face_cache_is_found_and_checked(no_weights, tmp_path):
    donor = nb.dino_vits16(depth=1)
    entry = published_weights("dino_vits16")
    link, blob = hub_file(tmp_path / "hf", entry.hub_id, donor.state_dict())
    assert weights_file(entry) == link
    model = nb.dino_vits16(pretrained=True, depth=1)
    assert torch.equal(model.cls_token, donor.cls_token)
    blob.write_bytes(blob.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsUnavailable, match="incomplete or replaced"):
        nb.dino_vits16(pretrained=True, depth=1)


def test_timm_model_reads_the_same_cache(no_weights, tmp_path):
    donor = timm.create_model("resnet18")
    entry = published_weights("timm:resnet18")
    hub_file(tmp_path / "hf", entry.hub_id, donor.state_dict())
    model = nb.get_backbone("timm:resnet18", pretrained=True, in_channels=1)
    torch.testing.assert_close(model.model.conv1.weight, donor.conv1.weight.sum(1, keepdim=True))
    assert weights_of(model).tag == "a1_in1k" and model.output_dim == 512


def test_hub_offline_is_respected(no_weights, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(WeightsUnavailable, match="HF_HUB_OFFLINE is set"):
        nb.dino_vits16(pretrained=True, depth=1)


# ---- files of your own ------------------------------------------------------------------------
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("how", ["checkpoint_path", "pretrained"])
def test_checkpoint_path(suffix, how, tmp_path):
    donor, path = nb.resnet18(), tmp_path / f"mine{suffix}"
    state = donor.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save({"model": state}, path)
    for build in (nb.resnet18, lambda **kw: nb.get_backbone("resnet18", num_classes=1000, **kw)):
        assert torch.equal(build(**{how: path}).fc.weight, donor.fc.weight)
    with pytest.raises(FileNotFoundError, match="no weights at"):
        nb.resnet18(**{how: tmp_path / f"absent{suffix}"})


@pytest.mark.parametrize(
    "build", [nb.resnet18, lambda **kw: nb.get_backbone("timm:resnet18", **kw)]
)
def test_a_file_may_have_any_name(build, tmp_path, no_weights):
    path = tmp_path / "epoch_10"
    torch.save(torchvision.models.resnet18().state_dict(), path)
    for how in ("checkpoint_path", "pretrained"):
        for file in (path, str(path)):
            assert not isinstance(getattr(build(**{how: file}), "pretrained_cfg", None), dict)
    for absent in ({"checkpoint_path": str(tmp_path / "epoch_11")}, {"pretrained": "absent.pth"}):
        with pytest.raises(FileNotFoundError, match="no weights at"):
            build(**absent)
    with pytest.raises(ValueError, match="Unknown weights of .*resnet18 'epoch_11'"):
        build(pretrained="epoch_11")


def test_mmselfsups_names_and_other_channels(tmp_path):
    settings = dict(img_size=32, patch_size=8, embed_dim=24, depth=1, num_heads=3)
    donor = nb.VisionTransformer(num_classes=0, **settings)
    names = {"patch_embed.proj.": "patch_embed.projection.", "blocks.": "layers."}
    theirs = {}
    for key, value in donor.state_dict().items():
        for ours, other in names.items():
            key = key.replace(ours, other)
        theirs[f"backbone.{key}"] = value
    grey = nb.VisionTransformer(num_classes=0, in_channels=1, **settings)
    fit_weights(grey, theirs)
    wanted = donor.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(grey.patch_embed.proj.weight, wanted)
    assert torch.equal(grey.blocks[0].mlp.fc1.weight, donor.blocks[0].mlp.fc1.weight)


def test_checkpoint_of_nenya_and_of_mmselfsup(tmp_path):
    donor = nb.get_backbone("resnet18")
    torch.save({f"encoder.{k}": v for k, v in donor.state_dict().items()}, tmp_path / "nenya.pth")
    torch.save({f"backbone.{k}": v for k, v in donor.state_dict().items()}, tmp_path / "mm.pth")
    for file in ("nenya.pth", "mm.pth"):
        ours = nb.get_backbone("resnet18", checkpoint_path=tmp_path / file)
        assert torch.equal(ours.conv1.weight, donor.conv1.weight)


def test_read_weights_refuses_what_is_not_weights(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="holds no weights, but list"):
        read_weights(tmp_path / "list.pth")
    torch.save({"student": {}, "teacher": {}}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match="holds no weights, but dict of student, teacher; save"):
        read_weights(tmp_path / "two.pth")
    (tmp_path / "empty.pth").touch()
    with pytest.raises(ValueError, match="damaged"):
        read_weights(tmp_path / "empty.pth")


def test_pretrained_false_touches_nothing(no_weights):
    model = nn.Linear(1, 1)
    assert load_pretrained(model, "nothing", False) is model

"""Models in folders and on the Hugging Face Hub, offline."""

import json

import pytest
import torch
from safetensors import safe_open
from torch import nn

import nenya_nb.models as nb
from nenya_nb.models import build, from_pretrained, get_backbone, push_to_hub, save_pretrained

torch.set_num_threads(1)
SIMCLR = {"type": "SimCLR", "backbone": {"type": "get_backbone", "name": "resnet_tiny"}}
SUPCON = {"type": "SupConResNet", "name": "resnet_tiny", "feat_dim": 16}


def same(ours, theirs):
    state = theirs.state_dict()
    return ours.state_dict().keys() == state.keys() and all(
        torch.equal(value, state[key]) for key, value in ours.state_dict().items()
    )


@pytest.mark.parametrize(
    "make",
    [
        lambda: get_backbone("resnet_tiny", in_channels=2),
        lambda: get_backbone("timm:resnet10t"),
        lambda: nb.get_resnet("resnet18", stem_type="small"),
        lambda: build(SIMCLR),
        lambda: build(SUPCON),
        lambda: build({"type": "EfficientNet", "width_mult": 0.25, "num_classes": 3}),
        lambda: build({"type": "torch.nn.Linear", "in_features": 1, "out_features": 2}),
    ],
)
def test_round_trip(make, tmp_path):
    model = make()
    folder = save_pretrained(model, tmp_path / "model")
    trusted = "torch.nn" in str(model.build_config)
    again = from_pretrained(folder, trusted=trusted)
    assert same(again, model) and not again.training and type(again) is type(model)
    assert save_pretrained(again, tmp_path / "again").is_dir()


def test_folder_holds_safetensors_configuration_and_card(tmp_path):
    model = build(SIMCLR)
    save_pretrained(model, tmp_path / "x", title="Ours", about="On shapes.", licence="apache-2.0")
    assert sorted(p.name for p in (tmp_path / "x").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert json.loads((tmp_path / "x" / "config.json").read_text()) == SIMCLR
    with safe_open(tmp_path / "x" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model.state_dict())
    card = (tmp_path / "x" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: nenya_nb") and "license: apache-2.0" in card
    assert "# Ours" in card and "On shapes." in card and "from_pretrained(" in card


def test_overrides_change_the_head(tmp_path, capsys):
    model = get_backbone("resnet_tiny", num_classes=5)
    save_pretrained(model, tmp_path)
    other = from_pretrained(tmp_path, num_classes=2)
    assert other.output_dim == 2 and torch.equal(other.conv1.weight, model.conv1.weight)
    assert "classifier is untrained" in capsys.readouterr().out


def test_loading_fetches_no_other_weights(tmp_path, no_weights):
    model = get_backbone("resnet18")
    config = {"type": "get_backbone", "name": "resnet18", "pretrained": True}
    save_pretrained(model, tmp_path / "m", config)
    assert same(from_pretrained(tmp_path / "m"), model)


@pytest.mark.parametrize("kind", ["os.system", "push_to_hub", "torch.hub.load"])
def test_strange_configurations_do_not_run(kind, tmp_path):
    save_pretrained(nn.Linear(1, 1), tmp_path, {"type": kind})
    with pytest.raises(KeyError, match="Unknown type"):
        from_pretrained(tmp_path)


def test_a_strangers_base_model_runs_no_command(tmp_path):
    command = {"type": "os.system", "command": f"touch {tmp_path}/ran"}
    config = {"type": "BaseModel", "backbone": {"type": "resnet_tiny"}}
    save_pretrained(nn.Linear(1, 1), tmp_path, config | {"data_preprocessor": command})
    with pytest.raises(KeyError, match="Unknown type 'os.system'"):
        from_pretrained(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_words_of_dalle_travel_without_their_file(tmp_path):
    small = {"type": "DALLEEncoder", "num_classes": 8, "hidden_dim": 4, "num_blocks": 1}
    small["patch_size"] = 8
    torch.save(build(small).state_dict(), tmp_path / "dalle.pth")
    arch = {"embed_dims": 24, "num_layers": 1, "num_heads": 2, "feedforward_channels": 24}
    backbone = {"type": "CAEViT", "arch": arch, "img_size": 32, "patch_size": 8}
    neck = {"type": "CAENeck", "input_dim": 24, "num_classes": 8, "num_heads": 2}
    neck |= {"regressor_depth": 1, "decoder_depth": 1}
    words = small | {"path": str(tmp_path / "dalle.pth")}
    cae = build({"type": "CAE", "backbone": backbone, "neck": neck, "target_generator": words})
    save_pretrained(cae, tmp_path / "model")
    (tmp_path / "dalle.pth").unlink()
    assert same(from_pretrained(tmp_path / "model"), cae)


def test_a_clip_generator_cannot_travel(tmp_path):
    config = {"type": "Algorithm", "target_generator": {"type": "CLIPGenerator", "path": "x.pth"}}
    with pytest.raises(ValueError, match="CLIPGenerator takes its sizes from its file"):
        save_pretrained(nn.Linear(1, 1), tmp_path / "m", config)
    assert not (tmp_path / "m").exists()


def test_mistakes_say_what_to_do(tmp_path):
    with pytest.raises(ValueError, match="does not know how it was built"):
        save_pretrained(nn.Linear(1, 1), tmp_path / "a")
    with pytest.raises(ValueError, match="more than numbers"):
        save_pretrained(build({"type": "Algorithm", "backbone": nn.Linear(1, 1)}), tmp_path / "b")
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()
    with pytest.raises(FileNotFoundError, match="holds no model.safetensors"):
        from_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match="no folder"):
        from_pretrained(tmp_path / "nothing")


def test_weights_that_do_not_fit(tmp_path):
    save_pretrained(get_backbone("resnet18"), tmp_path, {"type": "resnet34", "num_classes": 0})
    with pytest.raises(ValueError, match="another network"):
        from_pretrained(tmp_path)


def test_push_to_hub_uploads_the_folder(monkeypatch):
    import huggingface_hub

    calls = []

    class Api:
        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private, exist_ok))

        def upload_folder(self, folder_path, repo_id, commit_message):
            calls.append(sorted(p.name for p in folder_path.iterdir()))
            calls.append((folder_path / "README.md").read_text())

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    address = push_to_hub(get_backbone("resnet_tiny"), "me/tiny", private=True, title="Tiny")
    assert address == "https://huggingface.co/me/tiny" and calls[0] == ("me/tiny", True, True)
    assert calls[1] == ["README.md", "config.json", "model.safetensors"]
    assert 'from_pretrained("me/tiny")' in calls[2]


def test_push_to_hub_renames_the_model_in_no_other_place(monkeypatch):
    "The folder is called as the architecture is, and so is a word of the configuration."
    import huggingface_hub

    pages = []

    class Api:
        def create_repo(self, *_, **__): ...

        def upload_folder(self, folder_path, **_):
            pages.append((folder_path / "README.md").read_text(encoding="utf-8"))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    push_to_hub(get_backbone("resnet_tiny"), "me/resnet_tiny", about="Größe → klein")
    assert 'from_pretrained("me/resnet_tiny")' in pages[0] and "Größe → klein" in pages[0]
    assert '"name": "resnet_tiny"' in pages[0]


def test_a_repository_is_loaded_by_its_name(tmp_path, monkeypatch):
    import huggingface_hub

    model = get_backbone("resnet_tiny")
    save_pretrained(model, tmp_path)
    asked = []

    def download(repo_id, revision, allow_patterns):
        asked.append((repo_id, revision, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert same(from_pretrained("me/tiny", revision="v1"), model)
    assert asked == [("me/tiny", "v1", ["model.safetensors", "config.json"])]

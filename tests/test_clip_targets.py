"""CLIPGenerator against transformers' CLIP, from files under both names."""

import pytest
import torch

from nenya_nb.models.clip_targets import CLIPGenerator

torch.set_num_threads(1)


@pytest.fixture
def oracle():
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2)
    config = CLIPVisionConfig(**sizes, image_size=16, patch_size=4, projection_dim=12)
    model = CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():
        for p in model.parameters():  # biases, norms: nothing may hide behind 0 and 1
            p.add_(0.1 * torch.randn_like(p))
    return model


def openai_names(generator):
    return {f"visual.{k}": v for k, v in generator.visual.state_dict().items()}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_hugging_faces_file_gives_its_features(oracle, tmp_path, suffix):
    path, state = tmp_path / f"clip{suffix}", oracle.state_dict()
    if suffix == ".pth":
        torch.save(state, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    images = torch.randn(3, 3, 16, 16)
    settings = dict(num_heads=2, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    patches = CLIPGenerator(path, **settings)
    pixels = patches.twin(images)
    back = images * torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    back = back + torch.tensor([0.5, 0.4, 0.3])[:, None, None]  # between 0 and 1
    clips = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    spread = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    torch.testing.assert_close(pixels, (back - clips) / spread)
    with torch.no_grad():
        theirs = oracle(pixel_values=pixels)
        norm, projection = oracle.vision_model.post_layernorm, oracle.visual_projection
        rows = projection(norm(theirs.last_hidden_state))
    torch.testing.assert_close(patches(images), rows[:, 1:], atol=1e-5, rtol=1e-4)
    whole = CLIPGenerator(path, tokens=False, **settings)
    torch.testing.assert_close(whole(images), theirs.image_embeds, atol=1e-5, rtol=1e-4)
    assert whole.output_dim == patches.output_dim == 12


def test_openais_names_in_half_precision_beside_a_text_encoder(oracle, tmp_path):
    torch.save(oracle.state_dict(), tmp_path / "hf.pth")
    generator = CLIPGenerator(tmp_path / "hf.pth", num_heads=2)
    text = {"token_embedding.weight": torch.zeros(3, 2), "input_resolution": torch.tensor(16)}
    half = {k: v.half() for k, v in openai_names(generator).items()}
    torch.save(half | text, tmp_path / "openai.pth")
    again = CLIPGenerator(tmp_path / "openai.pth", num_heads=2)
    images = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(again(images), generator(images), atol=0.05, rtol=0.05)
    assert again.visual.conv1.weight.dtype == torch.float32


def test_gelu_of_openclip(oracle, tmp_path):
    for layer in oracle.vision_model.encoder.layers:
        layer.mlp.activation_fn = torch.nn.GELU()
    torch.save(oracle.state_dict(), tmp_path / "clip.pth")
    ours = CLIPGenerator(tmp_path / "clip.pth", tokens=False, num_heads=2, quick_gelu=False)
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        theirs = oracle(pixel_values=ours.twin(images)).image_embeds
    torch.testing.assert_close(ours(images), theirs, atol=1e-5, rtol=1e-4)


def test_other_sizes_interpolate_the_positions(oracle, tmp_path):
    torch.save(oracle.state_dict(), tmp_path / "clip.pth")
    images = torch.randn(2, 3, 20, 24)
    assert CLIPGenerator(tmp_path / "clip.pth", num_heads=2)(images).shape == (2, 16, 12)
    wide = CLIPGenerator(tmp_path / "clip.pth", size=(16, 32), num_heads=2)
    assert wide(images).shape == (2, 32, 12)


def test_mistakes_are_told(oracle, tmp_path):
    with pytest.raises(FileNotFoundError, match="no weights at"):
        CLIPGenerator(tmp_path / "none.pth")
    torch.save({"visual.layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="no vision transformer of CLIP: conv1.weight.*ResNets"):
        CLIPGenerator(tmp_path / "resnet.pth")
    state = oracle.state_dict()
    state.pop("vision_model.encoder.layers.1.self_attn.k_proj.weight")
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(ValueError, match="missing .*resblocks.1.attn.in_proj_weight"):
        CLIPGenerator(tmp_path / "part.pth", num_heads=2)


@pytest.mark.filterwarnings("ignore")
def test_a_program_is_not_run(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(ValueError, match="programs are not run here; save what it holds"):
        CLIPGenerator(path)


def test_frozen(oracle, tmp_path):
    torch.save(oracle.state_dict(), tmp_path / "clip.pth")
    generator = CLIPGenerator(tmp_path / "clip.pth", num_heads=2)
    assert not generator.train().training
    assert not any(p.requires_grad for p in generator.parameters())

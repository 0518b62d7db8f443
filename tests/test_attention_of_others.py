"""Attention of networks nobody here wrote: torchvision's, timm's and Hugging Face's, against what they say themselves."""

import pytest
import torch

from nenya_nb.introspect.attention import attention_maps
from nenya_nb.introspect.places import NOWHERE

SMALL = dict(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32)
SMALL |= dict(image_size=32, patch_size=8)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


# --- torchvision ------------------------------------------------------------------------------------------------------


def test_torchvision_vit_gives_the_weights_that_multihead_attention_reports():
    import torchvision

    model = torchvision.models.VisionTransformer(32, 8, 2, 2, 16, 32).eval()
    images, inputs = torch.randn(2, 3, 32, 32), []
    layer = model.encoder.layers[1].self_attention
    hook = layer.register_forward_pre_hook(lambda _, args: inputs.append(args))
    maps = attention_maps(model, images)
    hook.remove()
    _, weights = layer(*inputs[0], need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(maps[1].weights, weights)
    assert maps[1].kind == "MultiheadAttention" and maps[1].key_grid == (4, 4)
    assert maps[1].prefix == 1


# --- timm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size, prefix",
    [
        ("vit_tiny_patch16_224", 64, 1),
        ("deit_tiny_distilled_patch16_224", 64, 2),
        ("vit_small_patch14_reg4_dinov2", 56, 5),
        ("swin_tiny_patch4_window7_224", 56, 0),
    ],
)
def test_timm_fused_and_explicit_agree(name, size, prefix):
    import timm

    images, found = torch.randn(1, 3, size, size), []
    depth = {} if "swin" in name else {"depth": 2}
    for fused in (True, False):
        timm.layers.set_fused_attn(fused, experimental=fused)
        try:
            torch.manual_seed(0)
            model = timm.create_model(name, img_size=size, **depth).eval()
            found.append(attention_maps(model, images))
        finally:
            timm.layers.set_fused_attn(True)
    assert {one.kind for one in found[0]} == {"fused"}
    assert {one.kind for one in found[1]} == {"softmax"}
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.weights, b.weights, atol=1e-5, rtol=1e-4)
        assert a.keys.equal(b.keys) and a.queries.equal(b.queries) and a.path == b.path
        assert a.key_grid is not None and a.prefix == prefix


def test_channels_that_look_at_channels_have_no_place():
    import timm

    maps = attention_maps(timm.create_model("xcit_nano_12_p16_224"), torch.randn(1, 3, 64, 64))
    assert maps[0].key_grid is None and maps[-1].key_grid == (4, 4)


# --- Hugging Face -----------------------------------------------------------------------------------------------------

THEIRS = {  # name: tokens before the first patch, settings
    "ViT": (1, {}),
    "DeiT": (2, {}),
    "Beit": (1, {"use_relative_position_bias": True}),
    "Dinov2": (1, {"mlp_ratio": 2}),
    "Dinov2WithRegisters": (5, {"mlp_ratio": 2, "num_register_tokens": 4}),
    "DINOv3ViT": (4, {"num_register_tokens": 3}),
    "CLIPVision": (1, {}),
    "SiglipVision": (0, {"vision_use_head": False}),
}


def hugging_face(name: str, implementation: str, **settings):
    "A model of `transformers` with random weights, twice: as asked for, and eager, which can tell its attentions."
    import transformers

    kind = getattr(transformers, f"{name}Model")
    models = []
    for chosen in (implementation, "eager"):
        torch.manual_seed(0)
        config = getattr(transformers, f"{name}Config")(attn_implementation=chosen, **settings)
        models.append(kind(config).eval())
    for parameter in models[
        0
    ].parameters():  # as they come, weights are so small that all look everywhere alike
        torch.nn.init.normal_(parameter, std=0.5)
    models[1].load_state_dict(models[0].state_dict())
    return models


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("name", THEIRS)
def test_hugging_face_tells_the_same(name, implementation):
    prefix, more = THEIRS[name]
    model, eager = hugging_face(name, implementation, **SMALL | more)
    images = torch.randn(2, 3, 32, 32)
    maps = attention_maps(model, images)
    with torch.no_grad():
        theirs = eager(images, output_attentions=True).attentions
    assert len(maps) == len(theirs) == 2
    for one, weights in zip(maps, theirs, strict=True):
        assert one.kind == ("fused" if implementation == "sdpa" else "softmax")
        assert weights.std() > 0.01  # there is something to be wrong about
        torch.testing.assert_close(one.weights, weights, atol=1e-5, rtol=0)
        assert one.prefix == prefix and one.key_grid == one.query_grid == (4, 4)
        wanted = [[NOWHERE] * prefix + list(range(16))] * 2
        assert one.cells(one.keys).tolist() == one.cells(one.queries).tolist() == wanted


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("size", [(32, 32), (40, 24)])  # the second needs padding
def test_hugging_face_swin_tells_the_same(size, implementation):
    settings = dict(image_size=32, patch_size=2, embed_dim=8, depths=[2, 2], num_heads=[1, 2])
    model, eager = hugging_face("Swin", implementation, **settings, window_size=4)
    images, theirs = torch.randn(2, 3, *size), []
    maps = attention_maps(model, images)
    for module in eager.modules():
        if type(module).__name__ == "SwinAttention":
            module.register_forward_hook(lambda *call: theirs.append(call[-1][1]))
    with torch.no_grad():
        eager(images)
    assert len(maps) == len(theirs) == 4
    for i, (one, weights) in enumerate(zip(maps, theirs, strict=True)):
        rows, columns = (-(-s // 4) if i > 1 else s // 2 for s in size)
        assert one.windows == -(-rows // 4) * -(-columns // 4) and one.key_grid == (rows, columns)
        torch.testing.assert_close(one.weights, weights.unflatten(0, (2, -1)), atol=1e-5, rtol=0)
        cells = one.cells(one.keys)[1]
        assert sorted(cells[cells >= 0].tolist()) == list(range(rows * columns))


def test_text_and_pictures_together_need_to_be_told_what_to_run():
    import transformers

    vision = {**SMALL, "projection_dim": 8}
    text = {k: v for k, v in SMALL.items() if "size" not in k or "hidden" in k}
    config = transformers.CLIPConfig(vision_config=vision, text_config=text | {"vocab_size": 10})
    model, images = transformers.CLIPModel(config), torch.randn(1, 3, 32, 32)
    maps = attention_maps(model, images, forward=lambda x: model.get_image_features(x))
    assert [one.key_grid for one in maps] == [(4, 4)] * 2
    assert maps[0].path == "vision_model.encoder.layers.0.self_attn"


@torch.library.custom_op("nenya_test::attend", mutates_args=())
def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    "A kernel of somebody's own: nobody can look inside."
    return torch.nn.functional.scaled_dot_product_attention(query, key, value).clone()


def test_kernels_that_hide_their_weights_are_named(monkeypatch):
    import transformers

    def hidden(module, query, key, value, mask, **_):
        return attend(query, key, value).transpose(1, 2), None

    monkeypatch.setitem(transformers.AttentionInterface._global_mapping, "hidden", hidden)
    model, _ = hugging_face("ViT", "hidden", **SMALL)
    with pytest.raises(ValueError, match='kernel "hidden" hides them, set_attn_implementation'):
        attention_maps(model, torch.randn(1, 3, 32, 32))


def test_networks_without_attention_are_refused():
    import transformers

    config = transformers.ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8)
    with pytest.raises(ValueError, match="ResNetModel ran without attention"):
        attention_maps(transformers.ResNetModel(config), torch.randn(1, 3, 32, 32))

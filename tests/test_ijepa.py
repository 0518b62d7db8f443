"""I-JEPA: places, the predictor, who sees what, the loss written out, gradients, the teacher, pictures, errors."""

import pytest
import torch
import torch.nn.functional as F

from nenya_nb.core import Clock
from nenya_nb.data.target_blocks import TargetBlocks
from nenya_nb.models import CAEViT, VisionTransformer
from nenya_nb.models.algorithms.ijepa import IJEPA, IJEPAPredictor, mask_places

torch.set_num_threads(1)
ARCH = {"embed_dims": 24, "num_layers": 2, "num_heads": 2, "feedforward_channels": 48}


def encoder(**options):
    return CAEViT(ARCH, 32, 4, **options)


def predictor(**options):
    return IJEPAPredictor(24, 16, depth=2, num_heads=2, img_size=32, patch_size=4, **options)


def small(**options):
    torch.manual_seed(0)
    return IJEPA(encoder(), predictor(), **options)


def views(batch=3, size=(32, 32), num_targets=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(batch, 3, *size, generator=generator)
    return [images, TargetBlocks(4, num_targets)(images, generator)]


# ---------------------------------------------------------------- places


def test_mask_places_are_those_of_nonzero():
    mask = torch.rand(4, 5, 30, generator=torch.Generator().manual_seed(0)).argsort(-1) < 7
    expected = mask.nonzero()[:, 2].view(4, 5, 7)
    assert torch.equal(mask_places(mask, 7), expected)
    assert mask_places(torch.zeros(2, 3, dtype=torch.bool), 0).shape == (2, 0)


# ---------------------------------------------------------------- predictor


def test_predictor_answers_each_block_alone_and_the_order_of_questions_does_not_matter():
    torch.manual_seed(0)
    network = predictor().double()
    tokens, seen = torch.randn(2, 9, 24).double(), torch.rand(2, 64).argsort(1)[:, :9]
    asked = torch.rand(2, 64).argsort(1)[:, :12].view(2, 3, 4)
    answer = network(tokens, seen, asked)
    assert answer.shape == (2, 3, 4, 24)
    torch.testing.assert_close(network(tokens, seen, asked[:, [1]]), answer[:, [1]])
    torch.testing.assert_close(network(tokens, seen, asked.flip(2)), answer.flip(2))
    order = torch.randperm(9)
    torch.testing.assert_close(network(tokens[:, order], seen[:, order], asked), answer)
    assert not torch.allclose(network(tokens, seen.flip(1), asked), answer)
    assert not torch.allclose(network(tokens.flip(0), seen.flip(0), asked.flip(0)), answer)


def test_predictor_without_blocks_is_one_linear_layer_of_token_and_place():
    network = IJEPAPredictor(24, 16, depth=0, num_heads=2, img_size=32, patch_size=4)
    tokens, seen = torch.randn(2, 5, 24), torch.arange(5).expand(2, 5)
    asked = torch.tensor([[[3, 60]], [[0, 63]]])
    x = network.mask_token[0] + network.pos_embed[0][asked[:, 0]]  # (B, t, 16)
    expected = network.proj(network.norm(x))[:, None]
    torch.testing.assert_close(network(tokens, seen, asked), expected)


def test_predictor_stretches_its_places_to_other_grids():
    network = predictor()
    tokens, seen = torch.randn(1, 4, 24), torch.arange(4)[None]
    asked = torch.tensor([[[90, 95]]])
    assert network(tokens, seen, asked, grid=(8, 12)).isfinite().all()
    known = torch.tensor([[[10, 20]]])
    same = network(tokens, seen, known, grid=(8, 8))
    torch.testing.assert_close(same, network(tokens, seen, known))


def test_predictor_starts_smaller_in_later_blocks():
    torch.manual_seed(0)
    network = IJEPAPredictor(64, 64, depth=4, num_heads=4, img_size=32, patch_size=4)
    for i, block in enumerate(network.blocks):
        for layer in (block.attn.proj, block.mlp.fc2):
            expected = 0.02 / (2 * (i + 1)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
    assert network.no_weight_decay() == {"mask_token", "pos_embed"}
    assert not network.pos_embed.requires_grad


def test_predictor_without_arguments_is_the_papers():
    with torch.device("meta"):
        network = IJEPAPredictor()
    assert network.pos_embed.shape == (1, 196, 384) and len(network.blocks) == 6
    assert network.proj.out_features == 768


# ---------------------------------------------------------------- the loss


def test_loss_is_the_mean_over_blocks_and_patches_written_out():
    algorithm, (images, masks) = small().double(), views(2)
    images = images.double()
    found = algorithm([images, masks], mode="loss")["loss"]
    backbone, network = algorithm.backbone, algorithm.neck
    teacher = algorithm.teacher.backbone.forward_features(images)[:, 1:]
    y = (teacher - teacher.mean(2, keepdim=True)) / (
        teacher.var(2, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    total, count = 0.0, 0
    for b in range(2):
        context = masks[b, 0].flatten()
        x = backbone.tokens(images[b : b + 1])
        x = torch.cat([x[:, :1], x[:, 1:][:, context]], 1)
        s = backbone.norm(backbone.blocks(x))[:, 1:]
        for m in range(1, 5):
            asked = masks[b, m].flatten().nonzero()[:, 0]
            answer = network(s, context.nonzero()[None, :, 0], asked[None, None])[0, 0]
            error = (answer - y[b, asked]).abs()
            total += torch.where(error < 1, error**2 / 2, error - 0.5).mean(1).sum()
            count += len(asked)
    torch.testing.assert_close(found, total / count)


def test_student_sees_the_context_only_and_the_teacher_everything():
    algorithm, (images, masks) = small(), views()
    loss = algorithm([images, masks], mode="loss")["loss"]
    prediction = algorithm._last["prediction"]
    hidden = ~masks[:, 0].repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    others = torch.where(hidden, torch.randn_like(images), images)
    changed = algorithm([others, masks], mode="loss")["loss"]
    torch.testing.assert_close(algorithm._last["prediction"], prediction)
    assert not torch.isclose(changed, loss)  # the answers are others
    elsewhere = torch.where(hidden, images, torch.randn_like(images))
    answers = [algorithm.answers(x) for x in (images, elsewhere)]
    outside = ~masks[:, 0].flatten(1)
    assert not torch.allclose(answers[0][outside], answers[1][outside])


def test_answers_have_mean_zero_and_deviation_one():
    y = small().answers(views()[0])
    assert y.shape == (3, 64, 24) and not y.requires_grad
    torch.testing.assert_close(y.mean(2), torch.zeros(3, 64), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.std(2, correction=0), torch.ones(3, 64), atol=1e-3, rtol=0)


def test_baseline_is_the_loss_of_one_answer_for_everything():
    algorithm = small(loss_fn=torch.nn.MSELoss())
    losses = algorithm(views(8), mode="loss")
    y = algorithm._last["y"].flatten(0, 2)
    torch.testing.assert_close(losses["baseline"], y.var(0, correction=0).mean())
    assert 0 < losses["baseline"] < losses["loss"]  # nothing is learned yet


def test_loss_of_a_perfect_prediction_is_zero():
    algorithm = small()

    class Oracle(torch.nn.Module):
        def forward(self, tokens, seen, asked, grid):
            everywhere = algorithm.answers(images)
            return torch.stack([everywhere[b][asked[b]] for b in range(len(images))])

    images, masks = views()
    algorithm.neck = Oracle()
    assert algorithm([images, masks], mode="loss")["loss"] == 0
    agreement = algorithm.diagnostics()["agreement"]
    torch.testing.assert_close(
        agreement[masks[:, 1:].any(1)], torch.ones(()).expand(int(masks[:, 1:].any(1).sum()))
    )


# ---------------------------------------------------------------- gradient and teacher


def test_teacher_moves_in_a_straight_line_towards_one():
    algorithm, clock = small(base_momentum=0.9), Clock(5, 2)
    with torch.no_grad():
        for p in algorithm.backbone.parameters():
            p += 1.0
    weight = algorithm.teacher.backbone.norm.weight
    for step in range(1, 11):
        clock.step, before = step, weight.clone()
        algorithm.after_step(clock)
        m = 0.9 + 0.1 * step / 10
        torch.testing.assert_close(weight, m * before + (1 - m) * algorithm.backbone.norm.weight)
    assert torch.equal(weight, before)  # m = 1 at the end


def test_features_are_the_teachers_patches():
    algorithm = small().eval()
    with torch.no_grad():
        for p in algorithm.backbone.parameters():
            p.zero_()
    images = torch.randn(2, 3, 40, 32)
    tokens = algorithm.teacher.backbone.forward_features(images)
    torch.testing.assert_close(algorithm(images), tokens[:, 1:].mean(1))
    torch.testing.assert_close(algorithm.predict(images), algorithm.embed(images))


# ---------------------------------------------------------------- pictures, sizes, settings, errors


def test_agreement_is_the_mean_cosine_where_somebody_asked():
    algorithm, (images, masks) = small(), views()
    assert algorithm.diagnostics() == {}
    algorithm([images, masks], mode="loss")
    found = algorithm.diagnostics()
    assert torch.equal(found["mask"], ~masks[:, 0]) and torch.equal(found["targets"], masks[:, 1:])
    agreement, asked = found["agreement"], masks[:, 1:].any(1)
    assert torch.equal(agreement.isnan(), ~asked)
    mean = algorithm._last["y"].mean((0, 1, 2))
    prediction, y = algorithm._last["prediction"] - mean, algorithm._last["y"] - mean
    b, place = 1, masks[1, 1:].any(0).flatten().nonzero()[0, 0]
    cosines = []
    for m in range(4):
        at = (masks[b, 1 + m].flatten().nonzero()[:, 0] == place).nonzero()
        cosines += [F.cosine_similarity(prediction[b, m, i], y[b, m, i], dim=0) for i in at[:, 0]]
    torch.testing.assert_close(agreement[b].flatten()[place], torch.stack(cosines).mean())


@pytest.mark.parametrize(("size", "num_targets"), [((32, 48), 4), ((32, 32), 1), ((48, 48), 3)])
def test_other_sizes_and_numbers_of_blocks(size, num_targets):
    algorithm = small()
    losses = algorithm(views(2, size, num_targets), mode="loss")
    assert losses["loss"].isfinite() and algorithm(views(1), mode="loss")["loss"].isfinite()
    assert algorithm.diagnostics()["agreement"].shape == (1, 8, 8)


def test_views_ask_for_the_masks():
    expected = {
        "type": "target_blocks_view",
        "patch_size": 4,
        "num_targets": 2,
        "block_scale": (0.2, 0.3),
    }
    assert small(num_targets=2, scale=[0.2, 0.3]).views == expected


@pytest.mark.parametrize(
    ("width", "heads", "inner"), [(24, 2, 12), (96, 3, 48), (36, 3, 12), (20, 2, 8)]
)
def test_default_predictor_is_half_as_wide(width, heads, inner):
    arch = {"embed_dims": width, "num_layers": 1, "num_heads": heads, "feedforward_channels": 48}
    algorithm = IJEPA(CAEViT(arch, 32, 4))
    assert algorithm.neck.embed.out_features == inner and len(algorithm.neck.blocks) == 6
    assert algorithm(views(2), mode="loss")["loss"].isfinite()


def test_errors():
    with pytest.raises(TypeError, match="got VisionTransformer; use a CAEViT"):
        IJEPA(VisionTransformer(32, 4, 0, embed_dim=24, depth=1, num_heads=2))
    with pytest.raises(ValueError, match="between 0 and 1, got 1.5"):
        small(base_momentum=1.5)
    with pytest.raises(ValueError, match="predictor expects tokens of 32"):
        IJEPA(encoder(), IJEPAPredictor(32, 16, 1, 2, img_size=32, patch_size=4))
    images, masks = views()
    for wrong in ([images], [images, masks.float()], [images, masks[:, 0]]):
        with pytest.raises(ValueError, match="recipe .*target_blocks_view"):
            small()(wrong, mode="loss")
    masks[0, 0] = True
    with pytest.raises(ValueError, match="all contexts must have one size"):
        small()([images, masks], mode="loss")


# ---------------------------------------------------------------- independent implementations


def test_teacher_says_what_transformers_ijepa_says():
    "The same weights in transformers' IJepaModel, which has no CLS token: ours is taken out of the attention."
    from transformers import IJepaConfig, IJepaModel

    torch.manual_seed(0)
    sizes = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    oracle = IJepaModel(IJepaConfig(**sizes, image_size=32, patch_size=4, layer_norm_eps=1e-6))
    ours = encoder()
    ours.cls_token.data.zero_()
    state, theirs = ours.state_dict(), oracle.state_dict()
    names = {"attn.proj": "attention.o_proj", "norm1": "layernorm_before", "mlp": "mlp"}
    names |= {"norm2": "layernorm_after"}
    with torch.no_grad():
        theirs["embeddings.position_embeddings"].copy_(state["pos_embed"][:, 1:])
        for kind in ("weight", "bias"):
            patches = theirs[f"embeddings.patch_embeddings.projection.{kind}"]
            patches.copy_(state[f"patch_embed.proj.{kind}"])
            theirs[f"layernorm.{kind}"].copy_(state[f"norm.{kind}"])
            for i in range(2):
                qkv = state[f"blocks.{i}.attn.qkv.{kind}"].chunk(3)
                for letter, part in zip("qkv", qkv, strict=True):
                    theirs[f"layers.{i}.attention.{letter}_proj.{kind}"].copy_(part)
                for name, other in names.items():
                    for layer in ("fc1.", "fc2.") if name == "mlp" else ("",):
                        target = theirs[f"layers.{i}.{other}.{layer}{kind}"]
                        target.copy_(state[f"blocks.{i}.{name}.{layer}{kind}"])
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        expected = oracle.eval()(pixel_values=images).last_hidden_state
        tokens = ours.patch_embed(images).flatten(2).transpose(1, 2) + state["pos_embed"][:, 1:]
        for block in ours.blocks:
            tokens = block(tokens)
    torch.testing.assert_close(ours.norm(tokens), expected, atol=1e-5, rtol=1e-4)


def test_predictor_is_lightlys():
    from lightly.models.modules import IJEPAPredictorTIMM

    torch.manual_seed(0)
    ours = predictor()
    with torch.no_grad():
        for p in ours.parameters():
            p.add_(0.05 * torch.randn_like(p))
    theirs = IJEPAPredictorTIMM(64, 2, 24, 16, 2)
    names = {"embed.": "predictor_embed.", "proj.": "predictor_proj.", "norm.": "decoder.norm."}
    names |= {"blocks.": "decoder.blocks.", "mask_token": "decoder.mask_token"}
    names |= {"pos_embed": "decoder.pos_embed"}
    state = {}
    for key, value in ours.state_dict().items():
        start = next(name for name in names if key.startswith(name))
        state[names[start] + key.removeprefix(start)] = value
    theirs.load_state_dict(state)
    _, masks = views(2)
    context, blocks = masks[:, 0].flatten(1), masks[:, 1:].flatten(2)
    seen, asked = mask_places(context, context[0].sum()), mask_places(blocks, blocks[0, 0].sum())
    tokens = torch.randn(2, seen.shape[1], 24)
    with torch.no_grad():
        answers = theirs.eval()(tokens.clone(), [seen], [asked[:, m] for m in range(4)])
        expected = answers.unflatten(0, (4, 2)).transpose(0, 1)  # block after block there
        torch.testing.assert_close(ours(tokens, seen, asked), expected, atol=1e-5, rtol=1e-4)


def test_students_tokens_are_lightlys_masked_transformer():
    "What the student makes of its context, against lightly's masked ViT with the same weights."
    from lightly.models.modules import MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer as TimmViT

    torch.manual_seed(0)
    ours = encoder().eval()
    vit = TimmViT(img_size=32, patch_size=4, embed_dim=24, depth=2, num_heads=2, mlp_ratio=2)
    theirs = MaskedVisionTransformerTIMM(vit).eval()
    state = {k: v for k, v in ours.state_dict().items()}
    missing = vit.load_state_dict(state, strict=False)
    assert all(k.startswith("head.") for k in missing.missing_keys) and not missing.unexpected_keys
    images, masks = views(2)
    context = masks[:, 0].flatten(1)
    seen = mask_places(context, context[0].sum())
    hidden = context.shape[1] - seen.shape[1]
    keep = torch.cat([torch.zeros(2, 1, dtype=torch.long), seen + 1], dim=1)  # 0 is CLS
    with torch.no_grad():
        expected = theirs.encode(images, idx_keep=keep)
        torch.testing.assert_close(ours(images, ~context, hidden), expected, atol=1e-5, rtol=1e-4)


def test_every_batch_must_hide_as_many_as_the_first():
    "Of images of one size; another number would cut the places at the wrong end."
    algorithm, (images, masks) = small(), views()
    algorithm([images, masks], mode="loss")
    algorithm(views(size=(24, 32)), mode="loss")  # another grid, another count
    context = masks.clone()
    context[:, 0].flatten(1).scatter_(
        1, masks[:, 0].flatten(1).int().argmax(1, keepdim=True), False
    )
    larger = masks.clone()
    larger[1, 2] = True
    for wrong in (context, larger):
        with pytest.raises(
            ValueError, match="IJEPA: expected contexts of .* as in the first batch"
        ):
            algorithm([images, wrong], mode="loss")

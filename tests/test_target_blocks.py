"""Target blocks: equal counts, whole rectangles, a context apart from them, even places, repeatability, errors."""

import pytest
import torch

from nenya_nb.data.masks import Masked
from nenya_nb.data.recipes import view_recipe
from nenya_nb.data.target_blocks import TargetBlocks, block_shapes
from nenya_nb.data.transforms import MultiView

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blank(count, height, width=None):
    return torch.zeros(1, 3, 1, 1).expand(count, 3, height, width or height)


def sides(blocks):
    "Heights and widths of the boxes around masks (…, h, w)."
    return blocks.any(-1).sum(-1), blocks.any(-2).sum(-1)


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("grid", [(8, 8), (14, 14), (16, 16), (8, 12), (12, 8), (32, 32), (5, 7)])
def test_shapes_have_one_area_and_keep_their_promises(grid):
    shapes = block_shapes(grid, (0.1, 0.3))
    areas = {h * w for h, w in shapes}
    assert len(areas) == 1 and len(set(shapes)) == len(shapes)
    assert 0.1 <= areas.pop() / (grid[0] * grid[1]) <= 0.3
    assert all(0.75 <= h / w <= 1.5 and h <= grid[0] and w <= grid[1] for h, w in shapes)


def test_shapes_are_as_many_as_any_area_allows():
    h, w, (low, high) = 14, 14, (0.15, 0.2)
    counts = {}
    for a in range(1, h + 1):
        for b in range(1, w + 1):
            if low <= a * b / (h * w) <= high and 0.75 <= a / b <= 1.5:
                counts[a * b] = counts.get(a * b, 0) + 1
    assert len(block_shapes((h, w))) == max(counts.values())


def test_shapes_at_the_edge_of_the_range_count():
    assert block_shapes((10, 10), (0.04, 0.04), (1.0, 1.0)) == [(2, 2)]
    assert block_shapes((4, 4), (1.0, 1.0)) == [(4, 4)]


def test_shapes_refuse_what_no_block_has():
    with pytest.raises(ValueError, match="no block on a grid of 2x2 patches has 0.15 to 0.2"):
        block_shapes((2, 2))


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(
    ("height", "width", "options"),
    [
        (32, 32, {"patch_size": 4}),
        (224, 224, {}),
        (32, 48, {"patch_size": 4}),
        (32, 32, {"patch_size": 4, "num_targets": 1, "scale": (0.5, 0.6)}),
    ],
)
def test_blocks_keep_their_counts_in_every_image(height, width, options):
    blocks, images = TargetBlocks(**options), blank(200, height, width)
    masks = blocks(images, seeded())
    K, t = blocks.counts(images.shape)
    assert list(masks.shape) == blocks.get_output_shape(images.shape)
    assert masks.dtype == torch.bool
    context, targets = masks[:, 0], masks[:, 1:]
    assert (context.sum((1, 2)) == K).all() and (targets.sum((2, 3)) == t).all()
    assert K == masks[0, 0].numel() - blocks.num_targets * t
    assert not (context & targets.any(1)).any()
    tall, wide = sides(targets)
    assert (tall * wide == t).all()  # as large as the box around it
    grid = tuple(masks.shape[2:])
    found = set(zip(tall.flatten().tolist(), wide.flatten().tolist(), strict=True))
    assert found == set(block_shapes(grid, blocks.scale, blocks.aspect))


def test_blocks_stand_everywhere_equally_often():
    masks = TargetBlocks(4, 1)(blank(6000, 32), seeded())[:, 1]
    tall, wide = sides(masks)
    top = masks.any(2).int().argmax(1)[tall == 3]
    places = torch.bincount(top, minlength=6) / len(top)
    assert (places - 1 / 6).abs().max() < 0.03
    assert ((tall == 3).float().mean() - 0.5).abs() < 0.03


def test_context_is_compact_and_elsewhere_in_each_image():
    masks = TargetBlocks(4)(blank(300, 32), seeded())
    context = masks[:, 0]
    right = (context[:, :, 1:] & context[:, :, :-1]).sum((1, 2))
    scattered = torch.rand(300, 64, generator=seeded()).argsort(1).argsort(1).view(-1, 8, 8) < 16
    chance = (scattered[:, :, 1:] & scattered[:, :, :-1]).sum((1, 2))
    assert right.float().mean() > 2 * chance.float().mean()
    share = context.float().mean(0)
    assert share.min() > 0.05 and len(context.unique(dim=0)) > 290


def test_context_is_what_is_nearest_to_its_centre():
    blocks = TargetBlocks(4, 1)
    found = blocks.apply(blank(1, 32), torch.zeros(1, 1, 3), torch.full((1, 2), 0.999))
    K, t = blocks.counts((1, 3, 32, 32))
    assert found[0, 1, :3, :4].all() and t == 12  # kind 0, at the top left
    assert not found[0, 0, :3, :4].any() and found[0, 0].sum() == K == 52
    assert found[0, 0, 4:, :].all()


def test_blocks_repeat_with_the_generator_and_are_rows_of_their_own():
    blocks = TargetBlocks(4)
    first, again, other = (blocks(blank(20, 32), seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert blocks(torch.zeros(3, 32, 32), seeded()).shape == (5, 8, 8)  # one image


def test_blocks_in_a_recipe():
    views = view_recipe("target_blocks_view", "shapes", 32, [0.5] * 3, [0.25] * 3)
    assert isinstance(views, MultiView) and isinstance(views.transforms[0], Masked)
    images, masks = views(torch.rand(3, 3, 32, 32))
    assert images.shape == (3, 3, 32, 32) and masks.shape == (3, 5, 8, 8)
    options = {"type": "target_blocks_view", "num_targets": 2, "block_scale": [0.2, 0.3]}
    views = view_recipe(options | {"patch_size": 8}, "natural", 224, [0.5] * 3, [0.25] * 3)
    assert views(torch.rand(2, 3, 240, 240))[1].shape == (2, 3, 28, 28)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"patch_size": 0}, "expected numbers"),
        ({"num_targets": 0}, "expected numbers"),
        ({"scale": (0.3, 0.2)}, "0 < from ≤ to ≤ 1"),
        ({"scale": (0.0, 0.2)}, "0 < from ≤ to ≤ 1"),
    ],
)
def test_blocks_refuse_impossible_settings(options, text):
    with pytest.raises(ValueError, match=text):
        TargetBlocks(**options)


def test_blocks_refuse_images_that_do_not_fit():
    with pytest.raises(ValueError, match="resize the images to 32x28 px"):
        TargetBlocks(4).counts((1, 3, 33, 30))
    with pytest.raises(ValueError, match="resize the images to 16x16 px"):
        TargetBlocks(16).counts((1, 3, 8, 30))
    with pytest.raises(ValueError, match="may leave nothing to see"):
        TargetBlocks(4, 6).get_output_shape((1, 3, 32, 32))

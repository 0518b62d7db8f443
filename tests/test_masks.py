"""Masks: exact counts, places, shapes of blocks against the published loop, repeatability, errors."""

import math
import random

import pytest
import torch

from nenya_nb.data.geometry import RandomResizedCrop
from nenya_nb.data.masks import BlockMask, Masked, MaskedCrops, RandomBlockMask, RandomMask
from nenya_nb.data.transforms import MultiView


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def blank(count, height, width=None):
    return torch.zeros(1, 3, 1, 1).expand(count, 3, height, width or height)


def borders(mask):
    "Share of neighbouring pairs of which one is hidden and one is not."
    down, right = mask[:, 1:] ^ mask[:, :-1], mask[:, :, 1:] ^ mask[:, :, :-1]
    return ((down.float().mean() + right.float().mean()) / 2).item()


def beit_mask(h, w, num_masked, smallest, chance):
    "BEiT's loop for one image, with CAE's rule that the number must be right: the rest one by one."
    mask = torch.zeros(h, w, dtype=torch.bool)
    for _ in range(200):
        left = num_masked - int(mask.sum())
        if left == 0:
            break
        area = chance.uniform(smallest, max(left, smallest))
        aspect = math.exp(chance.uniform(math.log(0.3), math.log(1 / 0.3)))
        height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if not (0 < height < h and 0 < width < w):
            continue
        top, start = chance.randint(0, h - height), chance.randint(0, w - width)
        block = torch.zeros_like(mask)
        block[top : top + height, start : start + width] = True
        if 0 < int((block & ~mask).sum()) <= left:
            mask |= block
    free = (~mask).flatten().nonzero()[:, 0].tolist()
    mask.view(-1)[chance.sample(free, num_masked - int(mask.sum()))] = True
    return mask


# Scattered cells


@pytest.mark.parametrize(
    "size, patch_size, mask_size, ratio, cells",
    [(192, 4, 32, 0.6, 22), (32, 4, 8, 0.6, 10), (32, 4, 4, 0.5, 32), ((40, 20), 2, 10, 0.7, 6)],
)
def test_random_mask_hides_exactly_so_many_cells(size, patch_size, mask_size, ratio, cells):
    height, width = (size, size) if isinstance(size, int) else size
    mask = RandomMask(patch_size, mask_size, ratio)(blank(50, height, width), seeded())
    assert mask.shape == (50, height // patch_size, width // patch_size)
    assert mask.dtype == torch.bool
    times = mask_size // patch_size
    assert (mask.sum((1, 2)) == cells * times**2).all()
    tiles = mask.unfold(1, times, times).unfold(2, times, times).flatten(3)
    assert torch.equal(tiles.any(3), tiles.all(3))  # a cell is hidden as a whole


@pytest.mark.parametrize("ratio, hidden", [(0.0, 0), (1.0, 10), (0.7, 7), (0.701, 8), (0.3, 3)])
def test_random_mask_rounds_up_but_not_because_of_rounding_errors(ratio, hidden):
    assert RandomMask(1, 1, ratio)(blank(1, 2, 5)).sum() == hidden


def test_random_mask_hides_every_cell_equally_often_and_independently():
    mask = RandomMask(4, 4, 0.5)(blank(4000, 16), seeded()).flatten(1).float()
    assert (mask.mean(0) - 0.5).abs().max() < 0.04
    correlation = torch.corrcoef(mask.T) - torch.eye(16)
    assert (correlation.sum() / (16 * 15) + 1 / 15).abs() < 0.01  # only through the count
    assert correlation.abs().max() < 1 / 15 + 0.06


# Blocks


@pytest.mark.parametrize(
    "size, patch_size, num_masked",
    [(224, 16, 75), (224, 16, 98), (224, 16, 195), (32, 4, 32), (32, 4, 1), (32, 4, 63), (8, 4, 3)],
)
def test_block_mask_hides_exactly_num_masked(size, patch_size, num_masked):
    mask = BlockMask(num_masked, patch_size)(blank(300, size), seeded())
    assert mask.shape == (300, size // patch_size, size // patch_size) and mask.dtype == torch.bool
    assert (mask.sum((1, 2)) == num_masked).all()


def test_block_mask_of_a_wide_image():
    mask = BlockMask(40, 4)(blank(100, 24, 64), seeded())
    assert mask.shape == (100, 6, 16) and (mask.sum((1, 2)) == 40).all()


@pytest.mark.parametrize("grid, num_masked, smallest", [(14, 75, 16), (14, 98, 16), (8, 32, 5)])
def test_block_mask_is_distributed_as_the_published_loop(grid, num_masked, smallest):
    chance = random.Random(0)
    theirs = torch.stack([beit_mask(grid, grid, num_masked, smallest, chance) for _ in range(600)])
    ours = BlockMask(num_masked, 1)(blank(2000, grid), seeded())
    assert (theirs.sum((1, 2)) == num_masked).all()
    assert (ours.float().mean(0) - theirs.float().mean(0)).abs().max() < 0.12
    assert 0.75 < borders(ours) / borders(theirs) < 1.05
    lonely = borders(torch.rand(200, grid, grid) < num_masked / grid**2)
    assert borders(ours) < 0.6 * lonely


def test_block_mask_differs_between_images_and_stays_inside():
    mask = BlockMask(49, 16)(blank(500, 224), seeded())
    assert len(mask.flatten(1).unique(dim=0)) > 490
    assert mask.any(0).all()  # every place is hidden in some image


def test_block_mask_has_hardly_any_lonely_patch():
    mask = BlockMask(98, 16)(blank(500, 224), seeded()).float()
    around = torch.nn.functional.avg_pool2d(mask, 3, 1, 1) * 9 - mask
    assert ((around == 0) & (mask == 1)).float().sum() < 5


# Both


MASKS = [RandomMask(4, 8, 0.6), RandomMask(2, 2, 0.3), BlockMask(20, 4), BlockMask(5, 8)]


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_masks_are_repeatable_with_a_shape_known_before(mask):
    images = torch.rand(6, 3, 32, 32)
    made = mask(images, seeded(2))
    torch.rand(5)
    assert torch.equal(made, mask(images, seeded(2)))
    assert not torch.equal(made, mask(images, seeded(3)))
    assert list(made.shape) == mask.get_output_shape([6, 3, 32, 32])
    single = mask(images[0], seeded(2))
    assert list(single.shape) == mask.get_output_shape([3, 32, 32])


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_masks_do_not_depend_on_what_is_in_the_images(mask):
    images = torch.rand(6, 3, 32, 32)
    assert torch.equal(mask(images, seeded()), mask(images * 0, seeded()))
    assert torch.equal(mask(images, seeded()), mask(images.double(), seeded()))


@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_masks_treat_each_image_alone(mask):
    images = torch.rand(6, 3, 32, 32)
    parameters = mask.sample(images, seeded())
    whole = mask.apply(images, **parameters)
    for i in range(6):
        row = {name: value[i : i + 1] for name, value in parameters.items()}
        assert torch.equal(mask.apply(images[i : i + 1], **row)[0], whole[i])


def test_masked_gives_the_mask_of_the_crop_and_not_of_the_image():
    pair = Masked(RandomResizedCrop((32, 24)), RandomMask(4, 8, 0.5))
    images = torch.rand(5, 3, 50, 40)
    crops, mask = pair(images, seeded())
    assert pair.get_output_shape([5, 3, 50, 40]) == [[5, 3, 32, 24], [5, 8, 6]]
    assert [list(crops.shape), list(mask.shape)] == [[5, 3, 32, 24], [5, 8, 6]]
    assert mask.dtype == torch.bool and (mask.sum((1, 2)) == 6 * 4).all()
    views = MultiView([pair, RandomResizedCrop(8)])
    assert [v.dtype for v in views(images)] == [torch.float32, torch.bool, torch.float32]
    assert len(views) == 3


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomMask(4, 6), "mask_size is 6, patch_size 4; expected a multiple"),
        (lambda: RandomMask(ratio=-0.1), "ratio is -0.1"),
        (lambda: RandomMask(4, 8)(blank(1, 30)), "30x30 px do not divide.*24x24"),
        (lambda: RandomMask(4, 8).get_output_shape([3, 32, 20]), "32x20 px do not divide"),
        (lambda: RandomMask(4, 32)(blank(1, 16)), "resize the images to 32x32 px"),
        (lambda: BlockMask(0), "num_masked=0"),
        (lambda: BlockMask(5, aspect=(2.0, 1.0)), "aspect"),
        (lambda: BlockMask(196)(blank(1, 224)), "196 patches of 16 px; leave at least one"),
        (lambda: BlockMask(5)(blank(1, 100)), "100x100 px do not divide"),
    ],
)
def test_masks_refuse_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("mask", MASKS, ids=repr)
def test_masks_on_a_gpu_never_wait_for_it(mask):
    images = torch.rand(64, 3, 32, 32, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = mask(images, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert made.is_cuda and len(made.flatten(1).sum(1).unique()) == 1


# A random share, in some images


@pytest.mark.parametrize("size, patch_size", [(32, 4), (224, 16), ((32, 48), 4)])
def test_random_block_mask_keeps_to_its_shares(size, patch_size):
    height, width = (size, size) if isinstance(size, int) else size
    transform = RandomBlockMask(patch_size, (0.1, 0.5), 0.5)
    images = blank(1500, height, width)
    mask, drawn = transform(images, seeded()), transform.sample(images, seeded())
    assert list(mask.shape) == transform.get_output_shape(images.shape) and mask.dtype == torch.bool
    assert torch.equal(mask.sum((1, 2)), drawn["count"][:, 0])
    patches = mask[0].numel()
    share = mask.float().mean((1, 2))
    some = share > 0
    assert abs(some.float().mean() - 0.5) < 0.04
    assert share[some].min() >= int(0.1 * patches) / patches and share.max() < 0.5
    assert abs(share[some].mean() - 0.3) < 0.02
    scattered = torch.rand(some.sum(), patches, generator=seeded()).argsort(1).argsort(1)
    scattered = (scattered < (share[some] * patches).round()[:, None]).view_as(mask[some])
    assert borders(mask[some]) < 0.7 * borders(scattered)  # blocks


def test_random_block_mask_with_one_share_is_block_mask():
    images = blank(50, 32)
    ours = RandomBlockMask(4, (0.5, 0.5), 1.0)
    drawn = ours.sample(images, seeded())
    expected = BlockMask(32, 4).apply(images, drawn["blocks"], drawn["rim"])
    assert torch.equal(ours.apply(images, **drawn), expected)
    assert not RandomBlockMask(4, p=0.0)(images).any()
    assert not RandomBlockMask(4, (0.0, 0.0), 1.0)(images).any()
    assert ours(torch.zeros(3, 32, 32)).shape == (8, 8)


@pytest.mark.parametrize(
    "options, text",
    [
        ({"ratio": (0.5, 0.1)}, "0 ≤ from ≤ to < 1"),
        ({"ratio": (0.5, 1.0)}, "0 ≤ from ≤ to < 1"),
        ({"p": 1.5}, "a probability"),
        ({"patch_size": 0}, "expected numbers from 1"),
    ],
)
def test_random_block_mask_refuses_impossible_settings(options, text):
    with pytest.raises(ValueError, match=text):
        RandomBlockMask(**options)


def test_masked_crops_give_masks_of_the_first_views_last():
    views = MultiView([RandomResizedCrop(32)] * 2 + [RandomResizedCrop(16)] * 3)
    transform = MaskedCrops(views, RandomBlockMask(4, p=1.0))
    made = transform(torch.rand(5, 3, 40, 40), seeded())
    assert [list(v.shape) for v in made] == transform.get_output_shape([5, 3, 40, 40])
    assert len(made) == transform.num_views == len(MultiView([transform])) == 6
    assert made[-1].shape == (5, 2, 8, 8) and not torch.equal(made[-1][:, 0], made[-1][:, 1])
    assert [v.dim() for v in transform(torch.rand(3, 40, 40))] == [3] * 6

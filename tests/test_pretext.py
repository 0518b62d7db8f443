"""Views of the puzzles: the four rotations, and nine patches, pixel by pixel."""

import pytest
import torch

from nenya_nb.data.pretext import FourRotations, PatchPairs
from nenya_nb.data.transforms import Compose, MultiView, RandomHorizontalFlip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def places(count, height, width):
    "Images whose two channels are the row and the column of each pixel."
    rows = torch.arange(float(height))[:, None].expand(height, width)
    columns = torch.arange(float(width)).expand(height, width)
    return torch.stack([rows, columns]).expand(count, 2, height, width)


# Rotations


def test_rotations_are_rot90_counter_clockwise():
    images = torch.rand(5, 3, 12, 12)
    views = FourRotations()(images)
    for k, view in enumerate(views):
        assert torch.equal(view, torch.rot90(images, k, (2, 3)))
    assert torch.equal(views[1][:, :, 0], images[:, :, :, -1])  # the right edge comes up
    assert torch.equal(torch.rot90(views[3], 1, (2, 3)), images)


def test_rotations_take_one_image_and_know_their_shapes():
    image = torch.rand(3, 9, 9)
    assert [v.shape for v in FourRotations()(image)] == [(3, 9, 9)] * 4
    assert FourRotations().get_output_shape([2, 3, 9, 9]) == [[2, 3, 9, 9]] * 4
    chain = MultiView([Compose([RandomHorizontalFlip(), FourRotations()])])
    assert len(chain) == len(chain(image[None])) == 4
    assert chain.get_output_shape([2, 3, 9, 9]) == [[2, 3, 9, 9]] * 4


def test_rotations_refuse_images_that_are_not_square():
    with pytest.raises(ValueError, match=r"8x9 px; expected squares.*CenterCrop\(8\)"):
        FourRotations()(torch.rand(2, 3, 8, 9))
    with pytest.raises(ValueError, match="expected squares"):
        FourRotations().get_output_shape([3, 8, 9])


# Patches


@pytest.mark.parametrize(
    "cell, patch, jitter, size",
    [(16, 12, None, (48, 48)), (16, 16, 0, (48, 48)), (10, 4, 3, (40, 33)), (8, 5, 0, (24, 60))],
)
def test_patches_lie_in_their_cells(cell, patch, jitter, size):
    images = places(300, *size)
    patches = PatchPairs(cell, patch, jitter)(images, seeded())
    corner = torch.stack(patches)[:, :, :, 0, 0].long()  # (9, 300, 2) top and left
    px = torch.arange(patch)
    for view, top, left in zip(patches, *corner.unbind(2), strict=True):
        assert view.shape == (300, 2, patch, patch) and view.is_contiguous()
        assert (view[:, 0] == (top[:, None] + px)[:, :, None]).all()  # whole pieces of the image
        assert (view[:, 1] == (left[:, None] + px)[:, None, :]).all()
    order = torch.tensor([4, 0, 1, 2, 3, 5, 6, 7, 8])
    cells = torch.stack([order // 3, order % 3], dim=1)[:, None] * cell
    inside = corner - cells  # grid's place + place in the cell
    free = cell - patch if jitter is None else jitter
    margin = (cell - patch - free) // 2
    spread = inside.amax(0) - inside.amin(0)
    assert spread.max() <= free and (inside >= margin).all()
    room = torch.tensor(size) - 3 * cell
    assert (inside <= margin + free + room).all()
    if free:
        assert spread.max() == free


def test_patches_reach_all_their_places_equally_often():
    corners = PatchPairs(16, 12).sample(places(6000, 48, 48), seeded())["corners"]
    inside = corners % 16
    assert (inside.flatten().bincount() / inside.numel() - 1 / 5).abs().max() < 0.01
    grid = PatchPairs(4, 4).sample(places(6000, 12, 15), seeded())["corners"][:, 1, 1]
    assert (grid.bincount() / 6000 - 1 / 4).abs().max() < 0.03


def test_neighbours_are_in_reading_order_and_opposite_ones_add_up_to_seven():
    patches = PatchPairs(8, 8)(places(1, 24, 24))
    steps = torch.stack([patch[0, :, 0, 0] - patches[0][0, :, 0, 0] for patch in patches[1:]]) / 8
    expected = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]
    assert steps.tolist() == [list(map(float, step)) for step in expected]
    assert torch.equal(steps.flip(0), -steps)


def test_patches_of_each_image_lie_elsewhere_and_are_repeatable():
    grid, images = PatchPairs(16, 12), places(64, 60, 48)
    corners = grid.sample(images, seeded())["corners"]
    assert len(corners.flatten(1).unique(dim=0)) == 64
    first = grid(images, seeded(3))
    assert all(torch.equal(a, b) for a, b in zip(first, grid(images, seeded(3)), strict=True))
    single = grid(images[0], seeded(3))
    assert [p.shape for p in single] == [(2, 12, 12)] * 9
    assert grid.get_output_shape([64, 2, 60, 48]) == [[64, 2, 12, 12]] * 9
    assert len(MultiView([grid])) == 9


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_patches_keep_type_and_gradient(dtype):
    images = torch.rand(2, 3, 24, 24, dtype=dtype, requires_grad=True)
    patches = PatchPairs(8, 6)(images)
    sum(patch.sum() for patch in patches).backward()
    assert patches[0].dtype == dtype and images.grad.sum() == 2 * 3 * 9 * 36


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: PatchPairs(8, 9), "cell_size=8, patch_size=9"),
        (lambda: PatchPairs(8, 6, 3), "jitter=3"),
        (lambda: PatchPairs(8, 6, -1), "jitter=-1"),
        (lambda: PatchPairs(8, 6)(places(1, 24, 23)), r"smaller than 3 cells.*Resize\(24\)"),
    ],
)
def test_patches_refuse_what_does_not_fit(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_patches_on_a_gpu_never_wait_for_it():
    images = torch.rand(8, 3, 48, 48, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        patches = PatchPairs(16, 12)(images, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert patches[8].is_cuda

"""Recipes: how many views, of which size and kind, for every style; options, defaults of the papers, errors."""

import pytest
import torch

from nenya_nb.data.colour import ColorJitter, GaussianBlur, RandomGrayscale, RandomSolarize
from nenya_nb.data.geometry import RandomResizedCrop, RandomRotation
from nenya_nb.data.recipes import view_recipe
from nenya_nb.data.transforms import Compose, MultiView, RandomHorizontalFlip
from nenya_nb.data.views import digits_view, shapes_view

RECIPES = {
    "one_view": 1,
    "two_views": 2,
    "asymmetric_views": 2,
    "multi_crop": 8,
    "masked_view": 2,
    "block_masked_view": 2,
    "target_blocks_view": 2,
    "masked_multi_crop": 9,
    "rotations": 4,
    "patch_pairs": 9,
    "cluster_view": 1,
}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def make(recipe, style="natural", size=224, channels=3):
    return view_recipe(recipe, style, size, [0.5] * channels, [0.25] * channels)


def part(view, kind):
    "The transform of that kind in a view, or None."
    return next((t for t in view.transforms if isinstance(t, kind)), None)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("style", ["natural", "digits", "shapes"])
@pytest.mark.parametrize("size", [32, 64, (96, 96)])
def test_recipe_gives_its_views_with_the_shapes_it_said(name, style, size):
    side = size if isinstance(size, int) else size[0]
    images = torch.rand(3, 3, side, side)
    views = make(name, style, size)
    made = views(images, seeded())
    assert len(made) == len(views) == RECIPES[name]
    assert [list(v.shape) for v in made] == views.get_output_shape([3, 3, side, side])
    assert all(len(v) == 3 for v in made)
    again = views(images, seeded())
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))
    assert all(v.isfinite().all() for v in made)


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "rotations"])
def test_recipe_for_images_that_are_not_square_and_grey(name):
    views = make(name, "natural", (64, 96), channels=1)
    made = views(torch.rand(2, 1, 64, 96))
    assert [list(v.shape) for v in made] == views.get_output_shape([2, 1, 64, 96])


@pytest.mark.parametrize("name", RECIPES)
def test_small_images_and_other_styles_are_never_blurred_or_solarized(name):
    text = [repr(make(name, style, size)) for style, size in (("natural", 32), ("shapes", 224))]
    assert all("Blur" not in t and "Solarize" not in t for t in text)


def test_asymmetric_views_are_byols():
    first, second = make("asymmetric_views").transforms
    assert [part(v, GaussianBlur).p for v in (first, second)] == [1.0, 0.1]
    assert part(first, RandomSolarize) is None and part(second, RandomSolarize).p == 0.2
    for view in (first, second):
        assert part(view, RandomResizedCrop).scale == (0.08, 1.0)
        assert part(view, ColorJitter).saturation == pytest.approx((0.8, 1.2))
    first, second = make({"type": "asymmetric_views", "scale": (0.2, 1.0)}).transforms
    assert part(second, RandomResizedCrop).scale == (0.2, 1.0)


@pytest.mark.parametrize("size, local", [(224, 96), (32, 16), (64, 28), (96, 44), (28, 12)])
def test_multi_crop_small_views_have_three_sevenths(size, local):
    shapes = make("multi_crop", size=size).get_output_shape([2, 3, size, size])
    assert [s[-1] for s in shapes] == [size] * 2 + [local] * 6


def test_multi_crop_is_swavs_for_photographs_and_milder_for_others():
    def scales(views):
        return [
            part(v, RandomResizedCrop).scale for v in (views.transforms[0], views.transforms[-1])
        ]

    assert scales(make("multi_crop")) == [(0.14, 1.0), (0.05, 0.14)]
    assert part(make("multi_crop").transforms[0], ColorJitter).hue == (-0.2, 0.2)
    assert part(make("multi_crop", size=32).transforms[0], ColorJitter).hue == (-0.1, 0.1)
    assert scales(make("multi_crop", "shapes", 32)) == [(0.5, 1.0), (0.2, 0.5)]


def test_multi_crop_is_dinos_on_demand():
    dino = {"type": "multi_crop", "asymmetric": True, "global_scale": [0.4, 1.0]}
    views = make(dino | {"local_scale": [0.05, 0.4], "num_local": 8}).transforms
    assert len(views) == 10
    assert [part(v, GaussianBlur).p for v in views] == [1.0, 0.1] + [0.5] * 8
    assert part(views[1], RandomSolarize).p == 0.2 and part(views[2], RandomSolarize) is None
    assert {part(v, ColorJitter).hue for v in views} == {(-0.1, 0.1)}
    assert part(views[0], RandomResizedCrop).scale == (0.4, 1.0)


@pytest.mark.parametrize("name, scale", [("masked_view", 0.67), ("block_masked_view", 0.08)])
def test_masked_views_change_no_colour(name, scale):
    (masked,) = make(name).transforms
    kinds = [type(t).__name__ for t in masked.view.transforms]
    assert kinds == ["RandomResizedCrop", "RandomHorizontalFlip", "Normalize"]
    assert part(masked.view, RandomResizedCrop).scale == (scale, 1.0)


def test_masks_have_the_size_of_the_papers_or_the_one_asked_for():
    _, mask = make({"type": "masked_view"}, size=192)(torch.rand(2, 3, 192, 192))
    assert mask.shape == (2, 48, 48) and (mask.sum((1, 2)) == 22 * 64).all()  # 22 of 36 cells
    _, mask = make({"type": "block_masked_view", "num_masked": 75})(torch.rand(2, 3, 224, 224))
    assert mask.shape == (2, 14, 14) and (mask.sum((1, 2)) == 75).all()
    options = {"type": "masked_view", "patch_size": 4, "mask_size": 8, "ratio": 0.6}
    _, mask = make(options, "shapes", 32)(torch.rand(2, 3, 32, 32))
    assert mask.shape == (2, 8, 8) and (mask.sum((1, 2)) == 10 * 4).all()
    _, mask = make("block_masked_view", "shapes", 32)(torch.rand(2, 3, 32, 32))
    assert mask.shape == (2, 8, 8) and (mask.sum((1, 2)) == 32).all()


def test_rotations_of_photographs_are_cropped_and_mirrored_only():
    (chain,) = make("rotations").transforms
    kinds = [type(t).__name__ for t in chain.transforms[0].transforms]
    assert kinds == ["RandomResizedCrop", "RandomHorizontalFlip", "Normalize"]
    images = torch.rand(3, 3, 32, 32)
    views = make("rotations", "shapes", 32)(images, seeded())
    assert all(torch.equal(views[k], views[0].rot90(k, (2, 3))) for k in range(4))


@pytest.mark.parametrize(
    "style, size, cell, patch",
    [("shapes", 32, 16, 12), ("natural", 224, 84, 64), ("natural", 32, 16, 12)],
)
def test_patch_pairs_scale_with_the_image(style, size, cell, patch):
    (chain,) = make("patch_pairs", style, size).transforms
    grid = chain.transforms[-1]
    assert (grid.cell_size, grid.patch_size, grid.jitter) == (cell, patch, cell - patch)
    whole = chain.transforms[0].get_output_shape([1, 3, size, size])[-1]
    assert whole == (3 * cell if style == "shapes" else round(3 * cell * 8 / 7))
    options = {"type": "patch_pairs", "cell_size": 10, "patch_size": 6, "jitter": 2}
    grid = make(options, style, size).transforms[0].transforms[-1]
    assert (grid.cell_size, grid.patch_size, grid.jitter) == (10, 6, 2)


def test_patch_pairs_take_the_colour_from_photographs():
    (chain,) = make("patch_pairs").transforms
    assert part(chain.transforms[0], RandomGrayscale).p == 0.66
    assert part(chain.transforms[0], RandomHorizontalFlip) is None


def test_cluster_view_is_turned_a_little():
    for style in ("natural", "digits", "shapes"):
        (view,) = make("cluster_view", style).transforms
        assert part(view, RandomRotation).degrees == (-2.0, 2.0)
    (view,) = make("cluster_view").transforms
    assert part(view, ColorJitter).hue == (-0.5, 0.5) and part(view, RandomHorizontalFlip)


@pytest.mark.parametrize("name", ["one_view", "two_views"])
def test_plain_views_are_the_style(name):
    views = make(name, "shapes", 32)
    expected = MultiView([shapes_view(32, [0.5] * 3, [0.25] * 3)] * RECIPES[name])
    assert repr(views) == repr(expected)
    mild = {"type": name, "strength": 0, "scale": (0.2, 1.0)}  # MAE's
    kinds = [type(t).__name__ for t in make(mild).transforms[0].transforms]
    assert kinds == ["RandomResizedCrop", "RandomHorizontalFlip", "Normalize"]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_takes_a_style_of_ones_own(name):
    def upside(size, mean, std, strength=0.5, scale=(0.3, 1.0), rotation=180.0) -> Compose:
        return digits_view(size, mean, std, strength, scale, rotation)

    assert len(make(name, upside, 32)(torch.rand(2, 3, 32, 32))) == RECIPES[name]


def test_size_may_differ_from_the_images():
    views = make({"type": "two_views", "size": 24}, "shapes", 32)
    assert views.get_output_shape([2, 3, 32, 32]) == [[2, 3, 24, 24]] * 2


def test_the_recipe_given_is_not_changed():
    recipe = {"type": "multi_crop", "num_local": 1}
    make(recipe)
    assert recipe == {"type": "multi_crop", "num_local": 1}


@pytest.mark.parametrize(
    "recipe, message",
    [
        ("two_vews", "recipe 'two_vews'. Did you mean 'two_views'"),
        ({"num_local": 2}, "Unknown recipe None"),
        ({"type": "multicrop"}, "Did you mean 'multi_crop'"),
        ({"type": "multi_crop", "n_local": 2}, "option of multi_crop 'n_local'. Did you mean"),
        ({"type": "two_views", "mean": [0.1]}, "option of two_views 'mean'"),
        ({"type": "multi_crop", "num_global": 0}, "num_global is 0"),
        ({"type": "masked_view", "mask_size": 48}, "224x224 px do not divide"),
        ({"type": "block_masked_view", "num_masked": 196}, "leave at least one"),
        ({"type": "patch_pairs", "cell_size": 20, "patch_size": 24}, "patch_size=24"),
    ],
)
def test_wrong_recipes_are_refused_before_the_first_batch(recipe, message):
    with pytest.raises(ValueError, match=message):
        make(recipe)


def test_wrong_style_and_shape_are_refused():
    with pytest.raises(ValueError, match="Unknown style 'moons'"):
        make("two_views", "moons")
    with pytest.raises(ValueError, match="expected squares"):
        make("rotations", size=(64, 96))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("style", ["natural", "shapes"])
def test_recipes_on_a_gpu_never_wait_for_it(name, style):
    views = make(name, style, 64)
    images = torch.rand(16, 3, 64, 64, device="cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = views(images, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(v.is_cuda for v in made)

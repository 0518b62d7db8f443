"""Data sets: what is in them, that they are the same every time, and that they refuse what does not fit."""

import importlib
import math
import pkgutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits as sklearn_digits
from torch.utils.data import DataLoader

import nenya_nb.data as data
from nenya_nb.data.datasets import ImageDataset, image_statistics
from nenya_nb.data.load import load_dataset
from nenya_nb.data.pictures import image_grid, show_images
from nenya_nb.data.shapes import SHAPES, draw_shapes, shape_distance
from nenya_nb.data.views import shapes_view


def bytes_like(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8)


@pytest.fixture(scope="module")
def shapes():
    return load_dataset("shapes"), load_dataset("shapes", "test")


@pytest.fixture(scope="module")
def digits():
    return load_dataset("digits"), load_dataset("digits", "test")


def knn(train, test, k=20):
    "Cosine vote of the k nearest, weighted by exp(s / 0.07), on normalised pixels."
    a, b = (F.normalize(d.batch().flatten(1), dim=1) for d in (train, test))
    similarity, nearest = (b @ a.T).topk(k)
    votes = torch.zeros(len(b), 10).scatter_add_(
        1, train.targets[nearest], (similarity / 0.07).exp()
    )
    return (votes.argmax(1) == test.targets).float().mean().item()


# Shapes


def test_shapes_are_the_same_every_time():
    images, targets = draw_shapes(300, seed=7)
    again = draw_shapes(300, seed=7)
    assert torch.equal(images, again[0]) and torch.equal(targets, again[1])
    assert not torch.equal(images, draw_shapes(300, seed=8)[0])
    torch.rand(3)
    assert int(images.sum()) == int(draw_shapes(300, seed=7)[0].sum())


def test_shapes_do_not_depend_on_the_size_of_the_blocks_they_are_drawn_in():
    "Place, colour and class are drawn before the pixels: a larger image shows the same scene."
    small, targets = draw_shapes(8, size=16, difficulty=0.0, seed=3)
    large, again = draw_shapes(8, size=64, difficulty=0.0, seed=3)
    assert torch.equal(targets, again)
    shrunk = F.avg_pool2d(large.float(), 4)
    assert (shrunk - small.float()).abs().mean() < 6


def test_shapes_splits_are_disjoint_parts_of_all(shapes):
    train, test = shapes
    everything = load_dataset("shapes", "all")
    assert torch.equal(torch.cat([train.images, test.images]), everything.images)
    assert torch.equal(torch.cat([train.targets, test.targets]), everything.targets)
    assert train.mean == test.mean == everything.mean and len(train) == 5000 and len(test) == 1000


def test_shapes_are_balanced_synthetic_and_32_px(shapes):
    train, test = shapes
    assert train.images.shape == (5000, 3, 32, 32) and train.images.dtype == torch.uint8
    assert (train.targets.bincount() + test.targets.bincount()).tolist() == [600] * 10
    assert train.synthetic and train.classes == list(SHAPES) and train.name == "shapes"


def test_shapes_are_too_hard_for_raw_pixels_but_not_hopeless(shapes):
    assert 0.5 < knn(*shapes) < 0.7


def test_shapes_color_is_no_clue(shapes):
    train, test = shapes
    colors = [d.images.float().mean((2, 3)) for d in (train, test)]
    nearest = torch.cdist(colors[1], colors[0]).topk(20, largest=False).indices
    accuracy = (train.targets[nearest].mode(1).values == test.targets).float().mean()
    assert accuracy < 0.15


def test_shapes_difficulty_makes_pixels_worse():
    accuracy = []
    for difficulty in (0.3, 0.7, 1.3):
        options = dict(count=1800, difficulty=difficulty)
        accuracy.append(
            knn(load_dataset("shapes", **options), load_dataset("shapes", "test", **options))
        )
    assert accuracy[0] > 0.97 and accuracy[0] > accuracy[1] > accuracy[2]


def clean(name, degrees=0.0, mirror=False, size=64):
    axis = (torch.arange(size) + 0.5) * 2.2 / size - 1.1
    x, y = axis.expand(size, size), -axis[:, None].expand(size, size)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = x * cos + y * sin, y * cos - x * sin
    return shape_distance(name, -x if mirror else x, y) < 0


def overlap(a, b):
    return ((a & b).sum() / (a | b).sum()).item()


@pytest.mark.parametrize("name", SHAPES)
def test_shape_is_told_from_all_others_within_its_rotations(name):
    for degrees in (-15, -8, 8, 15):
        turned = clean(name, degrees)
        scores = {other: overlap(turned, clean(other)) for other in SHAPES}
        assert max(scores, key=scores.get) == name


@pytest.mark.parametrize("name", SHAPES)
def test_shape_has_no_twin_in_any_orientation(name):
    "Neither another shape, turned or mirrored, nor its own larger turns come close."
    upright = clean(name)
    for degrees in range(0, 360, 15):
        for mirror in (False, True):
            for other in SHAPES:
                same = other == name and (mirror or degrees <= 45 or degrees >= 315)
                assert same or overlap(upright, clean(other, degrees, mirror)) < 0.8, (
                    other,
                    degrees,
                )


@pytest.mark.parametrize("name", SHAPES)
def test_shape_lies_within_its_square_and_is_antialiased_right(name):
    axis = torch.linspace(-1.3, 1.3, 131)
    distance = shape_distance(name, axis.expand(131, 131), -axis[:, None].expand(131, 131))
    inside = distance < 0
    assert 0.1 < inside.float().mean() * 2.6**2 / 4 < 0.7
    assert not inside[axis.abs() > 1.01].any() and not inside[:, axis.abs() > 1.01].any()
    slope = torch.stack(torch.gradient(distance, spacing=(axis, axis))).norm(dim=0)
    assert slope.median() > 0.95 and slope.quantile(0.99) < 1.05  # a distance


@pytest.mark.parametrize("wrong", [dict(count=0), dict(size=4), dict(difficulty=2.5)])
def test_draw_shapes_refuses_impossible_options(wrong):
    with pytest.raises(ValueError, match="draw_shapes: count="):
        draw_shapes(**{"count": 10, **wrong})


def test_shape_distance_unknown_name():
    with pytest.raises(ValueError, match="Did you mean 'crown'"):
        shape_distance("crow", torch.zeros(1), torch.zeros(1))


# Digits


def test_digits_are_scikit_learns(digits):
    original = sklearn_digits()
    everything = load_dataset("digits", "all", size=8)
    assert len(everything) == 1797 and everything.targets.tolist() == original.target.tolist()
    expected = torch.from_numpy(original.images / 16 * 255).round()
    assert (everything.images[:, 0].double() - expected).abs().max() <= 1


def test_digits_split_is_fixed_stratified_and_complete(digits):
    train, test = digits
    assert (len(train), len(test)) == (1442, 355)
    share = test.targets.bincount() / (test.targets.bincount() + train.targets.bincount())
    assert (share - 0.2).abs().max() < 0.01
    assert torch.equal(test.images, load_dataset("digits", "test").images)
    known = {bytes(i.numpy().tobytes()) for i in train.images}
    assert not any(i.numpy().tobytes() in known for i in test.images)


def test_digits_are_easy_for_raw_pixels(digits):
    assert knn(*digits) > 0.95 and not digits[0].synthetic


@pytest.mark.parametrize("channels", [1, 3])
def test_digits_channels_are_equal(channels):
    images = load_dataset("digits", "test", channels=channels, size=20).images
    assert images.shape == (355, channels, 20, 20) and (images == images[:, :1]).all()


# By name


def test_load_dataset_unknown_names_are_explained():
    with pytest.raises(ValueError, match="Did you mean 'digits'"):
        load_dataset("digit")
    with pytest.raises(ValueError, match="Did you mean 'train'"):
        load_dataset("digits", "trai")
    with pytest.raises(ValueError, match="Did you mean 'cifar10'"):
        load_dataset("cifar11")
    with pytest.raises(TypeError, match=r"ImageDataset\(images, targets\)"):
        load_dataset(torch.zeros(2, 3, 4, 4))
    with pytest.raises(FileNotFoundError, match="nowhere/flowers"):
        load_dataset("nowhere/flowers")
    with pytest.raises(TypeError, match="colour"):
        load_dataset("shapes", colour="red")
    with pytest.raises(ValueError, match="channels is 2"):
        load_dataset("digits", channels=2)


# ImageDataset


def test_image_dataset_is_a_torch_dataset(digits):
    images, targets = next(iter(DataLoader(digits[1], batch_size=7)))
    assert images.shape == (7, 3, 32, 32) and images.dtype == torch.float32
    assert torch.equal(images, digits[1].batch(slice(0, 7))) and targets.dtype == torch.int64


def test_batch_takes_any_index_and_is_normalised(shapes):
    train, _ = shapes
    batch = train.batch()
    assert batch.mean().abs() < 1e-3 and (batch.std() - 1).abs() < 1e-3
    rows = [5, 2, 9]
    for index in (rows, torch.tensor(rows)):
        torch.testing.assert_close(train.batch(index), batch[rows])
    torch.testing.assert_close(train.batch(slice(3, 8)), batch[3:8])
    assert train.batch(rows, device="meta").device.type == "meta"


def test_subset_keeps_statistics_and_description(shapes):
    part = shapes[0].subset(shapes[0].targets == 3)
    assert (part.targets == 3).all() and part.mean == shapes[0].mean
    assert (part.style, part.synthetic, part.classes) == ("shapes", True, list(SHAPES))


def test_image_statistics_are_exact():
    images = bytes_like(9, 4, 5, 7)
    mean, std = image_statistics(images)
    scaled = images.double() / 255
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), scaled.mean((0, 2, 3)))
    torch.testing.assert_close(
        torch.tensor(std, dtype=torch.float64), scaled.std((0, 2, 3), correction=0)
    )


@pytest.mark.parametrize("offset", [0.0, 290.0, -1e4])
def test_image_statistics_of_floats_are_numpys_whatever_the_mean(offset):
    images = torch.randn(300, 3, 17, 13) * torch.tensor([0.01, 1, 5])[:, None, None] + offset
    mean, std = image_statistics(images)
    array = images.numpy().astype("float64")
    np.testing.assert_allclose(mean, array.mean((0, 2, 3)), atol=1e-9 + abs(offset) * 1e-12)
    np.testing.assert_allclose(std, array.std((0, 2, 3)), rtol=1e-9)


def test_image_statistics_of_a_few_rows_are_those_of_evenly_spread_ones():
    images = bytes_like(101, 1, 4, 4)
    assert image_statistics(images, limit=5) == image_statistics(images[[0, 25, 50, 75, 100]])


def test_floats_keep_their_values_and_any_number_of_channels():
    array = np.random.default_rng(0).normal(15, 4, (12, 5, 16, 16))
    fields = ImageDataset(array, np.arange(12) % 3, name="fields")
    assert fields.images.dtype == torch.float32 and fields.style == "fields"
    np.testing.assert_allclose(fields.images.numpy(), array, rtol=1e-6)
    np.testing.assert_allclose(fields.normalize.undo(fields.batch()).numpy(), array, rtol=1e-4)
    views, targets = next(iter(fields.loader(6, seed=1)))
    assert [v.shape for v in views] == [(6, 5, 16, 16)] * 2 and targets.max() <= 2
    for view in views:
        assert view.mean((2, 3)).abs().max() < 1e-5
    assert fields.subset([1, 2]).style == "fields" and fields[3][0].shape == (5, 16, 16)


def test_floats_from_0_to_1_can_be_photographs():
    bytes_ = bytes_like(8, 3, 16, 16)
    photos = ImageDataset(bytes_.float() / 255, style="natural")
    assert photos.mean == pytest.approx(ImageDataset(bytes_).mean)
    a, b = (next(iter(d.loader(4, seed=2)))[0] for d in (photos, ImageDataset(bytes_)))
    torch.testing.assert_close(a, b)


def test_constant_images_can_be_normalised():
    assert ImageDataset(torch.zeros(3, 1, 4, 4, dtype=torch.uint8)).batch().isfinite().all()


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(images=bytes_like(2, 3, 4, 4).int()), TypeError, r"images\.float\(\)"),
        (dict(images=[1, 2]), TypeError, "images are list"),
        (dict(images=bytes_like(2, 8, 8, 3)), ValueError, "channels last"),
        (dict(images=bytes_like(2, 6, 8, 3)), ValueError, "channels last"),
        (dict(images=torch.full((2, 1, 4, 4), math.nan)), ValueError, "32 values of 32 are NaN"),
        (dict(images=torch.rand(2, 3, 4, 4) * 9, style="natural"), ValueError, "style='fields'"),
        (dict(images=bytes_like(2, 3, 4, 4), mean=[0.5], std=[0.2]), ValueError, "1 means for 3"),
        (dict(images=bytes_like(2, 8, 8)), ValueError, r"images\[:, None\]"),
        (dict(images=bytes_like(3, 4, 4)), ValueError, r"expected \(N, C, H, W\)"),
        (dict(images=bytes_like(0, 3, 4, 4)), ValueError, "N ≥ 1"),
        (dict(images=bytes_like(2, 3, 4, 4), targets=[0, 1, 2]), ValueError, "2 images"),
        (dict(images=bytes_like(2, 3, 4, 4), targets=[0, 2], classes=["a"]), ValueError, "class"),
        (
            dict(images=bytes_like(3, 3, 4, 4), targets=list("abc")),
            TypeError,
            "'a', 'b'.*np.unique",
        ),
        (dict(images=bytes_like(2, 3, 4, 4), targets=[0, 0.5]), TypeError, "0, 0.5 .*whole number"),
    ],
)
def test_image_dataset_refuses_what_does_not_fit(arguments, error, message):
    with pytest.raises(error, match=message):
        ImageDataset(**arguments)


@pytest.mark.parametrize("given", ["mean", "std"])
def test_a_mean_or_a_spread_alone_is_kept(given):
    images = bytes_like(4, 3, 8, 8)
    measured, data = ImageDataset(images), ImageDataset(images, **{given: [0.1, 0.2, 0.3]})
    other = {"mean": "std", "std": "mean"}[given]
    assert getattr(data, given) == [0.1, 0.2, 0.3]
    assert getattr(data, other) == getattr(measured, other)


def test_image_dataset_without_classes():
    plain = ImageDataset(bytes_like(4, 3, 8, 8))
    assert plain.targets.tolist() == [-1] * 4 and plain.classes == [] and plain.style == "natural"
    assert plain[0][1] == -1


def test_recipe_and_loader_fit_the_images(digits):
    views = digits[0].recipe()
    assert views.get_output_shape([5, 3, 32, 32]) == [[5, 3, 32, 32]] * 2
    loader = digits[0].loader(batch_size=50, recipe="one_view", seed=4, shuffle=False)
    (view,), targets = next(iter(loader))
    assert view.shape == (50, 3, 32, 32) and torch.equal(targets, digits[0].targets[:50])
    assert loader.dataset is digits[0] and loader.seed == 4


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("style", ["natural", "shapes", "digits"])
def test_views_of_any_number_of_channels(channels, style):
    images = torch.randint(256, (6, channels, 16, 16), dtype=torch.uint8)
    data = ImageDataset(images, torch.arange(6), style=style)
    (first, second), _ = next(iter(data.loader(batch_size=6)))
    assert first.shape == second.shape == (6, channels, 16, 16) and not torch.equal(first, second)


def test_recipe_takes_options_and_loader_row_numbers(digits):
    crops = digits[0].recipe({"type": "multi_crop", "num_local": 3, "local_size": 12})
    assert crops.get_output_shape([5, 3, 32, 32]) == [[5, 3, 32, 32]] * 2 + [[5, 3, 12, 12]] * 3
    recipe = {"type": "masked_view", "patch_size": 4, "mask_size": 8, "ratio": 0.5}
    loader = digits[0].loader(batch_size=20, recipe=recipe, targets="index", shuffle=False)
    (images, mask), rows = next(iter(loader))
    assert images.shape == (20, 3, 32, 32) and mask.sum() == 20 * 32
    assert torch.equal(rows, torch.arange(20))


def test_a_style_of_ones_own_is_a_function():
    images = ImageDataset(bytes_like(4, 3, 8, 8), style=shapes_view)
    assert repr(images.recipe()) == repr(
        ImageDataset(images.images, images.targets, style="shapes").recipe()
    )


def test_repr_says_synthetic_where_it_is(shapes, digits):
    assert repr(shapes[1]) == "ImageDataset('shapes': 1000 synthetic images 3x32x32, 10 classes)"
    assert "synthetic" not in repr(digits[0])


# Pictures and the whole


@pytest.mark.parametrize("count, columns", [(1, 8), (5, 2), (8, 4), (9, 4)])
def test_image_grid_puts_each_image_in_its_place(count, columns):
    images = torch.rand(count, 3, 4, 6)
    grid = image_grid(images, columns, pad=2)
    columns = min(columns, count)
    assert grid.shape == (math.ceil(count / columns) * 6 - 2, columns * 8 - 2, 3)
    for i, image in enumerate(images):
        top, left = i // columns * 6, i % columns * 8
        assert torch.equal(grid[top : top + 4, left : left + 6], image.permute(1, 2, 0))


def test_show_draws_on_given_axes(digits):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    ImageDataset(torch.randn(4, 2, 8, 8) + 290, notes=["of the sea"]).show()
    fig, axes = plt.subplots(1, 2)
    digits[1].show(ax=axes[0], rows=1)
    show_images(list(torch.rand(3, 1, 5, 5)), ax=axes[1])
    assert [len(ax.images) for ax in axes] == [1, 1] and len(axes[0].texts) == 8
    ImageDataset(bytes_like(3, 3, 4, 4)).show()
    some = ImageDataset(bytes_like(3, 3, 4, 4), [1, -1, 0], ["cat", "truck"])
    fig, ax = plt.subplots()
    some.show(ax=ax)
    assert [text.get_text() for text in ax.texts] == ["truck", "?", "cat"]
    plt.close("all")


def test_star_import_brings_what_the_modules_define():
    modules = [f"{data.__name__}.{found.name}" for found in pkgutil.iter_modules(data.__path__)]
    defined = [name for m in modules for name in importlib.import_module(m).__all__]
    assert len(defined) == len(set(defined)) and set(data.__all__) == set(defined)

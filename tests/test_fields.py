"""Views of measured fields against NumPy and SciPy, which know nothing of batches: filling, mirrors, turns, crops, noise, means."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from nenya_nb.data import ImageDataset
from nenya_nb.data.fields import (
    Demean,
    RandomJitterCrop,
    RandomNoise,
    RandomVerticalFlip,
    fields_view,
    fill_missing,
)
from nenya_nb.data.geometry import RandomRotation
from nenya_nb.data.transforms import RandomHorizontalFlip

KELVIN = 285.0


def sea(count=6, channels=1, size=(64, 64), seed=0):
    "Smooth fields in kelvin, each at a temperature of its own: (B, C, H, W) float32."
    random = np.random.default_rng(seed)
    waves = random.normal(size=(count, channels, *size))
    smooth = ndimage.gaussian_filter(waves, (0, 0, 3, 3), mode="wrap")
    smooth = smooth / smooth.std() + KELVIN + 10 * random.random((count, channels, 1, 1))
    return torch.from_numpy(smooth.astype("float32"))


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


# Missing px


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_fill_missing_is_numpys_nanmean_of_each_channel(channels, share):
    images, random = sea(5, channels, (16, 24)), np.random.default_rng(1)
    holes = random.random(images.shape) < share
    given = images.numpy().copy()
    given[holes] = random.choice([np.nan, np.inf, -np.inf], holes.sum())
    before = given.copy()
    filled, missing = fill_missing(torch.from_numpy(given))
    known = np.where(holes, np.nan, images.numpy()).reshape(5, channels, -1)
    mean = np.zeros((5, channels))
    some = ~np.isnan(known).all(2)
    mean[some] = np.nanmean(known[some].astype("float64"), axis=1)  # 0 where all are missing
    expected = np.where(holes, mean[:, :, None, None], images.numpy())
    np.testing.assert_allclose(filled.numpy(), expected, rtol=1e-5)
    assert missing.tolist() == holes.sum((1, 2, 3)).tolist() and missing.dtype == torch.int64
    np.testing.assert_array_equal(given, before)


def test_fill_missing_returns_whole_images_themselves():
    images = sea()
    filled, missing = fill_missing(images)
    assert filled is images and not missing.any()


def test_data_set_reports_missing_px_and_says_what_to_do():
    images = sea()
    images[2, 0, :2] = torch.nan
    with pytest.raises(ValueError, match="128 values of 24576 are NaN or infinite.*fill_missing"):
        ImageDataset(images)
    assert len(ImageDataset(fill_missing(images)[0])) == 6


# Means


@pytest.mark.parametrize("shape", [(4, 1, 64, 64), (3, 5, 17, 40), (1, 2, 1, 1)])
def test_demean_is_numpys_mean_of_each_channel(shape):
    images = sea(*shape[:2], shape[2:])
    expected = images.numpy().astype("float64")
    expected -= expected.mean((2, 3), keepdims=True)
    ours = Demean()(images)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-4)  # of 300 kelvin
    assert ours.mean((2, 3)).abs().max() < 1e-4
    assert torch.equal(Demean()(images[0]), ours[0])
    torch.testing.assert_close(Demean()(images + 12.5), ours, atol=2e-4, rtol=0)


def test_demean_of_missing_px_shows_why_they_are_filled_first():
    images = sea(2)
    images[1, 0, 0, 0] = torch.nan
    ours = Demean()(images)
    assert ours[0].isfinite().all() and not ours[1].isfinite().any()


# Mirrors and turns


@pytest.mark.parametrize(
    "flip, axis", [(RandomVerticalFlip, 2), (RandomHorizontalFlip, 3)], ids=["down", "left"]
)
def test_mirrors_are_numpys_and_only_where_chosen(flip, axis):
    images = sea(32, 2, (9, 14))
    mirror = flip(0.5)
    chosen = mirror.sample(images, seeded())["flip"]
    assert 0 < chosen.sum() < 32
    expected = np.where(
        chosen.numpy()[:, None, None, None], np.flip(images.numpy(), axis), images.numpy()
    )
    np.testing.assert_array_equal(mirror.apply(images, chosen).numpy(), expected)
    assert torch.equal(flip(1.0)(flip(1.0)(images)), images) and torch.equal(
        flip(0.0)(images), images
    )


@pytest.mark.parametrize("size", [(64, 64), (33, 33), (40, 56)])
@pytest.mark.parametrize("degrees", [-170.0, -45.0, 3.0, 30.0, 90.0, 180.0])
def test_rotation_is_scipys_in_the_inner_circle(size, degrees):
    images = sea(2, 2, size)
    turned = RandomRotation(180, "reflection").apply(images, torch.full((2,), degrees)).numpy()
    expected = ndimage.rotate(images.numpy().astype("float64"), degrees, (3, 2), False, order=1)
    y, x = (np.arange(n) - (n - 1) / 2 for n in size)
    inside = np.hypot(y[:, None], x) < min(size) / 2 - 1
    np.testing.assert_allclose(turned[..., inside], expected[..., inside], atol=2e-3)  # of 1 kelvin


@pytest.mark.parametrize("quarter", [-1, 0, 1, 2])
def test_rotation_by_quarters_is_numpys_rot90_to_the_edge(quarter):
    images = sea(3)
    degrees = torch.full((3,), 90.0 * quarter)
    for padding in ("zeros", "border", "reflection"):
        turned = RandomRotation(180, padding).apply(images, degrees).numpy()[..., 1:-1, 1:-1]
        expected = np.rot90(images.numpy(), quarter, (2, 3))[..., 1:-1, 1:-1]
        np.testing.assert_allclose(turned, expected, atol=2e-3)


def test_rotation_invents_no_temperatures_when_edges_are_reflected():
    images = sea()
    turned = RandomRotation(180, "reflection")(images, seeded())
    low, high = images.amin((2, 3)), images.amax((2, 3))
    assert (turned.amin((2, 3)) >= low - 1e-3).all() and (turned.amax((2, 3)) <= high + 1e-3).all()
    black = RandomRotation((45, 45))(images)
    assert black.amin() == 0  # what "zeros" would tell the network: absolute zero


# The crop


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
@pytest.mark.parametrize("scale, jitter", [((0.625**2, 0.625**2), 5 / 64), ((0.2, 0.9), 0.3)])
def test_jitter_crop_boxes_are_whole_px_inside_and_near_the_centre(size, scale, jitter):
    images = torch.zeros(2000, 1, 1, 1).expand(-1, -1, *size)
    box = RandomJitterCrop(32, scale, jitter).sample(images, seeded())
    for px, start, length in ((size[0], "top", "height"), (size[1], "left", "width")):
        first, long = box[start].numpy(), box[length].numpy()
        assert (first % 1 == 0).all() and (long % 1 == 0).all()
        assert (first >= 0).all() and (first + long <= px).all()
        share = long / px
        assert (share >= np.sqrt(scale[0]) - 0.51 / px).all()
        assert (share <= np.sqrt(scale[1]) + 0.51 / px).all()
        off = first + long / 2 - px / 2
        assert np.abs(off).max() <= jitter * px + 1 and abs(off.mean()) < 0.05 * px * jitter + 0.2
        if scale[0] == scale[1]:  # nothing is clipped: evenly spread over the whole jitter
            assert off.min() <= -jitter * px + 1 and off.max() >= jitter * px - 1


def test_jitter_crop_of_nenya_cuts_40_px_up_to_5_px_off():
    box = RandomJitterCrop(64).sample(torch.zeros(4000, 1, 64, 64), seeded())
    assert (box["height"] == 40).all() and (box["width"] == 40).all()
    for start in ("top", "left"):
        assert sorted(set(box[start].int().tolist())) == list(range(7, 18))  # 12 ± 5
    both = np.corrcoef(box["top"], box["left"])[0, 1]
    assert abs(both) < 0.05  # the two axes are drawn by themselves


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_crop_without_change_of_size_is_a_slice(channels):
    images = sea(8, channels)
    crop = RandomJitterCrop(40)
    box = crop.sample(images, seeded())
    ours = crop.apply(images, **box).numpy()
    for i, (top, left) in enumerate(zip(box["top"].int(), box["left"].int(), strict=True)):
        piece = images.numpy()[i, :, top : top + 40, left : left + 40]
        np.testing.assert_allclose(ours[i], piece, rtol=1e-6)


@pytest.mark.parametrize("side", [24, 64])  # matrices, or one by one
def test_jitter_crop_enlarged_is_scipys_linear_interpolation(side):
    images = sea(5, 2, (side, side))
    crop = RandomJitterCrop(side)
    box = crop.sample(images, seeded())
    ours = crop.apply(images, **box).numpy()
    for i in range(5):
        top, left, long = (int(box[k][i]) for k in ("top", "left", "height"))
        piece = images.numpy()[i, :, top : top + long, left : left + long].astype("float64")
        at = (np.arange(side) + 0.5) * long / side - 0.5  # where new px lie among the old
        y, x = np.meshgrid(at, at, indexing="ij")
        expected = [ndimage.map_coordinates(c, [y, x], order=1, mode="nearest") for c in piece]
        np.testing.assert_allclose(ours[i], expected, atol=1e-3)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(scale=(0.0, 0.5)), "scale"),
        (dict(scale=(0.5, 1.1)), "scale"),
        (dict(jitter=-0.1), "jitter is -0.1; expected 0 to 0.5"),
        (dict(jitter=0.5), "jitter is 0.5"),
    ],
)
def test_jitter_crop_refuses_what_is_no_share(options, message):
    with pytest.raises(ValueError, match=message):
        RandomJitterCrop(32, **options)


# Noise


def test_noise_is_gaussian_white_and_repeatable():
    images, noise = sea(16, 2), RandomNoise(0.5)
    ours = noise(images, seeded(3))
    assert torch.equal(ours, noise(images, seeded(3)))
    added = (ours - images).double().numpy()
    assert abs(added.mean()) < 0.01 and abs(added.std() - 0.5) < 0.01
    within = (np.abs(added) < 0.5).mean()
    assert abs(within - 0.6827) < 0.01  # one standard deviation
    neighbours = np.corrcoef(added[..., 1:].ravel(), added[..., :-1].ravel())[0, 1]
    channels = np.corrcoef(added[:, 0].ravel(), added[:, 1].ravel())[0, 1]
    assert max(abs(neighbours), abs(channels)) < 0.02
    with pytest.raises(ValueError, match="std is -0.1"):
        RandomNoise(-0.1)


# The whole view


def test_fields_view_is_its_steps_one_image_at_a_time_in_numpy():
    images, view = sea(), fields_view(32, [KELVIN], [2.0])
    ours, random = view(images, seeded(5)).numpy(), seeded(5)
    left, down, turn, crop, _, _ = view.transforms
    mirror = left.sample(images, random)["flip"], down.sample(images, random)["flip"]
    degrees, box = turn.sample(images, random)["degrees"], crop.sample(images, random)
    for i, field in enumerate(images.numpy().astype("float64")[:, 0]):
        field = np.fliplr(field) if mirror[0][i] else field
        field = np.flipud(field) if mirror[1][i] else field
        field = ndimage.rotate(field, float(degrees[i]), (1, 0), False, order=1, mode="reflect")
        top, left_px = int(box["top"][i]), int(box["left"][i])
        piece = torch.from_numpy(field[top : top + 40, left_px : left_px + 40].copy())
        small = torch.nn.functional.interpolate(
            piece[None, None], (32, 32), mode="bilinear", antialias=True
        )
        expected = (small[0, 0].numpy() - KELVIN) / 2
        expected -= expected.mean()
        np.testing.assert_allclose(ours[i, 0], expected, atol=5e-3)


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_fields_view_takes_any_channels_and_forgets_the_temperature(channels):
    images = sea(4, channels)
    view = fields_view((24, 40), [KELVIN] * channels, [1.0] * channels, strength=0.1)
    ours = view(images, seeded())
    assert list(ours.shape) == view.get_output_shape(images.shape) == [4, channels, 24, 40]
    assert ours.mean((2, 3)).abs().max() < 1e-4
    warmer = view(images + 7, seeded())
    torch.testing.assert_close(ours, warmer, atol=1e-3, rtol=0)
    kept = fields_view(24, [0.0] * channels, [1.0] * channels, demean=False)(images, seeded())
    assert (kept.mean((2, 3)) - images.mean((2, 3))).abs().max() < 5  # kelvin: it is still there

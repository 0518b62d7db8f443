"""Transforms: parity with torchvision image by image, independence of the images, shapes, ranges, errors."""

import math
import pickle

import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torchvision.transforms import InterpolationMode
from torchvision.transforms import RandomResizedCrop as TorchvisionCrop

from nenya_nb.data.colour import (
    ColorJitter,
    GaussianBlur,
    Normalize,
    RandomChannelPermutation,
    RandomGrayscale,
    RandomSolarize,
    _gaussian,
    _slide,
    blur_matrix,
    shift_hue,
    to_grey,
)
from nenya_nb.data.geometry import (
    CenterCrop,
    RandomResizedCrop,
    RandomRotation,
    Resize,
    dense_is_slow,
    interpolation_matrix,
    resample,
)
from nenya_nb.data.transforms import (
    Compose,
    MultiView,
    RandomHorizontalFlip,
    change_chosen,
    uniform_per_image,
)
from nenya_nb.data.views import digits_view, natural_view, shapes_view, view_style

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
ALL = [
    RandomHorizontalFlip(),
    Resize(20),
    Resize((9, 31)),
    Resize(13, "bicubic"),
    CenterCrop(15),
    CenterCrop((7, 16)),
    RandomResizedCrop(17),
    RandomResizedCrop((8, 25), interpolation="bicubic"),
    RandomRotation(40),
    RandomRotation((10, 90), "reflection"),
    ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.8),
    RandomGrayscale(0.5),
    RandomChannelPermutation(0.5),
    GaussianBlur((0.1, 1.5)),
    RandomSolarize(0.4, 0.5),
    Compose([Resize(24), RandomResizedCrop(12), RandomHorizontalFlip(), RandomGrayscale()]),
]
INTERPOLATION = {"bilinear": InterpolationMode.BILINEAR, "bicubic": InterpolationMode.BICUBIC}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def ids(transform):
    return repr(transform).replace("\n", "")[:60]


def close(a, b, atol=1e-5):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


# Parity, image by image, given the parameters


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 32), (17, 40), (64, 9)])
@pytest.mark.parametrize("shape", [(48, 48), (37, 61)])
def test_random_resized_crop_matches_torchvision(interpolation, size, shape):
    images = torch.rand(12, 3, *shape)
    crop = RandomResizedCrop(size, scale=(0.02, 1.0), interpolation=interpolation)
    boxes = crop.sample(images, seeded())
    ours = crop.apply(images, **boxes)
    for i, image in enumerate(images):
        box = [int(boxes[k][i]) for k in ("top", "left", "height", "width")]
        expected = TF.resized_crop(image, *box, size, INTERPOLATION[interpolation], antialias=True)
        close(ours[i], expected.clamp(0, 1))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [5, 24, 100, (7, 90)])
@pytest.mark.parametrize("shape", [(30, 47), (47, 30), (33, 33)])
def test_resize_matches_torchvision(interpolation, size, shape):
    images = torch.rand(2, 3, *shape)
    expected = TF.resize(
        images, size if isinstance(size, int) else list(size), INTERPOLATION[interpolation]
    )
    close(Resize(size, interpolation)(images), expected.clamp(0, 1))


@pytest.mark.parametrize("size", [1, 8, 13, (5, 12), (14, 21)])
def test_center_crop_matches_torchvision(size):
    images = torch.rand(2, 3, 14, 21)
    expected = TF.center_crop(images, size if isinstance(size, int) else list(size))
    assert torch.equal(CenterCrop(size)(images), expected)


@pytest.mark.parametrize("shape", [(32, 32), (21, 40), (40, 21)])
def test_random_rotation_matches_torchvision(shape):
    images = torch.rand(8, 3, *shape)
    rotation = RandomRotation(180)
    degrees = rotation.sample(images, seeded())["degrees"]
    ours = rotation.apply(images, degrees)
    for i, image in enumerate(images):
        expected = TF.rotate(image, degrees[i].item(), InterpolationMode.BILINEAR)
        close(ours[i], expected, atol=1e-4)


def test_color_jitter_matches_torchvision():
    images = torch.rand(24, 3, 16, 16)
    jitter = ColorJitter(0.8, 0.8, 0.8, 0.4)
    p = jitter.sample(images, seeded())
    ours = jitter.apply(images, **p)
    assert len({tuple(order) for order in p["order"].tolist()}) == 6
    steps = [TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation]
    for i, expected in enumerate(images):
        for which in p["order"][i].tolist():
            factor = p[("brightness", "contrast", "saturation")[which]][i].item()
            expected = steps[which](expected, factor)
        close(ours[i], TF.adjust_hue(expected, p["hue"][i].item()), atol=2e-5)


@pytest.mark.parametrize("shift", [-0.5, -0.2, 0.0, 0.03, 0.5])
def test_shift_hue_matches_torchvision(shift):
    images = torch.rand(4, 3, 16, 16)
    images[0] = images[0, :1]  # grey
    images[1] = images[1].round()  # full colours, ties between channels
    close(shift_hue(images, torch.full((4,), shift)), TF.adjust_hue(images, shift))


def test_to_grey_matches_torchvision():
    images = torch.rand(4, 3, 8, 8)
    close(to_grey(images), TF.rgb_to_grayscale(images))


@pytest.mark.parametrize("kernel_size", [3, 9, 23])
@pytest.mark.parametrize("shape", [(24, 24), (15, 40)])
def test_gaussian_blur_matches_torchvision(kernel_size, shape):
    images = torch.rand(6, 3, *shape)
    blur = GaussianBlur((0.1, 3.0), kernel_size, p=1.0)
    sigma = blur.sample(images, seeded())["sigma"]
    ours = blur.apply(images, sigma)
    for i, image in enumerate(images):
        close(ours[i], TF.gaussian_blur(image, [kernel_size] * 2, [sigma[i].item()] * 2))


def test_solarize_and_normalize_match_torchvision():
    images = torch.rand(4, 3, 8, 8)
    close(RandomSolarize(0.3, p=1.0)(images), TF.solarize(images, 0.3))
    close(Normalize(MEAN, STD)(images), TF.normalize(images, MEAN, STD))


@pytest.mark.parametrize("shape", [(32, 32), (24, 70)])
def test_random_resized_crop_boxes_are_distributed_as_torchvisions(shape):
    crop = RandomResizedCrop(8, scale=(0.2, 0.9))
    ours = crop.sample(torch.zeros(4000, 1, 1, 1).expand(-1, -1, *shape), seeded())
    image = torch.zeros(1, *shape)
    theirs = torch.tensor(
        [TorchvisionCrop.get_params(image, [0.2, 0.9], [3 / 4, 4 / 3]) for _ in range(4000)]
    ).float()
    for i, name in enumerate(("top", "left", "height", "width")):
        spread = theirs[:, i].std() + 1e-6
        assert (ours[name].mean() - theirs[:, i].mean()).abs() < 0.1 * spread + 0.02, name
        assert (ours[name].std() - theirs[:, i].std()).abs() < 0.1 * spread + 0.02, name


# Two forms of one thing: a GPU computes more than it needs, a processor less


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(64, 64), (20, 90)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_crops_one_by_one_agree_with_the_matrices(interpolation, size, dtype):
    images = torch.rand(9, 3, 72, 56).to(dtype)
    crop = RandomResizedCrop(size, scale=(0.02, 1.0), interpolation=interpolation)
    box = crop.sample(images, seeded())
    assert crop(images[:0]).shape == (0, 3, *size)
    assert dense_is_slow(images) and not dense_is_slow(images[..., :24])
    rows = interpolation_matrix(box["top"], box["height"], 72, size[0], interpolation)
    columns = interpolation_matrix(box["left"], box["width"], 56, size[1], interpolation)
    close(crop.apply(images, **box), resample(images, rows, columns).clamp(0, 1))
    box["top"] = box["top"] * 0.5 + 0.25  # no whole px: only matrices can
    rows = interpolation_matrix(box["top"], box["height"], 72, size[0], interpolation)
    close(crop.apply(images, **box), resample(images, rows, columns).clamp(0, 1))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [20, 100, (50, 60), (61, 47)])
def test_large_resize_agrees_with_the_matrices(interpolation, size):
    images = torch.rand(2, 3, 61, 47)
    resize = Resize(size, interpolation)
    zero, h, w = torch.zeros(1), *resize.get_output_shape(images.shape)[2:]
    rows = interpolation_matrix(zero, zero + 61, 61, h, interpolation)
    columns = interpolation_matrix(zero, zero + 47, 47, w, interpolation)
    out = resize(images)
    close(out, resample(images, rows, columns).clamp(0, 1), atol=2e-6)
    before = images.clone()
    out.zero_()
    assert torch.equal(images, before)


@pytest.mark.parametrize("kernel_size", [1, 5, 31])
@pytest.mark.parametrize("shape", [(6, 3, 60, 48), (5, 1, 24, 17)])
def test_blur_that_slides_agrees_with_the_matrices(kernel_size, shape):
    images, sigma = torch.rand(shape), torch.linspace(0.1, 5, shape[0])
    rows, columns = (blur_matrix(n, sigma, kernel_size) for n in shape[2:])
    expected = resample(images, rows, columns)
    close(_slide(images, _gaussian(sigma, kernel_size)), expected, atol=1e-6)
    close(GaussianBlur((0.1, 5), kernel_size).apply(images, sigma), expected, atol=1e-6)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    "shape", [(7, 3, 40, 40), (9, 3, 256, 256), (3, 3, 420, 425), (0, 3, 8, 8)]
)
def test_change_chosen_in_pieces_is_change_all_and_select(p, shape):
    images, gain = torch.rand(shape), torch.rand(shape[0])
    chosen = torch.rand(shape[0], generator=seeded()) < p

    def change(few, gain):
        return few * gain[:, None, None, None]

    changed = change_chosen(images, chosen, change, gain)
    where = torch.where(chosen[:, None, None, None], change(images, gain), images)
    assert torch.equal(changed, where) and changed.data_ptr() != images.data_ptr() or not shape[0]


@pytest.mark.parametrize("size", [24, 256])
def test_jitter_of_the_chosen_is_jitter_of_all_where_chosen(size):
    images, jitter = torch.rand(9, 3, size, size), ColorJitter(0.8, 0.8, 0.8, 0.2, p=0.5)
    p = jitter.sample(images, seeded())
    factors = torch.stack([p["brightness"], p["contrast"], p["saturation"]], dim=1)
    changed = p["hue"] != 0
    assert 0 < changed.sum() < 9
    everything = jitter._change(images, factors, p["order"], p["hue"])
    expected = torch.where(changed[:, None, None, None], everything, images)
    close(jitter.apply(images, **p), expected, atol=1e-6)


def _textbook_hue(images, shift):
    "The largest channel decides on the formula: (B, 3, H, W), (B,) → (B, 3, H, W)."
    red, green, blue = images.unbind(1)
    high, chroma = images.amax(1), images.amax(1) - images.amin(1)
    safe = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4)
    hue = torch.where(high == red, (green - blue) / safe, hue) + 6 * shift[:, None, None]
    k = (hue[:, None] + torch.tensor([5, 3, 1]).view(3, 1, 1)).remainder(6)
    return high[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp(0, 1)


def test_shift_hue_is_the_textbooks_in_double_precision():
    levels = torch.linspace(0, 1, 9, dtype=torch.float64)
    colours = torch.cartesian_prod(levels, levels, levels).T.view(1, 3, 27, 27)
    images = torch.cat([colours, torch.rand(1, 3, 27, 27).double(), colours * 1e-4 + 0.5])
    for shift in torch.linspace(-0.5, 0.5, 13, dtype=torch.float64):
        shifts = shift.expand(3)
        close(shift_hue(images, shifts), _textbook_hue(images, shifts), atol=1e-14)


def test_large_images_keep_half_floats_and_gradients():
    view = natural_view(64, MEAN, STD, blur=1.0, solarize=0.5)
    assert view(torch.rand(2, 3, 64, 64).bfloat16(), seeded()).dtype == torch.bfloat16
    images = torch.rand(8, 3, 160, 160, requires_grad=True)
    natural_view(160, MEAN, STD, blur=0.5, solarize=0.5)(images, seeded()).square().sum().backward()
    assert (images.grad.flatten(1).abs().sum(1) > 0).all()


# Properties of every transform


@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_transform_output_shape_range_dtype_and_input_kept(transform):
    for shape in [(5, 3, 32, 32), (2, 3, 17, 33), (1, 3, 41, 16)]:
        images = torch.rand(shape)
        before = images.clone()
        out = transform(images, seeded())
        assert list(out.shape) == transform.get_output_shape(list(shape))
        assert out.dtype == images.dtype and out.min() >= -1e-6 and out.max() <= 1 + 1e-6
        out.zero_()  # the result may be written to without touching the input
        assert torch.equal(images, before)


@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_transform_single_image_is_a_batch_of_one(transform):
    image = torch.rand(3, 32, 24)
    single, batch = transform(image, seeded(3)), transform(image[None], seeded(3))
    assert single.ndim == 3 and torch.equal(single, batch[0])
    assert transform.get_output_shape([3, 32, 24]) == list(single.shape)


@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_transform_same_generator_same_result(transform):
    images = torch.rand(6, 3, 24, 24)
    first = transform(images, seeded(5))
    torch.rand(7)  # the global source does not matter
    assert torch.equal(first, transform(images, seeded(5)))


@pytest.mark.parametrize("transform", [t for t in ALL if not isinstance(t, Compose)], ids=ids)
def test_transform_treats_each_image_alone(transform):
    images = torch.rand(6, 3, 24, 24)
    parameters = transform.sample(images, seeded())
    whole = transform.apply(images, **parameters)
    for i in range(6):
        alone = transform.apply(
            images[i : i + 1], **{k: v[i : i + 1] for k, v in parameters.items()}
        )
        close(alone[0], whole[i], atol=1e-6)


@pytest.mark.parametrize("transform", [t for t in ALL if t.sample(torch.rand(2, 3, 9, 9))], ids=ids)
def test_transform_parameters_differ_between_images(transform):
    images = torch.rand(1, 3, 24, 24).expand(32, -1, -1, -1)
    parameters = transform.sample(images, seeded())
    assert all(len(v) == 32 for v in parameters.values())
    out = transform(images, seeded()).flatten(1)
    assert len(out.unique(dim=0)) > 1


@pytest.mark.parametrize("transform", ALL, ids=ids)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_transform_keeps_other_float_types(transform, dtype):
    assert transform(torch.rand(2, 3, 24, 24).to(dtype), seeded()).dtype == dtype


@pytest.mark.parametrize("channels", [1, 4])
def test_transforms_take_other_channels(channels):
    images = torch.rand(3, channels, 24, 24)
    for transform in ALL:
        if channels == 4 and isinstance(transform, ColorJitter):
            with pytest.raises(ValueError, match="hue needs 1 or 3 channels"):
                transform(images)
        else:
            assert transform(images).shape[1] == channels
    assert ColorJitter(0.4, 0.4, 0.4)(images).shape == images.shape


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("kind", [RandomHorizontalFlip, RandomGrayscale, RandomSolarize])
def test_probability_zero_and_one_are_certain(kind, p):
    images = torch.rand(64, 3, 6, 6)
    changed = (kind(p=p)(images) != images).flatten(1).any(1)
    assert changed.all() if p else not changed.any()


def test_probability_is_per_image():
    images = torch.rand(2000, 3, 4, 4)
    for transform in (RandomHorizontalFlip(0.3), ColorJitter(0.5, p=0.3), RandomGrayscale(0.3)):
        changed = (transform(images, seeded()) != images).flatten(1).any(1).float().mean()
        assert abs(changed - 0.3) < 0.04


def test_interpolation_matrix_rows_sum_to_one_and_stay_in_the_box():
    start, length = torch.tensor([0.0, 3.0, 20.0]), torch.tensor([32.0, 1.0, 12.0])
    for interpolation in ("bilinear", "bicubic"):
        M = interpolation_matrix(start, length, 32, 10, interpolation)
        close(M.sum(-1), torch.ones(3, 10), atol=1e-6)
        assert not M[1, :, :3].any() and not M[1, :, 4:].any() and not M[2, :, :20].any()


def test_blur_matrix_keeps_constants_and_sigma_zero_is_identity():
    M = blur_matrix(16, torch.tensor([0.0, 0.5, 4.0]), 13)
    close(M.sum(-1), torch.ones(3, 16), atol=1e-6)
    assert torch.equal(M[0], torch.eye(16))


def test_shift_hue_full_circle_is_identity():
    images = torch.rand(3, 3, 8, 8)
    close(shift_hue(shift_hue(images, torch.full((3,), 0.5)), torch.full((3,), 0.5)), images)


def test_normalize_undo_returns():
    images, normalize = torch.rand(2, 3, 8, 8), Normalize(MEAN, STD)
    close(normalize.undo(normalize(images)), images, atol=1e-6)
    close(normalize.undo(normalize(images)[0]), images[0], atol=1e-6)


def test_transforms_let_gradients_through():
    images = torch.rand(2, 3, 32, 32, requires_grad=True)
    natural_view(16, MEAN, STD, blur=1.0)(images).square().sum().backward()
    assert images.grad.abs().sum() > 0


def test_generator_on_another_device_than_the_images_is_used():
    images = torch.rand(4, 3, 8, 8, device="meta")
    assert uniform_per_image(images, 0, 1, seeded()).device == images.device


# Chains and views


def test_compose_shape_of_the_imagenet_preparation():
    prepare = Compose([Resize(256), CenterCrop(224), Normalize(MEAN, STD)])
    assert Resize(256).get_output_shape([1, 3, 480, 640]) == [1, 3, 256, 341]
    assert prepare.get_output_shape([1, 3, 480, 640]) == [1, 3, 224, 224]
    assert prepare.get_output_shape(torch.Size([3, 300, 200])) == [3, 224, 224]


def test_compose_takes_foreign_callables():
    chain = Compose([RandomHorizontalFlip(1.0), lambda images: images * 2])
    images = torch.rand(2, 3, 4, 4)
    assert torch.equal(chain(images), images.flip(-1) * 2)
    with pytest.raises(TypeError, match="get_output_shape"):
        chain.get_output_shape([2, 3, 4, 4])


def test_multi_view_gives_a_list_with_different_sizes():
    views = MultiView([RandomResizedCrop(16)] * 2 + [RandomResizedCrop(8, scale=(0.05, 0.2))] * 3)
    images = torch.rand(4, 3, 24, 24)
    out = views(images, seeded())
    assert [list(v.shape) for v in out] == views.get_output_shape([4, 3, 24, 24])
    assert len(out) == len(views) == 5 and not torch.equal(out[0], out[1])
    assert all(torch.equal(a, b) for a, b in zip(out, views(images, seeded()), strict=True))
    single = views(images[0], seeded())
    assert [v.ndim for v in single] == [3] * 5


@pytest.mark.parametrize("style", [natural_view, digits_view, shapes_view])
@pytest.mark.parametrize("channels", [1, 3])
def test_styles_make_normalised_views(style, channels):
    view = style((20, 28), [0.5] * channels, [0.25] * channels)
    out = view(torch.rand(4, channels, 32, 32), seeded())
    assert out.shape == (4, channels, 20, 28) and out.min() >= -2.001 and out.max() <= 2.001


def test_natural_view_blurs_only_large_images():
    kinds = [[type(t) for t in natural_view(s, MEAN, STD).transforms] for s in (32, 64, (96, 32))]
    assert [GaussianBlur in k for k in kinds] == [False, True, False]


def test_multi_view_joins_the_views_of_transforms_that_give_several():
    pair = MultiView([RandomResizedCrop(8), RandomResizedCrop(6)])
    nested = MultiView([RandomResizedCrop(10), Compose([RandomHorizontalFlip(), pair]), pair])
    images = torch.rand(4, 3, 24, 24)
    out = nested(images, seeded())
    assert [v.shape[-1] for v in out] == [10, 8, 6, 8, 6] and len(nested) == 5
    assert [list(v.shape) for v in out] == nested.get_output_shape([4, 3, 24, 24])
    assert len(MultiView([lambda images: images, RandomGrayscale()])) == 2


@pytest.mark.parametrize("style", [natural_view, digits_view, shapes_view])
def test_styles_without_strength_leave_colours_alone(style):
    view = style(24, MEAN, STD, strength=0, scale=(1.0, 1.0), rotation=0)
    colored = torch.tensor(MEAN)[:, None, None].expand(8, 3, 24, 24)
    assert view(colored, seeded()).abs().max() < 1e-5
    turned = [type(t) for t in style(24, MEAN, STD, rotation=3).transforms]
    assert RandomRotation in turned


def test_styles_take_four_strengths():
    def jitter(view):
        return next(t for t in view.transforms if isinstance(t, ColorJitter))

    four = jitter(natural_view(32, MEAN, STD, strength=[0.4, 0.4, 1.0, 0.5]))
    assert (four.saturation, four.hue) == ((0, 2.0), (-0.5, 0.5))
    one = jitter(shapes_view(32, MEAN, STD, strength=1.0))
    assert one.hue == (-0.2, 0.2) and one.brightness == pytest.approx((0.2, 1.8))
    with pytest.raises(ValueError, match="one number, or four"):
        natural_view(32, MEAN, STD, strength=[0.4, 0.4])


def test_natural_view_has_blur_and_solarize_on_demand():
    kinds = [type(t) for t in natural_view(32, MEAN, STD, blur=0.1, solarize=0.2).transforms]
    assert kinds.index(GaussianBlur) < kinds.index(RandomSolarize) < kinds.index(Normalize)
    assert GaussianBlur not in [type(t) for t in natural_view(96, MEAN, STD, blur=0).transforms]


def test_view_style_by_name_or_function():
    assert view_style("shapes") is shapes_view and view_style(shapes_view) is shapes_view
    with pytest.raises(ValueError, match="Unknown style 'shape'. Did you mean 'shapes'"):
        view_style("shape")


# Errors


@pytest.mark.parametrize("wrong", [torch.zeros(1, 3, 8, 8, dtype=torch.uint8), [[0.0]], "image"])
def test_transform_wrong_type_is_a_type_error(wrong):
    with pytest.raises(TypeError, match="RandomHorizontalFlip: images are"):
        RandomHorizontalFlip()(wrong)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1, 3, 8, 8)])
def test_transform_wrong_dimensions_is_a_value_error(shape):
    with pytest.raises(ValueError, match=r"expected \(B, C, H, W\)"):
        RandomHorizontalFlip()(torch.rand(shape))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: RandomHorizontalFlip(1.5), "RandomHorizontalFlip: p is 1.5"),
        (lambda: GaussianBlur(p=-0.1), "GaussianBlur: p is -0.1"),
        (lambda: Resize(0), "Resize: size is 0"),
        (lambda: Resize(8, "cubic"), "Did you mean 'bicubic'"),
        (lambda: CenterCrop((4, -1)), "CenterCrop: size"),
        (lambda: RandomResizedCrop(8, scale=(0.0, 1.0)), "fractions|of the area"),
        (lambda: RandomResizedCrop(8, scale=(0.5, 0.2)), "scale is"),
        (lambda: RandomResizedCrop(8, ratio=(2.0, 1.0)), "ratio is"),
        (lambda: RandomResizedCrop(8, interpolation="nearest"), "Unknown interpolation"),
        (lambda: RandomRotation((10, -10)), "degrees is"),
        (lambda: RandomRotation(-5), "degrees is"),
        (lambda: RandomRotation(5, "zero"), "Did you mean 'zeros'"),
        (lambda: ColorJitter(brightness=-0.1), "brightness is -0.1"),
        (lambda: ColorJitter(hue=0.6), "hue is 0.6"),
        (lambda: ColorJitter(contrast=(1.2, 0.8)), "contrast is"),
        (lambda: GaussianBlur((0, 1)), "sigma is"),
        (lambda: GaussianBlur(kernel_size=4), "kernel_size is 4"),
        (lambda: Normalize([0.5], [0.5, 0.5]), "one each per channel"),
        (lambda: Normalize([0.5], [0.0]), "std above 0"),
    ],
)
def test_wrong_arguments_are_refused_at_construction(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_errors_that_depend_on_the_images():
    with pytest.raises(ValueError, match=r"put Resize\(224\) in front"):
        CenterCrop(224)(torch.rand(1, 3, 200, 300))
    with pytest.raises(ValueError, match="too long"):
        GaussianBlur(kernel_size=13, p=1.0)(torch.rand(1, 3, 6, 30))
    with pytest.raises(ValueError, match="channels"):
        Normalize(MEAN, STD)(torch.rand(1, 1, 8, 8))


def test_the_longest_blur_that_the_message_offers_works():
    images = torch.rand(2, 3, 6, 9)
    blur = GaussianBlur(kernel_size=2 * 6 - 1, p=1.0)
    assert blur(images).shape == images.shape


@pytest.mark.parametrize("transform", ALL, ids=ids)
def test_transform_travels_to_worker_processes(transform):
    copy = pickle.loads(pickle.dumps(transform))
    images = torch.rand(2, 3, 24, 24)
    assert repr(copy) == repr(transform)
    assert torch.equal(copy(images, seeded()), transform(images, seeded()))


def test_repr_is_short_and_tells_the_settings():
    assert repr(RandomResizedCrop(32)) == (
        "RandomResizedCrop(size=(32, 32), scale=(0.08, 1), ratio=(0.75, 1.333), interpolation='bilinear')"
    )
    assert repr(Compose([RandomGrayscale(0.2)])) == "Compose([\n    RandomGrayscale(p=0.2)\n])"


def test_crop_fallback_for_extreme_images_is_centred():
    crop = RandomResizedCrop(8, scale=(0.9, 1.0))
    boxes = crop.sample(torch.zeros(500, 1, 10, 100), seeded())
    assert (boxes["height"] == 10).all() and (boxes["width"] == 13).all()  # 10 · 4/3
    assert (boxes["left"] == math.floor(0.5 * 88)).all() and (boxes["top"] == 0).all()

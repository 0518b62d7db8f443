"""Target generators: HOG against a slow reference and scikit-image, words against plain loops, DALL-E's names and file."""

import math

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from nenya_nb.models.backbones.registry import get_backbone
from nenya_nb.models.backbones.resnet_variants import resnet_tiny
from nenya_nb.models.backbones.vit import VisionTransformer
from nenya_nb.models.config import build
from nenya_nb.models.target_generators import (
    DALLEEncoder,
    FrozenFeatures,
    HOGGenerator,
    ImageTwin,
    PixelClusters,
)

torch.set_num_threads(1)
HERE = "nenya_nb.models.target_generators."

# ---- HOG ----


def slow_hog(channel, nbins, pool, window, smooth):
    "Pixel by pixel, in the words of the paper: (H, W) → (h, w, nbins), not normalised."
    height, width = channel.shape
    x = np.pad(channel, 1, mode="reflect")
    rows = [1, 2, 1] if smooth else [0, 1, 0]
    bell = [math.exp(-0.5 * ((i - (window - 1) / 2) / (window / 2)) ** 2) for i in range(window)]
    cells = np.zeros((height // pool, width // pool, nbins))
    for i in range(height // pool * pool):
        for j in range(width // pool * pool):
            gx = sum(r * (x[i + k, j + 2] - x[i + k, j]) for k, r in enumerate(rows))
            gy = sum(r * (x[i + 2, j + k] - x[i, j + k]) for k, r in enumerate(rows))
            weight = bell[i % window] * bell[j % window] if window else 1
            bin = int(math.atan2(gx, gy) % math.pi / math.pi * nbins) % nbins
            cells[i // pool, j // pool, bin] += weight * math.hypot(gx, gy)
    return cells


@pytest.mark.parametrize("size", [(16, 16), (24, 16), (20, 27)])
@pytest.mark.parametrize(
    "nbins,pool,window,smooth", [(9, 8, 16, True), (8, 4, 0, False), (6, 4, 10, True)]
)
def test_hog_matches_slow_reference(size, nbins, pool, window, smooth):
    torch.manual_seed(0)
    images = torch.rand(2, 3, *size, dtype=torch.float64)
    hog = HOGGenerator(nbins, pool, window, patch_size=pool, smooth=smooth).double()
    found = hog.histograms(images).numpy()
    for b in range(2):
        for c in range(3):
            cells = slow_hog(images[b, c].numpy(), nbins, pool, window, smooth)
            cells /= np.linalg.norm(cells, axis=2, keepdims=True)
            np.testing.assert_allclose(found[b, c].transpose(1, 2, 0), cells, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("nbins", [6, 9])
def test_hog_matches_scikit_image(nbins):
    from skimage.feature import hog

    torch.manual_seed(0)
    image = torch.rand(32, 48, dtype=torch.float64)
    theirs = hog(image.numpy(), nbins, (8, 8), (1, 1), "L2", feature_vector=False)[:, :, 0, 0]
    hog = HOGGenerator(
        nbins, 8, 0, 8, smooth=False
    )  # angles from the vertical: turn the image over
    ours = hog.histograms(image.T[None, None])[0, 0].permute(2, 1, 0).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_hog_rows_are_cells_of_a_patch_in_reading_order():
    images = torch.rand(2, 3, 32, 48)
    hog = HOGGenerator(nbins=9, pool=4, patch_size=8, gaussian_window=0)
    rows, cells = hog(images), hog.histograms(images)
    assert rows.shape == (2, 4 * 6, hog.output_dim) == (2, 24, 3 * 9 * 4)
    for n in (0, 1, 6, 23):
        i, j = n // 6 * 2, n % 6 * 2
        assert torch.equal(rows[:, n], cells[..., i : i + 2, j : j + 2].flatten(1))


def test_hog_default_is_maskfeats():
    hog = HOGGenerator()
    assert hog(torch.rand(1, 3, 224, 224)).shape == (1, 196, 108) and hog.output_dim == 108


def test_hog_of_one_grey_channel():
    assert HOGGenerator(in_channels=1)(torch.rand(1, 1, 32, 32)).shape == (1, 4, 36)


def test_hog_lets_no_gradient_through_and_has_no_state():
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    hog = HOGGenerator()
    assert not hog(images).requires_grad and not hog.state_dict() and not list(hog.parameters())


def test_hog_draws_edges_along_the_edge():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 7:9] = 1  # a line straight down
    hog = HOGGenerator(pool=16, patch_size=16, gaussian_window=0)
    star = hog.draw(hog.histograms(image), size=11)[0]
    assert star.shape == (11, 11) and star[:, 4:7].sum() > 0.8 * star.sum()
    lying = hog.draw(hog.histograms(image.transpose(2, 3)), size=11)[0]
    assert lying[4:7].sum() > 0.8 * lying.sum()


def test_hog_refuses_cells_that_do_not_fill_a_patch():
    with pytest.raises(ValueError, match="multiple of pool"):
        HOGGenerator(pool=6, patch_size=16)


# ---- another network's images and features ----


def test_image_twin_normalises_anew():
    images = torch.randn(2, 3, 8, 8)
    twin = ImageTwin(None, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), (0.4, 0.5, 0.6), (1.0, 2.0, 3.0))
    for c in range(3):
        pixels = images[:, c] * (0.5 + 0.1 * c) + 0.1 + 0.1 * c
        torch.testing.assert_close(twin(images)[:, c], (pixels - 0.4 - 0.1 * c) / (1 + c))
    assert torch.equal(ImageTwin()(images), images) and not twin.state_dict()


def test_image_twin_resizes_as_torch_does():
    images = torch.randn(2, 3, 32, 32)
    expected = F.interpolate(images, (16, 24), mode="bicubic", antialias=True)
    assert torch.equal(ImageTwin((16, 24))(images), expected)
    assert ImageTwin(16)(images).shape == (2, 3, 16, 16)


def test_frozen_features_never_change():
    backbone = resnet_tiny()
    frozen, images = FrozenFeatures(backbone), torch.randn(4, 3, 32, 32)
    before = {k: v.clone() for k, v in frozen.state_dict().items()}
    parent = nn.ModuleList([frozen]).train()
    images.requires_grad_(True)
    assert not frozen(images).requires_grad and not parent[0].backbone.training
    assert all(torch.equal(v, before[k]) for k, v in frozen.state_dict().items())
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in backbone.parameters()) and backbone.training
    assert frozen.output_dim == 128


def test_frozen_tokens_of_a_convolutional_network_are_its_last_map():
    backbone, images = resnet_tiny().eval(), torch.randn(2, 3, 32, 32)
    last = backbone.forward_stages(images)[-1]
    tokens = FrozenFeatures(backbone, tokens=True)(images)
    assert torch.equal(tokens, last.flatten(2).transpose(1, 2))
    torch.testing.assert_close(tokens.mean(1), FrozenFeatures(backbone)(images))


def test_frozen_features_read_timms_networks_from_a_file(tmp_path):
    torch.manual_seed(0)
    theirs = timm.create_model("test_vit", num_classes=0, img_size=32).eval()
    torch.save(theirs.state_dict(), tmp_path / "tower.pth")
    tower = get_backbone("timm:test_vit", img_size=32, checkpoint_path=tmp_path / "tower.pth")
    images, twin = torch.randn(2, 3, 16, 16), ImageTwin(32)
    features = FrozenFeatures(tower, twin=twin)(images)
    torch.testing.assert_close(features, theirs(twin(images)))
    tokens = FrozenFeatures(tower, tokens=True, twin=twin)(images)
    assert tokens.shape == (2, theirs.patch_embed.num_patches, theirs.num_features)


def test_frozen_tokens_need_maps():
    class Plain(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    assert FrozenFeatures(Plain())(torch.randn(2, 3, 8, 8)).shape == (2, 3)
    with pytest.raises(TypeError, match="forward_stages"):
        FrozenFeatures(Plain(), tokens=True)


# ---- visual words ----


def fitted(**settings):
    torch.manual_seed(0)
    clusters = PixelClusters(**{"num_clusters": 8, "patch_size": 4} | settings)
    return clusters.fit(torch.randn(64, clusters.in_channels, 16, 16))


@pytest.mark.parametrize("patch_size", [4, (2, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixel_clusters_name_the_nearest_in_reading_order(patch_size, channels):
    clusters = fitted(patch_size=patch_size, in_channels=channels)
    images, (p, q) = torch.randn(2, channels, 8, 16), clusters.patch_size
    ids = clusters(images)
    expected = []
    for i in range(8 // p):
        for j in range(16 // q):
            patch = images[:, :, i * p : i * p + p, j * q : j * q + q].flatten(1)
            expected.append((patch[:, None] - clusters.centroids).square().sum(2).argmin(1))
    assert torch.equal(ids, torch.stack(expected, 1))


def test_pixel_clusters_decode_puts_patches_back():
    clusters = fitted()
    ids = torch.arange(6).view(1, 2, 3)
    picture = clusters.decode(ids)
    assert picture.shape == (1, 3, 8, 12)
    assert torch.equal(picture[0, :, 4:8, 8:12].flatten(), clusters.centroids[5])
    assert torch.equal(clusters(picture).view_as(ids), ids)


def test_pixel_clusters_find_clusters():
    torch.manual_seed(0)
    centres = torch.randn(5, 3, 1, 1) * 5
    images = centres[torch.randint(5, (200,))] + 0.1 * torch.randn(200, 3, 4, 4)
    clusters = PixelClusters(5, 4).fit(images)
    distance = torch.cdist(clusters.centroids, centres.expand(5, 3, 4, 4).flatten(1))
    assert (
        sorted(distance.argmin(1).tolist()) == list(range(5)) and distance.min(1).values.max() < 0.5
    )
    means = clusters.centroids.mean(1)
    assert torch.equal(means, means.sort().values)  # from dark to bright


def test_pixel_clusters_follow_torchs_seed():
    assert torch.equal(fitted().centroids, fitted().centroids)


def test_pixel_clusters_read_only_what_they_need():
    read = []

    def batches():
        for i in range(100):
            read.append(i)
            yield torch.randn(10, 3, 16, 16)  # 160 patches

    PixelClusters(4, 4).fit(batches(), max_patches=400)
    assert len(read) == 3


def test_pixel_clusters_remember():
    first, second = fitted(), PixelClusters(8, 4)
    assert first.fitted and not second.fitted
    nn.ModuleList([second]).load_state_dict({f"0.{k}": v for k, v in first.state_dict().items()})
    images = torch.randn(2, 3, 8, 8)
    assert second.fitted and torch.equal(first(images), second(images))
    second.load_state_dict(PixelClusters(8, 4).state_dict())
    assert not second.fitted


def test_pixel_clusters_say_what_is_wrong():
    with pytest.raises(ValueError, match="call fit"):
        PixelClusters()(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="in_channels=1"):
        fitted()(torch.randn(1, 1, 8, 8))
    with pytest.raises(ValueError, match="4 patches cannot make 8"):
        PixelClusters(8, 4).fit(torch.randn(1, 3, 8, 8))
    with pytest.raises(ValueError, match="0 patches"):
        PixelClusters(8, 4).fit([])


# ---- DALL-E ----

SMALL = dict(hidden_dim=8, num_classes=20)


def test_dalle_has_its_authors_names():
    names = DALLEEncoder(**SMALL).state_dict().keys()
    expected = {"blocks.input.w", "blocks.input.b", "blocks.output.conv.w", "blocks.output.conv.b"}
    for group in range(1, 5):
        for block in (1, 2):
            layers = [f"res_path.conv_{i}" for i in range(1, 5)]
            layers += ["id_path"] if block == 1 and group > 1 else []
            expected |= {
                f"blocks.group_{group}.block_{block}.{x}.{y}" for x in layers for y in "wb"
            }
    assert set(names) == expected


def test_dalle_has_its_authors_shapes():
    with torch.device("meta"):
        full = DALLEEncoder()
    shapes = {name: tuple(value.shape) for name, value in full.state_dict().items()}
    assert shapes["blocks.input.w"] == (256, 3, 7, 7)
    assert shapes["blocks.group_1.block_1.res_path.conv_1.w"] == (64, 256, 3, 3)
    assert shapes["blocks.group_3.block_1.id_path.w"] == (1024, 512, 1, 1)
    assert shapes["blocks.group_4.block_2.res_path.conv_4.w"] == (2048, 512, 1, 1)
    assert shapes["blocks.output.conv.w"] == (8192, 2048, 1, 1)


def test_dalle_computes_what_its_names_say():
    torch.manual_seed(0)
    encoder, pixels = DALLEEncoder(**SMALL).double(), torch.rand(2, 3, 16, 24, dtype=torch.float64)
    weights = encoder.state_dict()

    def conv(x, name):
        w = weights[f"blocks.{name}.w"]
        return F.conv2d(x, w, weights[f"blocks.{name}.b"], padding=w.shape[-1] // 2)

    x = conv(0.1 + 0.8 * pixels, "input")
    for group in range(1, 5):
        for block in (1, 2):
            place = f"group_{group}.block_{block}"
            y = x
            for i in range(1, 5):
                y = conv(y.relu(), f"{place}.res_path.conv_{i}")
            known = f"blocks.{place}.id_path.w" in weights
            x = (conv(x, f"{place}.id_path") if known else x) + y / 64
        x = F.max_pool2d(x, 2) if group < 4 else x
    expected = conv(x.relu(), "output.conv")
    assert expected.shape == (2, 20, 2, 3)
    torch.testing.assert_close(encoder.logits(pixels), expected)


@pytest.mark.parametrize("patch_size,size", [(16, (64, 96)), (8, (32, 32)), (4, (16, 24))])
def test_dalle_gives_one_word_per_patch(patch_size, size):
    encoder = DALLEEncoder(patch_size=patch_size, mean=(0.5,), std=(0.25,), **SMALL)
    images = torch.randn(2, 3, *size)
    pixels = images * 0.25 + 0.5
    if patch_size != 8:
        wanted = [8 * side // patch_size for side in size]
        pixels = F.interpolate(pixels, wanted, mode="bicubic", antialias=True)
    expected = encoder.logits(pixels.clamp(0, 1)).argmax(1).flatten(1)
    assert torch.equal(encoder(images), expected)
    assert expected.shape == (2, size[0] * size[1] // patch_size**2)


def test_dalle_reads_a_file(tmp_path):
    torch.manual_seed(0)
    first = DALLEEncoder(**SMALL)
    torch.save({"state_dict": first.state_dict()}, tmp_path / "dalle.pth")
    second = DALLEEncoder(tmp_path / "dalle.pth", **SMALL)
    pixels = torch.rand(1, 3, 16, 16)
    assert torch.equal(first.logits(pixels), second.logits(pixels))
    assert not any(p.requires_grad for p in second.parameters())


def test_dalle_refuses_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="dalle_encoder.pth"):
        DALLEEncoder(tmp_path / "nothing.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "encoder.pkl")  # a whole object, as OpenAI's file is
    with pytest.raises(ValueError, match="more than weights"):
        DALLEEncoder(tmp_path / "encoder.pkl")
    torch.save(DALLEEncoder(hidden_dim=8, num_classes=10).state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="DALLEEncoder"):
        DALLEEncoder(tmp_path / "other.pth", **SMALL)


# ---- all ----


def test_target_generators_are_built_from_configs():
    assert build({"type": HERE + "HOGGenerator", "pool": 4}).pool == 4
    assert build({"type": HERE + "PixelClusters", "num_clusters": 5}).num_classes == 5
    assert build({"type": HERE + "DALLEEncoder", **SMALL}).num_classes == 20
    twin = {"type": HERE + "ImageTwin", "size": 16}
    vit = {
        "type": VisionTransformer,
        "img_size": 16,
        "patch_size": 8,
        "num_classes": 0,
        "embed_dim": 24,
    }
    vit |= {"depth": 1, "num_heads": 3}
    vit["type"] = "nenya_nb.models.backbones.vit.VisionTransformer"
    frozen = build({"type": HERE + "FrozenFeatures", "backbone": vit, "tokens": True, "twin": twin})
    assert frozen(torch.randn(2, 3, 32, 32)).shape == (2, 4, 24)


def test_frozen_features_copy_and_freeze_their_twin():
    twin = nn.Conv2d(3, 3, 1)
    frozen = FrozenFeatures(resnet_tiny(), twin=twin)
    assert not any(p.requires_grad for p in frozen.parameters())
    assert all(p.requires_grad for p in twin.parameters()) and frozen.twin is not twin

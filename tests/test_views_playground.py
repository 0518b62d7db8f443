"""The views playground without a browser: which knobs there are, the same luck, the code, what is sent."""

import copy
import math

import ipywidgets
import numpy as np
import pytest
import torch
import torch.nn.functional as F
import traitlets
from counting_store import Disk

from nenya_nb.data import (
    CenterCrop,
    ColorJitter,
    Compose,
    Demean,
    GaussianBlur,
    ImageDataset,
    MultiView,
    Normalize,
    RandomHorizontalFlip,
    RandomNoise,
    RandomResizedCrop,
    RandomRotation,
    RandomVerticalFlip,
    load_dataset,
    recipes,
)
from nenya_nb.widgets import base, views
from nenya_nb.widgets.knobs import RecipeKnobs
from nenya_nb.widgets.recipe_code import arguments, recipe_code
from nenya_nb.widgets.same_luck import Drawn, draw_views
from nenya_nb.widgets.views import ViewsPlayground

RECIPES = list(recipes._RECIPES)


@pytest.fixture(autouse=True)
def bundles(monkeypatch):
    monkeypatch.setattr(base, "read_bundle", lambda name: f"/* {name} */")


def data(size=32, style="natural"):
    dataset = load_dataset("shapes", count=60, size=size)
    dataset.style = style
    return dataset


@pytest.fixture(scope="module")
def dataset():
    return data()


def test_every_recipe_of_ours_is_offered(dataset):
    assert set(views._RECIPES) == set(RECIPES) == set(ViewsPlayground(dataset).recipes)


# --- knobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", ["natural", "digits", "shapes"])
@pytest.mark.parametrize("size", [32, 64])
@pytest.mark.parametrize("recipe", RECIPES)
def test_rebuilt_recipe_and_its_code_are_the_recipe(recipe, size, style):
    dataset = data(size, style)
    if recipe == "target_blocks_view" and size == 64:
        recipe = {"type": recipe, "patch_size": 8}  # on a grid of 4 x 4 no block suits
    views = dataset.recipe(recipe)
    found = RecipeKnobs(views, (4, 3, size, size))
    assert repr(found.build({})) == repr(views)
    scope = {"dataset": dataset}
    exec(recipe_code(views, {"dataset.mean": dataset.mean, "dataset.std": dataset.std}), scope)
    assert repr(scope["views"]) == repr(views)
    images = dataset.images[:4].float() / 255
    made, again = (
        [v for v in r(images, torch.Generator().manual_seed(1))]
        for r in (views, found.build(found.values))
    )
    assert all(torch.equal(a, b) for a, b in zip(made, again, strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_setting_but_those_of_normalize_has_a_knob_and_turns(recipe, dataset):
    views = dataset.recipe(recipe)
    found = RecipeKnobs(views, (4, 3, 32, 32))
    before = repr(views)
    for key, knob in found.knobs.items():
        new = {
            "range": [knob.value[0], knob.value[1] * 0.9] if knob.kind == "range" else 0,
            "choice": knob.choices[-1] if knob.choices else 0,
            "switch": not knob.value,
        }.get(knob.kind, knob.low if knob.value != knob.low else knob.high)
        if key == "TargetBlocks.scale":
            new = [0.1, 0.2]
        if knob.kind in ("whole", "count"):
            options = [n for n in found.allowed(found.values)[key] if n != knob.value]
            if not options:
                continue
            new = options[0]
        turned = found.build({key: new})
        assert repr(turned) != repr(views), key
        assert len(draw_views(turned, dataset.images[:2].float() / 255)) >= 1
    assert repr(views) == before
    names = {key.split(".")[-1] for key in found.knobs}
    assert not {"mean", "std"} & names and found.knobs


def test_derived_settings_follow():
    blur = RecipeKnobs(Compose([GaussianBlur()]), (1, 3, 64, 64))
    assert blur.build({"GaussianBlur.sigma": [0.1, 3.0]}).transforms[0].kernel_size == 19
    assert "GaussianBlur.kernel_size" not in blur.knobs
    assert arguments(RandomRotation(15))["degrees"] == 15
    assert arguments(RandomRotation((-5, 15)))["degrees"] == (-5, 15)
    nothing = arguments(ColorJitter(0.4))
    assert nothing == {"brightness": 0.4, "contrast": 0, "saturation": 0, "hue": 0, "p": 1.0}


def test_equal_views_are_one_kind_and_different_ones_are_not(dataset):
    crop = RandomResizedCrop(16)
    alike = RecipeKnobs(MultiView([crop, copy.deepcopy(crop)]), (1, 3, 32, 32))
    assert list(alike.knobs)[0] == "count" and alike.groups({"count": 4}) == [[0, 1, 2, 3]]
    apart = RecipeKnobs(MultiView([crop, RandomResizedCrop(8), crop]), (1, 3, 32, 32))
    assert [v.size[0] for v in apart.build({"view2.RandomResizedCrop.size": 12}).transforms] == [
        16,
        12,
        16,
    ]


class Corner(torch.nn.Module):
    "A module that shows nothing of its settings."

    def __init__(self, size=8):
        super().__init__()
        self.size = size

    def forward(self, images):
        return images[..., : self.size, : self.size]


def test_views_that_look_alike_but_differ_stay_apart(dataset):
    recipe = MultiView([Corner(32), Corner(16)])
    playground = ViewsPlayground(dataset, recipe, index=[0, 1])
    assert [view.tensor.shape[-1] for view in playground.views] == [32, 16]
    assert [corner.size for corner in playground.transform.transforms] == [32, 16]
    assert len(RecipeKnobs(MultiView([Corner(16), Corner(16)]), (1, 3, 32, 32)).kinds) == 1


def test_a_setting_at_nought_can_be_turned_up():
    class Shifted:
        knobs = {"by": (0, 64, 1)}

        def __init__(self, by=0):
            self.by = by

        def __call__(self, images):
            return images.roll(self.by, -1)

    allowed = RecipeKnobs(Compose([Shifted()]), (1, 3, 32, 32)).allowed({"Shifted.by": 0})
    assert {0, 1, 32} <= set(allowed["Shifted.by"])


def test_what_has_no_text_in_python_gets_a_name(dataset):
    from torchvision.transforms import InterpolationMode, v2

    parts = [lambda images: images, v2.Resize(16, InterpolationMode.NEAREST), Corner(16)]
    parts += [v2.ToDtype(torch.float32), Normalize(dataset.mean, dataset.std), parts[0]]
    code = recipe_code(Compose(parts))
    scope = {"yours1": parts[0], "yours2": InterpolationMode.NEAREST, "yours3": torch.float32}
    exec(code, scope)
    assert repr(scope["views"]) == repr(Compose(parts)) and code.count("yours1") == 3
    assert "# yours1 = <function" in code and "# yours3 = torch.float32" in code
    code = ViewsPlayground(dataset, Compose(parts), index=[0]).code
    compile(code, "recipe", "exec")


def test_torchvision_takes_part(dataset, monkeypatch):
    from torchvision.transforms import v2

    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    recipe = Compose([v2.ColorJitter(0.4), v2.RandomCrop(24), Normalize(dataset.mean, dataset.std)])
    playground = ViewsPlayground(dataset, recipe, index=[0, 1])
    assert playground.recipe == "your recipe" and playground.views[0].field is None
    first = playground.views[0].tensor
    assert torch.equal(first, playground.views[0].tensor)
    assert not seeded, "the dice of GPUs are left alone"


def test_masks_around_a_list_of_crops_are_a_kind_of_their_own(dataset):
    recipe = {"type": "masked_multi_crop", "num_local": 3}
    playground = ViewsPlayground(dataset, recipe, seed=2)
    shown = playground.views
    assert [view.of for view in shown] == [None] * 5 + [0, 1]
    assert [group["views"] for group in playground.panel] == [[0, 1], [2, 3, 4], []]
    made = playground.transform(playground._images, torch.Generator().manual_seed(0))
    assert made[-1].shape[1] == 2 and shown[-1].tensor.shape == made[-1][:, 1].shape
    assert [packed.get("of") for packed in playground.drawn["views"]][-2:] == [0, 1]
    before = [view.tensor for view in shown]
    playground.knobs = {"RandomBlockMask.p": 1.0, "RandomBlockMask.ratio": [0.4, 0.5]}
    after = [view.tensor for view in playground.views]
    assert all(torch.equal(a, b) for a, b in zip(before[:5], after[:5], strict=True))
    assert after[5].flatten(1).any(1).all() and after[6].flatten(1).any(1).all()
    playground.knobs = {"MaskedCrops.num_masked": 1, "view3.count": 2}
    assert [view.of for view in playground.views] == [None] * 4 + [0]
    with pytest.raises(traitlets.TraitError, match="mask the large ones only"):
        playground.knobs = {"MaskedCrops.num_masked": 3}
    assert playground.figure() is not None and "masked_multi_crop" in repr(playground)


# --- the same luck ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_seed_is_a_draw_and_torch_is_left_alone(recipe, dataset):
    images, views = dataset.images[:4].float() / 255, dataset.recipe(recipe)
    state, kept = torch.random.get_rng_state(), images.clone()
    one, same, other = (draw_views(views, images, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(one, same, strict=True))
    assert not all(torch.equal(a.tensor, b.tensor) for a, b in zip(one, other, strict=True))
    assert torch.equal(state, torch.random.get_rng_state()) and torch.equal(images, kept)


def test_more_crops_leave_the_others_as_they_are(dataset):
    playground = ViewsPlayground(dataset, "multi_crop", seed=5)
    before = playground.views
    playground.knobs = {"view3.count": 8, "view3.RandomResizedCrop.scale": [0.2, 0.3]}
    after = playground.views
    assert len(after) == 10
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(before[:2], after[:2], strict=True))


def test_what_no_knob_touched_is_not_drawn_again(dataset):
    playground = ViewsPlayground(dataset, "multi_crop", seed=5)
    before, packed = playground.views, playground.drawn["views"]
    playground.knobs = {"view3.ColorJitter.hue": 0.3}
    after, again = playground.views, playground.drawn["views"]
    assert all(a is b for a, b in zip(before[:2], after[:2], strict=True))
    assert all(a is b for a, b in zip(packed[:2], again[:2], strict=True))
    assert not any(a is b for a, b in zip(before[2:], after[2:], strict=True))
    assert all(torch.equal(a.field, b.field) for a, b in zip(before, after, strict=True))
    fresh = draw_views(playground.transform, playground._images, 5)
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(after, fresh, strict=True))


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_knob_gives_the_views_of_a_fresh_draw(recipe, dataset):
    images, found = (
        dataset.images[:3].float() / 255,
        RecipeKnobs(dataset.recipe(recipe), (3, 3, 32, 32)),
    )
    drawn = Drawn()
    for key, knob in found.knobs.items():
        if knob.kind in ("number", "switch", "count") and key != "RandomMask.ratio":
            value = {"number": knob.low, "switch": not knob.value}.get(knob.kind, knob.value + 1)
            turned = found.build({key: value})
            again, fresh = draw_views(turned, images, 1, drawn), draw_views(turned, images, 1)
            assert all(
                torch.equal(a.tensor, b.tensor) for a, b in zip(again, fresh, strict=True)
            ), key


def test_memory_of_steps_has_a_limit_and_changes_no_view(dataset):
    images, views = dataset.images[:4].float() / 255, dataset.recipe("multi_crop")
    drawn, none = Drawn(300_000), Drawn(0)
    for seed in (0, 0, 1):
        fresh = draw_views(views, images, seed)
        for memory in (drawn, none):
            again = draw_views(views, images, seed, memory)
            assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(again, fresh, strict=True))
        held = {
            id(x): x for i, _, seen, _ in drawn.values() for x in (i, *(v.tensor for v in seen))
        }
        assert 100_000 < sum(x.nbytes for x in held.values()) <= 300_000 and not none


def test_a_result_that_was_written_into_is_computed_again(dataset):
    from torchvision.transforms import v2

    class Double:
        def __init__(self, by=2.0):
            self.by = by

        def __call__(self, images):
            return images.mul_(self.by)

    images, drawn = dataset.images[:2].float() / 255, Drawn()
    for by in (2.0, 3.0, 3.0):
        recipe = Compose([v2.RandomHorizontalFlip(1.0), Double(by)])
        again = draw_views(recipe, images, 0, drawn)[0].tensor
        assert torch.allclose(again, images.flip(-1) * by)


@pytest.mark.parametrize(
    "recipe",
    [
        MultiView([RandomResizedCrop(48, scale=(0.3, 0.8))]),
        MultiView([Compose([RandomHorizontalFlip(1.0), RandomResizedCrop(48, scale=(0.3, 0.8))])]),
        MultiView([Compose([RandomVerticalFlip(1.0), RandomResizedCrop(48, scale=(0.3, 0.8))])]),
        MultiView([Compose([RandomResizedCrop(48, scale=(0.3, 0.8)), RandomHorizontalFlip(0.5)])]),
        MultiView(
            [Compose([RandomRotation(40, "border"), RandomResizedCrop(48, scale=(0.2, 0.3))])]
        ),
        MultiView(
            [Compose([RandomResizedCrop((32, 48), scale=(0.5, 0.8)), RandomRotation(30, "border")])]
        ),
    ],
)
def test_fields_point_at_what_is_shown(recipe):
    image = F.interpolate(
        torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0)),
        size=96,
        mode="bicubic",
        antialias=True,
    ).clamp(0, 1)
    seen = draw_views(recipe, image, 2)[0]
    h, w = seen.tensor.shape[-2:]
    x, y = torch.meshgrid((torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h, indexing="xy")
    grid = torch.stack([x, y, torch.ones_like(x)], -1)
    source = torch.einsum("bij,yxj->byxi", seen.field, grid) * 2 - 1
    again = F.grid_sample(image, source, align_corners=False, padding_mode="border")
    assert (again - seen.tensor).abs().mean() < 0.02


def test_rotations_and_patches_know_where_they_come_from(dataset):
    images = dataset.images[:3].float() / 255
    for recipe in ("rotations", "patch_pairs"):
        for seen in draw_views(dataset.recipe(recipe), images):
            assert seen.field.shape == (3, 2, 3) and seen.mean == dataset.mean
    unknown = draw_views(Compose([CenterCrop(16)]), images)[0]
    assert unknown.field is None


def test_noise_and_a_mean_taken_away_move_no_pixel():
    recipe = Compose([RandomVerticalFlip(0.5), RandomNoise(0.1), Demean()])
    assert draw_views(recipe, torch.rand(3, 1, 8, 8))[0].field is not None


# --- images of every kind ---------------------------------------------------------------------------------------------


def test_of_images_on_disk_only_the_shown_are_read(dataset):
    disk = ImageDataset(Disk(dataset.images), mean=dataset.mean, std=dataset.std, style="natural")
    disk.images.asked.clear()
    playground = ViewsPlayground(disk, index=[3, 40])
    assert disk.images.asked == [3, 40]
    same = ViewsPlayground(dataset, index=[3, 40])
    assert playground.drawn["views"] == same.drawn["views"] and playground.images == same.images
    assert len(ViewsPlayground(disk)._images) == 8


def test_pictures_of_fields_are_stretched_and_their_views_stay_true():
    fields = torch.randn(12, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 4
    dataset = ImageDataset(fields)
    playground = ViewsPlayground(dataset, index=list(range(4)))
    for packed in (playground.images, playground.drawn["views"][0]["pixels"]):
        pixels = np.frombuffer(packed["data"], np.uint8)
        assert np.isin(pixels, (0, 255)).mean() < 0.1 and len(np.unique(pixels)) > 100
    fresh = draw_views(dataset.recipe("two_views"), fields[:4])
    views = playground.views
    assert all(torch.equal(a.tensor, b.tensor) for a, b in zip(views, fresh, strict=True))
    assert all(view.field is not None for view in views) and playground.figure() is not None
    jitter = playground._found.knobs["RandomJitterCrop.jitter"]
    assert jitter.high < 0.5 and jitter.unit == ""


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("kind", ["bytes", "floats", "fields"])
def test_any_number_of_channels(kind, channels):
    images = torch.randint(0, 256, (6, channels, 24, 24), dtype=torch.uint8)
    if kind != "bytes":
        images = images.float() / 255
    style = "fields" if kind == "fields" else "natural"
    playground = ViewsPlayground(ImageDataset(images, style=style))
    assert "two_views" in playground.recipes and not playground.problem
    assert playground.images["shape"] == [6, 24, 24, 1] and playground.figure() is not None
    assert playground.views[0].tensor.shape == (6, channels, 24, 24)
    assert playground.page_state()["states"]["knobs"]
    if style == "natural" and channels > 1:
        playground.knobs = {"ColorJitter.hue": 0.1}
        assert f"hue needs 1 or 3 channels, not {channels}" in playground.problem
        playground.reset()
        assert not playground.problem


def test_a_tensor_needs_a_transform_and_says_so():
    images = torch.rand(4, 3, 16, 16)
    with pytest.raises(ValueError, match="'two_views' is a name.*the transform itself"):
        ViewsPlayground(images)
    assert ViewsPlayground(images, ColorJitter(0.4)).views[0].tensor.shape == images.shape


# --- the widget -------------------------------------------------------------------------------------------------------


def test_knobs_may_be_assigned_in_part_and_are_checked(dataset):
    playground = ViewsPlayground(dataset, knobs={"ColorJitter.hue": 0.3})
    assert (
        playground.knobs["ColorJitter.hue"] == 0.3 and playground.knobs["RandomGrayscale.p"] == 0.2
    )
    drawn = playground.drawn
    for bad, message in (
        ({"ColorJitter.hu": 1}, "Did you mean"),
        ({"RandomGrayscale.p": "often"}, "a number"),
        ({"RandomGrayscale.p": 2.0}, "expected 0 to 1"),
        ({"RandomResizedCrop.scale": [0.9, 0.1]}, "expected 0 < from"),
    ):
        with pytest.raises(traitlets.TraitError, match=message):
            playground.knobs = bad
    assert playground.drawn is drawn
    playground.reset()
    assert playground.knobs["ColorJitter.hue"] == 0.1
    for name, value in (("recipe", "two_vews"), ("focus", 8), ("seed", -1)):
        with pytest.raises(traitlets.TraitError):
            setattr(playground, name, value)
    with pytest.raises(ValueError, match="only a data set knows"):
        ViewsPlayground(torch.rand(2, 3, 16, 16), {"type": "two_views"})
    with pytest.raises(ValueError, match="expected a data set"):
        ViewsPlayground("pictures")


def test_a_change_of_recipe_starts_with_its_own_knobs(dataset):
    playground = ViewsPlayground(dataset, knobs={"ColorJitter.hue": 0.3})
    playground.recipe = "masked_view"
    assert playground.knobs["RandomMask.ratio"] == 0.6
    assert "ColorJitter.hue" not in playground.knobs
    assert [view["kind"] for view in playground.drawn["views"]] == ["image", "mask"]
    assert "RandomMask(4, mask_size=8" in playground.code or "RandomMask()" in playground.code


def test_a_view_that_cannot_be_made_says_why_and_keeps_the_last(dataset):
    playground = ViewsPlayground(dataset, MultiView([Compose([RandomResizedCrop(16)])]))
    drawn = playground.drawn
    playground._found.recipe.transforms[0].transforms.append(GaussianBlur((3.0, 9.0), p=1.0))
    playground._found = RecipeKnobs(playground._found.recipe, (8, 3, 32, 32))
    playground.seed = 5
    assert "too long for images" in playground.problem and playground.drawn is drawn


def test_recipes_with_the_same_knobs_are_drawn_anew():
    playground = ViewsPlayground(load_dataset("shapes", count=60, size=16), "one_view")
    before = playground.drawn
    playground.recipe = "rotations"
    assert playground.drawn is not before and len(playground.drawn["views"]) == 4
    bare = ViewsPlayground(torch.rand(2, 3, 8, 8), lambda images: images.flip(-1))
    assert bare.drawn["views"] and not bare.knobs


def test_whatever_a_transform_raises_the_widget_can_be_shown(dataset):
    class Odd:
        def __init__(self, by=2):
            self.by = by

        def __call__(self, images):
            return {}["there is no such key"]

    playground = ViewsPlayground(dataset, Compose([Odd()]), index=[0, 1])
    assert "KeyError" in playground.problem and "KeyError" in repr(playground)
    assert playground.figure() is None and "there is no such key" in playground.to_html()
    assert playground.page_state()["states"]["sets"] == []


def test_images_without_a_label_say_so(dataset):
    some = copy.copy(dataset)
    some.targets = torch.full((60,), -1)
    some.targets[0] = 1
    assert ViewsPlayground(some, index=[0, 1]).labels == [dataset.classes[1], "no label"]


def test_a_misspelt_setting_is_named(dataset):
    with pytest.raises(
        TypeError, match="ViewsPlayground: Unknown setting 'sed'. Did you mean 'seed'"
    ):
        ViewsPlayground(dataset, sed=3)


def test_it_can_be_linked_and_used_in_training(dataset):
    playground, slider = ViewsPlayground(dataset), ipywidgets.IntSlider(max=100)
    ipywidgets.link((slider, "value"), (playground, "seed"))
    slider.value = 7
    assert playground.seed == 7
    made, _ = next(iter(dataset.loader(8, views=playground.transform)))
    assert [tuple(v.shape) for v in made] == [(8, 3, 32, 32)] * 2


def test_images_may_be_grey_floats_and_not_square():
    images = torch.rand(3, 1, 20, 28)
    playground = ViewsPlayground(images, MultiView([RandomResizedCrop((10, 14))] * 2))
    assert playground.images["shape"] == [3, 20, 28, 1] and len(playground.recipes) == 1
    assert playground.figure() is not None and "2 views" not in repr(playground)


def test_page_holds_positions_of_every_knob_in_few_bytes():
    playground = ViewsPlayground(data(32), "multi_crop")
    state = playground.page_state()
    states = state["states"]
    count = len(states["sets"])
    skipped = ("size", "interpolation", "padding")
    wanted = {k for k in playground.knobs if not k.endswith(skipped)}
    assert set(states["knobs"]) == wanted and len(states["draws"]) == 5
    for key, entries in states["knobs"].items():
        assert playground.knobs[key] in [entry["value"] for entry in entries]
        assert all(entry["set"] < count for entry in entries)
    size = sum(math.prod(bank["shape"]) for bank in states["banks"].values())
    assert size <= 2_500_000 and size == sum(len(b["data"]) for b in states["banks"].values())
    whole = sum(len(made) * len(made[0]["index"]) for made in states["sets"]) * 16 * 16 * 3
    assert size < whole / 2, "equal tiles are kept once"
    start = states["sets"][0][0]
    bank = states["banks"][start["bank"]]
    tile = np.frombuffer(bank["data"], np.uint8).reshape(bank["shape"])[start["index"][0]]
    shown = playground.drawn["views"][0]["pixels"]
    first = np.frombuffer(shown["data"], np.uint8).reshape(shown["shape"])[0]
    assert np.array_equal(tile, first)


def test_strange_names_stay_text(dataset):
    evil = "</script><img src=x onerror=alert(1)>"
    strange = copy.copy(dataset)
    strange.classes = [evil] * 10
    text = ViewsPlayground(strange, "one_view", index=[0]).to_html()
    assert "<img src=x" not in text

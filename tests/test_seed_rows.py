"""The examples of the five systems by their numbers: N Nenya, P PyFlameVision, L Lucid, M MMSelfSup, D DINO.

Each has a test with its number in the name, next to what it is about; here are those that need several parts."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from nenya_nb.data import CenterCrop, Compose, Normalize, Resize
from nenya_nb.models import efficientnet_b0, get_backbone, resnet18

COUNTS = {"N": 15, "P": 31, "L": 15, "M": 11, "D": 18}
NOT_TESTED = {
    "L15": "says that a deep stem can improve features: an opinion, no fact about the code",
    "D9": "k-NN accuracies of ImageNet runs for six sizes of the projection: quoted in no lesson",
}


def test_every_row_has_a_test_or_a_reason():
    names = "\n".join(
        line
        for path in Path(__file__).parent.glob("test_*.py")
        for line in path.read_text().splitlines()
        if line.startswith("def test_")
    )
    found = {row.upper() for row in re.findall(r"(?<=_)[nplmdNPLMD]\d{1,2}(?=_|\()", names)}
    rows = {f"{letter}{i}" for letter, count in COUNTS.items() for i in range(1, count + 1)}
    assert len(rows) == 90 and rows - found == set(NOT_TESTED)


def test_row_p25_shapes_from_the_photograph_to_the_logits():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    steps = [Resize(256), CenterCrop(224), Normalize(mean, std)]
    shape, image, shapes = [1, 3, 480, 640], torch.rand(1, 3, 480, 640), []
    for step in steps:
        shape, image = step.get_output_shape(shape), step(image)
        assert list(image.shape) == shape
        shapes.append(shape)
    assert shapes == [[1, 3, 256, 341], [1, 3, 224, 224], [1, 3, 224, 224]]
    model = resnet18().eval()
    assert Compose(steps).get_output_shape([1, 3, 480, 640]) == shape
    assert model.get_output_shape(shape) == list(model(image).shape) == [1, 1000]


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "dino_vits16"])
def test_row_p31_eight_threads_ask_and_run_one_model(name):
    model = get_backbone(name).eval()
    sizes = [(32, 32), (33, 48), (64, 40), (48, 33)] * 4
    images = [torch.randn(1, 3, *size) for size in sizes]
    with torch.inference_mode():
        expected = [model(x) for x in images]
    before = {key: value.clone() for key, value in model.state_dict().items()}

    def ask(x):
        with torch.inference_mode():
            return model.get_output_shape(x.shape), model(x), model.get_stage_shapes(x.shape)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, images))
    for (shape, y, stages), right in zip(answers, expected, strict=True):
        torch.testing.assert_close(y, right, atol=1e-5, rtol=1e-5)
        assert shape == list(right.shape) and stages
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_row_p31_the_head_is_what_may_change():
    model = efficientnet_b0(num_classes=10).eval()
    shape = [1, 3, 64, 64]
    with_head = model.get_output_shape(shape)
    model.remove_classifier()
    assert with_head == [1, 10] and model.get_output_shape(shape) == [1, 1280, 2, 2]

"""The queue of embeddings, against a plain Python list."""

import pytest
import torch
from torch import nn

from nenya_nb.models.memories import FeatureQueue

torch.set_num_threads(1)


@pytest.mark.parametrize("length", [1, 2, 5, 8, 12])
@pytest.mark.parametrize("sizes", [[1], [1, 1, 1], [2, 3, 2], [3], [5, 5, 5], [4, 1, 4, 1, 4]])
def test_queue_is_first_in_first_out(length, sizes):
    queue, rows, written = FeatureQueue(length, 2), [], 0
    start = queue.features.clone()
    expected = list(start.flip(0))  # newest first: the last random row counts as written last
    for size in sizes:
        if size > length:
            with pytest.raises(ValueError, match="do not fit into a queue"):
                queue.push(torch.zeros(size, 2))
            continue
        rows = torch.arange(written, written + size).float()[:, None].repeat(1, 2) + 10
        queue.push(rows)
        written += size
        expected = [*rows.flip(0), *expected][:length]
        torch.testing.assert_close(queue.newest_first(), torch.stack(expected))
        assert queue.pointer == written
        assert sorted(queue.age().tolist()) == list(range(length))
        order = queue.age().argsort()
        torch.testing.assert_close(queue.features[order], torch.stack(expected))


def test_queue_starts_with_unit_rows_that_differ():
    queue = FeatureQueue(100, 16)
    torch.testing.assert_close(queue.features.norm(dim=1), torch.ones(100))
    assert (queue.features @ queue.features.T).fill_diagonal_(0).abs().max() < 0.99
    assert queue.age().tolist() == list(range(99, -1, -1))


def test_queue_keeps_no_gradient_and_its_own_precision():
    queue = FeatureQueue(4, 2)
    rows = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    queue.push(rows * 2)
    assert not queue.features.requires_grad and queue.features.dtype == torch.float32
    queue.push(torch.ones(1, 2, dtype=torch.bfloat16))
    assert queue.features[2].tolist() == [1, 1]
    rows.data.zero_()
    assert queue.features[:2].abs().sum() > 0  # a copy, not a view of the rows


def test_queue_is_state_and_no_parameter():
    torch.manual_seed(0)
    first, second = FeatureQueue(6, 3), FeatureQueue(6, 3)
    first.push(torch.randn(4, 3))
    second.load_state_dict(first.state_dict())
    assert set(first.state_dict()) == {"features", "pointer"} and not list(first.parameters())
    for queue in (first, second):
        queue.push(torch.ones(3, 3))
    assert torch.equal(first.features, second.features) and torch.equal(first.age(), second.age())
    assert "length=6, dim=3" in repr(first)


def test_queue_moves_with_its_module():
    module = nn.Sequential(FeatureQueue(4, 2)).double()
    module[0].push(torch.ones(2, 2))
    assert module[0].features.dtype == torch.float64 and module[0].pointer.dtype == torch.int64
    meta = FeatureQueue(4, 2).to("meta")
    meta.push(torch.ones(2, 2, device="meta"))  # nothing is read back from the device
    assert meta.newest_first().shape == (4, 2) and meta.age().shape == (4,)


def test_queue_hold_waits_for_release():
    queue = FeatureQueue(4, 1)
    before = queue.features.clone()
    queue.hold(torch.ones(2, 1))
    queue.hold(torch.full((1, 1), 2.0))
    assert torch.equal(queue.features, before)
    queue.release()
    assert queue.newest_first()[:3].flatten().tolist() == [2, 1, 1] and queue.pointer == 3
    queue.release()
    assert queue.pointer == 3


def test_queue_holds_no_more_than_fits():
    queue = FeatureQueue(4, 1)
    for number in range(100):
        queue.hold(torch.full((3, 1), float(number)))
    queue.release()
    assert queue.pointer == 3 and queue.features[:3].flatten().tolist() == [99, 99, 99]
    queue.hold(torch.zeros(5, 1))
    with pytest.raises(ValueError, match="5 rows at once do not fit into a queue of 4"):
        queue.release()


def test_queue_backward_works_before_release():
    queue, z = FeatureQueue(4, 2), torch.ones(3, 2, requires_grad=True)
    loss = (z @ queue.features.T).exp().sum()
    queue.hold(z)
    loss.backward()
    queue.release()
    assert z.grad.abs().sum() > 0


@pytest.mark.parametrize("length, dim", [(0, 2), (2, 0), (-1, 3)])
def test_queue_refuses_empty_sizes(length, dim):
    with pytest.raises(ValueError, match="at least 1"):
        FeatureQueue(length, dim)


@pytest.mark.parametrize("shape", [(2,), (2, 3), (1, 2, 2)])
def test_queue_refuses_rows_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"takes rows \(B, 2\)"):
        FeatureQueue(4, 2).push(torch.zeros(shape))

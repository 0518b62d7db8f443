"""A step made of parts leaves queues, memories and centres as the whole batch would; weights do the same in test_engine.py."""

import pytest
import torch
from algorithms import CONFIGS, build_algorithm, make_loader
from two_processes import without_batchnorm

from nenya_nb.core import Clock

torch.set_num_threads(1)


def state_after(name, parts, steps=3):
    "All buffers after some steps without learning, each computed from so many parts of its batch."
    algorithm = without_batchnorm(build_algorithm(name))
    loader, clock = make_loader(algorithm), Clock(2, 2)
    torch.manual_seed(0)
    algorithm.on_epoch_start(loader, clock)
    for (views, targets), _ in zip(loader, range(steps), strict=False):
        for rows in torch.arange(len(targets)).chunk(parts):
            algorithm([view[rows] for view in views], targets[rows], mode="loss")
        algorithm.before_step(clock)
        clock.step += 1
        algorithm.after_step(clock)
    return dict(algorithm.named_buffers())


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_of_a_step_leave_what_the_whole_batch_leaves(name):
    whole, parts = state_after(name, 1), state_after(name, 2)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5, equal_nan=True)

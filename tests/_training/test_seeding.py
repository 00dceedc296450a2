import numpy as np
import pytest
import torch

from sklearn_micranet._training._seeding import draw_seed, resolve_device, seeded


@pytest.mark.parametrize("seed", [0, 7, np.int64(7), 2**31])
def test_an_int_is_its_own_seed(seed):
    assert draw_seed(seed) == seed
    assert type(draw_seed(seed)) is int


def test_other_random_states_draw_a_seed():
    random_state = np.random.RandomState(0)
    first, second = draw_seed(random_state), draw_seed(random_state)
    assert first == draw_seed(np.random.RandomState(0)) != second
    np.random.seed(0)
    assert draw_seed(None) == first
    assert 0 <= first < 2**31


def test_seeded_draws_from_the_random_state():
    draws = []
    for seed in (0, 0, 1):
        with seeded(np.random.RandomState(seed), torch.device("cpu")):
            draws.append(torch.rand(3).tolist())
        torch.rand(1)
    assert draws[0] == draws[1] != draws[2]


def draw_and_fail():
    with seeded(np.random.RandomState(0), torch.device("cpu")):
        torch.rand(3)
        raise RuntimeError("stop")


def test_seeded_restores_the_global_generator_also_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="stop"):
        draw_and_fail()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("is_available", [True, False])
def test_auto_is_the_gpu_if_there_is_one(is_available, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: is_available)
    assert resolve_device("auto") == torch.device("cuda" if is_available else "cpu")
    assert resolve_device("cpu") == resolve_device(torch.device("cpu")) == torch.device("cpu")

import os
import threading

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.model_selection import GridSearchCV

from sklearn_micranet import MicraNetClassifier, MicraNetEnsemble
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


# --- threads ---------------------------------------------------------------------------------

LABELS = np.arange(40) % 2
IMAGES = np.random.default_rng(0).normal(size=(40, 16, 16)) + LABELS[:, None, None]


def small():
    return MicraNetClassifier(n_filters=2, max_epochs=4, augmentation="flip", random_state=0)


def ensemble(n_jobs):
    fitted = MicraNetEnsemble(small(), n_estimators=4, n_jobs=n_jobs, random_state=0)
    return fitted.fit(IMAGES, LABELS).predict_proba(IMAGES)


def search(n_jobs):
    found = GridSearchCV(small(), {"lr": [1e-3, 1e-2]}, cv=2, scoring="neg_log_loss", n_jobs=n_jobs)
    return found.fit(IMAGES, LABELS).cv_results_["mean_test_score"]


@pytest.mark.parametrize("train", [ensemble, search])
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_trainings_in_threads_are_those_of_one_after_the_other(train):
    expected = train(None)
    before = np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    n_threads = torch.get_num_threads()
    with parallel_config("threading"):
        found = train(2)
    np.testing.assert_array_equal(found, expected)
    assert (np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == before
    assert torch.get_num_threads() == n_threads


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that are forked")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_trains_while_a_thread_of_its_parent_does():
    inside, done = threading.Event(), threading.Event()

    def hold():
        with seeded(np.random.RandomState(0), torch.device("cpu")):
            inside.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(30)
    child = os.fork()
    if child == 0:
        finished = threading.Thread(target=draw_in_child, daemon=True)
        finished.start()
        finished.join(10)
        os._exit(int(finished.is_alive()))
    assert os.waitpid(child, 0)[1] == 0
    done.set()
    thread.join()


def draw_in_child():
    with seeded(np.random.RandomState(0), torch.device("cpu")):
        torch.rand(1)

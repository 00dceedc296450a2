import os

# scikit-learn's array API checks are skipped without it; it must be set before scipy is imported.
os.environ.setdefault("SCIPY_ARRAY_API", "1")

import numpy as np
import pytest
import torch

# The networks of the tests are too small to share: threads would only wait for each other.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds():
    np.random.seed(0)
    torch.manual_seed(0)

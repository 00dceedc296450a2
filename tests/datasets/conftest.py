import pytest
from server import FileServer

from sklearn_micranet.datasets import _download


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_download, "ATTEMPT_WAITS", (0, 0, 0))
    with FileServer() as server:
        yield server


@pytest.fixture
def data_home(tmp_path):
    """A folder that does not exist yet."""
    return tmp_path / "data"

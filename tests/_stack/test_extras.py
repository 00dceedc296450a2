import os.path
import sys

import pytest

from sklearn_micranet._stack._extras import import_extra


def test_the_module_itself_is_returned():
    assert import_extra("os.path", "none") is os.path


@pytest.mark.parametrize("module", ["not_installed_anywhere", "not_installed.below"])
def test_a_missing_module_names_the_extra(module):
    with pytest.raises(
        ImportError,
        match=rf'^{module} is required here.*: pip install "sklearn-micranet\[tiff\]"$',
    ) as caught:
        import_extra(module, "tiff")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_module_that_fails_to_import_names_the_extra_too(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("raise ImportError('libbroken.so is missing')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match="broken_extra is required here") as caught:
        import_extra("broken_extra", "tiff")
    assert "libbroken.so is missing" in str(caught.value.__cause__)
    assert "broken_extra" not in sys.modules

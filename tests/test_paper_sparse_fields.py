"""The script of sparse fields runs, goes on where it ended, and names the paper's figures."""

from importlib import import_module

import pytest
from test_package import ROOT

from sklearn_micranet import MicraNetClassifier


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # of one epoch
def test_sparse_fields(tmp_path, monkeypatch, capsys):
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    monkeypatch.syspath_prepend(ROOT / "examples" / "paper")
    script = import_module("sparse_fields")
    small = script.SCALES["small"] | {"side": 256, "n_objects": 2, "n_scored": 1, "n_filters": 2}
    monkeypatch.setitem(script.SCALES, "small", small)
    arguments = ["--cache", str(tmp_path / "cache"), "--seeds", "0", "--images", "2"]
    arguments += ["--epochs", "1", "--figure", str(tmp_path / "recall.png")]
    script.main(arguments)
    printed = capsys.readouterr().out
    for text in ("3.13 %", "83-90 %", "0.62 +- 0.03", "2:1", "1:16", "area to inspect"):
        assert text in printed
    assert (tmp_path / "recall.png").stat().st_size > 10_000

    def refuse(*args, **kwargs):
        raise AssertionError("a finished training was started again")

    monkeypatch.setattr(MicraNetClassifier, "fit", refuse)
    script.main(arguments)
    assert capsys.readouterr().out == printed


def test_a_window_is_new_if_it_shows_another_object(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "examples" / "paper")
    script = import_module("sparse_fields")
    fields = [script.make_sparse_field((256, 256), n_objects=1, object_size=32, random_state=0)]
    row, column = fields[0].points[0].astype(int)
    rows = [row - 5, row - 9, row + 1]
    table = {"field": [0] * 3, "first_row": rows, "first_column": [column - 5] * 3}
    table |= {"end_row": [r + 20 for r in rows], "end_column": [column + 20] * 3}
    assert script.find_new_objects(table, fields) == [True, False, False]

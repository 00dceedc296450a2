"""What the prose says of the package's files and names is true."""

import ast
import re
import textwrap
from importlib import import_module

import numpy as np
import pytest
from test_package import RANKS, ROOT, SUBPACKAGES

DOCS = ROOT / "docs"
MADE_BY_SPHINX = ("_build", "auto_examples", "api/generated", "api/backreferences", "sg_")
FILES = {page.name: page for page in sorted(ROOT.glob("*.md"))} | {
    name: page
    for page in sorted(DOCS.rglob("*.rst"))
    if not (name := page.relative_to(DOCS).as_posix()).startswith(MADE_BY_SPHINX)
}
PAGES = {name: page.read_text(encoding="utf-8") for name, page in FILES.items()}
PLACES = (ROOT, ROOT / "sklearn_micranet", ROOT / "sklearn_micranet" / "datasets")


def found(pattern):
    """Matches in all pages, each with the name of its page; several, or the pattern is wrong."""
    matches = [(page, m) for page, text in PAGES.items() for m in re.findall(pattern, text)]
    assert len(matches) > 5
    return matches


def code_blocks(text):
    """Python in fences of Markdown, or in the directive of reStructuredText."""
    fenced = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    directive = r"^\.\. code-block:: python\n\n((?:(?:   .*)?\n)+)"
    return [*fenced, *map(textwrap.dedent, re.findall(directive, text + "\n", re.MULTILINE))]


def test_paths_exist():
    for page, path in found(r"`([\w/]+/|(?!_x|test_x)[\w/-]+\.(?:py|rst|md))`"):
        assert any((place / path).exists() for place in PLACES), (page, path)


def test_links_lead_to_files():
    for page, path in found(r"\]\((?!https?:)([^)]+)\)"):
        assert (ROOT / path).exists(), (page, path)


def test_public_names_exist():
    for page, (namespace, name) in found(rf"\b({'|'.join(SUBPACKAGES)})\.([a-z]\w+)\b(?!/)"):
        public = import_module(f"sklearn_micranet.{namespace}").__all__
        assert name in public, (page, namespace, name)


def test_imports_of_code_blocks_work():
    blocks = [block for text in PAGES.values() for block in code_blocks(text)]
    assert len(blocks) > 10
    for block in blocks:
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), (node.module, alias.name)


def test_contributing_tells_the_ranks_that_are_enforced():
    rows = re.findall(r"\n\| `(\w+)/` \|.*\| (\d) \|", PAGES["CONTRIBUTING.md"])
    enforced = {folder: rank for rank, folders in enumerate(RANKS) for folder in folders}
    assert {folder: int(rank) for folder, rank in rows} | {"door": len(RANKS) - 1} == enforced


def test_the_tables_that_contributing_names_are_where_it_says():
    rows = re.findall(r"its name in `(\w+)` \| `(.*)` \|", PAGES["CONTRIBUTING.md"])
    assert len(rows) == 2
    for name, path in rows:
        assert f"\n{name} = {{" in (ROOT / "sklearn_micranet" / path).read_text(encoding="utf-8")


def test_the_example_of_objects_runs(tmp_path, monkeypatch):
    pytest.importorskip("roifile")
    [block] = [b for b in code_blocks(PAGES["guide/objects.rst"]) if "write_objects(" in b]
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block, names)
    assert list(names["table"]["area_um2"]) == [30, 30, 75]
    assert list(names["summary"]["n_objects"]) == [2, 1]
    np.testing.assert_array_equal(names["corrected"].instances, names["instances"][0])

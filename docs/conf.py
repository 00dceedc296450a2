"""Sphinx configuration."""

from sklearn_micranet import __version__

project = "sklearn-micranet"
author = "The sklearn-micranet developers"
copyright = "2026, " + author
release = __version__
extensions = [
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
]
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
autosummary_generate = True
numpydoc_show_class_members = False
templates_path = ["_templates"]
exclude_patterns = ["_build"]
html_theme = "alabaster"

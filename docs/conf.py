"""Sphinx configuration."""

import os
import warnings

# The examples train networks: two threads are what every machine has, and keep figures alike.
os.environ.setdefault("OMP_NUM_THREADS", "2")

from sklearn_micranet import __version__

project = "sklearn-micranet"
author = "The sklearn-micranet developers"
copyright = "2026, " + author
release = __version__
extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.extlinks",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
autosummary_generate = True
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"
nitpicky = True  # every cross-reference leads somewhere, but those to other packages: built offline
nitpick_ignore_regex = [("py:.*", r"(sklearn|skimage|scipy|joblib|numpy|tifffile)\..*")]
templates_path = ["_templates"]
exclude_patterns = ["_build", "**/GALLERY_HEADER.rst"]

EXAMPLES_ARE_RUN = os.environ.get("SPHINX_GALLERY", "1") == "1"
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "auto_examples",
    "filename_pattern": r"/(plot|folder)_",
    # Helpers, and what needs data that is not here.
    "ignore_pattern": r"(^|/)(_\w+\.py|benchmarks|paper|blood_smears|nuclei)",
    "within_subsection_order": "FileNameSortKey",
    "doc_module": ("sklearn_micranet",),
    "backreferences_dir": "api/backreferences",
    "remove_config_comments": True,
    "show_memory": False,
    "plot_gallery": EXAMPLES_ARE_RUN,
}
if not EXAMPLES_ARE_RUN:  # their figures are missing
    suppress_warnings = ["image.not_readable"]
warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")

html_theme = "pydata_sphinx_theme"
html_title = "sklearn-micranet"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_theme_options = {
    "navbar_align": "left",
    "navbar_end": ["theme-switcher"],
    "show_prev_next": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": {"**": ["page-toc"], "index": []},
}
html_sidebars = {"index": [], "whats_new": []}


def write_plain_index(app, exception):
    """Write llms.txt: the pages by their titles, for readers that want no markup."""
    if exception is None and app.builder.name == "html":
        titles = {page: title.astext() for page, title in app.env.titles.items()}
        lines = [f"- [{titles[page]}]({page}.html)" for page in sorted(titles) if "sg_" not in page]
        app.outdir.joinpath("llms.txt").write_text("\n".join([f"# {project}", "", *lines, ""]))


def setup(app):
    app.connect("build-finished", write_plain_index)

"""Configuration of Sphinx. `make docs` builds the documentation with it, into build/docs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from sphinx.domains.python import PyObject

# Imported before autodoc looks: newer versions load _core.pyi in place of the compiled module, without its docstrings.
import tunring
import tunring.aead
import tunring.compat
import tunring.configuration
import tunring.contrib.anyio
import tunring.contrib.scapy
import tunring.errors
import tunring.packets
import tunring.pcapng
import tunring.testing
import tunring.testing.responder
import tunring.wireguard

if TYPE_CHECKING:
    from sphinx.application import Sphinx

#: Several attributes, as napoleon writes them.
NAMES = re.compile(r"^:(ivar|vartype) \w+(, \w+)+:")

project = "tunring"
author = "tunring contributors"
version = release = tunring.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon", "myst_parser"]
source_suffix = {".md": "markdown"}
nitpicky = False  # without an inventory of Python's own documentation its types cannot be resolved

autodoc_typehints = "none"  # numpy-style docstrings describe the parameters
autodoc_member_order = "groupwise"
autodoc_default_options = {"members": True, "inherited-members": "int, tuple"}
autodoc_class_signature = "mixed"
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True  # or attributes that have a comment of their own would be described twice

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4
suppress_warnings = ["config.cache", "ref.python"]  # attributes of one name in several classes

html_theme = "furo"
html_title = "tunring"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}


def join_names(app: Sphinx, kind: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Write the names that share a description without spaces: Sphinx would take all but the last one for a type."""
    lines[:] = [NAMES.sub(lambda field: field[0].replace(", ", ",\u200b"), line) for line in lines]


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("autodoc-process-docstring", join_names, priority=600)  # after napoleon
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"  # Sphinx's own word for them is Variables
    app.connect("autodoc-process-docstring", drop_signature)
    app.connect("autodoc-process-signature", drop_self)


def drop_signature(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Removes the line with name and type with which Cython begins the docstrings of properties."""
    if lines and re.match(r"_?\w+\.\w+: \w+$", lines[0]):
        del lines[0]


def drop_self(
    app: Sphinx, what: str, name: str, thing: object, options: object, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """Removes `self`, which Cython writes into the signatures of methods."""
    return signature and re.sub(r"^\(self(, )?", "(", signature), returns

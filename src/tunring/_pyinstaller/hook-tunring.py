"""PyInstaller's hook for tunring: what a frozen program needs that no import statement tells.

The libraries are opened by path, and go where the package looks for them. On Windows the official DLL is among them,
from where the package would load it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PyInstaller.utils.hooks import collect_submodules, get_package_paths

from tunring._library import _official_places

_package = Path(get_package_paths("tunring")[1])

binaries = [(str(path), "tunring/_backends") for path in sorted(_package.glob("_backends/*.*"))]
if sys.platform == "win32":
    binaries += [(str(path), "tunring") for path in _official_places() if path.is_file()][:1]


def _is_wanted(name: str) -> bool:
    # Modules that need other packages, and programs, are found by those who import them.
    return name.split(".")[1:2] not in [["_pyinstaller"], ["cli"], ["contrib"], ["examples"], ["__main__"]]


# The extension module imports some of these, and nothing can look into it.
hiddenimports = collect_submodules("tunring", _is_wanted)

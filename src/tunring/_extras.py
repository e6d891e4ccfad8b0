"""Explaining why a package that only a part of tunring needs could not be imported."""

from __future__ import annotations

import sys


def import_advice(error: ImportError, package: str) -> str:
    """Say that something needs a package which is absent, or which is there and broken.

    Parameters
    ----------
    error : ImportError
        What importing it raised. Chain it to the exception that carries the advice.
    package : str
        The package's name.

    Examples
    --------
    >>> from tunring._extras import import_advice
    >>> import_advice(ModuleNotFoundError("No module named 'rich'", name="rich"), "rich")
    'needs rich: pip install rich'
    >>> import_advice(ModuleNotFoundError("No module named 'unittest'", name="unittest"), "rich")
    "needs rich, which is installed but can't be imported: No module named 'unittest'"
    """
    blocked = sys.modules.get(package, package) is None
    if blocked or (isinstance(error, ModuleNotFoundError) and error.name == package):
        # Not the extra that has it: `pip install 'tunring[...]'` fails where tunring comes from a checkout or a wheel.
        return f"needs {package}: pip install {package}"
    return f"needs {package}, which is installed but can't be imported: {error}"

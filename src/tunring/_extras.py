"""Explaining why a package that only a part of tunring needs could not be imported."""

from __future__ import annotations

import sys


def import_advice(error: ImportError, package: str, requirement: str | None = None) -> str:
    """Say that something needs a package which is absent, or which is there and broken.

    Parameters
    ----------
    error : ImportError
        What importing it raised. Chain it to the exception that carries the advice.
    package : str
        The package's name.
    requirement : str, optional
        The argument of ``pip install``, by default the package's name.

    Examples
    --------
    >>> from tunring._extras import import_advice
    >>> import_advice(ModuleNotFoundError("No module named 'rich'", name="rich"), "rich", "tunring[cli]")
    "needs rich: pip install 'tunring[cli]'"
    >>> import_advice(ModuleNotFoundError("No module named 'unittest'", name="unittest"), "rich")
    "needs rich, which is installed but can't be imported: No module named 'unittest'"
    """
    blocked = sys.modules.get(package, package) is None
    if blocked or (isinstance(error, ModuleNotFoundError) and error.name == package):
        wanted = requirement or package
        return f"needs {package}: pip install " + (f"'{wanted}'" if "[" in wanted else wanted)
    return f"needs {package}, which is installed but can't be imported: {error}"

"""Explaining why a package that only a part of tunring needs could not be imported."""

from __future__ import annotations

import sys


def import_advice(error: ImportError, package: str, extra: str = "") -> str:
    """Advice for something that requires a package which is absent or broken.

    Parameters
    ----------
    error : ImportError
        The exception that importing it raised. Chain it to the exception that carries the advice.
    package : str
        The package's name.
    extra : str
        The extra of tunring that has it in a version which is known to do; none: any version does.

    Examples
    --------
    >>> from tunring._extras import import_advice
    >>> import_advice(ModuleNotFoundError("No module named 'rich'", name="rich"), "rich")
    'needs rich: pip install rich'
    >>> import_advice(ModuleNotFoundError("No module named 'rich'", name="rich"), "rich", "cli")
    'needs rich: pip install rich, or the extra tunring[cli]'
    >>> import_advice(ModuleNotFoundError("No module named 'unittest'", name="unittest"), "rich")
    "needs rich, which is installed but can't be imported: No module named 'unittest'"
    """
    blocked = sys.modules.get(package, package) is None
    if blocked or (isinstance(error, ModuleNotFoundError) and error.name == package):
        # First the package: `pip install 'tunring[...]'` fails where tunring comes from a checkout or a wheel.
        return f"needs {package}: pip install {package}" + (f", or the extra tunring[{extra}]" if extra else "")
    return f"needs {package}, which is installed but can't be imported: {error}"

"""The privilege to create adapters."""

from __future__ import annotations

import os
import sys


def is_elevated() -> bool:
    """True if this process has the privilege that creating an adapter takes.

    Windows: its token is elevated, as after "Run as administrator". Linux: it has ``CAP_NET_ADMIN``. ``loopback`` needs
    none.

    Examples
    --------
    >>> import tunring
    >>> if not tunring.is_elevated():
    ...     library = tunring.load("loopback")
    """
    if sys.platform == "win32":
        from tunring._system.privilege_windows import has_elevated_token

        return has_elevated_token()
    elif sys.platform == "linux":
        from tunring._system.privilege_linux import capabilities

        return "CAP_NET_ADMIN" in capabilities()
    else:
        return os.geteuid() == 0

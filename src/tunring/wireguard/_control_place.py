"""Where a device is controlled: at a Unix socket, or on Windows at a named pipe."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeAlias

if sys.platform == "win32":
    from tunring.wireguard._control_pipe_windows import ControlServer, connect, path_of

    Place: TypeAlias = str
else:
    from tunring.wireguard._control_socket import ControlServer, connect, path_of

    Place: TypeAlias = Path

__all__ = ["ControlServer", "Place", "connect", "path_of"]

"""Scripts that begin without standard streams, as daemons may: 0, 1 and 2 are the next descriptors."""

from __future__ import annotations

#: `main()`, which comes in between, runs without them. `redirect()` gives them back, as daemons do.
BEGIN = """
import asyncio, os, traceback
log = os.open("/dev/null", os.O_WRONLY)
os.dup2(2, 200)
for fd in (0, 1, 2):
    os.close(fd)

def standard_streams():
    return {fd: os.readlink(f"/proc/self/fd/{fd}") for fd in (0, 1, 2) if os.path.exists(f"/proc/self/fd/{fd}")}

def redirect():
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
"""

END = """
try:
    main()
except BaseException:
    os.write(200, traceback.format_exc().encode())
    os._exit(1)
os._exit(0)
"""

"""Programs that give up root.

The user they become may not be allowed to read where the package and Python are: the tests may run from a folder of
root's own. So everything is loaded before.
"""

from __future__ import annotations

NOBODY = 65534

#: A script that begins with this goes on as nobody, and finds `os`, `socket`, `sys` and `tunring` imported. It may
#: still write its own user namespace's maps, as it could after an exec.
BECOME_NOBODY = f"""
import codecs, concurrent.futures.thread, ctypes, importlib, os, pkgutil, socket, sys
import pyroute2
import tunring.__main__
def load_everything(path, prefix):
    for _, name, is_package in pkgutil.iter_modules(path, prefix):
        if not name.endswith(("windows", ".__main__", "._pyinstaller", ".contrib", ".examples", "_rich")):
            module = importlib.import_module(name)
            if is_package:
                load_everything(module.__path__, name + ".")
load_everything(tunring.__path__, "tunring.")
for codec in ("ascii", "idna", "latin-1", "utf-8", "utf-16-le"):
    codecs.lookup(codec)
tunring.load("tun_linux"), tunring.load("loopback")
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
PR_SET_DUMPABLE = 4
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
"""

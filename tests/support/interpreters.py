"""Scripts with several interpreters, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

_PREAMBLE = """
import sys
sys.path[:] = {path!r}
try:
    import _interpreters as interpreters
except ImportError:  # before Python 3.13
    import _xxsubinterpreters as interpreters

def make(kind):
    if hasattr(interpreters, "new_config"):
        return interpreters.create(kind)
    return interpreters.create(isolated=kind == "isolated")

def run(interpreter, text):
    run_text = getattr(interpreters, "exec", None) or interpreters.run_string
    failure = run_text(interpreter, f"import sys\\nsys.path[:] = {{sys.path!r}}\\n{{text}}")
    assert failure is None, failure
"""

#: A sub-interpreter of the first kind shares the main one's GIL; one of the second has its own from Python 3.12 on.
KINDS = ["legacy", "isolated"]


def check_interpreters(script: str, *path: str) -> list[str]:
    """Runs a script that must succeed and print nothing on stderr. Returns the lines that it printed.

    It knows `make(kind)` and `run(interpreter, text)`. All interpreters find modules as this one does, and in `path`.
    """
    source = _PREAMBLE.format(path=[*path, *sys.path]) + script
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"exit code {done.returncode}:\n{done.stderr}"
    return done.stdout.splitlines()

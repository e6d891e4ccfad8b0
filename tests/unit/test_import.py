"""Importing the package is quick, and loads nothing that may never be needed."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tunring
from running import SANITIZED

#: Milliseconds of the processor within which the package has to be there; and, since a busy machine takes longer for
#: everything, of what a package of Python's own takes there. On a machine by itself it is less than a half.
LIMIT, SHARE, OTHER = 30, 0.6, "asyncio"

#: Modules that take long to load, or belong to parts that a program has to ask for.
NOT_WANTED = """
    asyncio concurrent ctypes dataclasses email hashlib http inspect json logging multiprocessing platform selectors
    socket ssl subprocess tempfile uuid anyio click cryptography numpy pyroute2 rich scapy trio
""".split()


def run(script: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs a script that must succeed, in an interpreter that nothing has been imported into.

    Without site: what is installed for development hooks into it, and imports modules of its own.
    """
    command = [sys.executable, "-S", *options, "-c", f"import sys\nsys.path[:] = {sys.path!r}\n{script}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_import_loads_only_what_it_needs() -> None:
    loaded = set(run("before = set(sys.modules)\nimport tunring\nprint(*set(sys.modules) - before)").stdout.split())
    assert "tunring._core" in loaded, "the test looks at the wrong thing"
    assert not {name.partition(".")[0] for name in loaded} & set(NOT_WANTED)
    ours = {name for name in loaded if name.startswith("tunring.")}
    expected = "_adapter _configurator _core _library _logger _loops _system _system.privilege _version _win32 errors"
    assert ours == {f"tunring.{name}" for name in expected.split()}


def test_public_names_are_there_whether_they_are_loaded_or_not() -> None:
    assert set(tunring.__all__) <= set(dir(tunring))
    run(f"from tunring import {', '.join(tunring.__all__)}\nassert Stats.__name__ == 'Stats'")
    run("import tunring\nassert tunring.Stats is tunring.Stats\nassert tunring.Route('10.0.0.0/8')")
    with pytest.raises(AttributeError, match="nonsense"):
        tunring.nonsense  # noqa: B018


EVENTS = """
import os
seen = []
sys.addaudithook(lambda event, arguments: seen.append((event, arguments)))
import tunring
wrong = ("ctypes.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.startfile", "os.system", "socket.",
         "subprocess.")
for event, arguments in seen:
    if event.startswith(wrong):
        print(event, arguments)
if os.path.exists("/proc/self/maps"):
    print(*(line for line in open("/proc/self/maps") if "_backends" in line))
"""


def test_import_starts_no_program_and_loads_no_library() -> None:
    assert run(EVENTS).stdout.strip() == ""


@pytest.mark.skipif(SANITIZED, reason="no speed is asked of a sanitized build")
def test_import_takes_less_than_the_limit() -> None:
    # Processor time, which depends less on other programs; and the best of several runs.
    script = "import time\nbegan = time.process_time()\nimport {}\nprint((time.process_time() - began) * 1000)"
    ours: list[float] = []
    other: list[float] = []
    while not ours or min(ours) >= LIMIT:
        if len(ours) >= 10 and min(ours) < SHARE * min(other):
            break
        assert len(ours) < 40, f"the quickest of {len(ours)} imports took {min(ours):.1f} ms, {OTHER} {min(other):.1f}"
        ours.append(float(run(script.format("tunring")).stdout))
        other.append(float(run(script.format(OTHER)).stdout))

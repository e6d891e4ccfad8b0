"""Whatever is open when the interpreter ends: it ends with 0 and prints nothing but what it should."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from running import check_script, run_script

if TYPE_CHECKING:
    import tunring

SCENES = {
    "closed": "left.close(); right.close()",
    "batch": "batch = right.receive(); left.close(); right.close()",
    "views": "batch = right.receive(); views = list(batch); left.close(); right.close()",
    "slices": "views = [view[1:] for view in right.receive()]; left.close(); right.close()",
    "released": "batch = right.receive(); views = [v[1:] for v in batch]; batch.release(); left.close(); right.close()",
    "iterator": "batch = right.receive(); it = iter(batch); view = next(it); left.close(); right.close()",
    "generator": "it = right.batches(); batch = next(it); left.close(); right.close()",
    "reservation": "r = left.reserve([20]); views = r.__enter__(); left.close(); right.close()",
    "cycle": "batch = right.receive(); c = [batch, batch[0][:]]; c += [c]; left.close(); right.close(); del batch, c",
    "daemon views": """
import threading
batch = right.receive()
def hold(view):
    threading.Event().wait()
threading.Thread(target=hold, args=(batch[0][:],), daemon=True).start()
left.close(); right.close()
""",
    "logger": """
tunring.set_logger(lambda level, text: None, library)
left.close(); right.close()
""",
    "atexit": """
import atexit
batch = right.receive()
atexit.register(lambda: (batch.release(), left.close(), right.close()))
""",
}

OPEN = {
    "session": "pass",
    "session and views": "views = [view[1:] for view in right.receive()]",
    "reservation": "r = left.reserve([20]); views = r.__enter__()",
    "daemon waits": """
import threading, time
right.receive().release()
threading.Thread(target=right.receive, daemon=True).start()
time.sleep(0.05)
""",
    "daemon iterates": """
import threading, time
def run():
    for batch in right.batches(1):
        views = list(batch)
threading.Thread(target=run, daemon=True).start()
time.sleep(0.05)
""",
    "daemon sends": """
import threading, time
threading.Thread(target=left.send, args=([packet()] * 100000,), daemon=True).start()
time.sleep(0.05)
""",
    "cycle": "c = [left, right]; c.append(c); del left, right, c",
}

BEGIN = "left, right = pair(tunring.MIN_CAPACITY)\nleft.send([packet()] * 3)\n"


@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "dev"])
@pytest.mark.parametrize("scene", list(SCENES))
def test_everything_is_closed_but_things_live(library: tunring.Library, scene: str, options: tuple[str, ...]) -> None:
    check_script(BEGIN + SCENES[scene], *options, library=library.name)


@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "dev"])
@pytest.mark.parametrize("scene", list(OPEN))
def test_something_is_open(library: tunring.Library, scene: str, options: tuple[str, ...]) -> None:
    done = run_script(BEGIN + OPEN[scene], *options, library=library.name)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    if options:
        # The warning, the line of code that gives it, and where the object was made.
        allowed = (
            "ResourceWarning: unclosed <tunring.",
            '  warn(f"unclosed',
            '  warnings.warn(f"unclosed',
            "ResourceWarning: Enable tracemalloc",
        )
        lines = [line for line in lines if not any(part in line for part in allowed)]
    assert lines == []


def test_numpy_arrays_at_exit(library: tunring.Library) -> None:
    pytest.importorskip("numpy")
    scene = "import numpy\na = numpy.frombuffer(right.receive()[0], 'u1')\nleft.close(); right.close()"
    check_script(BEGIN + scene, library=library.name)


def test_an_import_alone_starts_no_thread_and_loads_nothing() -> None:
    out = check_script("""
import threading, sys
print(threading.active_count(), "pyroute2" in sys.modules, "asyncio" in sys.modules, "logging.handlers" in sys.modules)
""")
    assert out.split() == ["1", "False", "False", "False"]


def test_the_last_view_dies_with_the_interpreter(library: tunring.Library) -> None:
    """A helper thread ends the session while the interpreter goes down: it must not need anything of Python's."""
    for _ in range(20):
        check_script(BEGIN + SCENES["iterator"], library=library.name)


def test_what_is_open_when_modules_are_empty_already() -> None:
    """As some Pythons empty them at exit, while something still keeps the session."""
    scene = """
import gc, tunring.pcapng
import tunring._adapter, tunring._core, tunring._loops.aio
writer = tunring.pcapng.Writer(open("/dev/null", "wb", buffering=0))
adapter = tunring.Adapter.create("alone", library=library)
modules = tunring._adapter, tunring._core, tunring._loops.aio, tunring.pcapng
kept = [left, right, adapter, writer]
del left, right, adapter, writer
for module in modules:
    for name in vars(module):
        if not name.startswith("__"):
            vars(module)[name] = None
kept.clear()
gc.collect()
"""
    check_script(BEGIN + scene, library="loopback")

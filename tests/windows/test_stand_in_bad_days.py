"""Failures that only the official DLL has: no driver, no privilege, log lines of its own threads."""

from __future__ import annotations

import pytest

import libraries
import tunring
from running import check_script

#: Makes the DLL's own threads write lines: they may not look for adapters that others left behind.
NOT_ELEVATED = "libraries.stand_in().StandinElevated(0)\n"


@pytest.fixture
def wintun() -> tunring.Library:
    """The official DLL, over the stand-in."""
    return libraries.load("wintun")


def test_without_elevation() -> None:
    """An AccessDenied that names what is lacking, and quotes the DLL."""
    out = check_script(
        NOT_ELEVATED
        + """
for call in (tunring.Adapter.create, tunring.Adapter.open):
    try:
        call("denied", library=library)
    except tunring.AccessDenied as error:
        assert error.winerror == 5
        assert isinstance(error, PermissionError)
        print(error)
""",
        library="wintun",
    )
    assert out.count("(code 5)") == 2
    assert "private namespace" in out


def test_a_driver_that_does_not_run() -> None:
    check_script(
        """
libraries.stand_in().StandinDriverState(1, 0)
try:
    tunring.running_driver_version(library)
except tunring.NotFound as error:
    assert error.winerror == 2
else:
    raise AssertionError
with tunring.Adapter.create("first", library=library):
    assert tunring.running_driver_version(library) == (0, 14)
""",
        library="wintun",
    )


def test_a_driver_that_has_to_be_installed() -> None:
    check_script(
        """
libraries.stand_in().StandinDriverState(0, 0)
for turn in range(2):
    with tunring.Adapter.create("first", library=library) as adapter, adapter.start_session():
        assert tunring.running_driver_version(library) == (0, 14)
    tunring.delete_driver(library)
""",
        library="wintun",
    )


def test_lines_of_the_librarys_own_threads_come_too() -> None:
    out = check_script(
        NOT_ELEVATED
        + """
import logging, queue
lines = queue.Queue()
class Handler(logging.Handler):
    def emit(self, record):
        lines.put(record.getMessage())
logger = logging.getLogger("wintun")
logger.addHandler(Handler())
logger.propagate = False
tunring.set_logger(logger, library)
own = 0
for i in range(20):
    try:
        tunring.Adapter.open("nobody", library=library)
    except tunring.AccessDenied as error:
        own += len(str(error).splitlines()) - 1
assert own
more = [lines.get(timeout=20) for i in range(own + 1)]   # one more than the calls' own threads wrote
print(len(more) - own)
""",
        library="wintun",
    )
    assert out.split() == ["1"]


@pytest.mark.parametrize("options", [(), ("-X", "dev")], ids=["plain", "dev"])
@pytest.mark.parametrize("turns", [1, 20])
def test_lines_at_the_end_of_the_interpreter(turns: int, options: tuple[str, ...]) -> None:
    """The DLL's threads go on writing while the interpreter ends, and after."""
    check_script(
        NOT_ELEVATED
        + f"""
import atexit, logging
logging.basicConfig(filename="nul")
def complain():
    for i in range({turns}):
        try:
            tunring.Adapter.open("nobody", library=library)
        except tunring.AccessDenied:
            pass
tunring.set_logger(logging.getLogger("wintun"), library)
atexit.register(complain)
complain()
""",
        *options,
        library="wintun",
    )


@pytest.mark.parametrize("held", ["views", "batch", "nothing"])
def test_a_removed_adapter_at_the_end_of_the_interpreter(held: str) -> None:
    """Its session may not be ended, not even then."""
    out = check_script(
        f"""
import atexit, warnings
warnings.simplefilter("ignore", ResourceWarning)
adapter = tunring.Adapter.create("removed", library=library)
driver = tunring.testing.Simulator.attach(adapter)
session = adapter.start_session(tunring.MIN_CAPACITY)
driver.inject([packet()] * 3)
batch = session.receive()
views = [view[:] for view in batch] if {held!r} == "views" else []
if {held!r} != "batch":
    batch.release()
atexit.register(lambda: print(libraries.stale_ends(), [bytes(view) == packet() for view in views]))
driver.remove()
""",
        library="wintun",
    )
    assert out.strip() == ("0 [True, True, True]" if held == "views" else "0 []")


def test_a_removed_adapter_can_not_be_opened(wintun: tunring.Library, name: str) -> None:
    with tunring.Adapter.create(name, library=wintun) as adapter:
        driver = tunring.testing.Simulator.attach(adapter)
        driver.remove()
        with pytest.raises(tunring.NotFound):
            tunring.Adapter.open(name, library=wintun)
        with pytest.raises(tunring.NotFound):
            adapter.start_session()
    tunring.Adapter.create(name, library=wintun).close()

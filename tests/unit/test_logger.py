from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

import pytest

import tunring
from libraries import failure_line
from running import check_script, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lines(library: tunring.Library) -> Iterator[queue.Queue[tuple[int, str, str]]]:
    lines: queue.Queue[tuple[int, str, str]] = queue.Queue()
    tunring.set_logger(lambda level, text: lines.put((level, text, threading.current_thread().name)), library)
    yield lines
    tunring.set_logger(None, library)


def complain(library: tunring.Library, name: str) -> None:
    """Makes the library write a line, failure_line(library, name)."""
    with pytest.raises(tunring.NotFound):
        tunring.Adapter.open(name, library=library)


def test_a_callable_gets_level_and_text_in_a_thread_of_its_own(
    library: tunring.Library, lines: queue.Queue[tuple[int, str, str]], name: str
) -> None:
    complain(library, name)
    text = ""
    while failure_line(library, name) not in text:
        level, text, thread = lines.get(timeout=10)
    assert level == logging.ERROR
    assert thread != threading.current_thread().name


@pytest.mark.ours_only(reason="the official DLL's lines don't say for which name they are")
def test_lines_keep_their_order(library: tunring.Library, lines: queue.Queue[tuple[int, str, str]], name: str) -> None:
    for i in range(100):
        complain(library, f"{name}-{i}-")
    for i in range(100):
        assert f"{name}-{i}-" in lines.get(timeout=10)[1]


def test_a_logger_gets_them(library: tunring.Library, name: str, caplog: pytest.LogCaptureFixture) -> None:
    arrived = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            arrived.set()

    logger = logging.getLogger("tunring.test")
    handler = Handler()
    logger.addHandler(handler)
    tunring.set_logger(logger, library)
    try:
        complain(library, name)
        assert arrived.wait(10)
        said = failure_line(library, name)
        # The handler of its own comes before the one that keeps the records.
        assert eventually(
            lambda: any(said in record.getMessage() and record.levelno == logging.ERROR for record in caplog.records)
        )
    finally:
        tunring.set_logger(None, library)
        logger.removeHandler(handler)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_a_target_cannot_end_the_thread_that_serves_all(
    library: tunring.Library, name: str, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def target(level: int, text: str) -> None:
        raise error

    tunring.set_logger(target, library)
    complain(library, name)
    assert eventually(lambda: "the log target failed" in caplog.text)
    assert_lines_come(library, name)


def test_a_handler_that_fails_does_not_end_the_thread_either(library: tunring.Library, name: str) -> None:
    failed = threading.Event()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "the log target failed":
                failed.set()
            raise OSError("the disk is full")

    logger, handler = logging.getLogger("tunring"), Handler()
    logger.addHandler(handler)
    tunring.set_logger(logger, library)
    try:
        complain(library, name)
        assert failed.wait(10)
    finally:
        logger.removeHandler(handler)
    assert_lines_come(library, name)


def assert_lines_come(library: tunring.Library, name: str) -> None:
    arrived = threading.Event()
    tunring.set_logger(lambda level, text: arrived.set(), library)
    try:
        complain(library, name)
        assert arrived.wait(10)
    finally:
        tunring.set_logger(None, library)


def test_none_stops_them(library: tunring.Library, lines: queue.Queue[tuple[int, str, str]], name: str) -> None:
    tunring.set_logger(None, library)
    complain(library, name)
    with pytest.raises(queue.Empty):
        lines.get(timeout=0.1)


def test_a_target_that_raises_loses_nothing_else(
    library: tunring.Library, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    got: queue.Queue[str] = queue.Queue()

    def target(level: int, text: str) -> None:
        if level == logging.ERROR:
            got.put(text)
        raise KeyError("mine")

    tunring.set_logger(target, library)
    try:
        complain(library, name + "-1")
        complain(library, name + "-2")
        assert failure_line(library, name + "-1") in got.get(timeout=10)
        assert failure_line(library, name + "-2") in got.get(timeout=10)
    finally:
        tunring.set_logger(None, library)
    assert "mine" in caplog.text


@pytest.mark.parametrize("target", [3, "tunring", object()])
def test_only_a_callable_or_a_logger(library: tunring.Library, target: object) -> None:
    with pytest.raises(TypeError):
        tunring.set_logger(target, library)


def test_a_target_may_close_the_session_that_another_thread_waits_in(
    library: tunring.Library, adapter: tunring.Adapter, name: str
) -> None:
    session = adapter.start_session()
    tunring.set_logger(lambda level, text: session.close(), library)
    try:
        threading.Timer(0.05, complain, (library, name + "x")).start()
        with pytest.raises(tunring.SessionClosed) as caught:
            session.receive(timeout=20)
        assert caught.value.reason == "closed"
    finally:
        tunring.set_logger(None, library)


@pytest.mark.parametrize(
    "target",
    ["lambda level, text: None", "logging.getLogger('x')", "lambda level, text: time.sleep(0.01)", "fail"],
)
def test_nothing_hangs_or_shows_at_exit(library: tunring.Library, target: str) -> None:
    check_script(
        f"""
import logging, time
logging.disable()
def fail(level, text):
    raise SystemError
tunring.set_logger({target}, library)
for i in range(50):
    try:
        tunring.Adapter.open("nobody", library=library)
    except tunring.NotFound:
        pass
""",
        "-X",
        "dev",
        library=library.name,
    )


def test_more_lines_than_the_queue_holds_are_counted(library: tunring.Library) -> None:
    source = """
import threading
from tunring import _core
gate = threading.Event()
count = 0
def target(level, text):
    global count
    gate.wait()
    count += level >= 40
tunring.set_logger(target, library)
for i in range(1000):
    try:
        tunring.Adapter.open("nobody", library=library)
    except tunring.NotFound as error:
        assert libraries.failure_line(library, "nobody") in str(error).partition("\\n")[2], str(error)
gate.set()
import time
while count + _core.log_lost() < 1000:
    time.sleep(0.01)
print(count, _core.log_lost())
"""
    out = check_script(source, library=library.name)
    count, lost = map(int, out.split())
    assert count + lost == 1000
    assert lost > 0


def test_setting_one_while_the_same_thread_sets_one() -> None:
    """A signal handler or a finalizer may set the logger in the middle of setting it."""
    check_script(
        """
import threading
from tunring import _core
library = tunring.load("loopback")
lines = []

def interrupted(library, enabled, uninterrupted=_core.log_enable):
    _core.log_enable = uninterrupted
    tunring.set_logger(lambda level, text: lines.append(text), library)
    uninterrupted(library, enabled)

_core.log_enable = interrupted
tunring.set_logger(print, library)
assert [thread.name for thread in threading.enumerate()].count("tunring-log") == 1
tunring.set_logger(None, library)
"""
    )

"""Work in another thread for the sake of its network namespace, asked for by a signal handler."""

from __future__ import annotations

from lines import BEGIN
from running import check_script


def test_a_handler_in_the_middle_of_a_start_of_a_thread() -> None:
    """As one that closes an adapter does, whose configuration is taken back."""
    out = check_script(
        BEGIN
        + """
import threading
from tunring._system.namespace_linux import call_in_network

def start(thread):
    thread.start()
    thread.join()

print(at_each_line(lambda: threading.Thread(target=int), start, lambda _: call_in_network(-1, int)))
try:
    call_in_network(-1, lambda: 1 / 0)
except ZeroDivisionError:
    print("its exception comes")
"""
    )
    lines, text = out.splitlines()
    assert int(lines) > 10
    assert text == "its exception comes"


def test_a_handler_while_a_lock_of_the_logging_module_is_held() -> None:
    """The thread that waits for the work, and may hold that lock, logs its warnings, after the work."""
    out = check_script("""
import faulthandler, logging, signal, sys, threading
from tunring._system.namespace_linux import call_in_network, warn
faulthandler.dump_traceback_later(20, exit=True)
handler = logging.StreamHandler(sys.stdout)
logging.getLogger("tunring").addHandler(handler)

def close(*_):
    call_in_network(-1, lambda: (warn("one %s", "warning"), print("work")))

signal.signal(signal.SIGUSR1, close)
with handler.lock:
    signal.raise_signal(signal.SIGUSR1)
warn("another")
assert threading.enumerate() == [threading.main_thread()]
faulthandler.cancel_dump_traceback_later()
""")
    assert out.split("\n") == ["work", "one warning", "another", ""]


def test_ctrl_c_as_soon_as_the_thread_has_started_waits_for_the_work() -> None:
    check_script("""
import _thread, sys, time
from tunring._system.namespace_linux import call_in_network

start = _thread.start_new_thread

def press(frame, event, function):
    if event == "c_return" and function is start:
        raise KeyboardInterrupt

done = []

def work():
    time.sleep(0.2)
    done.append(True)

sys.setprofile(press)
try:
    call_in_network(-1, work)
except KeyboardInterrupt:
    pass
sys.setprofile(None)
assert done
""")

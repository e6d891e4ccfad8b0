"""Checks that a forked child keeps no port of its parent's.

Both take a script that defines ``make(port)``, which takes a port and returns what can be closed, and
``port_of(made)``.
"""

from __future__ import annotations

import forks
import lines
from running import check_script

_CHILDREN = """
children = []

def leave_child():
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    children.append(pid)

def end_children():
    while children:
        pid = children.pop()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)

def is_free_again(port):
    # A child that was just made drops its copies when it first runs, which may be after its parent's close.
    until = time.monotonic() + 10
    while True:
        try:
            make(port).close()
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        else:
            return True
"""

_AFTER = """
made = make(0)
leave_child()
try:
    made.close()
    assert is_free_again(port_of(made)), made
finally:
    end_children()
left.close(); right.close()
"""

_AT_EACH_LINE = """
free = make(0)
port = port_of(free)
free.close()

def bind(_):
    make(port).close()
    sys.settrace(None)
    assert is_free_again(port), "a child has the port"
    end_children()

try:
    print(at_each_line(lambda: None, bind, lambda _: leave_child()))
finally:
    end_children()
left.close(); right.close()
"""


def check_after(make: str) -> None:
    """A child that is forked while the port is taken."""
    check_script(forks.BEGIN + make + _CHILDREN + _AFTER)


def check_at_each_line(make: str) -> None:
    """A child that is forked at each line of ``make``, of which there have to be some."""
    out = check_script(forks.BEGIN + make + _CHILDREN + lines.BEGIN + _AT_EACH_LINE)
    assert int(out) > 20

"""The beginning of scripts that fork."""

from __future__ import annotations

# `child(function)` runs a function in a forked child, and checks that it ended well. `run_in_child(function)` is for a
# child that was forked in another way: it does not return.
BEGIN = """
import os, signal, sys, threading, time, traceback, warnings
warnings.simplefilter("ignore", DeprecationWarning)   # Python's own, of threads and fork

def run_in_child(function):
    code = 1
    try:
        signal.alarm(10)
        function()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)

def child(function):
    pid = os.fork()
    if pid == 0:
        run_in_child(function)
    _, status = os.waitpid(pid, 0)
    assert status != signal.SIGALRM, "the child hangs"
    assert status == 0, f"the child ended with {status}"

def forked(call, *arguments, **options):
    try:
        call(*arguments, **options)
    except tunring.SessionClosed as error:
        assert error.reason == "forked", error.reason
        assert error.winerror == 38
        assert "was made before the fork: it is the parent process's" in str(error), error
    else:
        raise AssertionError(f"{call} works in a child")

def works(left, right):
    left.send([packet(number=5)])
    with right.receive(timeout=5) as batch:
        assert batch.tobytes() == [packet(number=5)]

def works_anew():
    left, right = tunring.testing.pair()
    works(left, right)
    left.close(); right.close()

left, right = tunring.testing.pair(tunring.MIN_CAPACITY)
"""

#: Children that have a copy of everything, and a look at a port. `make(port)`, which comes before, takes one and
#: returns what can be closed; `port_of()` returns its number.
PORTS = """
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

KEEPS_NO_PORT = """
made = make(0)
leave_child()
try:
    made.close()
    assert is_free_again(port_of(made)), made
finally:
    end_children()
left.close(); right.close()
"""

#: The same with a child forked at each line of `make`, by `lines`. Prints how many there are.
KEEPS_NO_PORT_AT_EACH_LINE = """
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

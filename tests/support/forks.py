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

"""The child process of commands that change their process for good, and what interrupts it."""

from __future__ import annotations

import subprocess
import sys

#: A command that takes a while to clean up after Ctrl-C, which a terminal sends to its process group.
SLOW = """
import os, signal, sys, time
from tunring.cli.isolation_linux import run_in_child

def command():
    try:
        os.killpg(0, signal.SIGINT)
        time.sleep(20)
    except KeyboardInterrupt:
        time.sleep(0.3)
        print("cleaned up")
        return 130

sys.exit(run_in_child(command))
"""

#: Ctrl-C comes when the child is over and the parent has just heard of it.
LATE = """
import os, signal, sys
from tunring.cli.isolation_linux import run_in_child

def later(wait):
    def wait_and_interrupt(*arguments):
        os.waitid, os.waitpid = waits
        result = wait(*arguments)
        signal.raise_signal(signal.SIGINT)
        return result
    return wait_and_interrupt

waits = os.waitid, os.waitpid
os.waitid, os.waitpid = map(later, waits)
sys.exit(run_in_child(lambda: 5))
"""


def run(script: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, start_new_session=True)
    return done.returncode, done.stdout, done.stderr


def test_the_child_is_interrupted_once() -> None:
    assert run(SLOW) == (130, "cleaned up\n", "")


def test_an_interrupt_that_comes_late_hits_nobody() -> None:
    assert run(LATE) == (5, "", "")

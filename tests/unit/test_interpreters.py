"""Sub-interpreters: the package is for the main one, and none of the others can take it away."""

from __future__ import annotations

import sys

import pytest

from interpreters import KINDS, check_interpreters

#: Imports the package in a sub-interpreter, in the main one, and in the sub-interpreter again.
SCRIPT = """
IMPORT = '''
try:
    import tunring
except ImportError as error:
    print(error, flush=True)
else:
    print("imported", flush=True)
'''

other = make({kind!r})
run(other, IMPORT)
import tunring.testing
left, right = tunring.testing.pair()
run(other, IMPORT)
interpreters.destroy(other)
left.send([bytes([0x45]) + bytes(19)])
with right.receive(timeout=5) as batch:
    print(len(batch))
left.close()
right.close()
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_sub_interpreter_is_refused_and_locks_nobody_out(kind: str) -> None:
    refusal = "tunring can be imported in the main interpreter only, not in a sub-interpreter"
    if kind == "isolated" and sys.version_info >= (3, 12):  # Python's own, for an interpreter with a GIL of its own
        refusal = "module tunring._core does not support loading in subinterpreters"
    assert check_interpreters(SCRIPT.format(kind=kind)) == [refusal, refusal, "1"]

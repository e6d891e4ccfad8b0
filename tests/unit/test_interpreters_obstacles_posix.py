"""The obstacles to sessions in several interpreters, shown without tunring: Python's, Cython's and cryptography's.

Each test asserts that its obstacle is gone, and is expected to fail in just the way it does today. Once it passes, the
refusal in ``src/extension/python_api.h`` has one reason less, and the table in ``docs/guide/threads.md`` one row.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path

import pytest

from interpreters import KINDS, check_interpreters
from running import FREE_THREADED


class ObstacleError(Exception):
    """An obstacle is there as it was."""


def obstacle(issue: str) -> pytest.MarkDecorator:
    """For a test that fails by ObstacleError until the upstream issue is closed."""
    return pytest.mark.xfail(strict=True, raises=ObstacleError, reason=issue)


def compare(found: list[str], wanted: list[str], *today: list[str]) -> None:
    """Passes for what is wanted. Raises ObstacleError for what is found today, and AssertionError for anything else."""
    assert found in (wanted, *today)
    if found != wanted:
        raise ObstacleError(found)


only_own_gil = pytest.mark.skipif(sys.version_info < (3, 12), reason="an interpreter has no GIL of its own before 3.12")

# ---- Cython ----

#: The lookups of an interpreter's module state are counted: each asks for the interpreter's number.
MODULE = '''
# cython: language_level=3, subinterpreters_compatible=own_gil
cdef extern from *:
    """
    static long lookups;
    #define PyInterpreterState_GetID(interpreter) (lookups++, PyInterpreterState_GetID(interpreter))
    """
    long lookups

cdef int _counted = 0

cdef class Thing:
    pass

def count():
    global _counted
    _counted += 1
    return _counted

def lookups_of_a_search(list items):
    cdef long before = lookups
    for item in items:
        assert isinstance(item, Thing)
    return lookups - before
'''


def build(source: Path, folder: Path, *options: str) -> str:
    """Compiles a module in C. Returns the folder, which is for sys.path."""
    folder.mkdir()
    command = [*shlex.split(sysconfig.get_config_var("LDSHARED")), "-fPIC", f"-I{sysconfig.get_path('include')}"]
    output = folder / (source.stem + sysconfig.get_config_var("EXT_SUFFIX"))
    subprocess.run([*command, *options, "-o", output, source], check=True)
    return str(folder)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MODULE in C."""
    source = tmp_path_factory.mktemp("cython") / "module.pyx"
    source.write_text(MODULE)
    subprocess.run([sys.executable, "-m", "cython", source], capture_output=True, check=True)
    return source.with_suffix(".c")


@pytest.fixture(scope="module")
def with_state(generated: Path) -> str:
    """MODULE with all that Cython can keep for each interpreter: its state, and classes that are made at run time."""
    options = ["-DCYTHON_USE_MODULE_STATE=1", "-DCYTHON_USE_TYPE_SPECS=1"]
    return build(generated, generated.parent / "state", *options)


@obstacle("https://github.com/cython/cython/issues/5425")
@pytest.mark.parametrize("kind", KINDS)
def test_each_interpreter_has_its_own_global_variables(kind: str, with_state: str) -> None:
    """Those that `cdef` declares are static variables in C. One for an object is shared just as well, and the import
    in a second interpreter frees the first one's object: in memory of the second, if each has a GIL of its own."""
    script = f"""
pair = [make({kind!r}), make({kind!r})]
for interpreter in pair:
    run(interpreter, "import module")
for interpreter in pair:
    run(interpreter, "import module; print(module.count(), flush=True)")
    interpreters.destroy(interpreter)
"""
    compare(check_interpreters(script, with_state), ["1", "1"], ["1", "2"])


SEARCH = "import module; print(module.lookups_of_a_search([module.Thing()] * 1000) > 1)"


def test_a_module_in_static_variables_is_looked_up_by_nobody(generated: Path) -> None:
    """So the next test counts what it says."""
    folder = build(generated, generated.parent / "static")
    assert check_interpreters(SEARCH, folder) == ["False"]


@obstacle("https://github.com/cython/cython/issues/3689")
def test_a_function_looks_up_its_module_once(with_state: str) -> None:
    """It does so whenever it uses a class, a constant or a name: in the main interpreter, too, since a module is built
    for all of them."""
    compare(check_interpreters(SEARCH, with_state), ["False"], ["True"])


@only_own_gil
@pytest.mark.skipif(FREE_THREADED, reason="the stable ABI has a GIL")
@obstacle("https://github.com/python/cpython/issues/111698")
def test_a_module_for_the_stable_abi_declares_that_it_needs_no_common_gil(tmp_path: Path) -> None:
    """Python 3.11, which the wheel for the stable ABI begins with, refuses modules that declare it: only one for 3.12
    and later can."""
    source = tmp_path / "module.c"
    source.write_text("""
#include <Python.h>
static PyModuleDef_Slot slots[] = {
#ifdef Py_mod_multiple_interpreters
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
    {0, NULL},
};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "module", .m_slots = slots};
PyMODINIT_FUNC PyInit_module(void) { return PyModuleDef_Init(&module); }
""")
    assert imported("module", "isolated", build(source, tmp_path / "later")) == ["imported"]
    found = imported("module", "isolated", build(source, tmp_path / "stable", "-DPy_LIMITED_API=0x030B0000"))
    compare(found, ["imported"], ["module module does not support loading in subinterpreters"])


def imported(module: str, kind: str, *path: str) -> list[str]:
    """Imports a module in a sub-interpreter after the main one: "imported", or why it was refused."""
    text = f"""
try:
    import {module}
except ImportError as error:
    print(error, flush=True)
else:
    print("imported", flush=True)
"""
    return check_interpreters(f"import {module}\nrun(make({kind!r}), {text!r})", *path)


# ---- Python ----

PYTHON_SIGNALS = "https://github.com/python/cpython/issues/137173"


def in_main_thread(text: str) -> list[str]:
    """Runs a text that may fail in a sub-interpreter, in the process' main thread. Returns what it printed."""
    text = f"""
try:
{textwrap.indent(text, "    ")}
except (RuntimeError, ValueError) as error:
    print(error, flush=True)
"""
    return check_interpreters(f"run(make('isolated'), {text!r})")


@obstacle(PYTHON_SIGNALS)
def test_a_sub_interpreter_sets_the_wakeup_descriptor() -> None:
    """Waits in the main thread set it, to be woken by signals (``src/extension/interrupt_posix.c``)."""
    found = in_main_thread("import signal; print(signal.set_wakeup_fd(-1), flush=True)")
    compare(found, ["-1"], ["set_wakeup_fd only works in main thread of the main interpreter"])


@obstacle(PYTHON_SIGNALS)
def test_ctrl_c_interrupts_a_sub_interpreter() -> None:
    """The main interpreter gets the exception, after the sub-interpreter's end."""
    text = """
import signal, time
try:
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.01)
    print("not interrupted", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""
    script = f"""
try:
    run(make("isolated"), {text!r})
except KeyboardInterrupt:
    print("afterwards")
"""
    compare(check_interpreters(script), ["interrupted"], ["not interrupted", "afterwards"])


@obstacle("https://github.com/python/cpython/issues/140057")
def test_a_sub_interpreter_has_daemon_threads() -> None:
    """As those that pass on log lines, wake event loops and serve WireGuard are."""
    found = in_main_thread("""
import threading
thread = threading.Thread(target=print, args=("ran",), kwargs={"flush": True}, daemon=True)
thread.start()
thread.join()
""")
    since_312 = ["daemon threads are disabled in this (sub)interpreter"]
    compare(found, ["ran"], since_312, ["thread is not supported for isolated subinterpreters"])


# ---- What tunring.wireguard needs ----


@obstacle("https://github.com/PyO3/pyo3/issues/576")
@pytest.mark.parametrize("kind", KINDS)
def test_cryptography_is_imported_in_two_interpreters(kind: str) -> None:
    pytest.importorskip("cryptography")
    rust = "cryptography.hazmat.bindings._rust"
    refusal = "PyO3 modules do not yet support subinterpreters, see https://github.com/PyO3/pyo3/issues/576"
    found = imported("cryptography.hazmat.primitives.asymmetric.x25519", kind)
    compare(found, ["imported"], [refusal], [f"module {rust} does not support loading in subinterpreters"])


@only_own_gil
@obstacle("https://github.com/python-cffi/cffi/issues/174")
def test_cffi_is_imported_beside_another_gil() -> None:
    """cryptography is built on it."""
    pytest.importorskip("_cffi_backend")
    found = imported("_cffi_backend", "isolated")
    compare(found, ["imported"], ["module _cffi_backend does not support loading in subinterpreters"])

"""A library without our table that fails without a last error, as the official DLL can: an earlier call's last error
is not reported for it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from running import check_script

FUNCTIONS = re.findall(r"X\((Wintun\w+)", (Path(__file__).parents[2] / "include/wintun.h").read_text("utf-8"))

#: DeleteDriver returns TRUE when the last error happens to be 0, as the DLL does.
SPECIAL = {
    "WintunDeleteDriver": "int WintunDeleteDriver(void) { return errno == 0; }",
    "WintunOpenAdapter": "void *WintunOpenAdapter(const void *n) { (void)n; if (found == 1) errno = 1168; return 0; }",
    "WintunCreateAdapter": "void *WintunCreateAdapter(void) { if (found == 2) errno = 0; return 0; }",
}


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library; its ``found`` chooses what OpenAdapter and CreateAdapter leave in the last error."""
    folder = tmp_path_factory.mktemp("silent")
    lines = ["#include <errno.h>", "int found;"]
    lines += [SPECIAL.get(name, f"void *{name}(void) {{ return 0; }}") for name in FUNCTIONS]
    (folder / "silent.c").write_text("\n".join(lines) + "\n")
    compiler = shlex.split(os.environ.get("CC", "cc"))
    subprocess.run([*compiler, "-shared", "-fPIC", "-o", folder / "silent.so", folder / "silent.c"], check=True)
    return str(folder / "silent.so")


PREPARE = """
import contextlib, ctypes, os
library = tunring.load({path!r})
found = ctypes.c_int.in_dll(ctypes.CDLL({path!r}), "found")
def failure(function, *arguments, **options):
    with contextlib.suppress(FileNotFoundError):
        os.stat("/no such file")  # leaves 2 in errno, which would be NotFound
    try:
        function(*arguments, **options)
    except tunring.WintunError as error:
        return error
    raise AssertionError("no failure")
"""


@pytest.mark.parametrize(
    "call",
    [
        "tunring.Adapter.open, 'x', library=library",
        "tunring.delete_driver, library",
        "tunring.running_driver_version, library",
    ],
)
def test_a_failure_that_says_nothing(silent: str, call: str) -> None:
    out = check_script(PREPARE.format(path=silent) + f"print(failure({call}).winerror)")
    assert out.split() == ["31"]


@pytest.mark.parametrize("left", [1, 2])
def test_create(silent: str, left: int) -> None:
    out = check_script(
        PREPARE.format(path=silent)
        + f"""
import tunring._creation
tunring._creation._refuse_taken_name = lambda *_: None
found.value = {left}
print(failure(tunring.Adapter.create, 'x', library=library).winerror)
"""
    )
    assert out.split() == ["31"]


@pytest.mark.parametrize("function", ["create", "open"])
def test_without_elevation_the_failure_says_what_to_do(silent: str, function: str) -> None:
    out = check_script(
        PREPARE.format(path=silent)
        + f"""
import tunring._creation
tunring._creation.is_elevated = lambda: False
error = failure(tunring.Adapter.{function}, 'x', library=library)
print(type(error).__name__, isinstance(error, PermissionError), error.winerror)
print(error)
"""
    )
    assert out.splitlines()[0] == "AccessDenied True 5"
    assert "code 31" in out, "the failure itself"
    assert "Run as administrator" in out

"""A program that PyInstaller has frozen finds the libraries, with nothing but the hook that the package carries."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from running import check_program, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Making an environment and freezing a program may take minutes.
pytestmark = pytest.mark.timeout(900)

HERE = Path(__file__).parent

#: Runs a program in a network namespace of its own.
IN_NAMESPACE = """
import ctypes, os, sys
assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def program(wheel: Path, make_python: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frozen program, in a folder that was moved away from where it was made, as users get it."""
    folder = tmp_path_factory.mktemp("freeze")
    python = make_python(folder / "venv")
    check_program(python, "-m", "pip", "install", "--quiet", wheel, "pyinstaller")
    check_program(python, "-m", "PyInstaller", "--log-level", "WARN", "--distpath", folder / "dist",
                  "--workpath", folder / "build", "--specpath", folder, HERE / "frozen.py")  # fmt: skip
    moved = folder / "moved"
    shutil.move(folder / "dist/frozen", moved)
    shutil.rmtree(folder / "venv")
    return moved / ("frozen.exe" if os.name == "nt" else "frozen")


def test_it_carries_the_libraries(program: Path) -> None:
    carried = {path.stem for path in program.parent.rglob("tunring/_backends/*")}
    assert carried == {"loopback", *(["tun_linux"] if sys.platform == "linux" else [])}


def test_echo_over_a_cable(program: Path) -> None:
    answer, received, library = check_program(program, "cable").splitlines()
    assert answer == "4500001c 00010000 40016642 0a4d0002 0a4d0001 0000fffd 00010001"
    assert received == "1"
    assert Path(library).is_relative_to(program.parent)


def test_it_needs_what_the_hook_adds(program: Path, tmp_path: Path) -> None:
    """Without the hook the tests above would fail."""
    copy = tmp_path / "copy"
    shutil.copytree(program.parent, copy)
    [folder] = copy.rglob("_backends")
    shutil.rmtree(folder)
    done = subprocess.run([copy / program.name, "cable"], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
    assert "LibraryNotFound" in done.stderr


@pytest.fixture
def echo(program: Path) -> Iterator[subprocess.Popen[str]]:
    """``echo tun0``, in a network namespace of its own, when it serves."""
    command = [sys.executable, "-c", IN_NAMESPACE, str(program), "echo", "tun0", "--address", "10.77.0.1/24", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        try:
            said = [process.stderr.readline() for _ in range(4)]
            assert "Ctrl-C ends" in said[-1], said + process.stderr.readlines()
            yield process
        finally:
            process.kill()


@pytest.mark.root
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="creates a TUN device")
def test_echo_answers_the_kernel(echo: subprocess.Popen[str]) -> None:
    ping = ["nsenter", f"--net=/proc/{echo.pid}/ns/net", "ping", "-c", "1", "-W", "2", "10.77.0.2"]

    def answered() -> bool:
        done = subprocess.run(ping, capture_output=True, text=True, check=False)
        return bool(re.search(r"\b1 received", done.stdout))

    assert eventually(answered)
    echo.send_signal(signal.SIGINT)
    output, _ = echo.communicate(timeout=20)
    result = json.loads(output)
    assert result["answers"]["ping"] >= 1
    assert (echo.returncode, result["ended_by"]) == (0, "interrupt")

"""``python -m tunring doctor``, the first command that people run."""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tunring._system.official import build_of

assert sys.platform == "win32"

WINE = hasattr(ctypes.WinDLL("ntdll"), "wine_get_version")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    command = [sys.executable, "-W", "error", "-m", "tunring", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert done.stderr == ""
    result = json.loads(done.stdout)
    assert done.returncode == (0 if result["ok"] else 1)
    result["by topic"] = {finding["topic"]: finding for finding in result["findings"]}
    return result


def test_wine_is_called_wine(report: dict[str, Any]) -> None:
    system = report["by topic"]["system"]
    assert ("Wine" in system["text"]) == WINE
    assert system["level"] == ("problem" if WINE else "ok")
    assert report["ok"] is not WINE
    assert bool(system["advice"]) == WINE


def test_the_dll_is_named_with_its_hash(report: dict[str, Any], official_dll: Path) -> None:
    digest, build = build_of(official_dll)
    assert build is not None
    dll = report["by topic"]["wintun.dll"]
    assert dll["level"] == "ok"
    for part in ("official", build.version, build.machine, digest):
        assert part in dll["text"]
    assert str(official_dll).lower() in report["by topic"]["default library"]["text"].lower()


def test_elevation_is_the_systems_word(report: dict[str, Any]) -> None:
    elevated = bool(ctypes.WinDLL("shell32").IsUserAnAdmin())
    privileges = report["by topic"]["privileges"]
    assert privileges["level"] == ("ok" if elevated else "warning")
    assert ("administrator" in privileges["advice"]) is not elevated


def test_python_and_loopback(report: dict[str, Any]) -> None:
    python = report["by topic"]["python"]["text"]
    assert sys.executable in python
    assert f"{ctypes.sizeof(ctypes.c_void_p) * 8} bits" in python
    assert report["by topic"]["loopback"]["level"] == "ok"

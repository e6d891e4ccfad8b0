"""Places where the official DLL is looked for, and files that are refused before a byte of them runs."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

import tunring
import tunring._library
from running import check_script, run_script
from tunring import _core
from tunring._system.official import MACHINES, build_of

assert sys.platform == "win32"

PACKAGE = Path(tunring.__file__).parent
SYSTEM = Path(os.environ["SYSTEMROOT"], "System32")


@pytest.fixture
def copy(official_dll: Path, tmp_path: Path) -> Path:
    """A copy of it that tests may damage."""
    return Path(shutil.copy(official_dll, tmp_path / "wintun.dll"))


def refused(path: Path, code: int) -> str:
    """The message of the error for a file that must be refused."""
    with pytest.raises(tunring.LibraryInvalid) as caught:
        tunring.load(path)
    assert caught.value.winerror == code
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_it_is_official_and_loaded_once(official_dll: Path) -> None:
    digest, build = build_of(official_dll)
    assert build is not None, digest
    out = check_script(f"""
library = tunring.load("wintun")
assert tunring.load("wintun") is tunring.load({str(official_dll)!r}) is tunring.load() is library
assert library.official and library.name == "wintun"
print(library.path)
""")
    assert os.path.samefile(out.strip(), official_dll)


def test_a_renamed_copy_is_the_same_build(copy: Path) -> None:
    renamed = copy.rename(copy.with_name("übersetzt 1.bin"))
    check_script(f"assert tunring.load({str(renamed)!r}).official")


def test_it_cannot_be_changed_between_the_check_and_the_load(copy: Path) -> None:
    from tunring._system.official_windows import checked

    with checked(copy, verify=True) as path:
        assert os.path.samefile(path, copy)
        with pytest.raises(PermissionError):
            copy.open("r+b")
        with pytest.raises(PermissionError):
            copy.rename(copy.with_name("other.dll"))
    with copy.open("r+b"):
        assert "writing" in refused(copy, 32)


def test_missing(tmp_path: Path) -> None:
    done = run_script(
        f"""
import os, tunring._library
os.environ["TUNRING_WINTUN_DLL"] = {str(tmp_path / "wintun.dll")!r}
os.chdir({str(tmp_path)!r})
package = tunring._library._official_places()[1]
tunring._library._official_places = lambda old=tunring._library._official_places: [
    place for place in old() if place != package or not place.exists()]
tunring.load()
"""
    )
    assert done.returncode == 1
    for wanted in ("LibraryNotFound", str(tmp_path / "wintun.dll"), "System32", "wintun.net", "TUNRING_WINTUN_DLL"):
        assert wanted.lower() in done.stderr.lower()


def test_the_places_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNRING_WINTUN_DLL", "C:\\some where\\wintun.dll")
    monkeypatch.setenv("SYSTEMROOT", "C:\\anybody's")
    named, beside, system = tunring._library._official_places()
    assert named == Path("C:\\some where\\wintun.dll")
    assert beside == PACKAGE / "wintun.dll"
    assert system == SYSTEM / "wintun.dll"


@pytest.mark.parametrize("named", ["wintun.dll", ".\\wintun.dll", "\\wintun.dll", "C:wintun.dll"])
def test_a_place_that_depends_on_the_current_folder(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNRING_WINTUN_DLL", named)
    with pytest.raises(tunring.LibraryNotFound, match="absolute path"):
        tunring._library._official_places()


@pytest.mark.parametrize("length", [0, 1, 100, 4096, -1])
def test_truncated(copy: Path, length: int) -> None:
    copy.write_bytes(copy.read_bytes()[:length])
    assert "truncated" in refused(copy, 193) or "cut off" in refused(copy, 193)


def test_no_dll(copy: Path) -> None:
    copy.write_bytes(b"# a script\n" * 100)
    assert "MZ" in refused(copy, 193)


def test_modified_by_one_byte(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[len(content) // 2] ^= 1
    copy.write_bytes(content)
    message = refused(copy, 577)
    assert "SHA-256" in message
    assert "verify=False" in message


def test_wrong_machine(copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    place = int.from_bytes(content[60:64], "little") + 4
    ours = MACHINES[int.from_bytes(content[place : place + 2], "little")]
    content[place : place + 2] = (0xAA64 if ours != "arm64" else 0x8664).to_bytes(2, "little")
    copy.write_bytes(content)
    message = refused(copy, 216)
    assert f"it is for {'arm64' if ours != 'arm64' else 'amd64'}, and this Python is for {ours}" in message


def test_lacking_an_export(tmp_path: Path) -> None:
    other = str(shutil.copy(SYSTEM / "version.dll", tmp_path / "wintun.dll"))
    assert "not an official build" in refused(Path(other), 577)
    done = run_script(f"tunring.load({other!r}, verify=False)")
    assert done.returncode == 1
    assert "RuntimeWarning" in done.stderr
    assert "LibraryInvalid" in done.stderr
    assert "WintunCreateAdapter" in done.stderr


@pytest.mark.parametrize("way", ["argument", "environment"])
def test_a_build_that_is_not_known_loads_with_a_warning(way: str, tmp_path: Path) -> None:
    # Our own loopback library is one, if it lies elsewhere.
    other = str(shutil.copy(PACKAGE / "_backends/loopback.dll", tmp_path / "wintun.dll"))
    assert "not an official build" in refused(Path(other), 577)
    done = run_script(
        f"""
import os
os.environ["TUNRING_WINTUN_VERIFY"] = {"0" if way == "environment" else "1"!r}
print(tunring.load({other!r}, verify={way != "argument"}).name)
"""
    )
    assert (done.returncode, done.stdout.strip()) == (0, "loopback")
    assert "RuntimeWarning" in done.stderr
    assert "SHA-256" in done.stderr


def test_our_own_libraries_need_no_check() -> None:
    assert tunring.load("loopback") is tunring.load(PACKAGE / "_backends/loopback.dll")
    assert _core.__file__.endswith(".pyd")

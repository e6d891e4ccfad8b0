from __future__ import annotations

import re
import sys
import threading
from pathlib import Path

import pytest

import tunring
import tunring._library
from running import Threads, check_script
from stub_library import build

FUNCTIONS = re.findall(r"X\((Wintun\w+)", (Path(__file__).parents[2] / "include/wintun.h").read_text("utf-8"))


pytestmark = pytest.mark.filterwarnings("ignore:.*not an official build:RuntimeWarning")


@pytest.fixture(autouse=True)
def _any_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows, libraries that are not official builds are taken only if asked for."""
    monkeypatch.setenv("TUNRING_WINTUN_VERIFY", "0")


def test_the_list_of_functions_is_whole() -> None:
    assert len(set(FUNCTIONS)) == 14


def test_one_library_per_file(library: tunring.Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(library.path)
    if sys.platform == "win32":
        other = Path(str(path).upper())  # links take a privilege there
    else:
        other = tmp_path / "link.so"
        other.symlink_to(path)
    monkeypatch.chdir(path.parent)
    for which in (library.name, str(path), path, other, path.name):
        assert tunring.load(which) is library


@pytest.mark.parametrize("wrong", [5, 0, "", "loopback", False, b"", object()])
def test_only_a_library_or_none(wrong: object) -> None:
    for call in (
        lambda: tunring.Adapter.create("x", library=wrong),
        lambda: tunring.Adapter.open("x", library=wrong),
        lambda: tunring.Adapter.from_fd(0, library=wrong),
        lambda: tunring.set_logger(None, wrong),
        lambda: tunring.running_driver_version(wrong),
        lambda: tunring.delete_driver(wrong),
    ):
        with pytest.raises(TypeError, match=r"library must be a Library, .*, or None, not ") as caught:
            call()
        assert str(caught.value).endswith(repr(wrong))


def test_loading_while_the_same_thread_loads(tmp_path: Path) -> None:
    """A signal handler or a finalizer may load a library in the middle of loading one."""
    check_script(
        f"""
import warnings
import tunring._library
warnings.simplefilter("ignore", RuntimeWarning)  # on Windows: not an official build
path = {str(build(tmp_path, FUNCTIONS))!r}
loaded = []

def interrupted(path, verify, uninterrupted=tunring._library._open):
    tunring._library._open = uninterrupted
    loaded.append(tunring.load(path))
    return uninterrupted(path, verify)

tunring._library._open = interrupted
loaded += [tunring.load(path), tunring.load(path)]
assert loaded == [loaded[0]] * 3
"""
    )


def test_threads_get_the_same_library(tmp_path: Path) -> None:
    path = build(tmp_path, FUNCTIONS)
    barrier = threading.Barrier(8)

    def load() -> tunring.Library:
        barrier.wait()
        return tunring.load(path)

    with Threads() as threads:
        for _ in range(8):
            threads.start(load)
    assert len({id(library) for library in threads.results}) == 1


def test_a_library_without_our_table_counts_as_official(tmp_path: Path) -> None:
    library = tunring.load(build(tmp_path, FUNCTIONS))
    assert (library.name, library.official) == ("wintun", True)
    with pytest.raises(ValueError, match="simulator"):
        tunring.testing.Simulator.attach(
            type("Fake", (), {"library": library})()  # anything that has a library
        )


@pytest.mark.parametrize("missing", FUNCTIONS)
def test_a_missing_function_is_named(tmp_path: Path, missing: str) -> None:
    path = build(tmp_path, [name for name in FUNCTIONS if name != missing])
    with pytest.raises(tunring.LibraryInvalid, match=missing) as caught:
        tunring.load(path)
    assert caught.value.winerror == 127


def test_a_missing_file_and_the_places_that_were_tried(tmp_path: Path) -> None:
    path = tmp_path / "nothing.so"
    with pytest.raises(tunring.LibraryNotFound, match=re.escape(str(path))) as caught:
        tunring.load(path)
    assert caught.value.winerror == 126
    assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("which", ["", ".", "no\0name", "nothing"])
def test_a_path_that_is_not_a_file(which: str) -> None:
    with pytest.raises(tunring.LibraryNotFound):
        tunring.load(which)


def test_an_unknown_name_lists_the_names() -> None:
    with pytest.raises(tunring.LibraryNotFound, match="'wintun', 'tun_linux', 'loopback' is the path of a file"):
        tunring.load("tun-linux")


def test_a_folder(tmp_path: Path) -> None:
    with pytest.raises(tunring.LibraryNotFound):
        tunring.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"no library\n", b"\x7fELF" + bytes(1000), b"MZ" + bytes(1000)])
def test_the_wrong_format(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "library.so"
    path.write_bytes(content)
    with pytest.raises(tunring.LibraryInvalid) as caught:
        tunring.load(path)
    assert caught.value.winerror == 193
    assert str(caught.value).partition(path.name)[2].strip(" ':\n"), "the loader's own words are missing"


def test_the_official_dll_is_never_looked_for_in_the_current_folder(tmp_path: Path) -> None:
    build(tmp_path, FUNCTIONS).rename(tmp_path / "wintun.dll")
    # Runs in another process, since this one may have loaded it.
    check_script(f"""
import os
os.environ.pop("TUNRING_WINTUN_DLL", None)
os.chdir({str(tmp_path)!r})
try:
    folder = os.path.dirname(tunring.load("wintun").path)  # the package's own, if it carries one
except tunring.LibraryNotFound:
    folder = None
if folder and os.path.samefile(folder, "."):
    raise SystemExit("it was loaded from there")
""")


@pytest.mark.parametrize("which", [3, b"loopback", 1.5, ["loopback"]])
def test_the_wrong_type(which: object) -> None:
    with pytest.raises(TypeError):
        tunring.load(which)


def test_unknown_options() -> None:
    with pytest.raises(TypeError, match="speed"):
        tunring.load("loopback", speed=3)


def test_no_more_libraries_than_fit_and_the_loaded_ones_stay_usable(tmp_path: Path) -> None:
    # Runs in another process, since other tests need the places of this one.
    out = check_script(f"""
import pathlib, shutil, warnings
warnings.simplefilter("ignore")
folder = pathlib.Path({str(tmp_path)!r})
source = {str(tunring.load("loopback").path)!r}
refused = 0
for i in range(20):
    try:
        tunring.load(shutil.copy(source, folder / f"library{{i}}.so"))
    except tunring.LibraryInvalid as error:
        refused += 1
        assert "at most 8 libraries" in str(error)
tunring.Adapter.create("still", library=tunring.load(folder / "library0.so")).close()
print(refused)
""")
    assert out.split() == ["12"]


def test_versions(library: tunring.Library) -> None:
    version = tunring.running_driver_version(library)
    minor = 14 if library.official else 0
    assert version == (1 - library.official, minor)
    assert (version.major, version.minor, str(version)) == (version[0], minor, f"{version[0]}.{minor}")


def test_delete_driver_fails_while_an_adapter_is_open(adapter: tunring.Adapter) -> None:
    # The official DLL passes the system's own code on.
    with pytest.raises(tunring.WintunError if adapter.library.official else tunring.AdapterBusy):
        tunring.delete_driver(adapter.library)
    adapter.close()
    tunring.delete_driver(adapter.library)

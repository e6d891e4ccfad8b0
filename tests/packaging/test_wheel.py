"""The contents of the wheel and the sdist, and the package installed from them.

Takes minutes, so it is not in pytest's default paths: ``pytest tests/packaging``. ``TUNRING_WHEEL`` names a wheel that
exists already, with the sdist that it was built from beside it.
"""

from __future__ import annotations

import email
import fnmatch
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from running import check_program as run

ROOT = Path(__file__).resolve().parents[2]
LINUX = sys.platform == "linux"
BACKENDS = ["loopback", *(["tun_linux"] if LINUX else [])]
SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")

# Everybody must be able to do this with an installed tunring, without privileges.
SMOKE = """
import asyncio, time
import tunring, tunring.testing
near, far = tunring.testing.pair()
packet = b"\\x45" + bytes(19)
assert near.send([packet]) == 1
with far.receive(timeout=5) as batch:
    assert batch.tobytes() == [packet], batch.tobytes()
async def in_tasks():
    assert await near.send_async([packet]) == 1
    time.sleep(0.01)  # after which a call lets the loop run first
    assert await near.send_async([packet]) == 1
    with await far.receive_async() as batch:
        assert batch.tobytes() == [packet] * 2, batch.tobytes()
asyncio.run(in_tasks())
near.close()
far.close()
print(tunring.__version__, tunring.__file__)
"""


@pytest.fixture(scope="session")
def sdist(wheel: Path) -> Path:
    return next(wheel.parent.glob("*.tar.gz"))


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's files."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def test_wheel_carries_the_package_and_nothing_else(unpacked: Path) -> None:
    found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    package = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/tunring").rglob("*.py*")}
    expected = {name for name in package if name.endswith((".py", ".pyi"))} | {"tunring/py.typed"}
    expected |= {f"tunring/_backends/{name}{SUFFIX}" for name in BACKENDS}
    assert expected <= found, "missing"
    others = found - expected
    [module] = fnmatch.filter(others, "tunring/_core.*")
    assert module.endswith((".so", ".pyd"))
    assert all(".dist-info/" in name for name in others - {module}), others


@pytest.mark.skipif(not LINUX, reason="asks nm, of ELF")
@pytest.mark.parametrize("name", BACKENDS)
def test_back_end_exports_the_abi_and_nothing_else(unpacked: Path, name: str) -> None:
    header = (ROOT / "include/wintun.h").read_text("utf-8")
    functions = re.findall(r"\bX\((Wintun\w+),", header)
    assert len(functions) == 14
    listing = run("nm", "-D", "--defined-only", unpacked / f"tunring/_backends/{name}.so")
    exported = {line.split()[2]: line.split()[1] for line in listing.splitlines()}
    assert set(exported) == {*functions, "TunringBackend"}
    assert {exported[function] for function in functions} == {"T"}, "functions"
    assert exported["TunringBackend"] in {"D", "R"}, "a table"


@pytest.mark.skipif(not LINUX, reason="asks nm, of ELF")
def test_extension_exports_only_its_initialiser(unpacked: Path) -> None:
    [module] = unpacked.glob("tunring/_core.*.so")
    assert [line.split()[2] for line in run("nm", "-D", "--defined-only", module).splitlines()] == ["PyInit__core"]


@pytest.mark.skipif(not LINUX, reason="asks readelf")
def test_libraries_need_the_system_only(unpacked: Path) -> None:
    for library in unpacked.rglob("*.so"):
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "-d", library))
        assert all(re.match(r"lib(c|dl|pthread|rt|python3\.\d+t?)\.|ld-", name) for name in needed), (library, needed)


def test_metadata(unpacked: Path) -> None:
    [information] = unpacked.glob("tunring-*.dist-info")
    metadata = email.message_from_bytes((information / "METADATA").read_bytes())
    assert metadata["License-Expression"] == "MIT"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert (information / "licenses/LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert metadata["Requires-Python"] == ">=3.11"
    # All that users get who ask for no extra.
    [requirement] = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert requirement.startswith("pyroute2")
    assert 'sys_platform == "linux"' in requirement
    entry_points = (information / "entry_points.txt").read_text("utf-8")
    assert "tunring = tunring.__main__:main" in entry_points
    assert "hook-dirs = tunring._pyinstaller:get_hook_dirs" in entry_points


def test_checkers_are_content(wheel: Path, sdist: Path) -> None:
    run(sys.executable, "-m", "twine", "check", "--strict", wheel, sdist)
    # W004 is a module that can't be imported: PyInstaller's hook, whose name has to have a hyphen.
    run(sys.executable, "-m", "check_wheel_contents", "--ignore", "W004", wheel)
    if LINUX:
        run(sys.executable, "-m", "auditwheel", "show", wheel)


def test_sdist_carries_sources_tests_and_benchmarks(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        path.relative_to(ROOT).as_posix()
        for folder in ("include", "src", "tests", "bench")
        for path in (ROOT / folder).rglob("*.*")
        if path.suffix in {".c", ".h", ".py", ".pyi", ".pyx", ".pxi", ".pxd", ".typed", ".md"}
    }
    wanted |= {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.py"}
    assert wanted <= found, sorted(wanted - found)
    assert not [name for name in found if name.endswith((".so", ".dll", ".pyd", ".o", ".pyc", "_core.c"))]


def test_stable_abi_wheel(sdist: Path, python: Path, tmp_path: Path) -> None:
    option = "-C--build-option=--py-limited-api=cp311"
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", option, "--wheel-dir", tmp_path, sdist)
    [wheel] = tmp_path.glob("tunring-*-cp311-abi3-*.whl")
    run(sys.executable, "-m", "abi3audit", "--strict", wheel)
    run(python, "-m", "pip", "install", "--quiet", wheel)
    assert "site-packages" in run(python, "-W", "error", "-c", SMOKE)


def test_installed_wheel_works(wheel: Path, python: Path) -> None:
    run(python, "-m", "pip", "install", "--quiet", wheel)
    assert "site-packages" in run(python, "-W", "error", "-c", SMOKE)


def test_editable_install_works(sdist: Path, python: Path, tmp_path: Path) -> None:
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [tree] = tmp_path.glob("tunring-*")
    before = {path for path in tree.rglob("*") if path.is_file()}
    run(python, "-m", "pip", "install", "--quiet", "--editable", tree)
    assert str(tree / "src") in run(python, "-W", "error", "-c", SMOKE)
    added = {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file() and path not in before}
    beside = {name for name in added if not name.startswith("build/") and ".egg-info/" not in name}
    assert not [name for name in beside if not name.endswith((SUFFIX, ".pyd", ".pyc"))], "beside the sources"

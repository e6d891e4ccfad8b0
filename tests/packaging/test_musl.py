"""Alpine and its kind: everything is built with musl's headers, and its own loader runs what needs no Python.

The Python that builds is one of glibc, so the extension module can't be imported here: all that it asks for must be in
musl or in Python's stable ABI.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sources

from running import check_program as run

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ["loopback", "tun_linux"]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("musl-gcc") or os.environ.get("CI")), reason="needs musl-tools"
)


@pytest.fixture(scope="module")
def compiler() -> list[str]:
    return shlex.split(run(sys.executable, ROOT / "tests/c/musl.py"))


@pytest.fixture(scope="module")
def built(compiler: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package's folder with the libraries in it, built for the stable ABI as a wheel for musl is."""
    folder = tmp_path_factory.mktemp("musl")
    (folder / "options.cfg").write_text("[bdist_wheel]\npy_limited_api = cp311\n")
    environment = {
        **os.environ,
        "CC": shlex.join(compiler),
        "DIST_EXTRA_CONFIG": str(folder / "options.cfg"),
        "TUNRING_STRICT": "1",
    }
    options = ["--build-lib", folder / "lib", "--build-temp", folder / "temp"]
    run(sys.executable, "setup.py", "build_ext", *options, cwd=ROOT, env=environment)
    return folder / "lib/tunring"


def undefined(library: Path) -> set[str]:
    return {line.split()[-1] for line in run("nm", "-D", "--undefined-only", library).splitlines()}


@pytest.fixture(scope="module")
def of_musl() -> set[str]:
    """Return the symbols that musl's library defines, which is its loader too."""
    [library] = Path("/lib").glob("ld-musl-*.so.1")
    listing = run("nm", "-D", "--defined-only", library)
    # The linker's own, which any library may ask for weakly.
    weak = {"_ITM_deregisterTMCloneTable", "_ITM_registerTMCloneTable", "__gmon_start__"}
    return {line.split()[-1] for line in listing.splitlines()} | weak


def test_extension_needs_musl_and_the_stable_abi(built: Path, of_musl: set[str]) -> None:
    from abi3info import DATAS, FUNCTIONS

    stable = {symbol.name for table in (FUNCTIONS, DATAS) for symbol in table}
    [module] = built.glob("_core.abi3.so")
    needed = undefined(module)
    assert "PyModuleDef_Init" in needed
    assert needed <= of_musl | stable, needed - of_musl - stable


@pytest.mark.parametrize("name", BACKENDS)
def test_back_ends_need_musl_only(built: Path, of_musl: set[str], name: str) -> None:
    needed = undefined(built / f"_backends/{name}.so")
    assert "malloc" in needed
    assert needed <= of_musl, needed - of_musl


@pytest.mark.root
def test_back_ends_are_loaded_by_musl(built: Path, compiler: list[str], tmp_path: Path) -> None:
    """By a program of the C core, which makes a cable and an interface with them."""
    program = tmp_path / "load_libraries"
    folders = [*sources.INCLUDE, "tests/c"]
    core = sources.c_files(ROOT, "linux", "core")
    run(
        *compiler, "-std=c11", "-D_GNU_SOURCE", "-O1", "-pthread", "-Wall", "-Wextra", "-Werror",
        *(f"-I{ROOT / folder}" for folder in folders),
        ROOT / "tests/packaging/load_libraries.c", *core, "-o", program,
    )  # fmt: skip
    assert "ld-musl" in run("readelf", "-l", program)
    loaded = run("unshare", "--net", program, *(built / f"_backends/{name}.so" for name in BACKENDS))
    assert loaded == "loaded\n"


def test_warnings_are_errors_only_on_request(tmp_path: Path) -> None:
    """Other compilers warn of other things: that must not keep anybody from installing."""
    compiler = tmp_path / "cc"
    compiler.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/calls\nexit 1\n')  # its first call says enough
    compiler.chmod(0o755)
    for strict in ("", "1"):
        environment = {**os.environ, "CC": str(compiler), "TUNRING_STRICT": strict}
        options = ["--build-lib", tmp_path / "lib", "--build-temp", tmp_path / f"temp{strict}"]
        done = subprocess.run(
            [sys.executable, "setup.py", "build_ext", *options], cwd=ROOT, env=environment, check=False,
            capture_output=True,
        )  # fmt: skip
        assert done.returncode
        call = (tmp_path / "calls").read_text().splitlines()[-1]
        assert ".c " in call
        assert "-Wall" in call
        for error in ("-Werror", "-pedantic-errors"):
            assert (error in call) == bool(strict)

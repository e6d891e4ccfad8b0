"""Runs the tests in a Windows Python under Wine, over our loopback DLL and over the official wintun.dll.

    tests/wine/run [--python VERSION] [--exact] [--root FOLDER] [--race SENDS] [--bench] [-- what pytest takes ...]

From a bare Debian or Ubuntu, as root, it takes a few minutes: it installs Wine and a cross compiler, fetches a Windows
Python and the DLL, and keeps them in FOLDER, from where later runs take them. It builds this tree's wheel for Windows,
installs it with the Windows Python's own pip, and runs the tests that every system runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import signal
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import build
import downloads
import header_check
import same_tests
import windows_python
from downloads import ROOT, run, sha256

from wine import Wine, windows_path

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What is run, in two Pythons side by side: the tests wait more than they compute. Each takes about as long.
SHARES = [
    ["tests/unit", "tests/property"],
    ["tests/lifetime", "tests/threads", "tests/aio", "tests/windows", "tests/contrib", "tests/examples"],
]
SUITE = [folder for share in SHARES for folder in share]
_STARTED = time.monotonic()


def _say(text: str) -> None:
    print(f"[{time.monotonic() - _STARTED:3.0f} s] {text}", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Run the tests in a Windows Python under Wine.", allow_abbrev=False, usage=__doc__.split("\n")[2]
    )
    parser.add_argument("--python", choices=list(downloads.PYTHONS), default="3.13.5", help="default: %(default)s")
    parser.add_argument("--exact", action="store_true", help="build for this one version, not for the stable ABI")
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "tunring-wine"),
        help="what is fetched and made stays there; default: %(default)s",
    )
    parser.add_argument("--race", type=int, metavar="SENDS", help="only race for the lost wake-up, with so many sends")
    parser.add_argument("--bench", action="store_true", help="only measure batches over the official DLL")
    parser.add_argument("pytest", nargs="*", help="what pytest takes")
    return parser.parse_args()


@contextlib.contextmanager
def _alone_in(root: Path) -> Iterator[None]:
    """Lets one run after the other use the folder."""
    root.mkdir(parents=True, exist_ok=True)
    with Path(root, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _host_python(root: Path) -> Path:
    """A Python of this system, with this tree's tests in it, that lists them and cross-builds."""
    folder = root / "host"
    python = folder / "bin/python"
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    if not python.exists():
        venv.create(folder, with_pip=True)
        run(*pip, "pip>=25.1")  # the first that knows dependency groups
    run(*pip, "uv", "--group", "build", "--group", "test")
    return python


def _listed_here(host_python: Path, wheel_folder: Path) -> set[str]:
    """The tests of this system. It needs the project here too: built for it, beside what it is built from."""
    run(host_python, "-m", "pip", "install", "-q", "--no-build-isolation", "--no-deps", wheel_folder)
    return same_tests.listed(run(host_python, "-m", "pytest", *same_tests.LIST, *SUITE, "tests/linux").splitlines())


def _run_share(wine: Wine, python: Path, share: list[str], report: Path, variables: dict[str, str]) -> tuple[int, str]:
    """Runs some of the tests; returns pytest's exit code and closing line."""
    arguments = ["-m", "pytest", "-p", "no:cacheprovider", "--timeout=300", "-o", "junit_family=xunit1"]
    arguments.append(f"--junit-xml={windows_path(report)}")
    code, lines = wine.run(python, [*arguments, *share], variables, ROOT)
    return code, lines[-1] if lines else "no output"


def _race(wine: Wine, dll: Path, root: Path, sends: int) -> int:
    """Without the guard first, for fewer: each packet that is lost sight of takes long."""
    code = 0
    for guard, count in (("0", min(sends, 5000)), ("1", sends)):
        arguments = [windows_path(build.stand_in(root)), windows_path(dll), str(count), guard]
        ended, _ = wine.run(build.race(root), arguments, {}, ROOT)
        code = code or ended
    return code


def _measure(wine: Wine, python: Path, root: Path, variables: dict[str, str]) -> int:
    script = windows_path(ROOT / "tests/wine/measure.py")
    variables = {**variables, "PYTHONPATH": windows_path(ROOT / "tests")}
    code, _ = wine.run(python, [script, windows_path(build.plain_loop(root))], variables, ROOT)
    return code


def _test(options: argparse.Namespace, root: Path, wine: Wine) -> int:
    _say("packages for this system's Python")
    host_python = _host_python(root)
    pip: list[str | Path] = [host_python, "-m", "pip", "--disable-pip-version-check"]
    _say(f"Windows CPython {options.python}")
    folder = windows_python.install(options.python, host_python, root)
    python = folder / "python.exe"
    dll = downloads.official_dll(pip, root)

    if options.race:
        with wine:
            return _race(wine, dll, root, options.race)
    _say("building the wheel")
    wheel = build.wheel(options.python, folder, host_python, root, stable_abi=not options.exact)
    _say("our wintun.h beside the official one")
    faults = header_check.faults(downloads.official_header(pip, root), build.compiler(root).split())
    with wine:
        _say(f"installing {wheel.name} with the Windows pip")
        offline = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--force-reinstall", "--no-compile"]
        wine.output(python, *offline, "--no-warn-script-location", windows_path(wheel))
        loopback = folder / "lib/site-packages/tunring/_backends/loopback.dll"
        variables = {
            "TUNRING_WINTUN_DLL": windows_path(dll),
            "TUNRING_TEST_STANDIN": windows_path(build.stand_in(root)),
        }
        _say(wine.output(python, "-c", "import sys, platform; print(sys.version, platform.platform())").strip())

        if options.bench:
            return _measure(wine, python, root, variables)

        _say("tests, and whether they are the same as here")
        with ThreadPoolExecutor() as workers:
            here = None if options.pytest else workers.submit(_listed_here, host_python, root / "build")
            shares = [options.pytest] if options.pytest else SHARES
            reports = [root / f"report-{number}.xml" for number in range(len(shares))]
            for report in reports:
                report.unlink(missing_ok=True)
            tests = [
                workers.submit(_run_share, wine, python, share, report, variables)
                for share, report in zip(shares, reports, strict=True)
            ]
            ends = [test.result() for test in tests]
    reports = [report for report in reports if report.exists()]  # not of a Python that crashed
    if here:
        faults += same_tests.differences(here.result(), same_tests.reported(reports))

    faults += [f"skipped: {test}" for report in reports for test in same_tests.skipped(report, options.python)]
    code = max(code for code, _ in ends)
    print(f"our loopback.dll: {loopback}, SHA-256 {sha256(loopback)}")
    print(f"official wintun.dll 0.14.1: {dll}, SHA-256 {sha256(dll)}")
    print("\n".join(faults) or "wintun.h says what the official one does")
    if here and not faults:
        print("the tests are the same by name as here, but for those in windows_absent.py")
    for code_of_share, line in ends:
        print(f"pytest: exit code {code_of_share}: {line}")
    return code or bool(faults)


def main() -> int:
    """Runs it all; returns pytest's exit code, or 1 if other tests were run than should be."""
    options = _arguments()
    root = options.root.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Wine's programs must not stay
    downloads.install_system_packages()
    with _alone_in(root):
        return _test(options, root, Wine(root / "prefix"))

"""Runs the tests in a Windows Python under Wine, over our loopback DLL and over the official wintun.dll.

    tests/wine/run [--python VERSION] [--exact] [--root FOLDER] [--race N | --bench [FILE] | --other-wheels | -- TESTS]

From a bare Debian or Ubuntu, as root, it takes a few minutes: it installs Wine and a cross compiler, fetches a Windows
Python and the DLL, and keeps them in FOLDER, from where later runs take them. It builds this tree's wheel for Windows,
installs it with the Windows Python's own pip, and runs the tests that every system runs.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import time
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import build
import downloads
import header_check
import other_wheels
import same_tests
import windows_python
from downloads import ROOT, pip_of, run, sha256
from wine import Wine, windows_path

import second_try

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The tests, in Pythons side by side: the tests wait more than they compute. Each takes about as long.
SHARES = [
    ["tests/unit"],
    ["tests/lifetime", "tests/property", "tests/wireguard", "tests/aio"],
    ["tests/threads", "tests/windows", "tests/contrib", "tests/examples"],
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
    parser.add_argument("--other-wheels", action="store_true", help="only build the wheels for 32-bit and ARM Windows")
    parser.add_argument("--race", type=int, metavar="N", help="only race for the lost wake-up, with N sends")
    parser.add_argument(
        "--bench",
        type=Path,
        nargs="?",
        const=ROOT / "build/bench/dll.json",
        metavar="FILE",
        help="only measure the ring over the official DLL; figures also go into this file, by default %(const)s",
    )
    parser.add_argument("--turns", type=int, default=41, help="of --bench; default: %(default)s")
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
    """A Python of this system, that cross-builds."""
    folder = root / "host"
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        run(*pip_of(python), "install", "-q", "pip>=25.1")  # the first that knows dependency groups
    run(*pip_of(python), "install", "-q", "uv", "--group", "build")
    return python


def _listed_here(host_python: Path, sources: Path) -> set[str]:
    """The tests of this system. It needs the project here too: built for it, from what the wheel is built from."""
    pip = [*pip_of(host_python), "install", "-q"]
    run(*pip, "--group", "test")
    run(*pip, "--no-build-isolation", "--no-deps", sources)
    return same_tests.listed(run(host_python, "-m", "pytest", *same_tests.LIST, *SUITE, "tests/linux").splitlines())


class _Bench(NamedTuple):
    """Everything that the tests need, ready to run."""

    root: Path
    wine: Wine
    host_python: Path
    python: Path
    dll: Path
    stand_in: Path

    @property
    def variables(self) -> dict[str, str]:
        """Of the environment of the Windows Python."""
        return {
            "TUNRING_WINTUN_DLL": windows_path(self.dll),
            "TUNRING_TEST_STANDIN": windows_path(self.stand_in),
        }


class _Share:
    """Some of the tests, and the code and closing line with which pytest ended last."""

    def __init__(self, bench: _Bench, tests: list[str], report: Path) -> None:
        self._bench = bench
        self._report = report
        # Two shares that import scapy at once would have each other's half-written cache.
        self._cache = report.with_suffix(".cache")
        shutil.rmtree(self._cache, ignore_errors=True)
        self._cache.mkdir()
        cache = windows_path(self._cache / "pytest")
        self._arguments = ["-m", "pytest", "--timeout=300", "-o", f"cache_dir={cache}", *tests]
        self.code = 0
        self.line = "no output"

    def run(self, further: list[str]) -> tuple[int, str]:
        """Runs them with further arguments; returns the code and the output."""
        variables = {**self._bench.variables, "XDG_CACHE_HOME": windows_path(self._cache)}
        self.code, lines = self._bench.wine.run(self._bench.python, [*self._arguments, *further], variables, ROOT)
        self.line = lines[-1] if lines else "no output"
        return self.code, "\n".join(lines)

    def run_first(self) -> tuple[int, str]:
        """Runs them and writes the report."""
        return self.run(["-o", "junit_family=xunit1", f"--junit-xml={windows_path(self._report)}"])


def _race(bench: _Bench, sends: int) -> int:
    """Runs without the guard first, for fewer packets: a few of 300,000 get stranded."""
    code = 0
    for guard, count in (("0", min(sends, 300_000)), ("1", sends)):
        arguments = [windows_path(bench.stand_in), windows_path(bench.dll), str(count), guard]
        ended, _ = bench.wine.run(build.race(bench.root), arguments, {}, ROOT)
        code = code or ended
    return code


def _measure(bench: _Bench, figures: Path, turns: int) -> int:
    figures.parent.mkdir(parents=True, exist_ok=True)
    script = windows_path(ROOT / "tests/wine/measure.py")
    folders = ";".join(windows_path(ROOT / folder) for folder in ("tests/support", "bench"))
    arguments = [script, windows_path(build.plain_loop(bench.root)), windows_path(figures), "--turns", str(turns)]
    code, _ = bench.wine.run(bench.python, arguments, {**bench.variables, "PYTHONPATH": folders}, ROOT)
    return code


def _set_up(options: argparse.Namespace, root: Path, wine: Wine, workers: ThreadPoolExecutor) -> _Bench:
    """Prepares in parallel: the prefix, the driver's stand-in, and a Python."""
    _say("a prefix, the driver's stand-in, packages for this system's Python")
    prefix = workers.submit(wine.start)
    stand_in = workers.submit(build.stand_in, root)
    archive = workers.submit(downloads.python_archive, options.python, root)
    host_python = _host_python(root)
    _say(f"Windows CPython {options.python}")
    folder = windows_python.install(options.python, archive.result(), host_python, root)
    dll = downloads.official_dll(pip_of(host_python), root)
    prefix.result()
    return _Bench(root, wine, host_python, folder / "python.exe", dll, stand_in.result())


def _install(options: argparse.Namespace, bench: _Bench) -> Path:
    """Builds the wheel, which carries the official DLL, and installs it; returns it."""
    _say("building the wheel")
    folder = bench.python.parent
    exact = options.exact or options.bench  # which is the faster one
    wheel = build.wheel(options.python, folder, bench.host_python, bench.root, stable_abi=not exact)
    _say(f"installing {wheel.name} with the Windows pip")
    offline = ["-m", "pip", "install", "-q", "--no-index", "--no-deps", "--force-reinstall", "--no-compile"]
    bench.wine.output(bench.python, *offline, "--no-warn-script-location", windows_path(wheel))
    _say(bench.wine.output(bench.python, "-c", "import sys, platform; print(sys.version, platform.platform())").strip())
    return wheel


def _checks(bench: _Bench, wheel: Path) -> tuple[list[str], set[str]]:
    """Do this system's work while Windows tests; return faults, and the tests that exist here."""
    here = _listed_here(bench.host_python, bench.root / "build")
    official = downloads.official_header(pip_of(bench.host_python), bench.root)
    faults = header_check.faults(official, build.compiler(bench.root).split())
    return [*faults, *build.wheel_faults(bench.host_python, wheel)], here


def _test(options: argparse.Namespace, bench: _Bench, workers: ThreadPoolExecutor) -> int:
    wheel = _install(options, bench)
    _say("tests, and whether they are the same as here")
    shares = [options.pytest] if options.pytest else SHARES
    reports = [bench.root / f"report-{number}.xml" for number in range(len(shares))]
    for report in reports:
        report.unlink(missing_ok=True)
    tests = [_Share(bench, share, report) for share, report in zip(shares, reports, strict=True)]
    running = [workers.submit(share.run_first) for share in tests]
    checks = None if options.pytest else workers.submit(_checks, bench, wheel)
    ends = [run.result() for run in running]
    reports = [report for report in reports if report.exists()]  # not of a Python that crashed
    faults = []
    if checks:
        faults, here = checks.result()
        faults += same_tests.differences(here, same_tests.reported(reports))
    faults += [f"skipped: {test}" for report in reports for test in same_tests.skipped(report, options.python)]

    loopback = bench.python.parent / "lib/site-packages/tunring/_backends/loopback.dll"
    print(f"our loopback.dll: {loopback}, SHA-256 {sha256(loopback)}")
    print(f"official wintun.dll 0.14.1: {bench.dll}, SHA-256 {sha256(bench.dll)}")
    print("\n".join(faults) or "nothing is wrong but for what pytest says")
    if checks and not faults:
        print("wintun.h says what the official one does; the wheel has what it should have, the official DLL included")
        print("the tests are the same by name as here, but for those in windows_absent.py")
    for share, end in zip(tests, ends, strict=True):
        second_try.of_pytest(share.run, *end)
        print(f"pytest: exit code {share.code}: {share.line}")
    return max(share.code for share in tests) or bool(faults)


def main() -> int:
    """Runs it all; returns pytest's exit code, or 1 if other tests were run than should be."""
    options = _arguments()
    root = options.root.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # Wine's programs must not stay
    downloads.install_system_packages()
    wine = Wine(root / "prefix")
    # Wine ends first, and with it what the workers wait for.
    with _alone_in(root), ThreadPoolExecutor() as workers, wine:
        bench = _set_up(options, root, wine, workers)
        if options.other_wheels:
            return other_wheels.run_all(bench.python.parent, bench.host_python, root)
        if options.race:
            return _race(bench, options.race)
        if options.bench:
            _install(options, bench)
            return _measure(bench, options.bench.resolve(), options.turns)
        return _test(options, bench, workers)

"""Builds the C test programs and runs them. It needs Python, a C compiler and nothing else.

Each ``tests/c/NAME.c`` is a program: exit code 0 is a pass, 77 a skip, anything else a failure. A comment in its first
lines says what it is linked with::

    /* build: parts=ring,os sources=src/core/deferred.c flags=-DSMALL -Wl,--wrap=malloc */

``parts`` are those of sources.py and ``sources`` further globs from the project's root, less the files of other
systems; ``flags`` reach to the end of the comment. Objects are kept in ``build/c`` by content, so a source is compiled
once for all programs that share its flags.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests/support")]

import sources

import second_try

TESTS = Path("tests/c")
BUILD = Path("build/c")
INCLUDE = [*map(Path, sources.INCLUDE), TESTS]
SYSTEM = sources.this_system()
COMPILER = shlex.split(os.environ.get("CC", "cc"))
LANGUAGE = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-fvisibility=hidden"]
STRICT = ["-Wall", "-Wextra", "-pedantic-errors", "-Werror"]
PLAIN = ["-O2", "-g"]
SANITIZED = ["-O1", "-g", "-fno-omit-frame-pointer", "-fno-sanitize-recover=undefined"]
SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_stack_use_after_return=1",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}
SKIP = 77
CHECK_FAILED = "FAIL (exit code 1)"


#: The compilers' work, by source and flags.
Compiling = dict[tuple[Path, tuple[str, ...]], "Future[Path]"]


class BuildError(Exception):
    """A program that can't be built; the text has the reason, mostly in the compiler's words."""


@dataclass(frozen=True)
class Program:
    """A test program, as its comment describes it."""

    name: str
    sources: tuple[Path, ...]
    flags: tuple[str, ...] = ()
    problem: str = ""  # what is wrong with the comment

    def objects(self, flags: tuple[str, ...]) -> list[tuple[Path, tuple[str, ...]]]:
        """The sources to be compiled and their flags."""
        own = tuple(flag for flag in self.flags if not flag.startswith(("-l", "-L", "-Wl,")))
        return [(source, (*flags, *own)) for source in self.sources]


def read_program(path: Path) -> Program:
    """The program of one file."""
    match = re.search(r"/\*\s*build:\s*(.*?)\*/", path.read_text("utf-8")[:4000], re.DOTALL)
    words = re.sub(r"\n\s*\*", "\n", match[1]).split() if match else []
    files, flags = [path], []
    for number, word in enumerate(words):
        key, _, value = word.partition("=")
        if key == "flags":
            flags = [flag for flag in (value, *words[number + 1 :]) if flag]
            break
        if key == "parts":
            unknown = [part for part in value.split(",") if part not in sources.PARTS]
            patterns = [pattern for part in value.split(",") for pattern in sources.PARTS.get(part, [])]
        elif key == "sources":
            unknown, patterns = [], value.split(",")
        else:
            unknown, patterns = [word], []
        if unknown:
            return Program(path.stem, (), problem=f"what is {unknown[0]!r} in the build comment?")
        try:
            files += sources.matching(Path(), SYSTEM, *patterns)
        except ValueError as error:
            return Program(path.stem, (), problem=str(error))
    return Program(path.stem, tuple(dict.fromkeys(files)), tuple(flags))


def with_pipe_events(program: Program) -> Program:
    """The program with the other implementation of os_event, which nothing compiles on Linux otherwise."""
    files = [path.with_name(path.name.replace("os_event_linux", "os_event_pipe")) for path in program.sources]
    return replace(program, sources=tuple(dict.fromkeys(files)))


def only_elsewhere() -> list[Path]:
    """The sources that only systems without eventfd have. Those that replace no other are compiled, but not linked."""
    return [path for path in sources.c_files(Path(), "posix", "core") if path.stem.endswith("_pipe")]


@cache
def headers_digest() -> bytes:
    """One digest of every header, on which every object depends."""
    digest = hashlib.sha256()
    for header in [*sources.headers(Path()), *sorted(TESTS.rglob("*.h"))]:
        digest.update(header.read_bytes())
    return digest.digest()


def run_compiler(arguments: list[str], output: Path) -> None:
    """Runs the compiler; `output` appears whole or not at all."""
    partial = output.with_name(f"{output.name}.{os.getpid()}.part")
    done = subprocess.run([*COMPILER, *arguments, "-o", str(partial)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(shlex.join([*COMPILER, *arguments]) + "\n" + done.stdout + done.stderr)
    partial.replace(output)


def compile_object(source: Path, flags: tuple[str, ...]) -> Path:
    """The object of one source, compiled unless it is there already."""
    digest = hashlib.sha256(repr((COMPILER, flags)).encode() + source.read_bytes() + headers_digest())
    output = BUILD / f"{source.stem}-{digest.hexdigest()[:20]}.o"
    if not output.exists():
        run_compiler([*flags, *(f"-I{folder}" for folder in INCLUDE), "-c", str(source)], output)
    return output


def link(program: Program, objects: list[Path], flags: tuple[str, ...]) -> Path:
    """Links a program from its objects."""
    arguments = [*flags, *map(str, objects), *program.flags]
    output = BUILD / f"{program.name}-{hashlib.sha256(repr(arguments).encode()).hexdigest()[:20]}"
    run_compiler(arguments, output)
    return output


def run(command: Path, limit: float) -> tuple[int | None, str]:
    """Exit code and output of a program; no code if it took too long."""
    environment = {**SANITIZER_OPTIONS, **os.environ}
    with tempfile.TemporaryFile() as output:
        # A session of its own, so that what it forked ends with it.
        process = subprocess.Popen(
            [command.resolve()], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        return code, output.read().decode("utf-8", "replace")


def verdict(code: int | None, limit: float) -> str:
    """The meaning of an exit code."""
    if code is None:
        return f"FAIL (no end within {limit:g} s)"
    if code < 0:
        return f"FAIL ({signal.Signals(-code).name})"
    return {0: "PASS", SKIP: "SKIP"}.get(code, f"FAIL (exit code {code})")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Build and run the C test programs.")
    parser.add_argument("names", nargs="*", help="programs to run, without .c (default: all)")
    parser.add_argument("--sanitize", metavar="LIST", help="address,undefined or thread")
    parser.add_argument("--pipe-events", action="store_true", help="events as on systems that have no eventfd")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="compilers at once; default: %(default)s")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for each program; default: %(default)s")
    parser.add_argument("--list", action="store_true", help="list the programs and end")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the output of passing programs too")
    return parser.parse_args()


def compile_all(programs: list[Program], flags: tuple[str, ...], options: argparse.Namespace) -> Compiling:
    """Compiles what the programs need, and returns when all of it is done: nothing runs beside a compiler."""
    compiling: Compiling = {}
    wanted = [key for program in programs for key in program.objects(flags)]
    replaced = [(source, flags) for source in only_elsewhere()] if options.pipe_events else []
    with ThreadPoolExecutor(options.jobs) as pool:
        for key in dict.fromkeys([*wanted, *replaced]):
            compiling[key] = pool.submit(compile_object, *key)
    for key in replaced:
        compiling[key].result()
    return compiling


def attempt(
    program: Program, flags: tuple[str, ...], compiling: Compiling, options: argparse.Namespace
) -> tuple[str, str]:
    """Links and runs a program, and prints and returns its verdict and output."""
    started = time.monotonic()
    try:
        if program.problem:
            raise BuildError(program.problem)
        objects = [compiling[key].result() for key in program.objects(flags)]
        code, output = run(link(program, objects, flags), options.timeout)
        result = verdict(code, options.timeout)
    except BuildError as error:
        result, output = "FAIL (can't be built)", str(error)
    print(f"{result:<5} {program.name} ({time.monotonic() - started:.1f} s)", flush=True)
    if output and (options.verbose or not result.startswith("PASS")):
        print("    " + output.rstrip().replace("\n", "\n    "), flush=True)
    return result, output


def main() -> int:
    """Builds everything, then runs one program after the other: they measure time."""
    options = arguments()
    os.chdir(ROOT)
    programs = {path.stem: path for path in sorted(TESTS.glob("*.c"))}
    if unknown := set(options.names) - set(programs):
        raise SystemExit(f"no such C test: {', '.join(sorted(unknown))}")
    if options.list:
        print("\n".join(programs))
        return 0
    build = [*SANITIZED, f"-fsanitize={options.sanitize}"] if options.sanitize else PLAIN
    flags = (*LANGUAGE, *STRICT, *build)
    BUILD.mkdir(parents=True, exist_ok=True)
    selected = [read_program(programs[name]) for name in options.names or programs]
    if options.pipe_events:
        selected = [with_pipe_events(program) for program in selected]
    compiling = compile_all(selected, flags, options)

    counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
    for program in selected:
        result, output = attempt(program, flags, compiling, options)
        if result == CHECK_FAILED and second_try.deserved(output):
            first_output = output
            result, _ = attempt(program, flags, compiling, options)
            if result == "PASS":
                second_try.note(f"tests/c/{program.name}.c", first_output)
        counts[result[:4]] += 1
    print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIP']} skipped")
    return 1 if counts["FAIL"] or not selected else 0


if __name__ == "__main__":
    sys.exit(main())

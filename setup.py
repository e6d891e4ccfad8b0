"""Builds the one extension module and, beside it, the back ends: plain shared libraries that it opens at run time.

The rest of the project's description is in pyproject.toml. ``TUNRING_SANITIZE=address,undefined`` in the environment
compiles everything with these sanitizers.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

WINDOWS = os.name == "nt"
LINUX = sys.platform == "linux"
MSVC = WINDOWS and "GCC" not in sys.version

# The last word of a C file's name says where it is compiled; any other word: everywhere.
SYSTEMS = {"windows": WINDOWS, "posix": not WINDOWS, "linux": LINUX, "pipe": not WINDOWS and not LINUX}

INCLUDE = ["include", "src/core", "src/backends", "src/tunring"]
HEADERS = [path.as_posix() for folder in INCLUDE for path in sorted(Path(folder).glob("*.h"))]

SANITIZE = os.environ.get("TUNRING_SANITIZE", "")
SANITIZER = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
if MSVC:
    COMPILE = ["/O2", "/std:c11", "/experimental:c11atomics"]
    STRICT = ["/W3", "/WX"]
    LINK = []
else:
    COMPILE = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", "-pthread"]
    STRICT = ["-Wall", "-Wextra", "-pedantic-errors", "-Werror"]
    LINK = ["-pthread", *SANITIZER]
    if SANITIZE:
        COMPILE += [*SANITIZER, "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1"]


def c_files(*patterns: str) -> list[str]:
    """The files that match, less those of other systems."""
    found = (path for pattern in patterns for path in sorted(Path().glob(pattern)))
    return [path.as_posix() for path in found if SYSTEMS.get(path.stem.rpartition("_")[2], True)]


def exported_names() -> list[str]:
    """What a back end exports: the functions that wintun.h lists, and its own table."""
    return [*re.findall(r"\bX\((Wintun\w+),", Path("include/wintun.h").read_text("utf-8")), "TunringBackend"]


class SharedLibrary(Extension):
    """A library without Python in it."""

    suffix = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")


class BuildExt(build_ext):
    """Compiles our own C strictly, which Cython's can't be, and links libraries that aren't modules."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.cython_c_in_temp = True  # no generated C beside the sources
        self.cython_include_dirs = ["include"]
        self.cython_directives = {"autotestdict": False}  # no `__test__` in the module

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # dates alone don't tell that something was built with other flags

    def get_ext_filename(self, fullname: str) -> str:
        if isinstance(self.ext_map.get(fullname), SharedLibrary):
            return os.path.join(*fullname.split(".")) + SharedLibrary.suffix
        return super().get_ext_filename(fullname)

    def get_export_symbols(self, ext: Extension) -> list[str]:
        return [] if isinstance(ext, SharedLibrary) else super().get_export_symbols(ext)

    def copy_extensions_to_source(self) -> None:
        Path("src/tunring/_backends").mkdir(exist_ok=True)  # an editable install's; not a package
        super().copy_extensions_to_source()

    def build_extension(self, ext: Extension) -> None:
        temp = Path(self.build_temp, ext.name)
        temp.mkdir(parents=True, exist_ok=True)
        ours = [source for source in ext.sources if source.endswith(".c")]
        ext.extra_objects = self.compiler.compile(
            ours,
            output_dir=str(temp),
            include_dirs=ext.include_dirs,
            extra_postargs=COMPILE + STRICT,
            depends=ext.depends,
        )
        ext.sources = [source for source in ext.sources if source not in ours]
        if isinstance(ext, SharedLibrary):
            ext.extra_link_args = LINK + self.export_arguments(temp)
        super().build_extension(ext)

    def export_arguments(self, temp: Path) -> list[str]:
        """Linker arguments that export the names of ``exported_names()`` and no others."""
        names = exported_names()
        path = temp / "exports"
        if MSVC:
            lines, argument = ["EXPORTS", *names], "/DEF:"
        elif sys.platform == "darwin":
            lines, argument = [f"_{name}" for name in names], "-Wl,-exported_symbols_list,"
        else:
            lines, argument = ["{ global:", *(f"{name};" for name in names), "local: *; };"], "-Wl,--version-script="
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return [f"{argument}{path}"]


def extensions() -> list[Extension]:
    """The extension module and the back ends that this system has."""
    common = {"include_dirs": INCLUDE, "depends": HEADERS, "extra_compile_args": COMPILE, "extra_link_args": LINK}
    operating_system = c_files("src/core/os_*.c", "src/core/utf16.c")
    loopback = c_files("src/backends/loopback*.c", "src/backends/cable*.c", "src/backends/simulator*.c")
    tun = c_files("src/backends/tun_*.c", "src/backends/offload_*.c")
    shared = [path for path in c_files("src/backends/*.c") if path not in {*loopback, *tun}]

    result = [
        Extension(
            "tunring._core",
            ["src/tunring/_core.pyx", *c_files("src/core/*.c", "src/tunring/*.c")],
            libraries=["dl"] if LINUX else [],
            **common,
        ),
        SharedLibrary("tunring._backends.loopback", [*loopback, *shared, *operating_system], **common),
    ]
    if LINUX:
        result.append(SharedLibrary("tunring._backends.tun_linux", [*tun, *shared, *operating_system], **common))
    return result


setup(ext_modules=extensions(), cmdclass={"build_ext": BuildExt})

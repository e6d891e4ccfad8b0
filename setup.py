"""Builds the one extension module and, beside it, the back ends: plain shared libraries that it opens at run time.

The rest of the project's description is in pyproject.toml. Setuptools' own switches choose what is built:

* ``bdist_wheel``'s option ``py_limited_api`` (``pip wheel . -C--build-option=--py-limited-api=cp311``) builds for
  Python's stable ABI.
* ``SETUPTOOLS_EXT_SUFFIX`` in the environment requests a build for another Python: its suffix gives the system, and
  ``.cp313-win_amd64.pyd`` also the wheel's tag. ``CC``, ``LDSHARED`` and a configuration file that
  ``DIST_EXTRA_CONFIG`` names (``build_ext``'s include_dirs, library_dirs and libraries, ``bdist_wheel``'s plat_name)
  configure such a build. tests/wine has an example.

And two are ours: ``TUNRING_SANITIZE=address,undefined`` compiles everything with these sanitizers, and
``TUNRING_STRICT=1`` turns warnings in our C into errors, for developers only, since other compilers warn about other
things.
"""

from __future__ import annotations

import hashlib
import os
import re
import runpy
import shutil
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))  # which a build front end leaves out

import sources

# The Python that is built for, which need not be the one that builds.
CROSS_SUFFIX = os.environ.get("SETUPTOOLS_EXT_SUFFIX")
SUFFIX = CROSS_SUFFIX or str(sysconfig.get_config_var("EXT_SUFFIX"))
WINDOWS = SUFFIX.endswith(".pyd")
LINUX = sys.platform == "linux" and not WINDOWS
DARWIN = sys.platform == "darwin" and not WINDOWS
MSVC = os.name == "nt" and "GCC" not in sys.version

SYSTEM = "windows" if WINDOWS else "linux" if LINUX else "posix"

HEADERS = [path.as_posix() for path in sources.headers(Path())]

# The official DLL, which is not ours: a wheel for Windows carries it when .ci/fetch_wintun.py has put it there.
DLL = Path("src/tunring/wintun.dll")
DLL_LICENSE = Path("src/tunring/wintun-license.txt")
DLL_CARRIED = WINDOWS and DLL.exists() and "sdist" not in sys.argv

SANITIZE = os.environ.get("TUNRING_SANITIZE", "")
STRICT = os.environ.get("TUNRING_STRICT") == "1"
SANITIZER = [f"-fsanitize={SANITIZE}"] if SANITIZE else []
# Python's headers check their macros' arguments otherwise, where CFLAGS of the environment replaces Python's own flags.
# Windows' headers take longer to read than our C to compile.
MACROS = ["-DNDEBUG", *(["-DWIN32_LEAN_AND_MEAN"] if WINDOWS else [])]
if MSVC:
    COMPILE = ["/O2", "/std:c11", "/experimental:c11atomics", *MACROS]
    WARNINGS = ["/W3", *(["/WX"] if STRICT else [])]
    LINK = []
else:
    THREADS = [] if WINDOWS else ["-pthread"]
    COMPILE = ["-std=c11", "-D_GNU_SOURCE", "-O2", "-fvisibility=hidden", *THREADS, *MACROS]
    WARNINGS = ["-Wall", "-Wextra", *(["-pedantic-errors", "-Werror"] if STRICT else ["-pedantic"])]
    LINK = [*THREADS, *SANITIZER]
    if SANITIZE:
        COMPILE += [*SANITIZER, "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer", "-g", "-O1"]


def c_files(*parts: str) -> list[str]:
    """The sources of these parts, for what is built for."""
    return [path.as_posix() for path in sources.c_files(Path(), SYSTEM, *parts)]


def exported_names() -> list[str]:
    """The symbols that a back end exports: the functions that wintun.h lists, and its own table."""
    return [*re.findall(r"\bX\((Wintun\w+),", Path("include/wintun.h").read_text("utf-8")), "TunringBackend"]


class SharedLibrary(Extension):
    """A library without Python in it."""

    suffix = ".dll" if WINDOWS else ".dylib" if DARWIN else ".so"


class BdistWheel(bdist_wheel):
    """Takes nothing that was built for something else, and the tag of the Python that the wheel is for."""

    def run(self) -> None:
        shutil.rmtree(self.get_finalized_command("build").build_lib, ignore_errors=True)
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        named = re.fullmatch(r"\.((cp\d+)t?)-(\w+)\.pyd", CROSS_SUFFIX or "")
        return (named[2], named[1], named[3]) if named else super().get_tag()


class BuildPy(build_py):
    """Adds what pyproject.toml can't say, since it depends on the system."""

    def finalize_options(self) -> None:
        if DLL_CARRIED:
            self.distribution.package_data.setdefault("tunring", []).extend([DLL.name, DLL_LICENSE.name])
        super().finalize_options()


class BuildExt(build_ext):
    """Compiles our own C with warnings, which Cython's has too many of, and links libraries that aren't modules."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.cython_c_in_temp = True  # no generated C beside the sources
        self.cython_include_dirs = ["include"]
        self.cython_directives = {"autotestdict": False}  # no `__test__` in the module

    def finalize_options(self) -> None:
        super().finalize_options()
        self.force = True  # dates alone don't show that something was built with other flags
        # MSVC's compiler object sets itself up at its first use, which is not for two threads at once.
        self.parallel = self.parallel or (1 if MSVC else os.cpu_count())
        limited = self.get_finalized_command("bdist_wheel").py_limited_api
        if limited:
            major, minor = re.fullmatch(r"cp(\d)(\d+)", limited).groups()
            for ext in self.extensions:
                ext.define_macros.append(("Py_LIMITED_API", f"0x{int(major):02X}{int(minor):02X}0000"))
                ext.py_limited_api = not CROSS_SUFFIX  # which else would get the suffix of the Python that builds

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

        def compiled(source: str) -> str:
            [result] = self.compiler.compile(
                [source],
                output_dir=str(temp),
                include_dirs=ext.include_dirs,
                macros=ext.define_macros,
                extra_postargs=COMPILE + WARNINGS,
                depends=ext.depends,
            )
            return result

        with ThreadPoolExecutor(self.parallel) as workers:
            ext.extra_objects = list(workers.map(compiled, ours))
        ext.sources = [source for source in ext.sources if source not in ours]
        if isinstance(ext, SharedLibrary):
            ext.extra_link_args = LINK + self.export_arguments(temp)
        super().build_extension(ext)

    def export_arguments(self, temp: Path) -> list[str]:
        """Linker arguments that export the names of ``exported_names()`` and no others."""
        names = exported_names()
        path = temp / "exports.def"
        if WINDOWS:
            lines, argument = ["EXPORTS", *names], "/DEF:" if MSVC else ""
        elif DARWIN:
            lines, argument = [f"_{name}" for name in names], "-Wl,-exported_symbols_list,"
        else:
            lines, argument = ["{ global:", *(f"{name};" for name in names), "local: *; };"], "-Wl,--version-script="
        path.write_text("\n".join(lines) + "\n", "utf-8")
        return [f"{argument}{path}"]


def extensions() -> list[Extension]:
    """The extension module and the back ends that this system has."""
    common = {
        "include_dirs": [*sources.INCLUDE],
        "depends": HEADERS,
        "extra_compile_args": COMPILE,
        "extra_link_args": LINK,
    }
    core = ["src/extension/_core.pyx", *c_files("core", "wireguard", "extension")]
    return [
        Extension("tunring._core", core, libraries=["dl"] if LINUX else ["ws2_32"] if WINDOWS else [], **common),
        *(
            SharedLibrary(f"tunring._backends.{name}", c_files(*parts), **common)
            for name, parts in sources.back_ends(SYSTEM).items()
        ),
    ]


def licences() -> dict[str, object]:
    """Ours, and that of the DLL where the wheel carries it."""
    if not DLL_CARRIED:
        return {"license_expression": "MIT", "license_files": ["LICENSE"]}
    builds = runpy.run_path("src/tunring/_system/official.py")["BUILDS"]
    if hashlib.sha256(DLL.read_bytes()).hexdigest() not in builds:
        raise SystemExit(f"{DLL} is not an official build: remove it, or run .ci/fetch_wintun.py")
    return {
        "license_expression": "MIT AND LicenseRef-Wintun-Prebuilt-Binaries",
        "license_files": ["LICENSE", DLL_LICENSE.as_posix()],
    }


setup(
    ext_modules=extensions(),
    cmdclass={"build_ext": BuildExt, "bdist_wheel": BdistWheel, "build_py": BuildPy},
    **licences(),
)

"""Every example in a docstring runs and prints the output that is shown, and every public name has a docstring."""

from __future__ import annotations

import doctest
import importlib
import inspect
import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import tunring

if TYPE_CHECKING:
    from collections.abc import Iterator

MODULES = (
    "tunring",
    "tunring._adapter",
    "tunring.aead",
    "tunring._loops.aio",
    "tunring.testing.checksum",
    "tunring.compat",
    "tunring.compat._linux",
    "tunring.compat._windows",
    "tunring.configuration",
    "tunring.contrib.anyio",
    "tunring.contrib.scapy",
    "tunring.errors",
    "tunring._extras",
    "tunring._library",
    "tunring._logger",
    "tunring._system.official",
    "tunring._system.privilege",
    "tunring.packets",
    "tunring.pcapng",
    "tunring.testing.responder",
    "tunring.testing._responder_tcp",
    "tunring._routes",
    "tunring._stats",
    "tunring.testing",
    "tunring._loops.tasks",
    "tunring.wireguard",
    "tunring.wireguard.config",
    "tunring.wireguard.device",
    "tunring.wireguard.keys",
    "tunring.wireguard.peer",
)


def public_objects() -> Iterator[tuple[str, object]]:
    """The modules' functions and classes, and the classes' public members."""
    seen = set()
    for module_name in MODULES:
        module = importlib.import_module(module_name)
        yield module_name, module
        for name in getattr(module, "__all__", None) or vars(module):
            thing = getattr(module, name)
            if name.startswith("_") or not callable(thing) or id(thing) in seen:
                continue
            if not getattr(thing, "__module__", "").startswith("tunring"):
                continue
            seen.add(id(thing))
            yield f"{module_name}.{name}", thing
            if inspect.isclass(thing) and thing.__module__.startswith("tunring"):
                ours = (base for base in thing.__mro__ if base.__module__.startswith("tunring"))
                for member_name, member in itertools.chain.from_iterable(vars(base).items() for base in ours):
                    if member_name.startswith("_"):
                        continue
                    if callable(member) or isinstance(member, (property, classmethod, staticmethod)):
                        yield f"{module_name}.{name}.{member_name}", getattr(thing, member_name)


OBJECTS = dict(public_objects())
EXAMPLES = {name: thing for name, thing in OBJECTS.items() if ">>>" in (inspect.getdoc(thing) or "")}


def test_there_are_examples() -> None:
    assert {"tunring.Batch", "tunring.Adapter", "tunring.load", "tunring.testing.pair"} <= EXAMPLES.keys()
    assert {"tunring.Adapter.create", "tunring.wireguard.Key.generate"} <= OBJECTS.keys()


def test_no_module_with_examples_is_left_out() -> None:
    package = Path(tunring.__file__).parent
    modules = {
        ".".join(["tunring", *path.relative_to(package).with_suffix("").parts]).removesuffix(".__init__")
        for path in package.rglob("*.py")
        if ">>>" in path.read_text("utf-8")
    }
    assert modules <= set(MODULES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str) -> None:
    text = inspect.getdoc(EXAMPLES[name]) or ""
    if "import numpy" in text:
        pytest.importorskip("numpy")
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    results = doctest.DocTestRunner(verbose=False).run(test)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize("name", [name for name in OBJECTS if "." in name])
def test_public_name_has_a_docstring(name: str) -> None:
    assert inspect.getdoc(OBJECTS[name])


def test_all_names_exist() -> None:
    assert all(hasattr(tunring, name) for name in tunring.__all__)
    assert sorted(tunring.__all__) == sorted(set(tunring.__all__))

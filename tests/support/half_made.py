"""Objects of the extension module without content: a class either can't be made empty, or its uses raise TypeError.

half_made.py CLASS          makes one, uses it in every way, and prints each use that wasn't refused
"""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any

import tunring.testing
from tunring import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Attributes of the class rather than uses of an object.
_SKIPPED = {
    "__new__", "__init__", "__init_subclass__", "__doc__", "__module__", "__slots__", "__del__", "__weakref__",
    "bind", "from_socket", "__reduce_cython__", "__setstate_cython__", "__pyx_vtable__", "__buffer__",
    "__release_buffer__",
}  # fmt: skip

_OPERATIONS = (len, iter, next, repr, list, bytes, memoryview, aiter, anext)

_PACKET = bytes([0x45]) + bytes(19)


def classes() -> dict[str, type]:
    """Every class of the module by name, those that it doesn't export included."""
    found = [kind for kind in vars(_core).values() if isinstance(kind, type)]
    found += type.__subclasses__(object)
    return {kind.__name__: kind for kind in found if kind.__module__ == _core.__name__}


def refusal(work: Callable[[], Any]) -> BaseException | None:
    """The exception it raises, a coroutine or an iterator at its first step; None if nothing."""
    try:
        result = work()
        if hasattr(result, "send"):
            result.send(None)
        elif hasattr(result, "__next__"):
            next(result)
        elif hasattr(result, "__await__"):
            next(result.__await__())
    except BaseException as error:
        return error
    return None


def some_arguments(function: Callable[..., Any], thing: object) -> Iterator[tuple[Any, ...]]:
    """Arguments of every number that it may take, and of many types."""
    try:
        parameters = inspect.signature(function).parameters.values()
        maximum = sum(one.kind is not one.KEYWORD_ONLY for one in parameters)
    except (TypeError, ValueError):
        maximum = 3
    for count in range(min(maximum, 5) + 1):
        for one in (thing, None, 1, [_PACKET], _PACKET, bytearray(100), "", 0.0):
            yield (one,) * count
    for special in [
        (None, None, None), (KeyError, KeyError(), None), (thing, None, 0), (thing, 256, None), (thing, None, None),
        (None, thing, 131072, False), (thing, None, 256, 0), (thing, None, 256, None),
    ]:  # fmt: skip
        if len(special) <= maximum:
            yield special


def uses(kind: type) -> Iterator[str]:
    """Names of what the class adds to object's."""
    for name in sorted(dir(kind)):
        its = inspect.getattr_static(kind, name)
        if its is not inspect.getattr_static(object, name, None) and name not in _SKIPPED:
            yield name


def not_refused(kind: type, thing: object) -> Iterator[object]:
    """Uses of an empty object that did something, or failed by anything but TypeError."""
    for name in uses(kind):
        error = refusal(lambda: getattr(thing, name))
        if error is not None:
            if not isinstance(error, TypeError):
                yield name, error
            continue
        value = getattr(thing, name)
        if not callable(value):
            if value is not None:
                yield name, value
            continue
        for arguments in some_arguments(value, thing):
            error = refusal(lambda: value(*arguments))
            # An argument may be refused before the object is.
            if not isinstance(error, TypeError) and not (arguments and isinstance(error, ValueError)):
                yield name, arguments, error
    for operation in _OPERATIONS:
        special = f"__{operation.__name__}__"
        if getattr(object, special, None) is not getattr(kind, special, None):
            error = refusal(lambda: operation(thing))
            if not isinstance(error, TypeError):
                yield operation, error


def hand_over(thing: object) -> None:
    """Give it to everything that takes arguments. That may work, but nothing may come of it but exceptions."""
    left, right = tunring.testing.pair()
    with left, right:
        calls = [left.send, left.send_async, left.send_packed, left.reserve, left.capture, tunring.Adapter]
        for value in [*vars(_core).values(), *calls]:
            if not callable(value) or value is type(thing):
                continue
            for arguments in some_arguments(value, thing):
                if any(one is thing for one in arguments):
                    refusal(lambda: value(*arguments))


def main(name: str) -> None:
    kind = classes()[name]
    try:
        thing = kind.__new__(kind)
    except TypeError:
        print("it can't be made")
        return
    for use in not_refused(kind, thing):
        print("not refused:", use)
    hand_over(thing)
    del thing


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Types of arguments with bytes in them, for type checkers. Nothing is here at run time."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any, Protocol, TypeAlias

    import typing_extensions

    class _Array(Protocol):
        """An array of numpy's, which its stubs call a buffer from Python 3.12 on."""

        @property
        def __array_interface__(self) -> dict[str, Any]: ...

    #: A bytes-like object: bytes, bytearray, memoryview, an array of the standard library's or of numpy's, ...
    Buffer: TypeAlias = typing_extensions.Buffer | _Array

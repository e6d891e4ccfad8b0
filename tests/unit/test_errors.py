from __future__ import annotations

import errno
import pickle

import pytest

import tunring
from libraries import failure_line
from tunring.errors import error_from_code

KINDS = [
    (2, tunring.NotFound, FileNotFoundError, errno.ENOENT),
    (5, tunring.AccessDenied, PermissionError, errno.EACCES),
    (13, tunring.RingCorrupt, OSError, errno.EIO),
    (38, tunring.SessionClosed, EOFError, errno.ESHUTDOWN),
    (87, tunring.InvalidArgument, ValueError, errno.EINVAL),
    (111, tunring.RingFull, BlockingIOError, errno.EAGAIN),
    (126, tunring.LibraryNotFound, FileNotFoundError, errno.ENOENT),
    (127, tunring.LibraryInvalid, OSError, errno.ENOSYS),
    (183, tunring.AlreadyExists, FileExistsError, errno.EEXIST),
    (193, tunring.LibraryInvalid, OSError, errno.ENOEXEC),
    (1168, tunring.NotFound, FileNotFoundError, errno.ENOENT),
    (1247, tunring.AdapterBusy, OSError, errno.EBUSY),
    (4, tunring.WintunError, OSError, errno.EMFILE),
    (8, tunring.WintunError, OSError, errno.ENOMEM),
    (99999, tunring.WintunError, OSError, errno.EIO),
]


@pytest.mark.parametrize(("code", "kind", "builtin", "number"), KINDS, ids=[str(kind[0]) for kind in KINDS])
def test_each_code_has_its_class_both_bases_and_both_numbers(
    code: int, kind: type, builtin: type[BaseException], number: int
) -> None:
    error = error_from_code(code, "can't do it", "the log says so")
    assert type(error) is kind
    assert isinstance(error, tunring.WintunError)
    assert isinstance(error, builtin)
    assert (error.winerror, error.errno) == (code, number)
    for part in ("can't do it", str(code), "the log says so"):
        assert part in str(error)


def test_an_error_survives_pickling() -> None:
    error = error_from_code(38, "can't receive")
    error.reason = "removed"
    error.sent = 3
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert (copy.winerror, copy.errno, copy.reason, copy.sent, str(copy)) == (38, error.errno, "removed", 3, str(error))


def test_a_failed_adapter_call_carries_the_librarys_own_words(library: tunring.Library) -> None:
    with pytest.raises(tunring.NotFound) as caught:
        tunring.Adapter.open("nobody has this", library=library)
    assert caught.value.winerror == 1168
    words = str(caught.value).partition("\n")[2]
    assert failure_line(library, "nobody has this") in words, "the library's log line is missing"

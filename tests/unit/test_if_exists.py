"""``Adapter.create`` with a name that is taken."""

from __future__ import annotations

import pytest

import tunring
from tunring import _creation as creation
from tunring.errors import error_from_code


@pytest.mark.parametrize("if_exists", ["error", "open", "recreate"])
def test_a_free_name(library: tunring.Library, name: str, if_exists: str) -> None:
    with (
        tunring.Adapter.create(name, if_exists=if_exists, library=library) as adapter,
        adapter.start_session() as session,
    ):
        assert not session.closed
    with pytest.raises(tunring.NotFound):
        tunring.Adapter.open(name, library=library)


@pytest.mark.parametrize("if_exists", ["", "Error", "replace", None, 1])
def test_no_such_policy(library: tunring.Library, name: str, if_exists: object) -> None:
    with pytest.raises(ValueError, match="'error', 'open', 'recreate'"):
        tunring.Adapter.create(name, if_exists=if_exists, library=library)
    with pytest.raises(tunring.NotFound):
        tunring.Adapter.open(name, library=library)


def test_open_takes_the_one_that_is_there(adapter: tunring.Adapter) -> None:
    with tunring.Adapter.create(adapter.name, if_exists="open", library=adapter.library) as other:
        assert other.luid == adapter.luid
    adapter.start_session().close()  # it has outlived the other's close


def test_recreate_leaves_alone_what_is_in_use(adapter: tunring.Adapter) -> None:
    with adapter.start_session() as session:
        with pytest.raises(tunring.AlreadyExists, match="this process") as caught:
            tunring.Adapter.create(adapter.name, if_exists="recreate", library=adapter.library)
        assert caught.value.winerror == 183
        assert isinstance(caught.value, FileExistsError)
        assert not session.closed


def test_recreate_after_close(library: tunring.Library, name: str) -> None:
    for _ in range(3):
        tunring.Adapter.create(name, if_exists="recreate", library=library).close()


class Going:
    """Plays the official DLL while an adapter is going."""

    def __init__(self, codes: list[int]) -> None:
        self.codes = codes

    def open_adapter(self, name: str) -> object:
        raise error_from_code(self.codes.pop(0) if len(self.codes) > 1 else self.codes[0], f"can't open {name!r}")


def test_an_adapter_that_is_going_is_waited_for() -> None:
    library = Going([4319, 1018, 1018, 1168])
    with pytest.raises(tunring.NotFound):
        creation.open_handle(library, "going")  # type: ignore[arg-type]
    assert library.codes == [1168]


def test_an_adapter_that_never_gets_gone_is_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(creation, "_CLEAN_UP_SECONDS", 0.05)
    with pytest.raises(tunring.AdapterBusy, match="'going'"):
        creation.open_handle(Going([1018]), "going")  # type: ignore[arg-type]


def test_elevation_is_known() -> None:
    assert tunring.is_elevated() in {True, False}

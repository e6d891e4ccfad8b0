"""Operations on secrets: threads read, compare and wipe the same ones."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine import operation
from ledger import Wrong

import tunring
from tunring._core import Secret

if TYPE_CHECKING:
    from world import Actor

#: That are there at once.
SECRETS = 4


@dataclass(frozen=True, eq=False)  # a comparison would use the secrets of others
class Known:
    """A secret and its bytes."""

    secret: Secret
    value: bytes


def _make(actor: Actor) -> Known:
    value = os.urandom(actor.random.choice([1, 16, 32]))
    return Known(Secret(value), value)


def _some(actor: Actor) -> Known:
    secrets: list[Known] = actor.world.secrets
    if len(secrets) < SECRETS:
        secrets.append(_make(actor))
    return actor.random.choice(list(secrets) or [_make(actor)])


@operation(tunring.SessionClosed, weight=8)
def use_a_secret(actor: Actor) -> None:
    """Another thread may wipe it; until then it is whole."""
    known = _some(actor)
    if bytes(known.secret) != known.value or len(known.secret) != len(known.value):
        raise Wrong("a secret is another")
    other = bytes([known.value[0] ^ 1]) + known.value[1:]
    if known.secret != Secret(known.value) or known.secret == Secret(other):
        raise Wrong("secrets compare otherwise than their bytes")
    if known.value.hex() in repr(known.secret) and len(known.value) > 1:
        raise Wrong("a secret is shown")
    if not all(isinstance(flag, bool) for flag in known.secret.protection.values()):
        raise Wrong("the protection of a secret is unknown")


@operation(tunring.SessionClosed, weight=5)
def wipe_a_secret_under_its_users(actor: Actor) -> None:
    """A view keeps the bytes; nothing else may be had any more."""
    known = _some(actor)
    with contextlib.suppress(ValueError):  # another thread has done so
        actor.world.secrets.remove(known)
    with memoryview(known.secret) as view:
        helper = threading.Thread(target=known.secret.wipe)
        helper.start()
        known.secret.wipe()
        if bytes(view) != known.value or not view.readonly:
            raise Wrong("a view of a secret has changed")
        helper.join()
    for use in (bytes, memoryview, lambda secret: secret == Secret(b"x")):
        try:
            use(known.secret)
        except tunring.SessionClosed as error:
            if error.reason != "closed":
                raise Wrong(f"the reason is {error.reason}") from error
        else:
            raise Wrong("a secret that was wiped can be used")
    if not known.secret.wiped:
        raise Wrong("a secret that was wiped is not wiped")


def in_child(secrets: list[Known]) -> None:
    """Check in a forked child that no secret of its parent's is left."""
    for known in secrets:
        try:
            bytes(known.secret)
        except tunring.SessionClosed:
            if known.secret.wiped:
                continue
        raise Wrong("a parent's secret is there in a child")

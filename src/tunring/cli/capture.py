"""The capture that a command writes beside its work: what goes wrong with it is told, and the work goes on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tunring.cli.report import reason_of, say
from tunring.pcapng import Writer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tunring import Session


class Capture:
    """A pcapng file of what sessions receive.

    Parameters
    ----------
    file : str
        Its path, or "-" for standard output.
    sessions : sequence of Session
        Whose packets.
    snaplen : int
        Most bytes of a packet to keep.
    overwrite : bool
        Whether the file may be there already.
    """

    def __init__(self, file: str, sessions: Sequence[Session], *, snaplen: int, overwrite: bool) -> None:
        self._file = file
        #: What went wrong, in one line; or None.
        self.failure: str | None = None
        target = sys.stdout.buffer if file == "-" else file
        names = [(session.adapter.name, session.adapter.configuration().mtu) for session in sessions]
        name, mtu = names[0]
        try:
            self._writer = Writer(target, name=name, mtu=mtu, snaplen=snaplen, overwrite=overwrite)
        except FileExistsError as error:
            raise FileExistsError(error.errno, "is there already; --overwrite replaces it", file) from error
        try:
            for name, mtu in names[1:]:
                self._writer.add_interface(name, mtu=mtu, snaplen=snaplen)
            for number, session in enumerate(sessions):
                session.capture(self._writer, interface=number, sent=False)
        except BaseException:
            self.close()
            raise

    def look(self) -> None:
        """Report a failure, once."""
        if (error := self._writer.failure) is not None:
            self._tell(error)

    def close(self) -> None:
        """Close the file. Any number of times."""
        try:
            self._writer.close()
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        if self.failure is None:
            self.failure = reason_of(error)
            say(f"tunring: the capture is over: {self.failure}", sys.stderr)

    def as_dict(self) -> dict[str, Any]:
        """The figures."""
        packets, dropped = self._writer.packets, self._writer.dropped
        return {"file": self._file, "packets": packets, "dropped": dropped, "error": self.failure}

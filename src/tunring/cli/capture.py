"""The capture that a command writes beside its work: a failure of it is reported, and the work goes on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from tunring.cli.report import reason_of, say
from tunring.pcapng import Writer

if TYPE_CHECKING:
    from tunring import Session


class Capture:
    """A pcapng file of what passes between two sessions.

    It has one interface, the near session's: what comes from there is inbound, and what comes from the far one is
    outbound. libpcap up to 1.10, and with it tcpdump, refuses a file with two interfaces of raw IP packets, whose link
    type has another number in libpcap than in the file.

    Parameters
    ----------
    file : str
        Its path, or "-" for standard output.
    near, far : Session
        The sessions between which everything is passed on.
    snaplen : int
        Most bytes of a packet to keep.
    overwrite : bool
        True: an existing file may be replaced.
    """

    def __init__(self, file: str, near: Session, far: Session, *, snaplen: int, overwrite: bool) -> None:
        self._file = file
        #: The failure, in one line; or None.
        self.failure: str | None = None
        target = sys.stdout.buffer if file == "-" else file
        name, mtu = near.adapter.name, near.adapter.configuration().mtu
        description = f"bridge to {far.adapter.name}"
        try:
            self._writer = Writer(
                target, name=name, description=description, mtu=mtu, snaplen=snaplen, overwrite=overwrite
            )
        except FileExistsError as error:
            raise FileExistsError(error.errno, "exists already; --overwrite replaces it", file) from error
        try:
            near.capture(self._writer)
        except BaseException:
            self.close()
            raise

    def look(self) -> None:
        """Report a failure, once."""
        if (error := self._writer.failure) is not None:
            self._tell(error)

    def close(self) -> None:
        """Close the file. Idempotent."""
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

"""An adapter on the stand-in for Windows' IP Helper API."""

from __future__ import annotations

from typing import Any, cast

import tunring
from iphelper_fake import LUID, FakeIpHelper
from tunring import _configurator as configurator
from tunring.configuration import _interface_windows


class Tunnel:
    """An adapter of the official DLL, as far as configuration looks at it, on the stand-in's system."""

    def __init__(self, api: FakeIpHelper, *, stays: bool = False) -> None:
        self.api = api
        self.interface = _interface_windows.WindowsInterface(cast("Any", api), "OfficeNet", LUID)
        self.restart(stays=stays)

    def restart(self, *, stays: bool = False) -> None:
        """Start again, as another adapter object of another process would."""
        target = configurator.Target("OfficeNet", 1, LUID, -1, "wintun", official=True)
        self.configurator = configurator.Configurator(lambda: target, stays=stays, opened=stays, call=self.call)

    def call(self, target: configurator.Target, work: Any) -> Any:
        try:
            return work(self.interface)
        finally:
            self.api.check_nothing_left()

    def configure(self, addresses: Any = (), mtu: Any = None, **given: Any) -> tunring.Configuration:
        return self.configurator.configure(cast("Any", {"addresses": addresses, "mtu": mtu, **given}))

    def close(self) -> Exception | None:
        return self.configurator.close()


def tunnel(*, stays: bool = False, **options: Any) -> Tunnel:
    """An adapter that is configured over a stand-in of its own."""
    return Tunnel(FakeIpHelper(**options), stays=stays)

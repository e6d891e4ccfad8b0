"""wg-quick's files: every key, and every mistake with its line."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunring.wireguard import Config, ConfigError, Key, PublicKey, parse_config

PRIVATE = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHk8="
PUBLIC = "L/U28zCzZzeAAWMj8pa0fYe7QGhHPnxnQwyianIWHUc="
OTHER = Key(bytes(range(32, 64))).public.base64

WHOLE = f"""\ufeff# a comment
[interface]
PRIVATEKEY={PRIVATE}   # with one of its own
ListenPort = 51820
FwMark = 0xca6c
Address = 10.0.0.1/24, fd00::1/64
address = 192.0.2.1
DNS = 10.0.0.53, fd00::53 , example.org
DNS = lan
MTU = 1420
Table = 1234
PreUp = echo before; true
PostUp = iptables -A FORWARD -i %i -j ACCEPT
PostUp = second = command
PreDown = true
PostDown = false
SaveConfig = true

[Peer]
PublicKey = {PUBLIC}
PresharedKey = {PRIVATE}
AllowedIPs = 10.0.0.2/32, 10.1.0.7/16
AllowedIPs = ::/0
Endpoint = [2001:db8::2]:51821
PersistentKeepalive = 25

  [ Peer ]
PublicKey={OTHER}
AllowedIPs =
Endpoint = vpn.example.org:1
PersistentKeepalive = off
"""


def test_every_key() -> None:
    config = parse_config(WHOLE)
    first, second = config.peers
    assert config.private_key == Key(PRIVATE)
    assert (config.listen_port, config.mark, config.mtu, config.table) == (51820, 0xCA6C, 1420, "1234")
    assert config.addresses == tuple(map(ip_interface, ["10.0.0.1/24", "fd00::1/64", "192.0.2.1/32"]))
    assert config.dns == (ip_address("10.0.0.53"), ip_address("fd00::53"))
    assert config.dns_search == ("example.org", "lan")
    assert config.pre_up == ("echo before; true",)
    assert config.post_up == ("iptables -A FORWARD -i %i -j ACCEPT", "second = command")
    assert (config.pre_down, config.post_down, config.save_config) == (("true",), ("false",), True)
    assert first.public_key == PublicKey(PUBLIC)
    assert first.preshared_key == Key(PRIVATE)
    assert first.allowed_ips == tuple(map(ip_network, ["10.0.0.2/32", "10.1.0.0/16", "::/0"]))
    assert (first.endpoint, first.persistent_keepalive) == (("2001:db8::2", 51821), 25)
    assert second.preshared_key is None
    assert (second.allowed_ips, second.endpoint, second.persistent_keepalive) == ((), ("vpn.example.org", 1), None)


def test_defaults() -> None:
    assert parse_config("") == parse_config("[Interface]\r\n\r\n") == Config()
    assert parse_config("[Interface]\nFwMark = off").mark is None
    assert parse_config("[Interface]\nFwMark = 0").mark is None
    assert parse_config("[Interface]\nTable = OFF").table == "off"


def test_no_secret_is_shown() -> None:
    assert PRIVATE not in repr(parse_config(WHOLE))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[Peers]", r"a section must be \[Interface\] or \[Peer\], not '\[Peers\]'"),
        ("[Peer", "a section must be"),
        ("Foo = 1", r"\[Interface\] has no key 'Foo'; it has PrivateKey, ListenPort"),
        ("AllowedIPs = ::/0", r"\[Interface\] has no key 'AllowedIPs'"),
        ("MTU", "a line must be Key = value"),
        ("PrivateKey = abc", "PrivateKey: a key must have 44 characters of base64"),
        ("ListenPort = 65536", "ListenPort must be 0 to 65535, not '65536'"),
        ("ListenPort = -1", "ListenPort must be"),
        ("ListenPort = off", "ListenPort must be"),
        ("ListenPort = \N{SUPERSCRIPT TWO}", "ListenPort must be"),
        ("FwMark = 0x", "FwMark must be 0 to 4294967295 or off, not '0x'"),
        ("FwMark = 0x100000000", "FwMark must be"),
        ("Address = 10.0.0.1/33", "Address must be addresses such as .*10.0.0.1/33"),
        ("Address = 10.0.0.1/24,", "Address must be addresses"),
        ("DNS = 10.0.0.300", "DNS must be addresses or search domains, not '10.0.0.300'"),
        ("DNS = a b", "DNS must be addresses or search domains, not 'a b'"),
        ("MTU = big", "MTU must be 576 to 65535, not 'big'"),
        ("Table = main local", "Table must be auto, off, or"),
        ("PreUp =", "PreUp must be a command"),
        ("SaveConfig = yes", "SaveConfig must be true or false, not 'yes'"),
    ],
)
def test_mistakes_in_the_interface(line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^line 3: {words}") as caught:
        parse_config(f"[Interface]\n# a comment\n{line}\n")
    assert caught.value.line == 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (f"PublicKey = {PUBLIC}", r"PublicKey appears twice in this \[Peer\]"),
        ("MTU = 1500", r"\[Peer\] has no key 'MTU'"),
        ("AllowedIPs = 10.0.0.0/8, any", "AllowedIPs must be networks such as .*any"),
        ("Endpoint = 192.0.2.1", r"Endpoint must be host:port or \[IPv6 address\]:port, not '192.0.2.1'"),
        ("Endpoint = 2001:db8::1:51820", "Endpoint must be"),
        ("Endpoint = [192.0.2.1]:51820", "Endpoint must be"),
        ("Endpoint = 192.0.2.1:0", "Endpoint must be"),
        ("Endpoint = :1", "Endpoint must be"),
        ("PersistentKeepalive = 65536", "PersistentKeepalive must be 0 to 65535 or off"),
    ],
)
def test_mistakes_in_a_peer(line: str, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^line 3: {words}"):
        parse_config(f"[Peer]\nPublicKey = {PUBLIC}\n{line}\n")


def test_mistakes_in_the_whole() -> None:
    with pytest.raises(ConfigError, match=r"^line 1: the file must begin with a section"):
        parse_config("MTU = 1500")
    with pytest.raises(ConfigError, match=r"^line 2: this \[Peer\] has no PublicKey"):
        parse_config("[Interface]\n[Peer]\n")
    with pytest.raises(ConfigError, match=r"^line 3: the peer L/U2.*= appears twice"):
        parse_config(f"[Peer]\nPublicKey={PUBLIC}\n[Peer]\nPublicKey={PUBLIC}")


@pytest.mark.parametrize(
    "line", [PRIVATE, f"PrivateKey {PRIVATE}", f"PrivateKey = {PRIVATE}x", f"PresharedKey = {PRIVATE}"]
)
def test_no_mistake_shows_a_secret(line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(f"[Interface]\n{line}\n")
    assert PRIVATE[:-1] not in str(caught.value)


def test_a_file_is_written_as_it_is_read() -> None:
    config = parse_config(WHOLE)
    assert parse_config(config.to_text()) == config
    assert config.to_text() == parse_config(config.to_text()).to_text()
    assert parse_config("").to_text() == "[Interface]\n"
    assert Config(listen_port=0).to_text() == "[Interface]\nListenPort = 0\n"


@given(st.lists(st.sampled_from([*WHOLE.splitlines(), "[Peer]", "=", "[", "MTU = x"])).map("\n".join) | st.text())
def test_anything_is_read_or_refused_with_its_line(text: str) -> None:
    try:
        config = parse_config(text)
    except ConfigError as error:
        assert 1 <= error.line <= len(text.splitlines())
        assert str(error).startswith(f"line {error.line}: ")
    else:
        assert len({peer.public_key for peer in config.peers}) == len(config.peers)

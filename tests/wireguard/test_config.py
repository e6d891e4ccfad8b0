"""wg-quick's files: every key, and every mistake with its line."""

from __future__ import annotations

from ipaddress import ip_address, ip_interface, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunring.wireguard import Config, ConfigError, Key, PeerConfig, PublicKey, parse_config

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
        ("Address = 10.0.0.1/24;10.0.0.2/24", "Address must be addresses"),
        ("DNS = 10.0.0.300", "DNS must be addresses or search domains, not '10.0.0.300'"),
        ("DNS = 10.0.0.53 a_b- c", "DNS must be addresses or search domains, not 'a_b-'"),
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
        ("MTU = 1500", r"\[Peer\] has no key 'MTU'"),
        ("AllowedIPs = 10.0.0.0/8, any", "AllowedIPs must be networks such as .*any"),
        # wg refuses these, too.
        ("AllowedIPs = 10.0.0.0/8,", "AllowedIPs must be"),
        ("AllowedIPs = 10.0.0.0/8 10.1.0.0/16", "AllowedIPs must be"),
        ("AllowedIPs = 10.0.0.0\N{NO-BREAK SPACE}/8", "AllowedIPs must be"),
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
    with pytest.raises(ConfigError, match=r"^wg0.conf, line 2: this \[Peer\] has no PublicKey"):
        parse_config("[Interface]\n[Peer]\n", file=Path("wg0.conf"))


def test_blanks_and_commas_separate_addresses() -> None:
    config = parse_config(
        "[Interface]\nAddress = 10.0.0.1/24 fd00::1/64,\t10.0.0.2/24 ,\nDNS = ,10.0.0.53 lan,fd00::53,\n"
    )
    assert config.addresses == tuple(map(ip_interface, ["10.0.0.1/24", "fd00::1/64", "10.0.0.2/24"]))
    assert config.dns == (ip_address("10.0.0.53"), ip_address("fd00::53"))
    assert config.dns_search == ("lan",)


def test_white_space_within_values_of_wg() -> None:
    config = parse_config(
        f"[Interface]\nPrivateKey = {PRIVATE[:20]} {PRIVATE[20:]}\nListenPort = 518 20\nPostUp = a  b\n"
        f"[Peer]\nPublicKey = {PUBLIC[:5]}\t{PUBLIC[5:]}\nAllowedIPs = 10.0.0.0 / 8 , 10.1.0. 0/16\f\n"
        "Endpoint = example.org : 51820\nPersistentKeepalive = 2 5\n"
    )
    assert (config.private_key, config.listen_port, config.post_up) == (Key(PRIVATE), 51820, ("a  b",))
    [peer] = config.peers
    assert peer.public_key == PublicKey(PUBLIC)
    assert peer.allowed_ips == tuple(map(ip_network, ["10.0.0.0/8", "10.1.0.0/16"]))
    assert (peer.endpoint, peer.persistent_keepalive) == (("example.org", 51820), 25)


def test_the_last_line_of_a_key_counts() -> None:
    config = parse_config(
        "[Interface]\nListenPort = 1\nListenPort = 2\nMTU = 1300\n[Interface]\nMTU = 1400\n"
        f"[Peer]\nPublicKey = {OTHER}\nPublicKey = {PUBLIC}\nEndpoint = a:1\nEndpoint = b:2\n"
        "PersistentKeepalive = 25\nPersistentKeepalive = off\n"
    )
    assert (config.listen_port, config.mtu) == (2, 1400)
    [peer] = config.peers
    assert peer == PeerConfig(PublicKey(PUBLIC), endpoint=("b", 2))


def test_sections_of_one_peer() -> None:
    """`wg` sends both, and each replaces the allowed IPs."""
    first = f"[Peer]\nPublicKey = {PUBLIC}\nPresharedKey = {PRIVATE}\nAllowedIPs = 10.0.0.0/8\nEndpoint = a:1\n"
    between = f"[Peer]\nPublicKey = {OTHER}\nAllowedIPs = 10.2.0.0/16\n"
    second = f"[Peer]\nPublicKey = {PUBLIC}\nAllowedIPs = 10.1.0.0/16, 10.2.0.0/16\nPersistentKeepalive = 5\n"
    config = parse_config(first + between + second)
    networks = tuple(map(ip_network, ["10.1.0.0/16", "10.2.0.0/16"]))
    # Last, as it has taken a network from the other one.
    assert [peer.public_key for peer in config.peers] == [PublicKey(OTHER), PublicKey(PUBLIC)]
    assert config.peers[1] == PeerConfig(PublicKey(PUBLIC), Key(PRIVATE), networks, ("a", 1), 5)
    [peer] = parse_config(f"{first}[Peer]\nPublicKey = {PUBLIC}\nPresharedKey = {'A' * 43}=\n").peers
    assert peer == PeerConfig(PublicKey(PUBLIC), None, (), ("a", 1))


@pytest.mark.parametrize("errors", ["bytes", "surrogateescape"])
def test_bytes_that_are_not_utf_8(errors: str) -> None:
    def read(data: bytes) -> Config:
        return parse_config(data if errors == "bytes" else data.decode("utf-8", errors), file="wg0.conf")

    # NEL (0x85) and others end no line.
    comments = b"# M\xfcnchen \x85 \xff\x0b\x1c\xe2\x80\xa8.\n[Interface]\nListenPort = 5 # \xe4\r\n"
    assert read(comments) == Config(listen_port=5)
    for line in (b"PostUp = echo \xe4", b"\xe4", b"[\xe4]", b"DNS = \xe4.example"):
        with pytest.raises(ConfigError, match=r"^wg0\.conf, line 4: there are bytes that are not UTF-8") as caught:
            read(comments + line)
        assert caught.value.line == 4
    assert read("\ufeff[Interface]\nPostUp = echo \xe4".encode()).post_up == ("echo \xe4",)


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

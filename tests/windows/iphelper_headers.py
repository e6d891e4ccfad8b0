"""Ask Windows' own headers, as mingw-w64 has them, whether our IP Helper structures are theirs.

    python3 tests/windows/iphelper_headers.py [COMPILER]

It needs tunring installed. A program of static assertions is compiled, not run. DNS_INTERFACE_SETTINGS is not in these
headers; its declaration as Microsoft documents it is in the program.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

from tunring._system import iphelper_windows as iphelper

#: Ours -> theirs, and their names of our fields, in order.
NAMES = {
    iphelper.Guid: ("GUID", "Data1"),
    iphelper.SocketAddress: (
        "SOCKADDR_INET",
        "si_family Ipv4.sin_port Ipv4.sin_addr Ipv6.sin6_addr Ipv6.sin6_scope_id",
    ),
    iphelper.AddressPrefix: ("IP_ADDRESS_PREFIX", "Prefix PrefixLength"),
    iphelper.UnicastRow: (
        "MIB_UNICASTIPADDRESS_ROW",
        (
            "Address InterfaceLuid InterfaceIndex PrefixOrigin SuffixOrigin ValidLifetime PreferredLifetime "
            "OnLinkPrefixLength SkipAsSource DadState ScopeId CreationTimeStamp"
        ),
    ),
    iphelper.InterfaceRow: (
        "MIB_IPINTERFACE_ROW",
        (
            "Family InterfaceLuid InterfaceIndex MaxReassemblySize InterfaceIdentifier MinRouterAdvertisementInterval "
            "MaxRouterAdvertisementInterval AdvertisingEnabled ForwardingEnabled WeakHostSend WeakHostReceive "
            "UseAutomaticMetric UseNeighborUnreachabilityDetection ManagedAddressConfigurationSupported "
            "OtherStatefulConfigurationSupported AdvertiseDefaultRoute RouterDiscoveryBehavior DadTransmits "
            "BaseReachableTime RetransmitTime PathMtuDiscoveryTimeout LinkLocalAddressBehavior LinkLocalAddressTimeout "
            "ZoneIndices SitePrefixLength Metric NlMtu Connected SupportsWakeUpPatterns SupportsNeighborDiscovery "
            "SupportsRouterDiscovery ReachableTime TransmitOffload ReceiveOffload DisableDefaultRoutes"
        ),
    ),
    iphelper.ForwardRow: (
        "MIB_IPFORWARD_ROW2",
        (
            "InterfaceLuid InterfaceIndex DestinationPrefix NextHop SitePrefixLength ValidLifetime PreferredLifetime "
            "Metric Protocol Loopback AutoconfigureAddress Publish Immortal Age Origin"
        ),
    ),
    iphelper.DnsSettings: (
        "DNS_INTERFACE_SETTINGS",
        (
            "Version Flags Domain NameServer SearchList RegistrationEnabled RegisterAdapterName EnableLLMNR "
            "QueryAdapterName ProfileNameServer"
        ),
    ),
}

TABLES = {
    iphelper.UnicastRow: "MIB_UNICASTIPADDRESS_TABLE",
    iphelper.InterfaceRow: "MIB_IPINTERFACE_TABLE",
    iphelper.ForwardRow: "MIB_IPFORWARD_TABLE2",
}

HEAD = """
#include <winsock2.h>
#include <ws2ipdef.h>
#include <iphlpapi.h>
#include <netioapi.h>
#include <stddef.h>
typedef struct
{
    ULONG Version;
    ULONG64 Flags;
    PWSTR Domain, NameServer, SearchList;
    ULONG RegistrationEnabled, RegisterAdapterName, EnableLLMNR, QueryAdapterName;
    PWSTR ProfileNameServer;
} DNS_INTERFACE_SETTINGS;
#define SAME(what, number) _Static_assert((what) == (number), #what)
"""


def program() -> str:
    """The assertions."""
    constants = {
        "AF_INET6": iphelper.AF_INET6,
        "IpDadStateTentative": iphelper.DAD_TENTATIVE,
        "IpDadStateDuplicate": iphelper.DAD_DUPLICATE,
        "IpDadStatePreferred": iphelper.DAD_PREFERRED,
        "MIB_IPPROTO_LOCAL": iphelper.PROTOCOL_LOCAL,
        "MIB_IPPROTO_NETMGMT": iphelper.PROTOCOL_MANAGEMENT,
    }
    lines = [f"SAME({name}, {value});" for name, value in constants.items()]
    for ours, (theirs, names) in NAMES.items():
        lines.append(f"SAME(sizeof({theirs}), {ctypes.sizeof(ours)});")
        fields = [field[0] for field in ours._fields_]
        for name, field in zip(names.split(), fields, strict=True):
            ours_is = getattr(ours, field)
            lines.append(f"SAME(offsetof({theirs}, {name}), {ours_is.offset});")
            if ours is not iphelper.Guid:
                lines.append(f"SAME(sizeof((({theirs} *)0)->{name}), {ours_is.size});")
    lines += [f"SAME(offsetof({table}, Table), {iphelper.Table.first.offset});" for table in TABLES.values()]
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    """Compile it."""
    compiler = sys.argv[1] if len(sys.argv) > 1 else "x86_64-w64-mingw32-gcc"
    text = program()
    subprocess.run([compiler, "-std=c11", "-fsyntax-only", "-x", "c", "-"], input=text, text=True, check=True)
    print(f"{len(NAMES)} structures agree with the headers of {compiler}: {text.count('SAME(') - 1} assertions")


if __name__ == "__main__":
    main()

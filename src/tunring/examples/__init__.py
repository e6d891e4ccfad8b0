"""A cookbook: each module is a program, ``python -m tunring.examples.NAME``, that is short enough to start from.

==================  =======================================================================================
``icmp_echo``       answer pings by writing each answer over its request, in the ring
``count``           count packets by protocol with numpy, without an object per packet
``capture``         write all that goes through an interface to a pcapng file
``filter``          pass packets between two interfaces, except those that rules drop, with numpy
``tunnel``          an encrypted UDP tunnel between two hosts: a thread per direction, which hands on batches
``tunnel_asyncio``  the same tunnel as tasks of asyncio
``tunnel_server``   a server for many tunnels: one lookup, one split and one send for a batch
==================  =======================================================================================

Each creates the interfaces that it is given the names of, which requires root or an administrator. Ctrl-C or SIGTERM
ends it, and it prints its totals. ``python -m tunring.examples`` lists the programs.
"""

from __future__ import annotations

#: Name -> what it does.
PROGRAMS = {
    "icmp_echo": "answer pings",
    "count": "count packets by protocol, with numpy",
    "capture": "write all that goes through an interface to a pcapng file",
    "filter": "pass packets between two interfaces, except those that rules drop, with numpy",
    "tunnel": "an encrypted UDP tunnel between two hosts",
    "tunnel_asyncio": "the same tunnel as tasks of asyncio",
    "tunnel_server": "a server for many tunnels",
}

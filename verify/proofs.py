"""Every proof about the network's hardware, on small parameters."""

from functools import partial

from hwgen.noc.network import Network
from verify.buffer_laws import BufferLaws, CreditLaws
from verify.order_laws import OrderLaws
from verify.prove import Proof
from verify.router_laws import LAWS, RouterLaws

INPUTS = ("local", "north", "east", "south", "west")


def buffer_proofs(depth: int) -> list[Proof]:
    """The input buffer and the credit counter of one depth."""
    return [
        Proof("what was written is read, once and in order", f"flit buffer, depth {depth}",
              partial(BufferLaws, flit_bits=32, depth=depth)),
        Proof("the count is exact, without over- or underflow", f"credit counter, {depth} credits",
              partial(CreditLaws, credits=depth)),
    ]


def order_proofs(clients: int) -> list[Proof]:
    """The order of service, for its first and its last client."""
    return [Proof("who waits is passed over once at most by each other", f"order of {clients} clients, waits {i}",
                  partial(OrderLaws, clients=clients, watched=i)) for i in (0, clients - 1)]


def router_proof(network: Network, law: str, port: str, channel: int = 0, **how) -> Proof:
    """A law of a network's router, for a packet that comes in by one port and channel."""
    words = [f"{network.routing}, {network.virtual_channels} VC", f"{network.width}x{network.height}",
             f"depth {network.buffer_flits}", *(["multicast"] if network.multicast else []), f"in {port}"]
    if network.virtual_channels > 1:
        words.append(f"channel {channel}")
    return Proof(LAWS[law], ", ".join(words), partial(RouterLaws, law=law, network=network, port=port, channel=channel),
                 **how)


PLAIN = Network(2, 2, buffer_flits=2, flit_bits=32, multicast=False)
BOUNDED = [
    Network(2, 2, buffer_flits=2, flit_bits=32, multicast=True),
    Network(2, 2, buffer_flits=2, flit_bits=32, multicast=False, virtual_channels=2),
    Network(3, 2, buffer_flits=2, flit_bits=32, multicast=False, routing="west-first"),
]
"""Networks whose routers are looked at for some cycles only."""
QUICK = [*buffer_proofs(2), *order_proofs(5), router_proof(PLAIN, "credits", "west")]
"""What `make test` proves."""


def all_proofs() -> list[Proof]:
    """What `make formal` proves."""
    proofs = [proof for depth in (2, 3, 4) for proof in buffer_proofs(depth)] + order_proofs(5)
    for law in LAWS:
        how = {"engine": "bmc3", "depth": 20} if law == "turns" else {}
        proofs += [router_proof(PLAIN, law, port, **how) for port in INPUTS]
    # turns: a flit that is passed over once too often needs more cycles than these are looked at for
    return proofs + [router_proof(network, law, port, engine="bmc3", depth=10)
                     for network in BOUNDED for law in LAWS if law != "turns" for port in ("local", "west")]

"""Every proof about the network's hardware, on small parameters."""

from functools import partial

from hwgen.noc.network import Network
from verify.buffer_laws import BufferLaws, CreditLaws
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


def router_proof(network: Network, law: str, port: str, channel: int = 0, **how) -> Proof:
    """A law of a network's router, for a packet that comes in by one port and channel."""
    words = [f"{network.routing}, {network.virtual_channels} VC", f"{network.width}x{network.height}",
             f"depth {network.buffer_flits}", *(["multicast"] if network.multicast else []), f"in {port}"]
    if network.virtual_channels > 1:
        words.append(f"channel {channel}")
    return Proof(LAWS[law], ", ".join(words), partial(RouterLaws, law=law, network=network, port=port, channel=channel),
                 **how)


def router_proofs(network: Network, channels=(0,), inputs=INPUTS, **how) -> list[Proof]:
    """Every law for packets of each input and channel."""
    return [router_proof(network, law, port, channel, **how.get(law, {})) for law in LAWS for channel in channels
            for port in inputs]


PLAIN = Network(2, 2, buffer_flits=2, flit_bits=32, multicast=False)
TREES = Network(2, 2, buffer_flits=2, flit_bits=32, multicast=True)
CHANNELS = Network(2, 2, buffer_flits=2, flit_bits=32, multicast=False, virtual_channels=2)
ADAPTIVE = Network(3, 2, buffer_flits=2, flit_bits=32, multicast=False, routing="west-first")
MIXED = Network(3, 2, buffer_flits=2, flit_bits=32, multicast=True, routing="odd-even", virtual_channels=2)
QUICK = [*buffer_proofs(2), router_proof(PLAIN, "delivery", "west"), router_proof(PLAIN, "credits", "west")]
"""What `make test` proves."""


def all_proofs() -> list[Proof]:
    """What `make formal` proves."""
    proofs = [proof for depth in (2, 3, 4) for proof in buffer_proofs(depth)]
    for network in (PLAIN, TREES, ADAPTIVE):
        proofs += router_proofs(network)
    return proofs

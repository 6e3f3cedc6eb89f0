"""Who was served least recently."""

from itertools import combinations

from amaranth.hdl import Signal


class ServiceOrder:
    """A total order of some clients: those served move behind all others, which keep their order.

    One bit for each pair; not a component, for it drives the clock domain of the module it is used in.
    """

    def __init__(self, clients, name: str):
        self._bits = {(a, b): Signal(name=f"{name}_{a}_{b}") for a, b in combinations(clients, 2)}

    def before(self, a, b):
        """Whether `a` goes before `b`, which is another client."""
        return self._bits[a, b] if (a, b) in self._bits else ~self._bits[b, a]

    def serve(self, m, served):
        """`served`: client -> whether it is served in this cycle."""
        for (a, b), first in self._bits.items():
            with m.If(served[a] ^ served[b]):
                m.d.sync += first.eq(served[b])

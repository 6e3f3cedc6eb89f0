# amaranth: UnusedElaboratable=no
"""Laws of the network's hardware, proven, and refuted where the hardware is wrong."""

from functools import partial

import pytest
from amaranth.hdl import Const, Module
from amaranth.sim import Simulator

from hwgen.rtl import output_channels, router
from hwgen.rtl.flit_buffer import FlitBuffer, one_hot_mux
from hwgen.rtl.link import CreditCounter
from hwgen.rtl.output_channels import OutputChannels
from hwgen.rtl.service_order import ServiceOrder
from verify import buffer_laws
from verify.buffer_laws import BufferLaws, CreditLaws
from verify.proofs import PLAIN, QUICK, all_proofs, router_proof
from verify.prove import Proof, prove


@pytest.mark.parametrize("proof", QUICK, ids=lambda proof: f"{proof.law}, {proof.configuration}")
def test_laws_are_proven(proof):
    verdict = prove(proof)
    assert verdict.holds and verdict.extent == "proven, unbounded"


def test_every_proof_is_of_another_law_or_configuration():
    names = [(proof.law, proof.configuration) for proof in all_proofs()]
    assert len(set(names)) == len(names)


class ForgetsEnds(FlitBuffer):
    def elaborate(self, platform):
        self.w_last = Const(0)
        return super().elaborate(platform)


class NeverSpends(CreditCounter):
    def elaborate(self, platform):
        self.send = Const(0)
        return super().elaborate(platform)


class FreesAtOnce(OutputChannels):
    """An output that is free again after any flit of a packet."""

    def elaborate(self, platform):
        self.last = Const(1)
        return super().elaborate(platform)


def swapped_mux(select, choices):
    return one_hot_mux([*select][::-1], choices)


PLANTED = [
    ("a buffer drops the mark of a packet's end", buffer_laws, "FlitBuffer", ForgetsEnds,
     partial(BufferLaws, flit_bits=32, depth=2)),
    ("a counter never spends", buffer_laws, "CreditCounter", NeverSpends, partial(CreditLaws, credits=2)),
    ("an output passes on another input's flit", router, "one_hot_mux", swapped_mux, "delivery"),
    ("an output lets packets mix", router, "OutputChannels", FreesAtOnce, "framing"),
    ("an output sends without credits", output_channels, "CreditCounter", NeverSpends, "credits"),
    ("inputs are always served in one order", ServiceOrder, "serve", lambda *_: None, "turns"),
]


@pytest.mark.parametrize("place, name, wrong, law", [case[1:] for case in PLANTED], ids=[case[0] for case in PLANTED])
def test_planted_bugs_are_refuted(monkeypatch, place, name, wrong, law):
    monkeypatch.setattr(place, name, wrong)
    if isinstance(law, str):
        # the order that is never changed has the local input last
        proof = router_proof(PLAIN, law, "local" if law == "turns" else "west", engine="bmc3", depth=12)
    else:
        proof = Proof("planted", "bug", law, engine="bmc", depth=8)
    verdict = prove(proof)
    assert not verdict.holds and verdict.extent == "refuted"


def test_an_assertion_of_the_hardware_stops_a_simulation():
    buffer = FlitBuffer(flit_bits=32, depth=2)
    m = Module()
    m.submodules.buffer = buffer
    m.d.comb += buffer.pop.eq(1)
    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    with pytest.raises(AssertionError, match="pop of an empty buffer"):
        simulator.run_until(5e-6)

"""A design and a scenario for the explorer's tests."""

from explore.scenario import Scenario
from explore.workload import read_workload
from hwgen.design import Design, TileClass


def scenario(name: str = "smollm2-135m", formats: dict | None = None, **changes) -> Scenario:
    """SmolLM2 135M at 7 nm and 512 positions; `formats` of its weights as `read_workload` takes them."""
    return Scenario(read_workload(name, **formats or {}), **{"nm": 7, "context": 512, **changes})


def design(**tile) -> Design:
    """A 6x4 mesh of one tile class."""
    return Design(6, 4, flit_bits=128, buffer_flits=6, clock_mhz=400.0,
                  classes=(TileClass("t", **{"vlen": 64, "lanes": 8, **tile}),))

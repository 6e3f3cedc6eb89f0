"""Area and cycle time of the router against its peers, as a table.

    python -m bench.router_area [--liberty PATH] [--mesh 8] [--only TEXT]

Each configuration is the router inside a mesh, five ports, 64-bit flits, buffers of 4 flits, mapped by the flow of
`bench.mapping`; `any place` is the one that also serves the host, as `hwgen rtl router` emits it. kGE: area in 1000
NAND2. The cycle is the worst path from register to register, set-up included, over two routers joined east to west,
found by OpenSTA (program `sta`). No wires. The peers were measured the same way.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from bench.mapping import OSU018, check_liberty, map_cells
from hwgen.emit.verilog import module_files
from hwgen.liberty import read_liberty
from hwgen.noc.turns import SIDES
from hwgen.router_timing import cycle_of_pair
from hwgen.rtl.router import Router

CONFIGURATIONS = {
    "1 VC xy": {},
    "1 VC xy, any place": {"host": True},
    "1 VC xy, multicast": {"multicast": True},
    "2 VC xy": {"virtual_channels": 2},
    "2 VC xy, multicast": {"virtual_channels": 2, "multicast": True},
    "2 VC o1turn": {"virtual_channels": 2, "routing": "o1turn"},
    "1 VC odd-even": {"routing": "odd-even"},
    "4 VC xy": {"virtual_channels": 4},
}
PEERS = (
    ("BaseJump bsg_mesh_router (single flits only)", 13.2, 2.63), ("OpenPiton dynamic_node", 15.7, 3.84),
    ("FlooNoC", 15.4, 3.86), ("RaveNoC 1 VC", 17.4, 4.28), ("RaveNoC 2 VC", 31.4, 5.18), ("ProNoC 1 VC", 19.0, 2.67),
    ("ProNoC 2 VC", 34.1, 3.29),
)


def router_verilog(mesh: int, **change) -> str:
    """Verilog of a router of a mesh x mesh network, top module `router`."""
    knobs = {"width": mesh, "height": mesh, "flit_bits": 64, "buffer_flits": 4, "multicast": False, "sides": SIDES,
             "host": False}
    return "".join(module_files({"router": Router(**(knobs | change))}).values())


def measure(verilog: str, liberty: Path) -> tuple[float, float | None]:
    """(kGE, cycle in ns) of a router; no cycle without OpenSTA."""
    with tempfile.TemporaryDirectory() as folder:
        mapped = map_cells(verilog, "router", liberty, Path(folder))
    kge = mapped.area / read_liberty(liberty).gate_area / 1000
    return kge, cycle_of_pair(mapped.netlist, "router", liberty) if shutil.which("sta") else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--liberty", default=OSU018)
    parser.add_argument("--mesh", type=int, default=8, help="columns and rows: they decide the width of coordinates")
    parser.add_argument("--only", default="", help="configurations whose name contains this")
    options = parser.parse_args()
    liberty = check_liberty(options.liberty)
    print(f"{'router':<46}{'kGE':>7}{'ns':>7}")
    for name, change in CONFIGURATIONS.items():
        if options.only in name:
            kge, cycle = measure(router_verilog(options.mesh, **change), liberty)
            print(f"{name:<46}{kge:>7.2f}{f'{cycle:.2f}' if cycle else '-':>7}", flush=True)
    for name, kge, cycle in PEERS:
        print(f"{name:<46}{kge:>7.1f}{cycle:>7.2f}")


if __name__ == "__main__":
    main()

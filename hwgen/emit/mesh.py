"""The routers of a design as a mesh of their own, with every local port brought out."""

from hwgen.design import Design
from hwgen.emit.chip import SIDES, address_bits
from hwgen.emit.templates import render
from hwgen.emit.verilog import module_files
from hwgen.rtl.router import Router


def mesh_files(design: Design) -> dict[str, str]:
    """Verilog of the mesh, top module `mesh`: {"NAME.v": text}. The host's port of router (0, 0) is left open.

    Ports, by node number y * width + x: `in_*` into the routers, `out_*` out of them; a virtual channel's index has
    at least one bit, a credit has one bit for each channel; `fault` of each router.
    """
    router = Router(
        width=design.width, height=design.height, flit_bits=design.flit_bits, buffer_flits=design.buffer_flits,
        multicast=design.multicast,
    )
    return module_files({"router": router}) | {"mesh.v": _mesh_text(design)}


def _mesh_text(design):
    x_bits, y_bits = address_bits(design.width), address_bits(design.height)
    nodes = [
        {"x": f"{x_bits}'d{x}", "y": f"{y_bits}'d{y}", "at": f"{x}_{y}",
         "sides": [(side, *_links(design, x, y, step)) for side, step in SIDES.items()]}
        for y in range(design.height) for x in range(design.width)
    ]
    return render(
        "mesh.v.j2", width=design.width, height=design.height, flit_bits=design.flit_bits, nodes=nodes,
        channels=design.virtual_channels, vc_bits=address_bits(design.virtual_channels),
        links=[source for node in nodes for _, source, _ in node["sides"] if source],
    )


def _links(design, x, y, step):
    """(link in, link out) of one side of a node, None at the edge of the mesh."""
    far_x, far_y = x + step[0], y + step[1]
    if not (0 <= far_x < design.width and 0 <= far_y < design.height):
        return None, None
    return f"n_{far_x}_{far_y}_{x}_{y}", f"n_{x}_{y}_{far_x}_{far_y}"

"""The routers of a design as a mesh of their own, with every local port brought out."""

from hwgen.design import Design
from hwgen.emit.chip import SIDES, address_bits
from hwgen.emit.routers import router_name, routers
from hwgen.emit.templates import render
from hwgen.emit.verilog import module_files
from hwgen.rtl.link import LinkRegister

LINK_REGISTERS = (0, 1, 2)


def mesh_files(design: Design, link_registers: int = 0) -> dict[str, str]:
    """Verilog of the mesh, top module `mesh`: {"NAME.v": text}. The host's port of router (0, 0) is left open.

    `link_registers` is the number of register stages on every link between routers. Raises ValueError if there is no
    such number.

    Ports, by node number y * width + x: `in_*` into the routers, `out_*` out of them; a virtual channel's index has
    at least one bit, a credit has one bit for each channel; `fault` of each router.
    """
    if link_registers not in LINK_REGISTERS:
        raise ValueError(f"Link registers must be 0, 1 or 2, not {link_registers!r}")
    modules = routers(
        width=design.width, height=design.height, flit_bits=design.flit_bits, buffer_flits=design.buffer_flits,
        multicast=design.multicast, virtual_channels=design.virtual_channels, routing=design.routing,
    )
    if link_registers:
        modules["link_register"] = LinkRegister(flit_bits=design.flit_bits, virtual_channels=design.virtual_channels)
    return module_files(modules) | {"mesh.v": _mesh_text(design, link_registers)}


def _mesh_text(design, link_registers):
    x_bits, y_bits = address_bits(design.width), address_bits(design.height)
    nodes = [
        {"x": f"{x_bits}'d{x}", "y": f"{y_bits}'d{y}", "at": f"{x}_{y}",
         "router": router_name(design.width, design.height, x, y), "host": (x, y) == (0, 0),
         "sides": [(side, *links) for side, step in SIDES.items() if (links := _links(design, x, y, step))]}
        for y in range(design.height) for x in range(design.width)
    ]
    return render(
        "mesh.v.j2", width=design.width, height=design.height, flit_bits=design.flit_bits, nodes=nodes,
        stages=link_registers, channels=design.virtual_channels, vc_bits=address_bits(design.virtual_channels),
        links=[source for node in nodes for _, source, _ in node["sides"]],
    )


def _links(design, x, y, step):
    """(link in, link out) of one side of a node, None at the edge of the mesh."""
    far_x, far_y = x + step[0], y + step[1]
    if not (0 <= far_x < design.width and 0 <= far_y < design.height):
        return None
    return f"n_{far_x}_{far_y}_{x}_{y}", f"n_{x}_{y}_{far_x}_{far_y}"

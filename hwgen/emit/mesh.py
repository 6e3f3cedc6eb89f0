"""The routers of a design as a mesh of their own, with every local port brought out."""

from hwgen.design import Design
from hwgen.emit.chip import address_bits, link_stages, mesh_components, sides_and_links
from hwgen.emit.routers import router_name
from hwgen.emit.templates import render
from hwgen.emit.verilog import module_files


def mesh_files(design: Design) -> dict[str, str]:
    """Verilog of the mesh, top module `mesh`: {"NAME.v": text}. The host's port of router (0, 0) is left open.

    Ports, by node number y * width + x: `in_*` into the routers, `out_*` out of them; a virtual channel's index has
    at least one bit, a credit has one bit for each channel; `fault` of each router.
    """
    return module_files(mesh_components(design)) | {"mesh.v": _mesh_text(design)}


def _mesh_text(design):
    x_bits, y_bits = address_bits(design.width), address_bits(design.height)
    nodes = [
        {"x": f"{x_bits}'d{x}", "y": f"{y_bits}'d{y}", "at": f"{x}_{y}",
         "router": router_name(design.width, design.height, x, y), "host": (x, y) == (0, 0),
         "sides": sides_and_links(design, x, y, host=False)}
        for y in range(design.height) for x in range(design.width)
    ]
    return render(
        "mesh.v.j2", width=design.width, height=design.height, flit_bits=design.flit_bits, nodes=nodes,
        channels=design.virtual_channels, vc_bits=address_bits(design.virtual_channels), stages=link_stages(design),
    )

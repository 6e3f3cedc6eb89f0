# amaranth: UnusedElaboratable=no
"""A whole chip as files: tiles, routers and host port from Amaranth, memories, nodes and the top from templates."""

from dataclasses import dataclass

from hwgen.compiler.words import rom_word_bytes, word_bytes
from hwgen.emit.routers import router_name, routers
from hwgen.emit.templates import render
from hwgen.emit.verilog import module_files
from hwgen.rtl.axi_lite_registers import AXI_LITE_PORTS
from hwgen.rtl.host_port import FIFO_WORDS, HostPort
from hwgen.rtl.link import LinkRegister
from hwgen.rtl.tile import Tile

NETWORK = ("width", "height", "flit_bits", "virtual_channels", "buffer_flits", "routing", "multicast")
"""What every part of the network is made with, by its name in ChipSpec and Design."""
SIDES = {"north": (0, -1), "east": (1, 0), "south": (0, 1), "west": (-1, 0)}

@dataclass(frozen=True)
class TileKind:
    """Hardware of one tile class, memories included."""

    name: str
    """Lower-case word; the modules are `node_NAME` and `tile_NAME`."""
    fetch: int
    stations: int
    vlen: int
    lanes: int
    imem_words: int
    """Depth of the program ROM in words of `fetch` instructions."""
    vmem_rows: int
    """Depth of the vector memory in rows of `lanes` words."""
    xmem_words: int
    kvmem_words: int
    rom_words: int
    """Depth of the largest weight ROM in the class; it fixes the width of the address."""
    weights: str = "mxint8"
    """Format that the weight ROM is made for: mxint8, or mxfp4 where some of its words hold 4-bit codes."""

    @property
    def program_width(self) -> int:
        """Bits of a program word."""
        return self.fetch * 128

    @property
    def vmem_width(self) -> int:
        """Bits of a vector memory row."""
        return self.lanes * 32

    @property
    def word_width(self) -> int:
        """Bits of an MX word: `vlen` elements and their scales."""
        return word_bytes(self.vlen) * 8

    @property
    def rom_width(self) -> int:
        """Bits of a weight-ROM word."""
        return rom_word_bytes(self.vlen, self.weights) * 8

    @property
    def imem_address(self) -> int:
        return address_bits(self.imem_words)

    @property
    def vmem_address(self) -> int:
        return address_bits(self.vmem_rows)

    @property
    def xmem_address(self) -> int:
        return address_bits(self.xmem_words)

    @property
    def kvmem_address(self) -> int:
        return address_bits(self.kvmem_words)

    @property
    def rom_address(self) -> int:
        return address_bits(self.rom_words)


def address_bits(depth: int) -> int:
    """Address width of a memory; a memory of no words has a port, too."""
    return max(1, (depth - 1).bit_length())


@dataclass(frozen=True)
class TilePlace:
    """One node: its class and the depth of its weight ROM (0: none)."""

    x: int
    y: int
    kind: int
    rom_words: int


@dataclass(frozen=True)
class ChipSpec:
    """Everything the Verilog of a chip depends on."""

    width: int
    height: int
    flit_bits: int
    buffer_flits: int
    multicast: bool
    virtual_channels: int
    routing: str
    address_bits: int
    """Width of the word address in a message header."""
    context: int
    vocab: int
    signature: int
    """CRC-32 of the integer graph."""
    grant_order: tuple[tuple[int, int, int], ...]
    """(x, y, head rows) of the tiles that hold head rows, in the order of their rows."""
    kinds: tuple[TileKind, ...]
    tiles: tuple[TilePlace, ...]
    """All nodes, row by row."""
    link_registers: int = 0
    """Stages of registers on every link between routers."""
    port_flits: tuple[tuple[str, int], ...] = ()
    """(router port, depth of its buffers) where it is more than `buffer_flits`."""
    grant_address: int = 0
    """Word of every tile's vector memory that a grant message overwrites."""
    streams: int = 1
    """Sequences in flight."""

    @property
    def network(self) -> dict:
        """What every part of the network is made with."""
        return {name: getattr(self, name) for name in NETWORK}

    @staticmethod
    def rom_image(x: int, y: int) -> str:
        """Path of a tile's weight image, relative to the chip's folder."""
        return f"rom/tile_{x}_{y}.hex"

    @staticmethod
    def program_image(x: int, y: int) -> str:
        """Path of a tile's program image, relative to the chip's folder."""
        return f"program/tile_{x}_{y}.hex"


def tile_component(kind: TileKind, **network) -> Tile:
    """The tile core of a class in a network (the parameters of `PacketFormat`)."""
    return Tile(
        fetch=kind.fetch, stations=kind.stations, vlen=kind.vlen, lanes=kind.lanes, weights=kind.weights,
        rom_address_bits=kind.rom_address, imem_address_bits=kind.imem_address, vmem_address_bits=kind.vmem_address,
        x_address_bits=kind.xmem_address, kv_address_bits=kind.kvmem_address, **network,
    )


def components(spec: ChipSpec) -> dict:
    """Module name -> component of everything that Amaranth writes, but for the parts those place themselves."""
    addressed = spec.network | {"address_bits": spec.address_bits, "streams": spec.streams}
    host = HostPort(
        **addressed, context=spec.context, vocab=spec.vocab, signature=spec.signature,
        grant_order=spec.grant_order, grant_address=spec.grant_address,
    )
    tiles = {f"tile_{kind.name}": tile_component(kind, **addressed) for kind in spec.kinds}
    return {**mesh_components(spec), "host_port": host, **tiles}


def mesh_components(mesh) -> dict:
    """Module name -> component of routers and the registers between them; `mesh` is a ChipSpec or a Design."""
    modules = routers(**{name: getattr(mesh, name) for name in NETWORK}, port_flits=dict(mesh.port_flits))
    if mesh.link_registers:
        modules["link_register"] = LinkRegister(flit_bits=mesh.flit_bits, virtual_channels=mesh.virtual_channels)
    return modules


def chip_files(spec: ChipSpec) -> dict[str, str]:
    """All Verilog of a chip, its file list and its lint waivers: {path: text}."""
    amaranth = module_files(components(spec))
    modules = amaranth | {"rom.v": render("rom.v.j2"), "sram.v": render("sram.v.j2")}
    modules |= {
        f"node_{kind.name}.v": render(
            "node.v.j2", kind=kind, flit_bits=spec.flit_bits, channels=spec.virtual_channels)
        for kind in spec.kinds}
    files = {f"rtl/{name}": modules[name] for name in sorted(modules)}
    files["rtl/chip.v"] = chip_text(spec)
    file_list = "".join(f"{path}\n" for path in files)
    return {**files, "filelist.f": file_list, "lint.vlt": lint_waivers(amaranth, chip=True)}


def lint_waivers(amaranth, chip: bool = False) -> str:
    """Verilator's configuration file for files that Amaranth wrote, and for the top."""
    return render("lint.vlt.j2", amaranth=sorted(amaranth), chip=chip)


def chip_text(spec: ChipSpec) -> str:
    """The top module, every node and link spelled out."""
    x_bits, y_bits = address_bits(spec.width), address_bits(spec.height)
    tiles = [
        {
            "x": f"{x_bits}'d{place.x}", "y": f"{y_bits}'d{place.y}", "at": f"{place.x}_{place.y}",
            "kind": spec.kinds[place.kind], "rom_words": place.rom_words,
            "program": spec.program_image(place.x, place.y), "rom": spec.rom_image(place.x, place.y),
            "router": router_name(spec.width, spec.height, place.x, place.y),
            "sides": sides_and_links(spec, place.x, place.y, host=True),
        }
        for place in spec.tiles
    ]
    links = ["host_0_0", "n_0_0_host", *(f"{way}_{tile['at']}" for tile in tiles for way in ("to", "from"))]
    stages = link_stages(spec)
    links += [name for names in stages for name in names]
    axi = [f"s_axi_{name}" for name in AXI_LITE_PORTS]
    axi += [f"{side}_axis_t{name}" for side in "sm" for name in ("data", "valid", "last", "ready")]
    axi += ["m_axis_tid"] if spec.streams > 1 else []
    return render(
        "chip.v.j2", spec=spec, tiles=tiles, links=links, stages=stages, axi=axi, fifo_words=FIFO_WORDS,
        fifo_address=address_bits(FIFO_WORDS), channels=spec.virtual_channels,
    )


def sides_and_links(mesh, x: int, y: int, host: bool) -> list[tuple[str, str, str]]:
    """(side, wires in, wires out) of a router; `mesh` is a ChipSpec or a Design; `host` adds the host port."""
    found = []
    for side, (dx, dy) in SIDES.items():
        far_x, far_y = x + dx, y + dy
        if 0 <= far_x < mesh.width and 0 <= far_y < mesh.height:
            last = f"_{mesh.link_registers}" if mesh.link_registers else ""
            found.append((side, f"n_{far_x}_{far_y}_{x}_{y}{last}", f"n_{x}_{y}_{far_x}_{far_y}"))
        elif host and (far_x, far_y) == (-1, 0):
            found.append((side, "host_0_0", "n_0_0_host"))
    return found


def link_stages(mesh) -> list[list[str]]:
    """Wires of every link between routers from its sender on; a register stands between one and the next."""
    names = [out for y in range(mesh.height) for x in range(mesh.width)
             for _, _, out in sides_and_links(mesh, x, y, host=False)]
    return [[name, *(f"{name}_{stage}" for stage in range(1, mesh.link_registers + 1))] for name in names]

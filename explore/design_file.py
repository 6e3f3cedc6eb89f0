"""Design files as `hwgen generate` reads them."""

from hwgen.design import CHIP_RULES, SHARES, Design, TileClass


def design_yaml(design: Design, comments: tuple[str, ...] = ()) -> str:
    """YAML that `hwgen.design.parse_design` reads back as the same design; `comments` come first, a line each."""
    lines = [f"# {line}" for line in comments]
    lines += [f"{name}: {_word(getattr(design, name))}" for name in CHIP_RULES]
    if design.port_flits:
        depths = ", ".join(f"{port}: {depth}" for port, depth in design.port_flits)
        lines.append(f"port_flits: {{{depths}}}")
    lines.append("tiles:")
    for index, tile in enumerate(design.classes):
        lines.append(f"  - name: {tile.name}")
        if index:
            places = ", ".join(f'"{place}"' for place in rectangles(design, index))
            lines.append(f"    at: [{places}]")
        lines += [f"    {name}: {_word(value)}" for name, value in _knobs(tile).items()]
    return "\n".join(lines) + "\n"


def _knobs(tile: TileClass) -> dict:
    sizes = {name: getattr(tile, name) for name in ("fetch", "stations", "vlen", "lanes")}
    memories = {name: getattr(tile, name) or "auto" for name in ("dmem_kib", "imem_kib", "wmem_kib")}
    shares = ", ".join(f"{name}: {share:g}" for name, share in zip(SHARES, tile.shares, strict=True))
    return sizes | memories | {"shares": f"{{{shares}}}"}


def _word(value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def rectangles(design: Design, index: int) -> list[str]:
    """The nodes of a class as rectangles "x0,y0-x1,y1", each as wide and then as high as it goes."""
    left = {n for n, k in enumerate(design.node_class) if k == index}
    width, places = design.width, []
    for n in sorted(left):
        if n not in left:
            continue
        x, y = n % width, n // width
        x1 = x
        while x1 + 1 < width and y * width + x1 + 1 in left:
            x1 += 1
        y1 = y
        while all((y1 + 1) * width + i in left for i in range(x, x1 + 1)):
            y1 += 1
        left -= {j * width + i for j in range(y, y1 + 1) for i in range(x, x1 + 1)}
        places.append(f"{x},{y}" if (x, y) == (x1, y1) else f"{x},{y}-{x1},{y1}")
    return places

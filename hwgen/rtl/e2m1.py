"""E2M1 codes to the multiplier's operands."""

from amaranth.hdl import C, Cat, Signal


def e2m1_elements(m, codes):
    """int8 elements, sixteen times the numbers of 4-bit `codes` (`hwgen.arithmetic.mxfp4.decode`), combinational.

    Equal bits of all codes lie side by side in one signal, so that the logic is described once for all.
    """
    count = len(codes) // 4
    low, middle, high, sign = (Signal(count, name=f"code_{j}") for j in range(4))
    m.d.comb += [plane.eq(Cat(codes[4 * i + j] for i in range(count))) for j, plane in
                 enumerate((low, middle, high, sign))]
    # twice the number: 0, 1, 2, 3 (the code itself), 4, 6, 8, 12
    size = [low & ~high, (middle & ~high) | (high & ~middle & low), high & (~middle | low), high & middle]
    # bits 0 to 2 of an element are 0; a negative one's are inverted above the lowest 1
    element, below = [C(0, count)] * 3, C(0, count)
    for j, bit in enumerate(size):
        element.append(Signal(count, name=f"element_{3 + j}"))
        m.d.comb += element[-1].eq(bit ^ (sign & below))
        below = below | bit
    element.append(Signal(count, name="element_7"))
    m.d.comb += element[-1].eq(sign & below)
    return Cat(Cat(plane[i] for plane in element) for i in range(count))

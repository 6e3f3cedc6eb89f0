"""Sum of many bits of known weight by full adders, the earliest bits first."""

from heapq import heapify, heappop, heappush

from amaranth.hdl import Signal


def add_columns(m, columns, width):
    """`width` values, one a weight, least significant first: the sum of all bits modulo 2^width.

    `columns[j]` lists (arrival, value) of weight 2^j. A value may be many bits wide: its bits belong to independent
    sums that lie side by side. Arrivals are in gate delays and only decide the order, so that the tree is shallow.
    """
    heaps = [[(time, order, value) for order, (time, value) in enumerate(columns[j] if j < len(columns) else [])]
             for j in range(width)]
    totals = []
    for j, heap in enumerate(heaps):
        heapify(heap)
        order = len(heap) + 1000 * j
        while len(heap) > 1:
            inputs = [heappop(heap) for _ in range(min(3, len(heap)))]
            total, carry = _adder(m, [value for _, _, value in inputs])
            time = max(inputs[-1][0] + 1, inputs[1][0] + 2)
            order += 1
            heappush(heap, (time, order, total))
            if j + 1 < width:
                heappush(heaps[j + 1], (time, order, carry))
        totals.append(heap[0][2])
    return totals


def _adder(m, inputs):
    """(sum, carry) of two or three values, the last one the latest."""
    half, carry = Signal(len(inputs[0])), Signal(len(inputs[0]))
    m.d.comb += half.eq(inputs[0] ^ inputs[1])
    if len(inputs) == 2:
        m.d.comb += carry.eq(inputs[0] & inputs[1])
        return half, carry
    total = Signal.like(half)
    m.d.comb += [total.eq(half ^ inputs[2]), carry.eq((inputs[0] & inputs[1]) | (inputs[2] & half))]
    return total, carry

"""Benches that drive an emitted chip through its AXI ports."""

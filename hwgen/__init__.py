"""hwgen turns a transformer checkpoint into a chip: Verilog, weight ROMs, programs and benches."""

__version__ = "0.1.0"

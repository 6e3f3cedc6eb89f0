"""The one law of numbers: rounding, saturation, microscaling and tables, each defined once.

The integer reference, the emulator and every hardware component's `.model()` call these functions, so
"bit-exact" has a single meaning. All functions take and return NumPy int64 arrays unless stated.
"""

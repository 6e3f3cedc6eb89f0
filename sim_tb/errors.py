"""The one error class of the benches; whoever runs one prints its sentence."""


class SimulatorError(Exception):
    """One sentence: a simulator is missing, refuses the chip, or stopped without an answer."""

"""From an integer graph and a design to placed matrices, memory maps and programs."""

"""The network without its hardware: which ways packets may take, and the proof that they arrive and never lock up."""

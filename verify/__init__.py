"""Proofs about the network's hardware: laws as Amaranth harnesses, engines that prove them. `python -m formal`."""

"""The network's hardware held to its laws: proven (`python -m verify`), and in simulation, where mutants of the router
show that the bench would notice (`python -m verify.mutants`)."""

"""Prove the laws of the network's hardware and print the table: python -m verify [--jobs 2] [--only WORD]."""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from verify.proofs import all_proofs
from verify.prove import prove

_LINE = "{:<62}{:<54}{:<8}{:<30}{:>5}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split(":")[0])
    parser.add_argument("--jobs", type=int, default=2, help="proofs at a time")
    parser.add_argument("--only", default="", help="proofs whose law or configuration contains this")
    options = parser.parse_args()
    proofs = [p for p in all_proofs() if options.only in f"{p.law}; {p.configuration}"]
    print(_LINE.format("law", "configuration", "engine", "verdict", "s"))
    broken = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for proof, verdict in zip(proofs, pool.map(prove, proofs), strict=True):
            word = verdict.extent if verdict.holds else f"NOT PROVEN: {verdict.extent}"
            print(_LINE.format(proof.law, proof.configuration, proof.engine, word, round(verdict.seconds)), flush=True)
            broken += not verdict.holds
    print(f"{len(proofs) - broken} of {len(proofs)} laws hold")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())

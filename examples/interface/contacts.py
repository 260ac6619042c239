"""Residue pairs of two chains with heavy atoms within 5.5 Å of each other, as a table."""

import sys
from itertools import product

import gemmi

CUTOFF = 5.5
"""Å; the distance that PRODIGY (Xue et al. 2016) counts as an intermolecular contact."""


def heavy_atoms(residue: gemmi.Residue) -> list[gemmi.Atom]:
    """Return all atoms except hydrogens."""
    return [atom for atom in residue if not atom.is_hydrogen()]


def distance(first: gemmi.Residue, second: gemmi.Residue) -> float:
    """Return the smallest distance between heavy atoms of two residues, in Å."""
    pairs = product(heavy_atoms(first), heavy_atoms(second))
    return min(one.pos.dist(other.pos) for one, other in pairs)


def main(path: str, first: str, second: str) -> None:
    """Write the table to standard output: a header, then one line for each pair."""
    model = gemmi.read_structure(path)[0]
    sys.stdout.write("residue_1\tresidue_2\tdistance\n")
    for one, other in product(model[first].get_polymer(), model[second].get_polymer()):
        apart = distance(one, other)
        if apart <= CUTOFF:
            left, right = f"{first}:{one.name}{one.seqid}", f"{second}:{other.name}{other.seqid}"
            sys.stdout.write(f"{left}\t{right}\t{apart:.2f}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

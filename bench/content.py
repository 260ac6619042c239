"""Content of large jobs, generated without a large file."""

import random

TEXT_BLOCK_BYTES = 4 << 20


def text_block(size: int = TEXT_BLOCK_BYTES) -> bytes:
    """Return a block of text like that of a PDB file: columns of names and numbers.

    A large file repeats this block. Deflate searches 32 KiB back, so it finds no more matches than
    in a file that never repeats.
    """
    chance = random.Random(0)  # noqa: S311
    lines: list[str] = []
    for number in range(size // 81 + 1):
        x, y, z, factor = (chance.uniform(-99, 99) for _ in range(4))
        name, residue = chance.choice(("N", "CA", "C", "O", "CB")), chance.choice(("LEU", "GLY"))
        lines.append(
            f"ATOM  {number % 99999:5d}  {name:<3} {residue} A{number // 8 % 9999:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00{factor:6.2f}           {name[0]}  \n"
        )
    return "".join(lines).encode()[:size]

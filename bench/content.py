"""Content of large input files, generated from one block."""

import random

TEXT_BLOCK_BYTES = 4 << 20


def text_block(size: int = TEXT_BLOCK_BYTES) -> bytes:
    """Generate text in the format of a PDB file: columns of names and numbers.

    A large file repeats this block. The repetition does not help Deflate, whose window is 32 KiB.
    """
    rng = random.Random(0)  # noqa: S311
    lines: list[str] = []
    for number in range(size // 81 + 1):
        x, y, z, factor = (rng.uniform(-99, 99) for _ in range(4))
        name, residue = rng.choice(("N", "CA", "C", "O", "CB")), rng.choice(("LEU", "GLY"))
        lines.append(
            f"ATOM  {number % 99999:5d}  {name:<3} {residue} A{number // 8 % 9999:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}  1.00{factor:6.2f}           {name[0]}  \n"
        )
    return "".join(lines).encode()[:size]

"""Output codes: more units than classes, so that most answers of the units are no class (Dietterich & Bakiri 1995)."""

UNITS = 15


def codes(classes: int) -> tuple[tuple[int, ...], ...]:
    """The words of the first classes, up to 15, in the simplex code of 15 places: any two of them differ in 8.

    Place j of word i is the parity of the bits that i and j have in common, both counted from 1. The words that no
    class has are as far from all those that a class has.
    """
    return tuple(
        tuple((word & place).bit_count() % 2 for place in range(1, UNITS + 1)) for word in range(1, classes + 1)
    )

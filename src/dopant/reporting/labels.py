"""Places for labels beside lines and points, so that none lies on another."""

from __future__ import annotations

from collections.abc import Sequence


def apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions at least `gap` apart, between `low` and `high`, as near to `wanted` as the squares allow.

    Labels that collide form a block which sits at the mean of where its members want to be (pool adjacent
    violators). Where the labels cannot fit, they share the room evenly.
    """
    if len(wanted) * gap > high - low + gap:
        gap = (high - low) / max(1, len(wanted) - 1)
    order = sorted(range(len(wanted)), key=lambda index: (wanted[index], index))
    blocks: list[tuple[float, int]] = []  # (mean of the members' wishes less their offsets, how many)
    for rank, index in enumerate(order):
        offset = rank * gap
        blocks.append((min(max(wanted[index] - offset, low - offset), high - offset), 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (mean, many), (last, more) = blocks[-2], blocks[-1]
            blocks[-2:] = [((mean * many + last * more) / (many + more), many + more)]
    placed = [0.0] * len(wanted)
    rank = 0
    for mean, many in blocks:
        for _ in range(many):
            upper = high - (len(wanted) - 1) * gap
            placed[order[rank]] = min(max(mean, low), upper) + rank * gap
            rank += 1
    return placed

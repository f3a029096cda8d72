"""Nearest matrices of low rank, also of matrices too big for a full decomposition."""

from __future__ import annotations

import torch
from torch import Tensor

from dopant.errors import InputError

_EXACT_SIDE = 512  # up to here a full decomposition in float64 takes a fraction of a second
_EXACT_SHARE = 40  # beyond rank = side / 40 the iteration costs as much as the full decomposition
_FLOAT64_ENTRIES = 1 << 21  # larger matrices are iterated on in float32: half the time, precise enough
_OVERSAMPLING = 8
_KRYLOV_COLUMNS = 192
_CYCLES = 60


@torch.no_grad()
def leading_singular(
    matrix: Tensor, rank: int, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The `rank` largest singular values with their vectors, matrix ≈ U diag(s) Vᵀ.

    Small matrices are decomposed exactly. Large ones go through a restarted block Krylov iteration that stops
    when a cycle adds less than a part in 10^8 of the matrix's energy (the sum of squares) to what is captured.

    Args:
        matrix: (m, n), any floating dtype.
        rank: 1 ... min(m, n).
        generator: draws the start of the iteration; by default the same start each time.

    Returns:
        U (m, rank), s (rank,) in falling order, V (n, rank), in the dtype of `matrix`.

    Raises:
        InputError: `matrix` is no finite matrix, or `rank` is out of its range.

    Source: Musco and Musco, "Randomized block Krylov methods", arXiv 1504.05477, algorithm 2, with restarts.
    """
    _check(matrix, rank)
    side = min(matrix.shape)
    if side <= _EXACT_SIDE or rank * _EXACT_SHARE > side:
        u, s, vh = torch.linalg.svd(matrix.to(_working_dtype(matrix)), full_matrices=False)
        u, s, v = u[:, :rank], s[:rank], vh[:rank].mT
    else:
        u, s, v = _block_krylov(matrix.to(_working_dtype(matrix)), rank, generator)
    return u.to(matrix.dtype).contiguous(), s.to(matrix.dtype), v.to(matrix.dtype).contiguous()


@torch.no_grad()
def nearest_low_rank(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The factors of the matrix of rank at most `rank` that is nearest in the Frobenius norm.

    Args:
        matrix: (m, n), any floating dtype.
        rank: 1 ... min(m, n).

    Returns:
        left (m, rank) and right (rank, n), each carrying the square root of the singular values.

    Raises:
        InputError: `matrix` is no finite matrix, or `rank` is out of its range.

    Source: Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.
    """
    wide = widen(matrix)
    u, s, v = leading_singular(wide, rank)
    scale = s.sqrt()
    return (u * scale).to(matrix.dtype), (v * scale).mT.to(matrix.dtype).contiguous()


def widen(matrix: Tensor) -> Tensor:
    """float16 and bfloat16 as float32, so that what is computed from them is rounded once, at the end."""
    return matrix.float() if matrix.dtype in (torch.float16, torch.bfloat16) else matrix


def _check(matrix: Tensor, rank: int) -> None:
    if matrix.dim() != 2 or not matrix.is_floating_point():
        raise InputError(
            f"expected a floating-point matrix of two dimensions, got {matrix.dtype} {tuple(matrix.shape)}"
        )
    if not 1 <= rank <= min(matrix.shape):
        rows, columns = matrix.shape
        raise InputError(f"rank {rank} does not fit a {rows}×{columns} matrix; give 1 to {min(matrix.shape)}")
    if not bool(torch.isfinite(matrix).all()):
        raise InputError("the matrix holds NaN or infinite entries; a fit needs finite ones")


def _working_dtype(matrix: Tensor) -> torch.dtype:
    if matrix.dtype == torch.float64 or matrix.numel() <= _FLOAT64_ENTRIES:
        return torch.float64
    return torch.float32


def _block_krylov(matrix: Tensor, rank: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    # Plain subspace iteration needs hundreds of passes over a matrix of flat spectrum (random W, rearranged);
    # the Krylov space of the same products converges with the square root of that.
    if generator is None:
        generator = torch.Generator(device="cpu").manual_seed(0)
    columns = matrix.shape[1]
    block = min(rank + _OVERSAMPLING, *matrix.shape)
    depth = max(1, min(_KRYLOV_COLUMNS, min(matrix.shape) // 2) // block)
    energy = float(matrix.square().sum(dtype=torch.float64))
    rounding = 2 * torch.finfo(matrix.dtype).eps
    start = torch.randn(columns, block, generator=generator, device=generator.device, dtype=matrix.dtype)
    right = start.to(matrix.device)
    captured = -1.0
    for _ in range(_CYCLES):
        basis = torch.linalg.qr(right)[0]
        image = matrix @ basis
        images = [image]
        for _ in range(depth):
            # Householder QR of old and new columns together is orthonormal even if the new add no direction
            wider = torch.linalg.qr(torch.cat([basis, matrix.mT @ image], dim=1))[0]
            fresh = wider[:, basis.shape[1] :]
            basis = torch.cat([basis, fresh], dim=1)
            image = matrix @ fresh
            images.append(image)
        left, triangle = torch.linalg.qr(torch.cat(images, dim=1))
        u, s, vh = torch.linalg.svd(triangle)
        right = basis @ vh[:block].mT
        found = float(s[:rank].square().sum(dtype=torch.float64))
        if found - captured <= 1e-8 * energy + rounding * found:
            break
        captured = found
    return left @ u[:, :rank], s[:rank], right[:, :rank]

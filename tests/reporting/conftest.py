"""A report that never happened, but could have: the small model on docstrings, every method at 25x."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from dopant.reporting.records import Machine, Versions
from dopant.reporting.report import CurvePoint, PathPoint, Protocol, Report, Row, Tokens, WeightLine

DENSE_PARAMETERS = 2 * 1024 * 512
DENSE_BYTES = 4 * DENSE_PARAMETERS
OTHER = 2 * 4538 * 256 + 4538 + 2 * 1024

#        method, label, test perplexity, parameters, bytes, non-zeros, seconds
METHODS = [
    ("dense", "Dense", 41.29, DENSE_PARAMETERS, DENSE_BYTES, 0, 38.2),
    ("pruning", "Pruning", 44.49, 41943, 84_120, 41943, 41.0),
    ("lmf", "Low-rank factorisation (LMF)", 50.02, 41472, 47_616, 0, 36.1),
    ("hmd", "Hybrid decomposition (HMD)", 48.31, 41984, 48_100, 0, 37.7),
    ("hmf", "Hybrid factorisation (HMF)", 47.77, 41600, 47_900, 0, 37.0),
    ("kronecker", "Kronecker", 53.6, 3072, 3_840, 0, 33.8),
    ("hybrid-kronecker", "Hybrid Kronecker", 49.05, 41900, 47_800, 0, 37.2),
    ("doped-kronecker", "Doped Kronecker", 42.4, 41943, 82_010, 38871, 52.9),
    ("doped-kronecker-cmr", "Doped Kronecker, co-matrix dropout", 43.1, 41943, 82_010, 38871, 54.4),
    ("doped-lmf", "Doped LMF", 43.3, 41943, 81_050, 38_800, 51.2),
    ("doped-hmd", "Doped HMD", 43.05, 41943, 81_060, 38_700, 51.9),
]
EPOCHS = 10
TOKENS = 349_184


def make_protocol(**changes: object) -> Protocol:
    settings: dict[str, object] = {
        "command": "dopant compare --corpus python-docs --model tiny --target 25x --count parameters "
        "--seed 1 --out runs/demo",
        "commit": "58c8ea7d2f1b4a60c7c0a1b2c3d4e5f60718293a",
        "dirty": False,
        "versions": Versions(dopant="0.1.0", python="3.11.2", torch="2.13.0+cpu", numpy="2.4.6"),
        "machine": Machine(
            cpu="Intel(R) Xeon(R) Processor",
            cores=2,
            memory_bytes=25_200_000_000,
            os="Debian GNU/Linux 12 (bookworm)",
            threads=2,
        ),
        "seed": 1,
        "time": "2026-11-22T14:51:16+00:00",
        "seconds": 431.7,
        "model": "tiny",
        "corpus": "python-docs",
        "checksum": "9f2c" * 16,
        "source": {"python": "3.11.2"},
        "tokens": Tokens(train=TOKENS, valid=38_702, test=39_115),
        "vocabulary": 4538,
        "batch": 20,
        "unroll": 35,
        "state_carried": True,
        "valid_batch": 20,
        "test_batch": 1,
        "epochs": EPOCHS,
        "optimiser": "SGD, learning rate 1.0, halved from epoch 7",
        "target": "25x",
        "count": "parameters",
        "scope": "lstm",
        "storage": "int8 values, gaps indices",
    }
    return Protocol.model_validate({**settings, **changes})


def make_row(method: str, label: str, test: float, parameters: int, stored: int, nonzeros: int, seconds: float) -> Row:
    dense = METHODS[0][2]
    structures = {"dense": "dense", "pruning": f"{nonzeros // 2:,} non-zeros"}
    structure = structures.get(
        method, f"32×16 ⊗ 32×32 + {nonzeros // 2:,} non-zeros" if nonzeros else "left 1024×13, right 13×512"
    )
    return Row(
        method=method,
        label=label,
        parameters=parameters,
        parameter_factor=DENSE_PARAMETERS / parameters,
        stored_bytes=stored,
        byte_factor=DENSE_BYTES / stored,
        file_bytes=stored + 4 * OTHER + 3_000,
        model_parameters=parameters + OTHER,
        model_bytes=stored + 4 * OTHER,
        nonzeros=nonzeros,
        perplexity_valid=test * 1.043,
        perplexity_test=test,
        loss_percent=None if method == "dense" else 100 * (test / dense - 1),
        train_seconds=seconds,
        folder=method,
        weights=tuple(
            WeightLine(
                name=f"lstm.weight_l{layer}",
                shape=(1024, 512),
                structure=structure,
                parameters=parameters // 2,
                nonzeros=nonzeros // 2,
                macs=parameters // 2,
                stored_bytes=stored // 2,
            )
            for layer in range(2)
        ),
        curves=tuple(make_curve(test)),
        paths=tuple(make_paths(test)) if method.startswith("doped") else (),
    )


def make_curve(end: float) -> list[CurvePoint]:
    return [
        CurvePoint(
            epoch=epoch,
            tokens=epoch * TOKENS,
            train_perplexity=round(end * (0.62 + 4.2 * math.exp(-0.55 * epoch)), 3),
            valid_perplexity=round(end * 1.043 * (1 + 3.1 * math.exp(-0.6 * epoch)), 3),
        )
        for epoch in range(1, EPOCHS + 1)
    ]


def make_paths(end: float) -> list[PathPoint]:
    points = []
    for step in range(0, 5001, 250):
        share = step / 5000
        density = 1.0 if share < 0.1 else 0.037 + 0.963 * max(0.0, 1 - (share - 0.1) / 0.4) ** 3
        together = end * (1 + 6 * math.exp(-6 * share))
        points.append(
            PathPoint(
                step=step,
                structure_norm=round(4 + 9 * share**0.5, 4),
                overlay_norm=round(3 + 11 * density * share**0.3 + 4 * share, 4),
                density=round(density, 4),
                valid_perplexity=round(together, 4),
                valid_without_structure=round(together * (1.2 + 8 * share), 4),
                valid_without_overlay=round(together * (1.1 + 3.5 * density), 4),
            )
        )
    return points


def make_report(**changes: object) -> Report:
    return Report(protocol=make_protocol(**changes), rows=tuple(make_row(*method) for method in METHODS))


@pytest.fixture(scope="session")
def report() -> Report:
    return make_report()


@pytest.fixture(scope="session")
def golden() -> Path:
    """The same report as the first version of the format wrote it."""
    return Path(__file__).parent / "golden" / "report-1.json"

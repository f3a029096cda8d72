"""What torch was told of float32 products on a GPU, in either of its ways, is so again afterwards."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

WAYS = [
    "",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.cudnn.allow_tf32 = False",
    "torch.set_float32_matmul_precision('high')",
    "torch.set_float32_matmul_precision('medium')",
]
if hasattr(torch.backends, "fp32_precision"):
    WAYS += [
        "torch.backends.fp32_precision = 'tf32'",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
        "torch.backends.cudnn.rnn.fp32_precision = 'ieee'",
    ]

PROGRAM = """
import torch
from dopant.ops.precision import matrix_products

def told():
    found = []
    for ask in ("cuda.matmul.allow_tf32", "cudnn.allow_tf32", "cuda.matmul.fp32_precision", "cudnn.rnn.fp32_precision"):
        try:
            found.append(eval("torch.backends." + ask))
        except Exception as error:
            found.append(type(error).__name__)
    try:
        found.append(torch.get_float32_matmul_precision())
    except RuntimeError:
        found.append("RuntimeError")
    return found

{way}
before = told()
for tf32 in (True, False):
    with matrix_products(torch.device("cuda"), tf32=tf32):
        if hasattr(torch.backends, "fp32_precision"):
            of = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.rnn.fp32_precision
            assert of == ("tf32" if tf32 else "ieee",) * 2, of
    assert told() == before, (before, told())
with matrix_products(torch.device("cpu"), tf32=True):
    assert told() == before
"""


@pytest.mark.parametrize("way", WAYS)
def test_settings_are_put_back(way: str) -> None:
    """In a process of its own, as torch tells what was set from what is as it started."""
    done = subprocess.run([sys.executable, "-c", PROGRAM.replace("{way}", way)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

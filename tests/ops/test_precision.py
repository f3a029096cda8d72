"""What torch was told of float32 products on a GPU, in either of its ways, is so again afterwards."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dopant.ops.precision import without_autocast
from dopant.structures import Kronecker, Sparse

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


def products() -> dict[str, Callable[[Tensor], Tensor]]:
    """Each with parameters of its own, in float32."""
    sparse = Sparse(20).new((8, 6))
    kronecker = Kronecker(((2, 3), (4, 2)), terms=2).new((8, 6))
    return {"sparse": sparse.linear, "Kronecker": lambda x: x @ kronecker.to_dense().mT}


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("name", ["sparse", "Kronecker"])
def test_what_autocast_cannot_do_is_kept_from_it(name: str, within: bool) -> None:
    x = torch.randn(5, 6, requires_grad=True)
    product = products()[name]
    want = product(x)
    (want_gradient,) = torch.autograd.grad(want.square().sum(), x)
    with torch.autocast("cpu", torch.bfloat16):
        got = product(x)
        loss = got.float().square().sum()
        if within:
            (gradient,) = torch.autograd.grad(loss, x)
    if not within:
        (gradient,) = torch.autograd.grad(loss, x)
    assert torch.allclose(got.float(), want, atol=0.05, rtol=0.05)
    assert torch.allclose(gradient.float(), want_gradient, atol=0.1, rtol=0.1)


def test_a_device_without_autocast_needs_none() -> None:
    with without_autocast(torch.device("meta")):
        assert Kronecker(((2, 3), (4, 2)), terms=2).new((8, 6)).to("meta").to_dense().shape == (8, 6)

"""Products through oneDNN are torch's own, and only where they were asked for and are worth it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dopant.ops import onednn
from dopant.ops.onednn import fastest_products, linear, mkl_holds_back
from dopant.ops.precision import matrix_products

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="torch is built without oneDNN here",
)
LARGE = (2, 40, 130), (900, 130)


@pytest.fixture
def held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "mkl_holds_back", lambda: True)


@pytest.fixture
def through(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what came to oneDNN."""
    found: list[tuple[int, ...]] = []
    own = Tensor.to_mkldnn

    def noted(x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        found.append(tuple(x.shape))
        return own(x, dtype)  # type: ignore[no-any-return]

    monkeypatch.setattr(Tensor, "to_mkldnn", noted)
    return found


def pair(x: tuple[int, ...], weight: tuple[int, ...], dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(x, dtype=dtype), torch.randn(weight, dtype=dtype)


def test_the_product_and_its_gradients_are_the_same(held_back: None, through: list[tuple[int, ...]]) -> None:
    found = []
    for product in (linear, F.linear):
        x, weight = (t.requires_grad_() for t in pair(*LARGE))
        with fastest_products():
            y = product(x, weight)
            y.add_(1.0)  # as a bias is
            y.square().sum().backward()
        found.append([y.detach(), x.grad, weight.grad])
    assert through == [(2, 40, 130)]
    for ours, theirs in zip(*found, strict=True):
        assert ours is not None
        assert ours.layout == torch.strided
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-2 * float(theirs.abs().mean()))


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_of_both_may_be_frozen(held_back: None, frozen: int) -> None:
    leaves = pair(*LARGE)
    leaves[1 - frozen].requires_grad_()
    with fastest_products():
        linear(*leaves).sum().backward()
    assert leaves[frozen].grad is None
    x, weight = leaves
    expected = x.sum((0, 1)).expand_as(weight) if frozen == 0 else weight.sum(0).expand_as(x)
    torch.testing.assert_close(leaves[1 - frozen].grad, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("x", "weight", "dtype"),
    [
        ((2, 40, 130), (100, 130), torch.float32),
        ((2, 40, 100), (1200, 100), torch.float32),
        ((130,), (90_000, 130), torch.float32),
        ((2, 2, 2, 2, 5, 130), (900, 130), torch.float32),
        ((2, 40, 130), (900, 130), torch.float64),
        ((0, 130), (900, 130), torch.float32),
    ],
    ids=["small", "few inputs", "a vector", "many dimensions", "float64", "nothing"],
)
def test_others_stay_with_torch(
    held_back: None,
    through: list[tuple[int, ...]],
    x: tuple[int, ...],
    weight: tuple[int, ...],
    dtype: torch.dtype,
) -> None:
    with fastest_products():
        assert torch.equal(linear(*pair(x, weight, dtype)), F.linear(*pair(x, weight, dtype)))
    assert through == []


def test_only_within(held_back: None, through: list[tuple[int, ...]]) -> None:
    linear(*pair(*LARGE))
    assert through == []
    with matrix_products(torch.device("cpu"), tf32=True):
        with fastest_products():
            pass
        linear(*pair(*LARGE))
    assert len(through) == 1
    linear(*pair(*LARGE))
    with pytest.raises(ZeroDivisionError), fastest_products():
        raise ZeroDivisionError
    linear(*pair(*LARGE))
    assert len(through) == 1


def test_other_threads_are_left_alone(held_back: None, through: list[tuple[int, ...]]) -> None:
    with fastest_products():
        other = threading.Thread(target=lambda: linear(*pair(*LARGE)))
        other.start()
        other.join()
    assert through == []


def test_autocast_is_left_alone(held_back: None, through: list[tuple[int, ...]]) -> None:
    with fastest_products(), torch.autocast("cpu", torch.bfloat16):
        assert linear(*pair(*LARGE)).dtype == torch.bfloat16
    assert through == []


def test_a_compiler_sees_torchs_own(held_back: None, through: list[tuple[int, ...]]) -> None:
    compiled = torch.compile(linear, backend="eager", fullgraph=True)
    with fastest_products():
        torch.testing.assert_close(compiled(*pair(*LARGE)), F.linear(*pair(*LARGE)))
    assert through == []


@pytest.mark.parametrize(
    ("text", "windows", "vendor"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n", "", "AuthenticAMD"),
        ("processor\t: 0\nvendor_id\t: GenuineIntel\n", "", "GenuineIntel"),
        ("processor\t: 0\nCPU implementer\t: 0x41\n", "", ""),
        (None, "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD", "AuthenticAMD"),
        (None, "arm", "arm"),
        (None, "", ""),
    ],
)
def test_the_maker_is_told_by_the_system(
    text: str | None, windows: str, vendor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(path: Path) -> str:
        if text is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr("platform.processor", lambda: windows)
    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr("torch.backends.mkl.is_available", lambda: True)
    mkl_holds_back.cache_clear()
    try:
        assert onednn._vendor() == vendor
        assert mkl_holds_back() == (vendor == "AuthenticAMD")
    finally:
        mkl_holds_back.cache_clear()

"""Exported files compute in ONNX Runtime what the model computes in torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dopant.cost import FLOAT32, Storage
from dopant.errors import ExportError, InputError, KindError
from dopant.exporting.model import Layout, make_model
from dopant.exporting.verify import OnnxModel, check_perplexity, logits_difference
from dopant.exporting.write import export
from dopant.layers import convert, slots
from dopant.models.language_model import LanguageModel, LanguageModelConfig
from dopant.storage.folder import load_model, save, save_pretrained
from dopant.structures import (
    Dense,
    DenseWeight,
    Doped,
    Kronecker,
    LowRank,
    Shape,
    Sparse,
    Stacked,
    Structure,
)
from dopant.testing.contract import StructuredWeight

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

HIDDEN, VOCABULARY = 6, 10
LAYOUTS: list[Layout] = ["expand", "scan"]


def kronecker(shape: Shape, terms: int = 1) -> Structure:
    rows, columns = shape
    return Kronecker(((rows // 2, 2), (2, columns // 2)), terms)


STRUCTURES: dict[str, Callable[[Shape], Structure]] = {
    "dense": lambda shape: Dense(),
    "low rank": lambda shape: LowRank(2),
    "kronecker": kronecker,
    "kronecker, other order": lambda shape: Kronecker(((2, shape[1] // 2), (shape[0] // 2, 2))),
    "kronecker, two terms": lambda shape: kronecker(shape, terms=2),
    "kronecker, three factors": lambda shape: Kronecker(((1, 2), (2, shape[1] // 2), (shape[0] // 2, 1)), terms=2),
    "sparse": lambda shape: Sparse(11),
    "empty": lambda shape: Sparse(0),
    "full": lambda shape: Sparse(shape[0] * shape[1]),
    "stacked": lambda shape: Stacked((Dense(), LowRank(1), Sparse(5)), (1, shape[0] - 4, 3)),
    "doped": lambda shape: Doped(kronecker(shape), Sparse(9)),
    "doped stack": lambda shape: Doped(Stacked((Dense(), LowRank(1)), (2, shape[0] - 2)), Sparse(0)),
}


def model_of(make: Callable[[Shape], Structure], **options: Any) -> LanguageModel:
    torch.manual_seed(0)
    model = LanguageModel(LanguageModelConfig(VOCABULARY, HIDDEN, **options)).eval()
    generator = torch.Generator().manual_seed(1)
    for slot in slots(model):
        slot.set(make(slot.weight.shape).new(slot.weight.shape, std=0.3, generator=generator))
    for layer in range(model.config.layers):
        torch.nn.init.uniform_(model.lstm.get_parameter(f"bias_l{layer}"), -0.5, 0.5, generator=generator)
    return model


def run(model: LanguageModel, path: Path, layout: Layout, storages: dict[str, Storage] | None = None) -> OnnxModel:
    proto = make_model(model, layout, storages)
    onnx.checker.check_model(proto, full_check=True)
    path.write_bytes(proto.SerializeToString())
    return OnnxModel(path, model.config)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_in_every_layout(name: str, layout: Layout, tmp_path: Path) -> None:
    model = model_of(STRUCTURES[name])
    assert logits_difference(model, run(model, tmp_path / "m.onnx", layout)) < 2e-6


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{"joint": False}, {"tied": True}, {"layers": 1}, {"layers": 3}])
def test_every_kind_of_model(options: dict[str, Any], layout: Layout, tmp_path: Path) -> None:
    model = model_of(STRUCTURES["doped"], **options)
    assert logits_difference(model, run(model, tmp_path / "m.onnx", layout)) < 2e-6


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("values", ["float32", "float16", "int8", "int4", "huffman"])
def test_a_folder_keeps_its_types(values: Any, layout: Layout, tmp_path: Path) -> None:
    """A Rice-coded folder too: positions are gaps in ONNX, longer than 255 here. Each number takes a byte there."""
    make = STRUCTURES["doped"]
    model = LanguageModel(LanguageModelConfig(150, 12))
    for slot in slots(model):
        slot.set(make(slot.weight.shape).new(slot.weight.shape))
    folder = save(tmp_path / "model", model, storage=Storage(values, "rice"))
    written = export(folder, tmp_path / "m.onnx", layout)
    types = {
        tensor.name: onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name
        for tensor in onnx.load(written.path).graph.initializer
    }
    assert (
        types["lstm.weight_l0.base.factor_0"]
        == types["embedding.weight.overlay.values"]
        == {"int4": "int8", "huffman": "int8"}.get(values, values)
    )
    assert types["lstm.weight_l1.overlay.positions"] == "uint8"
    loaded = load_model(folder).model
    assert logits_difference(loaded, OnnxModel(written.path, loaded.config)) < 2e-6


def test_expand_is_small_in_the_file_and_dense_at_load(tmp_path: Path) -> None:
    model = LanguageModel(LanguageModelConfig(40, 64)).eval()
    for slot in slots(model):
        if slot.lstm:
            slot.set(Doped(Kronecker(((32, 16), (8, 8))), Sparse(100)).new(slot.weight.shape))
    storages = {slot.name: Storage("int8") for slot in slots(model)}
    path = tmp_path / "m.onnx"
    run(model, path, "expand", storages)
    assert path.stat().st_size < 30_000 < 4 * 2 * 256 * 128
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    operators = {node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node}
    assert "LSTM" in operators
    assert not operators & {"ScatterND", "CumSum", "Compress", "Transpose"}


def test_the_factored_layout_holds_no_matrix(tmp_path: Path) -> None:
    """Not in the file, and not after constants are folded."""
    model = LanguageModel(LanguageModelConfig(256, 64, layers=1)).eval()
    for slot in slots(model):
        a, b = slot.weight.shape
        slot.set(Doped(Kronecker(((8, 8), (a // 8, b // 8))), Sparse(9)).new(slot.weight.shape))
    path = tmp_path / "m.onnx"
    run(model, path, "scan")
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    sizes = [
        onnx.numpy_helper.to_array(tensor).size for tensor in onnx.load(tmp_path / "folded.onnx").graph.initializer
    ]
    assert max(sizes) <= 32 * 16  # a factor


def test_verification_can_fail(tmp_path: Path) -> None:
    model = model_of(STRUCTURES["doped"])
    onnx_model = run(model, tmp_path / "m.onnx", "expand")
    with torch.no_grad():
        model.lstm.get_parameter("bias_l1")[0] += 0.1
    with pytest.raises(ExportError, match="differs from the model by"):
        logits_difference(model, onnx_model)
    with pytest.raises(ExportError, match=r"perplexity 81\.0000 where the model has 80\.0000"):
        check_perplexity(80.0, 81.0)
    assert check_perplexity(80.0, 80.0) == 0.0


def test_a_file_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"nothing of the kind")
    with pytest.raises(ExportError, match=r"onnxruntime [\d.]+ cannot load .*m\.onnx"):
        OnnxModel(tmp_path / "m.onnx", LanguageModelConfig(4))


def test_what_is_refused(tmp_path: Path) -> None:
    model = model_of(STRUCTURES["dense"])
    with pytest.raises(InputError, match="layout 'folded' is not known; choose one of expand, scan"):
        make_model(model, "folded")  # type: ignore[arg-type]
    folder = save(tmp_path / "model", model, storage=FLOAT32)
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        export(folder, tmp_path)
    (tmp_path / "there.onnx").write_text("")
    with pytest.raises(InputError, match="exists already"):
        export(folder, tmp_path / "there.onnx")
    with pytest.raises(InputError, match="is no folder; make it first"):
        export(folder, tmp_path / "nowhere" / "m.onnx")
    assert export(folder, tmp_path / "there.onnx", force=True).bytes > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "there.onnx"]


def test_a_structure_of_ones_own_is_named(tmp_path: Path) -> None:
    class Odd(DenseWeight):
        pass

    class Stranger(StructuredWeight):
        structure = linear = rows = cost = to_dense = None  # type: ignore[assignment]

    model = model_of(STRUCTURES["dense"])
    slots(model)[1].set(Odd(torch.zeros(slots(model)[1].weight.shape)))
    make_model(model, "scan")  # a subclass is exported as what it extends
    slots(model)[1].set(Stranger(slots(model)[1].weight.shape))
    with pytest.raises(KindError, match="nothing is registered to export a Stranger to ONNX"):
        make_model(model, "expand")


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dopant.exporting import extra

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(extra.importlib, "import_module", missing)
    with pytest.raises(InputError, match=r"onnx is not installed; get it with: pip install 'dopant\[onnx\]'"):
        make_model(model_of(STRUCTURES["dense"]), "scan")


def test_numbers_that_are_none_are_no_agreement() -> None:
    class Nothing(OnnxModel):
        def __init__(self) -> None:
            pass

        def __call__(self, tokens: Any, state: Any = None) -> Any:
            logits, (h, c) = model(tokens, state)
            return logits * torch.nan, (h, c)

    model = model_of(STRUCTURES["doped"])
    with pytest.raises(ExportError, match="differs from the model by nan"):
        logits_difference(model, Nothing())


def test_a_model_too_large_is_refused_before_it_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dopant.exporting.graph.LARGEST", 1000)
    with pytest.raises(InputError, match=r"more than 1,000 bytes, the most that an ONNX file can hold.*int8"):
        make_model(LanguageModel(LanguageModelConfig(VOCABULARY, HIDDEN, 2)), "expand")


def test_a_module_of_ones_own_is_for_torch_to_export(tmp_path: Path) -> None:
    save_pretrained(convert(torch.nn.Linear(3, 3)), tmp_path / "model")
    with pytest.raises(KindError, match=r"module of your own.*torch.onnx.export\(dopant.revert\("):
        export(tmp_path / "model", tmp_path / "m.onnx")

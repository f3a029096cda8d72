"""torch.nn.LSTM with structured weights."""

from __future__ import annotations

import warnings
from typing import Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from dopant.errors import InputError
from dopant.layers.kernel import Kernel, kernel_for
from dopant.layers.row_masks import masked_dense, masks_are_by_row, products, summed
from dopant.ops.aligned import longer, whole_rows
from dopant.structures import Dense, StructuredWeight
from dopant.structures.base import uniform

# cuDNN's advice to keep the weights as one piece of memory: ours are formed anew for each call. For the whole process:
# to catch it at each call makes Python forget which warnings it has shown.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk of memory")

State = tuple[Tensor, Tensor]
Contraction = Literal["dense", "factored"]


class LSTM(nn.Module):
    """An LSTM as torch.nn.LSTM computes it; arguments, inputs, outputs and the order of gates (i f g o) are its own.

    A layer's matrix is one structured weight for [x; h], `weight_l0` of shape (4·hidden, in + out), or with
    `joint=False` two, `weight_ih_l0` and `weight_hh_l0`. The reverse direction adds `_reverse`, a projection is
    `weight_hr_l0`. There is one bias `bias_l0` (4·hidden,) where torch has two that only ever occur as a sum.

    Args:
        joint: keep [x; h] as one matrix.
        contraction: `"dense"` forms W once a call and uses torch's fused LSTM; `"factored"` never forms W and steps
            through time in Python. Both give the same numbers.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        *,
        joint: bool = True,
        contraction: Contraction = "dense",
    ) -> None:
        super().__init__()
        self.kernel: Kernel | None = None
        if not 0 <= proj_size < hidden_size:
            raise InputError(f"proj_size must be 0 or less than hidden_size {hidden_size}, got {proj_size}")
        if num_layers < 1 or input_size < 1:
            raise InputError(f"an LSTM needs 1 layer and 1 input or more, got {num_layers} and {input_size}")
        if not 0.0 <= dropout <= 1.0:
            raise InputError(f"dropout is a rate from 0 to 1, got {dropout}")
        if contraction not in get_args(Contraction):
            raise InputError(f"contraction is one of {', '.join(get_args(Contraction))}, got {contraction!r}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.batch_first = batch_first
        self.dropout = dropout
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        self.joint = joint
        self.contraction: Contraction = contraction
        self.bias = bias
        std = (3.0 * hidden_size) ** -0.5  # torch.nn.LSTM: uniform within ±1 / sqrt(hidden)
        out = self.output_size
        for layer in range(num_layers):
            size = input_size if layer == 0 else out * self.directions
            for suffix in self._suffixes(layer):
                shapes = {"weight": size + out} if joint else {"weight_ih": size, "weight_hh": out}
                for name, columns in shapes.items():
                    self.add_module(name + suffix, Dense().new((4 * hidden_size, columns), std=std))
                if proj_size:
                    self.add_module("weight_hr" + suffix, Dense().new((proj_size, hidden_size), std=std))
                if bias:
                    self.register_parameter("bias" + suffix, nn.Parameter(uniform(4 * hidden_size, std=std)))

    @property
    def directions(self) -> int:
        """2 if bidirectional, else 1."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Columns of h, for one direction."""
        return self.proj_size or self.hidden_size

    def flatten_parameters(self) -> None:
        """Nothing to do; torch.nn.LSTM has it, so code written for that may call it."""

    def forward(self, input: Tensor | PackedSequence, hx: State | None = None) -> tuple[Tensor | PackedSequence, State]:
        """Run the whole sequence.

        Args:
            input: (time, in), (time, batch, in), with batch_first (batch, time, in), or a PackedSequence.
            hx: initial (h, c) of shapes (layers·directions, batch, out) and (…, hidden); zeros if absent.

        Returns:
            output like the input with directions·out columns, and the final (h, c).

        Raises:
            InputError: the input or the state has another shape than this.
        """
        if isinstance(input, PackedSequence):
            padded, lengths = pad_packed_sequence(input)
            output, state = self._run(padded, hx, lengths.to(padded.device))
            if input.sorted_indices is not None:  # the order of equally long sequences is the input's own choice
                output = output.index_select(1, input.sorted_indices)
                lengths = lengths[input.sorted_indices.to(lengths.device)]
            data = pack_padded_sequence(output, lengths).data
            return PackedSequence(data, input.batch_sizes, input.sorted_indices, input.unsorted_indices), state
        if input.dim() == 2:
            start = None if hx is None else (hx[0].unsqueeze(1), hx[1].unsqueeze(1))
            output, (h, c) = self._run(input.unsqueeze(1), start, None)
            return output.squeeze(1), (h.squeeze(1), c.squeeze(1))
        if input.dim() != 3:
            raise InputError(f"an LSTM needs a 2-D or 3-D input, got shape {tuple(input.shape)}")
        output, final = self._run(input.transpose(0, 1) if self.batch_first else input, hx, None)
        return (output.transpose(0, 1) if self.batch_first else output), final

    def _run(self, x: Tensor, hx: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """x (time, batch, in), layer by layer."""
        if x.shape[-1] != self.input_size:
            raise InputError(f"the LSTM takes {self.input_size} inputs, got {x.shape[-1]}: {tuple(x.shape)}")
        if lengths is None and (kernel := kernel_for(self, x, *(hx or ()))) is not None:
            return cast(tuple[Tensor, State], kernel(self, x, hx))
        h0, c0 = self._initial(x, hx)
        finals: list[State] = []
        fused = self.contraction == "dense" and lengths is None and self._masks_fit_fused()
        for layer in range(self.num_layers):
            first = layer * self.directions
            start = (h0[first : first + self.directions], c0[first : first + self.directions])
            x, final = self._fused(x, start, layer) if fused else self._stepped(x, start, layer, lengths)
            finals.append(final)
            if layer + 1 < self.num_layers:
                x = F.dropout(x, self.dropout, self.training)
        return x, (torch.cat([h for h, _ in finals]), torch.cat([c for _, c in finals]))

    def _fused(self, x: Tensor, start: State, layer: int) -> tuple[Tensor, State]:
        """torch's fused kernel on matrices formed for this call.

        On a GPU inputs and units of zeros are added to them where that makes rows of whole 16 bytes: a unit without
        weights and state stays zero.
        """
        width = whole_rows(x.shape[-1], x)
        units = self.hidden_size if self.proj_size else whole_rows(self.hidden_size, x)
        out = self.proj_size or units
        parameters: list[Tensor] = []
        for suffix in self._suffixes(layer):
            if self.joint:
                matrix = masked_dense(self._weight("weight" + suffix))
                parts = torch.split(matrix, [x.shape[-1], self.output_size], dim=1)
            else:
                parts = tuple(masked_dense(self._weight(name + suffix)) for name in ("weight_ih", "weight_hh"))
            parameters += [_padded(part, units, size) for part, size in zip(parts, (width, out), strict=True)]
            if self.bias:
                bias = _padded(getattr(self, "bias" + suffix).unsqueeze(1), units, 1).squeeze(1)
                parameters += [bias, torch.zeros_like(bias)]
            if self.proj_size:
                parameters.append(masked_dense(self._weight("weight_hr" + suffix)))
        x, h, c = longer(x, width), longer(start[0], out).contiguous(), longer(start[1], units).contiguous()
        output, h, c = torch.lstm(x, (h, c), parameters, self.bias, 1, 0.0, self.training, self.bidirectional, False)
        if units > self.hidden_size:
            each = output.view(*output.shape[:-1], self.directions, units)
            output = each[..., : self.hidden_size].flatten(-2)
        return output, (h[..., : self.output_size], c[..., : self.hidden_size])

    def _stepped(self, x: Tensor, start: State, layer: int, lengths: Tensor | None) -> tuple[Tensor, State]:
        """One cell after the other; sequences shorter than the batch's longest keep their state beyond their end."""
        outputs: list[Tensor] = []
        states: list[State] = []
        formed = self.contraction == "dense"
        for direction, suffix in enumerate(self._suffixes(layer)):
            h, c = start[0][direction], start[1][direction]
            recurrent = products(self._weight(("weight" if self.joint else "weight_hh") + suffix), formed=formed)
            if not self.joint:
                inputs = products(self._weight("weight_ih" + suffix), formed=formed)
                from_x = summed(inputs, x)  # masks (time, batch, out) fit the whole sequence at once
            projection = products(self._weight("weight_hr" + suffix), formed=formed) if self.proj_size else None
            bias = getattr(self, "bias" + suffix) if self.bias else None
            steps = range(len(x)) if direction == 0 else range(len(x) - 1, -1, -1)
            hs: list[Tensor] = [h] * len(x)
            for t in steps:
                if self.joint:
                    gates = summed(recurrent, torch.cat([x[t], h], dim=-1), t)
                else:
                    gates = from_x[t] + summed(recurrent, h, t)
                if bias is not None:
                    gates = gates + bias
                i, f, g, o = gates.chunk(4, dim=-1)
                new_c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                new_h = o.sigmoid() * new_c.tanh()
                if projection is not None:
                    new_h = summed(projection, new_h, t)
                if lengths is None:
                    h, c = new_h, new_c
                    hs[t] = h
                else:
                    inside = (t < lengths).unsqueeze(-1)
                    h, c = torch.where(inside, new_h, h), torch.where(inside, new_c, c)
                    hs[t] = torch.where(inside, new_h, torch.zeros_like(new_h))
            outputs.append(torch.stack(hs))
            states.append((h, c))
        return torch.cat(outputs, dim=-1), (
            torch.stack([h for h, _ in states]),
            torch.stack([c for _, c in states]),
        )

    def _initial(self, x: Tensor, hx: State | None) -> State:
        batch, count = x.shape[1], self.num_layers * self.directions
        if hx is None:
            return (
                x.new_zeros(count, batch, self.output_size),
                x.new_zeros(count, batch, self.hidden_size),
            )
        for name, part, size in (("h", hx[0], self.output_size), ("c", hx[1], self.hidden_size)):
            if tuple(part.shape) != (count, batch, size):
                raise InputError(
                    f"the initial {name} must be (layers·directions, batch, size) = {(count, batch, size)}, "
                    f"got {tuple(part.shape)}"
                )
        return hx

    def _suffixes(self, layer: int) -> list[str]:
        return [f"_l{layer}", f"_l{layer}_reverse"][: self.directions]

    def _weight(self, name: str) -> StructuredWeight:
        weight = getattr(self, name)
        if not isinstance(weight, StructuredWeight):
            raise InputError(f"{name} must hold a structured weight, got {type(weight).__name__}")
        return weight

    def _masks_fit_fused(self) -> bool:
        return all(masks_are_by_row(weight) for weight in self.children() if isinstance(weight, StructuredWeight))

    def extra_repr(self) -> str:
        """Sizes, and what differs from the default."""
        parts = [f"{self.input_size}, {self.hidden_size}", f"num_layers={self.num_layers}"]
        parts += [name for name in ("bidirectional", "batch_first", "joint") if getattr(self, name)]
        return ", ".join([*parts, f"contraction={self.contraction!r}"])


def _padded(matrix: Tensor, units: int, columns: int) -> Tensor:
    """(4·h, n) -> (4·units, columns): zeros after the rows of each gate, and after the columns."""
    gates = matrix.reshape(4, -1, matrix.shape[1])
    more = (columns - gates.shape[2], units - gates.shape[1])
    return F.pad(gates, (0, more[0], 0, more[1])).flatten(0, 1) if any(more) else matrix.contiguous()

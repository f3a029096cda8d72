"""A plan: which weight of a model takes which structure, and what that costs. It changes nothing."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from torch import nn
from torch.nn.parameter import is_lazy

from dopant.cost import FLOAT32, Cost, Storage, Values
from dopant.errors import PlanError
from dopant.layers.slots import slots
from dopant.plan.budget import Claim, ImpossibleError, share
from dopant.plan.families import Fixed
from dopant.plan.methods import Method, Options, method_named, read_structure
from dopant.plan.rules import PREFIX, Matches, match
from dopant.plan.target import DENSE_BYTES, Count, Target, parse_bytes, parse_target
from dopant.plan.words import in_words
from dopant.structures.base import Shape, Structure
from dopant.structures.dense import Dense
from dopant.structures.description import describe


@dataclass(frozen=True)
class Place:
    """A weight of a model as a plan sees it.

    Args:
        name: dotted name in the model.
        shape: (out, in).
        gates: equal blocks of rows (4 in an LSTM, else 1).
        lstm: whether an LSTM holds it.
        joint: whether it is the [x; h] matrix of an LSTM in one piece.
        structure: how it is kept now.
        storage: how a file would write it now.
        aliases: other names of the same weight, where it is tied.
    """

    name: str
    shape: Shape
    gates: int = 1
    lstm: bool = False
    joint: bool = False
    structure: Structure = field(default_factory=Dense)
    storage: Storage = FLOAT32
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rule:
    """A pattern and, where it differs from the plan's, the method or structure for what it matches.

    Method `dense` keeps a weight dense within the plan's budget and in its storage; `ignore` leaves one out of both.
    """

    pattern: str
    method: str | None = None
    structure: Structure | Options | Mapping[str, Any] | None = None


@dataclass(frozen=True)
class PlannedWeight:
    """One weight of a plan, resolved and priced; `method` is None where the plan leaves the weight alone."""

    name: str
    shape: Shape
    gates: int
    method: str | None
    structure: Structure
    cost: Cost
    storage: Storage = FLOAT32

    @property
    def dense(self) -> Cost:
        """What the weight costs as dense float32."""
        return Dense().cost(self.shape, FLOAT32)

    def record(self) -> dict[str, Any]:
        """The weight as one flat record."""
        return {
            "name": self.name,
            "shape": f"{self.shape[0]}×{self.shape[1]}",
            "method": self.method or "(left alone)",
            "structure": in_words(self.structure, self.shape),
            **asdict(self.cost),
            "dense_parameters": self.dense.parameters,
            "dense_bytes": self.dense.stored_bytes,
            "dense_macs": self.dense.macs,
        }


@dataclass(frozen=True)
class Total:
    """Several weights together: what they cost, and what they would cost as dense float32."""

    weights: int
    cost: Cost
    dense: Cost

    @property
    def parameter_factor(self) -> float:
        """How many times fewer parameters."""
        return self.dense.parameters / max(1, self.cost.parameters)

    @property
    def byte_factor(self) -> float:
        """How many times fewer bytes of tensors."""
        return self.dense.stored_bytes / max(1, self.cost.stored_bytes)


@dataclass(frozen=True)
class Rest:
    """What of a model is outside its structured weights: biases, and layers that conversion left as they were.

    Args:
        parameters: how many numbers, float32 in what is said of bytes.
        tensors: their names.
    """

    parameters: int
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What is to become of each weight of a model, in the model's order.

    Args:
        method: the method of all weights that no rule gives another.
        target: None where nothing is to be made smaller (`dense`) or the structures were given without one.
        storage: how the numbers of the weights it decides about are written.
        others: in which type those of the weights left alone are written; None for as before.
        weights: every structured weight of the model, those left alone too.
        matches: (pattern, how many weights it decided).
        rest: what else the model holds, which no plan changes; None where it was made of places.
    """

    method: str
    target: Target | None
    storage: Storage
    weights: tuple[PlannedWeight, ...]
    matches: tuple[tuple[str, int], ...] = ()
    rest: Rest | None = field(default=None, compare=False)
    others: Values | None = None

    @property
    def stored_as(self) -> str:
        """How numbers are written, in words."""
        return str(self.storage) + (f", all else {self.others}" if self.others is not None else "")

    def storages(self) -> dict[str, Storage]:
        """How each weight is written, by its name."""
        return {weight.name: weight.storage for weight in self.weights}

    def scope(self) -> Total:
        """The weights that the plan decides about: the factor is theirs."""
        return _total([weight for weight in self.weights if weight.method is not None])

    def total(self) -> Total:
        """All structured weights of the model; what else it holds is `rest`."""
        return _total(self.weights)

    def whole(self) -> Total:
        """The whole model's parameters as far as is known: its structured weights and the rest."""
        total, parameters = self.total(), 0 if self.rest is None else self.rest.parameters
        rest = Cost(parameters, 0, parameters * DENSE_BYTES)
        return Total(total.weights, total.cost + rest, total.dense + rest)

    def rows(self) -> list[dict[str, Any]]:
        """One flat record a weight, for tables: sizes as numbers, shape and structure in words."""
        return [weight.record() for weight in self.weights]

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON-ready data."""
        return {
            "method": self.method,
            "target": None if self.target is None else asdict(self.target),
            "storage": asdict(self.storage) | ({} if self.others is None else {"others": self.others}),
            "weights": [
                {
                    "name": weight.name,
                    "shape": list(weight.shape),
                    "gates": weight.gates,
                    "method": weight.method,
                    "structure": describe(weight.structure),
                    **asdict(weight.cost),
                }
                for weight in self.weights
            ],
            "matches": [list(pair) for pair in self.matches],
        }

    def to_json(self) -> str:
        """The plan as JSON text."""
        return json.dumps(self.to_dict(), ensure_ascii=False, indent=2)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the plan's contents, in hexadecimal: equal plans, equal fingerprints."""
        text = json.dumps(self.to_dict(), ensure_ascii=True, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def places(model: nn.Module) -> list[Place]:
    """The structured weights of a model, tied ones once.

    Raises:
        PlanError: there are none.
    """
    found = [
        Place(
            slot.name,
            slot.weight.shape,
            slot.gates,
            slot.lstm,
            slot.lstm and slot.gates > 1 and bool(getattr(slot.holders[0][0], "joint", False)),
            slot.weight.structure,
            slot.weight.storage,
            slot.aliases,
        )
        for slot in slots(model)
    ]
    if not found:
        raise PlanError(f"{type(model).__name__} holds no structured weights; make some with dopant.convert(model)")
    return found


def make_plan(
    model: nn.Module | Sequence[Place],
    *,
    method: str = "doped-kronecker",
    target: Target | str | float | None = None,
    target_bytes: int | str | None = None,
    count: Count = "bytes",
    scope: str = "lstm",
    storage: Storage = FLOAT32,
    others: Values | None = None,
    targets: Sequence[str | Rule] | None = None,
    ignore: Sequence[str] = (),
    structure: Structure | Options | Mapping[str, Any] | None = None,
) -> Plan:
    """Decide on a structure for each weight so that the target is met; the model is only looked at.

    The factor is that of the weights in the scope which `targets` (None: all of them) and `ignore` leave over; each
    gets the same where it can. All other weights keep their structure; what is no structured weight stays as it is, in
    scope "model" too: biases, norms and layers that `dopant.convert` does not know. `plan.rest` says how much that is.

    Args:
        model: a module with structured weights, or its weights' places.
        method: one of `METHODS`; where it is `dense` for all weights, they stay dense and float32 whatever the target
            and the storage, and others as they were.
        target: a `Target`, or what `parse_target` reads, then with `count` and `scope`.
        target_bytes: bytes, also as 1.2MB; instead of `target`.
        storage: how the numbers of the weights decided about are written. A model that the plan is applied to is saved
            so.
        others: in which type those of all other structured weights are written; None for as before.
        targets: patterns, or rules with a method or structure of their own; the first that matches wins.
        ignore: patterns of weights to leave alone.
        structure: all of a structure, or some of the method's options, for every weight without its own.

    Raises:
        PlanError: an unknown method, a pattern without a match, an option or structure that does not suit, a layer
            without a size yet, or a target that cannot be met; the message names the closest that can.
    """
    found = places(model) if isinstance(model, nn.Module) else list(model)
    rest = _rest(model) if isinstance(model, nn.Module) else None
    method_named(method)
    if target_bytes is not None:
        if target is not None:
            raise PlanError(f"target {target} is given too; give one of target and target_bytes")
        target = Target(bytes=parse_bytes(target_bytes), scope=scope)
    if target is not None and not isinstance(target, Target):
        target = parse_target(target, count, scope)
    scope = target.scope if target is not None else scope
    rules = None if targets is None else [Rule(t) if isinstance(t, str) else t for t in targets]
    matches = _match(found, scope, rules, ignore)
    chosen = [place for place in found if place.name in matches.chosen]
    default = Rule("", method, structure)
    resolved = [_resolve(rules[matches.chosen[p.name]] if rules else default, default) for p in chosen]
    claims = [_claim(place, *how) for place, how in zip(chosen, resolved, strict=True)]
    if all(how[0].name == "dense" for how in resolved):
        target, storage, others = None, FLOAT32, None
    structures = _share(chosen, [how[0].name for how in resolved], claims, target, storage)
    decided = {place.name: (how[0].name, kept) for place, how, kept in zip(chosen, resolved, structures, strict=True)}
    weights = []
    for place in found:
        name, kept = decided.get(place.name, (None, place.structure))
        written = storage if name is not None else replace(place.storage, values=others or place.storage.values)
        cost = kept.cost(place.shape, written)
        weights.append(PlannedWeight(place.name, place.shape, place.gates, name, kept, cost, written))
    return Plan(method, target, storage, tuple(weights), matches.counts, rest, others)


def _rest(model: nn.Module) -> Rest:
    weights = {id(parameter) for slot in slots(model) for parameter in slot.weight.parameters()}
    others = {name: parameter for name, parameter in model.named_parameters() if id(parameter) not in weights}
    if lazy := [name for name, parameter in others.items() if is_lazy(parameter)]:
        raise PlanError(f"{lazy[0]!r} has no size yet; run the model once before dopant.convert")
    return Rest(sum(parameter.numel() for parameter in others.values()), tuple(others))


def _match(found: list[Place], scope: str, rules: list[Rule] | None, ignore: Sequence[str]) -> Matches:
    names = [place.name for place in found]
    if scope.startswith(PREFIX):
        inside = list(match(names, [scope]).chosen)
    else:
        inside = [place.name for place in found if place.lstm or scope == "model"]
    if not inside:
        raise PlanError("the model has no LSTM weights; choose scope model, or re: and an expression for names")
    outside = [name for name in names if name not in inside]
    patterns = None if rules is None else [rule.pattern for rule in rules]
    tied = {alias: place.name for place in found for alias in place.aliases}
    matches = match(inside, patterns, ignore, outside=outside, tied=tied)
    if not matches.chosen:
        raise PlanError(f"no weight in scope {scope!r} is left to plan: targets and ignore leave none over")
    return matches


def _resolve(rule: Rule, default: Rule) -> tuple[Method, Structure | Options]:
    """A rule's method and structure; what it does not say is the plan's, options only for the plan's method."""
    name = rule.method or default.method or ""
    own = rule.structure
    if own is None and name == default.method:
        own = default.structure
    method, structure = method_named(name), read_structure(own)
    if name == "dense" and isinstance(structure, Structure) and not isinstance(structure, Dense):
        raise PlanError(
            f"method 'dense' keeps weights dense, and the structure given is {structure.kind}; name another method"
        )
    return method, structure


def _claim(place: Place, method: Method, structure: Structure | Options) -> Claim:
    if place.joint and not method.joint:
        raise PlanError(
            f"method {method.name!r} keeps the input and recurrent matrices of an LSTM apart, but {place.name!r} is "
            f"both in one; build the LSTM with joint=False"
        )
    try:
        if isinstance(structure, Options):
            return Claim(place.shape, method.family(place.shape, place.gates, structure))
        structure.check(place.shape)
    except ValueError as error:
        raise PlanError(f"{place.name}: {error}") from None
    return Claim(place.shape, Fixed(structure))


def _share(
    chosen: list[Place], methods: list[str], claims: list[Claim], target: Target | None, storage: Storage
) -> list[Structure]:
    if target is None:
        free = [name for name, claim in zip(methods, claims, strict=True) if not claim.family.fixed]
        if free:
            raise PlanError(f"method {free[0]!r} needs a target, such as 25x or 1.2MB")
        return [claim.family.smallest(lambda structure: 0) for claim in claims]
    parameters = sum(math.prod(place.shape) for place in chosen)
    limit = target.limit(parameters)
    try:
        return share(claims, limit, target.count, storage)
    except ImpossibleError as error:
        raise PlanError(_impossible(target, methods, parameters, error.smallest)) from None


def _impossible(target: Target, methods: list[str], parameters: int, smallest: int) -> str:
    whole = Target(factor=1.0, count=target.count).limit(parameters)
    best = math.floor(100 * whole / smallest) / 100
    names = " and ".join(sorted(set(methods)))
    text = f"target {target} cannot be met by {names}: the smallest these weights get is {smallest:,} {target.count}"
    if best < 1:
        return f"{text}, more than dense ({whole:,}); choose another method"
    closest = f"{smallest:,} bytes" if target.bytes is not None else f"{best:g}x"
    return f"{text}, {best:g}x; the closest possible target is {closest}"


def _total(weights: Sequence[PlannedWeight]) -> Total:
    return Total(
        len(weights),
        sum((weight.cost for weight in weights), Cost()),
        sum((weight.dense for weight in weights), Cost()),
    )

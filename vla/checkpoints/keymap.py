"""Where the weights of somebody else's checkpoint go in our models, and back: one literal table, read both ways.

A table says, for every weight of ours, which of theirs become it. A plain name is a rename:

    block = {
        "attention_norm.weight": "input_layernorm.weight",
        "attention.qkv.weight": stacked({"self_attn.q_proj.weight": 64, "self_attn.k_proj.weight": 16, ...}),
        **affine("attention.out", "self_attn.o_proj", bias=False),
    }
    table = repeated("layers.{i}.", "model.layers.{i}.", block, config.depth)
    table |= {"patches.projection.weight": kernel("patch_embed.proj.weight", (3, 14, 14))}
    key_map = KeyMap(family="Example", table=table, prefixes={"model.language_model.": "model."})

    ours = key_map.convert(weights, model)      # their weights (read one at a time) to a state dict of `model`
    theirs = key_map.export(model.state_dict()) # bit for bit what went in

Names on the right are canonical: the spelling that `export` writes. Checkpoints saved by other versions spell
prefixes otherwise; `prefixes` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from vla.errors import CheckpointError

_NUM_NAMED = 3  # names quoted in a message; the rest are counted


@dataclass(frozen=True)
class Rule:
    """How weights of theirs become one of ours (`join`) and are made of it again (`split`), without any arithmetic."""

    names: tuple[str, ...]  # theirs
    join: Callable[[list[Tensor]], Tensor]
    split: Callable[[Tensor], list[Tensor]]


type Table = dict[str, str | Rule]


def stacked(rows: Mapping[str, int], *, leading: int = 0) -> Rule:
    """Returns the rule for several of theirs stacked along the rows of one of ours.

    Args:
        rows: their names and the rows each has, in our order.
        leading: axes of length 1 before their rows, which ours has not: 1 for tokens kept as (1, tokens, width).
    """
    sizes = list(rows.values())

    def join(parts: list[Tensor]) -> Tensor:
        for name, part in zip(rows, parts, strict=True):
            if part.shape[: leading + 1] != (1,) * leading + (rows[name],):
                raise ValueError(
                    f"{name} has shape {tuple(part.shape)}, expected {rows[name]} rows"
                )
        return torch.cat([part.flatten(0, leading) for part in parts])

    def split(tensor: Tensor) -> list[Tensor]:
        return [part[(None,) * leading] for part in tensor.split(sizes)]

    return Rule(tuple(rows), join, split)


def kernel(name: str, shape: Sequence[int]) -> Rule:
    """Returns the rule for a strided convolution held as a matrix: (out, *shape) to (out, size), channels last.

    Args:
        name: their convolution weight.
        shape: its input channels and window: (3, 14, 14) for pictures, (3, 2, 14, 14) for pairs of frames.
    """
    channels, *window = shape

    def join(parts: list[Tensor]) -> Tensor:
        if parts[0].shape[1:] != tuple(shape):
            raise ValueError(
                f"{name} is {tuple(parts[0].shape)}, expected (out, {', '.join(map(str, shape))})"
            )
        return parts[0].movedim(1, -1).flatten(1)

    def split(tensor: Tensor) -> list[Tensor]:
        return [tensor.unflatten(1, (*window, channels)).movedim(-1, 1).contiguous()]

    return Rule((name,), join, split)


def reshaped(name: str, *, ours: Sequence[int], theirs: Sequence[int]) -> Rule:
    """Returns the rule for the same numbers in the same order under another shape, such as a scalar kept as (1,)."""

    def join(parts: list[Tensor]) -> Tensor:
        if parts[0].shape != tuple(theirs):
            raise ValueError(f"{name} has shape {tuple(parts[0].shape)}, expected {tuple(theirs)}")
        return parts[0].reshape(tuple(ours))

    return Rule((name,), join, lambda tensor: [tensor.reshape(tuple(theirs))])


def without_leading(name: str) -> Rule:
    """Returns the rule for theirs of shape (1, ...) that is ours without the first axis."""

    def join(parts: list[Tensor]) -> Tensor:
        if parts[0].shape[:1] != (1,):
            raise ValueError(
                f"{name} has shape {tuple(parts[0].shape)}, expected a first axis of 1"
            )
        return parts[0][0]

    return Rule((name,), join, lambda tensor: [tensor[None]])


def scalars(names: Sequence[str]) -> Rule:
    """Returns the rule for numbers of theirs, each of shape (), that are one vector of ours."""
    return Rule(tuple(names), torch.stack, lambda tensor: list(tensor.unbind()))


def affine(ours: str, theirs: str, *, bias: bool = True) -> Table:
    """Returns the entries of a linear layer or a norm: `weight`, and `bias` where it has one."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return {f"{ours}.{kind}": f"{theirs}.{kind}" for kind in kinds}


def stacked_affine(ours: str, rows: Mapping[str, int], *, bias: bool = True) -> Table:
    """Returns the entries of a linear layer of ours that stacks several of theirs; `rows` as in `stacked`."""
    kinds = ("weight", "bias") if bias else ("weight",)
    return {
        f"{ours}.{kind}": stacked({f"{name}.{kind}": count for name, count in rows.items()})
        for kind in kinds
    }


def prefixed(ours: str, theirs: str, table: Mapping[str, str | Rule]) -> Table:
    """Returns `table` with a prefix before every name on either side."""
    return {
        ours + name: theirs + rule
        if isinstance(rule, str)
        else replace(rule, names=tuple(theirs + their_name for their_name in rule.names))
        for name, rule in table.items()
    }


def repeated(ours: str, theirs: str, table: Mapping[str, str | Rule], count: int) -> Table:
    """Returns `table` once for each block: {i} in the two prefixes is the index of the block."""
    blocks = (
        prefixed(ours.replace("{i}", str(i)), theirs.replace("{i}", str(i)), table)
        for i in range(count)
    )
    return {name: rule for block in blocks for name, rule in block.items()}


@dataclass(frozen=True, kw_only=True)
class KeyMap:
    """The table of a family, with everything that its checkpoints leave open.

    Attributes:
        family: what to call it in messages.
        table: our names to theirs.
        prefixes: other spellings of a prefix, to the canonical one. The longest that fits is replaced, once; canonical
            prefixes stay as they are. The empty prefix fits every name.
        endings: other spellings of the end of a name, to the canonical one.
        unread: patterns (`*` for any text) of canonical names that may be there and that nobody reads.
        tied: canonical names that may be absent, or equal to the one they are tied to.
    """

    family: str
    table: Table
    prefixes: Mapping[str, str] = field(default_factory=dict)
    endings: Mapping[str, str] = field(default_factory=dict)
    unread: Sequence[str] = ()
    tied: Mapping[str, str] = field(default_factory=dict)

    def convert(self, weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Returns a state dict of `model`, in the dtypes of the checkpoint.

        Args:
            weights: the checkpoint's weights by name; each is asked for once, so the mapping may read on demand.
            model: says which weights are needed, and their shapes; it may be on the meta device.

        Raises:
            CheckpointError: weights are missing, misshapen or not expected, with their names; or most of them are, and
                the checkpoint is of another family.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        self._check_table(shapes)
        found = self._by_canonical_name(weights)
        self._check_names(found)
        return {
            ours: self._joined(ours, rule, weights, found, shapes[ours])
            for ours, rule in self._rules().items()
        }

    def export(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns their weights, under canonical names, from a state dict of ours; views where nothing moves."""
        self._check_table(state)
        return {
            name: tensor
            for ours, rule in self._rules().items()
            for name, tensor in zip(rule.names, rule.split(state[ours]), strict=True)
        }

    def canonical(self, name: str) -> str:
        """Returns the canonical spelling of a checkpoint's name."""
        for ending, canonical in self.endings.items():
            if name.endswith(ending):
                name = name.removesuffix(ending) + canonical
        spellings = {canonical: canonical for canonical in self.prefixes.values()} | dict(
            self.prefixes
        )
        fitting = [prefix for prefix in spellings if name.startswith(prefix)]
        if not fitting:
            return name
        longest = max(fitting, key=len)
        return spellings[longest] + name.removeprefix(longest)

    def _rules(self) -> dict[str, Rule]:
        return {
            ours: _renamed(rule) if isinstance(rule, str) else rule
            for ours, rule in self.table.items()
        }

    def _by_canonical_name(self, weights: Iterable[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for name in weights:
            canonical = self.canonical(name)
            if canonical in found:
                raise CheckpointError(
                    f"{found[canonical]} and {name} are two spellings of one weight; keep one of them"
                )
            found[canonical] = name
        return found

    def _check_table(self, names: Iterable[str]) -> None:
        """The table and the model must be of one config."""
        difference = sorted(set(names) ^ self.table.keys())
        if difference:
            raise CheckpointError(
                f"the key table of {self.family} and the model do not agree on {_listed(difference)}; "
                "make both from the same config"
            )

    def _check_names(self, found: Mapping[str, str]) -> None:
        needed = [name for rule in self._rules().values() for name in rule.names]
        needed = list(dict.fromkeys(needed))
        missing = [name for name in needed if name not in found]
        expected = {*needed, *self.tied}
        unused = [
            name
            for canonical, name in found.items()
            if canonical not in expected and not self._is_unread(canonical)
        ]
        if 2 * len(missing) > len(needed):
            raise CheckpointError(
                f"the checkpoint is not {self.family}'s: {len(missing)} of {len(needed)} weights are missing, "
                f"such as {missing[0]}, and it has {_listed(unused) if unused else 'nothing in their place'}; "
                "give the family that it is of"
            )
        if missing:
            raise CheckpointError(
                f"the checkpoint has no {_listed(missing)}; the config asks {self.family} for more than it holds, "
                "or a file of it is missing"
            )
        if unused:
            raise CheckpointError(
                f"the checkpoint also holds {_listed(unused)}, which {self.family} has not under this config; "
                "compare the two configs"
            )

    def _is_unread(self, canonical: str) -> bool:
        return any(fnmatchcase(canonical, pattern) for pattern in self.unread)

    def _joined(
        self,
        ours: str,
        rule: Rule,
        weights: Mapping[str, Tensor],
        found: Mapping[str, str],
        shape: tuple[int, ...],
    ) -> Tensor:
        parts = [weights[found[name]] for name in rule.names]
        try:
            joined = rule.join(parts)
        except (ValueError, RuntimeError, IndexError) as error:
            raise CheckpointError(
                f"{_listed(list(rule.names))} cannot become {ours}: {error}; compare the two configs"
            ) from None
        if tuple(joined.shape) != shape:
            raise CheckpointError(
                f"{' + '.join(rule.names)} gives shape {tuple(joined.shape)}; the model expects {shape} for {ours}; "
                "compare the two configs"
            )
        for tied, source in self.tied.items():
            if source in rule.names and tied in found:
                _check_tied(
                    found[tied], weights[found[tied]], source, parts[rule.names.index(source)]
                )
        return joined


def _renamed(name: str) -> Rule:
    return Rule((name,), lambda parts: parts[0], lambda tensor: [tensor])


def _check_tied(name: str, tensor: Tensor, source: str, original: Tensor) -> None:
    if tensor.shape != original.shape or not torch.equal(tensor, original):
        raise CheckpointError(
            f"{name} differs from {source}, but the config ties them; correct tie_word_embeddings"
        )


def _listed(names: Sequence[str]) -> str:
    named = ", ".join(names[:_NUM_NAMED])
    rest = len(names) - _NUM_NAMED
    return named if rest <= 0 else f"{named} and {rest} more"

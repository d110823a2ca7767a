"""How much work some code gives the device: operations, arithmetic and bytes, counted as it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

# Operations that only look at memory in another way, or ask for a number of the host's.
_FREE = frozenset(
    "view _unsafe_view reshape _reshape_alias as_strided expand unsqueeze squeeze transpose permute t slice "
    "select split split_with_sizes chunk unbind unfold diagonal detach alias lift_fresh empty empty_like "
    "new_empty promote_types is_same_size".split()
)


@dataclass(frozen=True)
class Work:
    """What a run asked of the device.

    Attributes:
        operations: Tensor operations that do something; run eagerly, about as many kernels.
        flops: Of matrix products, convolutions and attention; a multiply-add counts as two.
        bytes_touched: Sum over all operations of the bytes of what they read and write. Caches and fusion
            move less: it is what an eager run with a cold cache would move.
    """

    operations: int
    flops: int
    bytes_touched: int


def count_work(run: Callable[[], object]) -> Work:
    """Run once, and count."""
    with FlopCounterMode(display=False) as flops, _Tally() as tally:
        run()
    return Work(tally.operations, flops.get_total_flops(), tally.bytes_touched)


class _Tally(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operations = self.bytes_touched = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func._schema.name.split("::")[1] not in _FREE:
            self.operations += 1
            self.bytes_touched += sum(map(_nbytes, pytree.tree_leaves((args, kwargs, result))))
        return result


def _nbytes(leaf: object) -> int:
    """Bytes behind a tensor; what an expanded one repeats is there once."""
    if not isinstance(leaf, torch.Tensor):
        return 0
    return min(leaf.numel() * leaf.element_size(), leaf.untyped_storage().nbytes())

"""A GPU that is pretended: its tensors lie on the CPU, but may not meet those of the CPU.

Within :class:`PretendedGPU`, ``x.to("cuda")`` gives a tensor whose ``device`` says ``cuda:0``, and
so is whatever is computed from it. As on a GPU, an operation on tensors of both devices fails,
and so does handing one to numpy. What it cannot show: speed, memory, other rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils.weak import WeakTensorKeyDictionary

GPU = torch.device("cuda:0")
# What may cross: copies, looking at a tensor, and rows of the CPU that choose among the GPU's.
CROSSING = {
    torch._has_compatible_shallow_copy_type, torch.Tensor.backward, torch.Tensor.copy_,
    torch.Tensor.__repr__,
}  # fmt: skip
CHOOSING = {torch.Tensor.__getitem__, torch.Tensor.__setitem__}
TO_NUMPY = {torch.Tensor.numpy, torch.Tensor.__array__}


class PretendedGPU(TorchFunctionMode):
    """Use as a context. ``seen`` counts the operations on the pretended GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.there: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.seen = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func == torch.Tensor.device.__get__:
            return GPU if args[0] in self.there else func(*args)
        if func == torch.Tensor.is_cuda.__get__:
            return args[0] in self.there
        if func == torch.Tensor.cpu:
            return args[0].clone() if args[0] in self.there else args[0]
        if func == torch.Tensor.to:
            return self._to(*args, **kwargs)
        if func == torch.Tensor.data.__set__:
            self._place(args[0], args[1] in self.there)
            return func(*args)
        if func in TO_NUMPY and args[0] in self.there:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu()")
        wanted = kwargs.get("device")
        if wanted is not None:
            kwargs["device"] = "cpu"
            is_there = torch.device(wanted).type == "cuda"
        else:
            is_there = self._meet(func, args, kwargs)
        out = func(*args, **kwargs)
        self.seen += is_there
        for leaf in pytree.tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and is_there:
                self._place(leaf, True)
        return out

    def _to(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        copy = kwargs.pop("copy", False)
        if args and isinstance(args[0], torch.Tensor):  # x.to(other)
            args = (GPU if args[0] in self.there else args[0].device, args[0].dtype)
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        is_there = x in self.there
        goes = is_there if device is None else device.type == "cuda"
        out = x if dtype is None else x.to(dtype)
        if out is x and (copy or goes != is_there):
            out = x.clone()
        self._place(out, goes)
        return out

    def _place(self, x: torch.Tensor, there: bool) -> None:
        if there:
            self.there[x] = True
        else:
            self.there.pop(x, None)

    def _meet(self, func: Any, args: Any, kwargs: Any) -> bool:
        """Whether an operation runs on the GPU; fails where both devices meet."""
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        on = [x in self.there for x in tensors]
        if func in CHOOSING and args[0] in self.there:
            index = {id(x) for x in pytree.tree_leaves(args[1])}
            on = [there for x, there in zip(tensors, on, strict=True) if id(x) not in index]
            tensors = [x for x in tensors if id(x) not in index]
        if func in CROSSING or not any(on):
            return bool(on) and on[0]
        if not all(there or not x.dim() for x, there in zip(tensors, on, strict=True)):
            found = zip(tensors, on, strict=True)
            places = [f"{list(x.shape)} on {'cuda:0' if there else 'cpu'}" for x, there in found]
            raise RuntimeError(
                f"{getattr(func, '__name__', func)}: expected all tensors on one device, found "
                + ", ".join(places)
            )
        return True

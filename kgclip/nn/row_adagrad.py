"""Adagrad that touches the rows of a table which a batch used, and no others.

Adagrad moves nothing whose gradient is zero, so that this is exactly the update of the whole
table, at a cost and a memory that do not grow with it.
"""

from __future__ import annotations

import torch
from torch import Tensor


class RowAdagrad:
    """Adagrad for rows of one table.

    Args:
        table: Updated in place. Float [N, d].
        lr: Learning rate.

    Reference:
        Duchi et al., JMLR 2011; the formula and ε of ``torch.optim.Adagrad``.
    """

    def __init__(self, table: Tensor, lr: float) -> None:
        self.table, self.lr = table.detach(), lr
        self.squares = torch.zeros_like(self.table)

    @torch.no_grad()
    def step(self, grad: Tensor, ids: Tensor | None = None) -> None:
        """Update some rows, or all.

        Args:
            grad: Gradient of each row. Float [n, d]; it is overwritten.
            ids: The rows, each once. Long [n]; the default is all of them in order.
        """
        if ids is None:
            self.squares.addcmul_(grad, grad)
            scale = self.squares.sqrt().add_(1e-10)
            self.table.addcdiv_(grad, scale, value=-self.lr)
            return
        squares = self.squares.index_select(0, ids).addcmul_(grad, grad)
        self.squares.index_copy_(0, ids, squares)
        self.table.index_add_(0, ids, grad.div_(squares.sqrt_().add_(1e-10)), alpha=-self.lr)

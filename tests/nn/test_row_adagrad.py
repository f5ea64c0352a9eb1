"""The update of the rows that a batch used is torch's update of the whole table."""

import pytest
import torch

from kgclip.nn.row_adagrad import RowAdagrad


@pytest.mark.parametrize("all_rows", [True, False])
def test_equals_torch(all_rows):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(9, 4, generator=generator, dtype=torch.double)
    whole = torch.nn.Parameter(start.clone())
    peer = torch.optim.Adagrad([whole], lr=0.3)
    rows = start.clone()
    ours = RowAdagrad(rows, lr=0.3)
    for _ in range(5):
        ids = torch.randperm(9, generator=generator)[:4].sort().values
        grad = torch.randn(4, 4, generator=generator, dtype=torch.double)
        whole.grad = torch.zeros_like(start).index_copy_(0, ids, grad)
        peer.step()
        if all_rows:
            ours.step(whole.grad)
        else:
            ours.step(grad, ids)
        torch.testing.assert_close(rows, whole.detach(), rtol=1e-12, atol=1e-12)


def test_rows_without_a_gradient_do_not_move():
    table = torch.ones(3, 2)
    ours = RowAdagrad(table, lr=1.0)
    ours.step(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    ours.step(torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert table.tolist() == [[1, 1], [0, 1], [1, 1]]

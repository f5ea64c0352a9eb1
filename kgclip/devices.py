"""Where a model runs: the name of a device that a config or a command gives, checked."""

from __future__ import annotations

import torch

from kgclip.tables import GraphError


def pick_device(name: str) -> torch.device:
    """Find a device.

    Args:
        name: ``"auto"`` = the first CUDA GPU, the CPU where there is none; else what
            ``torch.device`` takes, as ``"cpu"`` or ``"cuda:1"``.

    Raises:
        GraphError: If this machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device that holds no values is none
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].partition(". ")[0]
        raise GraphError(
            f"device: {name!r} cannot be used on this machine ({reason.rstrip('.')}); 'auto', "
            "'cpu', or 'cuda' where there is a GPU expected"
        ) from error
    return device

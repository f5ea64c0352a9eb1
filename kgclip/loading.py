"""Loading what is heavy."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def collector_at_rest() -> Iterator[None]:
    """Keep the garbage collector from looking for what is not there.

    A large package makes hundreds of thousands of objects while it is loaded, and all of them stay:
    looking through them again and again takes a fifth of the time. So they begin old.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what somebody froze stays so
            gc.freeze()
            gc.unfreeze()  # into the oldest generation
        gc.enable()

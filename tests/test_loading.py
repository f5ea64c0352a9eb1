import gc

import pytest

from kgclip.loading import collector_at_rest


def test_the_collector_rests_and_goes_on():
    def fail():
        assert not gc.isenabled()
        raise ValueError("x")

    assert gc.isenabled()
    with pytest.raises(ValueError, match="x"), collector_at_rest():
        fail()
    assert gc.isenabled()


def test_who_has_no_collector_gets_none():
    gc.disable()
    try:
        with collector_at_rest():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

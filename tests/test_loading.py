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


def test_what_is_made_meanwhile_is_old_at_once():
    with collector_at_rest():
        made = [[]]
    assert any(each is made for each in gc.get_objects(generation=2))
    assert not gc.get_freeze_count()


def test_what_was_frozen_stays_so():
    gc.freeze()
    try:
        with collector_at_rest():
            pass
        assert gc.get_freeze_count()
    finally:
        gc.unfreeze()


def test_who_has_no_collector_gets_none():
    gc.disable()
    try:
        with collector_at_rest():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()

"""Objects that Python does not search for garbage."""

import gc

from training.machine.garbage import lasting_objects


def test_only_objects_made_later_are_searched():
    try:
        with lasting_objects():
            assert not gc.isenabled()
            kept = [[]]
        assert gc.isenabled()
        later = [[]]
        searched = {id(found) for found in gc.get_objects()}
        assert id(later) in searched and id(kept) not in searched
    finally:
        gc.unfreeze()

"""Python's search for garbage, spared the objects that stay until the end."""

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def lasting_objects() -> Iterator[None]:
    """Context for importing and opening what a program uses until its end.

    Importing transformers and lm-eval makes about a million objects. Python would search them all for garbage several
    times while they are made, and again when it ends; that can take longer than evaluating a small model. Inside, it
    does not search; afterwards it searches only objects that are made later.
    """
    gc.collect()  # else what is garbage now would stay, too
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()

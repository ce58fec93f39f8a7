"""lm-eval's `hf` model with faster likelihoods: the same tokens, truncation and scores, in fewer forward passes."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from lm_eval.models.huggingface import HFLM
from lm_eval.utils import env

from training.eval.measures.continuations import score_continuations


class SharedPrefixLM(HFLM):
    """`HFLM` for a causal model, which computes shared beginnings of its requests once."""

    def _loglikelihood_tokens(
        self, requests: list[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-probability of each continuation, and whether greedy decoding gives it.

        A context that is too long loses its beginning, as in `HFLM`.
        """
        pairs = []
        for _, context, continuation in requests:
            room = self.max_length + 1 - len(continuation)
            pairs.append((context[-room:], continuation))
        nats, greedy = score_continuations(self.model, pairs, tokens=self.batch_size * self.max_length)
        answers = list(zip(nats.tolist(), greedy.tolist(), strict=True))
        for (texts, _, _), answer in zip(requests, answers):
            if texts is not None:  # None: a window of a longer text
                self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers


@contextlib.contextmanager
def compiled_templates() -> Iterator[None]:
    """Context in which lm-eval compiles each Jinja template of its tasks once, in place of once for every item."""
    env.from_string = functools.lru_cache(env.from_string)
    try:
        yield
    finally:
        del env.from_string  # the method of the class again

"""Pieces of answers for asynchronous code, in the order in which the engine's thread delivers them."""

import asyncio
from collections.abc import AsyncIterator, Callable

from training.serving.answer import Answer, Piece

Submit = Callable[[Callable[[Piece], None]], Answer]  # queues an answer, given what receives its pieces


class Pieces:
    """The pieces of one answer or several, each with the number of its answer.

    Enter it with `async with`, which queues the answers; leaving cancels those that are still in progress. Nothing
    waits for a slow reader: pieces are kept until they are read, at most the context's tokens of each answer.

    Attributes:
        answers: by number, once entered.
    """

    def __init__(self, submits: list[Submit]):
        self._submits = submits
        self.answers: list[Answer] = []

    async def __aenter__(self) -> "Pieces":
        loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[tuple[int, Piece]] = asyncio.Queue()

        def deliver_to(number: int) -> Callable[[Piece], None]:
            return lambda piece: _call(loop, self._queue.put_nowait, (number, piece))

        try:
            for number, submit in enumerate(self._submits):
                self.answers.append(submit(deliver_to(number)))
        except BaseException:
            self.cancel()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Cancel what is still in progress."""
        for answer in self.answers:
            answer.cancel()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        remaining = len(self.answers)
        while remaining:
            number, piece = await self._queue.get()
            remaining -= piece.finish_reason is not None
            yield number, piece


def _call(loop: asyncio.AbstractEventLoop, function: Callable, argument: object) -> None:
    try:
        loop.call_soon_threadsafe(function, argument)
    except RuntimeError:  # the loop is closed, and nobody reads any more
        pass

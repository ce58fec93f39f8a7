"""Hub datasets: streamed, and resumed where the connection was lost."""

import itertools
import sys
import time
from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from training.common.errors import UserError
from training.corpus.sources.config import SourceConfig

# Seconds before each retry, after `datasets` has given up its own. Every record that arrives resets them.
WAITS = (2, 8, 30, 120)

KEEP_EVERY = 1000  # rows; taking a state costs as much time as a few rows

_NETWORK = {"aiohttp", "httpcore", "httpx", "httpx2", "requests", "urllib3"}


class HubStream:
    """The rows of a Hub dataset, numbered from 1.

    Args:
        key: of the source in the recipe, for error messages.
        number: rows that were read before.
        state: JSON state from which `datasets` resumes after them without reading them again; None for the first row.

    Attributes:
        number: of the last row returned.
    """

    def __init__(self, config: SourceConfig, key: str, number: int = 0, state: dict[str, Any] | None = None):
        self.config, self.key, self.number = config, key, number
        self._kept = (number, state)
        self._dataset = None

    @property
    def state(self) -> dict[str, Any] | None:
        """The state of the stream after the last row it returned."""
        return self._dataset.state_dict() if self._dataset else self._kept[1]

    def __iter__(self) -> Iterator[tuple[int, Any]]:
        """Yield the number of each row and the row, reconnecting when the connection is lost.

        Raises:
            UserError: no such dataset, or the connection failed repeatedly.
        """
        try:
            rows = self._open()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._unreadable(error) from None
        waits = iter(WAITS)
        while True:
            try:
                if rows is None:
                    rows = self._open()
                row = next(rows)
            except StopIteration:
                return
            except Exception as error:  # of any library that transfers the bytes
                if not _is_network(error):
                    raise self._unreadable(error, f" after {self.number:,} records") from None
                self._wait(error, next(waits, None))
                rows = None
                continue
            self.number += 1
            if self.number % KEEP_EVERY == 0:
                self._kept = (self.number, self.state)
            waits = iter(WAITS)
            yield self.number, row

    def _open(self) -> Iterator[Any]:
        """The rows after those already returned, from the nearest state that was kept."""
        import datasets

        # Streamed, so that with a limit on the bytes no more is downloaded of a corpus of terabytes than needed.
        dataset = datasets.load_dataset(
            self.config.path, name=self.config.subset, split=self.config.split, streaming=True
        )
        number, state = self._kept
        if state is not None:
            dataset.load_state_dict(state)
        self._dataset = dataset
        return itertools.islice(dataset, self.number - number, None)

    def _unreadable(self, error: Exception, where: str = "") -> UserError:
        return UserError(f"'{self.key}.path': Hub dataset {self.config.path} cannot be read{where}: {_line(error)}")

    def _wait(self, error: Exception, seconds: float | None) -> None:
        where = f"Hub dataset {self.config.path} disconnected after {self.number:,} records"
        if seconds is None:
            raise UserError(
                f"'{self.key}.path': {where} ({_line(error)}); rerun the same command to resume there"
            ) from None
        tqdm.write(f"{where} ({_line(error)}); retrying in {seconds} seconds", file=sys.stderr)
        time.sleep(seconds)


def _is_network(error: Exception) -> bool:
    libraries = {cls.__module__.split(".")[0] for cls in type(error).__mro__}
    return isinstance(error, (OSError, EOFError)) or bool(libraries & _NETWORK)


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

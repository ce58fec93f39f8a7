"""Progress bars with rate and time left: shown on a terminal, left out of logs."""

from functools import partial

from tqdm import tqdm

progress_bar = partial(tqdm, disable=None)

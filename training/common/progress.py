"""Progress bars with rate and time left, shown only on a terminal."""

from functools import partial

from tqdm import tqdm

progress_bar = partial(tqdm, disable=None)

"""A head through training: an animation (GIF, and MP4 where ffmpeg is installed), and a strip of frames for print."""

import math
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.common.errors import one_line
from training.common.files import open_whole
from training.common.progress import progress_bar
from training.insight.heads import Head, head_name, scores_of
from training.insight.measures import MEASURES
from training.insight.record import Probe, Record, probability
from training.plots.insight.maps import add_scale, describe_probe, draw_map, hidden_future
from training.plots.style import COLOURS, FAINT, caption, drawing, label_ends, rounded_count, save, short_name

_SIZE = (9.0, 6.4)  # inches
_DPI = 100
_FRAME = 220  # milliseconds; the first and last frames stay longer
_STAYS = 10  # times
_PRINTED = 6  # frames of the strip


@dataclass(frozen=True)
class HeadFilm:
    """One head of a record, to be drawn through training.

    Attributes:
        measure: a name of `MEASURES`, whose curve is drawn below the maps.
    """

    record: Record
    head: Head
    measure: str

    @property
    def shown(self) -> list[int]:
        """The probes drawn: random tokens repeated, and the first text, since a head rarely does the same on both."""
        kinds = [probe.kind for probe in self.record.probes]
        repeated = [place for place, kind in enumerate(kinds) if kind == "repeated"]
        texts = [place for place, kind in enumerate(kinds) if kind != "repeated"]
        return repeated[:1] + texts[:1]

    def maps(self, step: int) -> list[Any]:
        """The attention of the head at a step, (tokens, tokens) for each probe shown."""
        attention = self.record.snapshot(step).attention
        return [probability(attention[place][self.head]) for place in self.shown]

    def curve(self, kind: str) -> list[float]:
        """The measure at each captured step, on a kind of sequences."""
        return [getattr(scores, self.measure) for scores in scores_of(self.record, self.head, kind)]

    @property
    def probes(self) -> list[Probe]:
        return [self.record.probes[place] for place in self.shown]

    @property
    def name(self) -> str:
        """The measure in words."""
        return self.measure.replace("_", "-")

    @property
    def sentence(self) -> str:
        """The measure, and what to look for, below a picture."""
        return f"{self.name.capitalize()}: {MEASURES[self.measure]}"


def draw_film(film: HeadFilm, folder: Path, title: str) -> list[str]:
    """Write `head-1.3.gif` and, where ffmpeg is installed, `head-1.3.mp4`: a frame for each captured step.

    Returns:
        The names of the files.
    """
    import numpy as np
    from PIL import Image

    stem = f"head-{head_name(film.head)}"
    frames = list(_frames(film, title))
    palette = Image.fromarray(np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])).quantize(256)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with open_whole(folder / f"{stem}.gif") as stream:
        images[0].save(
            stream, format="GIF", save_all=True, append_images=images[1:], duration=_durations(len(images)), loop=0
        )
    written = [f"{stem}.gif"]
    if shutil.which("ffmpeg"):
        _write_mp4(frames, folder / f"{stem}.mp4")
        written.append(f"{stem}.mp4")
    return written


def draw_frames(film: HeadFilm, files: Sequence[Path], title: str) -> None:
    """Draw frames of captured steps evenly spread, side by side for print.

    Args:
        film: of at least two steps.
        files: images to write, such as a PNG and a PDF.
    """
    steps, count = film.record.steps, min(_PRINTED, len(film.record.steps))
    chosen = [round(place * (len(steps) - 1) / max(1, count - 1)) for place in range(count)]
    with drawing() as pyplot:
        rows = len(film.probes)
        side = 1.75 if count > 2 else 2.6  # inches
        size = (side * count + 1.2, (side + 0.1) * rows + 1.0)
        figure, grid = pyplot.subplots(rows, count, figsize=size, squeeze=False)
        figure.suptitle(short_name(title, int(9 * size[0])), x=0.01, ha="left", fontsize=11, fontweight="bold")
        for column, place in enumerate(chosen):
            for row, (probe, attention) in enumerate(zip(film.probes, film.maps(steps[place].step))):
                axes = grid[row, column]
                image = draw_map(axes, attention, probe.tokens, labels=False)
                if not column:
                    axes.set_ylabel(describe_probe(probe), fontsize=9)
                curve = film.curve(probe.kind)  # none of a text of the user's
                if curve:
                    axes.set_xlabel(f"{film.name} {curve[place]:.2f}", fontsize=8.5)
            tokens = f"{rounded_count(steps[place].tokens)} tokens"
            grid[0, column].set_title(tokens, fontsize=9.5, pad=5)
        add_scale(figure, image, grid, shrink=0.8, aspect=30)
        caption(figure, film.sentence)
        for file in files:
            save(figure, file)


def draw_moment(film: HeadFilm, files: Sequence[Path], title: str) -> None:
    """Draw the maps of the last captured step side by side, with their tokens.

    Args:
        files: images to write, such as a PNG and a PDF.
    """
    with drawing() as pyplot:
        size = (4.6 * len(film.probes) + 1.4, 5.8)
        figure, (row,) = pyplot.subplots(1, len(film.probes), figsize=size, squeeze=False)
        figure.suptitle(short_name(title, int(9 * size[0])), x=0.01, ha="left", fontsize=11, fontweight="bold")
        for axes, probe, attention in zip(row, film.probes, film.maps(film.record.steps[-1].step)):
            image = draw_map(axes, attention, probe.tokens)
            curve = film.curve(probe.kind)
            score = f": {film.name} {curve[-1]:.2f}" if curve else ""
            axes.set_title(describe_probe(probe) + score, fontsize=9.5, pad=5)
        add_scale(figure, image, row, shrink=0.8, aspect=30)
        caption(figure, film.sentence)
        for file in files:
            save(figure, file)


def _frames(film: HeadFilm, title: str) -> Iterator[Any]:
    """The frames, (height, width, 3) uint8 each. The figure is drawn once; for each frame only what changes."""
    import numpy as np

    steps = film.record.steps
    with drawing(figure_dpi=_DPI) as pyplot:
        figure = pyplot.figure(figsize=_SIZE)
        above, below = figure.subfigures(2, 1, height_ratios=(4.2, 1.8))
        maps = above.subplots(1, len(film.probes), squeeze=False)[0]
        heading = figure.suptitle("", x=0.01, ha="left", fontsize=12, fontweight="bold")
        images = []
        for axes, probe, attention in zip(maps, film.probes, film.maps(steps[-1].step)):
            images.append(draw_map(axes, attention, probe.tokens))
            axes.set_title(describe_probe(probe), pad=6, fontsize=10)
        maps[0].set(ylabel="query")
        add_scale(above, images[0], list(maps), shrink=0.7, aspect=30)
        markers = _draw_curves(below.subplots(), film)
        caption(below, film.sentence)
        changing = [heading, *images, *(marker for marker, _ in markers)]
        for place, scores in enumerate(progress_bar(steps, desc="animation", unit="frame", leave=False)):
            heading.set_text(f"{title}: step {scores.step:,}, {rounded_count(scores.tokens)} tokens")
            for image, attention in zip(images, film.maps(scores.step)):
                image.set_data(hidden_future(attention))
            for marker, curve in markers:
                marker.set_data([place], [curve[place]])
            if not place:
                background = _draw_background(figure, changing)
            figure.canvas.restore_region(background)
            for artist in changing:
                figure.draw_artist(artist)
            yield np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _draw_background(figure: Any, changing: list[Any]) -> Any:
    """Lay the figure out and draw it without what changes from frame to frame."""
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for artist in changing:
        artist.set_animated(True)
    figure.canvas.draw()
    return figure.canvas.copy_from_bbox(figure.bbox)


def _draw_curves(axes: Any, film: HeadFilm) -> list[tuple[Any, list[float]]]:
    """Draw the measure over captured steps; returns a marker for each curve, and its values."""
    steps, markers, labels = film.record.steps, [], []
    for kind, name, colour, style in (
        ("repeated", "random tokens,\nrepeated", COLOURS[0], "-"),
        ("held_out", "held-out text", COLOURS[5], "--"),
    ):
        curve = film.curve(kind)
        if any(map(math.isfinite, curve)):
            axes.plot(range(len(curve)), curve, color=colour, linestyle=style, linewidth=1.6)
            labels.append((curve[-1], name, colour))
            markers.append((axes.plot([0], curve[:1], "o", color=colour, markersize=7, clip_on=False)[0], curve))
    labelled = sorted({round(place * (len(steps) - 1) / 7) for place in range(8)})
    axes.set_xticks(labelled, [rounded_count(steps[place].tokens) for place in labelled])
    axes.set(xlabel="training tokens", xlim=(-0.5, len(steps) - 0.5))
    axes.set_title(f"{film.name.capitalize()} score", fontsize=10, pad=6)
    label_ends(axes, labels, apart=0.45)
    axes.axhline(0, color=FAINT, linewidth=0.6)
    axes.grid()
    return markers


def _durations(count: int) -> list[int]:
    """Milliseconds of each frame."""
    return [_FRAME * (_STAYS if place == count - 1 else 4 if not place else 1) for place in range(count)]


def _write_mp4(frames: list[Any], file: Path) -> None:
    """Encode frames with ffmpeg, each as long as in the GIF. A failure is a warning; the GIF shows the same."""
    height, width, _ = frames[0].shape
    command = ["ffmpeg", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}"]
    command += ["-r", f"1000/{_FRAME}", "-i", "-", "-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2", "-pix_fmt", "yuv420p"]
    repeated = [frame for frame, time in zip(frames, _durations(len(frames))) for _ in range(time // _FRAME)]
    done = subprocess.run(
        [*command, str(file)], input=b"".join(frame.tobytes() for frame in repeated), capture_output=True
    )
    if done.returncode:
        file.unlink(missing_ok=True)
        reason = one_line(done.stderr.decode(errors="replace"))[:150]
        print(f"attention: warning: ffmpeg could not write {file.name} ({reason})")

"""Runs in words: how each stands, its figures by name, and lines for where there is no terminal."""

import time
from dataclasses import dataclass
from typing import Any

from training.chat.terminal import VISIBLE
from training.common.errors import one_line
from training.common.metrics import as_duration
from training.tuning.figures import FIGURES
from training.watching.growing import number
from training.watching.run import Run, State

# Name in heads.jsonl: probe, and its name on the screen.
MEASURES = {
    "induction": ("repeated", "induction"),
    "previous_token": ("repeated", "previous token"),
    "copying": ("repeated", "copying"),
    "first_token": ("held_out", "first token"),
}
WAITING = "waiting for the next stage to begin"
_UNITS = (("TB", 2**40), ("GB", 2**30), ("MB", 2**20))


@dataclass(frozen=True)
class Figure:
    """A figure with its name, as shown."""

    name: str
    value: str


def printable(text: str) -> str:
    """Text without control characters, which could change the screen: as visible symbols; tabs as blanks."""
    return text.expandtabs(4).translate(VISIBLE)


def state_of(run: Run, now: float) -> str:
    """The state of a run, on one line."""
    if run.state is State.RUNNING:
        seconds = run.seconds(now)
        return "running" if seconds is None else f"running for {as_duration(seconds)}"
    if run.state is State.ELSEWHERE:
        news = f", last news {as_duration(now - run.figures.marks[-1].when)} ago" if run.figures.marks else ""
        return f"on {printable(run.holder.host)}{news}"
    if run.state is State.FINISHED:
        seconds = run.seconds(now)
        return "finished" if seconds is None else f"finished in {as_duration(seconds)}"
    if run.state is State.KILLED:
        return "killed, as when memory runs out; the same command resumes"
    reason = printable(one_line(run.reason))
    return reason if run.state is State.STOPPED and reason.startswith("stopped") else f"{run.state.value}: {reason}"


def progress_of(run: Run, now: float) -> str:
    """Steps done, and the time left while it runs."""
    total = run.total_steps
    done = f"step {run.figures.step:,}" + (f"/{total:,}" if total else "")
    left = None if run.state.over else run.figures.seconds_left(total, now)
    return done if left is None else f"{done}, {as_duration(left)} left"


def figures_of(run: Run) -> list[Figure]:
    """The newest figures of a run that are known, in the order of their importance."""
    newest, found = run.figures.newest, []

    def add(name: str, key: str, form: str) -> None:
        if key in newest:
            found.append(Figure(name, form.format(newest[key])))

    add("loss", "loss", "{:.3f}")
    add("bits/byte", "bits_per_byte", "{:.3f}")
    if run.figures.validations:
        step, value = run.figures.validations[-1]
        found.append(Figure("validation", f"{value:.3f} at step {step:,}"))
    for key, form in FIGURES.get(run.stage, {}).items():
        prefix = "" if key in newest else "eval_"
        if prefix + key in newest:
            found.append(Figure("", form.format(newest[prefix + key])))
    add("lr", "learning_rate", "{:.2g}")
    add("gradient", "grad_norm", "{:.2g}")
    rate = run.figures.tokens_per_second()
    if rate is not None:
        found.append(Figure("", f"{rate:,.0f} tokens/s"))
    add("MFU", "mfu", "{:.0%}")
    if memory := memory_of(run):
        found.append(Figure("memory", memory))
    if run.incidents:
        found.append(Figure("incidents", f"{run.incidents} (the last: {printable(run.incident)})"))
    return found


def memory_of(run: Run) -> str | None:
    """The memory of the process at work, if it is on this machine."""
    if run.state is not State.RUNNING or not run.holder:
        return None
    import psutil

    try:
        used = psutil.Process(run.holder.pid).memory_info().rss
    except psutil.Error:
        return None
    return next((f"{used / size:.1f} {unit}" for unit, size in _UNITS if used >= size), f"{used:,} bytes")


def line_of(run: Run, record: dict[str, Any]) -> str | None:
    """A record of metrics.jsonl as a line; None for one without a loss."""
    step, loss = number(record, "step"), number(record, "loss")
    if step is None:
        return None
    if loss is None:
        loss = number(record, "validation_loss")
        loss = number(record, "eval_loss") if loss is None else loss
        return None if loss is None else f"step {step:.0f}: validation loss {loss:.3f}"
    parts = [f"loss {loss:.3f}"]
    named = {"bits_per_byte": "{:.3f} bits/byte"} | FIGURES.get(run.stage, {})
    named |= {"learning_rate": "lr {:.2g}", "tokens_per_second": "{:,.0f} tokens/s", "mfu": "MFU {:.0%}"}
    parts += [form.format(value) for key, form in named.items() if (value := number(record, key)) is not None]
    total = run.total_steps
    return f"step {step:.0f}{f'/{total}' if total else ''}: {', '.join(parts)}"


def last_line(run: Run) -> str:
    """The state of a run and its last figures, for the end."""
    now = time.time()
    figures = ", ".join(f"{figure.name} {figure.value}".strip() for figure in figures_of(run)[:3])
    return f"{state_of(run, now)}; {progress_of(run, now)}{f', {figures}' if figures else ''}"

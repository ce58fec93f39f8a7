"""Profiling of a pretraining run: seconds by part of the loop (`Spans`), and a trace of every operator (`Profiler`)."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from torch.profiler import ProfilerActivity, record_function

from modeling_scratch.loss_scratch import CausalLMLoss
from modeling_scratch.modeling_scratch import ScratchAttention, ScratchMLP, ScratchModel, ScratchRMSNorm
from training.common.device import synchronize

PARTS: dict[type[nn.Module], str] = {
    ScratchAttention: "forward: attention",
    ScratchMLP: "forward: MLP",
    ScratchRMSNorm: "forward: norms",
    nn.LayerNorm: "forward: norms",
    CausalLMLoss: "forward: loss",
    ScratchModel: "forward: embedding, residual stream, compiled layers",
}
# Steps before timing, for compilation and caches; steps timed; and, after a warm-up step of the tracer, steps traced.
WARMUP, TIMED, TRACED = 3, 10, 3


class Spans:
    """Seconds by name: `with spans("optimizer"): ...`. Time in nested spans counts for the innermost one.

    On CUDA devices the borders of spans are events in the stream. A span is then the time that the device worked on it
    or waited for it; what the CPU does meanwhile does not count.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._open: list[tuple[str, record_function]] = []
        self.reset()

    def reset(self) -> None:
        """Forget all times and count from here."""
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.wall, self._passed = 0.0, []
        self.resume()

    def stop(self) -> None:
        """Count nothing until `resume`."""
        self._turn()
        synchronize(self.device)
        for name, start, end in self._passed:
            self.seconds[name] += start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start
        self._passed.clear()
        self.wall += time.perf_counter() - self._wall_since
        self._counting = False

    def resume(self) -> None:
        """Count again after `stop`."""
        self._counting, self._wall_since, self._since = True, time.perf_counter(), self._now()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        """Open a span inside those that are open."""
        self._turn()
        self.counts[name] += self._counting
        label = record_function(name)  # the same name in a trace
        label.__enter__()
        self._open.append((name, label))

    def leave(self) -> None:
        """Close the innermost span."""
        self._turn()
        self._open.pop()[1].__exit__(None, None, None)

    @property
    def outermost(self) -> str | None:
        """The name of the outermost open span."""
        return self._open[0][0] if self._open else None

    def _now(self) -> float | torch.cuda.Event:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _turn(self) -> None:
        """Count the time since the last switch for the innermost span."""
        now = self._now()
        if self._open and self._counting:
            self._passed.append((self._open[-1][0], self._since, now))
        self._since = now

    def table(self, steps: int) -> str:
        """Milliseconds per step and fraction of the wall time of every span, in the order of their first use."""
        rows = {**self.seconds, "the rest": max(0.0, self.wall - sum(self.seconds.values()))}
        lines = [f"{f'means of {steps} steps':52}{'ms/step':>10}{'share':>9}"]
        lines += [f"{name:52}{spent / steps * 1000:10.2f}{spent / self.wall:9.1%}" for name, spent in rows.items()]
        lines.append(f"{'a step':52}{self.wall / steps * 1000:10.2f}{1:9.1%}")
        return "\n".join(lines)


def span_parts(model: nn.Module, spans: Spans) -> None:
    """Time the parts of the network as separate spans inside `forward`, from now on.

    A compiled module counts for the module around it, because hooks inside would break its graph.
    """
    name = PARTS.get(type(model))
    if name:
        # Not in validations, nor when the backward pass recomputes activations.
        model.register_forward_pre_hook(lambda *_: spans.enter(name) if spans.outermost == "forward" else None)
        model.register_forward_hook(lambda *_: spans.leave() if spans.outermost == "forward" else None)
    for child in model.children():
        if child._compiled_call_impl is None:
            span_parts(child, spans)


class Profiler:
    """Times some steps of a run, traces some more and writes a report. Call `step` after every step.

    Args:
        folder: where to write `trace.json.gz` (open it with https://ui.perfetto.dev) and `table.txt`.
    """

    steps_needed = WARMUP + TIMED + 1 + TRACED

    def __init__(self, folder: Path, spans: Spans):
        self.folder, self.spans = folder, spans
        self.steps = self.timed_steps = 0
        self.operators = ""
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (spans.device.type == "cuda")
        schedule = torch.profiler.schedule(skip_first=WARMUP + TIMED, wait=0, warmup=1, active=TRACED, repeat=1)
        self.profile = torch.profiler.profile(
            activities=activities, schedule=schedule, on_trace_ready=self._write_trace, acc_events=True
        )
        folder.mkdir(exist_ok=True)
        self.profile.start()

    def step(self) -> str:
        """Count a step; return the report to print, which is empty after most steps."""
        self.steps += 1
        self.timed_steps += WARMUP < self.steps <= WARMUP + TIMED or self.steps > self.steps_needed
        if self.steps == WARMUP:
            self.spans.reset()
        elif self.steps == WARMUP + TIMED:
            self.spans.stop()  # tracing slows the steps down
        self.profile.step()
        if self.steps != self.steps_needed:
            return ""
        report = f"profile: wrote {self.folder}/trace.json.gz (for ui.perfetto.dev) and table.txt\n{self._report()}"
        self.spans.resume()
        return report

    def finish(self) -> str:
        """Stop; return the report of the whole run, validations and checkpoints included."""
        self.profile.stop()
        self.spans.stop()
        if self.steps < self.steps_needed:
            return f"profile: nothing was traced: the run needs at least {self.steps_needed} steps\n"
        return f"profile: the whole run\n{self._report()}"

    def _report(self) -> str:
        grouped = f"{self.spans.table(self.timed_steps)}\n"
        table = f"{grouped}\n{TRACED} steps, by operator\n{self.operators}"
        (self.folder / "table.txt").write_text(table, encoding="utf-8")
        return grouped

    def _write_trace(self, profile: torch.profiler.profile) -> None:
        by = "self_device_time_total" if self.spans.device.type == "cuda" else "self_cpu_time_total"
        self.operators = profile.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=50)
        profile.export_chrome_trace(str(self.folder / "trace.json.gz"))

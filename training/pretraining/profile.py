"""Where the time of a training goes: the parts of its loop for people, and a trace of every operator for the rest."""

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
from training.pretraining.throughput import synchronize

PARTS: dict[type[nn.Module], str] = {
    ScratchAttention: "forward: attention",
    ScratchMLP: "forward: MLP",
    ScratchRMSNorm: "forward: norms",
    nn.LayerNorm: "forward: norms",
    CausalLMLoss: "forward: loss",
    ScratchModel: "forward: embedding, residual stream, compiled layers",
}
# Steps until compilation and caches have settled, steps to time, and steps to trace after one more of warm-up.
WARMUP, TIMED, TRACED = 3, 10, 3


class Spans:
    """Seconds by name: `with spans("optimizer"): ...`. Time in a span within a span is the inner one's.

    On a CUDA card the borders are events in its stream: a span has the time for which the card was busy with it or
    waited for it, and what the processor does meanwhile costs nothing.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._open: list[tuple[str, record_function]] = []
        self.reset()

    def reset(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.counts: dict[str, int] = defaultdict(int)
        self.wall, self._passed = 0.0, []
        self.go_on()

    def stop(self) -> None:
        """Count nothing until `go_on`."""
        self._turn()
        synchronize(self.device)
        for name, start, end in self._passed:
            self.seconds[name] += start.elapsed_time(end) / 1000 if self.device.type == "cuda" else end - start
        self._passed.clear()
        self.wall += time.perf_counter() - self._wall_since
        self._counting = False

    def go_on(self) -> None:
        self._counting, self._wall_since, self._since = True, time.perf_counter(), self._now()

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self.enter(name)
        try:
            yield
        finally:
            self.leave()

    def enter(self, name: str) -> None:
        self._turn()
        self.counts[name] += self._counting
        label = record_function(name)  # the same name in a trace
        label.__enter__()
        self._open.append((name, label))

    def leave(self) -> None:
        self._turn()
        self._open.pop()[1].__exit__(None, None, None)

    @property
    def outermost(self) -> str | None:
        return self._open[0][0] if self._open else None

    def _now(self) -> float | torch.cuda.Event:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _turn(self) -> None:
        """Put the time since the last border down to the innermost span."""
        now = self._now()
        if self._open and self._counting:
            self._passed.append((self._open[-1][0], self._since, now))
        self._since = now

    def table(self, steps: int) -> str:
        """Milliseconds a step and share of the wall time for every span, in the order of their first use."""
        rows = {**self.seconds, "the rest": max(0.0, self.wall - sum(self.seconds.values()))}
        lines = [f"{f'means of {steps} steps':52}{'ms/step':>10}{'share':>9}"]
        lines += [f"{name:52}{spent / steps * 1000:10.2f}{spent / self.wall:9.1%}" for name, spent in rows.items()]
        lines.append(f"{'a step':52}{self.wall / steps * 1000:10.2f}{1:9.1%}")
        return "\n".join(lines)


def span_parts(model: nn.Module, spans: Spans) -> None:
    """Give the parts of the network spans of their own while `forward` is open, for the life of the model.

    A compiled module is one span of the module around it: hooks inside would break its graph.
    """
    name = PARTS.get(type(model))
    if name:
        # Neither in a validation nor when the backward pass computes activations again.
        model.register_forward_pre_hook(lambda *_: spans.enter(name) if spans.outermost == "forward" else None)
        model.register_forward_hook(lambda *_: spans.leave() if spans.outermost == "forward" else None)
    for child in model.children():
        if child._compiled_call_impl is None:
            span_parts(child, spans)


class Profiler:
    """Times a few steps of a training, traces a few more, and reports both in `folder`. Call `step` after every step.

    Args:
        folder: gets `trace.json.gz`, for https://ui.perfetto.dev, and `table.txt`.
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
        """What there is to print after this step, mostly nothing."""
        self.steps += 1
        self.timed_steps += WARMUP < self.steps <= WARMUP + TIMED or self.steps > self.steps_needed
        if self.steps == WARMUP:
            self.spans.reset()
        elif self.steps == WARMUP + TIMED:
            self.spans.stop()  # tracing takes time
        self.profile.step()
        if self.steps != self.steps_needed:
            return ""
        report = f"profile: wrote {self.folder}/trace.json.gz (for ui.perfetto.dev) and table.txt\n{self._report()}"
        self.spans.go_on()
        return report

    def finish(self) -> str:
        """The same for the whole run, with all its validations and checkpoints."""
        self.profile.stop()
        self.spans.stop()
        if self.steps < self.steps_needed:
            return f"profile: nothing was traced, for that takes {self.steps_needed} steps\n"
        return f"profile: the whole run\n{self._report()}"

    def _report(self) -> str:
        grouped = f"{self.spans.table(self.timed_steps)}\n"
        (self.folder / "table.txt").write_text(f"{grouped}\n{TRACED} steps, by operator\n{self.operators}")
        return grouped

    def _write_trace(self, profile: torch.profiler.profile) -> None:
        by = "self_device_time_total" if self.spans.device.type == "cuda" else "self_cpu_time_total"
        self.operators = profile.key_averages().table(sort_by=by, row_limit=30, max_name_column_width=50)
        profile.export_chrome_trace(str(self.folder / "trace.json.gz"))

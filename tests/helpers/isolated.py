"""Programs run by one server of the sandbox."""

from dataclasses import asdict

from training.sandbox import Outcome, SandboxLimits
from training.sandbox.pool import Worker


def run(worker: Worker, program: str, tests: str | None = None, **limits) -> Outcome:
    """The outcome of a program, with these limits and the usual others."""
    return worker.run({"program": program, "tests": tests, "limits": asdict(SandboxLimits(**limits))})

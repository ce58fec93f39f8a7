"""Run Python that a model wrote, behind walls of the kernel. What they hold, and what not: docs/sandbox.md."""

from training.sandbox.pool import Limits, Outcome, check_isolation, run_all, run_python

__all__ = ["Limits", "Outcome", "check_isolation", "run_all", "run_python"]

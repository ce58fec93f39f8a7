"""Run Python that a model wrote, isolated by the kernel; what is isolated and what is not: docs/sandbox.md."""

from training.sandbox.pool import Outcome, SandboxLimits, check_isolation, run_all, run_python

__all__ = ["Outcome", "SandboxLimits", "check_isolation", "run_all", "run_python"]

"""Run Python that a model wrote, isolated by the kernel; what is isolated and what is not: docs/sandbox.md."""

from typing import Any

__all__ = ["Outcome", "SandboxLimits", "check_isolation", "run_all", "run_python"]


def __getattr__(name: str) -> Any:
    # Imported when used: the fork server imports this package too, and every page that it does not fill makes its forks
    # cheaper.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from training.sandbox import pool

    return getattr(pool, name)

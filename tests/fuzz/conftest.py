"""The two lanes: a short one with fixed cases, and `--hypothesis-profile=long` with new ones."""

import os

from hypothesis import HealthCheck, Phase, settings

CASES = int(os.environ.get("FUZZ_CASES", 10_000))  # of the long lane, for each reader and command
quiet = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("short", max_examples=20, derandomize=True, database=None, phases=[Phase.generate], **quiet)
settings.register_profile("long", max_examples=CASES, **quiet)

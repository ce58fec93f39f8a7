"""The metrics that two runs of the same recipe may not share."""

# They depend on the machine and the moment; all others are the same whenever a recipe is run again.
TIMINGS = ("seconds", "tokens_per_second", "mfu", "peak_memory_bytes")

"""The bench: what scripts/bench runs. docs/BENCHMARKS.md says what the figures mean."""

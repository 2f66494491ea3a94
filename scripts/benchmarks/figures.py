"""The figures of all runs, and what is computed from them."""

import statistics
import sys


def percentile_99(times):
    """Returns the 99th percentile in milliseconds of a list of seconds."""
    return sorted(times)[min(len(times) - 1, len(times) * 99 // 100)] * 1000


class Figures:
    """For each step and system, a list with the values of each run."""

    def __init__(self):
        self.found, self.peaks, self.versions = {}, {}, {}
        # The phase in which a system could not go on.
        self.stopped = {}

    def add(self, system, step, **values):
        self.found.setdefault(step, {}).setdefault(system, []).append(values)
        shown = ", ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in values.items() if value is not None)
        print(f"  {system:9} {step:16} {shown}", file=sys.stderr)

    def add_peak(self, system, mebibytes):
        self.peaks[system] = max(self.peaks.get(system, 0), mebibytes)

    def runs(self, step, system):
        return self.found.get(step, {}).get(system, [])

    def has_failed(self, step, system):
        return any("failed" in run for run in self.runs(step, system))

    def is_scaled(self, step, system):
        return any(run.get("scaled") for run in self.runs(step, system))

    def values(self, step, system, key):
        """Returns the values of one key in all runs. `time` is the durable time, or where nothing is made durable the time itself."""
        runs = self.runs(step, system)
        if key == "time":
            found = [run.get("durable") if run.get("durable") is not None else run.get("seconds") for run in runs]
        else:
            found = [run.get(key) for run in runs]
        return [value for value in found if value is not None]

    def median(self, step, system, key):
        """Returns the median of all runs; None if a run failed, because the others may be the lucky ones."""
        values = self.values(step, system, key)
        return statistics.median(values) if values and not self.has_failed(step, system) else None

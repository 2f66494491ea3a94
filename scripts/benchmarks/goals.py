"""The goals: for each its bound, computed from the figures of the same run, and whether it is reached.

A time in seconds holds at 20 ms per request. A goal whose step was not measured, or failed, is listed as not measured.
"""

# The default of --memory and 64 MiB; what inodes that the kernel references take is not known here.
MEBIBYTES_MAX = 256 + 64


class Measured:
    """The medians of a run, with the sizes that goals are scaled by."""

    def __init__(self, options, figures):
        self.options, self.figures = options, figures
        self.round_trip_ms = options.delay or None

    def get(self, step, key="time", system="rewindfs"):
        return self.figures.median(step, system, key)

    def nothing(self, step, key="time"):
        return self.get(step, key, "nothing")

    def round_trips(self, count, more=0.0):
        return None if self.round_trip_ms is None else count * self.round_trip_ms + more

    def rate(self, step, system="rewindfs"):
        """Returns MiB a second of a stream."""
        seconds = self.get(step, system=system)
        return self.options.mebibytes / seconds if seconds else None

    def per_gibibyte(self, step, key):
        return times(self.get(step, key), 1024 / self.options.mebibytes)

    def scale(self):
        one, many = (self.get(f"clients-{count}", "per_second") for count in (1, 16))
        return many / one if one and many else None

    def is_full(self):
        """Whether the daemon kept a core busy with 16 clients."""
        cpu, seconds = self.get("clients-16", "cpu"), self.get("clients-16")
        return cpu is not None and bool(seconds) and cpu / seconds >= 0.9


def times(value, factor):
    return None if value is None else value * factor


class Goal:
    """A goal and, once it is judged, its bound, what was measured, and the factor: 1 is the bound, more is missed.

    `bound` is a number, or a function of the figures. With `least` more is better. `excuse` says that a missed bound is reached all the same.
    """

    def __init__(self, name, bound_text, unit, bound, measured, least=False, excuse=None):
        self.name, self.bound_text, self.unit, self.least = name, bound_text, unit, least
        self.to_bound, self.to_measured, self.excuse = bound, measured, excuse
        self.bound = self.measured = self.factor = None
        self.verdict = "not measured"

    def is_relative(self):
        """Whether the bound depends on other figures of the run."""
        return callable(self.to_bound)

    def judge(self, found):
        self.bound = self.to_bound(found) if self.is_relative() else self.to_bound
        self.measured = self.to_measured(found)
        if self.bound is None or self.measured is None:
            return self
        best, worst = (self.bound, self.measured) if not self.least else (self.measured, self.bound)
        self.factor = worst / best if best else (0.0 if not worst else float("inf"))
        reached = self.factor <= 1 or (self.excuse is not None and self.excuse(found))
        self.verdict = "reached" if reached else "missed"
        return self

    def as_json(self):
        factor = None if self.factor == float("inf") else self.factor
        return {"goal": self.name, "bound": self.bound, "unit": self.unit, "measured": self.measured, "factor": factor, "verdict": self.verdict}


def against_nothing(name, step, factor):
    words = f"<= {factor} x do-nothing FUSE"
    return Goal(name, words, "s", lambda found: times(found.nothing(step), factor), lambda found: found.get(step))


def at_most(name, step, value, unit="s", key="time"):
    return Goal(name, f"<= {value} {unit}".rstrip(), unit, value, lambda found: found.get(step, key))


def rate_at_least(name, words, step, bound):
    """A rate of operations, of which more is better."""
    return Goal(name, words, "/s", bound, lambda found: found.get(step, "per_second"), least=True)


def against_raw(name, step):
    bound = lambda found: times(found.rate(step, "raw"), 0.9)
    return Goal(name, ">= 0.9 x raw", "MiB/s", bound, lambda found: found.rate(step), least=True)


def one_round_trip(name, step, key):
    return Goal(name, "<= 1.1 round trips", "ms", lambda found: found.round_trips(1.1), lambda found: found.get(step, key))


def per_gibibyte(name, step, value, unit, key):
    return Goal(f"{name}, a GiB", f"<= {value} {unit}".rstrip(), unit, value, lambda found: found.per_gibibyte(step, key))


def first_table(options):
    """The goals for the daily work."""
    files = options.files
    reads, writes = "random 4 KiB reads cold", "random 4 KiB writes, durable"
    return [
        against_nothing(f"create {files:,} x 4 KiB, durable", "create", 1.3),
        at_most("daemon's CPU for it", "create", 2.0 * files / 10000, key="cpu"),
        against_nothing("untar", "untar", 1.2),
        against_nothing("`rm -rf`", "rm", 1.5),
        at_most("rename a directory + fsync", "rename", 0.05, key="seconds"),
        at_most("rename it back + fsync", "rename-back", 0.05, key="seconds"),
        at_most("`ls -lR` cold", "list-cold", 0.2),
        at_most("`ls -lR` warm", "list-warm", 0.12),
        at_most("`ls -lR` after a remount, cache kept", "list-kept", 0.15),
        against_nothing("git clone", "clone", 1.3),
        against_raw("write + fsync, durable", "write"),
        against_raw("read cold", "read-cold"),
        per_gibibyte("GETs of a cold read", "read-cold", 160, "", "get"),
        per_gibibyte("daemon's CPU of a cold read", "read-cold", 1.2, "s", "cpu"),
        one_round_trip(f"{reads}, 4 threads, p99", "random-read-4", "p99_ms"),
        rate_at_least(f"{reads}, 16 threads", "more than with 4", "random-read-16", lambda found: found.get("random-read-4", "per_second")),
        # The goal is to keep what was reached: 10,700 a second, where the do-nothing file system had 17,900.
        rate_at_least(writes, ">= 0.6 x do-nothing FUSE", "random-write", lambda found: times(found.nothing("random-write", "per_second"), 0.6)),
        one_round_trip("append 100 bytes + fsync", "append", "each_ms"),
        rate_at_least("sqlite inserts, wal", ">= 46 /s", "sqlite-wal", 46),
        rate_at_least("sqlite inserts, delete", ">= 15 /s", "sqlite-delete", 15),
        Goal("peak memory over all", f"<= {MEBIBYTES_MAX} MiB", "MiB", MEBIBYTES_MAX, lambda found: found.figures.peaks.get("rewindfs")),
        at_most("idle mount", "idle", 0.1, "requests/s", "requests_per_second"),
        at_most("idle read-only mount beside it", "idle-follower", 1, "requests/s", "requests_per_second"),
        at_most(f"mount after kill -9 and {options.fsyncs:,} fsyncs", "crash-kept", 2),
        at_most("the same, cache deleted", "crash-wiped", 2),
    ]


def beyond(options):
    """The goals for history, many clients, and bytes."""
    behind, one = f"{options.behind:,} versions behind each file", f"{options.versions:,} versions of a file"

    def ratio(name, step, words="<= 1.1 x without"):
        return Goal(name, words, "x", 1.1, lambda found: found.get(step, "ratio"))

    def beside(name, step):
        def bound(found):
            alone = found.get("reads-alone", "each_ms")
            return None if alone is None else found.round_trips(2, alone)

        return Goal(name, "<= 2 round trips more than alone", "ms", bound, lambda found: found.get(step, "each_ms"))

    def bytes_up(name, step, value):
        return Goal(name, f"<= {value}", "", value, lambda found: found.get(step, "up_per_byte"))

    return [
        ratio(f"create, {behind}", "history-create"),
        ratio(f"overwrite, {behind}", "history-overwrite"),
        ratio(f"append + fsync, {behind}", "history-append"),
        ratio(f"`ls -l` cold, {behind}", "history-list"),
        ratio(f"read cold, {behind}", "history-read"),
        ratio(f"append + fsync, {one}", "deep-append", "<= 1.1 x with 10"),
        ratio(f"read cold, {one}", "deep-read", "<= 1.1 x with 10"),
        ratio(f"list the names, {one}", "deep-names", "<= 1.1 x a directory of as many files"),
        ratio(f"`ls -l`, {one}", "deep-list", "<= 1.1 x a directory of as many files"),
        # Less is right where a core is full.
        Goal("16 clients on 16 files", ">= 0.8 x 16, or a core is full", "x", 0.8 * 16, Measured.scale, least=True, excuse=Measured.is_full),
        beside("4 KiB reads cold beside a huge write + fsync, p99", "reads-fsync"),
        beside("4 KiB reads cold beside a stopped reader, p99", "reads-stopped"),
        bytes_up("bytes up per byte, stream", "write", 1.05),
        bytes_up("bytes up per byte, random 4 KiB writes", "random-write", 1.3),
        bytes_up("bytes up per byte, with an fsync each", "random-fsync", 4.5),
        bytes_up(f"bytes up per byte, {options.mixed:,} s of mixed work", "mixed", 1.3),
    ]


def judge(options, figures):
    """Returns all goals, judged by the figures of rewindfs."""
    found = Measured(options, figures)
    return [goal.judge(found) for goal in first_table(options) + beyond(options)]

"""The rows of the tables: what each step is called, and which of its values is its figure."""

from .inputs import CLONE_FILES, TREE_FILES

# The unit of each figure, and whether a smaller one is better.
UNITS = {
    "time": ("s", True),
    "each_ms": ("ms", True),
    "per_second": ("/s", False),
    "requests_per_second": ("requests/s", True),
    "ratio": ("x", True),
    "scale": ("x", False),
}


class Row:
    """A step: its key in the figures, its title, its figure, and the mebibytes that it moves, if it is a stream."""

    def __init__(self, key, title, figure="time", mebibytes=None):
        self.key, self.title, self.figure, self.mebibytes = key, title, figure, mebibytes


def rows(options):
    """Returns all rows in the order of the tables."""
    size, files = options.mebibytes, options.files
    return [
        Row("create", f"create {files:,} x 4 KiB"),
        Row("rename", "rename that directory + fsync"),
        Row("rename-back", "rename it back + fsync"),
        Row("rm", "`rm -rf` it"),
        Row("untar", f"untar {TREE_FILES:,} files, 33 MB"),
        Row("list-cold", "`ls -lR` of it, cold"),
        Row("list-warm", "`ls -lR` of it, warm"),
        Row("list-kept", "`ls -lR` of it, mounted again, cache kept"),
        Row("rm-tree", "`rm -rf` that tree"),
        Row("clone", f"git clone, {CLONE_FILES} files"),
        Row("write", f"write {size:,} MiB + fsync", mebibytes=size),
        Row("read-cold", f"read {size:,} MiB cold", mebibytes=size),
        Row("read-warm", f"read {size:,} MiB warm", mebibytes=size),
        Row("random-read-4", "random 4 KiB reads cold, 4 threads", "per_second"),
        Row("random-read-16", "random 4 KiB reads cold, 16 threads", "per_second"),
        Row("random-write", "random 4 KiB writes, durable", "per_second"),
        Row("random-fsync", "random 4 KiB writes, fsync each", "each_ms"),
        Row("append", "append 100 bytes + fsync", "each_ms"),
        Row("reopen", "open, append, fsync, close", "each_ms"),
        Row("sqlite-wal", "sqlite inserts, wal", "per_second"),
        Row("sqlite-delete", "sqlite inserts, delete", "per_second"),
        Row("clients-1", "append 100 bytes + fsync, 1 thread", "per_second"),
        Row("clients-16", "the same, 16 threads on 16 files", "per_second"),
        Row("reads-alone", "4 KiB reads cold, p99, alone", "each_ms"),
        Row("reads-fsync", "the same beside a write of 256 MiB + fsync", "each_ms"),
        Row("reads-stopped", "the same beside a stopped reader", "each_ms"),
        Row("mixed", f"rounds of mixed work in {options.mixed:,} s", "per_second"),
        Row("idle-quiet", f"the {options.quiet:,} s after the last work", "requests_per_second"),
        Row("idle", "idle mount", "requests_per_second"),
        Row("idle-follower", "idle read-only mount beside it", "requests_per_second"),
        Row("crash-kept", f"mount after kill -9 and {options.fsyncs:,} fsyncs"),
        Row("crash-wiped", "the same, cache deleted"),
        *history_rows(options),
    ]


def history_rows(options):
    """Returns the rows of the history phase, which rewindfs alone has."""
    many, one = f"{options.behind:,} versions behind each file", f"a file with {options.versions:,} versions"
    return [
        Row("history-create", f"create beside files, {many}", "ratio"),
        Row("history-overwrite", f"overwrite, {many}", "ratio"),
        Row("history-append", f"append + fsync, {many}", "ratio"),
        Row("history-list", f"`ls -l` cold, {many}", "ratio"),
        Row("history-read", f"read cold, {many}", "ratio"),
        Row("deep-append", f"append + fsync, {one}", "ratio"),
        Row("deep-read", f"read cold, {one}", "ratio"),
        Row("deep-names", f"names in `.versions/@files/NAME`, {one}", "ratio"),
        Row("deep-list", f"`ls -l .versions/@files/NAME`, {one}", "ratio"),
    ]

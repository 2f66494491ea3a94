"""The command line."""

import argparse

from .peers import Peer, read_peer

SYSTEMS = ["rewindfs", "nothing", "local", "raw", "s3fs", "rclone"]
# In the order in which they run. idle waits for everything before it; crash and history leave much behind, so they come last.
PHASES = ["create", "rename", "rm", "untar", "list", "clone", "stream", "random", "append", "sqlite", "clients", "mixed", "idle", "crash", "history"]
EPILOG = (
    "All remote systems use an S3 server in memory, behind a proxy that delays and counts every request. cargo builds both, from "
    "tests/support/bench, and the release build of rewindfs. docs/BENCHMARKS.md says what the figures mean. "
    "Exit status: 0 done, also when goals are missed; 1 it could not measure; 2 usage error."
)
# For each number: its least value.
LEAST = {"files": 1, "mebibytes": 1, "runs": 1, "idle": 1, "quiet": 0, "later": 0, "versions": 10, "behind": 1, "mixed": 1, "beside": 1, "fsyncs": 16}


def parse(words=None):
    """Returns the options. Exits with status 2 if they are wrong."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures rewindfs beside a do-nothing FUSE file system, the local one, the store itself and, where installed, s3fs, rclone and other peers, in one run, and says which goals it reaches.",
        epilog=EPILOG,
    )
    add_systems(parser)
    add_sizes(parser)
    add_output(parser)
    options = parser.parse_args(words)
    check(parser, options)
    return options


def add_systems(parser):
    add = parser.add_argument
    add("--program", metavar="FILE", help="the rewindfs to measure; nothing is built then, except the server of the bench if it is missing (default: the release build of this tree)")
    add("--delay", metavar="MS", type=float, default=20, help="delay of every request, milliseconds (default: 20)")
    add("--systems", metavar="LIST", default=",".join(SYSTEMS), help=f"of {','.join(SYSTEMS)} (default: all; those that are not installed are left out and named)")
    add("--peer", metavar="FILE", action="append", default=[], help="also measure the system that this file describes; may be repeated")
    add("--phases", metavar="LIST", default=",".join(PHASES), help=f"of {','.join(PHASES)} (default: all)")


def add_sizes(parser):
    def number(name, metavar, default, words):
        parser.add_argument(name, metavar=metavar, type=int, default=default, help=f"{words} (default: {default})")

    number("--files", "N", 10000, "files of 4 KiB that create, rename and rm work on")
    number("--mebibytes", "N", 256, "size of the large file")
    number("--idle", "S", 300, "for how long the requests of an idle mount are counted, seconds: in five minutes everything that it repeats occurs")
    number("--quiet", "S", 150, "for how long an idle mount is left alone before: it moves and logs what was written in the last two minutes, seconds")
    number("--later", "S", 75, "for how long the bytes that follow random writes are counted too, seconds")
    number("--mixed", "S", 60, "for how long the mixed work lasts, seconds")
    number("--fsyncs", "N", 3000, "fsyncs before the daemon is killed")
    number("--beside", "N", 200, "files in the directories of the history phase")
    number("--behind", "N", 1000, "versions behind each of these files")
    number("--versions", "N", 20000, "versions of one file in the history phase")
    parser.add_argument("--runs", metavar="N", type=int, help="repeat all steps of all systems, and show medians (default: 1; with --page 3)")
    parser.add_argument("--cap", metavar="S", type=float, default=60, help="end a step after this many seconds; figures that can be counted are scaled up and marked ~ (default: 60)")


def add_output(parser):
    add = parser.add_argument
    add("--json", metavar="FILE", help="also write every figure to FILE; - writes them to standard output instead of the tables")
    add("--page", metavar="FILE", help="also write the page docs/BENCHMARKS.md with the figures of this run to FILE")
    add("--scratch", metavar="DIR", help="the working directory (default: the directory for temporary files)")


def check(parser, options):
    """Completes the options, and refuses those that cannot be measured."""
    for name, known in (("systems", SYSTEMS), ("phases", PHASES)):
        words = [word for word in getattr(options, name).split(",") if word]
        for word in words:
            if word not in known:
                parser.error(f"--{name}: unknown {word!r}; known are {', '.join(known)}")
        setattr(options, name, [word for word in known if word in words])
    if not options.systems or not options.phases:
        parser.error("nothing to measure")
    if options.runs is None:
        options.runs = 3 if options.page else 1
    for name, least in LEAST.items():
        if getattr(options, name) < least:
            parser.error(f"--{name}: at least {least}")
    if options.delay < 0 or options.cap <= 0:
        parser.error("--delay and --cap: not below 0")
    try:
        options.peers = {peer.name: peer for peer in map(read_peer, options.peer)}
    except Peer.Invalid as invalid:
        parser.error(str(invalid))
    for name in options.peers:
        if name in SYSTEMS:
            parser.error(f"--peer: {name} is a system of the bench already")
    options.systems += options.peers

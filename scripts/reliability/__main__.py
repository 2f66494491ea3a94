"""Real faults under load: each on a store and a mount of its own, with writers whose ledger says what may not be lost."""

import argparse
import json
import os
import sys
import tempfile
import traceback

from .errors import Missing, Stuck
from .faults import FAULTS
from .lab import TARGET, Lab
from .run import Run


def options():
    parser = argparse.ArgumentParser(prog="scripts/faults", description=__doc__)
    add = parser.add_argument
    add("--program", metavar="FILE", default=os.path.join(TARGET, "release", "rewindfs"), help="the rewindfs to try (default: the release build of this tree)")
    add("--faults", metavar="NAMES", help="some of them: " + ",".join(fault.__name__ for fault in FAULTS))
    add("--rounds", metavar="N", type=int, default=20, help="how often a daemon is killed (default: 20)")
    add("--outage", metavar="SECONDS", type=float, default=60, help="how long an outage lasts (default: 60)")
    add("--calm", metavar="SECONDS", type=float, default=5, help="how long the writers work before and after a fault (default: 5)")
    add("--seed", metavar="N", type=int, default=1, help="of what the writers do and when a daemon is killed")
    add("--scratch", metavar="DIR", default=tempfile.gettempdir(), help="where stores, caches and mount points lie")
    add("--keep", action="store_true", help="keep the directories")
    add("--json", metavar="FILE", help="also write the figures there")
    add("--long", action="store_true", help="200 rounds, and outages of 10 minutes")
    chosen = parser.parse_args()
    if chosen.long:
        chosen.rounds, chosen.outage = 200, 600
    known = {fault.__name__: fault for fault in FAULTS}
    names = list(known) if chosen.faults is None else chosen.faults.split(",")
    for name in names:
        if name not in known:
            parser.error(f"--faults {name}: is none of {', '.join(known)}")
    if not os.access(chosen.program, os.X_OK):
        parser.error(f"--program {chosen.program}: is no program; build it with cargo build --release")
    if chosen.rounds < 1 or chosen.outage <= 0 or chosen.calm <= 0:
        parser.error("--rounds, --outage and --calm must be positive")
    chosen.program = os.path.abspath(chosen.program)
    return chosen, [known[name] for name in names]


def attempt(fault, chosen):
    """Runs a fault; returns its row."""
    lab = Lab(chosen, chosen.seed)
    run = Run(lab, chosen)
    failed = None
    try:
        fault(run)
    except (Missing, Stuck) as error:
        failed = str(error)
    except Exception:  # pylint: disable=broad-exception-caught
        failed = traceback.format_exc().strip().splitlines()[-1]
    finally:
        lab.close()
    outcome = run.outcome
    for line in outcome.lost + outcome.torn:
        print(f"  {line}", file=sys.stderr)
    return {
        "fault": fault.__doc__.strip(),
        "name": fault.__name__,
        "times": max(len(outcome.seconds), 1),
        "acknowledged": outcome.acknowledged,
        "errors": outcome.errors,
        "lost": len(outcome.lost),
        "torn": len(outcome.torn),
        "seconds": round(max(outcome.seconds), 1) if outcome.seconds else None,
        "failed": failed,
    }


def line(row):
    seconds = "-" if row["seconds"] is None else f"{row['seconds']:.1f}"
    if row["failed"]:
        return f"| {row['fault']} | failed: {row['failed']} | | | | | |"
    counts = (row["times"], row["acknowledged"], row["errors"], row["lost"], row["torn"])
    return f"| {row['fault']} | {' | '.join(f'{count:,}' for count in counts)} | {seconds} |"


def main():
    chosen, faults = options()
    print("| fault | times | acknowledged | errors | lost | torn | seconds to recover, at most |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    rows = []
    for fault in faults:
        row = attempt(fault, chosen)
        rows.append(row)
        print(line(row), flush=True)
    if chosen.json:
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=1)
    bad = [row for row in rows if row["failed"] or row["lost"] or row["torn"]]
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

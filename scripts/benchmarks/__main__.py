"""Runs the bench."""

import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile

from . import goals, page, report
from .errors import Missing
from .figures import Figures
from .inputs import Inputs
from .machine import facts, version
from .options import parse
from .phases import PHASES
from .servers import Servers, build
from .step import FAILURES, Bench
from .systems import make


@contextlib.contextmanager
def undisturbed():
    """Keeps a second Ctrl-C from ending the clean-up, which would leave something mounted."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def measure_system(options, name, run, scratch, servers, figures, inputs):
    """One run of the phases on one system. It leaves nothing mounted."""
    system = make(name, options, scratch, servers, run)
    try:
        system.prepare()
        told = version(system.binary) if system.binary else None
        if told:
            figures.versions[name] = f"{os.path.basename(system.binary)} {told}"
        system.mount()
        run_phases(options, Bench(options, system, figures, inputs))
    finally:
        with undisturbed():
            system.close()
        figures.add_peak(name, system.peak)


def run_phases(options, bench):
    """Runs the phases that the system has. A failure that no step could handle ends the system, but not the bench: hours of figures stay."""
    for phase in options.phases:
        if bench.system.phases is None or phase in bench.system.phases:
            try:
                PHASES[phase](bench)
            except FAILURES as error:
                print(f"  {bench.system.name}: given up in {phase}: {error}", file=sys.stderr)
                bench.figures.stopped.setdefault(bench.system.name, phase)
                return


def measure(options, scratch, figures):
    """All runs of all systems. Returns the names of those that could be measured, and of those that could not."""
    options.program = build(options)
    servers, inputs, left_out = Servers(options, scratch), Inputs(scratch), set()
    try:
        for run in range(options.runs):
            for name in options.systems:
                if name in left_out:
                    continue
                print(f"run {run + 1} of {options.runs}: {name}", file=sys.stderr)
                try:
                    measure_system(options, name, run, scratch, servers, figures, inputs)
                except Missing as missing:
                    if name == "rewindfs":
                        raise
                    print(f"  left out: {missing}", file=sys.stderr)
                    left_out.add(name)
    finally:
        servers.stop()
    return [name for name in options.systems if name not in left_out], [name for name in options.systems if name in left_out]


def show(options, figures, measured, left_out, machine):
    """Prints the tables and writes the files that were asked for."""
    reached = goals.judge(options, figures)
    if options.json:
        with sys.stdout if options.json == "-" else open(options.json, "w", encoding="utf-8") as file:
            told = {"delay_ms": options.delay, "runs": options.runs, "machine": machine, "steps": figures.found, "peak_mib": figures.peaks}
            json.dump({**told, "goals": [goal.as_json() for goal in reached]}, file, indent=1)
            file.write("\n")
    if options.page:
        text = page.page(options, figures, measured, left_out, reached, machine)
        with open(options.page, "w", encoding="utf-8") as file:
            file.write(text)
    if options.json != "-":
        print(report.report(options, figures, measured, left_out, reached, machine))


def main():
    options = parse()
    # Also when the terminal is closed, everything is unmounted.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    if options.scratch:
        os.makedirs(options.scratch, exist_ok=True)
    scratch = os.path.realpath(tempfile.mkdtemp(prefix="rewindfs-bench.", dir=options.scratch))
    figures, machine = Figures(), facts(scratch)
    try:
        measured, left_out = measure(options, scratch, figures)
    except Missing as missing:
        print(f"bench: {missing}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    show(options, figures, measured, left_out, machine)
    return 0


if __name__ == "__main__":
    sys.exit(main())

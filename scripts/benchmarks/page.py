"""The page docs/BENCHMARKS.md: fixed text from the folder page, and the tables of a run."""

import datetime
import os
import shlex
import string

from .options import LEAST, PHASES, SYSTEMS, parse
from .report import as_markdown, cost_table, figure_table, gaps, goal_counts, goal_table, ratio_table

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page")


def read(name):
    with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
        return file.read()


def usual_options():
    return parse(["--page", "docs/BENCHMARKS.md"])


def warning(options):
    """Warns of a run that is too small to tell how fast the systems are."""
    usual = usual_options()
    small = [name for name in LEAST if getattr(options, name) < getattr(usual, name)]
    if not small:
        return ""
    words = ", ".join(f"`--{name}`" for name in small)
    return f"\n**This run is smaller than usual ({words}): it shows that the bench works, and not how fast the systems are.**\n"


def command(options):
    """Returns the command of this run, without its paths, so that a reader can repeat it."""
    usual = usual_options()
    words = ["scripts/bench", "--page", "docs/BENCHMARKS.md"]
    systems = [name for name in options.systems if name in SYSTEMS]
    for name, value, all_of in (("systems", systems, SYSTEMS), ("phases", options.phases, PHASES)):
        if value != all_of:
            words += [f"--{name}", ",".join(value)]
    for name in options.peers:
        words += ["--peer", f"{name}.ini"]
    for name in ("delay", *LEAST, "cap"):
        if getattr(options, name) != getattr(usual, name):
            words += [f"--{name}", f"{getattr(options, name):g}"]
    return shlex.join(words)


def page(options, figures, measured, left_out, goals, machine):
    """Returns the text of the page."""
    runs = "one run" if options.runs == 1 else f"medians of {options.runs} runs, in brackets the least and the greatest"
    versions = [figures.versions[name] for name in measured if name in figures.versions]
    compared = len(measured) > 1 and "rewindfs" in measured
    places = {
        "command": command(options),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "machine": machine,
        "delay": f"{options.delay:g}",
        "runs": runs,
        "versions": ", ".join(versions) or "versions unknown",
        "left_out": f" {gaps(figures, left_out)}".rstrip(),
        "warning": warning(options),
        "goal_counts": goal_counts(goals),
        "goals": as_markdown(goal_table(goals)),
        "ratios": as_markdown(ratio_table(options, figures, measured)) if compared else "Only one system was measured.",
        "figures": as_markdown(figure_table(options, figures, measured)),
        "costs": as_markdown(cost_table(options, figures, measured)),
        "hand_measured": read("hand-measured.md").rstrip(),
    }
    return string.Template(read("page.md")).substitute(places)

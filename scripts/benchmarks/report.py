"""The tables, as lists of cells, and their form for a terminal. The page has the same tables in Markdown."""

from .rows import UNITS, rows

COUNTS = ("reached", "missed", "not measured")


def seconds(value):
    return f"{value * 1000:.0f} ms" if value < 0.1 else f"{value:.2f} s" if value < 10 else f"{value:,.0f} s"


def number(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3g}"


def amount(value, unit):
    """Returns a value with its unit."""
    if unit == "s":
        return seconds(value)
    if unit == "x":
        return f"{value:.2f}x"
    return f"{number(value)}{'' if unit in ('', '/s') else ' '}{unit}"


def spread(values, unit):
    """Returns the least and the greatest of several runs in brackets."""
    if len(values) < 2:
        return ""
    least, greatest = amount(min(values), unit), amount(max(values), unit)
    # The unit of both is told once.
    end = greatest.lstrip("0123456789.,")
    return f" ({least.removesuffix(end)}-{greatest})"


def figure(figures, row, system):
    """Returns the cell of one step and system: its figure, and what belongs to it."""
    if not figures.runs(row.key, system):
        return ""
    if figures.has_failed(row.key, system):
        return "FAIL"
    unit, _ = UNITS[row.figure]
    value = figures.median(row.key, system, row.figure)
    text = amount(value, unit)
    if row.figure == "time":
        acknowledged = figures.median(row.key, system, "seconds")
        if acknowledged < value * 0.95:
            text = f"{seconds(acknowledged)} / {text}"
    if row.mebibytes:
        text += f", {row.mebibytes / value:,.0f} MiB/s"
    objects = sorted(set(figures.values(row.key, system, "object_mib")))
    text += f", objects of {' or '.join(map(str, objects))} MiB" if objects else ""
    if row.figure == "ratio":
        text += f": {number(figures.median(row.key, system, 'with_ms'))} ms against {number(figures.median(row.key, system, 'without_ms'))} ms"
        few = figures.median(row.key, system, "few_ms")
        text += f"; with 10 versions {number(few)} ms" if few is not None else ""
    p99 = figures.median(row.key, system, "p99_ms")
    text += f", p99 {number(p99)} ms" if p99 is not None else ""
    text += "~" if figures.is_scaled(row.key, system) else ""
    return text + spread(figures.values(row.key, system, row.figure), unit)


def goal_table(goals):
    lines = [["goal", "bound", "measured", "factor", ""]]
    for goal in goals:
        bound = goal.bound_text
        if goal.is_relative() and goal.bound is not None:
            bound += f" ({amount(goal.bound, goal.unit)})"
        measured = "" if goal.measured is None else amount(goal.measured, goal.unit)
        lines.append([goal.name, bound, measured, "" if goal.factor is None else f"{goal.factor:.2f}", goal.verdict])
    return lines


def goal_counts(goals):
    """Says how many goals are reached."""
    return ", ".join(f"{sum(goal.verdict == word for goal in goals)} {word}" for word in COUNTS)


def ratio(figures, row, system):
    """Returns how long rewindfs takes compared with another system; None if one of the two has no figure."""
    mine, other = (figures.median(row.key, name, row.figure) for name in ("rewindfs", system))
    if mine is None or other is None or not mine or not other:
        return None
    return mine / other if UNITS[row.figure][1] else other / mine


def ratio_table(options, figures, systems):
    others = [system for system in systems if system != "rewindfs"]
    lines = [["step", *others]]
    for row in rows(options):
        found = [ratio(figures, row, system) for system in others]
        if any(value is not None for value in found):
            cells = []
            for system, value in zip(others, found):
                mark = "~" if figures.is_scaled(row.key, system) or figures.is_scaled(row.key, "rewindfs") else ""
                failed = "FAIL" if figures.has_failed(row.key, system) else ""
                cells.append(failed if value is None else f"{value:.2g}x{mark}" if value < 100 else f"{value:.0f}x{mark}")
            lines.append([row.title, *cells])
    return lines


def figure_table(options, figures, systems):
    lines = [["step", *systems]]
    for row in rows(options):
        if row.key in figures.found:
            lines.append([row.title, *(figure(figures, row, system) for system in systems)])
    peaks = [figures.peaks.get(system) for system in systems]
    if any(peaks):
        lines.append(["peak memory", *(f"{peak} MiB" if peak else "" for peak in peaks)])
    return lines


def cost(figures, row, system):
    """Returns the cell of what a step costs: requests, GETs, bytes, processor time."""
    get = lambda key: figures.median(row.key, system, key)
    parts = []
    if get("requests") is not None:
        mark = "~" if figures.is_scaled(row.key, system) else ""
        parts.append(f"{get('requests'):,.0f}{mark} ({get('get'):,.0f} GET, {get('put'):,.0f} PUT)")
        parts.append(f"{get('up') / 1e6:.2f} up" + (f" ({get('up_per_byte'):.2f} per byte)" if get("up_per_byte") else ""))
        parts.append(f"{get('down') / 1e6:.2f} down")
    if get("cpu") is not None:
        parts.append(f"{get('cpu'):.2f} s CPU")
    return "; ".join(parts)


def cost_table(options, figures, systems):
    lines = [["step", *systems]]
    for row in rows(options):
        cells = [cost(figures, row, system) for system in systems]
        if any(cells):
            lines.append([row.title, *cells])
    # A system without requests and without a daemon has nothing to tell here.
    told = [0] + [at for at in range(1, len(lines[0])) if any(line[at] for line in lines[1:])]
    return [[line[at] for at in told] for line in lines]


def as_text(lines):
    lines = [[cell.replace("`", "") for cell in line] for line in lines]
    widths = [max(len(line[at]) for line in lines) for at in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines)


def as_markdown(lines):
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest]).replace("|  |", "| |")


def gaps(figures, left_out):
    """Says which systems were not measured, or not to the end."""
    parts = [f"Left out, because they are not installed or do not work: {', '.join(left_out)}."] if left_out else []
    parts += [f"{system} could not go on in the phase {phase}." for system, phase in figures.stopped.items()]
    return " ".join(parts)


def report(options, figures, measured, left_out, goals, machine):
    """Returns what is printed at the end."""
    parts = [f"\n{machine}; {options.delay:g} ms per request, medians of {options.runs}"]
    if gaps(figures, left_out):
        parts.append(gaps(figures, left_out))
    if "rewindfs" in measured:
        parts += [f"Goals: {goal_counts(goals)}", as_text(goal_table(goals))]
        if len(measured) > 1:
            parts += ["How long rewindfs takes, compared with each other system (below 1: rewindfs is faster)", as_text(ratio_table(options, figures, measured))]
    parts += ["Figures: acknowledged / durable where they differ", as_text(figure_table(options, figures, measured))]
    parts += ["Requests, MB, and the daemon's CPU", as_text(cost_table(options, figures, measured))]
    return "\n\n".join(parts)

"""Questions to the machine: its programs, its mounts, its processes, and what it is."""

import os
import re
import shutil
import subprocess
import time

from .errors import Missing

TICKS = os.sysconf("SC_CLK_TCK")


def program(name):
    """Returns the path of an installed program."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + os.pathsep + os.path.expanduser("~/.cargo/bin"))
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def version(path):
    """Returns the version that a program tells, or None."""
    try:
        ran = subprocess.run([path, "--version"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"\d+\.\d+(\.\d+)*", ran.stdout + ran.stderr)
    return found.group() if found else None


def is_mounted(point):
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        return any(line.split(" ")[4] == point for line in table)


def wait_for(what, condition, limit=60.0):
    end = time.monotonic() + limit
    while not condition():
        if time.monotonic() > end:
            raise Missing(f"waited {limit:.0f} s for {what}")
        time.sleep(0.005)


def cpu_seconds(pid):
    """Returns the processor time of a process in seconds, or None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name of the program may have spaces; it ends with the last bracket.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_mebibytes(pid):
    """Returns the largest resident size of a process so far, or None if it has ended."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
            lines = [line for line in status if line.startswith("VmHWM")]
        return int(lines[0].split()[1]) // 1024
    except (OSError, IndexError):
        return None


def facts(directory):
    """Describes the machine for a reader: cores, memory, system, kernel, file system; no names and no paths."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        memory = int(file.readline().split()[1]) / (1 << 20)
    with open("/etc/os-release", encoding="utf-8") as file:
        release = dict(line.rstrip("\n").split("=", 1) for line in file if "=" in line)
    kernel = os.uname().release.split("-")[0]
    kind = subprocess.run(["stat", "-f", "-c", "%T", directory], capture_output=True, text=True, check=False).stdout.strip()
    # stat(1) knows the three by one number.
    kind = "ext4" if kind == "ext2/ext3" else kind
    system = release.get("PRETTY_NAME", "Linux").strip('"').split(" (")[0].replace("GNU/Linux ", "")
    return f"{len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB of memory, {system}, kernel {kernel}, {kind or 'an unknown file system'}"

"""The S3 server with its proxy, and the build of what is measured."""

import os
import subprocess
import sys
import time

from .errors import Missing
from .machine import program

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASE = os.path.join(PROJECT, os.environ.get("CARGO_TARGET_DIR", "target"), "release")
TOOL = os.path.join(RELEASE, "examples/bench")
# Both directions of the traffic, and the kinds of requests that the goals name.
COUNTED = ("requests", "up", "down", "get", "put")


def build(options):
    """Builds what is missing, and returns the path of the rewindfs to measure."""
    what = []
    if options.program is None or not os.access(TOOL, os.X_OK):
        what += ["--example", "bench"]
    if options.program is None and "rewindfs" in options.systems:
        what += ["--bin", "rewindfs"]
    if what:
        print("building the release", file=sys.stderr)
        if subprocess.run([program("cargo"), "build", "--quiet", "--release", *what], cwd=PROJECT, check=False).returncode != 0:
            raise Missing("cargo build failed")
    return os.path.abspath(options.program or os.path.join(RELEASE, "rewindfs"))


class Servers:
    """The S3 server and the proxy in front of it, in one process."""

    def __init__(self, options, scratch):
        self.stats_file = os.path.join(scratch, "requests")
        command = ["setpriv", "--pdeathsig", "KILL", TOOL, "store", str(options.delay), self.stats_file]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True)
        self.endpoint = self.process.stdout.readline().strip()
        if not self.endpoint:
            self.stop()
            raise Missing("the S3 server did not start")

    def stats(self):
        """Returns the requests and the bytes so far."""
        time.sleep(0.45)  # the proxy writes them every 200 ms
        with open(self.stats_file, encoding="utf-8") as file:
            found = {name: int(count) for name, count in (line.rsplit(" ", 1) for line in file)}
        found["put"] = found.get("put", 0) + found.get("put-part", 0)
        return {key: found.get(key, 0) for key in COUNTED}

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

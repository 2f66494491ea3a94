"""Many files: create, rename, remove, untar, list, clone."""

import os
import random

from ..inputs import write

DIRECTORIES = 50


def write_all(bench, top):
    """Makes the many files in 50 directories. Returns the share that could be made within the limit."""
    for at in range(DIRECTORIES):
        os.makedirs(bench.path(f"{top}/d{at:02}"))
    source = random.Random(1)
    names = [f"{top}/d{at % DIRECTORIES:02}/f{at // DIRECTORIES:05}" for at in range(bench.options.files)]
    bench.share = bench.within([lambda name=name: write(bench.path(name), source.randbytes(4096)) for name in names])
    return bench.share


def create(bench):
    count = bench.options.files
    if bench.system.name == "raw":
        bench.step("create", lambda: bench.system.transfer("put", count, 4096), count * 4096)
    else:
        bench.step("create", lambda: write_all(bench, "many"), count * 4096)


def have_many(bench):
    """Makes the directory of many files if it is missing, and waits until everything is in the bucket."""
    if not os.path.isdir(bench.path("many")):
        write_all(bench, "many")
    bench.system.settle()


def over_many(bench, script):
    """Runs a script on that directory. Returns the share of its files that could be made, by which the figures are scaled up."""
    bench.sh(script)
    return bench.share


def rename(bench):
    if not bench.prepared("rename", lambda: have_many(bench)):
        return
    bench.step("rename", lambda: over_many(bench, "mv many moved; sync ."))
    if os.path.isdir(bench.path("moved")):
        bench.step("rename-back", lambda: over_many(bench, "mv moved many; sync ."))


def remove(bench):
    if bench.prepared("rm", lambda: have_many(bench)):
        bench.step("rm", lambda: over_many(bench, "rm -rf many"))


def untar(bench):
    archive, size = bench.inputs.tree()
    bench.step("untar", lambda: bench.sh(f"mkdir tree; tar xf '{archive}' -C tree"), size)


def list_tree(bench):
    if "untar" not in bench.options.phases:
        untar(bench)
    if not os.path.isdir(bench.path("tree")):
        return
    listing = lambda: bench.sh("ls -lR tree")
    if not bench.prepared("list-cold", bench.system.cold):
        return
    if not bench.step("list-cold", listing, settle=False) or not bench.step("list-warm", listing, settle=False):
        return
    if not bench.prepared("list-kept", bench.system.again):
        return
    if bench.step("list-kept", listing, settle=False):
        bench.step("rm-tree", lambda: bench.sh("rm -rf tree"))


def clone(bench):
    repository = bench.inputs.repository()
    # file:// makes git pack and write the objects; a plain path would make hard links or copies.
    bench.step("clone", lambda: bench.sh(f"git clone -q 'file://{repository}' clone"))

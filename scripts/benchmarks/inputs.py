"""The data that is written; made once, the same in every run of the bench."""

import os
import random
import shutil
import subprocess
import tarfile

from .machine import program

TREE_FILES, CLONE_FILES = 1830, 391


def write(path, data):
    """Makes a file with these bytes in one write."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def make_tree(place, seed, files, parts, spread):
    """Makes a tree like the source of a program: most files are small. `spread` are the two parameters of the sizes. Returns the bytes."""
    source, total, directories = random.Random(seed), 0, [""]
    for at in range(parts):
        directories.append(os.path.join(source.choice(directories[: max(1, at // 2)]), f"part{at:03}"))
    for directory in directories:
        os.makedirs(os.path.join(place, directory), exist_ok=True)
    for at in range(files):
        size = int(source.lognormvariate(*spread))
        total += size
        write(os.path.join(place, source.choice(directories), f"file{at:04}.cc"), source.randbytes(size))
    return total


class Inputs:
    """Makes each input when it is first asked for, in the scratch directory."""

    def __init__(self, scratch):
        self.scratch, self.made, self.cloned, self.bytes = scratch, None, None, None

    def chunk(self, at):
        """Returns the MiB with that number of a large file. Random bytes, which do not compress; the numbers repeat after 16."""
        if self.bytes is None:
            self.bytes = random.Random(3).randbytes(5 << 20)
        start = at % 16 << 18
        return self.bytes[start : start + (1 << 20)]

    def tree(self):
        """Makes an archive like the source of a library, 33 MB in 110 directories. Returns it and its size."""
        if self.made is None:
            place = os.path.join(self.scratch, "tree")
            total = make_tree(place, 4, TREE_FILES, 109, (8.8, 1.38))
            archive = os.path.join(self.scratch, "tree.tar")
            with tarfile.open(archive, "w") as tar:
                tar.add(place, arcname=".")
            shutil.rmtree(place)
            self.made = (archive, total)
        return self.made

    def repository(self):
        """Makes a git repository with one commit. Returns its path."""
        if self.cloned is None:
            place = os.path.join(self.scratch, "repository")
            make_tree(place, 5, CLONE_FILES, 40, (8.5, 1.3))
            names = {f"GIT_{who}_{what}": word for who in ("AUTHOR", "COMMITTER") for what, word in (("NAME", "bench"), ("EMAIL", "bench@example.org"), ("DATE", "2026-01-01T00:00:00Z"))}
            # The settings of this user must not change the repository.
            settings = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", **names}
            git = program("git")
            for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "all"], ["gc", "-q"]):
                subprocess.run([git, *words], cwd=place, env={**os.environ, **settings}, check=True, stdout=subprocess.DEVNULL)
            self.cloned = place
        return self.cloned

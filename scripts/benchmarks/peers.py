"""Peers that a file describes: a system that the bench does not know can be measured beside the others."""

import configparser
import re
import shlex

PLACES = ("endpoint", "bucket", "mountpoint", "cache", "place")


class Peer:
    """The description of a peer: how it is mounted in the foreground, and how to wait until the bucket has everything."""

    class Invalid(Exception):
        """The file does not describe a peer."""

    def __init__(self, name, mount, settle):
        self.name, self.mount, self.settle = name, mount, settle

    def fill(self, words, places):
        """Returns the words of a command with the places filled in."""
        return [word.format(**places) for word in words]


def read_peer(path):
    """Reads the description of a peer. Raises Peer.Invalid if it is not one."""
    # The words of a command may have % signs, which configparser would interpret.
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with open(path, encoding="utf-8") as file:
            parser.read_file(file)
        section = parser["peer"]
        name, mount = section["name"], shlex.split(section["mount"])
        settle = shlex.split(section.get("settle", ""))
        for word in mount + settle:
            word.format(**dict.fromkeys(PLACES, ""))
    except KeyError as missing:
        raise Peer.Invalid(f"--peer {path}: there is no section, no entry or no placeholder named {missing}") from None
    except (OSError, ValueError, IndexError, configparser.Error) as error:
        raise Peer.Invalid(f"--peer {path}: {error}") from None
    # The name becomes a part of the bucket's name.
    if not re.fullmatch("[a-z0-9][a-z0-9-]*", name):
        raise Peer.Invalid(f"--peer {path}: the name {name!r} has other characters than a-z, 0-9 and -")
    if not mount:
        raise Peer.Invalid(f"--peer {path}: the mount command is empty")
    unknown = set(section) - {"name", "mount", "settle"}
    if unknown:
        raise Peer.Invalid(f"--peer {path}: unknown {', '.join(sorted(unknown))}")
    return Peer(name, mount, settle)

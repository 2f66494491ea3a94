"""The failures that end a fault, or all of them."""


class Missing(Exception):
    """A program that the faults need is missing."""


class Stuck(Exception):
    """Something did not happen within its time."""

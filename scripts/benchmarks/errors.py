"""The failures that end a step, a system or the whole bench."""


class Missing(Exception):
    """A program or a service that the bench needs is missing or does not work."""


class Capped(Exception):
    """A command exceeded the time limit of a step."""

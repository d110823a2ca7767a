"""Errors that the command line shows to its user as one sentence, without a traceback."""


class UserError(ValueError):
    """The user asked for something that cannot be done; the message says what, and what to do instead."""


class StoreError(UserError):
    """An episode store is missing, damaged, foreign or in use, or an episode does not fit into it."""

"""The one exception that the command line turns into a line of text and exit code 2."""


class UserError(Exception):
    """Something a user can mend: the message says what was wrong, where, and what to do."""

"""The one exception that the command line turns into a line of text and exit code 2."""


class UserError(Exception):
    """Something a user can mend: the message says what was wrong, where, and what to do."""


def reason(error: Exception) -> str:
    """One line for the list of files that were passed over; what no user can mend is told with its type."""
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())

"""The one exception of this package."""

from qs5.errors import UserError


class DataError(UserError):
    """A problem with data that the user can repair.

    The message is one line: what was expected, what was found, what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))

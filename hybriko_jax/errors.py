"""The one exception that a launcher shows as a single line."""


class UserError(ValueError):
    """A mistake the user can mend; the message gives the value, the rule and the way out."""

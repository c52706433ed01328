"""Text of others among lines of ours."""


def printable(text: str) -> str:
    """What does not print is shown as its escape: names and holders come from elsewhere, and must not write lines of ours."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)

"""What the other scripts print with: they import it as they would anywhere."""


def say(line):
    """Print a line whole and at once, whoever else prints: handlers and hooks run at the same time."""
    print(f"{line}\n", end="", flush=True)

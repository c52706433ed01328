"""``python -m service`` is the command ``authstore``."""

import signal

# Until a command takes over: the imports take a moment, and who interrupts them wants no traceback.
_ON_INTERRUPT = signal.signal(signal.SIGINT, signal.SIG_DFL)

from service.cli.main import main as _run  # noqa: E402


def main() -> None:
    """Runs the command line."""
    signal.signal(signal.SIGINT, _ON_INTERRUPT)
    _run()


if __name__ == "__main__":
    main()

"""``python -m service`` is the command ``authstore``."""

from service.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()

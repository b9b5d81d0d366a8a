"""The command line: one file a verb. Nothing here imports torch before a verb that computes runs."""


def main() -> None:
    """Run the command line with the arguments of this process, then exit."""
    from windtunnel.cli.app import app

    app()


__all__ = ["main"]

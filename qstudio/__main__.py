"""The program: a window by default, the command line when a command is named.

Nothing is imported here at the top: the engine's processes are spawned and read this file again.
"""


def main() -> int:
    """Open the window, or run the command named by the first argument; return the exit code."""
    import sys

    arguments = sys.argv[1:]
    first = arguments[0] if arguments else ""
    commands = ("inspect", "quantize", "train", "sensitivity", "search", "benchmark", "doctor")
    if first in (*commands, "--help", "-h", "--version"):
        from qstudio.cli import main as command_line

        return int(command_line(arguments))
    from qstudio.app import run

    return run(arguments)


if __name__ == "__main__":
    raise SystemExit(main())

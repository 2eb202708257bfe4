"""The command line: Hydra application, console output, exit codes."""

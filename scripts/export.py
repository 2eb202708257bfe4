"""Exports a trained network with its preprocessing; the file is compared with the network before it is written."""

import argparse
from pathlib import Path

import require_environment  # noqa: F401

from mlpexp.cli import argument_parsers, exit_codes
from mlpexp.runtime.shell_commands import plain
from mlpexp.runtime.terminal import say


def main() -> None:
    args = _parser().parse_args()
    choice = argument_parsers.ensemble_choice(args)

    from mlpexp.evaluation.export import export  # torch: late, so that --help is fast

    exported = export(args.run, args.format, args.out, args.weights, force=args.force, choice=choice)
    samples = "random samples (the run's data is not available)" if exported.drawn else "samples of its data"
    say(f"{exported.run.weights_description}; compared with the network on {exported.checked:,} {samples}:")
    say(f"  largest difference {exported.difference:.1e} of the largest logit")
    say(f"{exported.path} ({exported.size / 1024:,.0f} KiB)")


def _parser() -> argparse.ArgumentParser:
    parser = argument_parsers.trained_run_parser(__doc__, f"{plain('export.py')} outputs/DATE/TIME --format onnx")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch", "safetensors"),
        required=True,
        help="onnx, torch (torch.export, .pt2), or safetensors (weights and metadata only)",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="where to write (default: RUN/model.*)")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    return parser


if __name__ == "__main__":
    exit_codes.run(main)

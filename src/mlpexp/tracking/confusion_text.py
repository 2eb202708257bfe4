"""A confusion matrix as text: for runs of a stack a picture each would cost more than their training."""

from collections.abc import Sequence

from mlpexp.tracking.events import Event, plain, text


def confusion_table(counts: Sequence[Sequence[int]], class_names: Sequence[str], wall_time: float, step: int) -> Event:
    """`counts[t][p]` samples of true class t predicted as p; what never happened stays blank."""
    names = [plain(name) for name in class_names]
    lines = ["| true \\\\ predicted | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for name, row in zip(names, counts, strict=True):
        lines.append(f"| **{name}** | " + " | ".join(str(count or "") for count in row) + " |")
    right, total = sum(row[i] for i, row in enumerate(counts)), sum(map(sum, counts))
    said = f"{right} of {total} test samples are right. Rows: the true class; columns: the predicted one."
    return text("confusion/test", step, f"{said}\n\n" + "\n".join(lines), wall_time)

"""An evaluation as tables: CSV files for other programs."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import Any

from mlpexp.evaluation.classification_metrics import Measures
from mlpexp.evaluation.embedding import Embedding
from mlpexp.evaluation.network_outputs import Answers

FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes a text that begins so for a formula


def tables(measures: Measures, answers: Answers, names: Sequence[str], embedding: Embedding | None) -> dict[str, str]:
    """File names and contents; floats at full precision, an empty cell where there is no number."""
    found = {
        "per_class.csv": table(
            ["class", "precision", "recall", "f1", "support", "predicted"],
            ([c.name, c.precision, c.recall, c.f1, c.support, c.predicted] for c in measures.classes),
        ),
        "confusion.csv": table(
            ["true class", *names], ([name, *row] for name, row in zip(names, measures.confusion.tolist(), strict=True))
        ),
        "calibration.csv": table(
            ["low", "high", "samples", "confidence", "accuracy"],
            ([one.low, one.high, one.count, one.confidence, one.accuracy] for one in measures.bins),
        ),
        "predictions.csv": table(
            ["sample", "true class", "predicted class", "right", "confidence"],
            (
                [i, names[true], names[guess], int(true == guess), sure]
                for i, true, guess, sure in zip(
                    answers.index.tolist(),
                    answers.labels.tolist(),
                    answers.predicted.tolist(),
                    answers.confidence.tolist(),
                    strict=True,
                )
            ),
        ),
    }
    if embedding is not None:
        places = answers.index[embedding.chosen].tolist()
        tsne = [["", ""]] * len(places) if embedding.tsne is None else embedding.tsne.tolist()
        found["embedding.csv"] = table(
            ["sample", "pca_1", "pca_2", "tsne_1", "tsne_2"],
            ([i, *a, *b] for i, a, b in zip(places, embedding.pca.tolist(), tsne, strict=True)),
        )
    return found


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A CSV; a text that a spreadsheet would run as a formula is defused by an apostrophe, unless it is a number."""
    content = io.StringIO()
    writer = csv.writer(content, lineterminator="\n")
    writer.writerow([_cell(name) for name in header])
    writer.writerows([_cell(value) for value in row] for row in rows)
    return content.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return f"'{value}" if value.startswith(FORMULA) and not _is_number(value) else value
    return "" if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

"""Several sweeps as one: the same rules over the configurations of all of them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlpexp.analysis import sweep_table
from mlpexp.analysis.load_sweep import Sources
from mlpexp.analysis.sweep_table import SweepTable
from mlpexp.config.schema import defaults
from mlpexp.store.identity import neutral_defaults
from mlpexp.store.results_table import Record
from mlpexp.store.sweep_manifest import REPEATED

PLAIN = (str, int, float, bool)


def join(sweeps: Sequence[tuple[SweepTable, Sources]], titles: Sequence[str]) -> tuple[SweepTable, Sources]:
    """One table of the runs of all sweeps; a run is named `TITLE/NAME`.

    What a sweep does not vary has the value of its `sweep.json`, so that one configuration in two sweeps is one row,
    and configurations that differ in a setting that each sweep holds constant are two.
    """
    fixed = [_constants(sources) for _, sources in sweeps]
    swept = [{key.name for key in (*study.factors, *study.seeds)} for study, _ in sweeps]
    keys = list(dict.fromkeys(name for names in swept for name in sorted(names)))
    constant_names = dict.fromkeys(name for constants in fixed for name in constants)
    for name in constant_names:
        if name not in keys and len({str(constants[name]) for constants in fixed if name in constants}) > 1:
            keys.append(name)
    records: list[Record] = []
    identities: list[str | None] = []
    for (_, sources), constants, title in zip(sweeps, fixed, titles, strict=True):
        for row in sources.records:
            values = {key: row[key] if row.get(key) is not None else constants.get(key) for key in keys}
            unswept = {name: value for name, value in row.items() if not sweep_table.is_swept(name)}
            records.append({**unswept, **values, "name": f"{title}/{row['name']}"})
            result = sources.results.get(str(row["name"]))
            identities.append(result.identity if result else None)
    columns = list(dict.fromkeys(name for record in records for name in record))
    records = [{name: record.get(name) for name in columns} for record in records]
    merged = Sources()
    for (_, sources), title in zip(sweeps, titles, strict=True):
        merged.monitors += sources.monitors or Counter()
        merged.results |= {f"{title}/{name}": result for name, result in sources.results.items()}
        for name, levels in sources.data.items():
            merged.data[name] = merged.data.get(name, set()) | levels
    return sweep_table.from_records(Path(), records, identities), merged


def _constants(sources: Sources) -> Mapping[str, Any]:
    """What was the same in all runs of a sweep; seeds and settings without a record have their defaults."""
    varied = sources.plan.varied if sources.plan is not None else []
    constants = dict(sources.plan.constants) if sources.plan is not None else {}
    standard: dict[str, Any] = {name: value for name, value in neutral_defaults().items() if name not in varied}
    standard["seed"] = defaults()["seed"]
    standard |= {name: defaults()["data"][name.removeprefix("data.")] for name in REPEATED if name != "seed"}
    return {k: v for k, v in (standard | constants).items() if isinstance(v, PLAIN) and k != "data digest"}

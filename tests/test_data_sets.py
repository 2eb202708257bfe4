"""The registry of data sets: what each entry says of its table, and a data set that a user registers."""

import hashlib

import numpy as np
import pytest

from mlpexp import data
from mlpexp.config import checks
from mlpexp.config.schema import DataConfig
from mlpexp.data.data_sets import DATA_SETS, DataSet, Sizes
from mlpexp.data.table import Table
from mlpexp.runtime.errors import ConfigError
from mlpexp.store import file_names, run_directory

# of the bytes that scikit-learn ships and of the recipe of the generators: they are in the identity of earlier runs
DIGESTS = {
    "digits": "09f66e6debdee2cd",
    "wine": "10e8a802908b34f8",
    "breast_cancer": "fed3eb72d0575ef6",
    "iris": "f13ffa8fdd56fd8e",
    "moons": "cb4aa5495e684659",
    "circles": "76abcba82dcc9408",
    "spirals": "cf8dabb2fdfb8aa2",
    "blobs": "16db0b0d282e7041",
}
KNOWN = [name for name in DATA_SETS if DATA_SETS[name].sizes(DataConfig(name=name)) is not None]


@pytest.mark.parametrize("name", KNOWN)
def test_the_sizes_that_are_known_before_loading_are_those_of_the_table(name):
    cfg = DataConfig(name=name)
    table = data.load(cfg)
    assert DATA_SETS[name].sizes(cfg) == (len(table.names), table.num_outputs, len(table.labels))
    assert table.image_shape == DATA_SETS[name].image_shape
    assert table.digest == data.digest(cfg)


@pytest.mark.parametrize("name", DIGESTS)
def test_the_digests_are_those_of_earlier_runs(name):
    assert data.digest(DataConfig(name=name))[:16] == DIGESTS[name]


@pytest.mark.parametrize("name", KNOWN)
def test_keys_of_other_data_sets_are_refused(name):
    foreign = {"samples": 50, "noise": 0.3, "classes": 4, "decimal": "comma", "target": "y", "thousands": "comma"}
    for key, value in foreign.items():
        if key not in DATA_SETS[name].keys:
            with pytest.raises(ConfigError, match=rf"data.{key}={value} belongs to data=.*, not to data={name}"):
                checks.parse({"data": {"name": name, key: value}})


@pytest.fixture
def stripes():
    """A registered data set without a digest of its own."""

    def load(cfg: DataConfig) -> Table:
        points = np.random.default_rng(cfg.seed).uniform(size=(cfg.samples, 3))
        return Table(points, (points[:, 0] * 8).astype(np.int64) % 2, ["even", "odd"], ["a", "b", "c"])

    DATA_SETS.register("stripes", DataSet(load=load, features=3, classes=2, keys=("samples",), generated=True))
    yield "stripes"
    del DATA_SETS._entries["stripes"]


def test_a_registered_data_set_trains_alone_and_in_a_stack(train, here, stripes):
    own = "stack.engine=torch data.name=stripes data.samples=200 tracking.figures=false trainer.max_epochs=2"
    assert train(f"{own} seed=1 hydra.run.dir=alone").code == 0
    ended = train(f"-m {own} seed=0,1 name=many")
    assert ended.code == 0, ended.err
    alone = run_directory.read_result(here / "alone")
    found = [run_directory.read_result(path.parent) for path in (here / "multirun/many").glob(f"*/{file_names.RESULT}")]
    assert [each.metrics for each in found if each.identity == alone.identity] == [alone.metrics]
    choices = train("data.name=strips")
    assert "unknown data 'strips'; choose one of" in choices.line and "e.g. data.name=stripes" in choices.line


def test_the_digest_of_a_data_set_without_one_follows_its_content(stripes):
    one, same, other = (data.digest(DataConfig(name=stripes, seed=seed, val_fraction=share)) for seed, share in
                        ((0, 0.1), (0, 0.2), (1, 0.1)))  # fmt: skip
    assert one == same != other
    assert len(one) == len(hashlib.sha256().hexdigest())
    assert DATA_SETS[stripes].sizes(DataConfig(name=stripes, samples=70)) == Sizes(3, 2, 70)

"""What trains, validates and tests: split, scale, noise, and the order of the batches."""

import hashlib

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from mlpexp import data as datasets
from mlpexp.config.schema import DataConfig
from mlpexp.data.batches import Batches, epoch_order
from mlpexp.data.datamodule import TableDataModule
from mlpexp.data.prepared_data import prepare
from mlpexp.data.splits import noisy_labels, split
from mlpexp.data.stratified_split import stratified_split
from mlpexp.runtime.errors import UserError

LABELS = load_digits().target.astype(np.int64)
PARTS = ("train", "val", "test")


def parts(**changes):
    return split(LABELS, DataConfig(**changes))


def test_digits_are_scaled_by_the_maximum_flattened_and_typed_as_in_the_notebook():
    bunch = load_digits()
    data = prepare(datasets.load(DataConfig()), DataConfig(split="none"))
    wanted = bunch.images.astype(np.float32)
    wanted = (wanted / wanted.max()).reshape(1797, 64)
    assert data.inputs.dtype == torch.float32
    assert data.labels.dtype == torch.int64
    assert (data.inputs.min(), data.inputs.max()) == (0, 1)
    assert torch.equal(data.inputs, torch.from_numpy(wanted))
    assert torch.equal(data.labels, torch.from_numpy(bunch.target.astype(np.int64)))
    assert (data.class_names, data.table.names) == ([str(name) for name in bunch.target_names], bunch.feature_names)


def test_without_a_split_everything_trains_and_validates_in_its_own_order_and_nothing_tests():
    train, val, test = parts(split="none")
    assert train.tolist() == val.tolist() == list(range(1797))
    assert test.size == 0


@pytest.mark.parametrize(
    "fractions", [(0.15, 0.15), (0.2, 0.0), (0.5, 0.4), (0.01, 0.3)], ids=lambda pair: f"val {pair[0]} test {pair[1]}"
)
def test_a_split_is_disjoint_complete_stratified_and_of_the_size_that_was_asked(fractions):
    val_fraction, test_fraction = fractions
    train, val, test = parts(val_fraction=val_fraction, test_fraction=test_fraction)
    assert np.sort(np.concatenate([train, val, test])).tolist() == list(range(1797))
    assert (len(val), len(test)) == (round(val_fraction * 1797), round(test_fraction * 1797))
    for part in (train, val, test):
        wanted = np.bincount(LABELS) * len(part) / 1797
        assert (np.abs(np.bincount(LABELS[part], minlength=10) - wanted) < 2).all()


def test_a_stratified_split_has_the_indices_of_scikit_learn_and_refuses_what_it_refuses():
    generator = np.random.default_rng(0)
    compared = 0
    for _ in range(300):
        labels = generator.integers(0, generator.integers(1, 8), generator.integers(2, 200)) * generator.integers(1, 3)
        taken, seed = int(generator.integers(0, len(labels) + 2)), int(generator.integers(2**31))
        try:
            expected = train_test_split(np.arange(len(labels)), test_size=taken, stratify=labels, random_state=seed)
        except ValueError:
            with pytest.raises(ValueError, match="samples of"):
                stratified_split(labels, taken, seed)
            continue
        compared += 1
        for ours, theirs in zip(stratified_split(labels, taken, seed), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert compared > 100


def test_the_default_split_is_the_one_that_earlier_results_belong_to():
    digest = hashlib.sha256(b"".join(part.astype("<i8").tobytes() for part in parts())).hexdigest()
    assert digest[:16] == "ebfb329bc4e045f2"


def test_a_split_follows_the_datas_seed_and_nothing_else():
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    again = [parts(seed=3), parts(seed=3), parts(seed=4)]
    assert all(np.array_equal(one, two) for one, two in zip(again[0], again[1], strict=True))
    assert not np.array_equal(again[0].test, again[2].test)
    assert np.array_equal(before[0], np.random.get_state()[1])
    assert torch.equal(before[1], torch.random.get_rng_state())


@pytest.mark.parametrize("folds", [2, 5, 10])
def test_the_validation_parts_of_all_folds_cover_everything_but_the_test_part_exactly_once(folds):
    found = [parts(folds=folds, fold=fold, test_fraction=0.1) for fold in range(folds)]
    test = found[0].test
    assert len(test) == 180
    assert all(np.array_equal(one.test, test) for one in found)
    validated = np.concatenate([one.val for one in found])
    assert np.sort(np.concatenate([validated, test])).tolist() == list(range(1797))
    for one in found:
        assert np.sort(np.concatenate(one)).tolist() == list(range(1797))
        counts = np.bincount(LABELS[one.val], minlength=10)
        assert (np.abs(counts - np.bincount(LABELS) * 0.9 / folds) < 2).all()


@pytest.mark.parametrize(
    ("counts", "settings"),
    [
        ([20, 20, 1], {}),
        ([20, 20, 3], {}),
        ([20, 20, 3], {"folds": 5, "fold": 4}),
        ([20, 20, 1], {"folds": 2, "test_fraction": 0.0}),
        ([20, 20, 20], {"val_fraction": 0.001}),
        ([100, 100], {"test_fraction": 0.001}),
        ([40, 40], {"val_fraction": 0.5, "test_fraction": 0.499}),
    ],
    ids=str,
)
def test_a_class_too_small_for_every_part_is_refused_in_one_line(counts, settings):
    labels = np.repeat(np.arange(len(counts)), counts)
    with pytest.raises(UserError) as caught:
        split(labels, DataConfig(**settings))
    message = str(caught.value)
    rarest = int(np.argmin(counts))
    assert f"class {rarest} has only {counts[rarest]} of {sum(counts)}" in message
    assert "\n" not in message
    assert ("data.folds=" if "folds" in settings else "data.val_fraction=") in message


def test_label_noise_touches_its_share_of_the_training_labels_only():
    cfg = DataConfig(label_noise=0.4, seed=1)
    train, val, test = split(LABELS, cfg)
    noisy = noisy_labels(LABELS, train, 10, cfg)
    assert np.array_equal(noisy[val], LABELS[val])
    assert np.array_equal(noisy[test], LABELS[test])
    # a tenth of the replaced labels is drawn right by chance
    share = (noisy[train] != LABELS[train]).mean()
    assert share == pytest.approx(0.4 * 0.9, abs=0.03)
    assert set(noisy) == set(range(10))


def test_label_noise_follows_the_datas_seed():
    cfg = DataConfig(label_noise=0.3)
    train = parts().train
    first = noisy_labels(LABELS, train, 10, cfg)
    assert np.array_equal(first, noisy_labels(LABELS, train, 10, cfg))
    assert not np.array_equal(first, noisy_labels(LABELS, train, 10, DataConfig(label_noise=0.3, seed=1)))


def test_noisy_labels_are_what_trains_and_true_ones_what_validates():
    data = prepare(datasets.load(DataConfig()), DataConfig(label_noise=0.5))
    truth = torch.from_numpy(LABELS)
    index = {part: torch.from_numpy(getattr(data.split, part)) for part in PARTS}
    assert not torch.equal(data.part("train")[1], truth[index["train"]])
    assert torch.equal(data.part("val")[1], truth[index["val"]])
    assert torch.equal(data.part("test")[1], truth[index["test"]])


@pytest.mark.parametrize("part", ["val", "test"])
def test_the_scale_is_the_training_parts_even_where_the_maximum_lies_elsewhere(part):
    table = datasets.load(DataConfig())
    where = int(getattr(parts(), part)[0])
    inputs = table.inputs.copy()
    inputs[where, 5] = 160.0  # ten times what the training part has
    data = prepare(table._replace(inputs=inputs, digest=f"with an outlier in {part}"), DataConfig())
    assert set(data.features.scale) == {16.0}
    assert data.part("train")[0].max() == 1.0
    assert data.part(part)[0].max() == 10.0


def test_data_of_another_configuration_is_not_taken_from_memory():
    table = datasets.load(DataConfig())
    plain, noisy = prepare(table, DataConfig()), prepare(table, DataConfig(label_noise=0.5))
    other = prepare(table, DataConfig(seed=1))
    assert not torch.equal(plain.train_labels, noisy.train_labels)
    assert not np.array_equal(plain.split.train, other.split.train)
    assert prepare(table, DataConfig(batch_size=7, shuffle=False)) is plain


@pytest.mark.parametrize("epoch", [0, 1, 9])
@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_an_epochs_order_is_a_permutation_that_follows_seed_and_epoch_alone(seed, epoch):
    state = torch.random.get_rng_state()
    order = epoch_order(1257, seed, epoch)
    torch.rand(3)  # whatever happens in between
    again = epoch_order(1257, seed, epoch)
    torch.random.set_rng_state(state)
    assert torch.equal(order, again)
    assert torch.equal(order.sort().values, torch.arange(1257))
    assert not torch.equal(order, epoch_order(1257, seed, epoch + 1))
    assert not torch.equal(order, epoch_order(1257, seed - 1 if seed else 1, epoch))


def test_an_epochs_order_leaves_the_callers_random_stream_alone():
    state = torch.random.get_rng_state()
    epoch_order(100, 0, 0)
    assert torch.equal(state, torch.random.get_rng_state())


def test_an_epochs_order_is_the_one_that_earlier_results_belong_to():
    assert epoch_order(8, 0, 0).tolist() == [3, 1, 6, 0, 4, 5, 7, 2]
    assert epoch_order(8, 5, 3).tolist() == [5, 0, 4, 3, 6, 1, 2, 7]


@pytest.mark.parametrize("batch_size", [1, 5, 32, 63, 64, 1000])
def test_batches_are_slices_in_order_and_the_smaller_last_one_is_kept(batch_size):
    inputs, labels = torch.arange(128.0).reshape(64, 2), torch.arange(64)
    batches = Batches(inputs, labels, batch_size)
    found = list(batches)
    assert len(found) == len(batches)
    assert [len(y) for _, y in found[:-1]] == [batch_size] * (len(batches) - 1)
    assert len(found[-1][1]) == (64 % batch_size or batch_size)
    assert torch.equal(torch.cat([x for x, _ in found]), inputs)
    assert torch.equal(torch.cat([y for _, y in found]), labels)


def test_shuffled_batches_take_a_new_order_with_each_pass_and_keep_samples_and_labels_together():
    orders = iter([torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0])])
    batches = Batches(torch.tensor([[0.0], [10.0], [20.0]]), torch.arange(3), 2, lambda: next(orders))
    for wanted in ([2, 0, 1], [1, 2, 0]):
        found = list(batches)
        assert torch.cat([y for _, y in found]).tolist() == wanted
        assert torch.cat([x for x, _ in found]).flatten().tolist() == [10.0 * i for i in wanted]


@pytest.mark.parametrize("shuffle", [True, False])
def test_the_data_module_feeds_the_training_part_in_the_epochs_order(shuffle):
    module = TableDataModule(DataConfig(shuffle=shuffle, batch_size=100), seed=4)
    module.setup()
    inputs, labels = module.prepared.part("train")
    order = epoch_order(len(labels), 4, 0) if shuffle else torch.arange(len(labels))
    found = list(module.train_dataloader())
    assert torch.equal(torch.cat([x for x, _ in found]), inputs[order])
    assert torch.equal(torch.cat([y for _, y in found]), labels[order])


@pytest.mark.parametrize("part", ["val", "test"])
def test_the_data_module_evaluates_each_part_whole_and_in_order(part):
    module = TableDataModule(DataConfig(), seed=0)
    module.setup()
    found = list(getattr(module, f"{part}_dataloader")())
    inputs, labels = module.prepared.part(part)
    assert torch.equal(torch.cat([x for x, _ in found]), inputs)
    assert torch.equal(torch.cat([y for _, y in found]), labels)


def test_a_batch_larger_than_the_training_part_is_announced(caplog):
    TableDataModule(DataConfig(batch_size=5000), seed=0).setup()
    assert "data.batch_size=5000 is larger than the 1257 training samples" in caplog.text

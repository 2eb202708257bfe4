"""Every kind of bad value, typed at the real command line: exit code 2, one line, nothing touched."""

import pytest
from conftest import Outcome, tree

# the rest of FAULTS' rows are typed in test_cli (words) and test_launcher (sweeps); these are about numbers and names
WRONG = {
    "model.depth=-1": "model.depth=-1 is out of range: it must be >= 0",
    "model.width=0": "model.width=0: give a whole number from 1",
    "model.width=[8,-3]": "model.width=[8,-3]: give a whole number from 1",
    "data.batch_size=0": "data.batch_size=0 is out of range: it must be >= 1",
    "data.batch_size=-5": "data.batch_size=-5 is out of range",
    "trainer.max_epochs=0": "trainer.max_epochs=0 is out of range: it must be >= 1",
    "trainer.max_epochs=2.5": "trainer.max_epochs=2.5 is not a whole number",
    "model.init=xaver": "unknown init 'xaver'; choose one of",
    "model.variant=keras": "unknown variant 'keras'; choose one of autograd, backprop, torch_nn",
    "optimizer.lr=0": "optimizer.lr=0 is out of range: it must be > 0",
    "optimizer.lr=-0.1": "optimizer.lr=-0.1 is out of range: it must be > 0",
    "optimizer.lr=nan": "optimizer.lr=nan is not finite",
    "optimizer.lr=inf": "optimizer.lr=inf is not finite",
    "seed=-1": "seed=-1 is out of range: it must be >= 0",
    "seed=99999999999": "seed=99999999999 is out of range: it must be <= 4294967295",
    "data.val_fraction=0": "data.val_fraction=0 is out of range: it must be > 0",
    "data.val_fraction=1.5": "data.val_fraction=1.5 is out of range: it must be < 1",
    "data.val_fraction=nan": "data.val_fraction=nan is not finite",
}


@pytest.mark.parametrize("typed", WRONG)
def test_a_bad_value_is_one_line_and_nothing_is_touched(train, here, typed: str):
    (here / "mine.txt").write_text("mine")
    before = tree(here)
    ended: Outcome = train(typed)
    assert ended.code == 2
    assert ended.line.startswith("train.py: ")
    assert WRONG[typed] in ended.line
    assert "Traceback" not in ended.err
    assert (ended.out, tree(here)) == ("", before)

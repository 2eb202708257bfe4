"""Names and entries: an unknown name is an error that lists the choices."""

import pytest

from mlpexp.runtime.errors import UserError
from mlpexp.runtime.registry import Registry


def test_an_unknown_name_is_refused_with_a_near_miss_and_the_choices():
    registry = Registry("activation", {"tanh": 1, "relu": 2})
    with pytest.raises(UserError, match=r"unknown activation 'tahn'; did you mean tanh\? choose one of tanh, relu"):
        registry["tahn"]
    assert registry.get("tanh") == 1
    assert "tahn" not in registry
    assert registry.names == ("tanh", "relu") == tuple(registry)


def test_an_entry_is_added_once():
    registry = Registry("activation", {"tanh": 1})
    assert registry.register("cube", 3) == 3 == registry["cube"]
    with pytest.raises(UserError, match="'tanh' is registered already"):
        registry.register("tanh", 4)
    assert len(registry) == 2

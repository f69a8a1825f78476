"""Finished runs about texts, made once."""

import functools

import pytest
import text_families
import text_runs


@pytest.fixture(scope="session")
def make_run(tmp_path_factory):
    """Makes the folder of a run for one of `text_runs.TASKS`, with an encoder of some family."""

    @functools.cache
    def encoder(family):
        folder = tmp_path_factory.mktemp(family)
        text_families.save_tiny(family, folder, max_sequence_length=text_runs.POSITIONS)
        return folder

    @functools.cache
    def make(name, family="bert"):
        folder = tmp_path_factory.mktemp(f"{family}-{name}")
        text_runs.write_run(folder, name, encoder(family))
        return folder

    return make

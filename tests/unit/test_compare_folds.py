"""Folds: every photo is judged once, by a head that was not solved on a copy of it."""

import numpy as np
import pandas as pd
import pytest

from regraft.core.config import TuneConfig
from regraft.core.errors import DataError
from regraft.data.split import unit_numbers
from regraft.evaluation.compare.folds import make_folds
from regraft.evaluation.compare.measure import neighbours, probe


def table(n: int, **columns) -> pd.DataFrame:
    frame = pd.DataFrame({"sha256": [f"{at:064x}" for at in range(n)], "group": ""})
    return frame.assign(phash="0" * 16, thumbnail=bytes(256), **columns)


def parts(fold):
    return fold.fit, fold.choose, fold.judge


def test_every_photo_judges_once_and_is_in_one_part_of_a_fold():
    y = np.arange(60) % 3
    folds = make_folds(y, np.arange(60), seed=0)
    assert len(folds) == 5
    assert sorted(np.concatenate([fold.judge for fold in folds])) == list(range(60))
    for fold in folds:
        assert sorted(np.concatenate(parts(fold))) == list(range(60))
        assert set(fold.train) == {*fold.fit, *fold.choose}
        assert np.bincount(y[fold.judge]).tolist() == [4, 4, 4]


def test_copies_of_a_photo_and_groups_are_never_in_two_parts():
    photos = table(60)
    photos.loc[range(0, 60, 6), "sha256"] = photos.sha256[0]  # ten copies
    photos.loc[[1, 2, 3], "group"] = "a shoot"
    photos.loc[[6, 3], "group"] = "a shoot"  # 6 is a copy of 0: a chain
    units = unit_numbers(photos, 0, by_group=True)
    assert len({units[0], units[6], units[1], units[3]}) == 1
    for fold in make_folds(np.arange(60) % 3, units, seed=1):
        for one, other in ((0, 1), (0, 2), (1, 2)):
            assert not {*units[parts(fold)[one]]} & {*units[parts(fold)[other]]}


def test_near_copies_share_a_unit_as_they_share_a_side():
    generator = np.random.default_rng(0)
    looks = [generator.integers(0, 256, 256, dtype=np.uint8) for _ in range(3)]
    looks.append(np.minimum(looks[0], 250))
    photos = table(4)
    photos["thumbnail"] = [look.tobytes() for look in looks]
    photos["phash"] = ["0" * 16, "f" * 16, "00ff" * 4, "0" * 15 + "1"]
    units = unit_numbers(photos, 4, by_group=True)
    assert units[0] == units[3]
    assert len(set(units)) == 3
    assert len(set(unit_numbers(photos, 0, by_group=True))) == 4


def test_the_same_seed_draws_the_same_folds():
    y, units = np.arange(40) % 2, np.arange(40)
    judged = [[fold.judge.tolist() for fold in make_folds(y, units, seed)] for seed in (0, 0, 1)]
    assert judged[0] == judged[1] != judged[2]


@pytest.mark.parametrize("y", [[0, 1], [0, 0, 0, 1], [0, 1, 2, 3], [0] * 9 + [1]])
def test_few_photos_are_cut_as_far_as_they_go(y):
    y = np.array(y)
    folds = make_folds(y, np.arange(len(y)), seed=0)
    assert sorted(np.concatenate([fold.judge for fold in folds])) == list(range(len(y)))
    x = np.eye(4, dtype=np.float32)[y]
    for fold in folds:
        for said in (probe(x, y, fold, TuneConfig(head_l2=(1.0,))), neighbours(x, y, fold)):
            assert set(said) <= set(y[fold.train])


def test_photos_that_are_all_one_cannot_be_compared_on():
    with pytest.raises(DataError, match=r"\bgot 4\b"):
        make_folds(np.arange(4) % 2, np.zeros(4, np.int64), seed=0)


def test_the_probe_never_sees_who_judges():
    """Labels that embeddings carry are found; the judges' own labels change no answer."""
    y = np.arange(60) % 3
    x = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    x[:, :3] += 4 * np.eye(3)[y]
    [fold, *_] = make_folds(y, np.arange(60), seed=0)
    changed = y.copy()
    changed[fold.judge] = 0
    tune = TuneConfig(head_l2=(0.01, 1.0))
    assert (probe(x, y, fold, tune) == y[fold.judge]).mean() > 0.8
    assert (probe(x, y, fold, tune) == probe(x, changed, fold, tune)).all()
    assert (neighbours(x, y, fold) == neighbours(x, changed, fold)).all()


def test_neighbours_are_found_by_angle_and_not_by_length():
    y = np.array([0] * 6 + [1] * 6)
    x = np.repeat([[1.0, 0.1], [0.1, 1.0]], 6, axis=0).astype(np.float32)
    [fold, *_] = make_folds(y, np.arange(12), seed=0)
    lengths = np.geomspace(0.01, 100, 12).astype(np.float32)[:, None]
    assert (neighbours(x * lengths, y, fold) == y[fold.judge]).all()

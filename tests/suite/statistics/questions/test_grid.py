import math

import numpy as np
import pandas as pd
import pytest

from suite.statistics.questions.grid import from_frames, read, settings
from suite.types import BadInput, Proxy

COLUMNS = ["space", "dataset", "architecture", "proxy", "seed", "val_error", "test_error", "device_s"]


def scores(dataset="d"):
    rows = [("s", dataset, a, "e1", 0, e, math.nan, 2.0) for a, e in zip("xyzw", (9, 8, math.inf, 7), strict=True)]
    rows += [("s", dataset, a, "full", seed, e, e + seed, 50.0)
             for seed in (0, 1) for a, e in zip("wzyx", (1.0, 4.0, 2.0, 3.0), strict=True)]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def test_rows_line_up_by_network_whatever_their_order():
    grid = from_frames(scores())
    assert grid.architectures == ("w", "z", "y", "x")
    assert grid.errors["e1"].tolist() == [7, math.inf, 8, 9]
    assert grid.truth.tolist() == [1.5, 4.5, 2.5, 3.5]
    assert from_frames(scores(), judge_seed=0).truth.tolist() == [1, 4, 2, 3]
    assert grid.device_s == {"e1": 2.0, "full": 50.0}


def test_a_written_study_is_read_back(tmp_path):
    named = pd.DataFrame({"proxy": ["e1", "params"], "epochs": [1, None], "channels": [4, None],
                          "resolution": [8, None], "samples": [0.5, None], "cells": [None, None]})  # fmt: skip
    scores().to_csv(tmp_path / "scores.csv", index=False)
    with pytest.raises(BadInput, match=r"no consistency\.csv"):
        read(tmp_path)
    named.to_csv(tmp_path / "consistency.csv", index=False)
    grid = read(tmp_path, dataset="d")
    assert grid.settings == {"e1": Proxy(1, 4, 8, 0.5)}
    assert np.isinf(grid.errors["e1"]).sum() == 1


def test_cells_are_read_where_they_are_given():
    row = {"proxy": ["p"], "epochs": [9], "channels": [4], "resolution": [8], "samples": [1.0], "cells": [3.0]}
    assert settings(pd.DataFrame(row)) == {"p": Proxy(9, 4, 8, cells=3)}


@pytest.mark.parametrize(
    ("change", "which", "line"),
    [
        (lambda f: f.drop(columns="seed"), {}, "no column seed"),
        (lambda f: pd.concat([f, scores("other")]), {}, "2 of dataset, choose one of d, other"),
        (lambda f: f, {"dataset": "c"}, "no dataset 'c'; there are d"),
        (lambda f: f[f["proxy"] != "full"], {}, "no rows with proxy 'full'"),
        (lambda f: f, {"judge_seed": 7}, "no seed 7; there are 0, 1"),
        (lambda f: f[1:], {}, "x .1 such. lacks an answer under e1"),
        (lambda f: pd.concat([f, f[:1]]), {}, "two answers under e1"),
        (lambda f: pd.concat([f, f[:4].assign(seed=1)]), {}, "seeds 0, 1; choose proxy_seed"),
        (lambda f: f.assign(val_error=f.val_error.replace(8, math.nan)), {}, "y .1 such. has no val_error under e1"),
    ],
)
def test_frames_that_do_not_make_a_grid_are_refused(change, which, line):
    with pytest.raises(BadInput, match=line):
        from_frames(change(scores()), **which)

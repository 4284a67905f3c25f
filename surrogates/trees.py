"""Trees as arrays, whoever grew them: so that they are stored without code and asked without their library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from suite.machine_code import compiled
from surrogates.base import Arrays, Floats


@dataclass(frozen=True)
class Forest:
    """Trees of several members; a row goes left where its column is at most the threshold."""

    column: npt.NDArray[np.int32]
    """Of each inner node; -1: a leaf."""
    threshold: Floats
    left: npt.NDArray[np.int32]
    right: npt.NDArray[np.int32]
    nan_left: npt.NDArray[np.bool_]
    """Where a row without this column goes."""
    value: Floats
    """Of each leaf."""
    roots: npt.NDArray[np.int32]
    """First node of each tree."""
    member: npt.NDArray[np.int32]
    """Which member each tree belongs to; a member's prediction is the sum of its trees."""

    def predict(self, x: Floats) -> Floats:
        """What each member says, shape (members, n)."""
        found = np.zeros((int(self.member.max()) + 1, len(x)))
        _walk(
            np.ascontiguousarray(x), self.column, self.threshold, self.left, self.right, self.nan_left, self.value,
            self.roots, self.member, found,
        )  # fmt: skip
        return found

    def arrays(self, prefix: str = "") -> dict[str, npt.NDArray[Any]]:
        """All of it, by name."""
        return {f"{prefix}{key}": value for key, value in vars(self).items()}

    @classmethod
    def of_arrays(cls, arrays: Arrays, prefix: str = "") -> Forest:
        """The forest that `arrays` were made of."""
        return cls(**{key: arrays[f"{prefix}{key}"] for key in cls.__dataclass_fields__})

    @classmethod
    def of_lightgbm(cls, texts: Sequence[str]) -> Forest:
        """The members that LightGBM wrote as text (`Booster.model_to_string`), each one a booster."""
        parts: dict[str, list[npt.NDArray[Any]]] = {
            name: [] for name in ("column", "threshold", "left", "right", "nan_left", "value")
        }
        roots, member, size = [], [], 0
        for number, text in enumerate(texts):
            for block in text.split("\nTree=")[1:]:
                said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
                leaves = np.fromstring(said["leaf_value"], sep=" ")
                inner = int(said["num_leaves"]) - 1

                def numbers(key: str, said: dict[str, str] = said, inner: int = inner) -> Floats:
                    return np.fromstring(said[key], sep=" ") if inner else np.empty(0)

                def place(key: str, inner: int = inner, size: int = size, numbers: Any = numbers) -> Any:
                    child = numbers(key).astype(np.int32)  # ~leaf where negative
                    return size + np.where(child >= 0, child, inner + ~child)

                kind = numbers("decision_type").astype(np.int64)
                missing = (kind >> 2) & 3  # 0: nan is 0; 2: nan has its own side
                nan_left = np.where(missing == 2, kind & 2 > 0, numbers("threshold") >= 0)
                nothing = np.full(len(leaves), -1)
                parts["column"].append(np.append(numbers("split_feature"), nothing))
                parts["threshold"].append(np.append(numbers("threshold"), np.zeros(len(leaves))))
                parts["left"].append(np.append(place("left_child"), nothing))
                parts["right"].append(np.append(place("right_child"), nothing))
                parts["nan_left"].append(np.append(nan_left, np.zeros(len(leaves), dtype=bool)))
                parts["value"].append(np.append(np.zeros(inner), leaves))
                roots.append(size)
                member.append(number)
                size += inner + len(leaves)
        return cls._joined(parts, roots, member)

    @classmethod
    def of_sklearn(cls, forest: Any) -> Forest:
        """A fitted forest of scikit-learn; each tree is a member."""
        parts: dict[str, list[npt.NDArray[Any]]] = {
            name: [] for name in ("column", "threshold", "left", "right", "nan_left", "value")
        }
        roots, size = [], 0
        for fitted in forest.estimators_:
            tree = fitted.tree_
            leaf = tree.children_left < 0
            parts["column"].append(np.where(leaf, -1, tree.feature))
            parts["threshold"].append(tree.threshold)
            parts["left"].append(np.where(leaf, -1, tree.children_left + size))
            parts["right"].append(np.where(leaf, -1, tree.children_right + size))
            parts["nan_left"].append(np.zeros(len(leaf), dtype=bool))
            parts["value"].append(np.where(leaf, tree.value[:, 0, 0], 0.0))
            roots.append(size)
            size += tree.node_count
        return cls._joined(parts, roots, range(len(roots)))

    @classmethod
    def _joined(cls, parts: dict[str, list[npt.NDArray[Any]]], roots: Sequence[int], member: Sequence[int]) -> Forest:
        whole = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        return cls(
            whole["column"].astype(np.int32), whole["threshold"].astype(np.float64), whole["left"].astype(np.int32),
            whole["right"].astype(np.int32), whole["nan_left"].astype(bool), whole["value"].astype(np.float64),
            np.array(roots, dtype=np.int32), np.array(member, dtype=np.int32),
        )  # fmt: skip


def _walk_rows(
    x: Any, column: Any, threshold: Any, left: Any, right: Any, nan_left: Any, value: Any, roots: Any, member: Any,
    found: Any,
) -> None:  # fmt: skip
    for start in range(0, x.shape[0], 64):  # so many rows stay in the cache while all trees are asked
        end = min(start + 64, x.shape[0])
        for tree in range(len(roots)):
            root, own = roots[tree], member[tree]
            for row in range(start, end):
                node = root
                while column[node] >= 0:
                    number = x[row, column[node]]
                    if np.isnan(number):
                        node = left[node] if nan_left[node] else right[node]
                    elif number <= threshold[node]:
                        node = left[node]
                    else:
                        node = right[node]
                found[own, row] += value[node]


_walk = compiled(_walk_rows)

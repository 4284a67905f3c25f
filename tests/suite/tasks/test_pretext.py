"""The checkable properties of UnNAS's tasks, its card's section 12."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.colours import CELL, CPU, PROXY, RECIPE, SPACE, coloured, network

from suite.data.images import load
from suite.evaluators.live import LiveEvaluator
from suite.tasks import make, pretext
from suite.types import Trial, Unsupported


@pytest.fixture(scope="module")
def data():
    return coloured()


def opened(name, data, **recipe):
    task = make(name, data, replace(RECIPE, **recipe))
    return task.session(network(task), PROXY, seed=0, device=CPU)


def test_1_a_rotation_batch_has_every_turn_of_every_image(data):
    batch = opened("rotation", data, crop=False, flip=False).look("valid", slice(0, 6))
    assert torch.bincount(batch.targets).tolist() == [6] * 4
    turns = batch.inputs.view(4, 6, 3, 32, 32)
    for turn in range(4):
        back = turns[turn]
        for _ in range((4 - turn) % 4):
            back = torch.rot90(back, 1, (2, 3))
        assert torch.equal(back, turns[0])


def test_2_all_permutations_occur_and_the_inverse_restores_the_tiles(data):
    session = opened("jigsaw", data, flip=False)
    permutations = pretext.PERMUTATIONS
    assert sorted(permutations) == list(itertools.permutations(range(4)))
    images = data.valid_images[:24].float()
    still = {"row": torch.full((24, 4), 2), "column": torch.full((24, 4), 3)}
    plain = session.cut(images.clone(), {"permutation": torch.zeros(24, dtype=torch.int64), **still})
    mixed = session.cut(images.clone(), {"permutation": torch.arange(24), **still})
    plain_tiles, tiles = (batch.inputs.view(24, 4, 3, 12, 12) for batch in (plain, mixed))
    assert permutations[0] == (0, 1, 2, 3)
    restored = torch.stack([tiles[n][list(permutations[n])] for n in range(24)])
    assert torch.equal(restored, plain_tiles)
    torch.testing.assert_close(tiles.mean(dim=(2, 3, 4)), torch.zeros(24, 4), atol=1e-5, rtol=0)
    torch.testing.assert_close(tiles.std(dim=(2, 3, 4), correction=0), torch.ones(24, 4), atol=1e-4, rtol=0)


def test_tiles_are_where_they_were_drawn(data):
    session = opened("jigsaw", data)
    drawn = {
        "permutation": torch.tensor([0]),
        "row": torch.tensor([[0, 1, 2, 4]]),
        "column": torch.tensor([[4, 3, 1, 0]]),
    }
    tiles = session.cut(data.valid_images[:1].float(), drawn).inputs
    normal = session.plain.normalise(data.valid_images[:1])[0]
    for tile, (top, left) in enumerate([(0, 4), (1, 16 + 3), (16 + 2, 1), (16 + 4, 16)]):
        part = normal[:, top : top + 12, left : left + 12]
        torch.testing.assert_close(tiles[tile], (part - part.mean()) / part.std(correction=0), atol=1e-4, rtol=1e-4)


def test_the_jigsaw_head_is_a_linear_layer_on_the_four_tiles_together(data):
    task = make("jigsaw", data, RECIPE)
    features = torch.randn(5, 4, 7)  # (image, tile, feature)
    layer = torch.nn.Linear(7, task.ends.outputs)
    batch = type("Batch", (), {"targets": torch.zeros(5)})()
    found = task.logits(layer(features.flatten(0, 1)), batch)
    together = layer.weight.view(4, 24, 7).permute(1, 0, 2).flatten(1)  # (24, 4 x 7)
    expected = features.flatten(1) @ together.T + layer.bias.view(4, 24).sum(dim=0)
    torch.testing.assert_close(found, expected)


def test_3_a_colour_is_the_nearest_of_313_by_brute_force_and_is_not_shown(data):
    session = opened("colourisation", data)
    batch = session.look("valid", slice(0, 8))
    _, ab = pretext.lab(data.valid_images[:8])
    centres = torch.from_numpy(pretext.colour_centres()).float()
    distances = torch.cdist(ab.permute(0, 2, 3, 1).reshape(-1, 2), centres)
    chosen = distances.gather(1, batch.targets.reshape(-1, 1))[:, 0]
    torch.testing.assert_close(chosen, distances.min(dim=1).values, atol=1e-3, rtol=0)
    grey = data.valid_images[:8].float().mean(dim=1, keepdim=True).expand(-1, 3, -1, -1).to(torch.uint8)
    assert batch.inputs.shape == (8, 1, 32, 32)
    assert pretext.lab(grey)[1].abs().max() < 0.1


def test_there_are_313_colours_within_13_and_a_half_of_srgb_and_every_colours_nearest_is_one():
    """The gamut's projection is that of the cube's faces."""
    scipy_spatial = pytest.importorskip("scipy.spatial")
    line = torch.linspace(0, 255, 128)
    u, v = torch.meshgrid(line, line, indexing="ij")
    faces = [
        torch.stack([torch.full_like(u, value), u, v]).roll(turn, dims=0) for turn in range(3) for value in (0.0, 255.0)
    ]
    ab = pretext.lab(torch.stack(faces))[1].permute(0, 2, 3, 1).reshape(-1, 2).numpy()
    grid = np.array([(a, b) for a in range(-150, 151, 10) for b in range(-150, 151, 10)])
    reach, _ = scipy_spatial.cKDTree(ab).query(grid)
    hit = {tuple(point) for point in (10 * np.rint(ab / 10)).astype(int)}
    near = {tuple(point) for point, far in zip(grid.tolist(), reach, strict=True) if far <= 13.5} | hit
    centres = {tuple(point) for point in pretext.colour_centres().tolist()}
    assert centres == near
    assert len(centres) == 313
    assert hit <= centres  # so the nearest point of the whole grid is always a centre


def test_lab_agrees_with_published_values_of_the_primaries():
    """CIE Lab of sRGB's red, green and blue under D65, to a tenth."""
    primaries = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255]])[:, :, None, None]
    lightness, ab = pretext.lab(primaries)
    found = torch.cat([lightness, ab], dim=1)[:, :, 0, 0]
    expected = torch.tensor([[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86]])
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["rotation", "jigsaw", "colourisation"])
def test_8_labels_never_enter(name, data):
    others = replace(data, train_labels=data.train_labels.flip(0), valid_labels=torch.zeros_like(data.valid_labels))
    for one, two in zip(opened(name, data).batches(0), opened(name, others).batches(0), strict=True):
        assert torch.equal(one.inputs, two.inputs)
        assert torch.equal(one.targets, two.targets)


def test_rotation_is_learnt_on_digits_and_not_with_turns_that_mean_nothing():
    """Property 4: above chance after training, at chance where all turns look alike."""
    digits = load("digits")
    proxy = replace(PROXY, epochs=2, resolution=8, task="rotation")
    live = LiveEvaluator(SPACE, digits, recipe={"batch_size": 32, "step": "compiled"}, device="cpu", full=proxy)
    (answer,) = live.evaluate([Trial(CELL, proxy)])
    deviation = 100 * math.sqrt(0.75 * 0.25 / (4 * len(digits.valid_images)))
    assert answer.metrics["val_error"] < 75 - 5 * deviation
    blank = {f"{part}_images": torch.full_like(getattr(digits, f"{part}_images"), 9) for part in ("train", "valid")}
    (blind,) = LiveEvaluator(
        SPACE, replace(digits, **blank, flip=False), recipe={"batch_size": 32, "crop": False}, device="cpu", full=proxy
    ).evaluate([Trial(CELL, replace(proxy, epochs=1, samples=0.1))])
    assert blind.metrics["val_error"] == 75.0


def test_what_cannot_be_asked_is_refused_with_the_reason(data):
    with pytest.raises(Unsupported, match="coloured images, and these are grey"):
        make("colourisation", load("digits"), RECIPE)
    with pytest.raises(Unsupported, match="digits: 8 pixels a side are too few for a jigsaw"):
        make("jigsaw", load("digits"), RECIPE).check(PROXY)
    with pytest.raises(Unsupported, match="proxy: 16 pixels a side are too few"):
        make("jigsaw", data, RECIPE).check(replace(PROXY, resolution=16))
    for name in ("jigsaw", "colourisation"):
        with pytest.raises(Unsupported, match=f"cutout has no meaning for {name}"):
            make(name, data, replace(RECIPE, cutout=0.5)).check(PROXY)

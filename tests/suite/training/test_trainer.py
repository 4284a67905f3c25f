from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from suite.data.augment import Augmentation, crop, cut_out, resize
from suite.data.images import load
from suite.data.seeding import generator
from suite.networks import build
from suite.spaces import SPACES
from suite.tasks.images import batches, subset
from suite.training.checkpoints import Checkpoints
from suite.training.device import pick_device, threads
from suite.training.recipe import RECIPES, Recipe, resolve
from suite.training.trainer import Trainer
from suite.types import BadInput, Ends, Proxy, Trial, Unsupported

SPACE = SPACES["nas_bench_201"]
CELL = (3, 2, 1, 1, 4, 2)
TINY = Proxy(epochs=3, channels=4, resolution=8, cells=1)
PLAIN = Recipe(batch_size=128, crop=False, flip=False)


@pytest.fixture(scope="module")
def digits():
    return load("digits")


def trainer(digits, folder, recipe=PLAIN, *, judge=False):
    return Trainer(SPACE, digits, recipe, device="cpu", threads=1, judge=judge, checkpoints=folder)


# Recipes


def test_the_published_recipe():
    recipe = RECIPES["nas_bench_201"]
    assert (recipe.lr, recipe.lr_min, recipe.momentum, recipe.nesterov) == (0.1, 0.0, 0.9, True)
    assert (recipe.weight_decay, recipe.batch_size, recipe.cutout) == (5e-4, 256, 0.0)
    assert recipe.crop
    assert recipe.flip


@pytest.mark.parametrize("changes", ["epoch", "step"])
def test_learning_rates_are_those_of_torchs_schedule(changes):
    epochs, steps = 7, 5
    recipe = Recipe(lr=0.3, lr_min=0.01, lr_changes=changes)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=recipe.lr)
    length = epochs if changes == "epoch" else epochs * steps
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, length, eta_min=recipe.lr_min)
    for step in range(epochs * steps):
        assert recipe.learning_rate(step, steps, epochs) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        if changes == "step" or step % steps == steps - 1:
            schedule.step()


def test_warm_up_rises_from_zero_and_the_cosine_follows():
    recipe = Recipe(warmup_epochs=2, lr_changes="step")
    rates = [recipe.learning_rate(step, steps=10, epochs=6) for step in range(60)]
    assert rates[0] == 0
    assert rates[20] == pytest.approx(recipe.lr)
    assert np.argmax(rates) == 20
    assert rates[40] == pytest.approx(recipe.lr / 2)


def test_a_spec_of_a_recipe_names_what_differs():
    assert resolve("nas_bench_201") == Recipe()
    assert resolve({"lr": 1, "cutout": 0.5}) == Recipe(lr=1, cutout=0.5)
    assert resolve(PLAIN) is PLAIN


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nas_bench_20l", "did you mean 'nas_bench_201'"),
        ({"batchsize": 3}, "did you mean 'batch_size'"),
        ({"zzz": 3}, "there are lr"),
        ({"base": "none"}, "no 'none'"),
        ({"lr": "0.1"}, "lr must be a number"),
        ({"lr": float("nan")}, "finite"),
        ({"lr": -1.0}, "at least 0"),
        ({"batch_size": 2.5}, "whole number"),
        ({"batch_size": 1}, "at least 2"),
        ({"nesterov": 1}, "boolean"),
        ({"momentum": 0.0}, "nesterov"),
        ({"momentum": 2.0}, "at most 1"),
        ({"lr_min": 1.0}, "at most lr"),
        ({"precision": "half"}, "auto, float32, bfloat16"),
        ({"lr_changes": "week"}, "epoch, step"),
    ],
)
def test_a_wrong_recipe_is_refused_in_one_line(spec, message):
    with pytest.raises(BadInput, match=message) as refused:
        resolve(spec)
    assert "\n" not in str(refused.value)


# Subsets and batches


def test_subsets_are_nested_balanced_and_seeded():
    labels = torch.randint(10, (2000,), generator=generator(0))
    previous: set[int] = set()
    for fraction in (0.001, 0.05, 0.25, 0.5, 0.9, 1.0):
        chosen = subset(labels, fraction, seed=3)
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        assert previous <= set(chosen.tolist())
        previous = set(chosen.tolist())
        shares = torch.bincount(labels[chosen], minlength=10)
        assert (shares >= 1).all()
        assert ((shares - fraction * torch.bincount(labels)).abs() <= 1).all()
    assert len(previous) == 2000
    assert torch.equal(subset(labels, 0.1, 3), subset(labels, 0.1, 3))
    assert not torch.equal(subset(labels, 0.1, 3), subset(labels, 0.1, 4))


@pytest.mark.parametrize(
    ("images", "size", "sizes"),
    [(10, 4, [4, 4, 2]), (9, 4, [4, 5]), (8, 4, [4, 4]), (3, 256, [3]), (257, 256, [257]), (1, 4, [1])],
)
def test_batches_cover_an_epoch_and_none_is_a_single_image(images, size, sizes):
    found = batches(images, size)
    assert [batch.stop - batch.start for batch in found] == sizes
    assert found[0].start == 0
    assert all(one.stop == two.start for one, two in pairwise(found))


# Augmentation


def test_without_padding_a_crop_only_mirrors():
    images = torch.randint(256, (20, 3, 8, 8), dtype=torch.uint8, generator=generator(1))
    drawn = Augmentation((0.5,) * 3, (0.2,) * 3, 8, flip=True).draw(20, 0)
    cropped = crop(images, drawn["top"], drawn["left"], drawn["mirrored"], 0)
    assert 0 < drawn["mirrored"].sum() < 20
    for image, before, mirrored in zip(cropped, images, drawn["mirrored"], strict=True):
        assert torch.equal(image, before.flip(-1) if mirrored else before)
    assert torch.equal(cropped.sort().values.sum((0, 1, 2)), images.flip(-1).sort().values.sum((0, 1, 2)))


def test_crops_are_windows_of_the_padded_image():
    images = torch.randint(256, (50, 2, 6, 6), dtype=torch.uint8, generator=generator(2))
    drawn = Augmentation((0.5,) * 2, (0.2,) * 2, 6, padding=2, flip=True).draw(50, 0)
    cropped = crop(images, drawn["top"], drawn["left"], drawn["mirrored"], 2)
    assert drawn["top"].unique().tolist() == drawn["left"].unique().tolist() == [0, 1, 2, 3, 4]
    padded = F.pad(images, (2, 2, 2, 2))
    for place in range(50):
        top, left = int(drawn["top"][place]), int(drawn["left"][place])
        window = padded[place, :, top : top + 6, left : left + 6]
        assert torch.equal(cropped[place], window.flip(-1) if drawn["mirrored"][place] else window)


def test_cutout_sets_a_clipped_square_to_the_mean_and_nothing_else():
    images = torch.ones(3, 2, 6, 6)
    cut_out(images, torch.tensor([3, 0, 5]), torch.tensor([3, 0, 5]), 4)
    assert [(image == 0).sum().item() for image in images] == [2 * 16, 2 * 4, 2 * 9]
    assert (images[0, :, 1:5, 1:5] == 0).all()


@pytest.mark.parametrize("side", [8, 12, 16, 20, 48])
def test_resizing_is_pillows_to_the_nearest_level(side):
    smooth = torch.randint(256, (4, 3, 5, 5), dtype=torch.uint8, generator=generator(3))
    images = resize(smooth, 32)
    ours = resize(images, side)
    for image, before in zip(ours, images, strict=True):
        pillow = Image.fromarray(before.permute(1, 2, 0).numpy()).resize((side, side), Image.Resampling.BILINEAR)
        difference = image.permute(1, 2, 0).int() - torch.from_numpy(np.array(pillow)).int()
        assert difference.abs().max() <= 1
    assert resize(images, 32) is images


def test_normalised_training_images_have_mean_zero_and_deviation_one(digits):
    normal = Augmentation(digits.mean, digits.std, 8).normalise(digits.train_images)
    assert normal.mean().item() == pytest.approx(0, abs=1e-5)
    assert normal.std().item() == pytest.approx(1, abs=1e-3)


def test_padding_and_cutout_scale_with_the_resolution_and_flips_follow_the_data(digits, tmp_path):
    wide = replace(digits, crop_padding=2, flip=True)

    def augmentation(data, recipe, proxy=TINY):
        return trainer(data, tmp_path, recipe).opened(torch.nn.Identity(), proxy, 0).augmentation

    made = augmentation(wide, Recipe(cutout=0.5), replace(TINY, resolution=16))
    assert (made.padding, made.flip, made.cutout) == (4, True, 8)
    made = augmentation(digits, Recipe())
    assert (made.padding, made.flip, made.cutout) == (digits.crop_padding, False, 0)
    made = augmentation(wide, PLAIN)
    assert (made.padding, made.flip) == (0, False)


# Training


def test_training_is_the_loop_that_torchs_manual_would_write(digits, tmp_path):
    recipe = replace(PLAIN, label_smoothing=0.1, grad_clip=1.0)
    ours = trainer(digits, tmp_path, recipe)
    trial = Trial(CELL, TINY, epochs=2, seed=1)
    answer = ours.answer(trial)
    kept = ours.checkpoints.load(ours.key(trial))

    network = build(SPACE, CELL, TINY, ends=Ends(1, 10), seed=1).train()
    network = network.to(memory_format=torch.channels_last)  # rounding apart, the layout means nothing
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, TINY.epochs)
    criterion = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    x = Augmentation(digits.mean, digits.std, 8).normalise(digits.train_images)
    torch.testing.assert_close(x, (digits.train_images / 255 - digits.mean[0]) / digits.std[0])
    with threads(1):
        for epoch in range(2):
            order = torch.randperm(len(x), generator=generator(1, epoch, "order"))
            for batch in order.split(128):
                optimizer.zero_grad()
                criterion(network(x[batch]), digits.train_labels[batch]).backward()
                torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimizer.step()
            schedule.step()
    for name, tensor in network.state_dict().items():
        assert torch.equal(kept["network"][name], tensor), name
    with torch.no_grad():
        logits = network.eval()((digits.valid_images / 255 - digits.mean[0]) / digits.std[0])
    wrong = (logits.argmax(1) != digits.valid_labels).float().mean().item() * 100
    assert answer.metrics["val_error"] == pytest.approx(wrong, abs=0.3)  # one image at a border


def test_the_curve_tells_every_epoch(digits, tmp_path):
    answer = trainer(digits, tmp_path).answer(Trial(CELL, TINY))
    assert [entry["epoch"] for entry in answer.curve] == [1, 2, 3]
    assert [entry["lr"] for entry in answer.curve] == pytest.approx([0.1, 0.075, 0.025])
    assert answer.curve[-1]["val_error"] == answer.metrics["val_error"]
    assert sum(entry["device_s"] for entry in answer.curve) == pytest.approx(answer.cost.device_s, rel=0.05)


def test_multiply_adds_spent_are_counted_for_the_share_of_images(digits, tmp_path):
    proxy = replace(TINY, samples=0.5)
    answer = trainer(digits, tmp_path, judge=True).answer(Trial(CELL, proxy))
    images = len(subset(digits.train_labels, 0.5, 0))
    forward = SPACE.macs(CELL, proxy, ends=Ends(1, 10))
    passes = 3 * (3 * images + len(digits.valid_labels)) + len(digits.test_labels)
    assert answer.cost.macs == forward * passes
    assert answer.metrics["macs"] == forward


def test_a_batch_larger_than_the_subset_is_the_subset(digits, tmp_path):
    proxy = replace(TINY, samples=0.01)
    answer = trainer(digits, tmp_path, replace(PLAIN, batch_size=4096)).answer(Trial(CELL, proxy))
    assert np.isfinite(answer.metrics["val_error"])


def test_images_are_resized_to_the_proxys_resolution(digits, tmp_path):
    for resolution in (4, 12):
        answer = trainer(digits, tmp_path).answer(Trial((2, 1, 1, 1, 1, 1), replace(TINY, resolution=resolution)))
        assert answer.metrics["val_error"] < 85
        assert not answer.failure


@pytest.mark.parametrize(
    ("proxy", "recipe", "message"),
    [
        (replace(TINY, resolution=6), PLAIN, "multiple of 4"),
        (replace(TINY, samples=0.005), PLAIN, "use at least 0.0093"),
        (TINY, replace(PLAIN, warmup_epochs=3), "at least 4 epochs"),
    ],
)
def test_a_proxy_that_cannot_be_trained_is_refused(digits, tmp_path, proxy, recipe, message):
    with pytest.raises(Unsupported, match=message):
        trainer(digits, tmp_path, recipe).check(Trial(CELL, proxy))


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(Unsupported, match="there are auto, cpu"):
        pick_device("tpu")


# Checkpoints


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new")
    assert checkpoints.load("a") is None
    checkpoints.save("a", {"x": torch.arange(3), "curve": [{"epoch": 1.5}]})
    kept = checkpoints.load("a")
    assert torch.equal(kept["x"], torch.arange(3))
    assert kept["curve"] == [{"epoch": 1.5}]
    assert checkpoints.load("b") is None
    assert [path.suffix for path in checkpoints.folder.iterdir()] == [".pt"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_checkpoint_is_ignored_with_a_warning(tmp_path, damage):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("a", {"x": torch.arange(3)})
    path = checkpoints.path("a")
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        path.write_bytes(content[:-10] + bytes([content[-10] ^ 1]) + content[-9:])
    elif damage == "empty":
        path.write_bytes(b"")
    else:
        checkpoints.save("b", {"x": torch.arange(3)})
        checkpoints.path("b").replace(path)
    with pytest.warns(UserWarning, match="damaged checkpoint ignored"):
        assert checkpoints.load("a") is None


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot hold checkpoints"):
        Checkpoints(tmp_path / "file" / "folder")


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save("a", {"x": 1})
    checkpoints.path("a").with_suffix(".tmp").mkdir()
    with pytest.raises(BadInput, match="cannot be written"):
        checkpoints.save("a", {"x": 2})
    assert checkpoints.load("a") == {"x": 1}

"""Live training on CPUs beside the loop that most search code trains with (benchmarks/peers.py).

Every figure is the median of three pairs, ours and theirs in turn. Wall seconds on two cores: other work on the machine
disturbs them, so the load is printed. One thread: seconds of this process's CPU time, which other work disturbs less.

Run: pytest benchmarks/test_bench_training.py -s --benchmark-disable
"""

import os
import statistics
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from peers import SETTINGS, SPACE, images_like_cifar10, loader, random_cells, stepper, train
from torch.nn import functional as F

from searchers.darts import DARTS
from searchers.single_darts import SingleDARTS
from suite.evaluators.live import LiveEvaluator
from suite.networks import build
from suite.networks.learner import Batch, Learner
from suite.training.compiled.program import Program
from suite.training.device import threads
from suite.training.recipe import Recipe
from suite.training.trainer import Trainer
from suite.types import Ends, Proxy, Trial

ROUNDS = 3
HALF = torch.cpu._is_avx512_bf16_supported()
"""Whether the processor has instructions for bfloat16; elsewhere it is emulated, and nobody trains in it."""
WAYS = {"float32": {}, **({"bfloat16": {"precision": "bfloat16"}} if HALF else {}), "compiled": {"step": "compiled"}}
"""Recipes of ours that are timed."""
SMALL = [(4, 1, 8, 64, 4096), (8, 1, 16, 64, 2048), (16, 1, 32, 64, 384)]
"""Channels, cells, side, batch, images."""


def ratios(rounds, *runs, clock=time.perf_counter):
    """Medians of the first's seconds over the others', and of the seconds."""
    seconds = []
    for _ in range(rounds):
        row = []
        for run in runs:
            began = clock()
            run()
            row.append(clock() - began)
        seconds.append(row)
    middle = [statistics.median(column) for column in zip(*seconds, strict=True)]
    return [statistics.median(row[0] / row[place] for row in seconds) for place in range(len(runs))], middle


def say(capsys, line):
    with capsys.disabled():
        print(f"\n{line} [load {os.getloadavg()[0]:.1f}]")


@pytest.mark.parametrize(("channels", "cells", "side", "batch", "number"), SMALL)
def test_end_to_end_on_two_cores(capsys, tmp_path, channels, cells, side, batch, number):
    data, proxy, archs = images_like_cifar10(number, side), Proxy(2, channels, side, cells=cells), random_cells(4)

    def peers(workers, count, archs):
        with threads(count):
            for arch in archs:
                train(data, arch, proxy, batch, workers)

    evaluators = [
        LiveEvaluator(SPACE, data, recipe=Recipe(batch_size=batch, **way), device="cpu", workers=2)
        for way in WAYS.values()
    ]
    try:
        seed = iter(range(100))

        def ours(evaluator):
            answers = evaluator.evaluate([Trial(arch, proxy, seed=next(seed)) for arch in archs])
            assert not any(answer.failure for answer in answers)

        for evaluator in evaluators:
            ours(evaluator)  # warm-up: the processes start
        timed = {}
        for setting in SETTINGS:
            began = time.perf_counter()
            peers(*setting, archs[:1])
            timed[setting] = time.perf_counter() - began
        best = min(timed, key=timed.get)
        found, seconds = ratios(ROUNDS, lambda: peers(*best, archs), *(lambda e=e: ours(e) for e in evaluators))
    finally:
        for evaluator in evaluators:
            evaluator.close()
    rates = [number * proxy.epochs * len(archs) / second for second in seconds]
    say(
        capsys,
        f"end to end, C={channels} N={cells} {side}x{side}, images/s: peers {rates[0]:,.0f} (loader processes, "
        f"threads: {best}), "
        + ", ".join(f"{way} {rate:,.0f} = {x:.2f}x" for way, rate, x in zip(WAYS, rates[1:], found[1:], strict=True)),
    )


@pytest.mark.parametrize(("channels", "cells", "side", "batch"), [*(row[:4] for row in SMALL), (16, 5, 32, 64)])
def test_training_step_on_one_thread(capsys, channels, cells, side, batch):
    proxy = Proxy(1, channels, side, cells=cells)
    images, labels = torch.randn(batch, 3, side, side), torch.arange(batch) % 10
    last = images.to(memory_format=torch.channels_last)
    steps = max(1, 10_000 // (channels * cells * side**2))

    def ours(arch, half):
        network = build(SPACE, arch, proxy, ends=Ends(3, 10), seed=0, skip_dead_edges=True).train()
        network = network.to(memory_format=torch.channels_last)
        optimizer = torch.optim.SGD(
            network.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, nesterov=True, foreach=True
        )

        def step():
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = network(last)
            optimizer.zero_grad()
            F.cross_entropy(logits.float(), labels).backward()
            optimizer.step()

        return step

    def compiled(arch):
        program = Program(
            build(SPACE, arch, proxy, ends=Ends(3, 10), seed=0, skip_dead_edges=True),
            side=side, channels=3, batch=batch,
        )  # fmt: skip
        values, answers = images.permute(0, 2, 3, 1).contiguous().numpy(), labels.numpy()
        sgd = {"rate": 0.1, "momentum": 0.9, "nesterov": True, "decay": 5e-4, "clip": 0.0, "smoothing": 0.0}
        return lambda: program.step(values, answers, **sgd)

    ways = ["float32", *(["bfloat16"] if HALF else []), "compiled"]
    totals = [0.0] * (1 + len(ways))
    with threads(1):
        for arch in random_cells(6 if cells == 1 else 4):
            peers = stepper(arch, proxy)
            ours_now = [compiled(arch) if way == "compiled" else ours(arch, way == "bfloat16") for way in ways]
            runs = [lambda peers=peers: peers(images, labels), *ours_now]
            for run in runs:
                run()
            many = [lambda run=run: [run() for _ in range(steps)] for run in runs]
            _, seconds = ratios(ROUNDS, *many, clock=time.process_time)
            totals = [total + second / steps for total, second in zip(totals, seconds, strict=True)]
    count = 6 if cells == 1 else 4
    say(
        capsys,
        f"step, one thread, C={channels} N={cells} {side}x{side} batch {batch}, {count} random cells, images/s: "
        f"peers {batch * count / totals[0]:,.0f}, "
        + ", ".join(f"{way} {totals[0] / total:.2f}x" for way, total in zip(ways, totals[1:], strict=True)),
    )


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("channels", "cells", "side", "batch", "number"), SMALL)
def test_two_workers_beside_one(capsys, channels, cells, side, batch, number, way):
    epochs = 4 if way == "compiled" else 1
    data, proxy, archs = images_like_cifar10(number, side), Proxy(epochs, channels, side, cells=cells), random_cells(8)
    recipe = Recipe(batch_size=batch, **WAYS[way])
    pools = [LiveEvaluator(SPACE, data, recipe=recipe, device="cpu", workers=workers) for workers in (1, 2)]
    seed = iter(range(100))

    def run(pool):
        pool.evaluate([Trial(arch, proxy, seed=next(seed)) for arch in archs])

    try:
        for pool in pools:
            run(pool)
        found, _ = ratios(ROUNDS, *(lambda pool=pool: run(pool) for pool in pools))
    finally:
        for pool in pools:
            pool.close()
    say(capsys, f"two workers, C={channels} N={cells} {side}x{side}, {way}: {found[1]:.2f}x one")


@pytest.mark.parametrize("side", [32, 16, 8])  # the goal is for 32
def test_batches_of_augmented_images_on_one_core(capsys, tmp_path, side):
    data = images_like_cifar10(2048, side)
    trainer = Trainer(SPACE, data, Recipe(), device="cpu", threads=1, judge=False, checkpoints=tmp_path)
    proxy = Proxy(1, 4, side)
    plain, compiled = (trainer.opened(torch.nn.Identity(), proxy, 0).augmentation for _ in range(2))
    compiled.compile()
    order = torch.randperm(len(data.train_labels))

    def ours(augmentation):
        drawn = augmentation.draw(len(order), 0, 0)
        for start in range(0, len(order), 64):
            batch = slice(start, start + 64)
            augmentation.batch(data.train_images, order[batch], drawn, batch)
            data.train_labels[order[batch]]

    def peers():
        for _ in loader(data, 64):
            pass

    with threads(1):
        runs = (peers, lambda: ours(plain), lambda: ours(compiled))
        found, seconds = ratios(ROUNDS, *runs, clock=time.process_time)
    each = [1e6 * second / len(order) for second in seconds]
    say(
        capsys,
        f"loader, {side}x{side}, us an image: PIL {each[0]:.1f}, tensors {each[1]:.1f} = {found[1]:.1f}x, "
        f"compiled {each[2]:.1f} = {found[2]:.1f}x (goal 9x, stretch 40x)",
    )


@pytest.mark.parametrize("step", ["torch", "compiled"])
@pytest.mark.parametrize("what", ["epochs", "networks", "images"])
def test_twice_the_work_costs_at_most_twice(capsys, what, step):
    data, proxy, archs = images_like_cifar10(2048, 8), Proxy(2, 4, 8, samples=0.5, cells=1), random_cells(3)
    twice = {"epochs": replace(proxy, epochs=4), "images": replace(proxy, samples=1.0)}.get(what, proxy)
    live = LiveEvaluator(SPACE, data, recipe=Recipe(batch_size=64, step=step), device="cpu")
    seed = iter(range(100))
    once = [(arch, proxy) for arch in archs]
    doubled = [(arch, twice) for arch in archs * (2 if what == "networks" else 1)]

    def run(pairs):
        answers = live.evaluate([Trial(arch, under, seed=next(seed)) for arch, under in pairs])
        assert not any(answer.failure for answer in answers)

    run(once)
    found, _ = ratios(ROUNDS, lambda: run(doubled), lambda: run(once), clock=time.process_time)
    say(capsys, f"twice the {what}, {step} steps: {found[1]:.2f} times the seconds (goal: at most 2.1)")


@pytest.mark.parametrize(("channels", "cells", "side", "batch"), [(4, 1, 16, 64), (16, 1, 32, 64)])
def test_a_step_of_single_darts_beside_first_order_darts(capsys, channels, cells, side, batch):
    """Property 7 of Single-DARTS: at equal data at most 0.65 of first-order DARTS's seconds."""
    proxy, ends = Proxy(1, channels, side, cells=cells), Ends(3, 10)
    rng = torch.Generator().manual_seed(0)
    train, held = (Batch(torch.randn(batch, 3, side, side, generator=rng), torch.arange(batch) % 10) for _ in range(2))

    def stepping(method):
        search = method(SPACE, proxy, np.random.default_rng(0))
        supernet = search.build(ends, 0).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.SGD(supernet.parameters(), 0.025, momentum=0.9, weight_decay=3e-4)
        search.begin(Learner(supernet, optimizer, seed=0, grad_clip=5.0), 1)
        return lambda: search.step(train, lambda: held)

    with threads(1):
        ours, darts = stepping(SingleDARTS), stepping(DARTS)
        for run in (ours, darts):
            run()
        steps = max(1, 20_000 // (channels * cells * side**2))
        runs = [lambda run=run: [run() for _ in range(steps)] for run in (ours, darts)]
        found, seconds = ratios(ROUNDS, *runs, clock=time.process_time)
    say(
        capsys,
        f"Single-DARTS, one thread, C={channels} N={cells} {side}x{side} batch {batch}: {found[1]:.2f} of first-order "
        f"DARTS's {seconds[1] / steps:.3f} s a step (at most 0.65 is wanted)",
    )

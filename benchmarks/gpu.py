"""What a GPU reaches: checks the ways to train a candidate there against one another, then times them. One call.

python benchmarks/gpu.py [--device cuda] [--out results.json] [--seconds 2]

Ways: the peers' loop (float32, channels first, every edge, losses and accuracies read each step), without its loader;
`eager`, what `LiveEvaluator` does; `captured`, the same step as one CUDA graph, a candidate alone; `captured xK`, K
candidates in turn on streams of their own. And a supernet's step, with and without dead edges, and the price of
`deterministic`.
On a CPU (--device cpu) everything is checked and the graph is replaced by the function that it would capture.
Images are noise on the device; numbers are images a second, and device seconds of 12 epochs of 50,000 images.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import statistics
import sys
import time
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from peers import random_cells, stepper

from suite.networks import build
from suite.networks.supernet import Supernet
from suite.spaces import SPACES
from suite.training.device import exact
from suite.types import Ends, Proxy

SPACE = SPACES["nas_bench_201"]
LR, MOMENTUM, DECAY = 0.1, 0.9, 5e-4
PROXIES = {
    "C=16 N=5 32x32": (Proxy(12, 16, 32, cells=5), 256),
    "C=16 N=1 32x32": (Proxy(12, 16, 32, cells=1), 256),
    "C=4 N=1 8x8": (Proxy(12, 4, 8, cells=1), 256),
}
SIDE_BY_SIDE = (2, 4, 8)


class Candidate:
    """A network with its training step on buffers that stay where they are, so that a CUDA graph can hold the step.

    The loss is summed on the device. Weights without a gradient, those of dead edges, are left alone, as by
    `torch.optim.SGD`.
    """

    def __init__(self, arch, proxy, batch, device, *, half, seed=0):
        network = build(SPACE, arch, proxy, ends=Ends(3, 10), seed=seed, skip_dead_edges=True).train()
        self.network = network.to(device, memory_format=torch.channels_last)
        self.device, self.half = torch.device(device), half
        shape = (batch, 3, proxy.resolution, proxy.resolution)
        self.images = torch.zeros(shape, device=device).to(memory_format=torch.channels_last)
        self.labels = torch.zeros(batch, dtype=torch.int64, device=device)
        self.lr = torch.zeros((), device=device)
        self.loss = torch.zeros((), device=device, dtype=torch.float64)
        self.weights = list(self.network.parameters())
        self.momentum = [torch.zeros_like(weight) for weight in self.weights]
        self.graph = None

    def body(self):
        """One step."""
        for weight in self.weights:
            weight.grad = None
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half, cache_enabled=False):
            logits = self.network(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        loss.backward()
        self.loss += loss.detach()
        with torch.no_grad():
            trained = [place for place, weight in enumerate(self.weights) if weight.grad is not None]
            weights, held = ([many[place] for place in trained] for many in (self.weights, self.momentum))
            gradients = torch._foreach_add([weight.grad for weight in weights], weights, alpha=DECAY)
            torch._foreach_mul_(held, MOMENTUM)
            torch._foreach_add_(held, gradients)
            torch._foreach_add_(gradients, held, alpha=MOMENTUM)
            torch._foreach_mul_(gradients, -self.lr)
            torch._foreach_add_(weights, gradients)

    def tensors(self):
        """All that a step changes."""
        return [*self.network.state_dict().values(), *self.momentum, self.loss]

    def capture(self):
        """Have the step as one graph; what warming up changed is put back. On a CPU: nothing."""
        if self.device.type != "cuda":
            return self
        before = [tensor.clone() for tensor in self.tensors()]
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.body()
        torch.cuda.current_stream(self.device).wait_stream(stream)
        for weight in self.weights:
            weight.grad = None
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.body()
        with torch.no_grad():
            for tensor, value in zip(self.tensors(), before, strict=True):
                tensor.copy_(value)
        self.graph = graph
        return self

    def step(self, images, labels, lr):
        """On a batch; nothing waits for the device."""
        self.images.copy_(images, non_blocking=True)
        self.labels.copy_(labels, non_blocking=True)
        self.lr.fill_(lr)
        if self.graph is None:
            self.body()
        else:
            self.graph.replay()


def eager_step(arch, proxy, device, *, half):
    """As in `suite.training.trainer`."""
    network = build(SPACE, arch, proxy, ends=Ends(3, 10), seed=0, skip_dead_edges=True).train()
    network = network.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(), LR, momentum=MOMENTUM, nesterov=True, weight_decay=DECAY, foreach=True
    )
    losses = torch.zeros((), device=device, dtype=torch.float64)

    def step(images, labels, lr):
        for group in optimizer.param_groups:
            group["lr"] = lr
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            logits = network(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.add_(loss.detach())

    return network, losses, step


def batches(number, batch, side, device, seed=0):
    rng = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(number):
        images = torch.randn(batch, 3, side, side, generator=rng).to(device).to(memory_format=torch.channels_last)
        made.append((images, torch.randint(10, (batch,), generator=rng).to(device)))
    return made


def wait(device):
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def check(device):
    """The captured step trains as the eager one does, and the network without dead edges is the plain one."""
    found = {}
    for name, (proxy, batch) in PROXIES.items():
        small = batch if torch.device(device).type == "cuda" else 8
        data = batches(4, small, proxy.resolution, device)
        worst = forward = 0.0
        for arch in [*random_cells(2), (0, 3, 3, 0, 2, 3)]:
            network, losses, step = eager_step(arch, proxy, device, half=False)
            candidate = Candidate(arch, proxy, small, device, half=False).capture()
            for number, (images, labels) in enumerate(data):
                rate = LR / (number + 1)
                step(images, labels, rate)
                candidate.step(images, labels, rate)
            assert math.isfinite(losses.item())
            worst = max(worst, abs(losses.item() - candidate.loss.item()) / abs(losses.item()))
            for one, other in zip(network.parameters(), candidate.network.parameters(), strict=True):
                assert (one - other).abs().max().item() < 0.1, (name, arch)
            with torch.no_grad():
                plain = copy.deepcopy(network)
                plain.skip_dead_edges = False
                forward = max(forward, (plain(data[0][0]) - network(data[0][0])).abs().max().item())
        assert worst < 1e-3, (name, worst)
        assert forward < 1e-4, (name, forward)
        found[name] = {"loss, captured against eager, relative": worst, "logits, lean against plain": forward}
    return found


def rate(step, device, images, seconds):
    """Images a second: median of three windows; the device is waited for at their ends only."""
    for _ in range(5):
        step()
    found = []
    for _ in range(3):
        wait(device)
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            for _ in range(10):
                step()
            steps += 10
            wait(device)
        found.append(steps * images / (time.perf_counter() - began))
    return statistics.median(found)


def timed(device, seconds, archs):
    """Rates of every way, the mean time over the cells."""
    half = torch.cuda.is_bf16_supported()
    results = {}
    for name, (proxy, batch) in PROXIES.items():
        (images, labels), *_ = batches(1, batch, proxy.resolution, device)
        spent: dict[str, list[float]] = {}
        for arch in archs:
            peers = stepper(arch, proxy, device)
            first = images.contiguous()
            spent.setdefault("peers, fp32", []).append(1 / rate(partial(peers, first, labels), device, batch, seconds))
            _, _, step = eager_step(arch, proxy, device, half=half)
            spent.setdefault("eager", []).append(1 / rate(partial(step, images, labels, LR), device, batch, seconds))
            with exact(True):
                try:
                    _, _, same = eager_step(arch, proxy, device, half=half)
                    each = rate(partial(same, images, labels, LR), device, batch, seconds)
                    spent.setdefault("eager, deterministic", []).append(1 / each)
                except RuntimeError as error:
                    print(f"deterministic: {str(error).splitlines()[0]}", file=sys.stderr)
            alone = Candidate(arch, proxy, batch, device, half=half).capture()
            each = rate(partial(alone.step, images, labels, LR), device, batch, seconds)
            spent.setdefault("captured", []).append(1 / each)
        for many in SIDE_BY_SIDE:
            try:
                chosen = [archs[place % len(archs)] for place in range(many)]
                candidates = [Candidate(arch, proxy, batch, device, half=half).capture() for arch in chosen]
            except torch.OutOfMemoryError:
                print(f"{name}: {many} candidates do not fit", file=sys.stderr)
                torch.cuda.empty_cache()
                continue
            streams = [torch.cuda.Stream(device) for _ in candidates]

            def all_at_once(candidates=candidates, streams=streams, images=images, labels=labels):
                for candidate, stream in zip(candidates, streams, strict=True):
                    with torch.cuda.stream(stream):
                        candidate.step(images, labels, LR)

            spent[f"captured x{many}"] = [1 / rate(all_at_once, device, batch * many, seconds)]
        results[name] = {
            way: {"images/s": 1 / statistics.mean(each), "s of 12 x 50,000 images": 600_000 * statistics.mean(each)}
            for way, each in spent.items()
        }
        results[name]["peak memory, MiB"] = torch.cuda.max_memory_allocated(device) / 2**20
        torch.cuda.reset_peak_memory_stats(device)
    return results


def supernet(device, seconds, proxy, batch):
    """Images a second of DARTS's supernet, first order: weights and mixture by one pass; plain, lean, lean in bf16."""
    found = {}
    (images, labels), *_ = batches(1, batch, proxy.resolution, device)
    for name, skips, half in (("plain, fp32", False, False), ("lean, fp32", True, False), ("lean, bf16", True, True)):
        made = Supernet(SPACES["darts"], proxy, ends=Ends(3, 10), seed=0).train().to(device)
        images = images.contiguous() if not skips else images.to(memory_format=torch.channels_last)
        if skips:
            made = made.to(memory_format=torch.channels_last)
        made.network.skip_dead_edges = skips
        logits = torch.zeros(made.shape, device=device, requires_grad=True)
        optimizer = torch.optim.SGD([*made.parameters(), logits], 0.025, momentum=0.9)

        def step(made=made, images=images, half=half, logits=logits, optimizer=optimizer):
            with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
                out = made.mix(logits.softmax(1))(images)
            loss = F.cross_entropy(out.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(made.parameters(), 5.0)
            optimizer.step()

        found[name] = rate(step, device, batch, seconds)
    return found


def main():
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    words.add_argument("--out", type=Path)
    words.add_argument("--seconds", type=float, default=1.0, help="of a timing window")
    words.add_argument("--cells", type=int, default=6, help="random cells that times are means of")
    chosen = words.parse_args()
    device = chosen.device
    cuda = torch.device(device).type == "cuda"
    results = {
        "device": torch.cuda.get_device_name(device) if cuda else "CPU",
        "torch": torch.__version__, "python": platform.python_version(), "checks": check(device),
    }  # fmt: skip
    if cuda:
        results["stand-alone"] = timed(device, chosen.seconds, random_cells(chosen.cells))
        full = Proxy(50, 16, 32, cells=8)
        results["supernet of DARTS, C=16, 8 cells, batch 64, images/s"] = supernet(device, chosen.seconds, full, 64)
    text = json.dumps(results, indent=2)
    print(text)
    if chosen.out:
        chosen.out.write_text(text + "\n")


if __name__ == "__main__":
    main()

"""Who spent which device seconds on what; the definitions are published in docs/cost.md."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from suite.types import Cost, KendallError, Proxy, Trial

CHARGED = ("search", "proxy", "full training")
"""What a searcher pays for: its own training (supernets, controllers), candidates under a proxy, candidates in full."""
PHASES = (*CHARGED, "predicted", "predictor", "measuring", "judging")
"""And beside it: rewards that a model gave for nothing, the fitting of predictors on this machine, latency and energy
of candidates, the judge's training."""
DAY_S = 86_400.0


class MixedClocks(KendallError):
    """Simulated seconds of a table met measured ones, or seconds of two devices met in one sum."""


def phase_of(trial: Trial, full: Proxy) -> str:
    """The phase that a search's training belongs to."""
    return "full training" if trial.proxy == full and trial.epochs == full.epochs else "proxy"


def gpu_days(device_s: float) -> float:
    """Device seconds of the phases before judging, in days: GPU-days, whatever the device; it is named beside them."""
    return device_s / DAY_S


@dataclass
class Account:
    """Sums over answers of one phase on one device."""

    evaluations: int = 0
    device_s: float = 0.0
    macs: float = 0.0
    energy_j: float | None = 0.0

    def add(self, cost: Cost) -> None:
        """Count one answer; unknown energy makes the sum unknown."""
        self.evaluations += 1
        self.device_s += cost.device_s
        self.macs += cost.macs
        self.energy_j = None if self.energy_j is None or cost.energy_j is None else self.energy_j + cost.energy_j


@dataclass
class Ledger:
    """The accounts of one search (or of several: ledgers add up)."""

    accounts: dict[tuple[str, str], Account] = field(default_factory=lambda: defaultdict(Account))
    """(phase, device) -> sums."""

    def add(self, phase: str, cost: Cost) -> None:
        """Count one answer's cost."""
        if phase not in PHASES:
            raise ValueError(f"no phase {phase!r}; there are {', '.join(PHASES)}")
        self.accounts[phase, cost.device].add(cost)

    def merge(self, other: Ledger) -> None:
        """Take another ledger's accounts in."""
        for key, account in other.accounts.items():
            mine = self.accounts[key]
            mine.evaluations += account.evaluations
            mine.device_s += account.device_s
            mine.macs += account.macs
            known = mine.energy_j is not None and account.energy_j is not None
            mine.energy_j = (mine.energy_j or 0.0) + (account.energy_j or 0.0) if known else None

    @property
    def device(self) -> str:
        """The device of the seconds charged; several of one clock are joined by " + ".

        Raises:
            MixedClocks: Simulated and measured seconds are both here.
        """
        devices = sorted({device for phase, device in self.accounts if phase in CHARGED})
        if len({Cost(0.0, device).simulated for device in devices}) > 1:
            raise MixedClocks(f"simulated and measured seconds do not add up: {', '.join(devices)}")
        return " + ".join(devices)

    @property
    def clock(self) -> str:
        """ "simulated" or "measured"; empty if nothing was counted."""
        if not self.device:
            return ""
        return "simulated" if Cost(0.0, self.device).simulated else "measured"

    def rows(self) -> list[dict[str, object]]:
        """One row a phase and device, in the order of PHASES."""
        return [
            {
                "phase": phase,
                "clock": "simulated" if Cost(0.0, device).simulated else "measured",
                "device": device,
                "evaluations": account.evaluations,
                "device_s": account.device_s,
                "gpu_days": gpu_days(account.device_s),
                "macs": account.macs,
                "energy_j": account.energy_j,
            }
            for (phase, device), account in sorted(
                self.accounts.items(), key=lambda item: (PHASES.index(item[0][0]), item[0][1])
            )
        ]

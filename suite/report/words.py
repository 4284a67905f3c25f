"""Numbers and clocks in words: the same ones in the HTML, Markdown, LaTeX, the figures and the terminal."""

from __future__ import annotations

import math

from suite.types import SIMULATED

UNKNOWN = "–"
UNITS = ((1e-3, 1e-6, "µs"), (1, 1e-3, "ms"), (120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h"))
"""Below how many seconds, one of what in seconds, its name."""


def number(value: float, digits: int = 2) -> str:
    """A fixed number of decimals.

    >>> number(6.1234), number(math.inf), number(math.nan), number(-0.0001)
    ('6.12', 'failed', '–', '0.00')
    """
    if math.isnan(value):
        return UNKNOWN
    if math.isinf(value):
        return "failed"  # all metrics are minimised: a training that failed has infinite ones
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text


def interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    """An estimate with its interval.

    >>> interval(6.12, 6.05, 6.19), interval(6.12, math.nan, math.nan)
    ('6.12 [6.05, 6.19]', '6.12')
    """
    if not (math.isfinite(mean) and math.isfinite(low) and math.isfinite(high)):
        return number(mean, digits)
    return f"{number(mean, digits)} [{number(low, digits)}, {number(high, digits)}]"


def possible(tau: float, ceiling: float, digits: int = 2) -> str:
    """An agreement beside the agreement that full training has with itself.

    >>> possible(0.55, 0.6), possible(0.65, 0.6), possible(0.55, math.nan)
    ('0.55 of a possible 0.60', '0.65, above the ceiling of 0.60', '0.55, no ceiling measured')
    """
    return f"{number(tau, digits)}{beside(tau, ceiling, digits)}"


def beside(tau: float, ceiling: float, digits: int = 2) -> str:
    """The ceiling in words, beside a tau. A proxy can lie above it: both have errors, and training may saturate."""
    if math.isnan(ceiling):
        return ", no ceiling measured"
    return f"{' of a possible' if tau <= ceiling else ', above the ceiling of'} {number(ceiling, digits)}"


def count(value: float) -> str:
    """A count, or a mean of counts.

    >>> count(15625.0), count(96.5), count(2.5), count(math.nan)
    ('15,625', '96', '2.5', '–')
    """
    if not math.isfinite(value):
        return number(value)
    return f"{value:,.0f}" if value == round(value) or abs(value) >= 10 else f"{value:,.1f}"


def metric(value: float) -> str:
    """Three figures and a prefix: parameters, multiply-adds, joules.

    >>> metric(1_289_306), metric(153.27e6), metric(8.19e12), metric(980), metric(0)
    ('1.29 M', '153 M', '8.19 T', '980', '0')
    """
    if not math.isfinite(value):
        return number(value)
    for scale, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * scale:
            return f"{_three_figures(value / scale)} {prefix}"
    return f"{value:,.0f}" if value == round(value) else _three_figures(value)


def joules(energy: float) -> str:
    """Energy.

    >>> joules(46_200), joules(980), joules(math.nan)
    ('46.2 kJ', '980 J', '–')
    """
    text = metric(energy)
    return text if not math.isfinite(energy) else f"{text}J" if text[-1].isalpha() else f"{text} J"


def duration(seconds: float) -> str:
    """Device seconds in the unit a person would use.

    >>> [duration(s) for s in (0.0123, 3.1, 59.96, 600, 12_000, 57_088_512)]
    ['12.3 ms', '3.10 s', '60.0 s', '10.0 min', '3.33 h', '661 days']
    """
    if not math.isfinite(seconds):
        return number(seconds)
    if seconds == 0:
        return "0 s"
    for limit, scale, unit in UNITS:
        if seconds < limit:
            return f"{_three_figures(seconds / scale)} {unit}"
    return f"{_three_figures(seconds / 86_400)} days"


def gpu_days(days: float) -> str:
    """GPU-days, three figures.

    >>> gpu_days(0.138888), gpu_days(3.2e-7), gpu_days(661.2)
    ('0.139', '3.2e-07', '661')
    """
    if not math.isfinite(days):
        return number(days)
    return f"{days:.2g}" if 0 < days < 0.001 else _three_figures(days)


def times(factor: float) -> str:
    """A speed-up.

    >>> times(24.04), times(1233.2), times(math.nan)
    ('24.0×', '1,233×', '–')
    """
    return f"{_three_figures(factor)}×" if math.isfinite(factor) else number(factor)


def _three_figures(value: float) -> str:
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(float(f'{value:.3g}')))))}f}"


def device_name(device: str) -> str:
    """A device without the mark of simulated seconds.

    >>> device_name("table:GTX 1080 Ti")
    'GTX 1080 Ti'
    """
    return device.removeprefix(SIMULATED)


def seconds_of(clock: str, device: str) -> str:
    """Which seconds these are: the heading of every table and axis that has some.

    >>> seconds_of("simulated", "table:GTX 1080 Ti"), seconds_of("measured", "NVIDIA H200")
    ('simulated seconds of GTX 1080 Ti', 'measured seconds on NVIDIA H200')
    """
    name = device_name(device) or "a device that was not recorded"
    if clock == "simulated":
        return f"simulated seconds of {name}"
    return f"measured seconds on {name}" if clock == "measured" else "device seconds, clock not recorded"


def judged(judge: str) -> str:
    """Who judged.

    >>> judged("test"), judged("validation, other seeds")
    ('judged on the test split', 'judged on validation, other seeds')
    """
    if not judge:
        return "judge not recorded"
    return "judged on the test split" if judge == "test" else f"judged on {judge}"


def listed(names: list[str], limit: int = 4) -> str:
    """Names in a sentence.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefg"))
    ('a', 'a, b and c', 'a, b, c and 4 more')
    """
    if len(names) > limit:
        names = [*names[: limit - 1], f"{len(names) - limit + 1} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}" if names else ""

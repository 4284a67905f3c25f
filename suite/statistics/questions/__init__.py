"""The questions that a study answers: one module each, on arrays or on `scores.csv` and `consistency.csv`.

    taus         taus of many proxies on the same networks, with their covariances
    grid         a study read back from its files
    ceilings     what a perfect proxy could reach
    differences  which of two proxies ranks better
    factors      which factor to cut first
    claims       EcoNAS's claims as tests
    power        how many networks it takes
    strategy     which proxy, or which sequence of stages, to use
    transfer     whether a proxy trusted here can be trusted there

Methods and what they were measured to hold: docs/analysis.md.
"""

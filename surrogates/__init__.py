"""Models that predict answers from earlier answers."""

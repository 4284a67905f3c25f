"""Who answers a trial: a table, live training, a log, a fitted model."""

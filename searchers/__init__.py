"""One method a file; SEARCHERS names them all."""

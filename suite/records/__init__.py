"""Everything that is written to a folder of results, and read from it again."""

"""The specs of `kendall run` and `kendall study`, checked before anything starts."""

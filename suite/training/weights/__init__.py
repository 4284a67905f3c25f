"""Trained weights that later trainings start from."""

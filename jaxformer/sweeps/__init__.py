"""Sweeps: many trainings of one config, as a pure function of the search space, the seed and the number of trials."""

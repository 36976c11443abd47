"""Finding faults on a laptop: tiny forms of configs, checks of a training, and single steps of a run done again."""

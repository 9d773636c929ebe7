"""The stages as Prefect tasks, one file each: which slice of the run's config a stage depends on, and how it is retried.

Nothing here imports Prefect until a run really starts: the same functions also plan a dry run.
"""

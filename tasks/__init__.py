"""The stages as Prefect tasks, one module per stage: each chooses the config slice and the inputs of its stage.

The modules of the stages do not import Prefect, so a dry run calls the same functions without it.
"""

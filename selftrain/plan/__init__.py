"""`selftrain plan`: what a run will need, before a GPU is touched.

    corpus     problems and their tokens
    flops      floating-point operations
    memory     of sampling and scoring; that of training, and shapes of models, are in `selftrain.models`
    speed      what turns work into time
    rates      how fast finished runs were
    estimate   every stage of a run
    capacity   more machines
    suitable   whether the models can go through all stages
    plan       all of it put together; `table` is it as text

Importing this package imports no torch.
"""

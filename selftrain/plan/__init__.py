"""`selftrain plan`: what a run will need, before a GPU is touched.

    corpus     problems and their tokens
    flops      floating-point operations
    memory     of sampling and scoring; that of training, and shapes of models, are in `selftrain.models`
    estimate   every stage of a run
    capacity   more machines
    calibrate  how fast this machine is, by running the stages for some seconds
    suitable   whether the models can go through all stages
    plan       all of it put together; `table` is it as text, `page` as HTML

Importing this package imports no torch.
"""

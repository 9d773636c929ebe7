"""`selftrain plan`: estimates memory, time and storage of a run before it starts.

    corpus     numbers of problems, and lengths in tokens
    flops      floating-point operations
    memory     memory of sampling and scoring (memory of training and the models' shapes: `selftrain.models`)
    speed      FLOP/s from a device's stated peak
    rates      FLOP/s measured in finished runs
    estimate   the needs of every stage
    capacity   the time on more machines
    suitable   checks that the models work in all stages
    plan       combines these estimates, and warns of what does not fit
    table      formats a plan as text

Importing this package imports no torch.
"""

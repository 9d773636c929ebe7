"""`selftrain plan`: what a run will need, before a GPU is touched.

    shapes     exact parameters, from the model on torch's meta device
    corpus     problems and their tokens
    memory     bytes of a process, term by term; `rank_bytes` for a check before ranks start
    flops      floating-point operations
    estimate   every stage of a run
    calibrate  how fast this machine is, by running the stages for some seconds
    table      the plan as text

Importing this package imports no torch.
"""

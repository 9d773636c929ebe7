"""`selftrain plan`: estimates memory, time and storage of a run before it starts.

`plan` combines the estimates of the other modules. Memory of training and the models' shapes are in `selftrain.models`. Importing
this package imports no torch.
"""

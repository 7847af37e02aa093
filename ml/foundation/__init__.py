"""The micro checkpoints of the drawn world: how they are trained, measured and described.

    training       one training for all: options, device, optimiser, resuming, log, reports
    schedule       how long, at which learning rate
    run            the loop of a training that can be stopped and continued
    checkpoint     everything a stopped training needs, in one file
    curve_log      the loss over the steps
    train_<model>  a model, its data, its loss and what is exported; also `judge`
    scenes         drawn scenes as arrays, cached; `batches`: as tensors
    measure        figures of the finished checkpoints, on scenes no training used; `card`: in words

Trained checkpoints are in `data/foundation/micro`. The pipeline imports nothing from here.
"""

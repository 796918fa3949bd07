"""What `qstudio train` takes besides the options of `qstudio quantize`. Imports nothing heavy."""

from __future__ import annotations

import argparse

from qstudio.cli.prune_options import add_pruning_steps

METHODS = ("ste", "lsq", "lsq+", "pact", "dorefa")
"""As `qstudio.core.training.METHODS`, which loads numpy."""

BATCHNORMS = ("folded", "frozen", "live")
"""As in `qstudio.core.training`."""

TRAIN_EXAMPLES = """\
examples:
  2 bits everywhere, learned steps, the float model as teacher:
    qstudio train model.onnx --data digits --weight-bits 2 --activation-bits 2 --epochs 40 --distill -o q.onnx

  4 bits on images, varied, trained on other data than it is evaluated on:
    qstudio train model.onnx --data test.npz --calibration-data train.npz --weight-bits 4 --activation-bits 4 \\
        --first-last-bits 8 --epochs 10 --lr 5e-4 --distill --crop 4 --flip -o q.onnx

  half of the weights zero, in 4 steps, then 4 epochs more, at 8 bits:
    qstudio train model.onnx --data digits --prune magnitude:50 --prune-steps 4 --epochs 8 --distill -o q.onnx

  continue after a kill or Ctrl+C (the other options as before):
    qstudio train model.onnx ... --resume q.onnx.checkpoints

Trained on: the training split of --data, or --calibration-data (its training split, else all of it). A tenth of it is
held out and picks the best epoch; what is evaluated on plays no part. BatchNormalization is folded before training, or
with --batchnorm at its end: at every epoch the folded, rounded network is what is measured."""

_BATCHNORM = (
    "folded: part of weight and bias from the first step on (default). frozen: scale and shift are trained, the"
    " statistics are the float model's. live: batches are normalised with their own statistics, while the weight w is"
    " rounded as w gamma / sigma with the running sigma, as it is folded at the end (Krishnamoorthi, 2018)"
)


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of training and of checkpoints."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--method",
        choices=METHODS,
        help="ste: ranges of PTQ; lsq: learned steps; lsq+: and offsets; pact: learned clips; dorefa (default: lsq)",
    )
    group.add_argument("--epochs", type=int, metavar="N", help="of all stages together (default: 20)")
    group.add_argument("--lr", type=float, metavar="X", help="largest learning rate (default: 0.001)")
    group.add_argument(
        "--scale-lr", type=float, metavar="X", help="rate of learned scales relative to --lr (default: 1)"
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="samples of one step (default: 64)")
    group.add_argument("--optimizer", choices=("adam", "sgd"), help="adam (default), or sgd with momentum 0.9")
    group.add_argument("--weight-decay", type=float, metavar="X", help="of weights, never of scales (default: 0)")
    group.add_argument("--schedule", choices=("cosine", "constant"), help="after the warm-up (default: cosine)")
    group.add_argument("--warmup", type=float, metavar="N", help="epochs of rising rate (default: 0.5)")
    group.add_argument("--clip-norm", type=float, metavar="X", help="largest gradient norm, 0 = any (default: 1)")
    group.add_argument(
        "--progressive", metavar="N,N", help="wider bits that are trained first, such as 8,4 on the way to 2"
    )
    group.add_argument(
        "--distill",
        nargs="?",
        const=1.0,
        type=float,
        metavar="SHARE",
        help="learn from the float model's answers; SHARE of the loss, 0 to 1 (default: 0; without a number 1)",
    )
    group.add_argument("--temperature", type=float, metavar="T", help="of distillation (default: 4)")
    group.add_argument(
        "--distill-features", type=float, metavar="X", help="weight of the likeness of features (default: 0)"
    )
    group.add_argument("--crop", type=int, metavar="N", help="crop images at random, padded by N pixels (default: 0)")
    group.add_argument("--flip", action="store_true", default=None, help="mirror half of the images")
    group.add_argument("--batchnorm", choices=BATCHNORMS, help=_BATCHNORM)
    group.add_argument(
        "--batchnorm-freeze",
        type=float,
        metavar="PERCENT",
        help="of the steps of each stage, after which live statistics stay as they are (default: 70; 100 = never)",
    )
    add_pruning_steps(group)
    group.add_argument("--training-samples", type=int, metavar="N", help="use so many (default: all)")
    kept = parser.add_argument_group("checkpoints")
    kept.add_argument(
        "--checkpoints",
        metavar="DIR",
        help="keep the state of each epoch here (default: Q.onnx.checkpoints beside -o, removed when all is done)",
    )
    kept.add_argument("--resume", metavar="DIR", help="continue the training whose checkpoints are there")
    kept.add_argument(
        "--stop-training", action="store_true", help="with --resume: train no further, export the best epoch so far"
    )

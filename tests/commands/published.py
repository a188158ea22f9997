"""Run every published command as it is printed, shortened by overrides only: does each one work?

    python tests/commands/published.py --data data

`--data` names the directory that holds CIFAR-10 (cifar-10-batches-py); images in the format of ImageNet32 are made.
Each command runs in a directory of its own, from the repository's main.py. Prints a line for each; exit code 1 if any
of them fails.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
IMAGENET = (
    "datamodule.batch_size=256 model.hparams.feedback_training_iterations=[25,35,40,60,25] "
    "model.hparams.f_optim.lr=0.01 model.hparams.b_optim.momentum=0.9 "
    "model.hparams.b_optim.lr=[1e-4,3.5e-4,8e-3,8e-3,0.18]"
)
PARALLEL = "model=layer_parallel_dtp trainer=layer_parallel scheduler=cosine network=simple_vgg"
LEGACY = (
    "--batch-size 128 --C 128 128 256 256 512 --iter 20 30 35 55 20 --epochs 90 --lr_b 1e-4 3.5e-4 8e-3 8e-3 0.18 "
    "--noise 0.4 0.4 0.2 0.2 0.08 --lr_f 0.08 --beta 0.7 --path CIFAR-10 --scheduler --wdecay 1e-4"
)
VGG = "network.hparams.channels=[8,8,8,8,8]"
SHORT = "trainer.max_epochs=1 trainer.limit_train_batches=2 trainer.limit_val_batches=1 trainer.limit_test_batches=1"
COMMANDS = {
    f"{PARALLEL} datamodule=cifar10 datamodule.num_workers=1 trainer.gpus=6": VGG,
    f"{PARALLEL} datamodule=imagenet32 datamodule.num_workers=1 trainer.gpus=6 {IMAGENET}": VGG,
    "model=dtp network=simple_vgg datamodule=cifar10 trainer=default scheduler=cosine": VGG,
    "reproduce=imagenet32_simple_vgg_dtp": VGG,
    f"model=dtp network=simple_vgg datamodule=imagenet32 trainer=default scheduler=cosine seed=123 {IMAGENET}": VGG,
    LEGACY: VGG,
    **{f"{PARALLEL} datamodule=cifar10 trainer.processes={count}": VGG for count in (1, 2, 3)},
    **{
        f"reproduce={data}_simple_vgg_{kind}": VGG
        for data in ("cifar10", "imagenet32")
        for kind in ("baseline", "dtp", "distributed_dtp")
    },
    **{f"reproduce=cifar10_simple_vgg_scaling{kind}": VGG for kind in ("", "_baseline", "_parallel")},
    "reproduce=cifar10_simple_vgg_legacy": VGG,
    "reproduce=cifar10_lenet_dtp": "network.hparams.channels=[4,8]",
    "reproduce=cifar10_mlp_as_printed": "",
    "reproduce=cifar10_mlp_dtp": "",
    "--config-path conf/reproduce --config-name cifar10_simple_vgg_dtp": VGG,
}
"""Each command, and what else shortens it."""


def main() -> None:
    """Run them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--only", default="", help="commands with this text in them")
    options = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch, "data")
        make = [sys.executable, str(Path(__file__).with_name("make_imagenet32.py")), str(data), "--images", "2000"]
        subprocess.run(make, check=True, capture_output=True)
        (data / "cifar-10-batches-py").symlink_to((options.data / "cifar-10-batches-py").resolve())
        environment = {**os.environ, "DATA_DIR": str(data)}
        for number, (command, shorter) in enumerate(COMMANDS.items()):
            if options.only not in command:
                continue
            directory = Path(scratch, str(number))
            directory.mkdir()
            arguments = [*shlex.split(command), *SHORT.split(), *shorter.split()]
            start = time.monotonic()
            run = subprocess.run(
                [sys.executable, str(ROOT / "main.py"), *arguments], cwd=directory, env=environment,
                capture_output=True, text=True,
            )  # fmt: skip
            works = run.returncode == 0 and "Accuracy (%)" in run.stdout
            failed += not works
            print(
                f"{'works' if works else 'FAILS'} {time.monotonic() - start:6.1f} s  python main.py {command}",
                flush=True,
            )
            if not works:
                print(run.stdout[-3000:], run.stderr[-3000:])
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()

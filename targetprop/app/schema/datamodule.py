"""Settings of the data, and of what is done to it."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import MAPPING, NULL, OBJECT, PARTIAL, TRUTH, WORD, choice, list_of, number, whole

BORDERS = ("edge", "reflect")
LABELS = ("fine", "coarse")
IMAGES = ("digits", "mnist", "fashion_mnist")
READINGS = ("pixels", "rows")
"""Names of `data.augment.BORDERS` and `data.cifar100.LABELS`, and those of `data.sequential`, which would have torch
imported for them."""

EVERY: Keys = {
    "batch_size": Key(whole(1), "examples in a training step"),
    "val_fraction": Key(number(least=0, below=1), "share of the training set held out for validation; 0 is none"),
    "reshuffle": Key(TRUTH, "whether every epoch has an order and an augmentation of its own"),
    "drop_last": Key(TRUTH, "whether a training epoch leaves out the examples that do not fill a last batch"),
    "num_workers": Key(whole(0), "accepted and unused: the data set lives on the device"),
    "seed": Key(whole(0), "of split, order and augmentation"),
    "eval_batch_size": Key(whole(1), "examples in a step of validation or test"),
}
CACHE = Key(WORD | NULL, "where converted images are kept; null is in the folder of the data sets")
FILES: Keys = {
    "load": Key(PARTIAL, "what reads the data set"),
    "data_dir": Key(WORD, "folder that holds the data sets"),
    "download": Key(TRUTH, "whether missing files are downloaded"),
    **EVERY,
}
TRAIN = Key(whole(1), "examples of the training set")
TEST = Key(whole(1), "examples of the test set")
TARGETS: dict[str, Keys] = {
    "targetprop.app.datamodule.ImageDataModule": {
        **FILES,
        "mean": Key(list_of(number(), "numbers"), "subtracted from pixels in [0, 1], one number for each channel"),
        "std": Key(list_of(number(above=0), "numbers above 0"), "what pixels are then divided by, for each channel"),
        "augmentation": Key(OBJECT | NULL, "how training images vary"),
    },
    "targetprop.app.datamodule.FileDataModule": FILES,
    "targetprop.app.datamodule.ExampleDataModule": {
        "load": Key(PARTIAL, "what makes the data set"),
        **EVERY,
    },
    "targetprop.app.datamodule.OwnDataModule": {
        "dataset": Key(
            WORD, "import path of a function that returns a Dataset, or one for training and one to test on"
        ),
        "arguments": Key(MAPPING, "of the function, by their names"),
        "classes": Key(
            whole(1) | list_of(WORD, "names") | NULL, "how many there are, or their names; null counts them"
        ),
        **EVERY,
    },
    "targetprop.data.cifar100.load": {"labels": Key(choice(*LABELS), "fine is 100 classes, coarse their 20 groups")},
    "targetprop.data.svhn.load": {"extra": Key(TRUTH, "whether the extra images are trained on, too")},
    "targetprop.data.tiny_imagenet.load": {"cache_dir": CACHE},
    "targetprop.data.imagenet32.load": {"cache_dir": CACHE},
    "targetprop.data.teacher.load": {
        "inputs": Key(whole(1), "size of an input"),
        "hidden": Key(list_of(whole(1), "whole numbers, 1 or more"), "units of each hidden layer of the teacher"),
        "outputs": Key(whole(1), "numbers to be met for an example"),
        "train": Key(whole(2), "examples of the training set"),
        "test": Key(whole(1), "examples of the test set"),
        "noise": Key(number(least=0), "standard deviation of what is added to the teacher's outputs, whose own is 1"),
        "seed": Key(whole(0), "of everything that is random; another one is another teacher"),
    },
    "targetprop.data.tiny_shakespeare.load": {"length": Key(whole(1), "characters of a sequence")},
    "targetprop.data.copying.load": {
        "symbols": Key(whole(1), "how many different ones"),
        "copied": Key(whole(1), "symbols in a sequence"),
        "wait": Key(whole(1), "places between their end and where they are to be written"),
        "train": TRAIN,
        "test": TEST,
        "seed": Key(whole(0), "of the symbols"),
    },
    "targetprop.data.adding.load": {
        "length": Key(whole(2), "of a sequence"),
        "train": TRAIN,
        "test": TEST,
        "seed": Key(whole(0), "of numbers and places"),
    },
    "targetprop.data.sequential.load": {
        "images": Key(choice(*IMAGES), "which images are read"),
        "by": Key(choice(*READINGS), "one after the other, or a row at a time"),
        "permuted": Key(TRUTH, "whether pixels are first put in another order, the same for all images"),
        "seed": Key(whole(0), "of that order"),
    },
    "targetprop.data.augment.Augmentation": {
        "flip": Key(
            number(least=0, most=1) | choice("alternate"),
            "probability of a horizontal flip; alternate flips every image in every second epoch",
        ),
        "crop": Key(whole(0), "pixels that are added at every side before a random crop; below the image's size"),
        "border": Key(choice(*BORDERS), "what they are: the edge repeated, or the image reflected"),
    },
}

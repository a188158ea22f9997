"""Settings of the data, and of what is done to it."""

from __future__ import annotations

from targetprop.app.schema.keys import Key, Keys
from targetprop.app.schema.kinds import NULL, OBJECT, PARTIAL, TRUTH, WORD, choice, list_of, number, whole
from targetprop.data.augment import BORDERS

TARGETS: dict[str, Keys] = {
    "targetprop.app.datamodule.ImageDataModule": {
        "load": Key(PARTIAL, "what reads the data set"),
        "data_dir": Key(WORD, "folder that holds the data sets"),
        "batch_size": Key(whole(1), "images in a training step"),
        "val_fraction": Key(number(least=0, below=1), "share of the training set held out for validation; 0 is none"),
        "mean": Key(list_of(number(), "numbers"), "subtracted from pixels in [0, 1], one number for each channel"),
        "std": Key(list_of(number(above=0), "numbers above 0"), "what pixels are then divided by, for each channel"),
        "augmentation": Key(OBJECT | NULL, "how training images vary"),
        "reshuffle": Key(TRUTH, "whether every epoch has an order and an augmentation of its own"),
        "drop_last": Key(TRUTH, "whether a training epoch leaves out the images that do not fill a last batch"),
        "num_workers": Key(whole(0), "accepted and unused: the data set lives on the device"),
        "seed": Key(whole(0), "of split, order and augmentation"),
        "eval_batch_size": Key(whole(1), "images in a step of validation or test"),
        "download": Key(TRUTH, "whether missing files are downloaded"),
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

"""Data in memory: reading published data sets, augmenting images on the device, batches for any training loop."""

from targetprop.data import (
    adding,
    cifar10,
    cifar100,
    copying,
    digits,
    fashion_mnist,
    imagenet32,
    mnist,
    own,
    sequential,
    svhn,
    teacher,
    tiny_imagenet,
    tiny_shakespeare,
)
from targetprop.data.archive import Archive
from targetprop.data.augment import Augmentation, normalize, random_crop, random_flip
from targetprop.data.examples import Examples, ExampleSplits
from targetprop.data.held import Held, Selection
from targetprop.data.images import Images, Splits
from targetprop.data.loader import BatchLoader
from targetprop.data.pickles import load_arrays

__all__ = [
    "Archive",
    "Augmentation",
    "BatchLoader",
    "ExampleSplits",
    "Examples",
    "Held",
    "Images",
    "Selection",
    "Splits",
    "adding",
    "cifar10",
    "cifar100",
    "copying",
    "digits",
    "fashion_mnist",
    "imagenet32",
    "load_arrays",
    "mnist",
    "normalize",
    "own",
    "random_crop",
    "random_flip",
    "sequential",
    "svhn",
    "teacher",
    "tiny_imagenet",
    "tiny_shakespeare",
]

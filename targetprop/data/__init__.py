"""Images in memory: reading published data sets, augmenting on the device, batches for any training loop."""

from targetprop.data import cifar10, cifar100, digits, fashion_mnist, imagenet32, mnist, svhn, tiny_imagenet
from targetprop.data.archive import Archive
from targetprop.data.augment import Augmentation, normalize, random_crop, random_flip
from targetprop.data.images import Images, Selection, Splits
from targetprop.data.loader import BatchLoader
from targetprop.data.pickles import load_arrays

__all__ = [
    "Archive",
    "Augmentation",
    "BatchLoader",
    "Images",
    "Selection",
    "Splits",
    "cifar10",
    "cifar100",
    "digits",
    "fashion_mnist",
    "imagenet32",
    "load_arrays",
    "mnist",
    "normalize",
    "random_crop",
    "random_flip",
    "svhn",
    "tiny_imagenet",
]

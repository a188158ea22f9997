"""ImageNet32 (Chrabaszcz et al. 2017): ImageNet resized to 3x32x32, 1,281,167 training and 50,000 test images.

The images of its 1,000 classes published for validation are the test set, since labels of the test images were never
published; validation is a split of the training images, as for every data set here.

Memory: 3.94 GB (3.67 GiB) of training and 0.15 GB of test images. They are converted once into files that are
mapped into memory (`mapped.py`), which are as large on the disk, beside 4.1 GB of published files. Converting takes
the memory of one of those, .4 GB (benchmarks/imagenet32_memory.py). On a CPU all processes share the mapped pages, and
none needs to have them all; on a GPU each process holds all images on its device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from targetprop.data.files import md5_of, readable, refuse_large
from targetprop.data.images import Images, Splits
from targetprop.data.mapped import Piece, Read, mapped_images
from targetprop.data.pickles import MOST, load_batch
from targetprop.data.sums import read_sums
from targetprop.utils.errors import UserError, require

TRAIN_FILES = tuple(f"train_data_batch_{number}" for number in range(1, 11))
TEST_FILE = "val_data"
TRAIN_FOLDERS = ("Imagenet32_train", "imagenet32", ".", "Imagenet32_train/Imagenet32_train")
TEST_FOLDERS = ("Imagenet32_val", "imagenet32", ".", "Imagenet32_val/Imagenet32_val")
CACHE_FOLDER = "imagenet32_mapped"
SUMS_FILE = "md5sums.txt"
CLASSES_FILE = "classes.txt"
LONGEST = 2**20
"""Bytes that a list of classes may have."""
SHAPE = (3, 32, 32)
CLASSES = tuple(str(number) for number in range(1, 1001))
ADDRESS = "https://image-net.org/download-images.php"


def load(data_dir: Path | str, download: bool = True, *, cache_dir: Path | str | None = None) -> Splits:
    """ImageNet32 from the published pickled files, mapped into memory.

    Labels 1..1000 become 0..999; their numbers 1..1000 are the names of the classes, for the files hold no others.
    Where `data_dir` has a file classes.txt, as `targetprop convert_imagenet` writes it, there are as many classes as it
    has lines, which name them. Files may hold fewer images, of fewer classes.

    No checksums of the published files are known for certain. Where `data_dir` has a file md5sums.txt, as
    `targetprop convert_imagenet` and the command md5sum write it, the files that it lists must have the md5 that it
    says, when they are converted.

    Args:
        data_dir: where the files are looked for: training files in its folder Imagenet32_train, the test file in
            Imagenet32_val, and all of them in imagenet32 and in the directory itself; a folder may stand in one of its
            own name.
        download: ignored, because a download needs an account.
        cache_dir: where the converted files are kept, such as a place that can be written to beside files that cannot;
            None for `data_dir`/imagenet32_mapped.

    Raises:
        UserError: files are missing or do not hold what was published, or the converted ones cannot be kept.
    """
    data_dir = Path(data_dir)
    cache = data_dir / CACHE_FOLDER if cache_dir is None else Path(cache_dir)
    with readable(data_dir):
        train = [_find(data_dir, TRAIN_FOLDERS, TRAIN_FILES) / name for name in TRAIN_FILES]
        test = [_find(data_dir, TEST_FOLDERS, (TEST_FILE,)) / TEST_FILE]
        missing = [path for path in (*train, *test) if not path.is_file()]
    if missing:
        raise _missing(data_dir, missing)
    sums = {name.rpartition("/")[2]: md5 for name, md5 in read_sums(data_dir / SUMS_FILE).items()}
    classes = _classes(data_dir / CLASSES_FILE)
    read = partial(_read, sums, len(classes))
    return Splits(train=_images(cache, "train", train, read, classes), test=_images(cache, "test", test, read, classes))


def _classes(path: Path) -> tuple[str, ...]:
    """The names of the classes, one a line, where there is a list of them.

    Raises:
        UserError: the list cannot be read, or has not 1 to 1,000 lines.
    """
    with readable(path):
        if not path.is_file():
            return CLASSES
        refuse_large(path, LONGEST)
        names = tuple(path.read_bytes().decode("utf-8", "replace").splitlines())
    require(1 <= len(names) <= len(CLASSES), str(path), f"1 to {len(CLASSES)} lines, one for each class", len(names))
    return names


def _find(data_dir: Path, folders: tuple[str, ...], names: tuple[str, ...]) -> Path:
    """That of the folders which holds most of the files; the first of equals."""

    def held(folder: str) -> int:
        return sum((data_dir / folder / name).is_file() for name in names)

    return data_dir / max(folders, key=held)


def _images(cache: Path, name: str, sources: list[Path], read: Read, classes: tuple[str, ...]) -> Images:
    pixels, labels = mapped_images(cache, name, SHAPE, sources, read, "load.cache_dir= names another place.")
    try:
        return Images(pixels, labels, classes)
    except UserError as error:
        raise UserError(f"{cache / name}.images: it does not hold ImageNet32 ({error}). Delete it.") from None


def _read(sums: Mapping[str, str], count: int, path: Path) -> Iterator[Piece]:
    refuse_large(path, MOST)
    if path.name in sums and (found := md5_of(path)) != sums[path.name]:
        raise UserError(f"{path}: expected the md5 {sums[path.name]} of {SUMS_FILE}, got {found}. Get it again.")
    pixels, labels = load_batch(path, SHAPE, range(1, count + 1))
    yield pixels, labels - 1


def _missing(data_dir: Path, paths: list[Path]) -> UserError:
    folders = {path.parent: [other.name for other in paths if other.parent == path.parent] for path in paths}
    lacking = ", and ".join(f"{folder} lacks {', '.join(names)}" for folder, names in folders.items())
    return UserError(
        f"ImageNet32: {lacking}. It cannot be downloaded without an account: log in at {ADDRESS}, take 'Train (32x32)' "
        "and 'Val (32x32)' of 'Downsampled ImageNet' (not the npz files), and unpack them so that "
        f"{data_dir}/Imagenet32_train holds {TRAIN_FILES[0]} to {TRAIN_FILES[-1]} and {data_dir}/Imagenet32_val holds "
        f"{TEST_FILE} (or {data_dir}/imagenet32 all of them), or say with data_dir= (or the variable DATA_DIR) where "
        "they are. `targetprop convert_imagenet` makes such files from ImageNet itself."
    )

"""Data sets found on disk and shuffled with a seed: images standardized per channel, reviews as
sequences of words.

Searched in `$IJR_DATA`, else in `data/raw` of the checkout, in torchvision's layout and then in
Hugging Face's (`<name>/train.parquet`, `<name>/test.parquet`; reviews in the latter alone).
scikit-learn's digits and invented reviews need no file.
"""

import hashlib
import importlib
import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import URLError

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor
from torch.nn import functional as F

from ijrlib import store, text

TORCHVISION = {  # name -> class of torchvision.datasets, its folder
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw"),
}
TEXTS = ("imdb", "invented")
DATASETS = (*TORCHVISION, "digits", *TEXTS)
SPLITS = ("train", "test")
INPUTS = ("standardized", "unit")

ORIGINAL = {  # (data set, split): size of the images in bytes, SHA-256 of images and labels
    ("mnist", "train"): (
        47_040_016,
        "c5097fdd51cfdbe7695fd9df3612695696864b5c424f58d843ffdc5d335e9914",
    ),
    ("mnist", "test"): (
        7_840_016,
        "18489308deedfe2f7bd3a11e599a597126f161d991b1ffcffb71642aa76f7f62",
    ),
    ("fashion_mnist", "train"): (
        47_040_016,
        "d9ef4273af5c2e360155dad0c06bd939447bf37a6620db007d69fc79e4732045",
    ),
    ("fashion_mnist", "test"): (
        7_840_016,
        "30214f3fe91405cb8ea60b11ecf0914a65dd6a6ca8e13c13a62eb434f2d9fe56",
    ),
}
"""The files as they are published, where torchvision checks no sum of its own."""


class DamagedData(ValueError):
    """The data is there but was cut off or changed."""


@dataclass(frozen=True)
class Dataset:
    """Examples in the order of the run's shuffle.

    x: standardized images (n, channels, height, width), or words as integers (n, length); y:
    labels; source: provenance with the keys name, source (files, relative to the data folder), note
    (what was done to them) and sha256 (of these files, one after the other).
    """

    x: Shaped[Tensor, "n ..."]
    y: Int64[Tensor, " n"]
    source: dict[str, str]


@dataclass(frozen=True)
class _Split:
    """One split as it is on disk: images (n, height, width, channels) of bytes, labels (n,)."""

    images: np.ndarray
    labels: np.ndarray
    source: str
    note: str
    sha256: str


def load(
    name: str,
    examples: int,
    shape: Sequence[int],
    classes: int,
    seed: int,
    split: str = "train",
    *,
    inputs: str = "standardized",
    root: str | Path | None = None,
    download: bool = False,
) -> Dataset:
    """The first `examples` images of a split, shuffled with `seed`, of `shape` (C, H, W), or as
    many texts of `shape` (T,).

    Each channel is standardized with the mean and standard deviation of the whole training split
    (with `inputs="unit"` divided by the split's largest value instead, which gives [0, 1]), then
    the image is resized (bilinear) where its size differs, and a single channel repeated where
    `shape` has three. `classes=100` of a data set with ten joins pairs of images of the split side
    by side into one of class 10 * left + right; each image serves once on each side.
    A smaller subset of the same seed is the beginning of a larger one.

    Of a review (:mod:`ijrlib.text`) the last T words are given, the vocabulary being that of the
    whole training split, and with `classes=2` whether it is favourable.  With more classes the task
    is a language model: pieces of T words, the next word is the label, and the vocabulary has as
    many words as there are classes.

    `root` is the checkout whose `data/raw` is searched when `$IJR_DATA` is not set (default: the
    parent folder of the package). `download=True` lets torchvision fetch what is missing.

    Raises ValueError for an unknown name, split or kind of `inputs`, a shape or number of classes
    that the data set cannot give, or more examples than there are; FileNotFoundError where the data
    is not found and can't be downloaded; DamagedData where its files can't be read, hold other
    columns, images or labels than they should, or have the size of the published ones and not their
    checksum.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; expected one of {', '.join(DATASETS)}")
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; expected one of {', '.join(SPLITS)}")
    if inputs not in INPUTS:
        raise ValueError(f"unknown inputs {inputs!r}; expected one of {', '.join(INPUTS)}")
    folder = data_folder(root)
    if name in TEXTS:
        return _load_text(name, examples, shape, classes, seed, split, inputs, folder)
    train = _read(name, "train", folder, download)
    part = train if split == "train" else _read(name, split, folder, download)
    available, own_classes = len(part.labels), 100 if name == "cifar100" else 10
    _check_labels(part.labels, own_classes, part.source, folder)
    _check_examples(name, split, examples, available)
    pairs = classes == 100 and own_classes == 10
    if classes != own_classes and not pairs:
        raise ValueError(f"{name} has {own_classes} classes, or 100 as pairs; got {classes}")
    channels = part.images.shape[-1]
    if len(shape) != 3 or shape[0] not in (channels, 3) or min(shape) < 1:
        raise ValueError(
            f"{name} has {channels} channel(s): expected a shape (C, H, W) with C = {channels}"
            f"{' or 3' if channels == 1 else ''} and H, W ≥ 1, got {tuple(shape)}"
        )

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(available, generator=generator)[:examples].numpy()
    images, labels = part.images[order], part.labels[order]
    if pairs:
        right = torch.randperm(available, generator=generator)[:examples].numpy()
        images = np.concatenate([images, part.images[right]], axis=2)
        labels = 10 * labels + part.labels[right]

    if inputs == "unit":
        mean, deviation = np.float32(0), np.float32(train.images.max())
        scaling = "divided by the training split's largest value"
    else:
        mean, deviation = _channel_statistics(train.images)
        scaling = "standardized per channel with the training split's mean and deviation"
    x = torch.from_numpy((images - mean) / deviation).permute(0, 3, 1, 2).contiguous()
    size = tuple(shape[1:])
    notes = [part.note, scaling]
    if pairs:
        notes.append("pairs side by side, 100 classes")
    if x.shape[2:] != size:
        notes.append(f"resized from {x.shape[2]}x{x.shape[3]} to {size[0]}x{size[1]} (bilinear)")
        x = F.interpolate(x, size=size, mode="bilinear", antialias=True)
    if x.shape[1] != shape[0]:
        notes.append(f"channel repeated {shape[0]} times")
        x = x.expand(-1, shape[0], -1, -1).contiguous()
    source = {
        "name": name,
        "source": part.source,
        "note": "; ".join(note for note in notes if note),
        "sha256": part.sha256,
    }
    return Dataset(x, torch.from_numpy(labels), source)


def _check_examples(name: str, split: str, examples: int, available: int) -> None:
    if not 1 <= examples <= available:
        raise ValueError(
            f"{name} has {available} examples in its {split} split, got examples={examples}"
        )


def _check_labels(labels: np.ndarray, classes: int, source: str, folder: Path) -> None:
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise DamagedData(
            f"expected labels from 0 to {classes - 1} in {source} below {folder}, got "
            f"{labels.min()} to {labels.max()}"
        )


def _load_text(
    name: str,
    examples: int,
    shape: Sequence[int],
    classes: int,
    seed: int,
    split: str,
    inputs: str,
    folder: Path,
) -> Dataset:
    if len(shape) != 1 or shape[0] < 1:
        raise ValueError(
            f"{name} is made of words: expected a shape (T,), the number T ≥ 1 of words, got "
            f"{tuple(shape)}"
        )
    if inputs != "standardized":
        raise ValueError(f"{name} is made of words, which have no scale: got inputs={inputs!r}")
    if classes < 2:
        raise ValueError(
            f"{name} has 2 classes, or as many as words for a language model; got {classes}"
        )
    train = _read_reviews(name, "train", folder)
    part = train if split == "train" else _read_reviews(name, split, folder)
    size = text.VOCABULARY if classes == 2 else classes
    numbers = text.vocabulary(train.reviews, size)
    if classes == 2:
        _check_labels(part.labels, classes, part.source, folder)
        x, y = text.endings(part.reviews, numbers, shape[0]), part.labels
        task = f"last {shape[0]} words of a review, filled up in front"
    else:
        x, y = text.windows(part.reviews, numbers, shape[0])
        task = f"pieces of {shape[0]} words and the next one as the label"
    _check_examples(name, split, examples, len(y))
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))[:examples]
    source = {
        "name": name,
        "source": part.source,
        "note": f"{task}; vocabulary: {size} words at most, of the whole training split",
        "sha256": part.sha256,
    }
    return Dataset(torch.from_numpy(x)[order], torch.from_numpy(y)[order], source)


@dataclass(frozen=True)
class _Reviews:
    """One split of a data set of texts: words of each, labels (n,)."""

    reviews: list[list[str]]
    labels: np.ndarray
    source: str
    sha256: str


@lru_cache(maxsize=2)
def _read_reviews(name: str, split: str, folder: Path) -> _Reviews:
    if name == "invented":
        texts, labels = text.invented(split)
        source, sum_ = "made up by ijrlib.text.invented", hashlib.sha256("".join(texts).encode())
        return _Reviews([*map(text.words, texts)], np.array(labels), source, sum_.hexdigest())
    from pyarrow import ArrowException, parquet

    path = folder / name / f"{split}.parquet"
    if not path.is_file():
        raise FileNotFoundError(
            f"{name} not found: {path} (Hugging Face's layout, with the columns text and label) "
            f"does not exist. Set IJR_DATA to the folder that holds your data sets"
        )
    try:
        columns = parquet.read_schema(path).names
        if not {"text", "label"} <= set(columns):
            raise ValueError(
                f"expected the columns text and label in {path}, got {', '.join(columns)}"
            )
        table = parquet.read_table(path, columns=["text", "label"])
    except (ArrowException, OSError) as error:
        raise _unreadable("texts", path, error) from error
    _check_columns(table, {"text": "string", "label": "int"}, path)
    return _Reviews(
        [text.words(review) for review in table["text"].to_pylist()],
        table["label"].to_numpy().astype(np.int64),
        f"{name}/{path.name}",
        _sha256([path]),
    )


def _check_columns(table: Any, kinds: Mapping[str, str], path: Path) -> None:
    """Raises DamagedData where a column of an Arrow table has gaps, or is of a type in whose name
    the one that is expected does not occur."""
    for name, kind in kinds.items():
        column = table[name]
        if kind not in str(column.type) or column.null_count:
            raise DamagedData(
                f"expected the column {name} of type {kind}, without gaps, in {path}, got "
                f"{column.type} with {column.null_count} gaps"
            )


def _unreadable(kind: str, path: Path, error: Exception) -> DamagedData:
    return DamagedData(
        f"expected a whole Parquet file of {kind}, but {path} can't be read ({error}); remove it "
        f"and download it again"
    )


def data_folder(root: str | Path | None = None) -> Path:
    """`$IJR_DATA`, else `data/raw` in `root` (default: the checkout, :func:`ijrlib.store.root`)."""
    if os.environ.get("IJR_DATA"):
        return Path(os.environ["IJR_DATA"])
    return Path(root or store.root()) / "data" / "raw"


def _channel_statistics(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exact mean and standard deviation of each channel of bytes, from its histogram."""
    levels = np.arange(256)
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        weights = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = np.average(levels, weights=weights)
        means.append(mean)
        deviations.append(np.average((levels - mean) ** 2, weights=weights) ** 0.5)
    return np.array(means, dtype=np.float32), np.array(deviations, dtype=np.float32)


@lru_cache(maxsize=2)
def _read(name: str, split: str, folder: Path, download: bool) -> _Split:
    if name == "digits":
        return _read_digits(split)
    parquet = folder / name / f"{split}.parquet"
    begun = any((folder / TORCHVISION[name][1]).glob("*"))  # a failed download leaves it empty
    if begun or (download and not parquet.is_file()):
        return _read_torchvision(name, split, folder, download)
    if parquet.is_file():
        return _read_parquet(parquet)
    raise _not_found(name, split, folder)


def _not_found(
    name: str, split: str, folder: Path, failed: Exception | None = None
) -> FileNotFoundError:
    """Where images were sought and how to get them; and why they could not be downloaded."""
    torchvision_class, subfolder = TORCHVISION[name]
    parquet = folder / name / f"{split}.parquet"
    reason = f" and not downloaded ({' '.join(str(failed).split())})" if failed else ""
    return FileNotFoundError(
        f"{name} not found{reason}: neither {folder / subfolder} (torchvision's layout) nor "
        f"{parquet} (Hugging Face's) holds all of it. Set IJR_DATA to the folder that holds your "
        f"data sets, or download it (`ijr run` does), for instance with\n"
        f'  python -c "import torchvision; torchvision.datasets.{torchvision_class}('
        f"'{folder}', download=True)\""
    )


def _read_digits(split: str) -> _Split:
    """scikit-learn's 1,797 digits of 8 x 8 pixels; every fifth of a class is a test example."""
    sklearn_datasets = importlib.import_module("sklearn.datasets")
    digits = sklearn_datasets.load_digits()
    test = np.zeros(len(digits.target), dtype=bool)
    for digit in range(10):
        test[np.flatnonzero(digits.target == digit)[4::5]] = True
    chosen = test if split == "test" else ~test
    raw = resources.files("sklearn.datasets.data").joinpath("digits.csv.gz").read_bytes()
    return _Split(
        images=digits.images[chosen][..., None].astype(np.uint8),
        labels=digits.target[chosen].astype(np.int64),
        source="scikit-learn's load_digits",
        note="every fifth of a class is in the test split",
        sha256=hashlib.sha256(raw).hexdigest(),
    )


def _read_torchvision(name: str, split: str, folder: Path, download: bool) -> _Split:
    class_name, subfolder = TORCHVISION[name]
    cls = getattr(torchvision_datasets(), class_name)
    try:
        data = cls(str(folder), train=split == "train", download=download)
    except (URLError, FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise _not_found(name, split, folder, error) from error
    except (RuntimeError, ValueError, AssertionError, EOFError) as error:
        if str(error).startswith("Error downloading"):
            raise _not_found(name, split, folder, error) from error
        raise DamagedData(
            f"{name} in {folder / subfolder} is incomplete or damaged "
            f"({str(error) or type(error).__name__}); remove the folder and download it again"
        ) from error
    if "mnist" in name:
        prefix = "train" if split == "train" else "t10k"
        files = [f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"]
    else:
        files = [file for file, _ in (data.train_list if split == "train" else data.test_list)]
    sum_ = _sha256(folder / subfolder / file for file in files)
    size, original = ORIGINAL.get((name, split), (0, ""))
    if size == (folder / subfolder / files[0]).stat().st_size and sum_ != original:
        raise DamagedData(
            f"{name}: {' and '.join(files)} in {folder / subfolder} have the size of the published "
            f"files, but SHA-256 {sum_} instead of {original}; remove the folder and download it "
            f"again"
        )
    images = np.asarray(data.data)
    return _Split(
        images=images if images.ndim == 4 else images[..., None],
        labels=np.asarray(data.targets, dtype=np.int64),
        source=" ".join(f"{subfolder}/{file}" for file in files),
        note="",
        sha256=sum_,
    )


def _read_parquet(path: Path) -> _Split:
    """Hugging Face's layout: an image column of {bytes, path}, a label column of integers."""
    from PIL import UnidentifiedImageError
    from pyarrow import ArrowException

    try:
        return _decoded(path)
    except (ArrowException, OSError, UnidentifiedImageError) as error:
        raise _unreadable("images", path, error) from error


def _decoded(path: Path) -> _Split:
    from PIL import Image
    from PIL.JpegImagePlugin import JpegImageFile
    from pyarrow import parquet

    columns = parquet.read_schema(path).names
    image_column = next((column for column in ("img", "image") if column in columns), None)
    label_column = next((column for column in ("label", "fine_label") if column in columns), None)
    if image_column is None or label_column is None:
        raise ValueError(f"expected the columns img and label in {path}, got {', '.join(columns)}")
    table = parquet.read_table(path, columns=[image_column, label_column])
    _check_columns(table, {image_column: "bytes: binary", label_column: "int"}, path)
    images, luminance_tables, kinds = [], set(), set()
    for encoded in table[image_column].combine_chunks().field("bytes").to_pylist():
        with Image.open(io.BytesIO(encoded)) as image:
            if isinstance(image, JpegImageFile):
                luminance_tables.add(tuple(image.quantization[0]))
            kinds.add("{} {}x{}".format(image.mode, *image.size))
            images.append(np.asarray(image))
    if len(kinds) != 1 or not min(kinds).startswith(("L ", "RGB ")):
        found = ", ".join(sorted(kinds)) or "none"
        raise DamagedData(f"expected grey or RGB images of one size in {path}, got {found}")
    stacked = np.stack(images)
    note = ""
    if luminance_tables:
        qualities = sorted({_jpeg_quality(table) for table in luminance_tables})
        note = f"JPEG quality {'/'.join(map(str, qualities))} re-encoding; "
        note += "pixels differ slightly from the original"
    return _Split(
        images=stacked if stacked.ndim == 4 else stacked[..., None],
        labels=table[label_column].to_numpy().astype(np.int64),
        source=f"{path.parent.name}/{path.name}",
        note=note,
        sha256=_sha256([path]),
    )


def _jpeg_quality(luminance_table: tuple[int, ...]) -> int:
    """The libjpeg quality (1 to 100) whose luminance table is nearest.

    libjpeg scales its standard table by 200 - 2q per cent for q >= 50, 5000/q below; the first
    and last rows identify q.
    """
    standard = np.array([16, 11, 10, 16, 24, 40, 51, 61, 72, 92, 95, 98, 112, 100, 103, 99])

    def distance(quality: int) -> int:
        scale = 200 - 2 * quality if quality >= 50 else 5000 // quality
        rows = np.clip((standard * scale + 50) // 100, 1, 255)
        return int(np.abs(rows - (luminance_table[:8] + luminance_table[-8:])).sum())

    return min(range(1, 101), key=distance)


def _sha256(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def torchvision_datasets() -> ModuleType:
    """The module `torchvision.datasets`, also where torchvision's compiled operators don't load.

    A torchvision built for another torch (a CUDA wheel beside a CPU torch, say) fails to import:
    it registers shape functions for its operators `nms` and `qnms`, which nobody has declared. The
    data sets use no operator, so declaring the two (unimplemented) is enough.
    """
    try:
        return importlib.import_module("torchvision.datasets")
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for module in [m for m in sys.modules if m.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            torch.library.define(f"torchvision::{operator}", schema)
    return importlib.import_module("torchvision.datasets")

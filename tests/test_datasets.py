"""Data sets: layouts on disk, subsets, standardization, provenance. No real data is needed."""

import hashlib
import io
import pickle
import subprocess
import sys
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from pyarrow import parquet
from sklearn.datasets import load_digits
from torch.nn import functional as F

from ijrlib import config, datasets

SEED = 5


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty data folder that IJR_DATA names."""
    datasets._read.cache_clear()
    monkeypatch.setenv("IJR_DATA", str(tmp_path))
    return tmp_path


def images(count, *shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


def write_idx(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
    path.write_bytes(header + array.tobytes())


def write_mnist(folder, subfolder="MNIST/raw", train=50, test=20):
    """Random images, the labels being 0, 1, … 9, 0, … in file order."""
    written = {}
    for split, prefix, count in (("train", "train", train), ("test", "t10k", test)):
        pixels, labels = (
            images(count, 28, 28, seed=len(split)),
            np.arange(count, dtype=np.uint8) % 10,
        )
        write_idx(folder / subfolder / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(folder / subfolder / f"{prefix}-labels-idx1-ubyte", labels)
        written[split] = pixels, labels
    return written


def encode(pixels, **options):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, **options)
    return buffer.getvalue()


def write_parquet(path, pixels, labels, image="img", label="label", **options):
    path.parent.mkdir(exist_ok=True)
    rows = [{"bytes": encode(one, **options), "path": f"{i}"} for i, one in enumerate(pixels)]
    parquet.write_table(pa.table({image: rows, label: np.asarray(labels, dtype=np.int64)}), path)


def standardized(pixels, train):
    """(n, H, W, C) bytes to (n, C, H, W), the statistics being the training split's, in float64."""
    train, pixels = (np.asarray(a, dtype=float) for a in (train, pixels))
    result = (pixels - train.mean((0, 1, 2))) / train.std((0, 1, 2))
    return torch.from_numpy(result).permute(0, 3, 1, 2)


def same_up_to_rounding(x, expected):
    # entries are below 10 in size and come from two float32 operations
    return torch.allclose(x.double(), expected.double(), rtol=0, atol=10 * 4 * 2**-23)


def by_label(dataset):
    """Images in the order of distinct labels, which undoes the shuffle."""
    return dataset.x[dataset.y.argsort()]


# --- layouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, subfolder", [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")]
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_idx_files_give_their_images_standardized_by_the_training_split(
    folder, name, subfolder, split
):
    written = write_mnist(folder, subfolder, train=10, test=10)
    pixels, _ = written[split]
    loaded = datasets.load(name, 10, (1, 28, 28), 10, SEED, split)
    expected = standardized(pixels[..., None], written["train"][0][..., None])
    assert loaded.x.dtype == torch.float32 and loaded.y.dtype == torch.int64
    assert loaded.y.sort().values.tolist() == list(range(10))
    assert same_up_to_rounding(by_label(loaded), expected)


def test_cifar_100_in_its_python_layout_is_read_through_torchvision(folder, monkeypatch):
    pixels = {"train": images(100, 32, 32, 3), "test": images(100, 32, 32, 3, seed=1)}
    checksums = {}
    (folder / "cifar-100-python").mkdir()
    for split, array in pixels.items():
        data = {"data": array.transpose(0, 3, 1, 2).reshape(100, -1), "fine_labels": [*range(100)]}
        content = pickle.dumps(data)
        (folder / "cifar-100-python" / split).write_bytes(content)
        checksums[split] = [[split, hashlib.md5(content).hexdigest()]]
    meta = pickle.dumps({"fine_label_names": [str(i) for i in range(100)]})
    (folder / "cifar-100-python" / "meta").write_bytes(meta)
    cifar100 = datasets.torchvision_datasets().CIFAR100
    monkeypatch.setattr(cifar100, "train_list", checksums["train"])  # torchvision checks MD5
    monkeypatch.setattr(cifar100, "test_list", checksums["test"])
    monkeypatch.setitem(cifar100.meta, "md5", hashlib.md5(meta).hexdigest())

    loaded = datasets.load("cifar100", 100, (3, 32, 32), 100, SEED, "test")
    assert same_up_to_rounding(by_label(loaded), standardized(pixels["test"], pixels["train"]))
    assert loaded.source["source"] == "cifar-100-python/test"


def test_parquet_with_png_bytes_gives_the_exact_pixels(folder):
    pixels = images(10, 32, 32, 3)
    write_parquet(folder / "cifar10" / "train.parquet", pixels, range(10), format="PNG")
    loaded = datasets.load("cifar10", 10, (3, 32, 32), 10, SEED)
    assert same_up_to_rounding(by_label(loaded), standardized(pixels, pixels))
    assert "JPEG" not in loaded.source["note"]


@pytest.mark.parametrize("quality", [30, 75, 95])
def test_parquet_with_jpeg_bytes_says_so_in_its_provenance(folder, quality):
    pixels = images(10, 32, 32, 3)
    path = folder / "cifar10" / "train.parquet"
    write_parquet(path, pixels, range(10), format="JPEG", quality=quality)
    loaded = datasets.load("cifar10", 10, (3, 32, 32), 10, SEED)
    decoded = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(encode(p, format="JPEG", quality=quality))))
            for p in pixels
        ]
    )
    assert same_up_to_rounding(by_label(loaded), standardized(decoded, decoded))
    note = f"JPEG quality {quality} re-encoding; pixels differ slightly from the original"
    assert note in loaded.source["note"]


def test_the_quality_of_every_jpeg_is_recognized():
    # 1 and 2 have the same first and last rows (all 255 but for one entry)
    for quality in range(2, 101):
        encoded = encode(np.zeros((8, 8), np.uint8), format="JPEG", quality=quality)
        image = JpegImageFile(io.BytesIO(encoded))
        assert datasets._jpeg_quality(tuple(image.quantization[0])) == quality


def test_parquet_with_the_hubs_column_names_is_read(folder):
    pixels = images(100, 32, 32, 3)
    path = folder / "cifar100" / "train.parquet"
    write_parquet(path, pixels, range(100), label="fine_label", format="PNG")
    loaded = datasets.load("cifar100", 100, (3, 32, 32), 100, SEED)
    assert same_up_to_rounding(by_label(loaded), standardized(pixels, pixels))
    path = folder / "mnist" / "train.parquet"
    write_parquet(path, pixels[:10, :28, :28, 0], range(10), image="image", format="PNG")
    loaded = datasets.load("mnist", 10, (1, 28, 28), 10, SEED)
    expected = pixels[:10, :28, :28, :1]
    assert same_up_to_rounding(by_label(loaded), standardized(expected, expected))


def test_parquet_without_the_expected_columns_is_refused_naming_them(folder):
    (folder / "cifar10").mkdir()
    table = pa.table({"text": ["a"], "label": [0]})
    parquet.write_table(table, folder / "cifar10" / "train.parquet")
    with pytest.raises(ValueError, match=r"img and label.*text, label"):
        datasets.load("cifar10", 1, (3, 32, 32), 10, SEED)


# --- digits --------------------------------------------------------------------------------------


def test_digits_split_into_disjoint_fixed_parts_that_make_up_the_whole():
    pixels, _ = load_digits(return_X_y=True)
    parts = [datasets._read_digits(split) for split in ("train", "test")]
    rows = np.concatenate([part.images.reshape(-1, 64) for part in parts])
    assert [len(part.labels) for part in parts] == [1442, 355]
    assert sorted(map(bytes, rows)) == sorted(map(bytes, np.asarray(pixels, np.uint8)))
    for part in parts:  # every class at about a tenth
        assert np.bincount(part.labels).min() > 0.09 * len(part.labels)


def test_digits_are_standardized_over_the_whole_training_split():
    x = datasets.load("digits", 1442, (1, 8, 8), 10, SEED).x.double()
    assert abs(x.mean()) < 1e-6 and abs(x.std(correction=0) - 1) < 1e-6


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28)])
def test_digits_are_resized_bilinearly_to_the_networks_input(shape):
    native = datasets.load("digits", 20, (1, 8, 8), 10, SEED)
    loaded = datasets.load("digits", 20, shape, 10, SEED)
    expected = F.interpolate(native.x, size=shape[1:], mode="bilinear", align_corners=False)
    assert loaded.x.shape == (20, *shape)
    assert all(same_up_to_rounding(channel, expected[:, 0]) for channel in loaded.x.unbind(1))
    assert torch.equal(loaded.y, native.y)


# --- pairs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_hundred_classes_are_pairs_side_by_side(folder, name):
    write_mnist(folder)
    size = 8 if name == "digits" else 28
    single = datasets.load(name, 50, (1, size, size), 10, SEED)
    pairs = datasets.load(name, 50, (1, size, 2 * size), 100, SEED)
    assert torch.equal(pairs.x[..., :size], single.x)
    assert torch.equal(pairs.y // 10, single.y)
    part = datasets._read(name, "train", folder, False)
    known = {bytes(image): label for image, label in zip(part.images, part.labels, strict=True)}
    mean, deviation = datasets._channel_statistics(part.images)
    for right, label in zip(pairs.x[:, 0, :, size:], pairs.y % 10, strict=True):
        pixels = np.rint(right.numpy() * deviation + mean).astype(np.uint8)
        assert known[bytes(pixels)] == label


def test_every_image_serves_once_on_each_side_of_the_pairs(folder):
    written = write_mnist(folder)["train"][0]
    pairs = datasets.load("mnist", 50, (1, 28, 56), 100, SEED)
    for side in pairs.x.split(28, dim=3):
        assert len(side.flatten(1).unique(dim=0)) == len(written)
    assert not torch.equal(pairs.y // 10, pairs.y % 10)


def test_pairs_are_squeezed_into_the_networks_input():
    pairs = datasets.load("digits", 10, (3, 32, 32), 100, SEED)
    assert pairs.x.shape == (10, 3, 32, 32)
    assert "pairs" in pairs.source["note"] and "resized from 8x16 to 32x32" in pairs.source["note"]


def test_pairs_are_squeezed_to_half_their_width_by_weighted_means_of_neighbours(folder):
    """Triangles of twice the width: 1, 3, 3 and 1 eighths, at the border what is left of them."""
    write_mnist(folder)
    wide = datasets.load("mnist", 10, (1, 28, 56), 100, SEED).x.double()
    found = datasets.load("mnist", 10, (1, 28, 28), 100, SEED).x
    left, right = F.pad(wide, (1, 0))[..., :-1:2], F.pad(wide, (0, 1))[..., 2::2]
    expected = left + 3 * wide[..., ::2] + 3 * wide[..., 1::2] + right
    weights = torch.full((28,), 8.0, dtype=torch.float64)
    weights[[0, -1]] = 7
    assert found.shape == (10, 1, 28, 28)
    assert same_up_to_rounding(found, expected / weights)


def test_a_repeated_channel_is_a_copy_that_may_be_changed_alone():
    x = datasets.load("digits", 5, (3, 8, 8), 10, SEED).x
    expected = x[:, 1].clone()
    x[:, 0].zero_()
    assert torch.equal(x[:, 1], expected) and torch.equal(x[:, 2], expected)


# --- subsets -------------------------------------------------------------------------------------


def test_a_class_sorted_file_is_shuffled_before_the_subset_is_taken(folder):
    labels = np.arange(100) // 10
    pixels = images(100, 32, 32, 3)
    write_parquet(folder / "cifar10" / "train.parquet", pixels, labels, format="PNG")
    loaded = datasets.load("cifar10", 30, (3, 32, 32), 10, SEED)
    assert len(loaded.y.unique()) > 5
    everything = standardized(pixels, pixels)
    for x, y in zip(loaded.x, loaded.y, strict=True):  # an image keeps its label
        row = (everything - x).abs().amax((1, 2, 3)).argmin()
        assert labels[row] == y


def test_the_seed_decides_the_subset_and_a_smaller_subset_begins_a_larger_one():
    few, many, other = (
        datasets.load("digits", examples, (1, 8, 8), 10, seed)
        for examples, seed in ((10, 1), (100, 1), (10, 2))
    )
    assert torch.equal(few.x, many.x[:10]) and torch.equal(few.y, many.y[:10])
    assert not torch.equal(few.x, other.x)


def test_loading_leaves_the_global_random_state_alone():
    state = torch.random.get_rng_state()
    datasets.load("digits", 10, (3, 32, 32), 100, SEED)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_the_same_array_is_not_shared_between_loads():
    first = datasets.load("digits", 10, (1, 8, 8), 10, SEED)
    expected = first.x.clone()
    first.x.zero_()
    first.y.zero_()
    assert torch.equal(datasets.load("digits", 10, (1, 8, 8), 10, SEED).x, expected)


# --- provenance ----------------------------------------------------------------------------------


def test_provenance_names_the_files_and_their_checksum_but_no_folder_of_the_machine(folder):
    write_mnist(folder)
    source = datasets.load("mnist", 5, (1, 28, 28), 10, SEED, "test").source
    names = ["MNIST/raw/t10k-images-idx3-ubyte", "MNIST/raw/t10k-labels-idx1-ubyte"]
    content = b"".join((folder / name).read_bytes() for name in names)
    assert source["name"] == "mnist"
    assert source["source"].split() == names
    assert source["sha256"] == hashlib.sha256(content).hexdigest()
    assert str(folder) not in str(source)


def test_provenance_says_what_was_done_to_the_images():
    note = datasets.load("digits", 5, (3, 32, 32), 10, SEED).source["note"]
    for statement in (
        "every fifth",
        "standardized per channel",
        "8x8 to 32x32",
        "repeated 3 times",
    ):
        assert statement in note


# --- where data is searched ----------------------------------------------------------------------


def test_without_ijr_data_the_checkout_is_searched(folder, monkeypatch):
    monkeypatch.delenv("IJR_DATA")
    write_mnist(folder / "data" / "raw")
    assert len(datasets.load("mnist", 5, (1, 28, 28), 10, SEED, root=folder).x) == 5
    monkeypatch.setenv("IJR_ROOT", str(folder))
    assert datasets.data_folder() == folder / "data" / "raw"
    assert len(datasets.load("mnist", 5, (1, 28, 28), 10, SEED).x) == 5


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist"])
def test_missing_data_says_where_it_was_sought_and_how_to_get_it(folder, name):
    classes = 100 if name == "cifar100" else 10
    with pytest.raises(FileNotFoundError) as error:
        datasets.load(name, 5, (3, 32, 32), classes, SEED)
    message = str(error.value)
    for part in (
        str(folder / name / "train.parquet"),
        "IJR_DATA",
        "torchvision.datasets.",
        "download",
    ):
        assert part in message
    assert str(folder / datasets.TORCHVISION[name][1]) in message


def test_an_incomplete_folder_is_reported_as_such(folder):
    write_mnist(folder)
    (folder / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(datasets.DamagedData, match="incomplete or damaged"):
        datasets.load("mnist", 5, (1, 28, 28), 10, SEED)


def test_download_is_asked_of_torchvision_only_when_wanted(folder, monkeypatch):
    asked = []

    def fetch(self):
        asked.append(type(self).__name__)
        write_mnist(folder)

    monkeypatch.setattr(datasets.torchvision_datasets().MNIST, "download", fetch)
    with pytest.raises(FileNotFoundError):
        datasets.load("mnist", 5, (1, 28, 28), 10, SEED)
    assert asked == []
    assert len(datasets.load("mnist", 5, (1, 28, 28), 10, SEED, download=True).x) == 5
    assert asked == ["MNIST"]


@pytest.fixture
def offline(monkeypatch):
    """No address is found."""

    def refuse(request, *args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.mark.parametrize("name", datasets.TORCHVISION)
def test_a_download_that_fails_says_why_and_where_the_data_was_sought(folder, offline, name):
    classes = 100 if name == "cifar100" else 10
    for _ in range(2):  # the first attempt leaves an empty folder
        with pytest.raises(FileNotFoundError, match=r"not downloaded.*Name or service") as error:
            datasets.load(name, 5, (3, 32, 32), classes, SEED, download=True)
        message = str(error.value)
        for part in (
            str(folder / name / "train.parquet"),
            str(folder / datasets.TORCHVISION[name][1]),
            "IJR_DATA",
            f"torchvision.datasets.{datasets.TORCHVISION[name][0]}(",
        ):
            assert part in message
    with pytest.raises(FileNotFoundError, match="holds all of it"):
        datasets.load(name, 5, (3, 32, 32), classes, SEED)


def test_the_rest_of_an_incomplete_folder_that_cannot_be_downloaded_is_said_so(folder, offline):
    write_mnist(folder)
    (folder / "MNIST" / "raw" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"not downloaded.*holds all of it"):
        datasets.load("mnist", 5, (1, 28, 28), 10, SEED, download=True)


def test_the_empty_folder_of_a_failed_download_does_not_hide_the_other_layout(folder):
    (folder / "MNIST" / "raw").mkdir(parents=True)
    pixels = images(10, 28, 28)
    write_parquet(folder / "mnist" / "train.parquet", pixels, range(10), "image", format="PNG")
    assert len(datasets.load("mnist", 10, (1, 28, 28), 10, SEED).x) == 10


def test_torchvisions_layout_comes_before_the_other_one(folder):
    pixels, _ = write_mnist(folder, train=10)["train"]
    other = images(10, 28, 28, seed=1)
    write_parquet(folder / "mnist" / "train.parquet", other, range(10), "image", format="PNG")
    loaded = datasets.load("mnist", 10, (1, 28, 28), 10, SEED)
    assert loaded.source["source"].startswith("MNIST/raw/")
    assert same_up_to_rounding(by_label(loaded), standardized(pixels[..., None], pixels[..., None]))


def test_what_is_there_in_the_other_layout_is_not_downloaded(folder, offline):
    pixels = images(10, 28, 28)
    write_parquet(folder / "mnist" / "train.parquet", pixels, range(10), "image", format="PNG")
    loaded = datasets.load("mnist", 10, (1, 28, 28), 10, SEED, download=True)
    assert loaded.source["source"] == "mnist/train.parquet"


# --- bad input -----------------------------------------------------------------------------------


def test_an_unknown_data_set_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match=r"svhn.*cifar10, cifar100, mnist, fashion_mnist, digits"):
        datasets.load("svhn", 5, (3, 32, 32), 10, SEED)


def test_an_unknown_split_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match=r"validation.*train, test"):
        datasets.load("digits", 5, (3, 32, 32), 10, SEED, "validation")


@pytest.mark.parametrize(
    "name, shape, classes", [("digits", (3, 32, 32), 10), ("invented", (9,), 2)]
)
def test_unknown_inputs_are_refused_with_the_valid_names(name, shape, classes):
    with pytest.raises(ValueError, match=r"unitt.*standardized, unit"):
        datasets.load(name, 5, shape, classes, SEED, inputs="unitt")


def test_the_kinds_of_inputs_are_those_of_a_run():
    assert datasets.INPUTS == config.INPUTS


@pytest.mark.parametrize("split, available", [("train", 1442), ("test", 355)])
@pytest.mark.parametrize("examples", [0, 5000])
def test_more_examples_than_there_are_is_refused_with_both_numbers(split, available, examples):
    with pytest.raises(ValueError, match=rf"{available}.*{examples}"):
        datasets.load("digits", examples, (3, 32, 32), 10, SEED, split)


def test_a_number_of_classes_that_the_data_set_cannot_give_is_refused():
    with pytest.raises(ValueError, match=r"digits.*10.*100.*got 7"):
        datasets.load("digits", 5, (3, 32, 32), 7, SEED)


def test_a_colour_image_is_not_turned_into_a_grey_one(folder):
    write_parquet(folder / "cifar10" / "train.parquet", images(2, 32, 32, 3), [0, 1], format="PNG")
    with pytest.raises(ValueError, match=r"C = 3.*\(1, 28, 28\)"):
        datasets.load("cifar10", 2, (1, 28, 28), 10, SEED)


def test_images_without_pixels_are_refused():
    with pytest.raises(ValueError, match=r"H, W ≥ 1.*\(1, 8, 0\)"):
        datasets.load("digits", 5, (1, 8, 0), 10, SEED)


# --- a torchvision that doesn't fit its torch ----------------------------------------------------

BROKEN = """
import sys, torch
{before}
from ijrlib import datasets
assert datasets.torchvision_datasets().MNIST.__name__ == "MNIST"
assert "torchvision.datasets" in sys.modules
"""


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_torchvisions_data_sets_load_without_its_compiled_operators():
    # the extension is kept from loading, as where it was built for another torch
    before = """
def refuse(path):
    raise OSError("built for another torch")
torch.ops.load_library = refuse
try:
    import torchvision
except RuntimeError:
    pass
else:
    raise SystemExit("expected torchvision to fail: this test shows nothing")
"""
    result = run(BROKEN.format(before=before))
    assert result.returncode == 0, result.stdout + result.stderr


def test_another_failure_of_torchvision_is_not_hidden():
    before = """
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.startswith("torchvision"):
            raise RuntimeError("something else")
sys.meta_path.insert(0, Refuse())
"""
    result = run(BROKEN.format(before=before))
    assert result.returncode != 0 and "RuntimeError: something else" in result.stderr


# --- damaged files --------------------------------------------------------------------------------


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("content", [b"", b"PAR1 and nothing else", "cut off"])
def test_a_parquet_file_that_is_not_whole_is_refused_with_its_path(folder, content):
    path = folder / "cifar10" / "train.parquet"
    write_parquet(path, images(10, 32, 32, 3), range(10), format="PNG")
    path.write_bytes(path.read_bytes()[:-9] if content == "cut off" else content)
    with pytest.raises(datasets.DamagedData, match=f"{path} can't be read"):
        datasets.load("cifar10", 5, (3, 32, 32), 10, SEED)


def test_an_image_that_cannot_be_decoded_is_refused_with_the_file_it_is_in(folder):
    path = folder / "cifar10" / "train.parquet"
    write_parquet(path, images(10, 32, 32, 3), range(10), format="PNG")
    table = parquet.read_table(path).to_pylist()
    table[3]["img"]["bytes"] = table[3]["img"]["bytes"][:20]
    parquet.write_table(pa.Table.from_pylist(table), path)
    with pytest.raises(datasets.DamagedData, match=f"{path} can't be read"):
        datasets.load("cifar10", 5, (3, 32, 32), 10, SEED)


def rgb(*shape):
    return {"bytes": encode(images(1, *shape)[0], format="PNG"), "path": None}


@pytest.mark.parametrize(
    ("column", "labels", "message"),
    [
        ([b"a", b"b"], [0, 1], "expected the column img of type bytes: binary.*got binary"),
        ([rgb(8, 8, 3), None], [0, 1], "expected the column img .*with 1 gaps"),
        ([rgb(8, 8, 3)] * 2, ["cat", "dog"], "expected the column label of type int.*got string"),
        ([rgb(8, 8, 3)] * 2, [0, None], "expected the column label .*got int64 with 1 gaps"),
        ([rgb(8, 8, 3)] * 2, [0, 10], "expected labels from 0 to 9 in .*got 0 to 10"),
        ([rgb(8, 8, 3)] * 2, [-1, 1], "expected labels from 0 to 9 in .*got -1 to 1"),
        ([rgb(8, 8, 4)] * 2, [0, 1], "expected grey or RGB images.*got RGBA 8x8"),
        ([rgb(8, 8, 3), rgb(8, 9, 3)], [0, 1], "images of one size.*got RGB 8x8, RGB 9x8"),
        ([rgb(8, 8, 3), rgb(8, 8)], [0, 1], "images of one size.*got L 8x8, RGB 8x8"),
    ],
)
def test_columns_images_and_labels_that_are_others_are_refused_with_the_file(
    folder, column, labels, message
):
    path = folder / "cifar10" / "train.parquet"
    path.parent.mkdir()
    parquet.write_table(pa.table({"img": column, "label": labels}), path)
    with pytest.raises(datasets.DamagedData, match=message) as error:
        datasets.load("cifar10", 2, (3, 32, 32), 10, SEED)
    assert "cifar10/train.parquet" in str(error.value) and str(folder) in str(error.value)


def test_a_parquet_file_without_images_is_refused_with_its_path(folder):
    path = folder / "cifar10" / "train.parquet"
    write_parquet(path, images(1, 8, 8, 3), [0], format="PNG")
    parquet.write_table(parquet.read_table(path)[:0], path)
    with pytest.raises(datasets.DamagedData, match=f"images of one size in {path}, got none"):
        datasets.load("cifar10", 1, (3, 32, 32), 10, SEED)


def test_labels_beyond_the_classes_of_idx_files_are_refused(folder):
    write_mnist(folder)
    path = folder / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    write_idx(path, np.full(50, 200, dtype=np.uint8))
    with pytest.raises(datasets.DamagedData, match=r"0 to 9 in .*labels-idx1.*got 200 to 200"):
        datasets.load("mnist", 5, (1, 28, 28), 10, SEED)


def test_files_that_are_none_of_idx_are_refused_with_a_reason(folder):
    write_mnist(folder)
    (folder / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"\x01" * 100)
    with pytest.raises(datasets.DamagedData, match=r"damaged \(AssertionError\)"):
        datasets.load("mnist", 5, (1, 28, 28), 10, SEED)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_a_data_folder_that_is_none_is_said_so(folder, monkeypatch, name):
    (folder / "file").write_text("")
    monkeypatch.setenv("IJR_DATA", str(folder / "file"))
    with pytest.raises(FileNotFoundError, match=r"not downloaded .*Set IJR_DATA to the folder"):
        datasets.load(name, 5, (3, 32, 32), 10, SEED, download=True)


@pytest.mark.parametrize("left", [0, 2, 1000])
def test_a_cut_off_idx_file_is_refused(folder, left):
    write_mnist(folder)
    path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(datasets.DamagedData, match="incomplete or damaged"):
        datasets.load("mnist", 5, (1, 28, 28), 10, SEED)


def test_a_flipped_bit_in_files_of_the_published_size_is_found_by_their_checksum(
    folder, monkeypatch
):
    write_mnist(folder)
    files = [
        folder / "MNIST" / "raw" / f"train-{part}-ubyte" for part in ("images-idx3", "labels-idx1")
    ]
    sum_ = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    size = files[0].stat().st_size
    monkeypatch.setitem(datasets.ORIGINAL, ("mnist", "train"), (size, sum_))
    assert datasets.load("mnist", 5, (1, 28, 28), 10, SEED).source["sha256"] == sum_
    flip(files[0])
    datasets._read.cache_clear()
    with pytest.raises(datasets.DamagedData, match=f"instead of {sum_}"):
        datasets.load("mnist", 5, (1, 28, 28), 10, SEED)


def test_cifar_with_a_flipped_bit_is_refused_by_its_checksum(folder, monkeypatch):
    content = pickle.dumps({"data": images(10, 3072), "labels": [*range(10)]})
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    cifar10 = datasets.torchvision_datasets().CIFAR10
    md5 = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    (batches / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(cifar10, "train_list", [["data_batch_1", md5]])
    monkeypatch.setattr(cifar10, "test_list", [])
    monkeypatch.setitem(cifar10.meta, "md5", hashlib.md5(meta).hexdigest())
    (batches / "data_batch_1").write_bytes(content)
    assert len(datasets.load("cifar10", 5, (3, 32, 32), 10, SEED).x) == 5
    flip(batches / "data_batch_1")
    datasets._read.cache_clear()
    with pytest.raises(datasets.DamagedData, match="incomplete or damaged"):
        datasets.load("cifar10", 5, (3, 32, 32), 10, SEED)


def test_inputs_in_the_unit_interval_are_the_bytes_over_the_largest():
    unit = datasets.load("digits", 50, (1, 8, 8), 10, 0, inputs="unit")
    standard = datasets.load("digits", 50, (1, 8, 8), 10, 0)
    assert float(unit.x.min()) == 0 and float(unit.x.max()) == 1
    np.testing.assert_allclose(unit.x * 16, (unit.x * 16).round())
    slope = standard.x.std() / unit.x.std()
    np.testing.assert_allclose(standard.x - standard.x.min(), slope * unit.x, atol=1e-5)
    assert "largest value" in unit.source["note"] and "standardized" in standard.source["note"]


def test_the_unit_interval_is_that_of_the_whole_training_split(folder):
    dark, bright = images(10, 28, 28) // 2, images(10, 28, 28, seed=1)
    dark[9, 0, 0] = 200
    for split, pixels in (("train", dark), ("test", bright)):
        path = folder / "mnist" / f"{split}.parquet"
        write_parquet(path, pixels, range(10), "image", format="PNG")
    for split, pixels in (("train", dark), ("test", bright)):
        for examples in range(1, 11):
            loaded = datasets.load("mnist", examples, (1, 28, 28), 10, SEED, split, inputs="unit")
            expected = torch.from_numpy(pixels[loaded.y.numpy()]) / 200
            assert same_up_to_rounding(loaded.x[:, 0], expected)

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from qstudio.core.errors import UserError
from qstudio.data import images as images_module
from qstudio.data.load import load_dataset

RNG = np.random.default_rng(0)


def picture(path: Path, height: int = 6, width: int = 5, grey: bool = False) -> np.ndarray:
    pixels = RNG.integers(0, 256, (height, width) if grey else (height, width, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


def test_a_folder_per_class(tmp_path: Path) -> None:
    dog = picture(tmp_path / "dog" / "a.png")
    cat = picture(tmp_path / "cat" / "b.png")
    picture(tmp_path / "cat" / "c.png")
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    data = load_dataset(str(tmp_path))
    assert data.class_names == ("cat", "dog")
    np.testing.assert_array_equal(data.test.labels, [0, 0, 1])
    np.testing.assert_array_equal(data.test.raw(2), dog)
    np.testing.assert_array_equal(data.test.batch([0])[0], cat.transpose(2, 0, 1) / np.float32(255))


def test_train_and_test_folders_share_class_numbers(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "cat" / "a.png")
    picture(tmp_path / "train" / "dog" / "a.png")
    picture(tmp_path / "val" / "dog" / "b.png")
    data = load_dataset(str(tmp_path))
    assert data.describe().sizes == {"train": 2, "test": 1}
    np.testing.assert_array_equal(data.test.labels, [1])


def test_a_second_test_folder_is_left_out_and_said_so(tmp_path: Path) -> None:
    for name in ("test", "val"):
        picture(tmp_path / name / "cat" / "a.png")
    assert any("the folder val is left out" in note for note in load_dataset(str(tmp_path)).warnings)


def test_numbered_classes_are_in_order_of_number(tmp_path: Path) -> None:
    for name in ("10", "9", "2"):
        picture(tmp_path / name / "a.png")
    assert load_dataset(str(tmp_path)).class_names == ("2", "9", "10")


def test_images_without_classes_have_no_labels(tmp_path: Path) -> None:
    picture(tmp_path / "a.png")
    assert load_dataset(str(tmp_path)).test.labels is None


def test_grey_and_colour(tmp_path: Path) -> None:
    picture(tmp_path / "grey" / "a" / "a.png", grey=True)
    assert load_dataset(str(tmp_path / "grey")).sample_shape == (1, 6, 5)
    picture(tmp_path / "mixed" / "a" / "a.png", grey=True)
    picture(tmp_path / "mixed" / "b" / "b.png")
    assert load_dataset(str(tmp_path / "mixed")).sample_shape == (3, 6, 5)


def test_nothing_is_decoded_when_data_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        picture(tmp_path / "a" / f"{number}.png")
    seen: list[Path] = []
    decode = images_module.decoded
    monkeypatch.setattr(images_module, "decoded", lambda path, grey: seen.append(path) or decode(path, grey))  # type: ignore[func-returns-value]
    data = load_dataset(str(tmp_path))
    assert seen == []
    data.test.batch([7, 9])
    assert [path.name for path in seen[:2]] == [data.test.source.paths[i].name for i in (7, 9)]  # type: ignore[attr-defined]
    assert len(seen) <= 3  # the first image, whose shape all others must have


def test_different_sizes_need_a_size(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png", 6, 5)
    picture(tmp_path / "a" / "b.png", 9, 9)
    data = load_dataset(str(tmp_path))
    with pytest.raises(UserError, match=r"b\.png: the image is 9x9x3 where the first one is 6x5x3.*--size"):
        data.test.batch([0, 1])
    with pytest.raises(UserError, match=r"b\.png: the image becomes 3x9x9"):
        data.test.batch([1])
    assert load_dataset(str(tmp_path), size=4).test.batch([0, 1]).shape == (2, 3, 4, 4)


def test_resizing_keeps_proportions_and_cuts_the_centre(tmp_path: Path) -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 200
    (tmp_path / "a").mkdir()
    Image.fromarray(wide).save(tmp_path / "a" / "a.png")
    data = load_dataset(str(tmp_path), size=(10, 10))
    np.testing.assert_array_equal(data.test.batch([0])[0] * np.float32(255), np.full((3, 10, 10), 200, np.float32))
    half = load_dataset(str(tmp_path), size=[5, 20]).test.batch([0])[0, 0]
    expected = np.asarray(Image.fromarray(wide[..., 0]).resize((20, 5), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(half, expected / np.float32(255))


def test_damaged_images_name_their_file(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "a.png", 30, 30)
    broken = tmp_path / "a" / "b.png"
    picture(broken, 30, 30)
    whole = broken.read_bytes()
    data = load_dataset(str(tmp_path))
    for content in (whole[: len(whole) // 2], b"", b"no image at all", whole[:100] + b"\0" * 50 + whole[150:]):
        broken.write_bytes(content)
        with pytest.raises(UserError, match=r"b\.png"):
            data.test.batch([1])
    broken.unlink()
    with pytest.raises(UserError, match="no such file"):
        data.test.batch([1])


def png_of_size(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [9000, 12_000, 60_000])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "a.png").write_bytes(png_of_size(side, side))
    with pytest.raises(UserError, match="safely"):
        load_dataset(str(tmp_path))


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the folder is empty"):
        load_dataset(str(tmp_path))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.doc").write_text("x")
    with pytest.raises(UserError, match="no data of a known kind"):
        load_dataset(str(tmp_path))

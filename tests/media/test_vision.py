"""Faces in clips made here of a picture in the public domain, and in three real clips where they are at hand."""

import os
from inspect import isgenerator
from pathlib import Path

import numpy as np
import pytest

from tmtlib.data.schema import DataError

av, cv2 = pytest.importorskip("av"), pytest.importorskip("cv2")
data = pytest.importorskip("skimage.data")
vision = pytest.importorskip("tmtlib.media.vision")

BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data"
CLIPS = Path(os.environ.get("TMT_REAL_DATA") or BESIDE) / "clips"
REAL = ("grid_bbaf2n.mpg", "grid_brbk7n.mpg", "ravdess_01-01-01-01-01-01-01.mp4")
FPS, SECONDS, HEIGHT, WIDTH = 25, 3, 240, 320
HEAD = data.astronaut()[0:210, 120:330]  # red, green, blue
X, Y = vision.SHAPE_NAMES.index("face_x"), vision.SHAPE_NAMES.index("face_y")


def scene(*heads):
    """A grey slope with heads on it, each (left, top, side)."""
    picture = np.tile(np.linspace(60, 120, WIDTH).astype(np.uint8)[None, :, None], (HEIGHT, 1, 3))
    for left, top, side in heads:
        picture[top : top + side, left : left + side] = cv2.resize(HEAD, (side, side), interpolation=cv2.INTER_AREA)
    return picture


def write(path, pictures, codec="mpeg4", fps=FPS, rotation=None):
    with av.open(str(path), "w") as clip:
        stream = clip.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        if rotation:
            stream.set_display_rotation(rotation)
        for picture in pictures:
            clip.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        clip.mux(stream.encode())
    return path


def write_sound(path, cover=None):
    """A second of a tone, with a picture on its cover if there is one."""
    with av.open(str(path), "w") as clip:
        sound = clip.add_stream("aac", rate=16_000, layout="mono")
        if cover is not None:
            picture = clip.add_stream("mjpeg", rate=1)
            picture.height, picture.width, picture.pix_fmt = *cover.shape[:2], "yuvj420p"
            picture.disposition = av.stream.Disposition.attached_pic
            clip.mux(picture.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")))
            clip.mux(picture.encode())
        tone = (8000 * np.sin(np.arange(16_000) / 6)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = 16_000
        clip.mux(sound.encode(frame))
        clip.mux(sound.encode())
    return path


def places():
    """A head's top left corner in each of the pictures of a moving head."""
    t = np.arange(FPS * SECONDS) / (FPS * SECONDS)
    return np.stack([10 + 160 * t, 50 + 40 * np.sin(2 * np.pi * t)], 1).astype(int)


@pytest.fixture(scope="module")
def moving(tmp_path_factory):
    pictures = [scene((left, top, 140)) for left, top in places().tolist()]
    return write(tmp_path_factory.mktemp("clips") / "moving.mp4", pictures)


@pytest.fixture(scope="module")
def describer():
    return vision.open_describer(None)


def test_frames_are_at_most_as_many_as_asked_for_and_come_one_by_one(moving):
    clip = vision.frames(moving)
    assert isgenerator(clip), "memory does not grow with the clip"
    times, pictures = zip(*clip, strict=True)
    assert len(times) == SECONDS * vision.FRAME_RATE and times[:4] == pytest.approx((0, 0.12, 0.2, 0.32))
    assert pictures[0].shape == (HEIGHT, WIDTH, 3) and pictures[0].dtype == np.uint8
    assert np.abs(pictures[0].astype(float) - scene((10, 50, 140))).mean() < 5, "red, green and blue in their order"
    assert len(list(vision.frames(moving, rate=1000))) == FPS * SECONDS


@pytest.mark.parametrize(("fps", "wanted"), [(10, 30), (15, 30), (30, 30), (5, 15)])
def test_frames_of_other_rates(tmp_path, fps, wanted):
    assert len(list(vision.frames(write(tmp_path / "clip.mp4", [scene()] * 3 * fps, fps=fps)))) == wanted


def test_frames_without_times_are_counted(tmp_path):
    clip = write(tmp_path / "raw.h264", [scene()] * 50, codec="libx264")
    assert [seconds for seconds, _ in vision.frames(clip)][:3] == pytest.approx([0, 0.12, 0.2])


def test_the_face_is_found_where_it_is(moving, describer):
    seen = describer(moving)
    assert seen.features.shape == (30, len(describer.feature_names)) and seen.features.dtype == np.float32
    assert seen.n_frames == 30 and seen.without_face <= 3 and seen.several_faces == 0
    found = seen.features.any(1)
    index = [round(seconds * FPS) for seconds, _ in vision.frames(moving)]
    for column, true in zip((X, Y), places()[index].T, strict=True):
        assert np.corrcoef(seen.features[found, column], true[found])[0, 1] > 0.95
    speed = seen.features[found, X + 3].mean() * WIDTH
    assert speed == pytest.approx(160 / SECONDS, rel=0.1), "pixels a second"


def test_a_turned_clip_is_put_upright(tmp_path, describer):
    upright = scene((100, 50, 140))
    for turns in (1, 2, 3):
        pictures = [np.ascontiguousarray(np.rot90(upright, -turns))] * 5
        seen = describer(write(tmp_path / f"{turns}.mp4", pictures, rotation=90 * turns))
        assert seen.without_face == 0 and seen.features[0, X] == pytest.approx(170 / WIDTH, abs=0.05)


def test_of_two_faces_the_larger_is_described(tmp_path, describer):
    seen = describer(write(tmp_path / "two.mp4", [scene((5, 60, 90), (150, 40, 160))] * FPS))
    assert seen.several_faces == seen.n_frames == 9 + 1
    assert (seen.features[:, X] > 0.5).all()


def test_absent_faces_are_rows_of_zeros(tmp_path, describer):
    empty, left, right = [scene()] * FPS, [scene((80, 50, 140))] * FPS, [scene((160, 50, 140))] * FPS
    seen = describer(write(tmp_path / "gaps.mp4", empty + left + empty + right + empty))
    present = np.repeat([False, True, False, True, False], 10)
    assert np.array_equal(seen.features.any(1), present) and seen.without_face == 30
    assert seen.features[10, X + 3] == 0 and seen.features[30, X + 3] == pytest.approx(80 / WIDTH / 1.1, rel=0.1)


def test_noise_has_no_face(tmp_path, describer):
    rng = np.random.default_rng(0)
    grey = [np.repeat(rng.integers(0, 256, (HEIGHT, WIDTH, 1), np.uint8), 3, 2) for _ in range(FPS)]
    seen = describer(write(tmp_path / "noise.mp4", grey))
    assert seen.features.shape == (0, len(describer.feature_names)) and seen.without_face == seen.n_frames == 10


@pytest.mark.parametrize("cover", [None, scene((100, 50, 140))], ids=["sound", "sound with a cover"])
def test_sound_alone_is_an_absent_modality(tmp_path, describer, cover):
    seen = describer(write_sound(tmp_path / "sound.mp4", cover))
    assert seen.features.shape == (0, len(describer.feature_names)) and seen.n_frames == 0


def test_what_is_no_clip_is_refused(tmp_path, describer):
    (tmp_path / "text.mp4").write_text("no clip " * 1000, encoding="utf-8")
    with pytest.raises(DataError, match="text.mp4 cannot be decoded"):
        describer(tmp_path / "text.mp4")
    with pytest.raises(FileNotFoundError, match="no file"):
        describer(tmp_path / "none.mp4")


def test_a_damaged_clip_is_kept_up_to_there(moving, tmp_path):
    content = moving.read_bytes()
    middle, rest = len(content) // 2, len(content) * 3 // 4
    (tmp_path / "damaged.mp4").write_bytes(content[:middle] + bytes(rest - middle) + content[rest:])
    with pytest.warns(UserWarning, match="damaged.mp4 is damaged after 1"):
        kept = list(vision.frames(tmp_path / "damaged.mp4"))
    whole = list(vision.frames(moving))
    assert 10 < len(kept) < 20
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(kept, whole[: len(kept)], strict=True))


def test_the_names_of_the_gradients_are_where_they_point():
    """A square in the second row and fourth column of cells; a slope to the right and down."""
    crop = np.zeros((64, 64, 3), np.uint8)
    crop[20:28, 52:60] = np.mgrid[:8, :8].sum(0)[..., None] * 10
    strongest = np.argsort(-vision._hog(crop))[:5]
    assert all(vision.HOG_NAMES[i].startswith("hog_row1_column3") for i in strongest)
    slope = np.repeat((np.mgrid[:64, :64].sum(0) * 2).astype(np.uint8)[..., None], 3, 2)
    by_angle = vision._hog(slope).reshape(16, 9).sum(0)
    assert vision.HOG_NAMES[by_angle.argmax()] == "hog_row0_column0_50deg", "45 degrees"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """The folder of a tiny random ViT that classifies: it has no pooler."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    folder = tmp_path_factory.mktemp("vit")
    config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
    transformers.ViTForImageClassification(config).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def test_a_vit_gives_what_it_gives_when_called_directly(vit, moving):
    import torch
    from PIL import Image
    from transformers import ViTForImageClassification

    seen = vision.open_describer(vit)(moving)
    assert seen.features.shape == (30, 16)
    _, frame = list(vision.frames(moving))[7]
    x, y, w, h = vision.faces(frame)[0]
    picture = Image.fromarray(frame[y : y + h, x : x + w]).resize((32, 32), Image.Resampling.BILINEAR)
    pixels = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        hidden = ViTForImageClassification.from_pretrained(vit).vit(pixels.float()).last_hidden_state
    assert seen.features[7] == pytest.approx(hidden[0, 0].numpy(), abs=1e-4)


def test_the_same_folder_gives_the_same_features(vit, moving):
    """A pooler without weights in the file would be drawn anew."""
    assert np.array_equal(vision.open_describer(vit)(moving).features, vision.open_describer(vit)(moving).features)


def test_a_convolutional_model_is_averaged_over_the_picture(vit, tmp_path, moving):
    from transformers import ResNetConfig, ResNetModel

    ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[8, 12], depths=[1, 1])).save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_bytes((vit / "preprocessor_config.json").read_bytes())
    assert vision.open_describer(tmp_path)(moving).features.shape == (30, 12)


def test_folders_that_hold_no_vision_model(vit, tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.json and no preprocessor_config.json"):
        vision.open_describer(tmp_path)
    for name in ("config.json", "preprocessor_config.json"):
        (tmp_path / name).write_bytes((vit / name).read_bytes())
    with pytest.raises(ValueError, match="cannot be loaded"):
        vision.open_describer(tmp_path)
    import safetensors.torch

    weights = safetensors.torch.load_file(vit / "model.safetensors")
    del weights["vit.embeddings.cls_token"]
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="no weights for embeddings.cls_token"):
        vision.open_describer(tmp_path)


@pytest.mark.parametrize("name", REAL)
def test_real_clips_show_a_face(describer, name):
    path = CLIPS / name
    if not path.is_file():
        pytest.skip(f"no real clips: {path} is not there (set TMT_REAL_DATA to the folder that has clips/)")
    seen = describer(path)
    assert seen.without_face <= 0.1 * seen.n_frames and seen.several_faces <= 0.1 * seen.n_frames
    assert np.isfinite(seen.features).all() and seen.features[:, X].std() < 0.05, "they sit still"

"""Visual features of a clip: the largest face of each frame, described by a frozen model on disk or by its shape.

Faces are found by the Haar cascade `frontalface_alt2` of OpenCV 4 (Viola and Jones 2001; Lienhart et al. 2003), so
frontal ones only, frame by frame: nothing tracks a person, and which of two faces is larger may change. Nothing is
downloaded, and no picture is kept.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from math import floor
from pathlib import Path
from typing import TYPE_CHECKING

import av
import cv2
import numpy as np
from av.stream import Disposition
from jaxtyping import Float, Float32, Float64, UInt8

from tmtlib.common import digest, pick_device
from tmtlib.data.catalog import file_sha256
from tmtlib.media.files import check_file, undecodable, versions

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedModel

FRAME_RATE = 10.0  # frames a second that are looked at
SHORT_SIDE = 240  # pixels of the frame in which faces are sought; a larger one is made smaller
LEAST_FACE = 0.1  # of the frame's shorter side
BATCH = 32  # frames described together, and the most whose faces are in memory
CASCADE = "haarcascade_frontalface_alt2"
FOLDER = (
    "wanted a saved vision model such as a ViT (config.json, model.safetensors, preprocessor_config.json): where there "
    "is a network, AutoModel.from_pretrained(name).save_pretrained(folder), and AutoImageProcessor likewise"
)

CLASSIFIER = cv2.CascadeClassifier(f"{cv2.data.haarcascades}{CASCADE}.xml")
# Gradients of the face at 64 x 64 pixels: 4 x 4 cells, 9 directions in each, normalised over the whole face and with
# hardly any weighting of its centre (OpenCV's own would leave 2 % of the corners)
HOG = cv2.HOGDescriptor((64, 64), (64, 64), (64, 64), (16, 16), 9, _winSigma=64.0)
HOG_NAMES = tuple(f"hog_row{r}_column{c}_{a}deg" for c in range(4) for r in range(4) for a in range(10, 180, 20))
SHAPE_NAMES = (*HOG_NAMES, "face_x", "face_y", "face_height", "face_dx_per_s", "face_dy_per_s")

Frame = UInt8[np.ndarray, "H W 3"]  # red, green, blue
Box = tuple[int, int, int, int]  # left, top, width, height in pixels


def frames(path: str | Path, rate: float = FRAME_RATE) -> Iterator[tuple[float, Frame]]:
    """The pictures of a clip, upright, each with its time in seconds: at most one in each 1/rate seconds.

    A file without video yields none; a cover picture is no video. Where decoding fails further on, what comes before is
    kept, with a warning; most damage FFmpeg conceals or skips. Raises, at the first picture, as `check_file`, and
    DataError for a clip of which nothing can be decoded.
    """
    check_file(path)
    start, last = None, -1
    try:
        with av.open(str(path)) as clip:
            streams = [s for s in clip.streams.video if not s.disposition & Disposition.attached_pic]
            for i, frame in enumerate(clip.decode(streams[0]) if streams else ()):
                seconds = i / float(streams[0].guessed_rate) if frame.time is None else frame.time  # raw H.264 has none
                start = seconds if start is None else start
                tick = floor((seconds - start) * rate + 1e-6)  # times are rounded: 0.3 s is the third tenth
                if tick > last:
                    last = tick
                    yield seconds, np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    except av.FFmpegError as error:
        if start is None:
            raise undecodable(path, error.strerror) from error
        warnings.warn(f"{path} is damaged after {seconds:.2f} s; what comes before is used", stacklevel=2)


def faces(frame: Frame) -> list[Box]:
    """The frontal faces of a picture, the largest first, as (x, y, w, h) in pixels; LEAST_FACE is the smallest."""
    scale = min(1.0, SHORT_SIDE / min(frame.shape[:2]))
    grey = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    least = round(LEAST_FACE * min(small.shape))
    found = CLASSIFIER.detectMultiScale(small, scaleFactor=1.1, minNeighbors=5, minSize=(least, least))
    boxes = [tuple(round(float(side) / scale) for side in box) for box in found]
    return sorted(boxes, key=lambda box: (-box[2] * box[3], box))


@dataclass(frozen=True)
class Face:
    """The largest face of one frame. Places are in shares of the frame's width and height, from its top left corner."""

    seconds: float
    crop: UInt8[np.ndarray, "h w 3"]
    centre: Float[np.ndarray, "2"]
    height: float
    motion: Float[np.ndarray, "2"]  # of the centre since the last frame with a face, by second; 0 for the first


def _largest_faces(path: str | Path) -> Iterator[tuple[float, Face | None, int]]:
    """For each frame its time in s, the largest face, None without one, and how many there are."""
    last = None
    for seconds, frame in frames(path):
        boxes = faces(frame)
        face = _face(seconds, frame, boxes[0], last) if boxes else None
        last = face or last
        yield seconds, face, len(boxes)


def _face(seconds: float, frame: Frame, box: Box, last: Face | None) -> Face:
    (x, y, w, h), (height, width) = box, frame.shape[:2]
    centre = np.array([(x + w / 2) / width, (y + h / 2) / height])
    motion = np.zeros(2) if last is None else (centre - last.centre) / (seconds - last.seconds)
    return Face(seconds, frame[y : y + h, x : x + w].copy(), centre, h / height, motion)  # a view keeps all the frame


@dataclass(frozen=True)
class Seen:
    """What was seen in one clip.

    A frame without a face is a row of zeros: T is n_frames. Where no frame has a face, or there is no video, T is 0.
    """

    features: Float32[np.ndarray, "T D"]
    seconds: Float64[np.ndarray, " T"]  # since the first frame
    n_frames: int  # looked at
    without_face: int
    several_faces: int  # frames with more than one face, of which the largest is described


@dataclass(frozen=True)
class Describer:
    """Visual features of a clip, one row for each frame looked at."""

    feature_names: tuple[str, ...]  # D
    card: str  # what describes a face, with versions and settings
    describe: Callable[[list[Face]], Float[np.ndarray, "B D"]]

    def __call__(self, path: str | Path) -> Seen:
        """Errors as `frames`."""
        found, counts, rows, seconds = _largest_faces(path), [], [], []
        while batch := list(islice(found, BATCH)):
            present = [i for i, (_, face, _) in enumerate(batch) if face]
            rows.append(np.zeros((len(batch), len(self.feature_names)), np.float32))
            if present:
                rows[-1][present] = self.describe([batch[i][1] for i in present])
            counts += [n for *_, n in batch]
            seconds += [t for t, *_ in batch]
        if not any(counts):
            rows, seconds = [np.zeros((0, len(self.feature_names)), np.float32)], []
        clock = np.array(seconds) - (seconds[0] if seconds else 0)
        return Seen(np.concatenate(rows), clock, len(counts), counts.count(0), sum(n > 1 for n in counts))


def open_describer(folder: str | Path | None = None, device: str = "cpu") -> Describer:
    """What describes faces: the frozen vision model in `folder`, or without one the face's shape, place and motion.

    With a folder, D is the model's width, and a row is its last hidden state at [CLS], or the mean over the picture
    where there is no [CLS] (ResNet, ConvNeXt, Swin). The pooled output is not used: AutoModel makes up a pooler's
    weights where a file has none, as for ViTs trained to classify. `device`, where the model runs, is "auto", "cpu" or
    "cuda". Without a folder D is 149: SHAPE_NAMES.

    Raises FileNotFoundError for a missing folder or JSON file, ValueError for a model that cannot be used.
    """
    search = f"{CASCADE} of OpenCV {cv2.__version__}, {versions('av')}, at most {FRAME_RATE:g} frames a second"
    if folder is None:
        return Describer(SHAPE_NAMES, f"HOG (4 x 4 cells, 9 bins) of the face, its place and motion; {search}", _shapes)
    folder = Path(folder).expanduser()
    if missing := [n for n in ("config.json", "preprocessor_config.json") if not (folder / n).is_file()]:
        raise FileNotFoundError(f"there is no {' and no '.join(missing)} in {folder}; {FOLDER}")
    processor, model = _load(folder, str(pick_device(device)))
    describe = partial(_hidden, processor, model)
    blank = Face(0.0, np.zeros((64, 64, 3), np.uint8), np.zeros(2), 0.0, np.zeros(2))
    names = tuple(f"{model.config.model_type}_{i}" for i in range(describe([blank]).shape[1]))
    sha256 = digest([file_sha256(file) for file in sorted(folder.iterdir()) if file.is_file()])
    made_by = f"{type(model).__name__} in {folder.name} (SHA-256 {sha256}), by {versions('transformers', 'torch')}"
    return Describer(names, f"{made_by}; {search}", describe)


def _shapes(found: list[Face]) -> Float[np.ndarray, "B D"]:
    return np.stack([np.concatenate([_hog(face.crop), face.centre, [face.height], face.motion]) for face in found])


def _hog(crop: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "144"]:
    """Histograms of oriented gradients (Dalal and Triggs 2005), in the order of HOG_NAMES: OpenCV's, by column."""
    return HOG.compute(cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (64, 64), interpolation=cv2.INTER_AREA))


def _load(folder: Path, device: str) -> tuple["BaseImageProcessor", "PreTrainedModel"]:
    from transformers import AutoImageProcessor, AutoModel

    try:  # backend: without torchvision, and the same numbers where it is installed
        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True, backend="pil")
        model, report = AutoModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} cannot be loaded ({error}); {FOLDER}") from error
    if random := [name for name in sorted(report["missing_keys"]) if "pooler" not in name]:
        raise ValueError(f"{folder} has no weights for {random[0]}, which would be random; {FOLDER}")
    if model.main_input_name != "pixel_values":
        raise ValueError(f"{folder} holds a {type(model).__name__}, which takes more than pictures; {FOLDER}")
    return processor, model.float().to(device).eval()


def _hidden(processor: "BaseImageProcessor", model: "PreTrainedModel", found: list[Face]) -> Float[np.ndarray, "B D"]:
    """The last hidden state at [CLS], or its mean over the picture."""
    import torch

    crops = [face.crop for face in found]
    pixels = processor(images=crops, input_data_format="channels_last", return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        hidden = model(pixel_values=pixels.to(model.device)).last_hidden_state.cpu().numpy()
    if hidden.ndim == 4:  # convolutional: (B, D, rows, columns)
        return hidden.mean((2, 3))
    first = any(name.endswith(("cls_token", "class_embedding")) for name, _ in model.named_parameters())
    return hidden[:, 0] if first else hidden.mean(1)

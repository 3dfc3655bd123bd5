"""Makes the goldens of the parity tests with scikit-image and OpenCV, in the versions of requirements.txt.

ssim.txt    width, height, kind of picture, bits of scikit-image's SSIM; the pictures are made here and in src/media/select.rs
clips.txt   clip, frames, then frame:bits of the SSIM of each key frame, of the frames that OpenCV gives

    python3 -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py
"""

import pathlib
import struct

import cv2
import numpy as np
from skimage.metrics import structural_similarity

HERE = pathlib.Path(__file__).parent
THRESHOLD = 0.6


def bits(value):
    return struct.pack(">d", float(value)).hex()


def ssim(x, y):
    return structural_similarity(x, y, channel_axis=2, data_range=255)


def pictures(width, height, kind):
    """Pseudo-random picture pairs: unlike, noisy, nearly flat."""
    state = ((width * 1000 + height) * 4 + kind) % 2**32

    def following():
        nonlocal state
        state = (state * 1664525 + 1013904223) % 2**32
        return state >> 24

    count = width * height * 3
    x = [following() if kind == 0 else i // 7 % 256 for i in range(count)]
    if kind == 0:
        y = [following() for _ in x]
    elif kind == 1:
        y = [(value + following() % 32) % 256 for value in x]
    else:
        y = [value // 2 + following() % 3 for value in x]
    return [np.array(picture, np.uint8).reshape(height, width, 3) for picture in (x, y)]


def synthetic():
    sizes = [(7, 7), (8, 7), (7, 9), (16, 16), (31, 40), (142, 36), (143, 65), (320, 60), (9000, 8), (20, 500)]
    for width, height in sizes:
        for kind in range(3):
            yield f"{width} {height} {kind} {bits(ssim(*pictures(width, height, kind)))}"


def clips():
    for path in sorted((HERE / "clips").iterdir()):
        capture, before, frames, found = cv2.VideoCapture(str(path)), None, 0, []
        while True:
            there, frame = capture.read()
            if not there:
                break
            if before is not None:
                value = ssim(before, frame)
                if value < THRESHOLD:
                    found.append(f"{frames}:{bits(value)}")
            before = frame
            frames += 1
        yield " ".join([path.name, str(frames), *found])


for name, lines in (("ssim.txt", synthetic()), ("clips.txt", clips())):
    text = "".join(line + "\n" for line in lines)
    (HERE / name).write_text("# Made by make.py.\n" + text)

"""The media stage of the paper's release, as its description has it, for the bench: our own code.

Reads every frame of a clip with OpenCV and takes scikit-image's SSIM of each frame against the one before it. The release
does this for every call of a model. Prints the frames, the key frames and the CPU seconds, imports left out.

    stage.py CLIP MOST_FRAMES
"""

import sys
import time

import cv2
from skimage.metrics import structural_similarity

THRESHOLD = 0.6


def main(clip: str, most: int) -> None:
    cv2.setNumThreads(1)
    began = time.process_time()
    capture = cv2.VideoCapture(clip)
    before, frames, found = None, 0, 0
    while frames < most:
        there, frame = capture.read()
        if not there:
            break
        if before is not None:
            found += structural_similarity(before, frame, channel_axis=2, data_range=255) < THRESHOLD
        before = frame
        frames += 1
    print(frames, int(found), time.process_time() - began)


main(sys.argv[1], int(sys.argv[2]))

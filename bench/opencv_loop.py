"""What one would write first: read every frame with OpenCV, and score one each interval.

python opencv_loop.py rtsp://127.0.0.1:8554/cam0 10
"""

import sys
import time

import cv2


def main() -> None:
    url, interval_s = sys.argv[1], float(sys.argv[2])
    capture = cv2.VideoCapture(url)  # RTSP over TCP unless told otherwise
    due_s = time.monotonic()
    best = 0.0
    while True:
        is_read, frame = capture.read()
        if not is_read:
            sys.exit("the camera is gone")
        if time.monotonic() >= due_s:
            due_s += interval_s
            best = max(best, cv2.mean(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY))[0])


if __name__ == "__main__":
    main()

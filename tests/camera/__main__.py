"""A camera for a person without one: `python -m tests.camera --port 8554 --path demo`."""

import argparse
import signal

from tests.camera.clip import Scene
from tests.camera.faults import FAULTS, parse_fault
from tests.camera.server import ScriptedCamera

_PLAN = (60, 90, 120, 40, 150, 180, 30, 210, 100, 75, 165, 195, 50, 225, 110, 135, 85, 240, 70, 20)


def main() -> None:
    arguments = _parser().parse_args()
    width, _, height = arguments.size.partition("x")
    scene = Scene(int(width), int(height), _PLAN, fps=arguments.fps, codec=arguments.codec)
    camera = ScriptedCamera(
        scene,
        path=arguments.path,
        username=arguments.user,
        password=arguments.password,
        auth=arguments.auth,
        host=arguments.host,
        port=arguments.port,
        fault=arguments.fault,
        live=arguments.live,
    )
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before the camera's thread begins, which inherits it
    with camera:
        print(camera.url if arguments.user is None else camera.url_with_credentials, flush=True)
        signal.sigwait(ends)


def _parser() -> argparse.ArgumentParser:
    lines = [f"  {name:20} {fault}" for name, fault in FAULTS.items()]
    parser = argparse.ArgumentParser(
        prog="python -m tests.camera",
        description="An RTSP camera that shows a film of known brightness, over and over.",
        epilog="\n".join(["faults (name or name:amount):", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8554)
    parser.add_argument("--path", default="demo")
    parser.add_argument("--size", default="1280x720", metavar="WIDTHxHEIGHT")
    parser.add_argument("--fps", type=int, default=25)
    parser.add_argument("--codec", choices=["h264", "hevc", "mpeg4", "mjpeg"], default="h264")
    parser.add_argument("--fault", type=_fault, metavar="NAME[:AMOUNT]")
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--auth", choices=["digest", "basic"], default="digest")
    parser.add_argument("--live", action="store_true", help="all clients share one clock")
    return parser


def _fault(text: str) -> str:
    try:
        parse_fault(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


if __name__ == "__main__":
    main()

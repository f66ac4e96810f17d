"""Interlaced H.264 whose fields are pictures of their own, as no encoder at hand makes it: bit by bit. Pure.

Main profile, CAVLC, all macroblocks raw (I_PCM): ITU-T H.264 sections 7.3.2.1, 7.3.2.2, 7.3.3, 7.3.5.
"""

import re

WIDTH_PX, HEIGHT_PX = 32, 32
_START = b"\0\0\0\1"


class _Bits:
    def __init__(self) -> None:
        self.text = ""

    def u(self, value: int, bits: int) -> "_Bits":
        self.text += f"{value:0{bits}b}"
        return self

    def ue(self, *values: int) -> "_Bits":
        for value in values:
            code = f"{value + 1:b}"
            self.text += "0" * (len(code) - 1) + code
        return self

    def align(self, stop: str = "") -> "_Bits":
        self.text += stop
        self.text += "0" * (-len(self.text) % 8)
        return self

    def unit(self, header: int) -> bytes:
        self.align("1")
        data = int(self.text, 2).to_bytes(len(self.text) // 8)
        return _START + bytes([header]) + re.sub(rb"\0\0(?=[\0-\3])", b"\0\0\3", data)


def paff_pictures(frames: int, key_every: int) -> list[tuple[bytes, bytes]]:
    """The two fields of each frame: upper and lower. Each field has a level of luma of its own."""
    return [(_field(index, index % key_every, 0), _field(index, index % key_every, 1)) for index in range(frames)]


def _field(index: int, in_group: int, lower: int) -> bytes:
    is_idr = in_group == 0 and not lower
    bits = _Bits().ue(0, 7, 0).u(in_group % 16, 4).u(1, 1).u(lower, 1)
    if is_idr:
        bits.ue(index % 2)
    bits.u((2 * in_group + lower) % 256, 8).u(0, 2 if is_idr else 1).ue(0, 1)
    for _ in range(WIDTH_PX * HEIGHT_PX // 2 // 256):
        bits.ue(25).align()
        for sample in [40 + (7 * index + 90 * lower) % 180] * 256 + [128] * 128:
            bits.u(sample, 8)
    slice_unit = bits.unit(0x65 if is_idr else 0x61)
    return _sequence() + _parameters() + slice_unit if is_idr else slice_unit


def _sequence() -> bytes:
    bits = _Bits().u(77, 8).u(0, 8).u(30, 8).ue(0, 0, 0, 4, 1).u(0, 1)
    bits.ue(WIDTH_PX // 16 - 1, HEIGHT_PX // 32 - 1).u(0b00100, 5)
    return bits.unit(0x67)


def _parameters() -> bytes:
    return _Bits().ue(0, 0).u(0, 2).ue(0, 0, 0).u(0, 3).ue(0, 0, 0).u(0b100, 3).unit(0x68)

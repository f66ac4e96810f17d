"""H.264 of which nothing but its numbers counts, bit by bit: parameter sets and slice headers. Pure.

ITU-T H.264 sections 7.3.2.1.1, 7.3.2.2, 7.3.3.
"""

from dataclasses import dataclass

from streams.engine.sizes import bits_of

from .hostile import golombs
from .rtp_film import annex_b

FRAME_NUM_BITS = 4


@dataclass(frozen=True, slots=True)
class Numbering:
    """`bits`: of frame_num. `order`: pic_order_cnt_type."""

    bits: int = 4
    order: int = 2
    allows_gaps: bool = False
    is_progressive: bool = True
    is_weighted: bool = False
    scaling: bool = False

    @property
    def sets(self) -> tuple[bytes, bytes]:
        order = golombs(self.order) + {0: golombs(2), 1: "0" + golombs(0, 0, 1, 2)}.get(self.order, "")
        profile, chroma = (100, golombs(1, 0, 0) + "0" + self._scaling) if self.scaling else (77, "")
        sequence = f"{profile:08b}" + f"{0:08b}" + f"{30:08b}" + golombs(0) + chroma + golombs(self.bits - 4) + order
        sequence += golombs(4) + f"{int(self.allows_gaps)}" + golombs(3, 3) + f"{int(self.is_progressive)}"
        sequence += "" if self.is_progressive else "0"
        picture = (
            golombs(0, 0) + "01" + golombs(0, 1, 0) + f"{int(self.is_weighted)}" + "01" + golombs(0, 0, 0) + "000"
        )
        return unit(0x67, sequence + "100"), unit(0x68, picture)

    @property
    def _scaling(self) -> str:
        """One list that falls back, one that ends at once and one of sixteen steps."""
        return "1" + "0" + "1" + golombs(16) + "1" + golombs(*[0] * 16) + "00000"

    def picture(
        self, frame_num: int, *, kind: str = "P", is_reference: bool = True, field: str = "", clears: bool = False
    ) -> bytes:
        """`kind`: IDR, P, B or I. `field`: upper or lower. An IDR picture begins with the parameter sets."""
        is_idr = kind == "IDR"
        text = golombs(0, {"IDR": 2, "I": 2, "P": 0, "B": 1}[kind], 0) + f"{frame_num % 2**self.bits:0{self.bits}b}"
        if not self.is_progressive:
            text += {"": "0", "upper": "10", "lower": "11"}[field]
        text += golombs(0) if is_idr else ""
        if self.order == 0:
            text += "000000" + ("" if field else golombs(0))
        elif self.order == 1:
            text += golombs(0) + ("" if field else golombs(0))
        text += "1" if kind == "B" else ""  # direct_spatial_mv_pred_flag
        if kind in ("P", "B"):
            text += "1" + golombs(1) + (golombs(0) if kind == "B" else "")  # of list 0 two pictures, of list 1 one
            text += "1" + golombs(0, 4, 3) + ("0" if kind == "B" else "")  # list 0 in another order
        if (self.is_weighted and kind == "P") or kind == "B":
            text += (
                golombs(2, 2)
                + ("1" + golombs(3, 4) + "1" + golombs(1, 2, 3, 4))
                + "00"
                + ("00" if kind == "B" else "")
            )
        if is_reference:
            text += "00" if is_idr else "1" + golombs(1, 5, 5, 0) if clears else "0"
        header = (0x65 if is_idr else 0x41) if is_reference else 0x01
        slice_ = unit(header, text + "0101" * 40)
        return annex_b(*self.sets, slice_) if is_idr else annex_b(slice_)


def unit(header: int, text: str) -> bytes:
    text += "1"
    text += "0" * (-len(text) % 8)
    return bytes([header]) + escaped(int(text, 2).to_bytes(len(text) // 8))


def escaped(data: bytes) -> bytes:
    """With the bytes that keep start codes out (H.264 section 7.4.1)."""
    out = bytearray()
    for byte in data:
        if byte < 4 and out.endswith(b"\0\0"):
            out.append(3)
        out.append(byte)
    return bytes(out)


def renumbered(units: tuple[bytes, ...], by: int) -> tuple[bytes, ...]:
    """The units of one picture with frame_num times `by`. Of libx264, which takes so few bits for few references."""
    return tuple(_renumbered(one, by) if one[0] & 31 == 1 else one for one in units)


def _renumbered(slice_: bytes, by: int) -> bytes:
    bits = bits_of(slice_, at=1)
    bits.skip(3)
    at = bits.at
    number = bits.take(FRAME_NUM_BITS) * by % 2**FRAME_NUM_BITS
    text = f"{bits.text[:at]}{number:0{FRAME_NUM_BITS}b}{bits.text[bits.at :]}"
    return escaped(int(text, 2).to_bytes(len(text) // 8))

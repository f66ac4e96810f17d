"""Three places worth a look, drawn: a garden from dawn to dusk, a street at night, a harbour at nightfall.

Each is a film of LOOP_S seconds that begins where it ends. Its brightest seconds lie far apart, so that a grid of
them shows different moments.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 1280, 720
LOOP_S = 30

Picture = npt.NDArray[np.uint8]  # (height, width, 3), BGR
Plane = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
Colour = tuple[float, float, float]  # BGR, 0 to 255
Draw = Callable[[float], Picture]
"""The picture at so many seconds since the loop began."""

SOFT = 2  # what has no edges, skies and glows, is drawn so many times smaller
BLACK: Colour = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Place:
    """`prepare` draws what stands still, once."""

    name: str
    prepare: Callable[[], Draw]


# --- strokes ----------------------------------------------------------------------------------------


def _mix(low: Colour, high: Colour, share: float) -> Colour:
    share = min(1.0, max(0.0, share))
    return (
        low[0] + (high[0] - low[0]) * share,
        low[1] + (high[1] - low[1]) * share,
        low[2] + (high[2] - low[2]) * share,
    )


def _gradient(colours: Sequence[Colour], height: int, width: int) -> Picture:
    """From top to bottom, the colours as far from each other."""
    places = np.linspace(0, 1, len(colours))
    rows = np.linspace(0, 1, height)
    columns = [np.interp(rows, places, [colour[channel] for colour in colours]) for channel in range(3)]
    column = np.stack(columns, axis=1).astype(np.uint8)[:, None]
    return np.ascontiguousarray(np.broadcast_to(column, (height, width, 3)))


def _noise(height: int, width: int, cell: int, seed: int) -> Plane:
    """Clouds of noise, 0 to 1; the right edge goes on at the left one. The width is a multiple of the cell."""
    random = np.random.default_rng(seed)
    total = np.zeros((height, width), np.float32)
    weight = 1.0
    while cell >= 4:
        grid = np.pad(random.random((height // cell + 3, width // cell), np.float32), ((0, 0), (2, 2)), "wrap")
        large = cv2.resize(grid, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
        total += weight * large[:height, 2 * cell : 2 * cell + width]
        weight, cell = weight / 2, cell // 2
    total -= total.min()
    return np.asarray(total / total.max(), np.float32)


def _glow(radius: int, colour: Colour, sharpness: float = 2.0) -> Picture:
    """A light that fades to nothing at the radius: to be added."""
    y, x = np.mgrid[-radius:radius, -radius:radius].astype(np.float32)
    fade = np.clip(1 - np.hypot(x, y) / radius, 0, 1) ** sharpness
    return np.asarray(fade[..., None] * np.array(colour, np.float32), np.uint8)


def _add(picture: Picture, light: Picture, x: float, y: float, gain: float = 1.0) -> None:
    """The light with its middle at x, y; what lies outside is cut off."""
    height, width = light.shape[:2]
    left, top = round(x) - width // 2, round(y) - height // 2
    x0, y0 = max(0, left), max(0, top)
    x1, y1 = min(picture.shape[1], left + width), min(picture.shape[0], top + height)
    if x0 >= x1 or y0 >= y1 or gain <= 0:
        return
    part = picture[y0:y1, x0:x1]
    cv2.scaleAdd(light[y0 - top : y1 - top, x0 - left : x1 - left], gain, part, dst=part)


def _shaded(picture: Picture, light: Colour) -> Picture:
    """As it looks in this light: each channel times a share of 1."""
    return np.asarray(
        cv2.transform(picture, np.diag(light).astype(np.float32)), np.uint8
    )  # a seventh of cv2.LUT's time


def _polygon(picture: Picture, points: Sequence[tuple[float, float]], colour: Colour) -> None:
    corners = np.array([(round(x * 16), round(y * 16)) for x, y in points], np.int32)
    cv2.fillPoly(picture, [corners], colour, cv2.LINE_AA, shift=4)


def _box(picture: Picture, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    corner, far = (round(x), round(y)), (round(x + width) - 1, round(y + height) - 1)
    cv2.rectangle(picture, corner, far, colour, cv2.FILLED)


def _ridge(picture: Picture, top: float, waves: Sequence[tuple[float, float, float]], colour: Colour) -> None:
    """Filled from a wavy line to the bottom; a wave has a length, a height (px) and a phase."""
    xs = np.arange(0, picture.shape[1] + 8, 8)
    ys = np.full(len(xs), float(top))
    for length, height, phase in waves:
        ys -= height * np.sin(xs / length + phase)
    line = [(float(x), float(y)) for x, y in zip(xs, ys, strict=True)]
    _polygon(picture, [*line, (picture.shape[1], picture.shape[0]), (0, picture.shape[0])], colour)


def _label(picture: Picture, name: str, minutes: float) -> Picture:
    """What cameras write into their pictures: their name, and the time of day."""
    text = f"{name.upper()}  {int(minutes) // 60 % 24:02}:{int(minutes) % 60:02}"
    for shift, colour in ((2, BLACK), (0, (235.0, 235.0, 235.0))):
        cv2.putText(picture, text, (28 + shift, 46 + shift), cv2.FONT_HERSHEY_DUPLEX, 0.8, colour, 1, cv2.LINE_AA)
    return picture


def _large(picture: Picture, size: tuple[int, int]) -> Picture:
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _scrolled(plane: Plane, offset: float, width: int) -> Plane:
    """So much of an endless plane, from the offset on."""
    return np.ascontiguousarray(np.roll(plane, -round(offset), axis=1)[:, :width])


def _wave(seconds: float, times: int, phase: float = 0.0) -> float:
    """-1 to 1, so many times in a loop."""
    return math.sin(2 * math.pi * (times * seconds / LOOP_S + phase))


# --- the garden -------------------------------------------------------------------------------------

_SKY_PX = 470
_LAND_PX = 150  # from here down land may cover the sky
_NIGHT, _DAWN, _DAY = 0, 1, 2
_ZENITH: tuple[Colour, ...] = ((44, 22, 12), (150, 96, 78), (216, 142, 62))
_HORIZON: tuple[Colour, ...] = ((78, 48, 34), (96, 158, 250), (246, 226, 196))
_LIGHT: tuple[Colour, ...] = ((0.34, 0.2, 0.15), (0.55, 0.66, 0.95), (1.0, 1.0, 1.0))


def _garden() -> Draw:
    """A day in a loop: the sun crosses the sky, six banks of clouds cross the sun."""
    clouds = np.clip(_noise(_SKY_PX // SOFT, 2 * WIDTH // SOFT, 128, 7) * 2.1 - 0.85, 0, 1).astype(np.float32)
    land, cover = _garden_land()
    sky_share, land_share = 1 - cover, cover
    windows = _glow(70, (60, 150, 235))
    sun_glow, sun_disc = _glow(330 // SOFT, (120, 190, 255), 1.6), _glow(54 // SOFT, (240, 255, 255), 0.45)
    stars = _stars(_SKY_PX // SOFT, WIDTH // SOFT, 150)

    def draw(t: float) -> Picture:
        u = t / LOOP_S
        height = 1.2 * math.sin(math.pi * u) - 0.16  # of the sun; below 0 it is night
        day, dusk = min(1.0, max(0.0, height * 1.9)), math.exp(-((height - 0.1) ** 2) / 0.035)
        cloudy = 0.5 - 0.5 * math.cos(2 * math.pi * 6 * u)
        bright = 1 - 0.34 * cloudy * day
        zenith = _mix(_mix(_ZENITH[_NIGHT], _ZENITH[_DAY], day), _ZENITH[_DAWN], 0.7 * dusk)
        horizon = _mix(_mix(_HORIZON[_NIGHT], _HORIZON[_DAY], day), _HORIZON[_DAWN], 0.85 * dusk)
        sky = _gradient([zenith, _mix(zenith, horizon, 0.45), horizon], _SKY_PX // SOFT, WIDTH // SOFT)
        _add(sky, stars, WIDTH / SOFT / 2, _SKY_PX / SOFT / 2, 1 - 2.2 * (day + dusk))
        x, y = (0.06 + 0.88 * u) * WIDTH / SOFT, (430 - 350 * height) / SOFT
        _add(sky, sun_glow, x, y, 0.75 * bright * min(1.0, day + dusk))
        _add(sky, sun_disc, x, y, min(1.0, day + dusk))
        share = _scrolled(clouds, t * 2 * WIDTH / SOFT / LOOP_S, WIDTH // SOFT) * (0.5 + 0.5 * cloudy)
        tint = _mix(_mix((62, 44, 38), (252, 250, 248), day), (120, 160, 246), 0.55 * dusk)
        sky = _veiled(sky, _mix(BLACK, tint, 1 - 0.22 * cloudy), share)
        picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        picture[:_SKY_PX] = _large(_shaded(sky, (bright,) * 3), (WIDTH, _SKY_PX))
        ambient = _mix(_mix(_LIGHT[_NIGHT], _LIGHT[_DAY], day), _LIGHT[_DAWN], 0.6 * dusk)
        lit = _shaded(land, _mix((0, 0, 0), ambient, 0.25 + 0.75 * bright))
        _shadows(lit, x * SOFT, day * bright)
        for left in (905, 1010):
            _add(lit, windows, left, 385 - _LAND_PX, 1.4 - 2.4 * day)
        seam = _SKY_PX - _LAND_PX
        picture[_LAND_PX:_SKY_PX] = cv2.blendLinear(
            picture[_LAND_PX:_SKY_PX], lit[:seam], sky_share[:seam], land_share[:seam]
        )
        picture[_SKY_PX:] = lit[seam:]
        _birds(picture, t, day)
        return _label(picture, "garden", 4.5 * 60 + u * 17 * 60)

    return draw


def _garden_land() -> tuple[Picture, Plane]:
    """By day, below _LAND_PX, and which share of each pixel it covers."""
    land = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    ridges: list[tuple[float, list[tuple[float, float, float]], Colour]] = [
        (372, [(210, 34, 0.4), (90, 9, 1.0)], (178, 164, 120)),
        (408, [(160, 22, 2.1), (60, 6, 0.3)], (128, 142, 92)),
        (446, [(260, 16, 4.0)], (84, 136, 82)),
    ]
    covers = np.zeros_like(land)
    for picture, is_cover in ((land, False), (covers, True)):
        white: Colour = (255, 255, 255)
        for top, waves, colour in ridges:
            _ridge(picture, top, waves, white if is_cover else colour)
        if not is_cover:
            _lawn(picture)
        _house(picture, white if is_cover else None)
        _trees(picture, white if is_cover else None)
    _flowers(land)
    return land[_LAND_PX:], (covers[_LAND_PX:, :, 0] / 255).astype(np.float32)


def _lawn(picture: Picture) -> None:
    """Mown in stripes that meet far away, and a path to the house."""
    picture[462:] = _gradient([(72, 150, 92), (52, 128, 74)], HEIGHT - 462, WIDTH)
    for stripe in range(-14, 30, 2):
        far, near = 640 + (stripe - 8) * 34, 640 + (stripe - 8) * 120
        _polygon(picture, [(far, 462), (far + 34, 462), (near + 120, HEIGHT), (near, HEIGHT)], (62, 142, 86))
    path = [(946, 468), (978, 468), (760, 600), (700, HEIGHT), (430, HEIGHT), (560, 590)]
    _polygon(picture, path, (150, 190, 206))


def _house(picture: Picture, only: Colour | None) -> None:
    """`only`: one colour for all of it."""
    _box(picture, 850, 330, 220, 142, only or (196, 214, 228))
    _polygon(picture, [(826, 336), (960, 238), (1094, 336)], only or (62, 72, 158))
    _box(picture, 1016, 246, 30, 60, only or (70, 80, 150))
    for left in (880, 986):
        _box(picture, left, 360, 50, 50, only or (120, 96, 78))
        _box(picture, left + 3, 363, 44, 44, only or (208, 184, 150))
        _box(picture, left + 24, 360, 2, 50, only or (120, 96, 78))
    _box(picture, 942, 392, 36, 80, only or (58, 74, 112))


def _trees(picture: Picture, only: Colour | None) -> None:
    random = np.random.default_rng(3)
    for x, foot, size in ((150, 520, 1.0), (300, 492, 0.66), (1196, 540, 1.05)):
        _box(picture, x - 12 * size, foot - 120 * size, 24 * size, 120 * size, only or (52, 72, 96))
        for step in range(46):
            angle, far = random.random() * 2 * math.pi, random.random() ** 0.5
            middle = (
                round(x + 105 * size * far * math.cos(angle)),
                round(foot - 200 * size + 95 * size * far * math.sin(angle)),
            )
            green = _mix((38, 92, 54), (78, 168, 112), step / 46)
            cv2.circle(picture, middle, round((44 - step * 0.5) * size), only or green, cv2.FILLED, cv2.LINE_AA)


def _flowers(picture: Picture) -> None:
    random = np.random.default_rng(5)
    kinds: list[Colour] = [(70, 70, 235), (60, 200, 250), (230, 120, 200), (250, 250, 250), (210, 90, 120)]
    for _ in range(420):
        x, depth = random.random(), random.random() ** 0.7
        middle = (round(40 + x * 330 + 60 * depth), round(596 + depth * 110))
        cv2.circle(picture, (middle[0], middle[1] + 3), 4, (44, 104, 60), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, middle, round(3 + 4 * depth), kinds[random.integers(5)], cv2.FILLED, cv2.LINE_AA)


def _shadows(land: Picture, sun_x: float, strength: float) -> None:
    """Of the trees, away from the sun."""
    if strength <= 0.05:
        return
    for x, foot, size in ((150, 520, 1.0), (300, 492, 0.66), (1196, 540, 1.05)):
        middle = (round(x + (x - sun_x) * 0.16), foot - _LAND_PX + round(16 * size))
        axes = (round((96 + abs(x - sun_x) * 0.1) * size), round(24 * size))
        top, left = max(0, middle[1] - axes[1] - 2), max(0, middle[0] - axes[0] - 2)
        part = land[top : middle[1] + axes[1] + 2, left : max(0, middle[0] + axes[0] + 2)]
        if part.size:
            dark = part.copy()
            cv2.ellipse(
                dark, (middle[0] - left, middle[1] - top), axes, 0, 0, 360, (30, 56, 34), cv2.FILLED, cv2.LINE_AA
            )
            cv2.addWeighted(part, 1 - 0.5 * strength, dark, 0.5 * strength, 0, dst=part)


def _birds(picture: Picture, t: float, day: float) -> None:
    if day < 0.3:
        return
    for number in range(5):
        x = (t * (74 + 9 * number) + 260 * number) % (WIDTH + 200) - 100
        y = 130 + 30 * number + 24 * math.sin(t * 0.8 + number)
        lift = 7 * math.sin(t * 7 + 2 * number)
        wings = np.array([(x - 13, y - lift), (x, y), (x + 13, y - lift)]).round().astype(np.int32)
        cv2.polylines(picture, [wings], False, (66, 58, 52), 2, cv2.LINE_AA)


def _stars(height: int, width: int, count: int) -> Picture:
    random = np.random.default_rng(11)
    sky = np.zeros((height, width, 3), np.uint8)
    for _ in range(count):
        light = int(90 + 160 * random.random())
        sky[int(random.random() ** 1.3 * height), int(random.random() * width)] = light
    return sky


def _veiled(picture: Picture, colour: Colour, share: Plane) -> Picture:
    """Behind something of one colour that covers this share of each pixel."""
    veil = cv2.merge([np.full(share.shape, round(channel), np.uint8) for channel in colour])
    return np.asarray(cv2.blendLinear(picture, veil, 1 - share, share), np.uint8)


# --- the street -------------------------------------------------------------------------------------

_ROAD_PX = 540
_BEHIND_PX = 556  # the kerb; what is below is wet
_LAMPS = (150, 500, 850, 1200)


@dataclass(frozen=True, slots=True)
class _Traffic:
    """A car that crosses the picture: when its middle enters, in how many seconds it has crossed, and where it is."""

    at_s: float
    takes_s: float
    foot_px: int
    size: float
    colour: Colour
    is_leftward: bool = False
    is_bus: bool = False


_TRAFFIC = (
    _Traffic(0.5, 5.0, 600, 0.8, (92, 54, 40), is_leftward=True),
    _Traffic(4.0, 4.4, 668, 1.1, (52, 50, 132)),
    _Traffic(9.5, 7.0, 604, 1.0, (60, 110, 150), is_leftward=True, is_bus=True),
    _Traffic(13.0, 4.0, 672, 1.15, (96, 88, 84)),
    _Traffic(18.5, 4.6, 598, 0.8, (70, 82, 60), is_leftward=True),
    _Traffic(21.0, 4.2, 668, 1.1, (120, 118, 114)),
    _Traffic(25.0, 4.6, 600, 0.82, (44, 44, 110), is_leftward=True),
)
# Begins shortly before a whole second: a camera that sends a key frame each second shows it at its brightest.
_ROCKETS: tuple[tuple[float, int, int, Colour], ...] = (
    (1.55, 300, 170, (80, 120, 255)),
    (4.6, 930, 130, (120, 255, 140)),
    (7.55, 560, 190, (255, 150, 110)),
    (10.6, 1060, 200, (110, 220, 255)),
    (12.55, 210, 140, (255, 120, 230)),
    (15.6, 700, 120, (90, 170, 255)),
    (18.55, 420, 180, (140, 255, 220)),
    (21.6, 1010, 150, (250, 120, 160)),
    (24.55, 620, 150, (110, 110, 255)),
    (27.6, 260, 190, (255, 220, 130)),
)
_ROCKET_S = 2.2


def _street() -> Draw:
    """Fireworks behind the houses, cars in front of them, all of it again in the wet road."""
    plate, panes = _street_front()
    lamp, flare, tail = (
        _glow(150, (70, 130, 200), 2.4),
        _glow(64, (200, 235, 255), 2.2),
        _glow(34, (30, 30, 255), 2.0),
    )
    cone, window = _cone(), _glow(26, (40, 90, 150), 2.0)
    sparks = [_sparks(number, colour) for number, (_, _, _, colour) in enumerate(_ROCKETS)]
    flash = [_glow(380 // SOFT, _mix(BLACK, colour, 0.55), 1.5) for *_, colour in _ROCKETS]
    sheen = np.repeat((_noise(HEIGHT - _BEHIND_PX, WIDTH, 64, 4) * 130 + 80).astype(np.uint8)[..., None], 3, axis=2)

    def draw(t: float) -> Picture:
        sky = np.zeros((_SKY_PX // SOFT, WIDTH // SOFT, 3), np.uint8)
        glare: Colour = (1.0, 1.0, 1.0)
        for number, (at_s, x, y, colour) in enumerate(_ROCKETS):
            age_s = (t - at_s) % LOOP_S
            if age_s < _ROCKET_S:
                fade = (1 - age_s / _ROCKET_S) ** 1.5
                _add(sky, flash[number], x / SOFT, y / SOFT, fade)
                sparks[number](sky, x / SOFT, y / SOFT, age_s)
                glare = _mix(
                    glare, (glare[0] + colour[0] / 255, glare[1] + colour[1] / 255, glare[2] + colour[2] / 255), fade
                )
        front = _shaded(plate, glare)
        if glare != (1.0, 1.0, 1.0):
            sky = np.asarray(cv2.scaleAdd(cv2.GaussianBlur(sky, (0, 0), 4), 0.8, sky), np.uint8)
            seen = cv2.bitwise_and(_large(sky, (WIDTH, _SKY_PX)), panes.silhouette)
            front[:_SKY_PX] = cv2.add(front[:_SKY_PX], seen)
        panes.light(front, t)
        for x in _LAMPS:
            _add(front, lamp, x, 330, 0.9 + 0.05 * math.sin(9 * t + x))
        _reflect(front, sheen)
        for car in sorted(_TRAFFIC, key=lambda car: car.foot_px):
            _drive(front, car, t, (cone, flare, tail, window))
        return _label(front, "street", 23 * 60 + 52 + t / LOOP_S * 16)

    return draw


class _Panes:
    """The windows of the houses, each lit for a while of its own; `silhouette` is where no sky is seen."""

    def __init__(self, boxes: list[tuple[int, int, int, int]], silhouette: Picture) -> None:
        self.silhouette = silhouette
        random = np.random.default_rng(8)
        warm: list[Colour] = [(96, 176, 240), (120, 200, 250), (84, 148, 226), (190, 214, 226)]
        self._panes = [
            (box, warm[random.integers(4)], random.integers(1, 3), random.random(), random.random()) for box in boxes
        ]

    def light(self, picture: Picture, t: float) -> None:
        for (x, y, width, height), colour, times, phase, dim in self._panes:
            if _wave(t, int(times), phase) + 0.9 * (0.5 - dim) > 0.1:
                _box(picture, x, y, width, height, _mix(BLACK, colour, 0.55 + 0.45 * dim))


def _street_front() -> tuple[Picture, _Panes]:
    plate = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    plate[:_BEHIND_PX] = _gradient([(34, 16, 10), (62, 32, 26), (88, 52, 58)], _BEHIND_PX, WIDTH)
    _add(plate, _stars(_SKY_PX, WIDTH, 170), WIDTH / 2, _SKY_PX / 2, 0.8)
    silhouette = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    random = np.random.default_rng(21)
    boxes: list[tuple[int, int, int, int]] = []
    x = -20
    while x < WIDTH:  # far away
        width, top = int(random.integers(46, 120)), int(random.integers(250, 390))
        _box(plate, x, top, width, _BEHIND_PX, (58, 38, 38))
        _box(silhouette, x, top, width, HEIGHT, BLACK)
        boxes += [(x + 8 + 14 * i, top + 12 + 20 * j, 5, 7) for i in range((width - 12) // 14) for j in range(5)][::2]
        x += width
    far_boxes, near = boxes, np.zeros((HEIGHT, WIDTH), np.uint8)
    boxes = []
    x = -30
    for number in range(9):  # across the road
        width, top = int(random.integers(130, 190)), int(random.integers(280, 400))
        wall = [(52, 44, 62), (44, 50, 66), (62, 46, 48), (48, 44, 52)][number % 4]
        _box(plate, x, top, width, _BEHIND_PX - top, wall)
        _box(silhouette, x, top, width, HEIGHT, BLACK)
        near[top:, max(0, x) : x + width] = 1
        _box(plate, x, top, width, 9, _mix(BLACK, wall, 0.6))
        columns, rows = (width - 24) // 36, (_BEHIND_PX - top - 90) // 48
        for i in range(columns):
            for j in range(rows):
                box = (x + 20 + 36 * i, top + 26 + 48 * j, 20, 28)
                _box(plate, *box, (26, 20, 20))
                boxes.append(box)
        _box(plate, x + 16, _BEHIND_PX - 62, width - 32, 46, (70, 120, 150) if number % 3 else (120, 92, 54))
        x += width + int(random.integers(0, 14))
    _box(plate, 0, _BEHIND_PX - 14, WIDTH, 14, (64, 58, 58))
    _box(silhouette, 0, _ROAD_PX, WIDTH, HEIGHT, BLACK)
    for lamp in _LAMPS:
        _box(plate, lamp - 3, 330, 6, _BEHIND_PX - 336, (40, 36, 36))
        _box(plate, lamp - 16, 322, 32, 9, (190, 220, 240))
    boxes += [box for box in far_boxes if 0 <= box[0] < WIDTH and not near[box[1] + box[3], box[0]]]
    return plate, _Panes(boxes, silhouette[:_SKY_PX])


def _sparks(seed: int, colour: Colour) -> Callable[[Picture, float, float, float], None]:
    """A ball of them that grows, slows down, falls and fades; drawn SOFT times smaller."""
    random = np.random.default_rng(100 + seed)
    angles, speeds = random.random(120) * 2 * math.pi, 0.3 + 0.7 * random.random(120) ** 0.5
    tints = [_mix(colour, (255, 255, 255), float(share)) for share in random.random(120) * 0.7]

    def draw(sky: Picture, x: float, y: float, age_s: float) -> None:
        fade = max(0.0, 1 - age_s / _ROCKET_S)
        near = _flown(x, y, angles, speeds, max(0.02, age_s - 0.2))
        far = _flown(x, y, angles, speeds, age_s)
        for begin, end, tint in zip(near, far, tints, strict=True):
            cv2.line(sky, begin, end, _mix(BLACK, tint, 0.6 * fade), 1, cv2.LINE_AA)
            cv2.circle(sky, end, 1, _mix(BLACK, tint, fade), cv2.FILLED, cv2.LINE_AA)

    return draw


def _flown(x: float, y: float, angles: Numbers, speeds: Numbers, age_s: float) -> list[tuple[int, int]]:
    far = 215 / SOFT * speeds * (1 - math.exp(-2.6 * age_s))
    xs, ys = x + far * np.cos(angles), y + far * np.sin(angles) + 34 / SOFT * age_s**2
    return [(round(float(a)), round(float(b))) for a, b in zip(xs, ys, strict=True)]


def _cone() -> Picture:
    """What a pair of headlights throws on the road, to the right."""
    light = np.zeros((110, 420, 3), np.uint8)
    _polygon(light, [(0, 46), (420, 10), (420, 104), (0, 62)], (96, 124, 136))
    fade = np.linspace(1, 0, 420, dtype=np.float32)[None, :, None]
    return np.asarray(cv2.GaussianBlur(np.asarray(light * fade, np.uint8), (0, 0), 9), np.uint8)


def _reflect(picture: Picture, sheen: Picture) -> None:
    """The road below the kerb: what stands above it, upside down, blurred and broken."""
    depth = HEIGHT - _BEHIND_PX
    above = picture[_BEHIND_PX - 2 * depth : _BEHIND_PX]
    small = cv2.resize(above[::-1], (WIDTH // 8, depth // 4), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.2, sigmaY=4), (WIDTH, depth))
    cv2.multiply(soft, sheen, dst=picture[_BEHIND_PX:], scale=1 / 255)
    picture[_BEHIND_PX:] += 14  # at most 210 before it
    for x in range(40, WIDTH, 160):
        _box(picture, x, 634, 74, 5, (96, 98, 100))


def _drive(picture: Picture, car: _Traffic, t: float, lights: tuple[Picture, Picture, Picture, Picture]) -> None:
    share = ((t - car.at_s) % LOOP_S) / car.takes_s
    if share > 1:
        return
    cone, flare, tail, window = lights
    reach = 460 * car.size
    x = -reach + share * (WIDTH + 2 * reach)
    side = 1
    if car.is_leftward:
        x, side = WIDTH - x, -1
    length, height = (300.0, 120.0) if car.is_bus else (190.0, 62.0)
    half, y = length / 2 * car.size, car.foot_px - 16 * car.size
    beam = cone if side == 1 else cone[:, ::-1]
    _add(picture, beam, x + side * (half + 200 * car.size), y + 6, 0.9)
    body = [(-half, y), (-half, y - height * 0.55 * car.size), (half, y - height * 0.5 * car.size), (half, y)]
    if car.is_bus:
        body = [(-half, y), (-half, y - height * car.size), (half, y - height * car.size), (half, y)]
    else:
        roof = y - height * car.size
        cabin = [(-half * 0.72, y - 0.5 * height * car.size), (-half * 0.45, roof), (half * 0.25, roof)]
        cabin.append((half * 0.62, y - 0.5 * height * car.size))
        _polygon(picture, [(x + side * dx, dy) for dx, dy in cabin], _mix(BLACK, car.colour, 0.6))
    _polygon(picture, [(x + side * dx, dy) for dx, dy in body], car.colour)
    if car.is_bus:
        for pane in range(6):
            left = x - half + (18 + 46 * pane) * car.size
            _box(picture, left, y - 98 * car.size, 36 * car.size, 38 * car.size, (140, 206, 236))
    for wheel in (-0.62, 0.62):
        middle = (round(x + wheel * half), round(y))
        cv2.circle(picture, middle, round(17 * car.size), (14, 14, 14), cv2.FILLED, cv2.LINE_AA)
        cv2.circle(picture, middle, round(8 * car.size), (70, 70, 70), cv2.FILLED, cv2.LINE_AA)
    _add(picture, flare, x + side * half, y - 18 * car.size)
    _add(picture, flare, x + side * half, y - 18 * car.size, 0.7)
    _add(picture, tail, x - side * half, y - 20 * car.size)
    _add(picture, window, x, y - height * 0.75 * car.size, 0.8)


# --- the harbour ------------------------------------------------------------------------------------

_SEA_PX = 400
_TURN_S = 3.0  # of the lighthouse, which faces us in second 1 and whenever it has turned
_LANTERN = (1010, 150)


def _harbour() -> Draw:
    """The sun has set; the lighthouse turns, boats go home, the sea has all of it again."""
    clouds = np.clip(_noise(_SEA_PX // SOFT, 2 * WIDTH // SOFT, 64, 12)[:, ::-1] * 1.9 - 0.8, 0, 1).astype(np.float32)
    clouds = np.ascontiguousarray(cv2.resize(clouds[: _SEA_PX // SOFT // 3], (WIDTH, _SEA_PX // SOFT)))
    afterglow, halo = _glow(420 // SOFT, (50, 90, 160), 1.4), _glow(620, (150, 200, 225), 2.0)
    lantern, mast = _glow(80, (190, 235, 255), 1.6), _glow(20, (150, 220, 255), 1.4)
    shore, cover = _shore()
    stars = _stars(_SEA_PX // SOFT, WIDTH // SOFT, 90)
    lights = _shore_lights()
    sea, beam = _sea(), _beams()

    def draw(t: float) -> Picture:
        night = 0.5 - 0.5 * math.cos(2 * math.pi * t / LOOP_S)
        top, middle = _mix((120, 62, 52), (76, 34, 24), night), _mix((150, 96, 150), (124, 72, 76), night)
        low = _mix((92, 150, 246), (132, 116, 176), night)
        sky = _gradient([top, middle, low], _SEA_PX // SOFT, WIDTH // SOFT)
        _add(sky, stars, WIDTH / SOFT / 2, _SEA_PX / SOFT / 2, 1.2 * night - 0.2)
        _add(sky, afterglow, 360 / SOFT, _SEA_PX / SOFT, 1 - 0.7 * night)
        share = _scrolled(clouds, t * WIDTH / LOOP_S, WIDTH // SOFT) * 0.7
        tint = _mix((126, 110, 226), (92, 60, 78), night)
        sky = _veiled(sky, tint, share)
        above = _large(sky, (WIDTH, _SEA_PX))
        turn = 2 * math.pi * (t / _TURN_S - 1 / 12)
        beam(above, turn)
        lit = _shaded(shore, _mix((0.62, 0.56, 0.74), (0.4, 0.34, 0.36), night))
        above = np.asarray(cv2.blendLinear(above, lit, 1 - cover, cover), np.uint8)
        for x, y, light, phase in lights:
            _add(above, light, x, y, 0.35 + 0.45 * night + 0.1 * math.sin(5 * t + phase))
        _sail(above, t, mast, night)
        facing = max(0.0, math.sin(turn)) ** 4
        _add(above, lantern, *_LANTERN, 0.6 + 0.4 * facing)
        _add(above, halo, *_LANTERN, (0.95 + 0.3 * night) * facing)
        picture = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        picture[:_SEA_PX] = above
        picture[_SEA_PX:] = sea(above, t)
        _buoy(picture, t, mast)
        return _label(picture, "harbour", 19 * 60 + 10 + t / LOOP_S * 60)

    return draw


def _sea() -> Callable[[Picture, float], Picture]:
    """What is above it mirrored, a little darker, and broken by waves that grow towards the shore."""
    height, width = (HEIGHT - _SEA_PX) // SOFT, WIDTH // SOFT
    rows, columns = (plane * SOFT for plane in np.mgrid[0:height, 0:width].astype(np.float32))
    deep = rows / (HEIGHT - _SEA_PX)
    size = 2 + 15 * deep
    swell_at, chop_at = rows * (0.55 - 0.4 * deep) + 0.012 * columns, 0.035 * columns + rows * 0.11
    at_y = _SEA_PX - 2 - rows * 1.2
    dim = np.repeat((255 * (0.8 - 0.38 * deep)).astype(np.uint8)[..., None], 3, axis=2)

    def draw(above: Picture, t: float) -> Picture:
        swell = np.sin(swell_at - 2 * math.pi * t * 12 / LOOP_S)
        chop = np.sin(chop_at + 2 * math.pi * t * 9 / LOOP_S)
        from_x, from_y = columns + size * swell * chop, np.clip(at_y + size * 0.9 * swell, 0, _SEA_PX - 1)
        mirrored = cv2.remap(above, from_x, from_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        return _large(np.asarray(cv2.multiply(mirrored, dim, scale=1 / 255), np.uint8), (WIDTH, HEIGHT - _SEA_PX))

    return draw


def _shore() -> tuple[Picture, Plane]:
    """Hills, a town, the rock with the lighthouse, a pier; and which share of each pixel they cover."""
    shore = np.zeros((_SEA_PX, WIDTH, 3), np.uint8)
    covers = np.zeros_like(shore)
    white: Colour = (255, 255, 255)
    for picture, only in ((shore, None), (covers, white)):
        _ridge(picture, 356, [(150, 26, 3.6), (47, 7, 1.0)], only or (104, 76, 92))
        _ridge(picture, 388, [(120, 14, 0.4)], only or (76, 56, 66))
        random = np.random.default_rng(31)
        for number in range(26):
            x, width, height = 20 + number * 26, 18 + int(random.integers(12)), 12 + int(random.integers(26))
            _box(picture, x, 392 - height, width, height + 8, only or (92, 84, 106))
            _polygon(
                picture,
                [(x - 2, 393 - height), (x + width / 2, 382 - height), (x + width + 2, 393 - height)],
                only or (60, 58, 112),
            )
        _polygon(
            picture, [(820, 400), (880, 360), (950, 338), (1060, 336), (1130, 362), (1240, 400)], only or (66, 60, 62)
        )
        _lighthouse(picture, only)
    return shore, (covers[..., 0] / 255).astype(np.float32)


def _lighthouse(picture: Picture, only: Colour | None) -> None:
    x, top, foot = _LANTERN[0], 176, 344
    for stripe in range(6):
        y0, y1 = foot - (foot - top) * stripe / 6, foot - (foot - top) * (stripe + 1) / 6
        w0, w1 = 30 - 12 * stripe / 6, 30 - 12 * (stripe + 1) / 6
        colour: Colour = (88, 82, 214) if stripe % 2 else (226, 226, 230)
        _polygon(picture, [(x - w0, y0), (x - w1, y1), (x + w1, y1), (x + w0, y0)], only or colour)
    _box(picture, x - 24, 170, 48, 7, only or (60, 54, 56))
    _box(picture, x - 12, 136, 24, 34, only or (150, 190, 206))
    _polygon(picture, [(x - 17, 138), (x, 114), (x + 17, 138)], only or (70, 66, 150))
    _box(picture, x + 40, 318, 58, 30, only or (206, 208, 214))
    _polygon(picture, [(x + 34, 320), (x + 69, 298), (x + 104, 320)], only or (74, 70, 150))


def _shore_lights() -> list[tuple[float, float, Picture, float]]:
    random = np.random.default_rng(41)
    kinds = [_glow(9, (110, 190, 255), 1.2), _glow(7, (170, 220, 255), 1.2), _glow(8, (90, 150, 255), 1.2)]
    return [
        (26 + 660 * random.random(), 366 + 26 * random.random(), kinds[random.integers(3)], 6 * random.random())
        for _ in range(60)
    ]


def _beams() -> Callable[[Picture, float], None]:
    """Two, as seen from the side: long across, short towards us and away; they fade on their way."""
    height, width = _SEA_PX // 4, WIDTH // 4
    x, y = _LANTERN[0] / 4, _LANTERN[1] / 4
    far = np.abs(np.arange(width, dtype=np.float32) - x)[None, :, None] / width
    fade = np.repeat(np.repeat((255 * np.clip(1 - far * 1.15, 0, 1) ** 1.5).astype(np.uint8), height, 0), 3, axis=2)

    def draw(picture: Picture, turn: float) -> None:
        light = np.zeros((height, width, 3), np.uint8)
        strength = abs(math.cos(turn)) ** 0.5
        for side in (1, -1):
            across = side * math.cos(turn)
            end, wide = x + 340 * across, 13.0
            colour = _mix(BLACK, (96, 134, 150), strength)
            _polygon(light, [(x, y - 1), (end, y - wide - 4), (end, y + wide - 4), (x, y + 1)], colour)
        soft = cv2.multiply(cv2.GaussianBlur(light, (0, 0), 1.6), fade, scale=1 / 255)
        cv2.add(picture, _large(np.asarray(soft, np.uint8), (WIDTH, _SEA_PX)), dst=picture)

    return draw


def _sail(picture: Picture, t: float, mast: Picture, night: float) -> None:
    """A ferry with lit windows one way, two sailing boats the other."""
    x = -260 + (WIDTH + 520) * t / LOOP_S
    hull = [(x - 130, 372), (x + 138, 372), (x + 112, 398), (x - 118, 398)]
    _polygon(picture, hull, (86, 70, 66))
    _box(picture, x - 96, 348, 186, 25, (196, 190, 196))
    _box(picture, x - 60, 328, 116, 21, (206, 200, 206))
    _box(picture, x - 6, 306, 24, 23, (60, 60, 170))
    for pane in range(14):
        _box(picture, x - 90 + 13 * pane, 354, 8, 9, (120, 200, 250))
    for pane in range(8):
        _box(picture, x - 54 + 14 * pane, 334, 8, 8, (130, 206, 250))
    for number, (start, size) in enumerate(((900, 1.0), (420, 0.72))):
        x = (start - WIDTH * t / LOOP_S * 1.0) % WIDTH * 1.25 - 150
        sway, foot = 4 * math.sin(1.6 * t + number), 394.0
        _polygon(
            picture,
            [(x - 34 * size, foot - 9), (x + 36 * size, foot - 9), (x + 24 * size, foot), (x - 26 * size, foot)],
            (66, 52, 60),
        )
        peak = (x + sway, foot - 104 * size)
        _polygon(picture, [peak, (x + 30 * size, foot - 18), (x + 2, foot - 14)], (208, 196, 226))
        _polygon(picture, [peak, (x - 26 * size, foot - 20), (x - 2, foot - 14)], (176, 160, 196))
        _add(picture, mast, *peak, 0.4 + 0.6 * night)


def _buoy(picture: Picture, t: float, light: Picture) -> None:
    x, y = 250 + 4 * math.sin(1.1 * t), 610 + 6 * math.sin(1.7 * t)
    _polygon(picture, [(x - 26, y), (x + 26, y), (x + 18, y + 20), (x - 18, y + 20)], (44, 40, 60))
    _polygon(picture, [(x - 15, y), (x - 5, y - 52), (x + 5, y - 52), (x + 15, y)], (60, 60, 190))
    if _wave(t, 10) > 0.2:
        _add(picture, _shaded(light, (0.5, 0.6, 1.6)), x, y - 56)


PLACES = [Place("garden", _garden), Place("street", _street), Place("harbour", _harbour)]

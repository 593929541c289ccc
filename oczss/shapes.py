#| export
from dataclasses import dataclass
import math
import zlib
import numpy as np
from oczss.protocol import Split

#| export
def _rng(*key):
    "A generator that depends on nothing but `key` (strings and integers)."
    return np.random.Generator(np.random.PCG64(zlib.crc32('/'.join(map(str, key)).encode())))

def _u(rng, low, high):
    "One uniform draw in `[low, high)`."
    return low + (high - low)*rng.random()

def _turn(degrees):
    "Cosine and sine of an angle, rounded so that every libm agrees."
    a = math.radians(degrees)
    return round(math.cos(a)*65536)/65536, round(math.sin(a)*65536)/65536

#| export
def _noise(x, y, period, rng):
    "Bilinear value noise in [0, 1] with lattice spacing `period` pixels."
    lattice = rng.random((32, 32))
    u, v = x/period, y/period
    i, j = np.floor(u), np.floor(v)
    f, g = u - i, v - j
    i, j = i.astype(np.int64) & 31, j.astype(np.int64) & 31
    i2, j2 = (i + 1) & 31, (j + 1) & 31
    return (lattice[i, j]*(1-f)*(1-g) + lattice[i2, j]*f*(1-g) + lattice[i, j2]*(1-f)*g + lattice[i2, j2]*f*g)

def _wave(t):
    "A triangle wave of period 1 in [0, 1]."
    return np.abs(2*(t - np.floor(t)) - 1)

#| export
TEXTURES = ('plain', 'stripes', 'checker', 'dots', 'marble', 'grain', 'bricks')

def _texture(kind, x, y, period, rng):
    "Mixing weight in [0, 1] of the second colour, at pixels `x, y`."
    if kind == 'plain': return _noise(x, y, 4*period, rng)*.3
    if kind == 'stripes': return (_wave(x/period) > .5)*1.
    if kind == 'checker': return ((np.floor(x/period) + np.floor(y/period)) % 2)*1.
    if kind == 'dots': return ((_wave(x/period) - .5)**2 + (_wave(y/period) - .5)**2 < .09)*1.
    if kind == 'marble': return _wave(y/period/2 + 1.5*_noise(x, y, 1.5*period, rng))
    if kind == 'grain': return rng.random(x.shape)
    if kind == 'bricks':
        row = np.floor(2*y/period)
        return ((_wave(y/period*2) > .75) | (_wave(x/period + .5*(row % 2)) > .85))*1.
    raise ValueError(f'no texture {kind!r}: use one of {", ".join(TEXTURES)}')

#| export
@dataclass
class Material:
    "Two colours and the texture that mixes them."
    kind: str       # one of TEXTURES
    first: tuple    # colour, three values in [0, 255]
    second: tuple   # colour, three values in [0, 255]
    period: float   # pixels
    angle: float    # degrees

    def paint(self, x, y, rng):
        "Colours (... 3) at the pixels `x, y` (any shape)."
        c, s = _turn(self.angle)
        t = _texture(self.kind, c*x + s*y, c*y - s*x, self.period, rng)[..., None]
        return np.array(self.first)*(1 - t) + np.array(self.second)*t

def random_palette(rng, count=5):
    "The colours (count 3) that an image is painted from."
    return 35 + rng.random((count, 3))*190

def two_colours(rng, palette, spread=35):
    "Two different colours of the palette, each varied by up to `spread`."
    pair = palette[rng.permutation(len(palette))[:2]]
    return np.clip(pair + (2*rng.random((2, 3)) - 1)*spread, 0, 255)

def random_material(rng, palette, kinds=('plain',) + TEXTURES):
    "A material in two colours of the palette."
    first, second = two_colours(rng, palette)
    return Material(kinds[rng.integers(len(kinds))], tuple(first), tuple(.35*first + .65*second), _u(rng, 6, 12), _u(rng, 0, 180))

#| export
def ellipse(cx, cy, rx, ry=None):
    "Points within an ellipse."
    ry = rx if ry is None else ry
    return lambda x, y: ((x - cx)/rx)**2 + ((y - cy)/ry)**2 <= 1

def box(x0, y0, x1, y1):
    "Points within an upright rectangle."
    return lambda x, y: (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)

def bar(x0, y0, x1, y1, r):
    "Points nearer than `r` to a line segment."
    dx, dy = x1 - x0, y1 - y0
    def inside(x, y):
        t = np.clip(((x - x0)*dx + (y - y0)*dy)/(dx*dx + dy*dy + 1e-9), 0, 1)
        return (x - x0 - t*dx)**2 + (y - y0 - t*dy)**2 <= r*r
    return inside

def ring(cx, cy, r, width):
    "Points whose distance from a centre is within `width` below `r`."
    return lambda x, y: ((x-cx)**2 + (y-cy)**2 <= r*r) & ((x-cx)**2 + (y-cy)**2 >= (r-width)**2)

def poly(*points):
    "Points within a simple polygon, by counting crossings."
    def inside(x, y):
        out = np.zeros(np.broadcast(x, y).shape, bool)
        for (xa, ya), (xb, yb) in zip(points, points[1:] + points[:1]):
            if ya != yb: out ^= ((ya > y) != (yb > y)) & (x < (xb - xa)*(y - ya)/(yb - ya) + xa)
        return out
    return inside

#| export
def _beast(r, body, neck, head, leg, tail):
    "Four legs, a body, a neck, a head and a tail: shared by horse, zebra, cow, cat."
    parts = [(bar(x, .2, x + _u(r, -.1, .1), .2 + leg, .08), 0) for x in (-.55, -.35, .3, .5)]
    parts += [(bar(-.6, -.1, -.9, _u(r, -.2, .3) if tail > 0 else -.75, .05), 1), (ellipse(0, .05, .68, body), 0)]
    hx, hy = .62 + .2*neck, .0 - neck
    parts += [(bar(.5, 0, hx, hy, .17), 0), (ellipse(hx + head*.6, hy, head*1.2, head*.8), 0), (ellipse(hx + head*.7, hy - .05, .045), 2)]
    return parts, hx, hy

def _horse(r):
    parts, hx, hy = _beast(r, _u(r, .24, .3), _u(r, .5, .65), _u(r, .15, .19), _u(r, .55, .72), 1)
    return parts + [(bar(.42, -.2, hx - .08, hy - .12, .07), 1), (poly((hx, hy-.1), (hx+.04, hy-.32), (hx+.12, hy-.1)), 0)]

def _cow(r):
    parts, hx, hy = _beast(r, _u(r, .36, .44), _u(r, .1, .2), _u(r, .2, .25), _u(r, .42, .55), 1)
    return parts + [(bar(hx, hy-.15, hx-.12, hy-.42, .045), 2), (bar(hx+.18, hy-.15, hx+.3, hy-.42, .045), 2), (ellipse(.1, .42, .16, .1), 1)]

def _cat(r):
    parts, hx, hy = _beast(r, _u(r, .24, .3), _u(r, .2, .3), _u(r, .24, .28), _u(r, .3, .4), -1)
    ears = [(poly((hx+x-.1, hy-.12), (hx+x, hy-.42), (hx+x+.1, hy-.12)), 0) for x in (.04, .3)]
    return parts + ears + [(bar(-.9, -.75, -.7, -.8, .06), 1)]

def _wheels(xs, y, size): return [p for x in xs for p in ((ellipse(x, y, size), 2), (ellipse(x, y, size*.45), 1))]

def _car(r):
    roof, nose = _u(r, -.55, -.4), _u(r, .6, .75)
    cabin = poly((-.6, -.05), (-.4, roof), (.25, roof), (.55, -.05))
    return [(cabin, 0), (box(-.92, -.08, .92, .32), 0), (poly((-.45, -.05), (-.33, roof+.1), (-.1, roof+.1), (-.1, -.05)), 1),
            (poly((0, -.05), (0, roof+.1), (.2, roof+.1), (.4, -.05)), 1), (ellipse(.88, .08, .08), 1)] + _wheels((-.52, nose-.15), .34, _u(r, .2, .26))

def _bus(r):
    top, k = _u(r, -.65, -.5), int(r.integers(3, 6))
    windows = [(box(-.85 + i*1.7/k, top+.12, -.85 + (i+.75)*1.7/k, top+.45), 1) for i in range(k)]
    return [(box(-.95, top, .95, .4), 0), (box(-.95, .1, .95, .17), 1)] + windows + _wheels((-.6, .6), .42, _u(r, .17, .22))

def _truck(r):
    split = _u(r, .2, .4)
    return [(box(-.95, _u(r, -.7, -.5), split - .05, .3), 0), (poly((split, .3), (split, -.3), (.7, -.3), (.95, 0), (.95, .3)), 1),
            (poly((split+.1, 0), (split+.1, -.2), (.65, -.2), (.82, 0)), 2), (box(-.95, .25, .95, .36), 2)] + _wheels((-.65, -.25, .65), .42, .19)

def _bicycle(r):
    a, w = _u(r, .36, .42), .09
    frame = [(-.5, .3, -.15, -.25), (-.15, -.25, .35, -.25), (.35, -.25, 0, .3), (0, .3, -.5, .3), (.35, -.25, .5, .3), (-.15, -.25, 0, .3)]
    return [(ring(x, .3, a, w), 2) for x in (-.5, .5)] + [(bar(*f, .05), 0) for f in frame] + [(bar(.35, -.25, .3, -.5, .05), 0), (bar(.2, -.52, .5, -.48, .05), 1), (box(-.3, -.4, 0, -.3), 1)]

#| export
def _boat(r):
    mast = _u(r, -.2, .1)
    return [(poly((-.95, .3), (.95, .3), (.65, .75), (-.65, .75)), 0), (box(-.9, .3, .9, .4), 1), (bar(mast, .3, mast, -.9, .05), 2),
            (poly((mast+.08, -.85), (mast+.08, .18), (_u(r, .65, .85), .18)), 1), (poly((mast-.08, -.7), (mast-.08, .18), (_u(r, -.75, -.55), .18)), 1)]

def _plane(r):
    t = _u(r, .14, .2)
    return [(poly((-.05, -.1), (.3, -.1), (-.15, -.85), (-.35, -.85)), 1), (ellipse(0, 0, .95, t), 0), (poly((-.9, -.05), (-.6, -.05), (-.8, -.5), (-1, -.5)), 1),
            (poly((-.05, .05), (.35, .05), (-.2, .8), (-.45, .8)), 1)] + [(ellipse(x, -.05, .045), 2) for x in (-.3, -.1, .1, .3, .5)]

def _bird(r):
    b = _u(r, .3, .38)
    return [(bar(-.1, .3, -.15, .85, .045), 2), (bar(.12, .3, .1, .85, .045), 2), (poly((-.4, 0), (-1, -.2), (-.95, .2), (-.4, .25)), 1), (ellipse(0, .1, .5, b), 0),
            (ellipse(.45, -.35, .25), 0), (poly((.65, -.42), (1, -.3), (.65, -.22)), 2), (ellipse(-.08, .08, .32, b*.5), 1), (ellipse(.52, -.4, .05), 2)]

def _fish(r):
    b = _u(r, .32, .45)
    return [(poly((-.45, 0), (-1, -.45), (-.85, 0), (-1, .45)), 1), (poly((-.25, -b*.7), (.1, -b-.28), (.3, -b*.7)), 1), (poly((-.1, b*.7), (.1, b+.25), (.25, b*.6)), 1),
            (ellipse(.1, 0, .68, b), 0), (ring(.2, 0, .42, .05), 1), (ellipse(.55, -.1, .08), 2)]

def _butterfly(r):
    a, b = _u(r, .4, .48), _u(r, .28, .36)
    wings = [(ellipse(sx*.48, -.35, a, .42), 0) for sx in (-1, 1)] + [(ellipse(sx*.4, .4, b, .36), 1) for sx in (-1, 1)]
    spots = [(ellipse(sx*.55, -.38, .16), 2) for sx in (-1, 1)]
    return wings + spots + [(ellipse(0, 0, .09, .62), 2), (bar(0, -.55, -.25, -.95, .035), 2), (bar(0, -.55, .25, -.95, .035), 2)]

def _snail(r):
    a = _u(r, .48, .56)
    return [(bar(-.75, .6, .7, .6, .16), 1), (bar(.65, .55, .8, .0, .12), 1), (ellipse(-.1, .1, a), 0), (ring(-.1, .1, a*.7, .09), 2), (ellipse(-.1, .1, .12), 2),
            (bar(.78, 0, .65, -.35, .04), 1), (bar(.84, 0, .95, -.35, .04), 1)]

def _tree(r):
    crown = [(ellipse(_u(r, -.35, .35), _u(r, -.6, -.1), _u(r, .3, .42)), 0) for _ in range(5)]
    return [(bar(0, 0, 0, .9, _u(r, .09, .14)), 1), (bar(0, .3, .3, -.05, .06), 1), (ellipse(0, -.3, .5, .45), 0)] + crown

def _flower(r):
    k, a = int(r.integers(5, 8)), _u(r, .22, .28)
    petals = [(ellipse(.42*_turn(360*i/k)[0], -.4 + .42*_turn(360*i/k)[1], a), 0) for i in range(k)]
    return [(bar(0, -.3, 0, .95, .06), 1), (ellipse(.25, .5, .25, .1), 1), (ellipse(-.25, .65, .25, .1), 1)] + petals + [(ellipse(0, -.4, .2), 2)]

def _mushroom(r):
    w = _u(r, .18, .28)
    return [(bar(0, 0, 0, .75, w), 1), (lambda x, y: (x/.85)**2 + ((y - .1)/.85)**2 <= (y <= .1), 0)] + [(ellipse(_u(r, -.5, .5), _u(r, -.5, -.1), .11), 2) for _ in range(4)]

#| export
def _house(r):
    top, w = _u(r, -.3, -.1), _u(r, .65, .8)
    return [(box(-w, top, w, .9), 0), (poly((-w-.15, top), (0, -.95), (w+.15, top)), 1), (box(-.15, .35, .15, .9), 2)] + [(box(x-.14, .05, x+.14, .35), 2) for x in (-w+.28, w-.28)]

def _chair(r):
    s, back = _u(r, .05, .2), _u(r, -.4, -.25)
    return [(bar(x, s, x, .9, .06), 1) for x in (-.45, .4)] + [(bar(back-.1, -.9, -.4, s, .07), 1), (box(-.5, s-.08, .55, s+.12), 0), (poly((back-.2, -.92), (back+.05, -.92), (-.3, s-.1), (-.52, s-.1)), 0)]

def _table(r):
    t = _u(r, -.35, -.2)
    return [(bar(x, t, x, .8, .07), 1) for x in (-.8, -.45, .45, .8)] + [(box(-.95, t-.14, .95, t+.1), 0)]

def _lamp(r):
    w = _u(r, .25, .4)
    return [(bar(0, -.3, 0, .8, .06), 1), (ellipse(0, .85, .45, .12), 2), (poly((-w, -.9), (w, -.9), (w+.35, -.15), (-w-.35, -.15)), 0)]

def _umbrella(r):
    canopy = lambda x, y: (x/.95)**2 + ((y + .05)/.75)**2 <= (y <= -.05)
    rib = lambda x, y: canopy(x, y) & (_wave(x/.63 + .25) > .5)
    return [(bar(0, -.1, 0, .75, .05), 2), (bar(0, .78, .22, .82, .06), 2), (bar(.22, .82, .24, .66, .06), 2), (canopy, 0), (rib, 1), (bar(0, -.75, 0, -.95, .04), 2)]

def _cup(r):
    w = _u(r, .45, .55)
    return [(ring(w, .05, .38, .13), 0), (poly((-w-.08, -.6), (w+.08, -.6), (w-.08, .75), (-w+.08, .75)), 0), (box(-w, -.15, w, .12), 1), (ellipse(0, -.6, w+.08, .12), 2)]

def _bottle(r):
    n, s = _u(r, .12, .17), _u(r, -.3, -.1)
    return [(box(-n, -.8, n, s), 0), (poly((-n, s-.1), (n, s-.1), (.36, s+.25), (.36, .92), (-.36, .92), (-.36, s+.25)), 0), (box(-n-.03, -.97, n+.03, -.8), 2), (box(-.36, s+.42, .36, s+.75), 1)]

def _kite(r):
    m = _u(r, -.3, -.15)
    tail = [(bar(.1*(-1)**i, .5 + .12*i, -.1*(-1)**i, .62 + .12*i, .05), 2) for i in range(4)]
    return [(poly((0, -.95), (.6, m), (0, .5), (-.6, m)), 0), (poly((0, -.95), (.6, m), (0, m)), 1), (poly((0, .5), (-.6, m), (0, m)), 1)] + tail

#| export
THINGS = dict(car=_car, horse=_horse, cow=_cow, cat=_cat, bird=_bird, fish=_fish, tree=_tree, house=_house, chair=_chair, cup=_cup,
              bottle=_bottle, bicycle=_bicycle, aeroplane=_plane, mushroom=_mushroom, lamp=_lamp,
              bus=_bus, zebra=_horse, boat=_boat, umbrella=_umbrella, butterfly=_butterfly,
              truck=_truck, table=_table, flower=_flower, snail=_snail, kite=_kite)   # 15 seen, 5 unseen, 5 of the shifted world
ZEBRA = 'zebra'   # the one thing told apart by its coat alone

def thing_materials(name, rng, palette):
    "The three materials of one instance; only a zebra's coat is fixed, and only in pattern."
    main, second, detail = random_material(rng, palette), random_material(rng, palette), random_material(rng, palette, ('plain', 'grain'))
    if name == ZEBRA:
        dark, light = rng.random(3)*70, 185 + rng.random(3)*70
        main = Material('stripes', tuple(light), tuple(dark), _u(rng, 6, 9), _u(rng, -25, 25))
    elif name == 'horse' and main.kind == 'stripes': main.kind = 'plain'
    return main, second, detail

#| export
def draw_thing(
    name:str,      # a key of THINGS
    size:float,    # pixels from the object's -1 to its 1
    rng,           # numpy Generator: shape, pose and surface all come from it
    palette,       # (colours 3) in [0, 255]
    style='photo', # 'photo', or 'paper': flat pale colours
):                 # colours (s s 3) float in [0, 255], part numbers (s s) int, 0 outside
    "One instance of a thing, drawn in a square."
    parts, materials = THINGS[name](rng), thing_materials(name, rng, palette)
    if style == 'paper': materials = [_pale(m) for m in materials]
    c, s = _turn(_u(rng, -18, 18))
    flip, stretch, side = 1 - 2*int(rng.integers(2)), _u(rng, .85, 1.18), int(math.ceil(size*1.25))
    py, px = np.mgrid[:side, :side] - (side - 1)/2
    dx, dy = flip*(c*px + s*py), c*py - s*px
    x, y = 2*dx/size*stretch, 2*dy/size/stretch
    colours, number = np.zeros((side, side, 3)), np.zeros((side, side), int)
    for i, (inside, slot) in enumerate(parts, 1):
        mask = inside(x, y)
        number[mask] = i
        colours[mask] = materials[slot].paint(dx[mask], dy[mask], rng)
    return colours, number

def _pale(m):
    "The paper style of a material: washed out, its texture nearly gone."
    first = tuple(150 + .4*np.array(m.first)); second = tuple(150 + .4*np.array(m.second))
    return Material(m.kind, first, tuple(.7*np.array(first) + .3*np.array(second)), m.period, m.angle)

#| export
STUFF = ('sky', 'grass', 'water', 'sand', 'brick', 'wood', 'road', 'snow', 'rock', 'carpet')
def paint_stuff(name, x, y, rng, palette):
    "Colours (... 3) of a stuff class at pixels `x, y`."
    first, second = two_colours(rng, palette)
    p, fine = _u(rng, .85, 1.25), rng.random(x.shape)
    t = dict(
        sky=lambda: .5*_noise(x, y, 40*p, rng) + y/400,
        grass=lambda: (_noise(x*3, y*.6, 6*p, rng) > .5)*.9,
        water=lambda: _wave(y/(9*p) + .8*_noise(x, y, 14*p, rng)),
        sand=lambda: fine,
        brick=lambda: _texture('bricks', x, y, 14*p, rng),
        wood=lambda: np.maximum((_wave(x/(16*p)) > .9)*1., .6*_wave(_noise(x*2, y*.25, 5*p, rng)*2)),
        road=lambda: .35*fine + .6*((_wave(y/(40*p)) > .9) & (_wave(x/(24*p)) > .4)),
        snow=lambda: .3*_noise(x, y, 22*p, rng) + (fine > .97)*.7,
        rock=lambda: (np.abs(_noise(x, y, 13*p, rng) - .5) < .06)*1. + .3*_noise(x, y, 7*p, rng),
        carpet=lambda: ((_wave((x+y)/(13*p)) > .5) ^ (_wave((x-y)/(13*p)) > .5))*1.)[name]()
    return first + (.6*t)[..., None]*(second - first)

#| export
@dataclass
class Scene:
    "One image with its truth."
    image: np.ndarray      # (H W 3) uint8
    things: np.ndarray     # (H W) uint8: 0 for none, else 1 + index into the list of THINGS
    instances: np.ndarray  # (H W) uint8: 0 for none, else the number of the object
    stuff: np.ndarray      # (H W) uint8: index into STUFF, also beneath things and scraps
    names: list            # names of the visible things, in order of drawing
    grounds: list          # names of the stuff in the background

def _background(size, rng, style, palette):
    "Colours (s s 3) and stuff indices (s s) of a background of one or two stuffs."
    y, x = np.mgrid[:size, :size].astype(float)
    two = rng.random() < .6
    ids = [int(i) for i in rng.integers(0, len(STUFF), 2)]
    border = size*_u(rng, .3, .7) + 10*(_noise(x, y*0, 30, rng) - .5) + (x - size/2)*_u(rng, -.3, .3)
    lower = (y > border) & two
    colours = np.where(lower[..., None], paint_stuff(STUFF[ids[1]], x, y, rng, palette), paint_stuff(STUFF[ids[0]], x, y, rng, palette))
    if style == 'paper': colours = 205 + .2*(colours - 128) + 6*_noise(x, y, 3, rng)[..., None]
    return colours, np.where(lower, ids[1], ids[0])

def _scraps(colours, rng, count, palette):
    "Clutter: `count` small shapes of random surface, painted into `colours`."
    size = len(colours)
    for _ in range(count):
        r, cx, cy = _u(rng, 3, 9), _u(rng, 0, size), _u(rng, 0, size)
        y0, y1, x0, x1 = (int(np.clip(v, 0, size)) for v in (cy - 2*r, cy + 2*r, cx - 2*r, cx + 2*r))
        y, x = np.mgrid[y0:y1, x0:x1]
        u, v = (x - cx)/r, (y - cy)/r
        kind = (ellipse(0, 0, 1, _u(rng, .4, 1)), box(-1, -.6, .8, .7), bar(-1.2, -.5, 1.2, .6, .3), poly((-1, 1), (0, -1.2), (1, .8)))[rng.integers(4)]
        mask = kind(u, v)
        colours[y0:y1, x0:x1][mask] = random_material(rng, palette).paint(x[mask], y[mask], rng)

#| export
def _outline(number):
    "Pixels on the border between two parts, or between a part and what is outside."
    edge = np.zeros(number.shape, bool)
    edge[:-1] |= number[:-1] != number[1:]
    edge[:, :-1] |= number[:, :-1] != number[:, 1:]
    return edge

class _Canvas:
    "Colours and instance numbers of an image while things are placed on it."
    def __init__(self, colours, palette):
        self.colours, self.palette, self.areas = colours, palette, {}
        self.instances = np.zeros(colours.shape[:2], np.uint8)

    def place(self, name, size, rng, style):
        "Draw a thing at a random place; False, and nothing drawn, if it would hide too much or be cut too much."
        colours, part = draw_thing(name, size, rng, self.palette, style)
        s, h, number = len(self.instances), len(part), len(self.areas) + 1
        oy, ox = (int(round(_u(rng, -.15*size, s - .85*size) - (h - size)/2)) for _ in range(2))
        y0, x0, y1, x1 = max(oy, 0), max(ox, 0), min(oy + h, s), min(ox + h, s)
        inner, outer = np.s_[y0-oy:y1-oy, x0-ox:x1-ox], np.s_[y0:y1, x0:x1]
        mask = part[inner] > 0
        after = self.instances.copy()
        after[outer][mask] = number
        hidden = any((after == i).sum() < .45*area for i, area in self.areas.items())
        if hidden or mask.sum() < .6*(part > 0).sum(): return False
        self.instances, self.areas[number] = after, int(mask.sum())
        if style == 'paper': colours[_outline(part)] = 40
        self.colours[outer][mask] = colours[inner][mask]
        return True

#| export
def _develop(colours, rng, style, tint):
    "Light, blur and noise: from colours (s s 3) to a uint8 image."
    s = len(colours)
    y, x = np.mgrid[:s, :s]/s - .5
    if style == 'photo':
        light = (1 + _u(rng, -.6, .6)*x + _u(rng, -.6, .6)*y)[..., None]
        if tint: light = light + tint*((2*rng.random(3) - 1)*x[..., None] + (2*rng.random(3) - 1)*y[..., None])
        colours = colours*light*_u(rng, .75, 1.15)*(.85 + .3*rng.random(3))
    image = np.clip(colours, 0, 255).astype(np.int64)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode='edge')
    rows = padded[:-2] + 6*padded[1:-1] + padded[2:]
    image = (rows[:, :-2] + 6*rows[:, 1:-1] + rows[:, 2:])//64
    return np.clip(image + rng.integers(-7, 8, image.shape), 0, 255).astype(np.uint8)

def draw_scene(
    key,                      # anything printable: the same key draws the same scene, everywhere
    classes=tuple(THINGS)[:20], # names to draw things from
    size=128,                 # pixels a side
    count=(1, 4),             # fewest and most things
    scale=(18/128, 112/128),  # smallest and largest thing, as a part of the side; log-uniform
    style='photo',            # 'photo', or 'paper' for the shifted world
    plain=False,              # an even background instead of stuff
    scraps=(2, 7),            # fewest and most pieces of clutter
    tint=0.,                  # how far the light's gradient differs between red, green and blue
)->Scene:
    "Draw one scene."
    if style not in ('photo', 'paper'): raise ValueError(f"style is {style!r}: use 'photo' or 'paper'")
    unknown = [c for c in classes if c not in THINGS]
    if unknown: raise ValueError(f'no such things: {unknown}; the things are {", ".join(THINGS)}')
    rng = _rng('scene', key)
    palette = random_palette(rng)
    colours, stuff = _background(size, rng, style, palette)
    if plain: colours = np.zeros_like(colours) + colours.mean((0, 1))
    _scraps(colours, rng, int(rng.integers(scraps[0], scraps[1] + 1)), palette)
    canvas, drawn = _Canvas(colours, palette), []
    for _ in range(int(rng.integers(count[0], count[1] + 1))):
        name = classes[int(rng.integers(len(classes)))]
        side = size*scale[0]*_power(scale[1]/scale[0], rng.random())
        if canvas.place(name, side, rng, style): drawn.append(name)
    things = np.array([0] + [1 + list(classes).index(n) for n in drawn], np.uint8)[canvas.instances]
    return Scene(_develop(canvas.colours, rng, style, tint), things, canvas.instances, stuff.astype(np.uint8),
                 drawn, [STUFF[i] for i in np.unique(stuff)])

def _power(base, t):
    "`base**t` rounded to 16 bits, so that every libm agrees."
    return round(base**t*65536)/65536

#| export
@dataclass(frozen=True)
class World:
    "What is drawn, and which classes are unseen."
    things: tuple         # names of THINGS
    stuff: bool           # whether stuff is labelled too
    unseen: tuple         # names
    style: str = 'photo'
    scraps: tuple = (2, 7)
    tint: float = .6

_names = tuple(THINGS)
WORLDS = dict(things=World(_names[:20], False, _names[15:20]),
              scenes=World(_names[:20], True, _names[15:20] + ('water', 'wood'), scraps=(0, 0)),
              shifted=World(_names[:20:2] + _names[20:], False, _names[16:20:2] + _names[20:], 'paper'))

def world_split(
    name:str, # a key of WORLDS
)->Split:
    "Class names of a world, and which are unseen."
    if name not in WORLDS: raise ValueError(f'no world {name!r}: choose one of {", ".join(WORLDS)}')
    world = WORLDS[name]
    return Split(name, world.things + (STUFF if world.stuff else ()), world.unseen)

def draw_world(
    name:str, # a key of WORLDS
    part:str, # 'train', 'val' or 'test'; any other word gives images of its own
    i:int, # number of the image
): # image (H W 3) uint8, labels (H W) uint8 with 0 for none and classes from 1, instances (H W) uint8
    "One image of a world with its truth, numbered as in a PASCAL VOC mask."
    world = WORLDS[name]
    s = draw_scene(f'{name}/{part}/{i}', world.things, style=world.style, scraps=world.scraps, tint=world.tint)
    ground = s.stuff + 1 + len(world.things) if world.stuff else 0
    return s.image, np.where(s.things > 0, s.things, ground).astype(np.uint8), s.instances

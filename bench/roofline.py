#!/usr/bin/env python3
"""Where does a compressed cache pay? A roofline model of decoding, for any machine, beside what was measured on one.

  bench/roofline.py                                       four machines, the usual models
  bench/roofline.py --machine h100 --model 70b:q4_0       one machine, one model
  bench/roofline.py --bandwidth 460 --peak 4 --memory 384 --cache 256 --model llama2-7b
  bench/roofline.py --show ends --window 64               the contexts where the gain ends, with a recent window
  bench/roofline.py --show sensitivity                    how they move with bandwidth, peak, cache and memory

All but the comparison with bench/results/cpu.csv is predicted, not measured. doc/roofline.md explains the model."""
import argparse
import csv
import json
import math
import os
import statistics
from dataclasses import asdict, dataclass, replace

import svg

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PREDICTED = "predicted, not measured"

# ---- machines ----


@dataclass(frozen=True)
class Machine:
    bandwidth: float  # bytes/s from memory
    cache: float  # bytes of the last level that is the program's own
    peak: float  # operations/s of products
    memory: float  # bytes
    efficiency: float  # what is reached of bandwidth and peak
    models: str = ""  # the usual ones
    source: str = ""


GB, MIB, GIB, TERA = 1e9, 1 << 20, 1 << 30, 1e12

# dmc has run on xeon2 alone; its efficiency, the median of measured over ideal of the rows at CR 1, is taken for the others too.
MACHINES = {
    "h100": Machine(3350 * GB, 50 * MIB, 989 * TERA, 80e9, 0.7, "llama2-7b:bf16,llama3-8b:bf16",
                    "NVIDIA's data sheet of the H100 SXM: bf16 without sparsity, second-level cache"),
    "h200": Machine(4800 * GB, 50 * MIB, 989 * TERA, 141e9, 0.7, "llama3-8b:bf16,70b:q8_0",
                    "NVIDIA's data sheet of the H200 SXM: bf16 without sparsity, second-level cache"),
    "laptop": Machine(89.6 * GB, 24 * MIB, 1 * TERA, 32 * GIB, 0.7, "1b:q8_0,llama3-8b:q4_0",
                      "two channels of DDR5-5600 and 24 MiB of L3, as an Intel Core Ultra 7 155H has; about 1 TFLOP/s"),
    "xeon2": Machine(38 * GB, 4 * MIB, 2.1 * TERA, 23 * GIB, 0.7, "110m:q8_0,1b:q8_0",
                     "two cores, where bench/results/cpu.csv was measured: limits of 'dmc bench'; bf16 fed from the L2 cache"),
}
MEASURED_ON = "xeon2"
USABLE = 0.9  # of memory, for weights, caches and activations

# ---- models ----


@dataclass(frozen=True)
class Shape:
    embd: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ff: int
    vocab: int
    tied: bool

    @property
    def matrices(self):
        """parameters that every step reads: all but an input embedding of its own"""
        q, k = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * self.embd * (2 * q + 2 * k + 3 * self.ff) + self.vocab * self.embd

    @property
    def held(self):
        return self.matrices + (0 if self.tied else self.vocab * self.embd)


SHAPES = {  # as in src/format/random.c; 70b is Llama 3's
    "110m": Shape(768, 12, 12, 12, 64, 2048, 32000, True),
    "1b": Shape(2048, 22, 32, 4, 64, 5632, 32000, False),
    "llama2-7b": Shape(4096, 32, 32, 32, 128, 11008, 32000, False),
    "llama3-8b": Shape(4096, 32, 32, 8, 128, 14336, 128256, False),
    "70b": Shape(8192, 80, 64, 8, 128, 28672, 128256, False),
}
WEIGHT_BITS = {"f32": 32, "f16": 16, "bf16": 16, "q8_0": 8.5, "q6_k": 6.5625, "q5_k": 5.5, "q4_k": 4.5, "q4_0": 4.5}


CACHES = {  # bytes of a key or a value (src/kernels/kv.h)
    "f32": lambda head_dim: 4 * head_dim,
    "f16": lambda head_dim: 2 * head_dim,
    "bf16": lambda head_dim: 2 * head_dim,
    "q8": lambda head_dim: head_dim + 4,
    "q4": lambda head_dim: head_dim / 2 + 4 * math.ceil(head_dim / 32),
}


def slot_bytes(kv, head_dim):
    return 2 * CACHES[kv](head_dim)


@dataclass(frozen=True)
class Load:
    """a model, how its weights and its cache are kept"""
    name: str
    weights: str
    kv: str
    window: int  # recent tokens of each head that are held exactly

    @property
    def shape(self):
        return SHAPES[self.name]

    @property
    def title(self):
        return f"{self.name} {self.weights}, cache {self.kv}" + (f", window {self.window}" if self.window else "")


# ---- the model ----

PAGE = 16


@dataclass(frozen=True)
class Head:
    """one head of one sequence: what a step attends to, reads, and what is held"""
    slots: float
    read: float
    held: float


def head_of(load, context, cr):
    """context: tokens, the newest included. Tokens that have left the window share slots, cr to a slot, in whole pages. CR 1 is
    the plain cache: no window, no accumulator."""
    d, slot = load.shape.head_dim, slot_bytes(load.kv, load.shape.head_dim)
    recent = min(context, load.window) if cr > 1 else 0
    settled = math.ceil((context - recent) / cr - 1e-9)
    pages = slot * PAGE * math.ceil(settled / PAGE)
    accumulator = 4 * 2 * d if cr > 1 else 0
    return Head(slots=settled + recent,
                read=pages + recent * 4 * 2 * d + 2 * accumulator,  # the accumulator is written, too
                held=pages + recent * 4 * (3 * d + 2) + accumulator)  # of a recent token: two keys, a value, two numbers


@dataclass(frozen=True)
class Step:
    """one token for each sequence of a batch"""
    seconds: float
    tokens_per_second: float
    limit: str  # what takes the time
    weight_bytes: float
    slot_bytes: float
    activation_bytes: float
    cached_bytes: float  # of these, those that the processor's cache still holds from the step before
    operations: float
    cr_reached: float


def activations(shape):
    """floats of a sequence: of one layer, and of the output"""
    return 4 * shape.embd + 2 * shape.head_dim * (shape.heads + shape.kv_heads) + 3 * shape.ff, shape.vocab


def step_of(machine, load, context, batch, cr):
    s, head = load.shape, head_of(load, context, cr)
    weights = s.matrices * WEIGHT_BITS[load.weights] / 8
    slots = batch * s.layers * s.kv_heads * head.read
    layer, logits = activations(s)
    live = 4 * batch * layer  # written, then read by the next operation: from memory as far as they do not fit into the cache
    spilled = (s.layers * 2 * live + 2 * 4 * batch * logits) * max(0, 1 - machine.cache / live)
    cached = min(max(0, machine.cache - live), weights + slots)
    reading = (weights + slots + spilled - cached) / machine.bandwidth
    operations = batch * (2 * s.matrices + s.layers * s.heads * 4 * s.head_dim * head.slots)
    calculating = operations / machine.peak
    seconds = max(reading, calculating) / machine.efficiency
    if calculating >= reading:
        limit = "cache" if weights + slots == cached else "arithmetic"
    else:
        limit = max((weights, "weights"), (slots, "slots"), (spilled, "activations"))[1]
    return Step(seconds, batch / seconds, limit, weights, slots, spilled, cached, operations, context / head.slots)


def largest_batch(machine, load, context, cr):
    s = load.shape
    free = USABLE * machine.memory - s.held * WEIGHT_BITS[load.weights] / 8
    sequence = s.layers * s.kv_heads * head_of(load, context, cr).held + 4 * sum(activations(s))
    return max(0, int(free / sequence))


def pair_of(machine, load, context, batch, cr):
    """-> (batch at CR 1, step or None, batch at cr, step or None): None where it does not fit"""
    out = []
    for c in (1, cr):
        most = largest_batch(machine, load, context, c)
        n = most if batch == "max" else batch
        out += [n, step_of(machine, load, context, n, c) if 0 < n <= most else None]
    return out


def gain_of(machine, load, context, batch, cr):
    """of tokens a second, over CR 1; inf where only the compressed cache fits, nan where neither does"""
    _, plain, _, step = pair_of(machine, load, context, batch, cr)
    if not step:
        return math.nan
    return step.tokens_per_second / plain.tokens_per_second if plain else math.inf


# ---- where the gain ends ----

CONTEXTS = [round(16 * 2 ** (i / 8)) for i in range(8 * 17 + 1)]  # 16 to 2 Mi


def first_context(machine, load, batch, cr, least):
    """-> the shortest context from which on, as far as anything fits, the gain is `least`, or None; whether CR 1 fits there"""
    found, fits = None, None
    for context in reversed(CONTEXTS):
        gain = gain_of(machine, load, context, batch, cr)
        if gain < least:
            break
        if not math.isnan(gain):
            found, fits = context, math.isfinite(gain)
    return found, fits


def end_of(machine, load, batch, cr, least):
    start, fits = first_context(machine, load, batch, cr, least)
    half, half_fits = first_context(machine, load, batch, cr, (1 + cr) / 2)
    below = [c for c in CONTEXTS if start is None or c < start]
    step = pair_of(machine, load, below[-1], batch, cr)[3] if below else None
    return {"batch": batch, "cr": cr, "from_context": start, "cr1_fits": fits, "half_from_context": half,
            "half_cr1_fits": half_fits, "limit_below": step.limit if step else None}


FACTORS = (0.25, 0.5, 1, 2, 4)


def sensitivity_of(machine, load, batch, cr, least):
    """for each figure of the machine, how its multiples move the context where the gain ends"""
    for what in ("bandwidth", "peak", "cache", "memory"):
        changed = [replace(machine, **{what: f * getattr(machine, what)}) for f in FACTORS]
        yield {"batch": batch, "cr": cr, "what": what, "factors": FACTORS,
               "from_context": [first_context(m, load, batch, cr, least)[0] for m in changed]}


# ---- rows ----


def rows_of(name, machine, load, o):
    for context in o.context:
        for batch in o.batch:
            for cr in [1] + o.cr:
                _, plain, n, step = pair_of(machine, load, context, batch, cr)
                row = {"source": PREDICTED, "machine": name, "model": load.name, "weights": load.weights, "kv": load.kv,
                       "window": load.window if cr > 1 else 0, "context": context, "at": batch, "batch": n, "cr": cr}
                row.update(asdict(step) if step else dict.fromkeys(Step.__dataclass_fields__))
                row["gain"] = step.tokens_per_second / plain.tokens_per_second if step and plain else None
                yield row


def short(x):
    if x is None:
        return "-"
    return f"{x:.3g}" if x < 1000 else f"{x:.0f}" if x < 1e4 else f"{x / 1000:.0f}k"


def tokens(n):
    if n is None:
        return "-"
    return str(n) if n < 1024 else f"{n / 1024:.3g}k" if n < 1 << 20 else f"{n / (1 << 20):.3g}M"


def describe(name, m):
    return (f"{name}: {m.bandwidth / GB:g} GB/s, cache {m.cache / MIB:g} MiB, {m.peak / TERA:g} TFLOP/s, "
            f"memory {m.memory / GIB:.4g} GiB, efficiency {m.efficiency:g}")


def print_rows(rows, crs, title):
    print(f"\n{title}\n{'context':>9}{'batch':>7}{'CR 1':>10}" + "".join(f"{f'CR {c:g}':>11}{'gain':>7}" for c in crs)
          + "  limit at CR 1 -> last CR")
    for i in range(0, len(rows), 1 + len(crs)):
        plain, others = rows[i], rows[i + 1:i + 1 + len(crs)]
        line = f"{tokens(plain['context']):>9}{plain['at']:>7}{short(plain['tokens_per_second']):>10}"
        for r in others:
            line += f"{short(r['tokens_per_second']):>11}" + (f"{r['gain']:>6.2f}x" if r["gain"] else f"{'-':>7}")
        line += f"  {plain['limit'] or 'does not fit'} -> {others[-1]['limit'] or 'does not fit'}"
        if plain["at"] == "max":
            line += "; batch " + "/".join(str(r["batch"]) for r in [plain, *others])
        print(line)


def mark(end, which):
    return tokens(end[which + "from_context"]) + ("*" if end[which + "cr1_fits"] is False else "")


def print_ends(ends, least):
    width = 2 + max(len(e["model"]) for e in ends)
    print(f"\nShortest context from which on a CR gains {100 * (least - 1):.0f} % (and half of what it promises): {PREDICTED}.\n"
          "k: 1024 tokens; *: because CR 1 does not fit there; -: never, up to 2M or what fits; below: what the compressed\n"
          f"step waits for at shorter contexts\n{'machine':<8}{'model':<{width}}{'batch':>6}"
          + "".join(f"{f'CR {c:g}':>17}" for c in sorted({e['cr'] for e in ends})) + "  below")
    for key in dict.fromkeys((e["machine"], e["model"], e["batch"]) for e in ends):
        of = sorted((e for e in ends if (e["machine"], e["model"], e["batch"]) == key), key=lambda e: e["cr"])
        cells = "".join(f"{mark(e, '')} ({mark(e, 'half_')})".rjust(17) for e in of)
        limits = list(dict.fromkeys(e["limit_below"] for e in of if e["limit_below"]))
        print(f"{key[0]:<8}{key[1]:<{width}}{key[2]:>6}{cells}  {', '.join(limits) or 'gains everywhere'}")


def print_sensitivity(rows, least):
    width = 2 + max(len(r["model"]) for r in rows)
    print(f"\nShortest context from which on CR {rows[0]['cr']:g} gains {100 * (least - 1):.0f} %, with multiples of one figure of the "
          f"machine: {PREDICTED}\n{'machine':<8}{'model':<{width}}{'batch':>6}  {'figure':<10}"
          + "".join(f"{f'x {f:g}':>8}" for f in FACTORS))
    for r in rows:
        print(f"{r['machine']:<8}{r['model']:<{width}}{r['batch']:>6}  {r['what']:<10}"
              + "".join(f"{tokens(c):>8}" for c in r["from_context"]))


# ---- beside what was measured ----


def shape_in(model):
    return next((name for name in SHAPES if model.startswith(name)), None)


def newest(path):
    """-> commit of the newest decode rows of known models, these rows"""
    with open(path, encoding="utf-8") as f:
        rows = [r for r in csv.DictReader(f) if r["work"] == "decode" and shape_in(r["model"])]
    if not rows:
        return None, []
    commit = max(rows, key=lambda r: r["date"])["commit"]
    return commit, [r for r in rows if r["commit"] == commit]


def compare(machine, rows):
    """Forced lengths have no recent window. The steps of a row are timed behind `depth` tokens and one more."""
    out, same = [], ("model", "weights", "kv", "depth", "batch")
    for r in rows:
        load = Load(shape_in(r["model"]), r["type"].lower(), r["kv"], 0)
        context = int(r["depth"]) + 1 + (int(r["tokens"]) + 1) / 2
        step = step_of(machine, load, context, int(r["batch"]), float(r["cr_reached"]))
        measured = float(r["tokens_per_second"])
        out.append({"model": load.name, "weights": load.weights, "kv": load.kv, "depth": int(r["depth"]),
                    "batch": int(r["batch"]), "cr": float(r["cr"]), "measured": measured,
                    "predicted": step.tokens_per_second, "ratio": measured / step.tokens_per_second})
    for r in out:
        plain = [p for p in out if p["cr"] == 1 and all(p[k] == r[k] for k in same)]
        r["gain"] = r["measured"] / plain[0]["measured"] if plain and r["cr"] > 1 else None
        r["predicted_gain"] = r["predicted"] / plain[0]["predicted"] if plain and r["cr"] > 1 else None
    return out


def worst(ratios):
    return max(ratios, key=lambda x: abs(math.log(x)))


def print_comparison(rows, path, commit):
    print(f"\nMeasured ({os.path.relpath(path, ROOT)}, commit {commit}) beside predicted, {MEASURED_ON}\n"
          f"{'model':<11}{'cache':>6}{'depth':>7}{'batch':>6}{'CR':>4}{'measured':>10}{'predicted':>11}{'ratio':>7}"
          f"{'gain':>7}{'predicted':>11}")
    for r in rows:
        gains = f"{r['gain']:>6.2f}x{r['predicted_gain']:>10.2f}x" if r["gain"] else ""
        print(f"{r['model'] + ' ' + r['weights']:<11}{r['kv']:>6}{r['depth']:>7}{r['batch']:>6}{r['cr']:>4g}"
              f"{r['measured']:>10.1f}{r['predicted']:>11.1f}{r['ratio']:>7.2f}{gains}")
    for name, belongs in ("all", lambda cr: True), ("CR 1", lambda cr: cr == 1), ("CR above 1", lambda cr: cr > 1):
        ratios = [r["ratio"] for r in rows if belongs(r["cr"])]
        if ratios:
            print(f"{name}: median ratio {statistics.median(ratios):.2f}, worst {worst(ratios):.2f}, of {len(ratios)} rows")
    gains = [r["gain"] / r["predicted_gain"] for r in rows if r["gain"]]
    if gains:
        print(f"gains: median of measured over predicted {statistics.median(gains):.2f}, worst {worst(gains):.2f}, "
              f"of {len(gains)}")


# ---- the picture ----

W, H, PAD, GAP, TOP = 460, 250, 40, 40, 28
COLORS = ["#2b6cb0", "#c05621", "#2f855a", "#805ad5", "#b83280"]
DASHES = ["", 'stroke-dasharray="5 3"', 'stroke-dasharray="1.5 3"']


def panel(x0, y0, title, machine, load, points, o):
    lo, hi, top = 256, 1 << 20, max(o.cr) * 1.1
    sx = lambda c: x0 + PAD + (W - PAD) * math.log(c / lo) / math.log(hi / lo)
    sy = lambda g: y0 + TOP + (H - TOP - 22) * (1 - math.log(max(g, 0.9) / 0.9) / math.log(top / 0.9))
    out = [svg.text(x0 + PAD, y0 + 16, title, 'font-weight="bold"')]
    for gain in [1] + o.cr:
        y = f"{sy(gain):.1f}"
        out.append(f'<line x1="{sx(lo):.1f}" x2="{sx(hi):.1f}" y1="{y}" y2="{y}" stroke="#8884"/>')
        out.append(svg.text(x0 + PAD - 6, sy(gain) + 4, f"{gain:g}x", 'text-anchor="end"'))
    for i in range(8, 21, 2):
        out.append(svg.text(sx(1 << i), y0 + H - 6, tokens(1 << i), 'text-anchor="middle"'))
    for i, cr in enumerate(o.cr):
        for j, batch in enumerate(o.batch):
            line = [(c, gain_of(machine, load, c, batch, cr)) for c in CONTEXTS if lo <= c <= hi]
            path = " ".join(f"{sx(c):.1f},{sy(g):.1f}" for c, g in line if math.isfinite(g))
            if path:
                out.append(f'<polyline fill="none" stroke="{COLORS[i % len(COLORS)]}" stroke-width="1.6" '
                           f'{DASHES[j % len(DASHES)]} points="{path}"/>')
    for p in points:
        if p["cr"] in o.cr and p["depth"] >= lo:
            color = COLORS[o.cr.index(p["cr"]) % len(COLORS)]
            fill = color if p["batch"] == 1 else "#fff"
            out.append(f'<circle cx="{sx(p["depth"]):.1f}" cy="{sy(p["gain"]):.1f}" r="4.5" fill="{fill}" stroke="{color}" '
                       'stroke-width="2"/>')
    return out


def legend(y, o):
    out, x = [], PAD
    for i, cr in enumerate(o.cr):
        out.append(f'<rect x="{x}" y="{y + 3}" width="10" height="10" fill="{COLORS[i % len(COLORS)]}"/>')
        out.append(svg.text(x + 15, y + 12, f"CR {cr:g}"))
        x += 60
    for j, batch in enumerate(o.batch):
        title = "the largest batch that fits, of each" if batch == "max" else f"{batch} sequence{'s' * (batch > 1)}"
        out.append(f'<line x1="{x}" x2="{x + 28}" y1="{y + 8}" y2="{y + 8}" stroke="#666" stroke-width="1.6" '
                   f'{DASHES[j % len(DASHES)]}/>')
        out.append(svg.text(x + 33, y + 12, title))
        x += 60 + 7 * len(title)
    return out


def draw(path, machines, loads, comparison, commit, o):
    dots = f" Dots ({MEASURED_ON}; filled: 1 sequence, open: more): measured at commit {commit}." if comparison else ""
    title = f"Tokens a second over CR 1, against context. Lines: {PREDICTED}.{dots}"
    out, y, columns = [svg.text(PAD, 18, title)], 30, max(len(of) for of in loads.values())
    for name, machine in machines.items():
        for i, load in enumerate(loads[name]):
            points = [r for r in comparison if r["gain"] and name == MEASURED_ON and load.window == 0
                      and (r["model"], r["weights"], slot_bytes(r["kv"], 64)) == (load.name, load.weights, slot_bytes(load.kv, 64))]
            out += panel(i * (W + GAP), y, f"{name}, {load.title}", machine, load, points, o)
        y += H + 14
    svg.write(path, out + legend(y, o), columns * (W + GAP), y + 24)


# ---- command line ----


PARTS = ("rows", "ends", "measured", "sensitivity")


def numbers(kind, least):
    def parse(s):
        values = [kind(x) for x in s.split(",")]
        if not all(least <= x < math.inf for x in values):
            raise ValueError
        return values
    parse.__name__ = "list"
    return parse


def batches(s):
    return [x if x == "max" else numbers(int, 1)(x)[0] for x in s.split(",")]


def among(choices):
    def parse(s):
        if not set(s.split(",")) <= set(choices):
            raise argparse.ArgumentTypeError(f"'{s}': choose from {', '.join(choices)}")
        return s.split(",")
    return parse


def at_least(least):
    def number(s):
        return numbers(float, least)(s)[0]
    return number


def options():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--machine", type=among(MACHINES), metavar="LIST",
                   help=f"of {', '.join(MACHINES)}; default all, or one of your own where figures are given")
    p.add_argument("--bandwidth", type=at_least(1e-9), metavar="GB/s", help="that memory is read with")
    p.add_argument("--cache", type=at_least(0), metavar="MiB", help="of the processor, last level")
    p.add_argument("--peak", type=at_least(1e-9), metavar="TFLOP/s", help="of products")
    p.add_argument("--memory", type=at_least(1e-9), metavar="GiB", help=f"{100 * USABLE:.0f} %% of it may be used")
    p.add_argument("--efficiency", type=at_least(1e-9), metavar="X", help="what is reached of bandwidth and peak (0.7)")
    p.add_argument("--model", metavar="LIST",
                   help=f"MODEL[:WEIGHTS[:CACHE]], of {', '.join(SHAPES)}; {', '.join(WEIGHT_BITS)} (q8_0); "
                   f"{', '.join(CACHES)} (f16)")
    p.add_argument("--window", type=int, default=0, metavar="D", help="recent tokens that are held exactly (0)")
    p.add_argument("--context", type=numbers(int, 1), default=[1024, 4096, 16384, 65536], metavar="LIST",
                   help="tokens (1024,4096,16384,65536)")
    p.add_argument("--batch", type=batches, default=[1, 16, "max"], metavar="LIST",
                   help="sequences; max: as many as fit (1,16,max)")
    p.add_argument("--cr", type=numbers(float, 1), default=[2, 4, 8], metavar="LIST",
                   help="compression ratios beside 1 (2,4,8)")
    p.add_argument("--least", type=at_least(1e-9), default=1.1, metavar="X", help="where a gain ends (1.1)")
    p.add_argument("--show", type=among(PARTS), default=PARTS[:3], metavar="LIST", help=f"of {', '.join(PARTS)} ({','.join(PARTS[:3])})")
    p.add_argument("--results", default=os.path.join(ROOT, "bench/results/cpu.csv"), metavar="FILE",
                   help="of 'dmc bench --csv'; the newest commit's rows are compared")
    p.add_argument("--json", action="store_true", help="everything as one object")
    p.add_argument("--csv", metavar="FILE", help="write the rows")
    p.add_argument("--svg", metavar="FILE", help="draw the gains")
    o = p.parse_args()
    o.cr = [c for c in o.cr if c > 1] or p.error("--cr: one above 1 at least")
    if o.window < 0:
        p.error("--window: at least 0")
    if not os.path.isfile(o.results):
        p.error(f"--results: {o.results} is not there")
    if o.efficiency and o.efficiency > 1:
        p.error("--efficiency: at most 1")
    return p, o


def chosen_machines(p, o):
    units = {"bandwidth": GB, "cache": MIB, "peak": TERA, "memory": GIB, "efficiency": 1}
    given = {k: getattr(o, k) * unit for k, unit in units.items() if getattr(o, k) is not None}
    if o.machine or not given:
        change = ", changed" if given else ""
        return {n: replace(MACHINES[n], **given, source=MACHINES[n].source + change) for n in o.machine or MACHINES}
    if not {"bandwidth", "peak", "memory"} <= set(given):
        p.error("a machine of your own needs --bandwidth, --peak and --memory; --machine NAME changes one that is known")
    return {"yours": Machine(**{"cache": 0, "efficiency": 0.7, **given}, models="llama3-8b:bf16", source="as given")}


def chosen_loads(p, models, window):
    loads = []
    for model in models.split(","):
        name, weights, kv, *more = model.split(":") + ["q8_0", "f16"][min(2, model.count(":")):]
        if more or name not in SHAPES or weights not in WEIGHT_BITS or kv not in CACHES:
            p.error(f"--model: '{model}' is no MODEL[:WEIGHTS[:CACHE]]; models: {', '.join(SHAPES)}; "
                    f"weights: {', '.join(WEIGHT_BITS)}; cache: {', '.join(CACHES)}")
        loads.append(Load(name, weights, kv, window))
    return loads


def main():
    p, o = options()
    machines = chosen_machines(p, o)
    loads = {n: chosen_loads(p, o.model or m.models, o.window) for n, m in machines.items()}
    each = [(n, m, load) for n, m in machines.items() for load in loads[n]]
    rows = {(n, load): list(rows_of(n, m, load, o)) for n, m, load in each}
    ends = [{"machine": n, "model": load.title, **end_of(m, load, b, c, o.least)}
            for n, m, load in each for b in o.batch for c in o.cr] if o.json or "ends" in o.show else []
    moved = [{"machine": n, "model": load.title, **r} for n, m, load in each for b in o.batch
             for r in sensitivity_of(m, load, b, o.cr[len(o.cr) // 2], o.least)] if o.json or "sensitivity" in o.show else []
    commit, measured = newest(o.results) if MEASURED_ON in machines else (None, [])
    comparison = compare(machines[MEASURED_ON], measured) if measured else []
    if o.json:
        print(json.dumps({"source": PREDICTED, "machines": {n: asdict(m) for n, m in machines.items()},
                          "rows": [r for of in rows.values() for r in of], "ends": ends, "sensitivity": moved,
                          "measured": {"file": os.path.relpath(o.results, ROOT), "commit": commit, "rows": comparison}}, indent=1))
    else:
        if "rows" in o.show:
            print(f"Decode, tokens/s of all sequences: {PREDICTED}")
            for n, m, load in each:
                print_rows(rows[n, load], o.cr, f"{describe(n, m)}\n{m.source}\n{load.title}")
        if ends:
            print_ends(ends, o.least)
        if "measured" in o.show and comparison:
            print_comparison(comparison, o.results, commit)
        if moved:
            print_sensitivity(moved, o.least)
    if o.csv:
        with open(o.csv, "w", encoding="utf-8", newline="") as f:
            out = csv.DictWriter(f, list(next(iter(rows.values()))[0]), lineterminator="\n")
            out.writeheader()
            out.writerows(r for of in rows.values() for r in of)
    if o.svg:
        draw(o.svg, machines, loads, comparison, commit, o)
    for path in (o.csv, o.svg):
        if path and not o.json:
            print(f"{path}: written")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The arithmetic of bench/roofline.py against cases computed by hand."""
import math
import os
import sys
from dataclasses import replace

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../bench"))
from roofline import (CONTEXTS, SHAPES, Load, Machine, compare, end_of, gain_of, head_of, largest_batch,  # noqa: E402
                      sensitivity_of, slot_bytes, step_of)


def near(a, b):
    return abs(a - b) <= 1e-9 * abs(b)


# 12 x 768 x (4 x 768 + 3 x 2048) + 32000 x 768; an untied model holds its embedding as well but does not read it
s110, s1, s7 = SHAPES["110m"], SHAPES["1b"], SHAPES["llama2-7b"]
assert s110.matrices == s110.held == 12 * 768 * 9216 + 24576000 == 109510656
assert s1.held - s1.matrices == 32000 * 2048 and s7.held == 6738149376
assert [slot_bytes(kv, 64) for kv in ("f32", "f16", "q8", "q4")] == [512, 256, 136, 80]

plain, windowed = Load("110m", "q8_0", "f16", 0), Load("110m", "q8_0", "f16", 64)
h = head_of(plain, 100, 1)  # 7 pages
assert (h.slots, h.read, h.held) == (100, 7 * 16 * 256, 7 * 16 * 256)
h = head_of(plain, 100, 4)  # 25 slots in 2 pages; accumulator of 128 floats, read and written
assert (h.slots, h.read, h.held) == (25, 8192 + 1024, 8192 + 512)
h = head_of(windowed, 100, 4)  # 36 tokens have settled in 9 slots, 64 are in the window
assert (h.slots, h.read, h.held) == (73, 4096 + 64 * 512 + 1024, 4096 + 64 * 776 + 512)
assert head_of(windowed, 50, 4).slots == 50 and head_of(windowed, 100, 1).slots == 100

# no cache: 109510656 x 8.5 / 8 bytes of weights, 144 heads x 1024 slots x 256, every activation written and read
m = Machine(bandwidth=1e9, cache=0, peak=1e15, memory=1e12, efficiency=1)
moved = 8 * (12 * (4 * 768 + 2 * 64 * 24 + 3 * 2048) + 32000)
step = step_of(m, plain, 1024, 1, 1)
assert (step.weight_bytes, step.slot_bytes, step.activation_bytes) == (116355072, 37748736, moved)
assert step.limit == "weights" and near(step.seconds, (116355072 + 37748736 + moved) / 1e9)
assert near(step_of(replace(m, efficiency=0.5), plain, 1024, 1, 1).seconds, 2 * step.seconds)
step = step_of(m, plain, 8192, 16, 1)
assert step.limit == "slots" and step.weight_bytes == 116355072 and step.slot_bytes == 16 * 8 * 37748736
# arithmetic: 2 operations a parameter, 4 x 64 for each of 144 heads and 1024 slots, of each of 16 sequences
step = step_of(replace(m, peak=1e6), plain, 1024, 16, 1)
assert step.limit == "arithmetic" and near(step.seconds, 16 * (2 * 109510656 + 144 * 256 * 1024) / 1e6)
# a cache of 50 MB keeps what the 49152 bytes of a layer's activations leave of it; one that holds everything leaves arithmetic
step = step_of(replace(m, cache=50e6), plain, 1024, 1, 1)
assert step.activation_bytes == 0 and step.cached_bytes == 50e6 - 49152
assert near(step.seconds, (116355072 + 37748736 - 50e6 + 49152) / 1e9)
step = step_of(replace(m, cache=1e9), plain, 1024, 1, 1)
assert step.limit == "cache" and near(step.seconds, step.operations / 1e15)

# 0.9 GB - weights = 783644928 bytes; a sequence takes 144 x 262144 + 4 x (12288 + 32000): 20; at CR 4 144 x (65536 + 512): 80
small, smaller = replace(m, memory=1.7e8), replace(m, memory=1e8)
assert [largest_batch(replace(m, memory=1e9), plain, 1024, cr) for cr in (1, 4)] == [20, 80]
assert largest_batch(smaller, plain, 1, 1) == 0 and math.isnan(gain_of(smaller, plain, 1024, 1, 4))
assert math.isinf(gain_of(small, plain, 1024, 1, 4)) and gain_of(m, plain, 1024, "max", 1) == 1
# reading alone: the gain is none in a short context, tends to CR in a long one, and ends where 10 % are not reached
m = replace(m, memory=1e15)
assert gain_of(m, plain, 16, 1, 4) < 1.02 and 3.9 < gain_of(m, plain, 1 << 20, 1, 4) < 4
end = end_of(m, plain, 1, 2, 1.1)
start = end["from_context"]
assert gain_of(m, plain, CONTEXTS[CONTEXTS.index(start) - 1], 1, 2) < 1.1 <= gain_of(m, plain, start, 1, 2)
assert end["limit_below"] == "weights" and end["cr1_fits"] and end["half_from_context"] > start
# at batch 1 bandwidth changes nothing; where arithmetic ends the gain, more of it does good and more bandwidth harm
moved = {r["what"]: r["from_context"] for r in sensitivity_of(m, plain, 1, 4, 1.1)}
assert len(set(moved["bandwidth"])) == len(set(moved["memory"])) == 1
moved = {r["what"]: r["from_context"] for r in sensitivity_of(replace(m, memory=1e12, peak=5.5e10), plain, "max", 4, 1.1)}
assert moved["bandwidth"] == sorted(moved["bandwidth"]) and moved["bandwidth"][0] < moved["bandwidth"][-1]
assert moved["peak"] == sorted(moved["peak"], reverse=True) and moved["peak"][-1] < moved["peak"][0]
# a measured row: steps 2 to 34 behind 1007 tokens; on average 1025 are attended to, a page more than 1024
row = {"model": "110m-q8_0.gguf", "type": "Q8_0", "kv": "f16", "depth": "1007", "batch": "1", "cr": "1", "cr_reached": "1",
       "tokens": "33", "tokens_per_second": "5"}
assert near(compare(m, [row])[0]["predicted"], 1 / step_of(m, plain, 1025, 1, 1).seconds)
print("the model's arithmetic agrees with cases computed by hand")

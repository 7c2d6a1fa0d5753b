#!/usr/bin/env python3
"""Text of the study on retrieval: JSON objects of kinds and names ("the dog": "the dog Star"), what stands at some of their keys, and the examples that
`dmc eval kv-retrieval --data OUT/examples` asks. The kinds and names are those of OUT/train.txt, stories by `dmc story`.

    bench/retrieval_text.py OUT

Written: train-pairs.txt, dev-pairs.txt, held-pairs.txt, documents of 4 to 24 pairs separated by lines <|endoftext|>, and the examples, of 24 pairs.
The same Python gives the same bytes.
"""
import json
import os
import random
import re
import sys

END = "\n<|endoftext|>\n"
FEWEST, MOST, ASKED, EXAMPLES = 4, 24, 5, 100
PROMPT = "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n"


def write(path, text):
    with open(path + ".part", "w", encoding="utf-8") as f:
        f.write(text)
    os.replace(path + ".part", path)


def draw(rng, names, n):
    """n kinds, each with one of its names."""
    return [(kind, f"{kind} {rng.choice(names[kind])}") for kind in rng.sample(sorted(names), n)]


def document(rng, names):
    pairs = draw(rng, names, rng.randint(FEWEST, MOST))
    text = PROMPT + "{" + ",\n ".join(f'"{k}": "{v}"' for k, v in pairs) + "}"
    for k, v in rng.choices(pairs, k=ASKED):
        text += f'\n\nKey: "{k}"\nCorresponding value: "{v}"'
    return text


def example(rng, names):
    pairs = draw(rng, names, MOST)
    key, value = rng.choice(pairs)
    return json.dumps({"ordered_kv_records": pairs, "key": key, "value": value}) + "\n"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    names = {}
    if not os.path.exists(os.path.join(out, "train.txt")):
        sys.exit(f"{out}/train.txt is not there: write it with dmc story --questions 10")
    with open(os.path.join(out, "train.txt"), encoding="utf-8") as f:
        for kind, name in re.findall(r"Answer: (the \w+) (\w+)\.", f.read()):
            names.setdefault(kind, set()).add(name)
    names = {kind: sorted(those) for kind, those in names.items()}
    if len(names) < MOST:
        sys.exit(f"{out}/train.txt: {len(names)} kinds with a name, {MOST} are needed")
    for name, seed, n in ("train-pairs.txt", 81, 20000), ("dev-pairs.txt", 82, 200), ("held-pairs.txt", 83, 200):
        rng = random.Random(seed)
        write(os.path.join(out, name), "".join(document(rng, names) + END for _ in range(n)))
    os.makedirs(os.path.join(out, "examples"), exist_ok=True)
    rng = random.Random(84)
    write(os.path.join(out, "examples", f"kv-retrieval-{MOST}_keys.jsonl"), "".join(example(rng, names) for _ in range(EXAMPLES)))


main()

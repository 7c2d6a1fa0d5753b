#!/usr/bin/env python3
"""Text of the study: what its base model learns from, and what is held out.

    bench/study_text.py DATA OUT      DATA: the folder with corpus-gutenberg and the others; OUT: where the files go, with stories.txt there

Written, documents separated by lines <|endoftext|>:

    books.txt wiki.txt tales.txt      Gutenberg but two books, and War and Peace; the start of WikiText-2's training text, TinyStories
    copy.txt pairs.txt needles.txt    made here: words said again and again, those of the books and of OUT/stories.txt; JSON pairs and their
                                      look-up, a sentence hidden in a book: what `dmc eval kv-retrieval` and `needle` ask, with other keys and numbers
    dev.txt                           never trained on, for choosing: a book, the last of the WikiText slice and of the stories, in turn
    held-books.txt held-wiki.txt held-tales.txt held-code.txt   never trained on, for measuring: another book, WikiText-2's test text, the
                                      second half of TinyStories' validation text (the first served to choose), HumanEval's programs
    held.txt                          the first three of them, in turn

The same data and the same Python give the same bytes. `dmc story` writes the rest before, see bench/study.sh.
"""
import collections
import glob
import gzip
import json
import os
import random
import re
import sys
import uuid

END = "\n<|endoftext|>\n"
HELD_BOOK, DEV_BOOK = "austen-persuasion.txt", "chesterton-thursday.txt"
DEV_SHARE = 0.05
PIECE = 2500  # characters of a piece of dev.txt and held.txt, about
PLACES = ["lighthouse", "windmill", "orchard", "harbour", "bakery", "library", "castle", "museum", "monastery", "quarry", "theatre",
          "observatory", "market", "station", "garden", "palace", "tower", "chapel", "school", "prison", "bridge", "mill"]


def read(*path):
    with open(os.path.join(*path), encoding="utf-8", errors="ignore") as f:
        return f.read().replace("\r\n", "\n").replace("\0", "")


def write(out, name, documents):
    path = os.path.join(out, name)
    with open(path + ".part", "w", encoding="utf-8") as f:
        for d in documents:
            f.write(d.strip("\n") + END)
    os.replace(path + ".part", path)
    print(f"{path}: {os.path.getsize(path) / 1e6:.1f} MB")


def wiki_articles(text):
    """Articles begin with a line ' = Title = '."""
    return [a for a in re.split(r"(?m)^(?= = [^=])", text) if a.strip()]


def pieces(documents):
    """Lines, joined until there are PIECE characters."""
    piece = ""
    for document in documents:
        for line in document.strip("\n").split("\n") + [""]:
            piece += line + "\n"
            if len(piece) >= PIECE:
                yield piece
                piece = ""


def in_turn(*texts):
    for turn in zip(*map(pieces, texts)):
        yield from turn


def split(documents):
    """-> those to train on, those for choosing"""
    kept = len(documents) - int(len(documents) * DEV_SHARE)
    return documents[:kept], documents[kept:]


def copies(rng, words, n):
    """A phrase said again and again, about 110 words in all; one in twenty is a number."""
    def word():
        return f"{rng.getrandbits(20):x}" if rng.random() < 0.05 else rng.choice(words)

    for _ in range(n):
        phrase = " ".join(word() for _ in range(rng.randint(2, 20)))
        yield " ".join([phrase] * (110 // len(phrase.split()) + 1))


def pairs(rng, n):
    for _ in range(n):
        made = [(str(uuid.UUID(int=rng.getrandbits(128), version=4)), str(uuid.UUID(int=rng.getrandbits(128), version=4)))
                for _ in range(rng.randint(2, 5))]
        text = "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n{"
        text += ",\n ".join(f'"{k}": "{v}"' for k, v in made) + "}"
        for k, v in rng.sample(made, rng.randint(1, min(3, len(made)))):
            text += f'\n\nKey: "{k}"\nCorresponding value: "{v}"'
        yield text


def needles(rng, books, n):
    for _ in range(n):
        book = rng.choice(books)
        length = rng.randint(100, 1400)
        at = rng.randrange(max(1, len(book) - length))
        sentences = re.split(r"(?<=[.!?]) ", book[at:at + length])
        hidden = rng.sample(PLACES, rng.randint(1, 2))
        numbers = {p: rng.randint(100000, 999999) for p in hidden}
        for p in hidden:
            sentences.insert(rng.randint(0, len(sentences)), f"The secret number of the {p} is {numbers[p]}.")
        text = " ".join(sentences)
        for p in hidden:
            text += f"\n\nQuestion: What is the secret number of the {p}?\nAnswer: The secret number of the {p} is {numbers[p]}."
        yield text


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    data, out = sys.argv[1:]
    os.makedirs(out, exist_ok=True)
    paths = sorted(glob.glob(os.path.join(data, "corpus-gutenberg", "*", "*.txt")))
    books = {os.path.basename(p): read(p) for p in paths}
    held, dev = books.pop(HELD_BOOK), books.pop(DEV_BOOK)
    train = list(books.values()) + [read(data, "corpus-war-and-peace", "2600-0.txt")]
    wiki, dev_wiki = map("\n".join, split(read(data, "corpus-wikitext2-raw-train-slice", "wikitext2_train_5k.txt").split("\n")))
    held_wiki = wiki_articles(read(data, "corpus-wikitext2-raw-test", "wiki.test.raw"))
    tales = [t for folder, name in (("corpus-tinystories-2m", "tinystories_sample.txt"), ("corpus-tinystories-v2", "tinystories_10k.txt"))
             for t in read(data, folder, name).split("<|endoftext|>") if t.strip()]
    tales, dev_tales = split(tales)
    valid = read(data, "corpus-tinystories-valid", "tinystories_val.txt")
    valid = valid[valid.index("\n", len(valid) // 2):]
    words = [w for w, _ in collections.Counter(re.findall(r"\b[a-z]{2,12}\b", " ".join(train))).most_common(1000)]
    words = sorted(set(words) | set(re.findall("[A-Za-z]+", read(out, "stories.txt").replace(END, " "))))
    with gzip.open(os.path.join(data, "bench-humaneval", "HumanEval.jsonl.gz"), "rt") as f:
        code = [row["prompt"] + row["canonical_solution"] for row in map(json.loads, f)]

    write(out, "books.txt", train)
    write(out, "wiki.txt", [wiki])
    write(out, "tales.txt", tales)
    write(out, "copy.txt", copies(random.Random(20), words, 4000))
    write(out, "pairs.txt", pairs(random.Random(21), 5000))
    write(out, "needles.txt", needles(random.Random(22), train, 3500))
    write(out, "dev.txt", in_turn([dev], [dev_wiki], dev_tales))
    write(out, "held.txt", in_turn([held], held_wiki, [valid]))
    write(out, "held-books.txt", [held])
    write(out, "held-wiki.txt", held_wiki)
    write(out, "held-tales.txt", [valid])
    write(out, "held-code.txt", code)


main()

#!/usr/bin/env python3
"""The turns of bench/peers.sh: runs dmc bench and the peers' benches one after the other, writes medians and ratios as CSV."""
import argparse
import csv
import datetime
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

COLUMNS = ("row model type work depth batch cr engine setting tokens_per_second spread ratio floor_fraction kv_bytes peak_rss_bytes rounds "
           "threads machine cores commit date").split()
PROMPT, GENERATE = 512, 32


def rows():
    """name, model, type, work, depth, batch, compression ratios of ours, settings of the peers (options of llama-bench)"""
    plain = {"": []}
    attention = {"fa off": ["-fa", "0"], "fa on": ["-fa", "1"], "K q8_0, fa off": ["-fa", "0", "-ctk", "q8_0"]}
    for t in ("q8_0", "q4_0", "bf16"):
        yield "decode", "1b", t, "decode", 0, 1, [1], plain
    for depth in (256, 2048, 8192):
        yield "depth", "110m", "q8_0", "decode", depth, 1, [1, 4, 8], attention
    yield "depth", "110m", "q8_0", "prefill", 8192, 1, [1, 4], attention
    yield "gqa", "1b", "q8_0", "decode", 4096, 1, [1, 4], attention
    yield "batch", "110m", "q8_0", "decode", 256, 16, [1], plain
    yield "batch", "110m", "q8_0", "decode", 1024, 16, [1, 4], plain
    for model in ("1b", "110m"):
        for t in ("q8_0", "q4_0", "bf16"):
            yield "prefill", model, t, "prefill", 0, 1, [1], plain


class Failed(Exception):
    pass


def run(command, both=False, folder=None):
    """-> what it printed (both: on stderr too), its peak resident bytes; folder: where it may leave files"""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, stdin=subprocess.DEVNULL, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            raise Failed(f"{' '.join(command)}: status {process.returncode}: {err.read()[-300:]}")
        return out.read() + (err.read() if both else ""), usage.ru_maxrss * 1024


def run_dmc(o, file, work, depth, batch, cr):
    text, _ = run([o.dmc, "bench", file, "--work", work, "--depth", str(depth), "--batch", str(batch), "--cr", f"{cr:g}", "--prompt", str(PROMPT),
                   "--generate", str(GENERATE), "--repeat", "1", "--threads", str(o.threads), "--json", "--quiet"])
    return json.loads(text)[0]


@functools.lru_cache(maxsize=None)
def knows_depth(tool):
    """Whether a llama-bench has -d; ik_llama.cpp's has -gp DEPTH,TOKENS in its place, and nothing for a prefill behind a depth."""
    return "-gp <" not in subprocess.run([tool, "--help"], capture_output=True, text=True, check=False).stdout


def batch_rate(text):
    """Tokens/s that llama-batched-bench printed: JSON lines, or ik_llama.cpp's table, whatever it was asked for."""
    lines = text.splitlines()
    rates = [json.loads(line)["speed_tg"] for line in lines if line.startswith("{")]
    heads = [line.split("|") for line in lines if "S_TG t/s" in line]
    rates += [float(line.split("|")[[h.strip() for h in heads[0]].index("S_TG t/s")]) for line in lines if heads and re.match(r"\|\s*\d", line)]
    if not rates:
        raise Failed("llama-batched-bench printed no rate")
    return rates[-1]


def run_llama(o, tool, file, work, depth, batch, setting):
    if batch > 1:
        if work != "decode":
            raise Failed("llama-batched-bench measures no prefill behind a depth")
        text, rss = run([os.path.join(os.path.dirname(tool), "llama-batched-bench"), "-m", file, "-t", str(o.threads), "-c",
                         str(batch * (depth + GENERATE)), "-npp", str(depth), "-ntg", str(GENERATE), "-npl", str(batch), "--output-format", "jsonl"] + setting,
                        both=True, folder=o.cache)
        return batch_rate(text), rss
    amount = ["-p", "0", "-n", str(GENERATE)] if work == "decode" else ["-p", str(PROMPT), "-n", "0"]
    if knows_depth(tool):
        amount += ["-d", str(depth)]
    elif depth:
        if work != "decode":
            raise Failed("this llama-bench measures no prefill behind a depth")
        amount = ["-p", "0", "-n", "0", "-gp", f"{depth},{GENERATE}"]
    text, rss = run([tool, "-m", file, "-t", str(o.threads), "-r", "1", "-o", "json"] + amount + setting, folder=o.cache)
    return json.loads(text)[-1]["avg_ts"], rss


def spread(values):
    if len(values) < 2:
        return 0.0
    q = statistics.quantiles(values, n=4, method="inclusive")
    return (q[2] - q[0]) / statistics.median(values)


def model_file(o, shape, kind):
    path = os.path.join(o.cache, f"{shape}-{kind}.gguf")
    if not os.path.exists(path):
        run([o.dmc, "convert", "--random", shape, "--type", kind, path])
    return path


def measure(o, row):
    """All turns of one row -> its lines for the table"""
    name, model, kind, work, depth, batch, crs, settings = row
    file = model_file(o, model, kind)
    ours, theirs, failed = {cr: [] for cr in crs}, {}, set()
    for _ in range(o.rounds):
        for cr in crs:
            ours[cr].append(run_dmc(o, file, work, depth, batch, cr))
        for peer, tool in o.peers:
            for label, setting in settings.items():
                key = peer, label
                if key in failed:
                    continue
                try:
                    rate = run_llama(o, tool, file, work, depth, batch, setting)
                    theirs.setdefault(key, []).append(rate)
                except Failed as e:
                    failed.add(key)
                    print(f"{peer} {label}: {e}", file=sys.stderr)
    same = {"row": name, "model": model, "type": kind.upper(), "work": work, "depth": depth, "batch": batch, "rounds": o.rounds, "threads": o.threads}
    lines = []
    for (peer, label), values in theirs.items():
        rates = [rate for rate, _ in values]
        lines.append(dict(same, cr=1, engine=peer, setting=label, tokens_per_second=statistics.median(rates), spread=spread(rates),
                          peak_rss_bytes=int(statistics.median(rss for _, rss in values))))
    best = max((line["tokens_per_second"] for line in lines), default=None)
    for cr in crs:
        rates = [r["tokens_per_second"] for r in ours[cr]]
        rate = statistics.median(rates)
        middle = min(ours[cr], key=lambda r, rate=rate: abs(r["tokens_per_second"] - rate))
        lines.append(dict(same, cr=cr, engine="dmc", setting=f"KV {middle['kv']}", tokens_per_second=rate, spread=spread(rates),
                          ratio=rate / best if best else None, floor_fraction=middle["floor_fraction"], kv_bytes=middle["kv_bytes"],
                          peak_rss_bytes=int(statistics.median(r["peak_rss_bytes"] for r in ours[cr]))))
    return lines


def write(path, lines):
    with open(path + ".new", "w", newline="", encoding="utf-8") as f:
        out = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        out.writeheader()
        for line in lines:
            out.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in line.items()})
    os.replace(path + ".new", path)


def rows_of_others(path, measured):
    """What stands in the file about work that is not measured now."""
    if not os.path.exists(path):
        return []
    with open(path, newline="", encoding="utf-8") as f:
        return [line for line in csv.DictReader(f) if line["row"] not in measured]


def machine(dmc):
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        names = [line.split(":", 1)[1].strip() for line in f if line.startswith("model name")]
    version = subprocess.run([dmc, "--version"], capture_output=True, text=True, check=True).stdout
    commit = version.split("(")[-1].split(")")[0].strip()
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"machine": names[0] if names else "unknown", "cores": len(names), "commit": commit, "date": date}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("--dmc", "--cache", "--out"):
        parser.add_argument(option, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=FILE")
    parser.add_argument("what", nargs="*", default=["all"])
    o = parser.parse_args()
    o.cache = os.path.abspath(o.cache)
    o.peers = [(name, os.path.abspath(file)) for name, file in (p.split("=", 1) for p in o.peer)]
    chosen = [row for row in rows() if row[0] in o.what or "all" in o.what]
    about, lines = machine(o.dmc), rows_of_others(o.out, {row[0] for row in chosen})
    for row in chosen:
        for line in measure(o, row):
            lines.append(dict(line, **about))
            against = f"{line['ratio']:.2f} x" if line.get("ratio") else ""
            print(f"{line['model']:5} {line['type']:5} {line['work']:8} depth {line['depth']:5} batch {line['batch']:3} CR {line['cr']:<3g} "
                  f"{line['engine'] + ' ' + line['setting']:26} {line['tokens_per_second']:9.1f} tokens/s  {against}", flush=True)
        write(o.out, lines)
    print(f"written: {o.out}")


try:
    main()
except Failed as e:
    sys.exit(f"peers_run.py: {e}")

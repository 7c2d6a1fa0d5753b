#!/usr/bin/env python3
"""Draws training logs (OUT.csv of dmc retrofit) as one SVG: curves.py OUT.svg NAME=LOG.csv...
Left: compression ratio of the batches and its target. Right: loss of the batches, averaged over 10, and held-out loss as dots."""
import csv
import sys

W, H, PAD, GAP = 460, 300, 46, 60
COLORS = ["#2b6cb0", "#c05621", "#2f855a", "#805ad5"]


def read(path):
    with open(path) as f:
        return list(csv.DictReader(f))


def panel(x0, title, xs, lo, hi, lines, dots):
    sx = lambda x: x0 + PAD + (W - PAD - 10) * x / xs
    sy = lambda y: 30 + (H - 60) * (1 - (y - lo) / (hi - lo))
    out = [f'<text x="{x0 + PAD}" y="18" font-weight="bold">{title}</text>']
    for i in range(5):
        y = lo + (hi - lo) * i / 4
        out.append(f'<line x1="{sx(0):.1f}" x2="{sx(xs):.1f}" y1="{sy(y):.1f}" y2="{sy(y):.1f}" stroke="#8884"/>'
                   f'<text x="{x0 + PAD - 6}" y="{sy(y) + 4:.1f}" text-anchor="end">{y:.2f}</text>')
    for i in range(5):
        out.append(f'<text x="{sx(xs * i / 4):.1f}" y="{H - 12}" text-anchor="middle">{xs * i // 4}</text>')
    for color, dash, points in lines:
        path = " ".join(f"{sx(x):.1f},{sy(min(max(y, lo), hi)):.1f}" for x, y in points)
        out.append(f'<polyline fill="none" stroke="{color}" stroke-width="1.6" {dash} points="{path}"/>')
    for color, points in dots:
        out += [f'<circle cx="{sx(x):.1f}" cy="{sy(min(max(y, lo), hi)):.1f}" r="3.5" fill="{color}"/>' for x, y in points]
    return out


def main():
    out, runs = sys.argv[1], [a.split("=", 1) for a in sys.argv[2:]]
    logs = [(name, read(path)) for name, path in runs]
    steps = max(int(rows[-1]["step"]) for _, rows in logs)
    cr, loss, dots, values, top = [], [], [], [], 1.0
    for i, (_, rows) in enumerate(logs):
        c = COLORS[i % len(COLORS)]
        xs, ce = [int(r["step"]) for r in rows], [float(r["ce"]) for r in rows]
        smooth = [(x, sum(ce[max(0, j - 9):j + 1]) / len(ce[max(0, j - 9):j + 1])) for j, x in enumerate(xs)]
        loss.append((c, "", smooth))
        dots.append((c, [(int(r["step"]), float(r["val_ce"])) for r in rows if r["val_ce"]]))
        values += [y for x, y in smooth if x > steps // 20] + [y for _, y in dots[-1][1]]
        if any(float(r["cr_target"]) > 1 for r in rows):
            cr.append((c, "", [(x, float(r["cr"])) for x, r in zip(xs, rows)]))
            cr.append((c, 'stroke-dasharray="4 3"', [(x, float(r["cr_target"])) for x, r in zip(xs, rows)]))
            top = max([top] + [float(r["cr"]) for r in rows])
    body = panel(0, "compression ratio (dashed: target)", steps, 1, top * 1.05, cr, [])
    body += panel(W + GAP, "loss, nats per token (dots: held out, hard decisions)", steps, min(values) * 0.99, max(values) * 1.01, loss, dots)
    for i, (name, _) in enumerate(logs):
        body.append(f'<text x="{PAD + 150 * i}" y="{H + 14}" fill="{COLORS[i % len(COLORS)]}">{name}</text>')
    with open(out, "w") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {2 * W + GAP} {H + 24}" font-family="sans-serif" font-size="12" '
                f'fill="#666">' + "\n".join(body) + "</svg>\n")


main()

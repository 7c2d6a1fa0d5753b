"""Pieces of SVG that the drawings here share."""
import html


def text(x, y, s, extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{html.escape(s)}</text>'


def write(path, body, width, height):
    with open(path, "w", encoding="utf-8") as f:
        f.write(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12" fill="#666">'
                + "\n".join(body) + "</svg>\n")

# SPDX-License-Identifier: MIT
"""Two kinds of plots as SVG: lines over logarithmic axes, and bars of shares."""

import html
import math

COLOURS = ("#1f6feb", "#d1242f", "#8250df", "#bf8700", "#1a7f37", "#57606a")
STYLE = "font-family='sans-serif' font-size='12' fill='#24292f'"


def svg(width, height, parts):
    return "\n".join((
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' "
        f"viewBox='0 0 {width} {height}'>",
        f"<rect width='{width}' height='{height}' fill='white'/>", *parts, "</svg>", ""))


def text(x, y, words, anchor="middle", extra=""):
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' {STYLE} {extra}>" \
           f"{html.escape(words)}</text>"


def line(x1, y1, x2, y2, colour="#d0d7de", width=1):
    return f"<line x1='{x1:.1f}' y1='{y1:.1f}' x2='{x2:.1f}' y2='{y2:.1f}' " \
           f"stroke='{colour}' stroke-width='{width}'/>"


def decades(values):
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def power(exponent):
    return f"{10.0 ** exponent:,.0f}" if exponent >= 0 else f"{10.0 ** exponent:g}"


def lines(title, x_label, y_label, series):
    """`series`: name -> points (x, y), all positive."""
    width, height, left, right, top, bottom = 640, 400, 80, 150, 36, 50
    points = [point for all_of_one in series.values() for point in all_of_one]
    (x_low, x_high), (y_low, y_high) = (decades([p[i] for p in points]) for i in (0, 1))

    def place(x, y):
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return left + across * (width - left - right), height - bottom - up * (height - top - bottom)

    parts = [text(left, 22, title, "start", "font-weight='bold'")]
    for i in range(x_low, x_high + 1):
        x, y = place(10.0**i, 10.0**y_low)
        parts += [line(x, y, x, top), text(x, y + 16, power(i))]
    for i in range(y_low, y_high + 1):
        x, y = place(10.0**x_low, 10.0**i)
        parts += [line(x, y, width - right, y), text(x - 6, y + 4, power(i), "end")]
    parts.append(text((left + width - right) / 2, height - 12, x_label))
    middle = (top + height - bottom) / 2
    parts.append(text(16, middle, y_label, extra=f"transform='rotate(-90 16 {middle})'"))
    for n, (name, all_of_one) in enumerate(series.items()):
        colour = COLOURS[n % len(COLOURS)]
        places = [place(*point) for point in sorted(all_of_one)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='2'/>")
        parts += [f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{colour}'/>" for x, y in places]
        y = top + 10 + 18 * n
        parts += [line(width - right + 12, y - 4, width - right + 32, y - 4, colour, 2),
                  text(width - right + 38, y, name, "start")]
    return svg(width, height, parts)


def bars(title, shares):
    """`shares`: (name, share) each; the line is at 1."""
    left, step, top, right = 290, 20, 56, 60
    width, height = 720, top + step * len(shares) + 14
    most = max(1.1, *(share for _, share in shares))
    scale = (width - left - right) / most
    bottom = height - 10
    parts = [text(12, 22, title, "start", "font-weight='bold'")]
    for tick in (0, 0.25, 0.5, 0.75, 1):
        x = left + tick * scale
        parts += [line(x, top - 8, x, bottom, "#57606a" if tick == 1 else "#d0d7de"),
                  text(x, top - 12, f"{tick:g}")]
    for n, (name, share) in enumerate(shares):
        y = top + step * n
        parts.append(f"<rect x='{left}' y='{y}' width='{share * scale:.1f}' height='{step - 6}' "
                     f"fill='{COLOURS[0]}'/>")
        parts += [text(left - 8, y + 11, name, "end"),
                  text(left + share * scale + 5, y + 11, f"{share:.2f}", "start",
                       "stroke='white' stroke-width='3' paint-order='stroke'")]
    return svg(width, height, parts)

"""The chart of `live`: an anywidget, drawn on a canvas, with no library in the browser."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .telemetry import Live


def chart(live: "Live") -> Any:  # noqa: ANN401 - anywidget is optional
    """A widget that follows `live`, or `None` where anywidget is not installed."""
    try:
        import anywidget  # noqa: PLC0415 - optional
        import traitlets  # noqa: PLC0415 - comes with anywidget
    except ImportError:
        return None
    global _widget  # noqa: PLW0603 - the class is made when anywidget is there
    if _widget is None:
        members = {
            "_esm": _SCRIPT,
            "_css": _STYLE,
            "lines": traitlets.Unicode("[]").tag(sync=True),
            "headline": traitlets.Unicode("").tag(sync=True),
        }
        _widget = type("LiveChart", (anywidget.AnyWidget,), members)
    widget = _widget()
    _redraw(live, widget)
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return widget
    follower = loop.create_task(_follow(live, widget))
    _followers.add(follower)
    follower.add_done_callback(_followers.discard)
    return widget


async def _follow(live: "Live", widget: Any) -> None:  # noqa: ANN401 - a widget
    """Redraw while there is something new."""
    seen = -1
    while True:
        progress = live.progress
        if progress["messages"] != seen:
            seen = progress["messages"]
            _redraw(live, widget)
        if progress["done"]:
            return
        await asyncio.sleep(_REDRAW_INTERVAL)


def _redraw(live: "Live", widget: Any) -> None:  # noqa: ANN401 - a widget
    lines, headline = live.table().series(_POINTS_MAX)
    widget.lines = json.dumps(lines)
    widget.headline = headline


_widget: Any = None
_followers: set[asyncio.Task[None]] = set()

# Ten times a second looks like motion, and costs a notebook little.
_REDRAW_INTERVAL = 0.1

# Points of a line: about one for each pixel.
_POINTS_MAX = 500

_SCRIPT = """
const COLOURS = ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5", "#9c6b4e"];

function render({ model, el }) {
  const head = document.createElement("div");
  const canvas = document.createElement("canvas");
  const key = document.createElement("div");
  head.className = "ferromq-head";
  key.className = "ferromq-key";
  el.classList.add("ferromq-chart");
  el.append(head, canvas, key);

  function draw() {
    const lines = JSON.parse(model.get("lines"));
    head.textContent = model.get("headline");
    const scale = window.devicePixelRatio || 1;
    const width = el.clientWidth || 640, height = 240;
    canvas.width = width * scale;
    canvas.height = height * scale;
    canvas.style.width = width + "px";
    canvas.style.height = height + "px";
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const all = lines.flatMap((line) => line.points);
    if (all.length === 0) return;
    let [left, right, low, high] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const [time, value] of all) {
      left = Math.min(left, time); right = Math.max(right, time);
      low = Math.min(low, value); high = Math.max(high, value);
    }
    if (high === low) { high += 1; low -= 1; }
    if (right === left) right += 1;
    const x = (time) => 48 + (time - left) / (right - left) * (width - 56);
    const y = (value) => height - 20 - (value - low) / (high - low) * (height - 32);
    const ink = getComputedStyle(el).color;
    pen.fillStyle = ink; pen.strokeStyle = ink; pen.font = "11px sans-serif";
    pen.globalAlpha = 0.7;
    for (let tick = 0; tick <= 4; tick++) {
      const value = low + (high - low) * tick / 4;
      pen.fillText(Number(value.toPrecision(4)), 4, y(value) + 3);
    }
    pen.fillText(new Date(left).toLocaleTimeString(), 48, height - 4);
    const end = new Date(right).toLocaleTimeString();
    pen.fillText(end, width - 8 - pen.measureText(end).width, height - 4);
    pen.globalAlpha = 1;
    pen.lineWidth = 1.5;
    lines.forEach((line, at) => {
      pen.strokeStyle = COLOURS[at % COLOURS.length];
      pen.beginPath();
      line.points.forEach(([time, value], n) => n ? pen.lineTo(x(time), y(value)) : pen.moveTo(x(time), y(value)));
      pen.stroke();
    });
    key.replaceChildren(...lines.map((line, at) => {
      const item = document.createElement("span");
      const last = line.points.length ? line.points[line.points.length - 1][1] : "";
      item.textContent = line.topic + " " + Number(Number(last).toPrecision(5));
      item.style.borderColor = COLOURS[at % COLOURS.length];
      return item;
    }));
  }

  model.on("change:lines", draw);
  const watcher = new ResizeObserver(draw);
  watcher.observe(el);
  draw();
  return () => { watcher.disconnect(); model.off("change:lines", draw); };
}

export default { render };
"""

_STYLE = """
.ferromq-chart { font: 12px sans-serif; }
.ferromq-key span { display: inline-block; margin: 2px 12px 2px 0; padding-left: 6px; border-left: 12px solid; }
"""

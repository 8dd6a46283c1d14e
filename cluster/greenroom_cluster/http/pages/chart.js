// A line over the last five minutes. What it says is in its caption too, for those who do not see it.

const SECONDS = 300;
const HEIGHT = 60;
const GAP_SECONDS = 5;
const SVG = "http://www.w3.org/2000/svg";

/** Return the path of a line through points of (seconds ago, value); it breaks where nothing is known. */
function pathOf(points, most) {
  let path = "";
  let before = null;
  for (const [ago, value] of points) {
    if (value === null) {
      before = null;
      continue;
    }
    const joined = before !== null && before - ago <= GAP_SECONDS;
    const x = (SECONDS - ago).toFixed(1);
    const y = (HEIGHT - 2 - (value / most) * (HEIGHT - 6)).toFixed(1);
    path += `${joined ? "L" : "M"}${x} ${y}`;
    before = ago;
  }
  return path;
}

function lineIn(figure) {
  const there = figure.querySelector("path");
  if (there) return there;
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("viewBox", `0 0 ${SECONDS} ${HEIGHT}`);
  drawing.setAttribute("preserveAspectRatio", "none");
  drawing.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("vector-effect", "non-scaling-stroke");
  drawing.append(line);
  figure.append(drawing);
  return line;
}

/** Show values of points (`at` in milliseconds) up to now, with a caption made of the last and the largest. */
export function showChart(figure, points, now, valueOf, captionOf) {
  const values = points.map((point) => [(now - point.time) / 1000, valueOf(point)]);
  const known = values.map(([, value]) => value).filter((value) => value !== null);
  const most = Math.max(...known, 0);
  lineIn(figure).setAttribute("d", pathOf(values, most || 1));
  const caption = figure.querySelector("figcaption");
  const text = known.length ? captionOf(known.at(-1), most) : captionOf(null, null);
  if (caption.textContent !== text) caption.textContent = text;
}

// A minute of values as a line: newest at the right, zero at the bottom.

const NAMESPACE = "http://www.w3.org/2000/svg";
const POINTS = 60;
const WIDTH = POINTS - 1;
const HEIGHT = 40;

export function draw(svg, values) {
  if (!svg.firstChild) prepare(svg);
  const [area, , line] = svg.children;
  const top = Math.max(...values, 1e-9);
  const points = values.map((value, index) => {
    const x = WIDTH - (values.length - 1 - index);
    return `${x} ${(HEIGHT * (1 - value / top)).toFixed(2)}`;
  });
  const first = WIDTH - (values.length - 1);
  line.setAttribute("d", points.length > 1 ? `M${points.join("L")}` : "");
  area.setAttribute("d", points.length > 1 ? `M${first} ${HEIGHT}L${points.join("L")}L${WIDTH} ${HEIGHT}Z` : "");
}

function prepare(svg) {
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  for (const kind of ["area", "base", "line"]) {
    const path = document.createElementNS(NAMESPACE, "path");
    path.setAttribute("class", kind);
    svg.append(path);
  }
  svg.children[1].setAttribute("d", `M0 ${HEIGHT}H${WIDTH}`);
}

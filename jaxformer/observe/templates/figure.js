// What the charts of a sweep are drawn with: elements, scales, axes; how one trial is shown in all, and some are chosen.
// Every text becomes a text node: nothing in the data is read as HTML.

const data = JSON.parse(document.getElementById("data").textContent);
const page = document.querySelector("main"), tip = document.getElementById("tip");
const known = data.trials.filter((trial) => trial.value !== null);
const many = known.length > 150;
const marks = new Map(data.trials.map((trial) => [trial.trial, []]));  // number of a trial -> its elements
for (const row of document.querySelectorAll("tr[data-trial]")) marks.get(+row.dataset.trial).push(row);

const number = (value) => {
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(2).replace(/\.?0+e/, "e").replace("e+", "e");
  return size >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
};
const short = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);

function add(parent, name, attributes = {}, text = null) {
  const made = parent.appendChild(document.createElementNS("http://www.w3.org/2000/svg", name));
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

// An element that belongs to a trial: the better its place, the bluer; the best is orange.
function mark(parent, trial, name, kind, attributes) {
  const made = add(parent, name, attributes), place = trial.place ?? known.length;  // none: no value, or a failure
  const share = known.length > 1 ? 1 - (place - 1) / (known.length - 1) : 1;
  made.setAttribute("class", `mark ${kind} ${trial.status} ${trial.place === 1 ? "best" : ""}`);
  made.style.setProperty("--share", `${Math.round(100 * share)}%`);
  if (many && trial.place !== 1) made.classList.add("faint");
  marks.get(trial.trial).push(made);
  return made;
}

function drawing(element, width, height) {
  return add(element, "svg", {viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": element.dataset.says});
}

// Scales: where a value lies between two places, and the ticks with their labels.

function scale({kind, values}, from, to, count = 5) {
  if (kind === "choice") {
    const at = (index) => from + ((to - from) * (index + 0.5)) / values.length;
    return {at, ticks: values.map((label, index) => ({at: at(index), label: short(label, 16)}))};
  }
  const bend = kind === "log" ? Math.log10 : (value) => value;
  let [low, high] = values.map(bend);
  if (low === high) [low, high] = [low - 0.5, high + 0.5];
  const at = (value) => from + ((to - from) * (bend(value) - low)) / (high - low);
  const ticks = (kind === "log" ? decades(low, high) : steps(low, high, kind === "integer", count));
  return {at, ticks: ticks.map((value) => ({at: at(value), label: number(value)}))};
}

function steps(low, high, whole, count) {
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max([1, 2, 5, 10].find((each) => each * power >= rough) * power, whole ? 1 : 0);
  const found = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + 1e-9 * step; index++) found.push(index * step);
  return found;
}

function decades(low, high) {
  const within = (value) => Math.log10(value) >= low - 1e-9 && Math.log10(value) <= high + 1e-9, found = [];
  const inner = high - low > 2 ? [1] : high - low > 1 ? [1, 3] : [1, 2, 5], every = Math.ceil((high - low) / 6);
  for (let power = Math.floor(low); power <= high; power += every) found.push(...inner.map((each) => each * 10 ** power));
  return found.filter(within);
}

// The axis of the metric: logarithmic where values are positive and span more than two decades.
function metricAxis(values) {
  const low = Math.min(...values), high = Math.max(...values);
  if (low > 0 && high > 100 * low) return {kind: "log", values: [low / 1.15, high * 1.15]};
  const around = 0.05 * (high - low || Math.abs(high) || 1);
  return {kind: "uniform", values: [low - around, high + around]};
}

function frame(svg, x, y, [left, top, right, bottom], over, title) {
  for (const tick of y.ticks) {
    add(svg, "line", {class: "rule", x1: left, x2: right, y1: tick.at, y2: tick.at});
    add(svg, "text", {x: left - 8, y: tick.at + 4, "text-anchor": "end"}, tick.label);
  }
  const most = Math.floor((right - left) / Math.max(x.ticks.length, 1) / 7);
  for (const tick of x.ticks) {
    add(svg, "text", {x: tick.at, y: bottom + 17, "text-anchor": "middle"}, short(tick.label, Math.max(most, 3)));
  }
  add(svg, "line", {class: "axis", x1: left, x2: right, y1: bottom, y2: bottom});
  add(svg, "text", {x: (left + right) / 2, y: bottom + 35, "text-anchor": "middle"}, over);
  add(svg, "text", {class: "title", x: left - 8, y: top - 12}, title);
}

function dot(svg, trial, [x, y], radius) {
  const r = trial.place === 1 ? radius + 1.5 : many ? radius - 1.3 : radius;
  return mark(svg, trial, "circle", "dot-mark", {cx: x, cy: y, r});
}

function cross(svg, trial, [x, y]) {
  return mark(svg, trial, "path", "cross", {d: `M${x - 3.5} ${y - 3.5}l7 7m0-7l-7 7`});
}

const path = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
const worstFirst = [...data.trials].reverse(), knownFirst = worstFirst.filter((trial) => trial.value !== null);

// One trial in all charts and in the table

function show(trial, event) {
  for (const each of page.querySelectorAll(".on")) each.classList.remove("on");
  page.classList.toggle("focus", trial !== null);
  tip.hidden = trial === null;
  if (trial === null) return;
  for (const each of marks.get(trial.trial)) each.classList.add("on");
  tip.replaceChildren();
  const lines = [`trial ${trial.trial}, ${trial.status}`];
  const around = trial.deviation === null ? "" : ` ± ${number(trial.deviation)}`;
  if (trial.value !== null) lines.push(`${data.metric} ${number(trial.value)}${around}`);
  data.others.forEach((name, index) => {
    if (trial.others[index] !== null) lines.push(`${name} ${number(trial.others[index])}`);
  });
  data.axes.forEach((axis, index) => {
    const value = trial.values[index];
    if (value === null) return;
    lines.push(`${axis.label} ${axis.kind === "choice" ? short(axis.values[value], 40) : number(value)}`);
  });
  for (const line of lines) tip.appendChild(document.createElement("div")).textContent = line;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
}

// Shows the trial that `distance(trial, x, y)` says is nearest to the pointer, if it is near.
function hovering(svg, distance) {
  svg.addEventListener("pointerleave", () => show(null));
  svg.addEventListener("pointermove", (event) => {
    const box = svg.getBoundingClientRect(), ratio = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * ratio, y = (event.clientY - box.top) * ratio;
    let best = null, least = 18;
    for (const trial of data.trials) {
      const far = isOut(trial) ? Infinity : distance(trial, x, y);
      if (far < least) [best, least] = [trial, far];
    }
    show(best, event);
  });
}

const away = (place, x, y) => (place ? Math.hypot(x - place[0], y - place[1]) : Infinity);

// How far a point is above or below a line of points.
function beside(points, x, y) {
  for (let index = 1; index < points.length; index++) {
    const [[x0, y0], [x1, y1]] = [points[index - 1], points[index]];
    if (x >= x0 && x <= x1) return Math.abs(y - (y0 + ((y1 - y0) * (x - x0)) / (x1 - x0 || 1)));
  }
  return away(points.at(-1), x, y);
}

// Choosing trials on the axes of the parameters

const chosen = new Map();  // axis -> whether a trial is chosen there
const again = document.querySelector(".again");
const isOut = (trial) => [...chosen.values()].some((takes) => !takes(trial));

function choose() {
  for (const trial of data.trials) for (const each of marks.get(trial.trial)) each.classList.toggle("out", isOut(trial));
  again.hidden = !chosen.size;
  again.textContent = `${known.filter((trial) => !isOut(trial)).length} of ${known.length} trials; show all`;
}

function brushing(svg, index, at, top, bottom, placed) {
  const brush = add(svg, "rect", {class: "brush", x: at - 7, width: 14, y: 0, height: 0});
  const grip = add(svg, "rect", {class: "grip", x: at - 14, width: 28, y: top - 8, height: bottom - top + 16});
  const height = (event) => {
    const box = svg.getBoundingClientRect();
    return Math.min(Math.max(((event.clientY - box.top) * svg.viewBox.baseVal.width) / box.width, top - 8), bottom + 8);
  };
  let from = null;
  const clear = () => { brush.setAttribute("height", 0); chosen.delete(index); };
  grip.addEventListener("pointerdown", (event) => {
    from = height(event);
    grip.setPointerCapture(event.pointerId);
    clear();
    choose();
  });
  grip.addEventListener("pointerup", () => { from = null; });
  grip.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const [low, high] = [from, height(event)].sort((a, b) => a - b);
    brush.setAttribute("y", low);
    brush.setAttribute("height", high - low);
    chosen.set(index, (trial) => placed(trial) !== null && placed(trial) >= low && placed(trial) <= high);
    choose();
  });
  again.addEventListener("click", () => { clear(); choose(); });
}

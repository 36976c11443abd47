// The charts of a sweep, and the table whose rows can be sorted; figure.js has what they are drawn with.

// The charts, by the name in data-chart

const charts = {
  learning(element) {
    const drawn = worstFirst.filter((trial) => trial.curve.length);
    const box = [58, 30, 1165, 330], [left, top, right, bottom] = box, svg = drawing(element, 1180, 375);
    const all = drawn.flatMap((trial) => trial.curve);
    const x = scale({kind: "integer", values: [0, Math.max(...all.map((point) => point[0]))]}, left, right, 8);
    const y = scale(metricAxis(all.map((point) => point[1])), bottom, top, 6), places = new Map();
    frame(svg, x, y, box, "step", data.metric);
    for (const trial of drawn) {
      const points = trial.curve.map(([step, value]) => [x.at(step), y.at(value)]);
      places.set(trial, points);
      mark(svg, trial, "path", "line", {d: path(points)});
      if (trial.status === "failed") cross(svg, trial, points.at(-1));
      else dot(svg, trial, points.at(-1), 3.5);
    }
    hovering(svg, (trial, px, py) => beside(places.get(trial) ?? [], px, py));
  },

  parallel(element) {
    const axes = [...data.axes, {...metricAxis(known.map((trial) => trial.value)), label: data.metric}];
    const svg = drawing(element, 1180, 380), [top, bottom] = [46, 345];
    const without = bottom + 22;  // where lines of trials go that lack a parameter
    const letters = Math.floor(165 / Math.max(axes.length - 1, 4));
    const place = (index) => 70 + (1040 * index) / Math.max(axes.length - 1, 1);
    const scales = axes.map((axis) => scale(axis, bottom, top, 5)), lines = new Map();
    for (const trial of knownFirst) {
      const at = (value, index) => [place(index), value === null ? without : scales[index].at(value)];
      const points = (trial.value === null ? trial.values : [...trial.values, trial.value]).map(at);
      lines.set(trial, points);
      mark(svg, trial, "path", "line whole", {d: path(points)});
    }
    axes.forEach((axis, index) => {
      const at = place(index), last = index === axes.length - 1;
      add(svg, "line", {class: "axis", x1: at, x2: at, y1: top, y2: bottom});
      add(svg, "text", {class: "title", x: at, y: 22, "text-anchor": "middle"}, short(axis.label, letters));
      for (const tick of scales[index].ticks) {
        add(svg, "line", {class: "axis", x1: at - 4, x2: at, y1: tick.at, y2: tick.at});
        const beside = {x: last ? at + 9 : at - 9, y: tick.at + 4, "text-anchor": last ? "start" : "end"};
        add(svg, "text", {class: "over-lines", ...beside}, tick.label);
      }
      if (knownFirst.some((trial) => trial.values[index] === null)) {
        add(svg, "text", {class: "over-lines", x: at - 9, y: without + 4, "text-anchor": "end"}, "none");
      }
      brushing(svg, index, at, top, bottom, (trial) => {
        const value = index < trial.values.length ? trial.values[index] : trial.value;
        return value === null ? null : scales[index].at(value);
      });
    });
    hovering(svg, (trial, px, py) => beside(lines.get(trial) ?? [], px, py));
  },

  slice(element) {
    const index = +element.dataset.axis, axis = data.axes[index];
    const box = [52, 30, 352, 196], [left, top, right, bottom] = box;
    const svg = drawing(element, 365, 240), x = scale(axis, left + 8, right - 8);
    const y = scale(metricAxis(known.map((trial) => trial.value)), bottom, top), places = new Map();
    frame(svg, x, y, box, axis.label, data.metric);
    for (const trial of knownFirst) {
      if (trial.values[index] === null) continue;
      const spread = axis.kind === "choice" || axis.kind === "integer" ? ((trial.trial * 0.618) % 1 - 0.5) * 14 : 0;
      const point = [x.at(trial.values[index]) + spread, y.at(trial.value)];
      places.set(trial, point);
      dot(svg, trial, point, 4);
    }
    for (const trial of data.trials) {
      if (trial.status !== "failed" || trial.values[index] === null) continue;
      const point = [x.at(trial.values[index]), bottom - 6];
      places.set(trial, point);
      cross(svg, trial, point);
    }
    hovering(svg, (trial, px, py) => away(places.get(trial), px, py));
  },

  front(element) {
    const index = +element.dataset.axis, box = [52, 30, 352, 196], [left, top, right, bottom] = box, places = new Map();
    const drawn = knownFirst.filter((trial) => trial.others[index] !== null), svg = drawing(element, 365, 240);
    const x = scale(metricAxis(drawn.map((trial) => trial.others[index])), left, right);
    const y = scale(metricAxis(drawn.map((trial) => trial.value)), bottom, top);
    frame(svg, x, y, box, data.others[index], data.metric);
    for (const trial of drawn) places.set(trial, [x.at(trial.others[index]), y.at(trial.value)]);
    const front = drawn.filter((trial) => data.front.includes(trial.trial));
    const points = front.map((trial) => places.get(trial));
    const stairs = points.flatMap((to, step) => (step ? [[to[0], points[step - 1][1]], to] : [to]));
    if (data.others.length === 1) add(svg, "path", {class: "front", d: path(stairs)});
    for (const trial of drawn) {
      dot(svg, trial, places.get(trial), 4).classList.toggle("fronted", front.includes(trial));
    }
    hovering(svg, (trial, px, py) => away(places.get(trial), px, py));
  },

  spread(element) {
    const trials = new Map(data.trials.map((trial) => [trial.trial, trial])), height = 26, rows = new Map();
    const [left, top, right] = [90, 14, 1160], bottom = top + height * data.spread.length;
    const svg = drawing(element, 1180, bottom + 44);
    const x = scale(metricAxis(data.spread.flatMap((each) => each.seeds)), left, right, 8);
    for (const tick of x.ticks) {
      add(svg, "line", {class: "rule", x1: tick.at, x2: tick.at, y1: top, y2: bottom});
      add(svg, "text", {x: tick.at, y: bottom + 17, "text-anchor": "middle"}, tick.label);
    }
    add(svg, "text", {x: (left + right) / 2, y: bottom + 36, "text-anchor": "middle"}, data.metric);
    const inside = (value) => Math.min(Math.max(value, left - 6), right + 6);
    data.spread.forEach((each, index) => {
      const trial = trials.get(each.trial), y = top + height * (index + 0.5);
      const [low, high] = each.interval.map(x.at).map(inside);
      rows.set(trial, y);
      add(svg, "text", {x: left - 22, y: y + 4, "text-anchor": "end"}, `trial ${each.trial}`);
      mark(svg, trial, "line", "interval", {x1: low, x2: high, y1: y, y2: y});
      mark(svg, trial, "line", "mean", {x1: x.at(each.value), x2: x.at(each.value), y1: y - 8, y2: y + 8});
      for (const seed of each.seeds) dot(svg, trial, [x.at(seed), y], 4.5);
    });
    hovering(svg, (trial, px, py) => (rows.has(trial) ? Math.abs(py - rows.get(trial)) : Infinity));
  },
};

for (const element of document.querySelectorAll("[data-chart]")) charts[element.dataset.chart](element);

// Rows in another order: numbers by size, texts by letter, what is empty last

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const each of heads) each.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
      const compare = (a, b) => {
        const [one, other] = [key(a), key(b)];
        if (one === "" || other === "") return (one === "") - (other === "");
        return (up ? 1 : -1) * (isNaN(one) || isNaN(other) ? one.localeCompare(other) : one - other);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}

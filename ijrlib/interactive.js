// Draws the figures of ijrlib.interactive: plain SVG with sliders; no library, no network.
// Each figure is a <figure data-ijr-look="KIND"> that holds its numbers as JSON.
(() => {
  const VIRIDIS = ["#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39", "#fde725"];
  const IMPURITY = "λ⁽¹⁾";
  const gini = (p) => 2 * p * (1 - p);

  // -- pieces of a page ---------------------------------------------------------------------------

  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const html = (name, attributes = {}, ...children) =>
    fill(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

  const slider = (label, attributes, changed) => {
    const input = html("input", { type: "range", "aria-label": label, ...attributes });
    const value = html("output");
    input.addEventListener("input", changed);
    return { input, value, row: html("label", { class: "ijr-row" }, html("span", {}, label), input, value) };
  };

  const table = (head, rows) => {
    const cells = (name, row) => row.map((cell) => html(name, name === "th" ? { scope: "col" } : {}, cell));
    return [
      html("thead", {}, html("tr", {}, ...cells("th", head))),
      html("tbody", {}, ...rows.map((row) => html("tr", {}, ...cells("td", row)))),
    ];
  };

  const ticks = (low, high, count = 8) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const first = Math.ceil(low / step);
    return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
  };

  // A plot of a fixed size in its own units; `plane` is redrawn, the frame stays until `range`.
  const plot = (description, xlabel, ylabel, { numbers = true } = {}) => {
    const [width, height, left, bottom] = [640, 380, numbers ? 62 : 30, numbers ? 50 : 30];
    const plane = svg("g");
    const frame = svg("g");
    const clip = `ijr-clip-${Math.random().toString(36).slice(2)}`;
    const box = { x: left, y: 24, width: width - left - 10, height: height - bottom - 24 };
    const page = svg(
      "svg",
      { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description },
      svg("clipPath", { id: clip }, svg("rect", box)),
      frame,
      svg("g", { "clip-path": `url(#${clip})` }, plane),
    );
    const self = { page, plane, x: null, y: null, box };
    self.range = ([x0, x1], [y0, y1]) => {
      self.x = (x) => box.x + ((x - x0) / (x1 - x0)) * box.width;
      self.y = (y) => box.y + ((y1 - y) / (y1 - y0)) * box.height;
      const text = (content, x, y, rest = {}) =>
        svg("text", { x, y, "text-anchor": "middle", ...rest }, content);
      const middle = box.y + box.height / 2;
      frame.replaceChildren(
        svg("rect", { ...box, class: "ijr-frame" }),
        text(xlabel, box.x + box.width / 2, height - 8),
        text(ylabel, 14, middle, { transform: `rotate(-90 14 ${middle})` }),
      );
      if (!numbers) return;
      const show = (value) => String(Number(value.toPrecision(6)));
      for (const value of ticks(x0, x1)) frame.append(text(show(value), self.x(value), box.y + box.height + 17));
      for (const value of ticks(y0, y1)) {
        frame.append(text(show(value), box.x - 7, self.y(value) + 5, { "text-anchor": "end" }));
      }
    };
    self.line = (points, attributes) => {
      const path = points.map(([x, y], i) => `${i ? "L" : "M"}${self.x(x).toFixed(2)} ${self.y(y).toFixed(2)}`);
      return svg("path", { d: path.join(""), fill: "none", ...attributes });
    };
    self.dot = (x, y, attributes) =>
      svg("circle", { cx: self.x(x).toFixed(2), cy: self.y(y).toFixed(2), r: 4, ...attributes });
    self.vertical = (x, attributes) =>
      svg("line", { x1: self.x(x), x2: self.x(x), y1: box.y, y2: box.y + box.height, ...attributes });
    return self;
  };

  const color = (part) => {
    const place = Math.min(Math.max(part, 0), 1) * (VIRIDIS.length - 1);
    const [low, high] = [Math.floor(place), Math.ceil(place)].map((i) =>
      [1, 3, 5].map((at) => parseInt(VIRIDIS[i].slice(at, at + 2), 16)),
    );
    return `rgb(${low.map((value, i) => Math.round(value + (place % 1) * (high[i] - value))).join(",")})`;
  };

  const scale = (steps) =>
    html("div", { class: "ijr-row" },
      html("span", {}, `step ${steps[0]}`),
      html("div", { class: "ijr-scale", style: `background:linear-gradient(to right,${VIRIDIS})` }),
      html("output", {}, `step ${steps.at(-1)}`));

  // -- Figure 1: the secular function --------------------------------------------------------------

  // Eigenvalues of diag(p) − ppᵀ for positive p, descending: p_(i) once less than it occurs, the
  // root of Σ p_i/(p_i − λ) in each gap by bisection, and 0.
  const eigenvalues = (p) => {
    const poles = [...new Set(p)].sort((a, b) => b - a);
    const found = [0];
    poles.forEach((high, i) => {
      const times = p.filter((value) => value === high).length;
      for (let n = 1; n < times; n++) found.push(high);
      if (i + 1 === poles.length) return;
      let [below, above] = [poles[i + 1], high];
      for (let n = 0; n < 80; n++) {
        const middle = (below + above) / 2;
        if (middle === below || middle === above) break;
        if (p.reduce((sum, value) => sum + value / (value - middle), 0) < 0) below = middle;
        else above = middle;
      }
      found.push((below + above) / 2);
    });
    return found.sort((a, b) => b - a);
  };

  const secular = (figure, { p }) => {
    const presets = {
      "as in the figure": p,
      "nearly undecided": p.map((_, i) => 1 - 0.05 * i),
      "two classes": p.map((_, i) => (i < 2 ? 1 : 0.02)),
      confident: p.map((_, i) => (i ? 0.02 : 1)),
    };
    const drawing = plot("Secular function of the chosen probabilities", "λ", "v(λ)");
    const numbers = html("table", { "aria-live": "polite" });
    const sliders = p.map((_, i) =>
      slider(`weight ${i + 1}`, { min: 0.01, max: 1, step: "any" }, () => draw()),
    );
    const set = (weights) => {
      const most = Math.max(...weights);
      sliders.forEach(({ input }, i) => (input.value = weights[i] / most));
      draw();
    };
    const buttons = Object.entries(presets).map(([name, weights]) => {
      const button = html("button", { type: "button" }, name);
      button.addEventListener("click", () => set(weights));
      return button;
    });

    const draw = () => {
      const weights = sliders.map(({ input }) => Number(input.value));
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      const chosen = weights.map((weight) => weight / total);
      sliders.forEach(({ value }, i) => (value.textContent = `p = ${chosen[i].toFixed(3)}`));
      const sorted = [...chosen].sort((a, b) => b - a);
      const roots = eigenvalues(chosen);
      const [lower, upper] = [gini(sorted[0]) / 2, Math.min(sorted[0], gini(sorted[0]))];
      const v = (x) => 1 - chosen.reduce((sum, value) => sum + (value * value) / (value - x), 0);

      const poles = [...new Set(sorted)].reverse();
      const edges = [-0.12 * sorted[0], ...poles, 1.4 * sorted[0]];
      drawing.range([edges[0], edges.at(-1)], [-3, 3]);
      const parts = [
        svg("rect", {
          x: drawing.x(lower), width: drawing.x(upper) - drawing.x(lower), y: drawing.box.y,
          height: drawing.box.height, class: "ijr-band",
        }),
        drawing.line([[edges[0], 0], [edges.at(-1), 0]], { class: "ijr-thin" }),
        ...poles.map((x) => drawing.vertical(x, { class: "ijr-pole" })),
      ];
      edges.slice(1).forEach((right, i) => {
        const left = edges[i];
        const points = Array.from({ length: 399 }, (_, n) => {
          const x = left + (right - left) * (0.5 - 0.5 * Math.cos((Math.PI * (n + 1)) / 400));
          return [x, Math.min(Math.max(v(x), -9), 9)];
        });
        parts.push(drawing.line(points, { class: "ijr-curve" }));
      });
      parts.push(...roots.map((x) => drawing.dot(x, 0, { class: "ijr-root" })));
      drawing.plane.replaceChildren(...parts);
      numbers.replaceChildren(
        ...table(
          ["i", "p₍ᵢ₎", "λ⁽ⁱ⁾"],
          sorted.map((value, i) => [String(i + 1), value.toFixed(6), roots[i].toFixed(6)]),
        ),
        html("caption", {},
          `½ Gini ${lower.toFixed(4)} ≤ ${IMPURITY} ${roots[0].toFixed(4)} ≤ min{p, Gini} ${upper.toFixed(4)}`),
      );
    };
    figure.append(
      drawing.page,
      html("div", { class: "ijr-buttons" }, ...buttons),
      html("div", { class: "ijr-columns" }, html("div", {}, ...sliders.map(({ row }) => row)), numbers),
    );
    set(p);
  };

  // -- Figure 2: the path of an example ------------------------------------------------------------

  const impurity = (figure, { steps, p1, impurity: values, typical }) => {
    const drawing = plot("Path of one example between the bounds of Theorem 1", "p₍₁₎", IMPURITY);
    drawing.range([0, 1], [0, 0.53]);
    const example = slider("example", { min: 1, max: p1.length, step: 1, value: typical + 1 }, () => draw());
    const time = slider("step", { min: 0, max: steps.length - 1, step: 1, value: 0 }, () => mark());
    const numbers = html("p", { "aria-live": "polite", class: "ijr-numbers" });
    const grid = Array.from({ length: 201 }, (_, i) => i / 200);
    const bounds = [
      drawing.line(grid.map((x) => [x, Math.min(x, gini(x))]), { class: "ijr-upper" }),
      drawing.line(grid.map((x) => [x, gini(x) / 2]), { class: "ijr-lower" }),
    ];
    const now = svg("g");
    const at = () => [p1, values].map((all) => all[example.input.value - 1][time.input.value] / 1000);
    const mark = () => {
      const [x, y] = at();
      const step = steps[time.input.value];
      time.value.textContent = step;
      now.replaceChildren(drawing.dot(x, y, { r: 8, class: "ijr-now" }));
      numbers.textContent =
        `step ${step}: p₍₁₎ = ${x.toFixed(3)}, ${IMPURITY} = ${y.toFixed(3)}; bounds ` +
        `${(gini(x) / 2).toFixed(3)} and ${Math.min(x, gini(x)).toFixed(3)}`;
    };
    const draw = () => {
      const index = example.input.value - 1;
      example.value.textContent = `${index + 1} of ${p1.length}${index === typical ? ", the typical one" : ""}`;
      const dots = steps.map((step, t) =>
        drawing.dot(p1[index][t] / 1000, values[index][t] / 1000, { r: 2.5, class: "ijr-dot", fill: color(step / steps.at(-1)) }),
      );
      drawing.plane.replaceChildren(...bounds, ...dots, now);
      mark();
    };
    figure.append(drawing.page, scale(steps), example.row, time.row, numbers);
    draw();
  };

  // -- Figure 4: the path of gradient descent ------------------------------------------------------

  const trajectory = (figure, { steps, points, sharpness, threshold, onset, cosines }) => {
    const drawing = plot("UMAP of the training path", "UMAP 1", "UMAP 2", { numbers: false });
    const reach = (axis) => {
      const values = points.map((point) => point[axis]);
      const [low, high] = [Math.min(...values), Math.max(...values)];
      return [low - 0.05 * (high - low), high + 0.05 * (high - low)];
    };
    drawing.range(reach(0), reach(1));
    const time = slider("step", { min: 0, max: steps.length - 1, step: 1, value: 0 }, () => mark());
    const numbers = html("p", { "aria-live": "polite", class: "ijr-numbers" });
    const now = svg("g");
    const dots = points.map(([x, y], t) =>
      drawing.dot(x, y, { r: 3, class: "ijr-dot", fill: color((steps[t] - steps[0]) / (steps.at(-1) - steps[0])) }),
    );
    drawing.plane.append(drawing.line(points, { class: "ijr-thin" }), ...dots, now);
    const mark = () => {
      const t = Number(time.input.value);
      time.value.textContent = steps[t];
      now.replaceChildren(drawing.dot(...points[t], { r: 8, class: "ijr-now" }));
      const part = [`step ${steps[t]}`];
      part.push(
        sharpness[t] === null
          ? "sharpness not measured"
          : `‖H‖ = ${sharpness[t].toPrecision(4)}, ${(sharpness[t] / threshold).toFixed(2)} of 2/η`,
      );
      if (cosines[t] !== null) part.push(`cosine of the steps before and after ${cosines[t].toFixed(2)}`);
      if (onset !== null) part.push(steps[t] < onset ? "before the onset" : "after the onset");
      numbers.textContent = part.join("; ");
    };
    drawing.page.addEventListener("pointermove", (event) => {
      const box = drawing.page.getBoundingClientRect();
      const scale = 640 / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      const far = points.map((point) => Math.hypot(drawing.x(point[0]) - x, drawing.y(point[1]) - y));
      const nearest = far.indexOf(Math.min(...far));
      if (far[nearest] > 25) return;
      time.input.value = nearest;
      mark();
    });
    figure.append(drawing.page, scale(steps), time.row, numbers);
    mark();
  };

  const KINDS = { secular, impurity, trajectory };
  for (const figure of document.querySelectorAll("figure[data-ijr-look]:not([data-ready])")) {
    figure.dataset.ready = "";
    KINDS[figure.dataset.ijrLook](figure, JSON.parse(figure.querySelector("script").textContent));
  }
})();

// Draws the graph of the tasks as SVG, and lines over time by uPlot. Texts are text: nothing of a run is ever HTML.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const BOX = { width: 190, gap: 90, row: 24, line: 17, top: 10 };
const COLORS = ["#1f77b4", "#d95f02", "#1b9e77", "#9467bd", "#e7298a", "#66a61e", "#a6761d", "#17becf"];

function shape(name, attributes, text) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

function cut(text) {
  const letters = [...text];
  return letters.length > 26 ? `${letters.slice(0, 25).join("")}…` : text;
}

class Graph {
  constructor(place, graph) {
    this.counts = new Map();
    this.boxes = new Map();
    const lines = Math.max(...graph.boxes.map((box) => box.lines.length)) + 1;
    const height = lines * BOX.line + BOX.top;
    const at = (box) => ({ x: 5 + box.column * (BOX.width + BOX.gap), y: 5 + box.row * (height + BOX.row) });
    const wide = 10 + Math.max(...graph.boxes.map((box) => at(box).x)) + BOX.width;
    const high = 10 + Math.max(...graph.boxes.map((box) => at(box).y)) + height;
    const words = { then: "before", each: "feeds", gather: "is gathered by", parent: "is the parent of", "": "to" };
    const byId = new Map(graph.boxes.map((box) => [box.id, box]));
    const told = graph.arrows.map(([one, other, how]) => `${byId.get(one).lines[0]} ${words[how]} ${byId.get(other).lines[0]}`);
    this.svg = shape("svg", {
      class: "graph", width: wide, height: high, viewBox: `0 0 ${wide} ${high}`, role: "img",
      "aria-label": `Tasks and what leads where: ${told.join("; ")}. Their numbers are in the table below.`,
    });
    const marker = shape("marker", { id: "head", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" });
    marker.append(shape("path", { d: "M0 0L8 4L0 8z", class: "head" }));
    this.svg.append(marker);
    for (const [one, other, how] of graph.arrows) this.arrow(at(byId.get(one)), at(byId.get(other)), height, how);
    for (const box of graph.boxes) this.box(box, at(box), height);
    place.replaceChildren(this.svg);
    place.hidden = false;
  }

  arrow(from, to, height, how) {
    const [x1, y1, x2, y2] = [from.x + BOX.width, from.y + height / 2, to.x, to.y + height / 2];
    const bend = x2 > x1 ? (x2 - x1) / 2 : BOX.gap;
    this.svg.append(shape("path", { d: `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2 - 2} ${y2}`, class: how || "result", "marker-end": "url(#head)" }));
    if (how) this.svg.append(shape("text", { x: (x1 + x2) / 2, y: (y1 + y2) / 2 - 5, "text-anchor": "middle" }, how));
  }

  box(box, { x, y }, height) {
    const group = shape("g", {});
    const round = { task: 3, collector: height / 2, service: 12 }[box.shape];
    group.append(shape("title", {}, box.lines.join(", ")));
    group.append(shape("rect", { x, y, width: BOX.width, height, rx: round }));
    box.lines.forEach((line, index) => {
      const place = { x: x + BOX.width / 2, y: y + BOX.line * (index + 1), "text-anchor": "middle" };
      group.append(shape("text", index ? place : { ...place, class: "name" }, cut(line)));
    });
    const counts = shape("text", { x: x + BOX.width / 2, y: y + BOX.line * (box.lines.length + 1), "text-anchor": "middle" }, "");
    group.append(counts);
    this.svg.append(group);
    if (box.task) this.boxes.set(box.task, { group, counts });
  }

  update(tasks) {
    for (const task of tasks) {
      const box = this.boxes.get(task.name);
      if (!box) continue;
      box.group.setAttribute("class", task.state);
      box.counts.textContent = `${task.collected} collected${task.failed ? `, ${task.failed} failed` : ""}`;
    }
  }
}

class Lines {
  constructor(id, unit, pick) {
    this.place = document.getElementById(id);
    this.legend = document.getElementById(`${id}-legend`);
    this.unit = unit;
    this.pick = pick;
    this.names = [];
    this.plot = null;
    new ResizeObserver(() => this.plot?.setSize(this.size())).observe(this.place);
  }

  size() {
    return { width: Math.max(280, this.place.clientWidth), height: 220 };
  }

  begin(names) {
    this.names = names;
    this.plot?.destroy();
    const style = getComputedStyle(document.documentElement);
    const [text, line] = ["--text", "--line"].map((name) => style.getPropertyValue(name).trim());
    const axis = { stroke: text, grid: { stroke: line, width: 0.3 }, ticks: { stroke: line, width: 0.5 } };
    const series = names.map((label, index) => ({
      label, stroke: COLORS[index % COLORS.length], width: 2, spanGaps: true, points: { show: false },
      dash: index >= COLORS.length ? [8, 4] : undefined,
    }));
    const options = { ...this.size(), legend: { show: false }, cursor: { show: false }, series: [{}, ...series], axes: [axis, { ...axis, size: 60 }], scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } } };
    this.plot = new uPlot(options, [[], ...names.map(() => [])], this.place);
    this.plot.root.setAttribute("aria-hidden", "true"); // its numbers are in the list before it
    this.legend.replaceChildren(...names.map((_, index) => {
      const item = document.createElement("li");
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = COLORS[index % COLORS.length];
      item.append(swatch, "");
      return item;
    }));
  }

  draw(points) {
    if (!this.plot) return;
    this.plot.setData([points.map((point) => point[0]), ...this.names.map((_, index) => points.map((point) => this.pick(point)[index]))]);
    const last = points.length ? this.pick(points[points.length - 1]) : [];
    this.names.forEach((name, index) => {
      const value = last[index];
      const text = `${name}: ${value === null || value === undefined ? "not known" : `${Number(value.toPrecision(3))} ${this.unit}`}`;
      const node = this.legend.children[index].lastChild;
      if (node.data !== text) node.data = text;
    });
  }
}

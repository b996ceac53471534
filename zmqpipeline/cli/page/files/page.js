// Draws what the server sends, as text: nothing that comes from a run is ever HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const view = { workers: 1, failures: 1, task: "" };
const charts = [new Lines("rates", "a second", (point) => point[1]), new Lines("seconds", "s", (point) => point[2])];
let events = null;
let graph = null;
let control = null;
let points = [];
let series = [];
let state = {};

function put(node, text) {
  const wanted = text === null || text === undefined ? "" : String(text);
  if (node.textContent !== wanted) node.textContent = wanted; // a screen reader says what changes
}

function element(name, kind, ...content) {
  const one = document.createElement(name);
  if (kind) one.className = kind;
  one.append(...content);
  return one;
}

// Rows stay where they are, and so does the focus in them: what is new is written into them.
function fill(body, items, keyOf, build) {
  const known = body.known ?? (body.known = new Map());
  const seen = new Set();
  items.forEach((item, index) => {
    let key = keyOf(item);
    while (seen.has(key)) key += "'";
    seen.add(key);
    if (!known.has(key)) known.set(key, build(item));
    const row = known.get(key);
    row.update(item);
    if (body.children[index] !== row.node) body.insertBefore(row.node, body.children[index] ?? null);
  });
  for (const [key, row] of known) {
    if (seen.has(key)) continue;
    row.node.remove();
    known.delete(key);
  }
}

function cells(columns) {
  return () => {
    const node = element("tr");
    const made = columns.map(([key, kind], index) => {
      const one = element(index ? "td" : "th", kind || "");
      if (!index) one.scope = "row";
      node.append(one);
      return [key, kind || "", one];
    });
    const update = (item) => {
      for (const [key, kind, one] of made) {
        if (key === "percent") bar(one, item);
        else put(one, item[key]);
        const isBad = (key === "failed" && item.failed > 0) || (key === "state" && item.is_bad);
        const wanted = isBad ? `${kind} bad` : kind;
        if (one.className !== wanted) one.className = wanted;
      }
    };
    return { node, update };
  };
}

function bar(place, task) {
  if (task.percent === null) return put(place, "");
  let one = place.firstElementChild;
  if (!one) {
    one = element("progress");
    one.max = 100;
    place.append(one);
  }
  one.value = task.percent;
  one.setAttribute("aria-label", `${task.percent} % of ${task.name}`);
  one.title = `${task.percent} % of ${task.total}`;
}

const number = "number";
const TASK = cells([
  ["name"], ["state"], ["percent"], ["sent", number], ["waiting", number], ["running", number], ["collected", number],
  ["failed", number], ["redelivered", number], ["aborted", number], ["skipped", number], ["rate", number],
  ["left", number], ["item_seconds", number], ["workers", number], ["why", "text"],
]);
const WORKER = cells([
  ["name"], ["task"], ["host"], ["pid", number], ["state"], ["threads", number], ["holds", number], ["results", number],
  ["done", number], ["item_seconds", number], ["runs"],
]);
const LOST = cells([["name"], ["task"], ["why", "text"], ["ago", number]]);
const SLOW = cells([["task"], ["number", number], ["seconds", number], ["attempt", number], ["worker"]]);

function copyButton(textOf) {
  const one = element("button", "", "Copy");
  one.type = "button";
  one.addEventListener("click", () => copy(one, textOf()));
  return one;
}

async function copy(button, text) {
  try {
    await navigator.clipboard.writeText(text);
    put(button, "Copied");
  } catch {
    put(button, "Select it by hand"); // the page is not at localhost, and not encrypted
  }
  setTimeout(() => put(button, "Copy"), 2000);
}

function failureRow() {
  const node = element("tr");
  const head = element("th");
  head.scope = "row";
  const [items, error, where, first, again] = ["number bad", "text", "text", "text", "text"].map((kind) => element("td", kind));
  const message = element("span");
  const trace = element("pre");
  const details = element("details", "", element("summary", "", "traceback"), trace);
  const command = element("code");
  const button = copyButton(() => command.textContent);
  error.append(message, details);
  again.append(command, " ", button);
  node.append(head, items, error, where, first, again);
  const update = (kind) => {
    put(head, kind.task);
    put(items, kind.items);
    put(message, kind.message ? `${kind.error}: ${kind.message}` : kind.error);
    put(trace, kind.traceback);
    details.hidden = !kind.traceback;
    put(where, [kind.stage, kind.place].filter(Boolean).join(", "));
    const which = kind.number === null ? "" : `item ${kind.number}, ${kind.attempts} attempt${kind.attempts === 1 ? "" : "s"}: `;
    put(first, which + (kind.item || "not shown, it is large"));
    put(command, kind.retry);
    again.hidden = false;
    command.hidden = button.hidden = !kind.retry;
  };
  return { node, update };
}

function staffRow(first) {
  const node = element("tr");
  const head = element("th");
  head.scope = "row";
  const there = element("td", "number");
  const input = element("input");
  Object.assign(input, { type: "number", min: 0, step: 1, required: true });
  input.setAttribute("aria-label", `Wanted workers of ${first.task}`);
  const set = element("button", "", "Set");
  const own = element("button");
  own.type = "button";
  const form = element("form", "order", input, set, own);
  node.append(head, there, element("td", "", form));
  let task = first;
  let shown = null;
  const order = (workers, many) =>
    ask("scale", new URLSearchParams({ task: task.which, workers }), "staffed", `The run is told: ${many} for ${task.task}.`);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const number = input.valueAsNumber;
    const question = `No worker for ${task.task}? Its items wait until another number is set here.`;
    if (number === 0 && !window.confirm(question)) return;
    order(String(number), `${number} worker${number === 1 ? "" : "s"}`);
  });
  own.addEventListener("click", () => {
    set.focus(); // the button goes when it has done its work
    shown = null; // and so does a draft
    order("auto", "as many workers as --workers says");
  });
  const update = (now) => {
    // a draft stays, also when another page has set a number
    if (shown === null || Number(input.value) === shown) input.value = now.wanted;
    shown = now.wanted;
    task = now;
    put(head, now.task);
    put(there, now.there);
    input.max = now.limit;
    put(own, `Back to ${now.own}, as --workers says`);
    own.hidden = !now.is_ordered;
  };
  return { node, update };
}

function logLine() {
  const node = element("li");
  const level = element("strong");
  const text = element("span");
  node.append(level, " ", text);
  return { node, update: (line) => { put(level, `${line.level}, ${line.role}, ${line.ago} ago:`); put(text, line.message); } };
}

function part(name, items, keyOf, build, isShown = items.length > 0) {
  fill(byId(name), items, keyOf, build);
  byId(`${name}-part`).hidden = !isShown;
}

function pages(name, told) {
  const nav = byId(`${name}-pages`);
  const [back, forth] = nav.querySelectorAll("button");
  nav.hidden = told.pages < 2;
  put(nav.querySelector("span"), `page ${told.page} of ${told.pages}`);
  back.disabled = told.page <= 1;
  forth.disabled = told.page >= told.pages;
  view[name] = told.page;
}

function say(text, isBad) {
  put(byId("well"), text);
  byId("well").className = isBad ? "bad" : "";
}

function drawFailures(told) {
  const failures = told.failures;
  part("failures", failures.rows, (one) => [one.task, one.stage, one.error, one.place].join("\n"), failureRow, failures.items > 0 || failures.kinds > 0);
  const others = failures.others ? ` ${failures.others} of them failed in an earlier life of the run, or are of further kinds.` : "";
  const where = failures.list ? ` All of them: ${failures.list}` : " The run has no journal: with --journal FILE, failed items are kept and can be tried again.";
  put(byId("failures-text"), `${failures.items} item${failures.items === 1 ? "" : "s"} failed, of ${failures.kinds} kind${failures.kinds === 1 ? "" : "s"}.${others}${where}`);
  byId("dead").hidden = !failures.retry;
  put(byId("dead-retry"), failures.retry);
  pages("failures", failures);
}

function drawWorkers(told) {
  const workers = told.workers;
  part("workers", workers.rows, (one) => `${one.name}\n${one.task}`, WORKER, workers.count > 0 || view.task !== "");
  const unnamed = workers.unnamed ? `, ${workers.unnamed} of them not named` : "";
  put(byId("workers-text"), `${workers.count} worker${workers.count === 1 ? "" : "s"}${unnamed}; those whose items have run longest come first.`);
  pages("workers", workers);
  const select = byId("of-task");
  const names = told.tasks.map((task) => task.name);
  if (select.options.length !== names.length + 1) {
    select.replaceChildren(new Option("all", ""), ...names.map((name) => new Option(name, name)));
    select.value = view.task;
  }
}

function drawLines(told) {
  if (told.series) {
    points = [];
    series = told.series;
    byId("charts-part").hidden = series.length === 0;
    for (const chart of charts) chart.begin(series);
  }
  if (told.points.length === 0 && !told.series) return;
  points.push(...told.points);
  for (const chart of charts) chart.draw(points);
}

function draw(news) {
  Object.assign(state, news); // an event says what has changed
  const told = { ...state, points: news.points, series: news.series, graph: news.graph, control: news.control };
  put(byId("title"), told.title);
  if (document.title !== told.title) document.title = told.title;
  say(told.well, told.is_bad);
  put(byId("run"), told.run);
  if (told.control !== undefined) {
    control = told.control;
    byId("control").hidden = !control;
  }
  if (told.graph?.boxes?.length) graph = new Graph(byId("graph-part"), told.graph);
  drawFailures(told);
  part("tasks", told.tasks, (one) => one.name, TASK);
  put(byId("more-tasks"), told.more_tasks ? `and ${told.more_tasks} more tasks` : "");
  graph?.update(told.tasks);
  part("staff", told.staff, (one) => one.which, staffRow);
  drawWorkers(told);
  part("lost", told.lost.rows, (one) => `${one.name}\n${one.task}`, LOST);
  const more = told.lost.count - told.lost.rows.length;
  put(byId("more-lost"), more > 0 ? `and ${more} more before` : "");
  drawLines(told);
  part("slow", told.slow, (one) => `${one.task}\n${one.number}\n${one.worker}`, SLOW);
  part("log", told.log, (one) => one.message, logLine);
  if (told.is_over) {
    events.close();
    byId("control").hidden = true;
  }
}

function connect() {
  events?.close();
  state = {};
  events = new EventSource(`events?${new URLSearchParams(view)}`);
  events.onmessage = (event) => draw(JSON.parse(event.data));
  events.onerror = () => {
    const again = events.readyState === EventSource.CLOSED ? " Load the page again." : "";
    say(`The page's server does not answer: what follows is how it was last. The run may well go on.${again}`, true);
  };
}

for (const name of ["workers", "failures"]) {
  byId(`${name}-pages`).querySelectorAll("button").forEach((button, index) => {
    button.addEventListener("click", () => {
      view[name] += index ? 1 : -1;
      connect();
    });
  });
}

byId("of-task").addEventListener("change", (event) => {
  Object.assign(view, { task: event.target.value, workers: 1, failures: 1 });
  connect();
});

byId("dead-copy").addEventListener("click", (event) => copy(event.target, byId("dead-retry").textContent));

// Asks `run` for something, and says in this place what became of it.
async function ask(what, body, place, told) {
  put(byId(place), "");
  try {
    const answer = await fetch(`control/${what}`, { method: "POST", headers: { "X-Csrf-Token": control.word }, body });
    put(byId(place), answer.ok ? told : await answer.text());
  } catch {
    put(byId(place), "The page's server does not answer. Whether the run was told is not known: `status` shows how it stands.");
  }
}

const QUESTIONS = {
  drain: "Drain the run? Nothing more is handed out; what runs is finished and collected. Then the run ends.",
  cancel: "End the run at once? What was collected is kept, what runs is lost.",
};
for (const [what, question] of Object.entries(QUESTIONS)) {
  byId(what).addEventListener("click", () => {
    if (window.confirm(question)) ask(what, null, "asked", "The run is told.");
  });
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const chart of charts) {
    chart.begin(series);
    chart.draw(points);
  }
});

connect();

// Draws what the server sends, as text: nothing that comes from a run is ever HTML.
"use strict";

const byId = (id) => document.getElementById(id);

function cell(row, content, kind) {
  const one = document.createElement(kind === "head" ? "th" : "td");
  if (kind === "head") one.scope = "row";
  else if (kind) one.className = kind;
  if (content instanceof Node) one.append(content);
  else one.textContent = content;
  row.append(one);
}

function bar(task) {
  if (task.percent === null) return "";
  const one = document.createElement("progress");
  one.max = 100;
  one.value = task.percent;
  one.textContent = `${task.percent} %`;
  one.setAttribute("aria-label", `${task.percent} % of ${task.name}`);
  one.title = `${task.percent} % of ${task.total}`;
  return one;
}

function taskRow(task) {
  const row = document.createElement("tr");
  cell(row, task.name, "head");
  cell(row, task.state, task.is_bad ? "bad" : "");
  cell(row, bar(task));
  for (const key of ["sent", "waiting", "leased", "collected"]) cell(row, task[key], "number");
  cell(row, task.failed, task.failed ? "number bad" : "number");
  for (const key of ["redelivered", "rate", "left", "workers"]) cell(row, task[key], "number");
  cell(row, task.why);
  return row;
}

function workerRow(worker) {
  const row = document.createElement("tr");
  cell(row, worker.name, "head");
  cell(row, worker.task);
  cell(row, worker.state);
  for (const key of ["threads", "holds", "results", "done"]) cell(row, worker[key], "number");
  cell(row, worker.runs);
  return row;
}

function say(text, isBad) {
  const well = byId("well");
  if (well.textContent !== text) well.textContent = text; // a screen reader says what changes
  well.className = isBad ? "bad" : "";
}

function draw(told) {
  byId("title").textContent = told.title;
  document.title = told.title;
  say(told.well, told.is_bad);
  byId("run").textContent = told.run;
  byId("tasks").replaceChildren(...told.tasks.map(taskRow));
  byId("tasks-part").hidden = told.tasks.length === 0;
  byId("workers").replaceChildren(...told.workers.map(workerRow));
  byId("workers-part").hidden = told.workers.length === 0;
  byId("more").textContent = told.more ? `and ${told.more} more workers` : "";
}

const events = new EventSource("events");
events.onmessage = (event) => draw(JSON.parse(event.data));
events.onerror = () => say("The page's server does not answer: what follows is how it was last. The run may well go on.", true);

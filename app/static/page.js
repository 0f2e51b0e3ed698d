/** The first page, put together: one task at a time, and every view shows that task only. */

import { factRows, say } from "./dom.js";
import { takePictures } from "./intake.js";
import { ModelCard } from "./model.js";
import { renderResult } from "./result.js";
import { Task } from "./task.js";
import { Viewer } from "./viewer.js";
import * as words from "./words.js";

const byId = (id) => document.getElementById(id);
const model = new ModelCard();
const viewer = new Viewer();
let current = null;

function start(task) {
  current?.close(); // so that it says nothing any more that could be taken for the new one's
  current = task;
  task.addEventListener("change", render);
  if (task.id === null && location.hash !== "") history.pushState(null, "", location.pathname);
  model.refresh();
  render();
}

function clear() {
  current?.close();
  current = null;
  render();
}

function openFromAddress() {
  const id = location.hash.slice(1);
  if (id === "") clear();
  else if (id !== current?.id) start(Task.open(id));
}

function render() {
  document.body.classList.toggle("compact", current !== null);
  byId("detection").hidden = current === null;
  if (current === null) return;
  renderHeading();
  renderProgress();
  renderProblem();
  viewer.render(current);
  const succeeded = current.phase === "succeeded";
  byId("summary").hidden = byId("details").hidden = !succeeded;
  const untrained = succeeded && model.isUntrained(current.record.model);
  if (succeeded) renderResult(current.record, untrained);
  announce(words.announcement(current, untrained));
}

function renderHeading() {
  const { id, file } = current;
  byId("detection-title").textContent = file?.name ?? "Detection";
  byId("permalink").hidden = id === null;
  if (id === null) return;
  byId("permalink").href = `#${id}`;
  if (location.hash !== `#${id}`) history.replaceState(null, "", `#${id}`);
}

function renderProgress() {
  byId("progress").hidden = current.finished;
  if (current.finished) return;
  byId("phase").textContent = words.phase(current);
  byId("cancel").hidden = current.phase !== "sending";
  if (current.phase === "sending" && current.sent < 1) byId("bar").value = current.sent;
  else byId("bar").removeAttribute("value");
  const { trouble } = current;
  say(byId("trouble"), trouble && `${trouble.title}. ${trouble.detail} Trying again.`);
}

function renderProblem() {
  const failed = current.finished && current.phase !== "succeeded";
  byId("problem").hidden = !failed;
  if (!failed) return;
  const { title, detail, code, again } = words.failure(current);
  byId("problem-title").textContent = title;
  byId("problem-detail").textContent = detail;
  byId("problem-facts").replaceChildren(
    ...factRows(["Code", code], ["Request", current.requestId]),
  );
  byId("retry").hidden = !again || current.file === null;
}

function announce(text) {
  const announcer = byId("announcer");
  if (announcer.textContent !== text) announcer.textContent = text;
}

takePictures((file) => start(Task.submit(file)));
byId("cancel").addEventListener("click", clear);
byId("retry").addEventListener("click", () => start(Task.submit(current.file)));
model.addEventListener("change", () => current !== null && render());
window.addEventListener("hashchange", openFromAddress);
model.refresh();
openFromAddress();

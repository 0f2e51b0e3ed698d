/** The page: connects the list, the open picture, the address and the shortcuts. */

/** @import { Entry } from "./library.js" */

import { submitLink } from "./api.js";
import { conceal, followSettings, reveal } from "./appearance.js";
import { Detection } from "./detection.js";
import { all, announce, byId, say } from "./dom.js";
import { takePictures } from "./intake.js";
import { askAgain, currentKey, forgetKey, keyEvents, keyIsMissing } from "./key.js";
import { listen } from "./keyboard.js";
import { Library } from "./library.js";
import { List } from "./list.js";
import { Listing } from "./listing.js";
import { ModelCard } from "./model.js";
import { forget } from "./pictures.js";
import { Problem } from "./problem.js";
import { count } from "./review.js";
import * as states from "./states.js";
import { Uploads } from "./uploads.js";
import { Viewer } from "./viewer.js";
import { counted } from "./words.js";

const TITLE = document.title;
const narrow = matchMedia("(max-width: 59.99rem)"); // as in frame.css

const library = new Library();
const model = new ModelCard();
const uploads = new Uploads(library);
const isOpen = (/** @type {Entry} */ entry) => entry === open;
const listing = new Listing(library, isOpen);
const list = new List(library, model);
const viewer = new Viewer();
const detection = new Detection(library, uploads, model, viewer);
/** @type {Entry?} */
let open = null;
let place = 0; // of the open entry in the list
let scrolled = 0; // scroll position when the list was left, pixels
let caller = currentKey(); // the last one that was used
/** @type {Promise<{render: (entry: Entry?) => void}[]>?} what only a result needs */
let closer = null;
/** @type {number?} */
let frame = null;
/** @type {Set<Entry>} */
const batch = new Set(); // entries since all were finished last
/** @type {Promise<import("./follow.js").Follower>?} */
let following = null;
/** @type {Promise<typeof import("./workbench.js")>?} */
let loading = null;
/** @type {import("./workbench.js").Workbench?} */
let workbench = null;

/**
 * Open an entry, or return to the list and its scroll position.
 * @param {Entry?} entry
 * @param {Entry?} left its row gets the focus in the list
 */
function select(entry, left = open) {
  if (open === null) scrolled = window.scrollY;
  if (open !== entry) conceal();
  open = entry;
  document.body.classList.toggle("opened", entry !== null); // before the list scrolls to the entry
  list.select(entry);
  render();
  if (entry === null) {
    window.scrollTo({ top: scrolled });
    list.focus(left);
    return;
  }
  window.scrollTo({ top: 0 }); // narrow: the page scrolls; wide: what is below the heading
  byId("columns").scrollTop = 0;
  // Narrow: the row that had the focus is hidden now.
  if (!document.activeElement?.checkVisibility()) focusHeading();
  if (entry.phase === "succeeded") viewer.prepare(list.at(1));
}

function close() {
  select(null);
  writeAddress();
}

/** From a magnified picture to the whole of it, and from there to the list. */
function leave() {
  if (viewer.zoom.magnified) viewer.zoom.toggle();
  else if (open !== null) close();
}

function focusHeading() {
  byId("detection-title").focus({ preventScroll: true });
}

/**
 * Replace the address when the user goes from entry to entry; only the first one adds to the history.
 * @param {Entry} entry
 */
function pick(entry) {
  const first = open === null;
  select(entry);
  writeAddress(first);
}

function writeAddress(asStep = false) {
  const address = open?.id ? `#/${open.id}` : "";
  if (location.hash === address) return;
  const url = address || location.pathname;
  if (asStep) history.pushState(null, "", url);
  else history.replaceState(null, "", url);
}

function readAddress() {
  const id = location.hash.replace(/^#\/?/, "");
  if (id !== "" && id !== open?.id) select(library.open(id));
  else if (id === "" && open !== null) select(null);
}

function render() {
  if (frame !== null) cancelAnimationFrame(frame);
  frame = null;
  if (open !== null && !library.has(open)) {
    moveOn();
    return;
  }
  document.title = open === null ? TITLE : `${open.name} · GAMMA`;
  detection.render(open);
  if (open?.result) closer ??= loadCloser();
  closer?.then((parts) => {
    for (const part of parts) part.render(open);
  });
  workbench?.render(open);
  renderFrame();
}

async function loadCloser() {
  const modules = Promise.all([import("./closer.js"), import("./comparison.js")]);
  modules.catch(() => { closer = null; }); // tried again with the next change, as the others
  const [{ Closer }, { Comparison }] = await modules;
  return [new Closer(), new Comparison(library)];
}

async function loadFollower() {
  const module = import("./follow.js"); // not needed for finished pictures
  module.catch(() => { following = null; });
  const { Follower } = await module;
  return new Follower(library, isOpen);
}

/**
 * Let the service fetch a pasted link, and open the picture.
 * @param {string} url
 */
async function fetchLink(url) {
  const tell = (/** @type {string} */ text) => {
    say(byId("intake-note"), text);
    announce(text);
  };
  if (!model.fetches) {
    tell("This service does not fetch links. Save the picture first, then add the file.");
    return;
  }
  tell("The service fetches the picture of the link …");
  try {
    const { record, requestId } = await submitLink(url);
    library.take(record, requestId);
    say(byId("intake-note"), null);
    pick(library.open(record.id));
  } catch (problem) {
    if (!(problem instanceof Problem)) throw problem;
    tell(`${problem.title}. ${problem.detail}`);
  }
}

/** After the open entry was removed, open the one at its place, or none. */
function moveOn() {
  const { shown } = list;
  const next = shown[Math.min(place, shown.length - 1)] ?? null;
  select(narrow.matches ? null : next, next);
  writeAddress();
  if (document.activeElement === document.body) list.focus(next); // the removed row had the focus
}

/** Load the moderators' tools, which an empty list does not need. */
async function loadWorkbench() {
  loading = import("./workbench.js");
  loading.catch(() => { loading = null; });
  const { Workbench } = await loading;
  workbench = new Workbench({ library, list, open: () => open, pick });
  render();
}

function renderFrame() {
  const counts = count(library.entries);
  const any = counts.all > 0;
  if (any && loading === null) loadWorkbench();
  document.body.classList.toggle("compact", any);
  document.body.classList.toggle("loading", !listing.known && listing.problem === null && !any);
  byId("review").hidden = !any;
  byId("nothing-open").hidden = !any || open !== null;
  renderBatch(counts);
  byId("cancel-all").hidden = uploads.pending < 2;
  byId("older").hidden = !listing.more;
  const again = retriable();
  byId("retry-all").hidden = again.length === 0;
  byId("retry-all").textContent = `Try ${counted(again.length, "picture")} again`;
  const unsent = removable();
  byId("remove-all").hidden = unsent.length === 0;
  byId("remove-all").textContent = `Remove ${counted(unsent.length, "picture")} without a result`;
  const { problem } = listing;
  say(byId("list-note"), problem && `The list may be incomplete. ${states.title(problem)}.`);
  renderNeighbours();
  renderPaused();
}

/**
 * Show the progress of the pictures added since all were finished.
 * @param {Record<string, number>} counts
 */
function renderBatch({ all, pending }) {
  for (const entry of library.entries) if (!entry.finished) batch.add(entry);
  for (const entry of batch) if (!library.has(entry)) batch.delete(entry);
  byId("tally").textContent = states.tally({ all, pending, batch: batch.size }, listing.more);
  byId("all-bar").hidden = pending === 0;
  if (pending > 0) {
    byId("all-bar", HTMLProgressElement).value = 1 - pending / batch.size;
    return;
  }
  if (batch.size > 1) announce(states.allDone([...batch]));
  batch.clear();
}

function renderNeighbours() {
  if (open === null) return;
  const { shown } = list;
  const found = shown.indexOf(open);
  if (found >= 0) place = found;
  for (const [id, by] of /** @type {[string, number][]} */ ([["previous", -1], ["next", 1]])) {
    const button = byId(id, HTMLButtonElement);
    const ends = list.at(by) === null;
    if (ends && document.activeElement === button) focusHeading(); // a disabled button loses it
    button.disabled = ends;
  }
}

function retriable() {
  return [...library.entries].filter(
    ({ phase, problem, file }) =>
      file !== null && (phase === "cancelled" || (phase === "refused" && problem?.temporary)),
  );
}

function renderPaused() {
  const problem = uploads.pausedBy;
  byId("paused").hidden = problem === null;
  if (problem === null) return;
  byId("paused-title").textContent = states.title(problem);
  byId("paused-text").textContent = states.paused(problem, uploads.pending);
  byId("paused-retry").textContent = problem.wantsKey ? "Enter key" : "Try now";
}

function renderKey() {
  byId("forget-key").hidden = currentKey() === null;
  byId("enter-key").hidden = !keyIsMissing();
}

function renewKey() {
  renderKey();
  if (keyIsMissing()) return;
  const key = currentKey();
  if (caller !== null && key !== caller) dropCaller();
  caller = key;
  uploads.resume();
  listing.refresh();
  model.refresh();
  following?.then((follower) => follower.renew());
}

/** Drop what was loaded with the former key; what is not sent yet stays. */
function dropCaller() {
  for (const entry of [...library.entries]) {
    if (entry.phase === "gone") library.change(entry, { phase: "opening", record: null, review: undefined, history: null });
    else if (entry.record !== null) library.remove(entry);
  }
  forget("");
  workbench?.forget();
  listing.reset();
}

function removable() {
  return [...library.entries].filter(({ onlyHere }) => onlyHere);
}

takePictures((files) => {
  const entries = uploads.add(files);
  if (entries.length === 1 || (open === null && !narrow.matches)) pick(entries[0]);
}, fetchLink);

library.addEventListener("change", ({ detail: entry }) => {
  if (entry === open && entry.id !== null) writeAddress();
  if (entry.followed) following ??= loadFollower();
  frame ??= requestAnimationFrame(render);
});
list.addEventListener("select", ({ detail: entry }) => pick(entry));
list.addEventListener("arranged", renderNeighbours);
listing.addEventListener("change", renderFrame);
model.addEventListener("change", render);
uploads.addEventListener("change", renderPaused);
keyEvents.addEventListener("change", renewKey);

byId("cancel-all").addEventListener("click", () => uploads.cancelAll());
byId("retry-all").addEventListener("click", () => {
  for (const entry of retriable()) uploads.retry(entry);
});
byId("remove-all").addEventListener("click", () => {
  for (const entry of removable()) library.remove(entry);
});
byId("paused-retry").addEventListener("click", async () => {
  if (keyIsMissing()) await askAgain();
  else uploads.resume();
});
byId("older").addEventListener("click", () => listing.loadOlder());
byId("previous").addEventListener("click", () => list.step(-1));
byId("next").addEventListener("click", () => list.step(1));
byId("back").addEventListener("click", close);
byId("enter-key").addEventListener("click", askAgain);
byId("forget-key").addEventListener("click", () => {
  workbench?.forget();
  forgetKey();
  location.assign(location.pathname); // remove everything that was loaded with the key
});
for (const button of all(document, "[data-close]")) {
  button.addEventListener("click", () => button.closest("dialog")?.close());
}
listen([
  { keys: ["j", "n"], label: "Next picture", act: () => list.step(1), repeats: true },
  { keys: ["k", "p"], label: "Previous picture", act: () => list.step(-1), repeats: true },
  { keys: ["a"], label: "AI layer on or off", act: () => viewer.choose("ai", "none") },
  { keys: ["m"], label: "Manipulation layer on or off", act: () => viewer.choose("manipulation", "none") },
  { keys: ["o"], label: "Original on or off", act: () => viewer.toggleOriginal() },
  { keys: ["s"], label: "Side by side", act: () => viewer.toggleBeside() },
  { keys: ["b"], label: "Region boxes", act: () => viewer.toggleBoxes() },
  { keys: ["z"], label: "Actual size or fit", act: () => viewer.zoom.toggle() },
  { keys: ["0"], label: "100 %: pixel by pixel", act: () => viewer.zoom.to(1) },
  { keys: ["9"], label: "200 %", act: () => viewer.zoom.to(2) },
  { keys: ["+"], label: "Zoom in", act: () => viewer.zoom.by(1), repeats: true },
  { keys: ["-"], label: "Zoom out", act: () => viewer.zoom.by(-1), repeats: true },
  { keys: ["v"], label: "Show a blurred picture", act: reveal },
  { keys: ["x", "Delete"], label: "Delete the open picture", act: () => detection.askToDelete() },
  { keys: ["Escape"], label: "Whole picture again, or close it", act: leave },
  { keys: ["c"], label: "About the model", act: () => model.open() },
  { keys: ["?"], label: "Keyboard shortcuts", act: () => byId("open-help").click() },
]);

history.scrollRestoration = "manual"; // the list and the picture scroll in the same page, if narrow
window.addEventListener("popstate", readAddress);
window.addEventListener("hashchange", readAddress);
window.addEventListener("beforeunload", (event) => {
  if (uploads.pending > 0) event.preventDefault(); // what is not sent yet would be lost
});

followSettings();
renderKey();
model.refresh();
listing.refresh();
readAddress();

// The live log: puts the parts together for every .log-viewer of the page (templates/log_viewer.html).

import { Blocks } from "./log-blocks.js";
import { Follower } from "./log-follow.js";
import { find, rangesOf } from "./log-search.js";
import { View } from "./log-view.js";

const RETRY = 2000;
const WAITING = {
  prep: "The message is being prepared. What its script prints appears here.",
  que: "The message waits for its turn. What its script prints appears here.",
  run: "The script has printed nothing yet. What it prints appears here at once.",
  done: "The script printed nothing.",
  relayed: "The script printed nothing.",
  err: "The script printed nothing.",
  "": "The message is gone, and its log with it.",
};

class Viewer {
  #root;
  #parts = {};
  #view;
  #size;
  #state;
  #file;
  #ended;
  #connected = true;
  #searching = null; // AbortController while a search runs
  #match = null; // {offset, line_offset} of the place found last
  #timer = 0;

  constructor(root) {
    this.#root = root;
    for (const part of root.querySelectorAll("[data-log]")) this.#parts[part.dataset.log] = part;
    const given = root.dataset;
    this.#size = Number(given.size);
    this.#state = given.state;
    this.#file = given.file;
    this.#ended = given.ended === "true";
    const { scroller, canvas, rows } = this.#parts;
    root.classList.add("log-live");
    this.#view = new View(scroller, canvas, rows, new Blocks(given.logUrl, this.#size));
    this.#listen();
    this.#wrap(stored("rq-log-wrap") === "yes");
    this.#start();
    new Follower(given.eventsUrl, (seen, ended) => this.#seen(seen, ended), (up) => this.#connection(up));
  }

  #start() {
    const at = linked();
    if (at < 0 || at >= this.#size) this.#view.show(-1, "end");
    else this.#goTo(at);
    this.#tell();
  }

  #listen() {
    const { scroller, find: form, text, progress } = this.#parts;
    scroller.addEventListener("logmoved", () => {
      this.#highlight();
      this.#tell();
    });
    scroller.addEventListener("logfollow", () => this.#tell());
    scroller.addEventListener("logproblem", (event) => this.#problem(event.detail));
    scroller.addEventListener("keydown", (event) => this.#key(event));
    this.#root.addEventListener("click", (event) => this.#click(event));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#search(true);
    });
    text.addEventListener("input", () => {
      this.#cancel();
      this.#match = null;
      progress.textContent = "";
      this.#highlight();
    });
    text.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && (this.#searching || text.value)) this.#leaveSearch(event);
      else if (event.key === "Enter" && event.shiftKey) {
        event.preventDefault();
        this.#search(false);
      }
    });
    addEventListener("hashchange", () => {
      const at = linked();
      if (at >= 0 && at < this.#size) this.#goTo(at);
    });
    document.addEventListener("selectionchange", () => {
      const selection = getSelection();
      if (!selection.isCollapsed && this.#parts.rows.contains(selection.anchorNode)) this.#view.pause();
    });
  }

  #click(event) {
    const act = event.target.closest("[data-do]")?.dataset.do;
    if (act === "follow" && this.#view.follow) this.#view.pause();
    else if (act === "follow" || act === "end") this.#view.toEnd();
    else if (act === "previous") this.#search(false);
    else if (act === "wrap") this.#wrap(!this.#root.classList.contains("log-wrap"));
    else if (act === "case") {
      toggle(event.target.closest("button"));
      this.#match = null;
      this.#highlight();
    } else if (act === "cancel") this.#cancel("search ended");
    else if (act === "link") this.#link();
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (!event.ctrlKey || (event.key !== "Home" && event.key !== "End")) return;
    }
    if (event.key === "End") this.#view.toEnd();
    else if (event.key === "Home") {
      this.#view.pause();
      this.#view.show(0, "start");
    } else if (event.key === "/") this.#parts.text.select();
    else if (event.key === "n" || event.key === "N") this.#search(event.key === "n");
    else if (event.key === "Escape" && this.#searching) this.#cancel("search ended");
    else return;
    event.preventDefault();
    event.stopPropagation(); // the page's own keys
  }

  // What the server says

  #seen({ state, size, file }, ended) {
    const length = size ?? 0;
    const replaced = length < this.#size || (this.#file && file && file !== this.#file);
    this.#state = state;
    this.#ended = ended;
    this.#file = file || this.#file;
    this.#size = length;
    if (replaced) this.#view.replaced(length);
    else this.#view.grown(length);
    this.#tell();
  }

  #connection(up) {
    const found = up && !this.#connected;
    this.#connected = up;
    if (found) this.#view.retry();
    this.#tell();
  }

  #problem(error) {
    console.info("the log cannot be read just now:", error.message);
    this.#connected = false;
    this.#tell();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#connected = true;
      this.#view.retry();
      this.#tell();
    }, RETRY);
  }

  // Places

  async #goTo(at) {
    this.#view.pause();
    this.#view.marked = at;
    const row = this.#view.rowAt(at);
    if (!row || !this.#view.isSeen(row)) await this.#view.show(at);
  }

  #link() {
    const { start } = this.#view.seen;
    const at = this.#view.marked >= 0 ? this.#view.marked : start;
    location.hash = `at=${at}`;
    copy(location.href);
    this.#parts.progress.textContent = "link to the line copied";
  }

  #wrap(on) {
    this.#view.refold(() => this.#root.classList.toggle("log-wrap", on));
    this.#parts.wrap.setAttribute("aria-pressed", String(on));
    store("rq-log-wrap", on ? "yes" : "no");
  }

  // Search

  get #matchCase() {
    return this.#parts.case.getAttribute("aria-pressed") === "true";
  }

  async #search(forward) {
    const text = this.#parts.text.value;
    if (!text) return void this.#parts.text.focus();
    this.#cancel();
    const searching = new AbortController();
    this.#searching = searching;
    this.#root.classList.add("log-searching");
    this.#say("searching…");
    this.#view.pause();
    try {
      const begin = this.#match ? this.#match.offset + (forward ? 1 : 0)
        : forward ? this.#view.seen.start : this.#view.seen.end;
      const ask = { text, matchCase: this.#matchCase, forward, signal: searching.signal };
      const [first, last] = forward ? [0, Infinity] : [Infinity, 0];
      let found = await this.#findFrom(begin, { ...ask, until: last }, begin);
      const around = !found;
      if (around) found = await this.#findFrom(Math.min(first, this.#size), { ...ask, until: begin }, begin);
      if (searching.signal.aborted) return;
      if (!found) this.#say("not found");
      else {
        this.#match = found;
        await this.#goTo(found.offset);
        this.#highlight();
        const where = `at ${percent(found.offset, this.#size)}`;
        this.#say(around ? `${where}, from the ${forward ? "beginning" : "end"} again` : where);
      }
    } catch (error) {
      if (error.name !== "AbortError") this.#say(`search failed: ${error.message}`);
    } finally {
      if (this.#searching === searching) this.#done();
    }
  }

  #findFrom(from, ask, begin) {
    const onPlace = (at, size) => {
      const looked = ask.forward ? at - begin : begin - at;
      this.#say(`searching… ${percent(looked >= 0 ? looked : looked + size, size)}`);
    };
    return find(this.#root.dataset.searchUrl, { ...ask, from, onPlace });
  }

  #cancel(word = "") {
    if (!this.#searching) return;
    this.#searching.abort();
    this.#done();
    this.#say(word);
  }

  #done() {
    this.#searching = null;
    this.#root.classList.remove("log-searching");
  }

  #leaveSearch(event) {
    event.stopPropagation();
    event.preventDefault();
    if (this.#searching) this.#cancel("search ended");
    else {
      this.#parts.text.value = "";
      this.#match = null;
      this.#highlight();
      this.#parts.scroller.focus();
    }
  }

  #highlight() {
    if (!globalThis.Highlight) return; // the line is marked all the same
    const text = this.#parts.text.value;
    const [all, current] = [new Highlight(), new Highlight()];
    for (const row of text ? this.#view.rows : []) {
      const here = this.#match && row.start <= this.#match.offset && this.#match.offset < row.end;
      for (const range of rangesOf(row.line, text, this.#matchCase)) (here ? current : all).add(range);
    }
    current.priority = 1;
    CSS.highlights.set("log-found", all);
    CSS.highlights.set("log-found-here", current);
  }

  // Words

  #say(text) {
    this.#parts.progress.textContent = text;
  }

  #tell() {
    const { where, follow, end, quiet } = this.#parts;
    const { start, end: upTo } = this.#view.seen;
    const all = bytes(this.#size);
    where.textContent = this.#view.follow || upTo >= this.#size ? all
      : `${percent(start, this.#size)} of ${all}`;
    follow.hidden = this.#ended;
    follow.setAttribute("aria-pressed", String(this.#view.follow));
    end.hidden = this.#view.follow || !this.#size;
    quiet.hidden = this.#size > 0;
    quiet.textContent = this.#size ? "" : WAITING[this.#state] ?? WAITING.run;
    const live = !this.#connected ? "lost" : this.#ended ? "ended" : this.#view.follow ? "live" : "paused";
    this.#root.dataset.live = live;
    const words = {
      lost: "connection lost, trying again", ended: this.#state || "gone", live: "live", paused: "paused",
    };
    if (this.#parts.state.textContent !== words[live]) this.#parts.state.textContent = words[live];
  }
}

// The offset that the page's address names, -1 for none.
function linked() {
  const found = /^#at=([0-9]{1,15})$/.exec(location.hash);
  return found ? Number(found[1]) : -1;
}

function percent(part, whole) {
  if (!whole) return "0 %";
  const share = (100 * part) / whole;
  return `${share > 0 && share < 10 ? share.toFixed(1) : Math.floor(share)} %`;
}

function bytes(size) {
  if (size < 1000) return `${size} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let amount = size / 1000;
  let unit = 0;
  for (; amount >= 999.95 && unit < units.length - 1; unit += 1) amount /= 1000;
  return `${amount.toFixed(1)} ${units[unit]}`;
}

function toggle(button) {
  button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Not allowed, or not over plain HTTP: the address bar has it.
  }
}

function stored(key) {
  try {
    return localStorage.getItem(key);
  } catch {
    return null; // storage is forbidden here
  }
}

function store(key, value) {
  try {
    localStorage.setItem(key, value);
  } catch {
    // As above: it holds for this page.
  }
}

for (const root of document.querySelectorAll(".log-viewer:not(.log-live)")) new Viewer(root);

// Live pages: what happened is heard from one stream of events, the page is asked for again, and its live
// regions ([data-live]) are made like the new ones. So everything is rendered in one place, the server.
//
// At most two times a second, not while the tab is hidden or the reader has paused it. Texts and bars of
// running messages move at once, by the events themselves.
//
// <body data-live-queue="NAME">      only what concerns this queue
// <body data-live-message="ID">      only what concerns this message, and its queue itself
// <body data-live-states="err">      only messages that come into, or leave, these states
// <body data-live-job="ID">          only this job
import { morph } from "./morph.js";
import { Stream } from "./stream.js";
import { showTimes } from "./times.js";

const SOONEST = 500;
// A page that is expensive to make is asked for less often.
const SHARE = 4;
// An interruption that is shorter is nobody's business.
const QUIET = 600;
// A page that leaves because a form was sent must not be loaded again meanwhile: that would call it back.
const LEAVING = 10000;
const COUNTED = /(\d+(?:[.,]\d+)*)\s*(?:of|\/|out of)\s*(\d+(?:[.,]\d+)*)\b/gi;
const PERCENT = /(\d+(?:\.\d+)?)\s*%/;
// eslint-disable-next-line no-control-regex
const UNSEEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]/gu;

const page = document.body.dataset;
let button;
let connected = true;
let paused = false;
let stale = false;
let fetching = false;
let earliest = 0;
let timer = 0;
let lostTimer = 0;
let leavingUntil = 0;
let port = null;

export function startLive() {
  button = document.getElementById("live");
  if (!regions(document).length) return;
  button.hidden = false;
  paused = sessionStorage.getItem("rq-paused") === "yes";
  button.addEventListener("click", togglePause);
  document.addEventListener("visibilitychange", () => refreshSoon());
  document.addEventListener("submit", (event) => {
    if (!event.defaultPrevented && event.target.method !== "dialog") leavingUntil = performance.now() + LEAVING;
  });
  window.addEventListener("pagehide", leave);
  window.addEventListener("pageshow", (event) => {
    if (!event.persisted) return;
    stale = true;
    leavingUntil = 0;
    join();
  });
  show();
  join();
}

export function togglePause() {
  paused = !paused;
  sessionStorage.setItem("rq-paused", paused ? "yes" : "no");
  show();
  refreshSoon();
}

function join() {
  const hello = { kind: "hello", url: new URL(page.events, location.href).href, since: page.since };
  if (window.SharedWorker) {
    try {
      const worker = new SharedWorker(page.worker, { type: "module", name: "rq-events" });
      port = worker.port;
      port.onmessage = (said) => heard(said.data);
      port.postMessage(hello);
      return;
    } catch {
      // Not allowed here: a stream of this tab's own does, too.
    }
  }
  const stream = new Stream(hello.url, hello.since, heard);
  port = { postMessage: () => stream.close() };
}

function leave() {
  if (port) port.postMessage({ kind: "bye" });
  port = null;
}

function heard(message) {
  if (message.kind === "lost") {
    connected = false;
    lostTimer = setTimeout(show, QUIET);
  } else if (message.kind === "open") {
    clearTimeout(lostTimer);
    if (!connected || isLater(message.last, page.since)) stale = true;
    connected = true;
    show();
    refreshSoon();
  } else if (message.type === "status") {
    showStatus(message.data.msg_id, message.data.status ?? "");
  } else if (concerns(message)) {
    stale = true;
    refreshSoon();
  }
}

function isLater(id, than) {
  if (!id || !than) return false;
  const [epoch, number] = id.split("-");
  const [epochThan, numberThan] = than.split("-");
  return epoch !== epochThan || Number(number) > Number(numberThan);
}

function concerns({ type, data }) {
  if (type === "job" || page.liveJob) return data.id !== undefined && data.id === page.liveJob;
  if (type === "upload") return data.msg_id === page.liveMessage;
  if (type === "reset" || type === "child") return true;
  if (page.liveQueue && data.queue && data.queue !== page.liveQueue) return false;
  if (type !== "state") return true;
  if (page.liveMessage) return data.msg_id === page.liveMessage;
  const states = page.liveStates?.split(" ");
  return !states || states.includes(data.old) || states.includes(data.new);
}

function show() {
  const state = paused ? "paused" : connected ? "live" : "reconnecting";
  button.dataset.state = state;
  button.setAttribute("aria-pressed", String(paused));
  button.querySelector(".text").textContent = { paused: "Paused", live: "Live", reconnecting: "Reconnecting…" }[state];
  button.title = paused ? "Go on with live updates (r)" : "Pause live updates (r)";
}

function mayRefresh() {
  return stale && !paused && !fetching && connected && !document.hidden;
}

function refreshSoon() {
  if (timer || !mayRefresh()) return;
  const from = Math.max(earliest, leavingUntil) - performance.now();
  timer = setTimeout(refresh, Math.max(0, from));
}

async function refresh() {
  timer = 0;
  if (!mayRefresh()) return;
  if (performance.now() < leavingUntil) {
    refreshSoon();
    return;
  }
  stale = false;
  fetching = true;
  const began = performance.now();
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html", "RQ-Live": "1" }, cache: "no-store" });
    const type = answer.headers.get("content-type") ?? "";
    if (type.startsWith("text/html")) replace(new DOMParser().parseFromString(await answer.text(), "text/html"));
  } catch {
    stale = true; // The stream will tell when the site is there again.
  }
  fetching = false;
  const took = performance.now() - began;
  earliest = performance.now() + Math.max(SOONEST, took * SHARE);
  refreshSoon();
}

// The log viewer, for one, is alive by itself.
function regions(root) {
  return [...root.querySelectorAll("[data-live]:not([data-still])")];
}

function replace(fresh) {
  const here = regions(document);
  const there = new Map(regions(fresh).map((part) => [part.dataset.live, part]));
  if (performance.now() < leavingUntil) return;
  if (here.length !== there.size || here.some((part) => !there.has(part.dataset.live))) {
    // Another page altogether: the message was deleted, or its log begins.
    location.reload();
    return;
  }
  for (const part of here) morph(part, there.get(part.dataset.live));
  document.title = fresh.title;
  page.since = fresh.body.dataset.since;
  showTimes();
  document.dispatchEvent(new Event("rq:refreshed"));
}

function showStatus(msgId, text) {
  for (const place of document.querySelectorAll(`[data-status="${CSS.escape(msgId)}"]`)) {
    const part = document.createElement("bdi");
    part.textContent = visible(text);
    place.replaceChildren(part);
  }
  const found = howFar(text);
  for (const bar of document.querySelectorAll(`[data-progress="${CSS.escape(msgId)}"]`)) {
    bar.hidden = !found;
    if (found) {
      bar.max = found.total;
      bar.value = found.value;
    }
  }
}

// The same as rqcore_web/words.py makes of it.
function visible(text) {
  return text.replace(UNSEEN, (char) => {
    const code = char.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "\u2421";
    if (code >= 0xdc80 && code <= 0xdcff) return `\\x${(code - 0xdc00).toString(16).padStart(2, "0")}`;
    return `\\u${code.toString(16).padStart(4, "0")}`;
  });
}

// The same as rqcore_web/progress.py.
function howFar(text) {
  for (const [, value, total] of text.matchAll(COUNTED)) {
    const done = amount(value);
    const all = amount(total);
    if (all > 0 && done <= all) return { value: done, total: all };
  }
  const percent = text.match(PERCENT);
  if (percent && Number(percent[1]) <= 100) return { value: Number(percent[1]), total: 100 };
  return null;
}

function amount(text) {
  const plain = text.replace(/[.,](?=\d{3}(?:\D|$))/g, "");
  return plain.split(/[.,]/).length < 3 ? Number(plain.replace(",", ".")) : 0;
}

// The keyboard: / search, ? help, g and a letter to go somewhere, j and k through rows, Enter to open,
// x to select, r to pause, t for light or dark. Nothing while somebody types, and nothing with Ctrl or Alt.
import { togglePause } from "./live.js";
import { toggleTheme } from "./themes.js";

const GO_WITHIN = 1500;
let goUntil = 0;

const PLACES = { o: "", e: "errors", s: "-/search", p: "plugins" };
const KEYS = {
  "/": () => focusOn(document.querySelector("[data-find]") ?? document.getElementById("find")),
  "?": openHelp,
  g: () => (goUntil = performance.now() + GO_WITHIN),
  j: () => step(1),
  k: () => step(-1),
  x: () => current()?.querySelector("input[type=checkbox]")?.click(),
  r: () => document.getElementById("live").hidden || togglePause(),
  t: toggleTheme,
  Enter: () => current()?.querySelector("[data-open]")?.click(),
};

export function startKeys() {
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick);
  document.getElementById("help-link").addEventListener("click", (event) => {
    event.preventDefault();
    openHelp();
  });
}

function onKey(event) {
  if (event.key === "Escape") return escape();
  if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  if (performance.now() < goUntil && event.key in PLACES) {
    location.href = document.body.dataset.root + PLACES[event.key];
    return;
  }
  // A link or a button that has the focus takes Enter itself.
  if (event.key === "Enter" && event.target !== document.body && event.target.id !== "main") return;
  const act = KEYS[event.key];
  if (!act) return;
  if (event.key !== "Enter" || current()) event.preventDefault();
  act();
}

function isTyping(target) {
  if (target.closest("textarea, select, [contenteditable], [data-keys]")) return true;
  return target.localName === "input" && !["checkbox", "radio", "button", "submit"].includes(target.type);
}

function escape() {
  closeDrops(null);
  if (isTyping(document.activeElement)) document.activeElement.blur();
}

function onClick(event) {
  closeDrops(event.target);
  const dialog = event.target.closest("dialog");
  if (dialog && event.target === dialog) dialog.close();
}

function closeDrops(target) {
  for (const drop of document.querySelectorAll("details.drop[open]")) {
    if (drop.contains(target)) continue;
    const had = drop.contains(document.activeElement);
    drop.open = false;
    if (had && !target) drop.querySelector("summary").focus();
  }
}

function focusOn(field) {
  field.focus();
  field.select();
}

function openHelp() {
  const dialog = document.getElementById("help");
  if (!dialog.open) dialog.showModal();
}

function current() {
  return document.querySelector("[data-row][data-at]");
}

function step(by) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (!rows.length) return;
  const was = rows.indexOf(current());
  const at = was < 0 ? (by > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, was + by));
  rows[was]?.removeAttribute("data-at");
  rows[at].setAttribute("data-at", "");
  rows[at].scrollIntoView({ block: "nearest" });
}

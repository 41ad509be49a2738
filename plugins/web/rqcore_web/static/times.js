// Times: "3 min ago" goes on while the page is open, and the absolute one is told in the reader's own zone.
// The words are those of rqcore_web/words.py.

const EVERY = 1000;
// A reader's clock that is wrong by more than this is put right by the server's.
const TOLERATED = 5;
let skew = 0;

export function startTimes() {
  const said = Number(document.body.dataset.now);
  const away = said - Date.now() / 1000;
  const [entry] = performance.getEntriesByType("navigation");
  if (said && entry?.type === "navigate" && Math.abs(away) > TOLERATED) skew = away;
  showTimes();
  setInterval(() => document.hidden || showTimes(), EVERY);
  document.addEventListener("visibilitychange", () => document.hidden || showTimes());
}

export function showTimes() {
  const now = Date.now() / 1000 + skew;
  for (const element of document.querySelectorAll("time[data-time]")) {
    const at = Date.parse(element.dateTime);
    if (Number.isNaN(at)) continue;
    const text = element.dataset.time === "elapsed" ? duration(now - at / 1000) : relative(at / 1000 - now);
    if (element.textContent !== text) element.textContent = text;
    const title = new Date(at).toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" });
    if (element.title !== title) element.title = title;
  }
}

function relative(away) {
  if (Math.abs(away) < 1.5) return "now";
  return away > 0 ? `in ${coarse(away)}` : `${coarse(-away)} ago`;
}

function coarse(seconds) {
  for (const [unit, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= unit) return `${Math.round(seconds / unit)} ${name}`;
  }
  return `${Math.round(seconds)} s`;
}

function duration(given) {
  const seconds = Math.max(0, given);
  if (seconds < 10) return `${Math.floor(seconds)} s`;
  const whole = Math.floor(seconds);
  for (const [unit, name, part, partName] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole >= unit) {
      const few = Math.floor((whole % unit) / part);
      return few ? `${Math.floor(whole / unit)} ${name} ${few} ${partName}` : `${Math.floor(whole / unit)} ${name}`;
    }
  }
  return `${whole} s`;
}

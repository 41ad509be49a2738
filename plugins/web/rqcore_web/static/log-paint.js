// Rows of a log as elements. What a script printed becomes text nodes and nothing else; its colours become
// class names and custom properties that are made from numbers here, through the CSSOM, which a content
// security policy without inline styles allows.

import {
  BOLD, DIM, INVERSE, ITALIC, OVERLINE, PLAIN, RGB, STRIKE, UNDERLINE, parse,
} from "./log-ansi.js";

const FLAGS = [
  [BOLD, "log-bold"], [DIM, "log-dim"], [ITALIC, "log-italic"],
  [UNDERLINE, "log-underline"], [STRIKE, "log-strike"], [OVERLINE, "log-overline"],
];
const NAMED = 16;
const CUBE = [0, 95, 135, 175, 215, 255];
// Where black and white can be read alike.
const HALF = 0.18;

// The row of the bytes from `start`, whose text without the newline is `text`. `row.style` is how it ends.
export function makeRow(start, text, style) {
  const { runs, style: after } = parse(text, style);
  const element = document.createElement("div");
  element.className = "log-row";
  element.dataset.at = String(start);
  const link = document.createElement("a");
  link.className = "log-at";
  link.href = `#at=${start}`;
  link.tabIndex = -1;
  link.setAttribute("aria-label", "Link to this line");
  const line = document.createElement("span");
  line.className = "log-line";
  for (const run of runs) line.append(run.style === PLAIN ? run.text : span(run));
  element.append(link, line);
  return { element, line, style: after };
}

function span({ text, style }) {
  const element = document.createElement("span");
  element.textContent = text;
  for (const [flag, name] of FLAGS) if (style.flags & flag) element.classList.add(name);
  const { fg, bg } = style;
  if (style.flags & INVERSE) inverse(element, fg, bg);
  else {
    if (bg >= 0) background(element, bg);
    if (fg >= 0) foreground(element, fg);
  }
  return element;
}

function foreground(element, colour) {
  if (colour < NAMED) element.classList.add(`log-f${colour}`);
  else custom(element, "log-fx", "--log-f", colour);
}

function background(element, colour) {
  if (colour < NAMED) element.classList.add(`log-b${colour}`);
  else custom(element, "log-bx", "--log-b", colour);
  // What is on it is read by its lightness, not by that of the page.
  element.classList.add(luminance(colour) > HALF ? "log-on-light" : "log-on-dark");
}

function inverse(element, fg, bg) {
  if (bg >= 0) {
    if (fg >= 0) background(element, fg);
    else element.classList.add("log-on-ink");
    foreground(element, bg);
  } else {
    element.classList.add("log-paper", fg >= 0 ? "log-inverse" : "log-on-ink");
    if (fg >= 0) foreground(element, fg);
  }
}

function custom(element, name, property, colour) {
  const [red, green, blue] = channels(colour);
  element.classList.add(name);
  element.style.setProperty(property, `rgb(${red} ${green} ${blue})`);
}

// Red, green and blue of a palette's or a true colour, 0..255 each.
export function channels(colour) {
  if (colour >= RGB) return [(colour >> 16) & 255, (colour >> 8) & 255, colour & 255];
  if (colour >= 232) return Array(3).fill(8 + (colour - 232) * 10);
  const cube = colour - NAMED;
  return [CUBE[Math.floor(cube / 36)], CUBE[Math.floor(cube / 6) % 6], CUBE[cube % 6]];
}

function luminance(colour) {
  if (colour < NAMED) return colour === 7 || colour > 8 ? 1 : 0;
  const [red, green, blue] = channels(colour).map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

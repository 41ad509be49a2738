// What a terminal shows of one line of a script's output: pure, no page is touched.
//
//   parse(text, style) -> {runs: [{text, style}], style}
//
// `text` is one line without its newline. `style` is how the line before ended (PLAIN at the start): a
// frozen {fg, bg, flags}, where fg and bg are -1 for the reader's own, 0..255 for the palette, or
// RGB + 0xRRGGBB. The texts of the runs, put together, are what is seen: carriage return, backspace and
// movements within the line overwrite; erasing erases; every other escape sequence leaves nothing; other
// control characters become their pictures. `rqcore_web/logtext.py` shows the same text, without colour.

export const PLAIN = Object.freeze({ fg: -1, bg: -1, flags: 0 });
export const RGB = 0x1000000;
export const BOLD = 1, DIM = 2, ITALIC = 4, UNDERLINE = 8, INVERSE = 16, STRIKE = 32, OVERLINE = 64;

// No movement leads further to the right than this, or than the line's own end.
const FURTHEST = 512;
const TAB = 8;
const CONTROLS = /[\x00-\x08\x0b-\x1f\x7f-\x9f]/;
const COLOURS = /\x1b\[([0-9;:]*)m/g;
const ESC = 0x1b, BEL = 0x07, CAN = 0x18, SUB = 0x1a, DEL = 0x7f;

export function parse(text, style) {
  if (!CONTROLS.test(text)) return { runs: text ? [{ text, style }] : [], style };
  return CONTROLS.test(text.replace(COLOURS, "")) ? moving(text, style) : coloured(text, style);
}

// Only colours: the usual case, without a cell for each character.
function coloured(text, style) {
  const runs = [];
  let at = 0;
  for (const found of text.matchAll(COLOURS)) {
    add(runs, text.slice(at, found.index), style);
    style = graphics(found[1], style);
    at = found.index + found[0].length;
  }
  add(runs, text.slice(at), style);
  return { runs, style };
}

function add(runs, text, style) {
  if (!text) return;
  const last = runs.at(-1);
  if (last && same(last.style, style)) last.text += text;
  else runs.push({ text, style });
}

function same(one, other) {
  return one === other || (one.fg === other.fg && one.bg === other.bg && one.flags === other.flags);
}

// Cells as a terminal has them, without a right margin.
class Line {
  chars = [];
  styles = [];
  at = 0;

  write(char, style) {
    this.reach(this.at);
    this.chars[this.at] = char;
    this.styles[this.at] = style;
    this.at += 1;
  }

  reach(length) {
    while (this.chars.length < length) {
      this.chars.push(" ");
      this.styles.push(PLAIN);
    }
  }

  control(params, final) {
    if (!/^[0-9]*$/.test(params)) return; // a private or a longer one: it moves nothing
    const number = Number(params.slice(0, 6) || 0);
    const limit = Math.max(this.chars.length, FURTHEST);
    if (final === "K") this.erase(number);
    else if (final === "G") this.at = Math.min(Math.max(number, 1) - 1, limit);
    else if (final === "C") this.at = Math.max(this.at, Math.min(this.at + Math.max(number, 1), limit));
    else if (final === "D") this.at = Math.max(0, this.at - Math.max(number, 1));
  }

  erase(how) {
    if (how === 0 || how === 2) this.chars.length = this.styles.length = Math.min(this.at, this.chars.length);
    if (how === 1 || how === 2) {
      const upTo = how === 1 ? this.at + 1 : this.at;
      this.reach(upTo);
      this.chars.fill(" ", 0, upTo);
      this.styles.fill(PLAIN, 0, upTo);
    }
  }

  runs() {
    const runs = [];
    for (let i = 0; i < this.chars.length; i += 1) add(runs, this.chars[i], this.styles[i]);
    return runs;
  }
}

function moving(text, style) {
  const line = new Line();
  let i = 0;
  while (i < text.length) {
    const code = text.codePointAt(i);
    const kind = introduced(text, i, code);
    if (kind === "control sequence") {
      const found = controlSequence(text, i + (code === ESC ? 2 : 1));
      if (found.final === "m" && /^[0-9;:]*$/.test(found.params)) style = graphics(found.params, style);
      else if (found.final) line.control(found.params, found.final);
      i = found.end;
    } else if (kind === "string") {
      i = string(text, i + (code === ESC ? 2 : 1), text[i + 1] === "]" || code === 0x9d);
    } else if (kind === "escape") {
      i = escape(text, i + 1);
    } else {
      if (code >= 0xa0 || (code >= 0x20 && code < DEL)) line.write(String.fromCodePoint(code), style);
      else control(line, code, style);
      i += code > 0xffff ? 2 : 1;
    }
  }
  return { runs: line.runs(), style };
}

function introduced(text, i, code) {
  if (code === 0x9b) return "control sequence";
  if (code === 0x9d || code === 0x90 || code === 0x98 || code === 0x9e || code === 0x9f) return "string";
  if (code !== ESC) return "";
  const next = text[i + 1];
  if (next === "[") return "control sequence";
  return next && "]PX^_".includes(next) ? "string" : "escape";
}

// Parameters, intermediates, a final character; what is broken off ends where it is broken.
function controlSequence(text, i) {
  const begin = i;
  while (within(text, i, 0x30, 0x3f)) i += 1;
  const params = text.slice(begin, i);
  const between = i;
  while (within(text, i, 0x20, 0x2f)) i += 1;
  if (!within(text, i, 0x40, 0x7e)) return { params, final: "", end: i };
  return { params, final: i === between ? text[i] : "", end: i + 1 };
}

// A title, a hyperlink and the like: nothing of it is seen. It ends where something else begins; one that
// the line does not end is none, and is seen.
function string(text, begin, bell) {
  for (let i = begin; i < text.length; i += 1) {
    const code = text.charCodeAt(i);
    if ((bell && code === BEL) || code === 0x9c) return i + 1;
    if (code === ESC && text[i + 1] === "\\") return i + 2;
    if (code === ESC || code === CAN || code === SUB || (code >= 0x80 && code <= 0x9f)) return i;
  }
  return begin;
}

function escape(text, i) {
  while (within(text, i, 0x20, 0x2f)) i += 1;
  return within(text, i, 0x30, 0x7e) ? i + 1 : i;
}

function within(text, i, low, high) {
  const code = text.charCodeAt(i); // NaN behind the end: within nothing
  return code >= low && code <= high;
}

function control(line, code, style) {
  if (code === 0x0d) line.at = 0;
  else if (code === 0x08) line.at = Math.max(0, line.at - 1);
  else if (code === 0x09) line.at += TAB - (line.at % TAB);
  else if (code === DEL) line.write("\u2421", style);
  else if (code < 0x20 && code !== BEL && code !== 0x0e && code !== 0x0f) {
    line.write(String.fromCharCode(0x2400 + code), style);
  }
}

// Select graphic rendition: `params` as they stand between "ESC [" and "m".
export function graphics(params, style) {
  let { fg, bg, flags } = style;
  const codes = params.split(";");
  for (let i = 0; i < codes.length; i += 1) {
    const parts = codes[i].split(":");
    const code = parts[0] === "" ? 0 : Number(parts[0]);
    if (code === 0) [fg, bg, flags] = [-1, -1, 0];
    else if (code === 4 && parts[1] === "0") flags &= ~UNDERLINE;
    else if (code in SETS) flags |= SETS[code];
    else if (code in CLEARS) flags &= ~CLEARS[code];
    else if (code >= 30 && code <= 37) fg = code - 30;
    else if (code >= 90 && code <= 97) fg = code - 82;
    else if (code === 39) fg = -1;
    else if (code >= 40 && code <= 47) bg = code - 40;
    else if (code >= 100 && code <= 107) bg = code - 92;
    else if (code === 49) bg = -1;
    else if (code === 38 || code === 48 || code === 58) {
      const [colour, used] = parts.length > 1 ? [withColons(parts), 0] : withSemicolons(codes, i + 1);
      if (colour >= 0 && code === 38) fg = colour;
      if (colour >= 0 && code === 48) bg = colour;
      i += used;
    }
  }
  return fg === -1 && bg === -1 && flags === 0 ? PLAIN : Object.freeze({ fg, bg, flags });
}

const SETS = {
  1: BOLD, 2: DIM, 3: ITALIC, 4: UNDERLINE, 7: INVERSE, 9: STRIKE, 21: UNDERLINE, 53: OVERLINE,
};
const CLEARS = { 22: BOLD | DIM, 23: ITALIC, 24: UNDERLINE, 27: INVERSE, 29: STRIKE, 55: OVERLINE };

// 38:5:N, 38:2:R:G:B or 38:2:SPACE:R:G:B; -1 for what is none.
function withColons(parts) {
  if (parts[1] === "5") return byte(parts[2]);
  if (parts[1] !== "2") return -1;
  return rgb(parts.length > 5 ? parts.slice(3, 6) : parts.slice(2, 5));
}

// 38;5;N or 38;2;R;G;B, and how many of the codes it takes; an unknown one takes all that follow.
function withSemicolons(codes, i) {
  if (codes[i] === "5") return [byte(codes[i + 1]), 2];
  if (codes[i] === "2") return [rgb(codes.slice(i + 1, i + 4)), 4];
  return [-1, codes.length];
}

function rgb(parts) {
  const [red, green, blue] = [byte(parts[0]), byte(parts[1]), byte(parts[2])];
  return red < 0 || green < 0 || blue < 0 ? -1 : RGB + red * 0x10000 + green * 0x100 + blue;
}

function byte(text) {
  if (text === "" || text === undefined) return 0;
  return /^[0-9]{1,3}$/.test(text) && Number(text) <= 255 ? Number(text) : -1;
}

// The rows of a log that are in the page: some that follow each other, without a gap.
//
// A row is {start, end, ended, element, line, style}: its bytes, whether a newline ends it, its element, the
// part of it that has the text, and the colours that it leaves to the next. What is added must have been
// loaded (log-blocks.js): from REACH before the first new row to REACH behind the last.

import { PLAIN, graphics } from "./log-ansi.js";
import { makeRow } from "./log-paint.js";
import { REACH, rowEnd, rowStart } from "./log-rows.js";

// Added at a time: what is parsed and laid out before the next look at what the reader does.
const BATCH_ROWS = 80;
export const BATCH_BYTES = 98304;
const COLOURS = /\x1b\[([0-9;:]*)m/g;

export class Lines {
  #element;
  #bytes;
  #mark = -1;
  rows = [];

  constructor(element, bytes) {
    this.#element = element;
    this.#bytes = bytes;
  }

  get first() {
    return this.rows[0];
  }

  get last() {
    return this.rows.at(-1);
  }

  get height() {
    return this.#element.getBoundingClientRect().height;
  }

  // Pixels for a byte, NaN when there is nothing.
  get scale() {
    return this.rows.length ? this.height / (this.last.end - this.first.start) : NaN;
  }

  get mark() {
    return this.#mark;
  }

  // Mark the row of this offset, now and whenever it comes.
  set mark(offset) {
    this.#mark = offset;
    for (const row of this.rows) this.#paintMark(row);
  }

  at(offset) {
    return this.rows.find((row) => row.start <= offset && offset < row.end);
  }

  // Those that touch this stretch of the browser's window.
  between(top, bottom) {
    return this.rows.filter((row) => touches(row, top, bottom));
  }

  clear() {
    this.rows = [];
    this.#element.replaceChildren();
  }

  // Only the row of this offset.
  begin(offset) {
    this.clear();
    this.#append(rowStart(this.#bytes, offset, this.#bytes.size), 1);
  }

  // The next ones; a last line that had no newline yet is made anew when the log has gone on.
  extend() {
    const { last } = this;
    const { start, end, ended } = last;
    if (ended || rowEnd(this.#bytes, start, this.#bytes.size) === end) return this.#append(end, BATCH_ROWS);
    this.rows.pop();
    last.element.remove();
    this.#append(start, BATCH_ROWS);
  }

  // Those before the first; returns by how much that moves the others down.
  prepend() {
    const starts = [];
    let { start } = this.first;
    const stop = start - BATCH_BYTES;
    while (start > 0 && start > stop && starts.length < BATCH_ROWS) {
      start = rowStart(this.#bytes, start - 1, this.#bytes.size);
      starts.push(start);
    }
    starts.reverse().push(this.first.start);
    const added = [];
    let style = this.#styleBefore(start);
    for (let i = 0; i + 1 < starts.length; i += 1) {
      added.push(this.#row(starts[i], starts[i + 1], style));
      ({ style } = added[i]);
    }
    const before = this.height;
    this.#element.prepend(...added.map((row) => row.element));
    this.rows.unshift(...added);
    return this.height - before;
  }

  // Take away those that lie wholly above `top`; returns how high they were.
  cutAbove(top) {
    const kept = this.rows.findIndex((row) => touches(row, top, Infinity));
    const before = this.height;
    if (kept > 0) for (const row of this.rows.splice(0, kept)) row.element.remove();
    return before - this.height;
  }

  cutBelow(bottom) {
    const kept = this.rows.findLastIndex((row) => touches(row, -Infinity, bottom));
    if (kept >= 0) for (const row of this.rows.splice(kept + 1)) row.element.remove();
  }

  #append(start, most) {
    const { size } = this.#bytes;
    const added = [];
    let style = this.last?.style ?? this.#styleBefore(start);
    const stop = start + BATCH_BYTES;
    while (start < size && start < stop && added.length < most) {
      const row = this.#row(start, rowEnd(this.#bytes, start, size), style);
      added.push(row);
      ({ end: start, style } = row);
    }
    this.#element.append(...added.map((row) => row.element));
    this.rows.push(...added);
  }

  #row(start, end, style) {
    const ended = end > start && this.#bytes.at(end - 1) === 10;
    const text = this.#bytes.text(start, ended ? end - 1 : end);
    const row = { start, end, ended, ...makeRow(start, text, style) };
    this.#paintMark(row);
    return row;
  }

  #paintMark({ start, end, element }) {
    element.classList.toggle("log-marked", start <= this.#mark && this.#mark < end);
  }

  // The colours that are left over from what was printed shortly before.
  #styleBefore(start) {
    let style = PLAIN;
    const text = this.#bytes.latin(Math.max(0, start - REACH), start);
    for (const [, params] of text.matchAll(COLOURS)) style = graphics(params, style);
    return style;
  }
}

function touches(row, top, bottom) {
  const box = row.element.getBoundingClientRect();
  return box.bottom >= top && box.top <= bottom;
}

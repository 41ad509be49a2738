// The scrolling window on a log of any length: a few hundred rows in the page, whatever lies around them.
//
// Rows stand in `rows`, which is placed on `canvas`, as high as all of the log would be (up to MAX_HEIGHT),
// within `scroller`. How many lines there are is not known, so a place on the canvas stands for a place in
// the bytes, roughly: a jump of the scrollbar is taken for one in the bytes, while scrolling near the rows
// adds rows to their ends and takes away what is far off. Where the two drift apart, the rows are put back
// where they belong, together with the scrollbar, when nobody is scrolling or at either end of the log.
//
// `follow` is whether the end is kept in view; scrolling up ends it, scrolling to the end begins it again.
// Events on `scroller`: "logmoved" (what is seen changed), "logfollow", "logproblem" (detail: the error).

import { PLAIN, graphics } from "./log-ansi.js";
import { makeRow } from "./log-paint.js";
import { REACH, rowEnd, rowStart } from "./log-rows.js";

const MAX_HEIGHT = 6_000_000;
// Room that is kept to scroll into on the side where there is more of the log.
const ROOM = 4000;
// In heights of the window: rows are added when fewer than NEAR are left, and taken away beyond NEAR + FAR.
// Where lines are very long, so much text is too slow to lay out: then only as far as LIGHT bytes go.
const NEAR = 1.5, NEAR_AT_LEAST = 0.3, FAR = 2.5;
const LIGHT = 98304;
// Whoever scrolls past the rows by NEXT gets the next ones, by NEARBY those that must be about there; beyond
// that it is the scrollbar that was moved, to the same share of the bytes.
const NEXT = 2, NEARBY = 8;
// Added at a time: what is parsed and laid out before the next look at the clock.
const BATCH_ROWS = 80, BATCH_BYTES = 98304;
// A log that grows by more than this at once is not read through to its end, but from there.
const SKIP = 4 * BATCH_BYTES;
const IDLE = 300;
const COLOURS = /\x1b\[([0-9;:]*)m/g;

export class View {
  #scroller;
  #canvas;
  #rowsElement;
  #bytes;
  #rows = []; // {start, end, element, line, style}, without gaps
  #top = 0; // where the rows stand on the canvas
  #height = 0; // of the canvas
  #scale = 0.1; // pixels for a byte
  #turn = 0; // of the latest place that was asked for; work on another is given up
  #known; // how long the log is by the latest word
  #busy = -1; // the turn that is being worked on
  #wanted = [-1, "end"];
  #expected = 0; // where we left the scrollbar
  #windowBefore = 0;
  #mark = -1;
  #idle = 0;
  follow = true;

  constructor(scroller, canvas, rowsElement, bytes) {
    this.#scroller = scroller;
    this.#canvas = canvas;
    this.#rowsElement = rowsElement;
    this.#bytes = bytes;
    this.#known = bytes.size;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(scroller);
  }

  get rows() {
    return this.#rows;
  }

  get size() {
    return this.#bytes.size;
  }

  // The first row that is seen, and how many bytes lie before the lower edge of what is seen.
  get seen() {
    const { first, last } = this.#seen();
    return { start: first?.start ?? 0, end: last?.end ?? 0 };
  }

  // Show the row of this offset: at the "start", "center" or "end" of the window. -1 is the log's end.
  async show(offset, where = "center") {
    this.#wanted = [offset, where];
    await this.#work(++this.#turn, async (turn) => {
      this.#grow();
      const target = offset < 0 ? this.size - 1 : Math.max(0, Math.min(offset, this.size - 1));
      if (!(await this.#build(turn, target))) return;
      await this.#fill(turn);
      if (turn !== this.#turn) return;
      this.#scale = this.#measuredScale();
      this.#settle();
      this.#align(target, { start: 0, center: 0.4, end: 1 }[where]);
      await this.#fill(turn);
      if (turn === this.#turn) this.#rest();
    });
  }

  // After something went wrong.
  async retry() {
    if (this.#rows.length) this.#refill();
    else await this.show(...this.#wanted);
  }

  // The log has grown to this size. Work that is under way sees it at its next step.
  grown(size) {
    this.#known = Math.max(this.#known, size);
    if (this.#known === this.size || this.#busy === this.#turn) return;
    if (this.#rows.length) this.#refill();
    else this.show(this.follow ? -1 : 0, this.follow ? "end" : "start");
  }

  // Another log has the name, or this one was cut short.
  async replaced(size) {
    this.#known = size;
    this.#bytes.reset(size);
    this.#clear();
    this.#settle();
    await this.show(-1, "end");
  }

  // Keep the end in view, from now on.
  async toEnd() {
    this.#setFollow(true);
    if (this.#rows.at(-1)?.end === this.size && this.#busy !== this.#turn) this.#settle();
    else await this.show(-1, "end");
  }

  pause() {
    this.#setFollow(false);
  }

  mark(offset) {
    this.#mark = offset;
    for (const row of this.#rows) this.#paintMark(row);
  }

  get marked() {
    return this.#mark;
  }

  // The row of this offset, if it is in the page.
  rowAt(offset) {
    return this.#rows.find((row) => row.start <= offset && offset < row.end);
  }

  isSeen(row) {
    const { top, bottom } = this.#scroller.getBoundingClientRect();
    const box = row.element.getBoundingClientRect();
    return box.top >= top && box.bottom <= bottom;
  }

  // Lines are folded otherwise now: the same row stays at the upper edge.
  refold(change) {
    const { first } = this.#seen();
    const before = first?.element.getBoundingClientRect().top ?? 0;
    change();
    this.#scale = this.#measuredScale();
    this.#settle();
    if (!this.follow && first) {
      this.#shift(this.#scroller.scrollTop, first.element.getBoundingClientRect().top - before);
    }
    this.#refill();
  }

  // Rows

  get #window() {
    return this.#scroller.clientHeight;
  }

  // One piece of work at a time: another turn ends it, and what is missing is seen by its own loop.
  async #work(turn, work) {
    this.#busy = turn;
    try {
      await work(turn);
    } catch (error) {
      if (turn === this.#turn && error.name !== "AbortError") this.#tell("logproblem", error);
    } finally {
      if (this.#busy === turn) this.#busy = -1;
    }
  }

  // Between two steps only, so that what a step has loaded is what it looks at.
  #grow() {
    if (this.#known === this.size) return;
    this.#bytes.size = this.#known;
    this.#settle();
  }

  #refill() {
    if (this.#busy !== this.#turn) this.#work(this.#turn, (turn) => this.#fill(turn));
  }

  // Begin anew with the row of this offset, put where the scrollbar stands for it, or at `scrollTop`.
  async #build(turn, target, scrollTop) {
    this.#grow();
    if (this.size) await this.#bytes.load(target - BATCH_BYTES, target + BATCH_BYTES);
    if (turn !== this.#turn) return false;
    this.#clear();
    if (this.size) this.#append(rowStart(this.#bytes, target, this.size), 1);
    this.#scale = this.#measuredScale();
    this.#top = Math.round(scrollTop ?? this.#proportional(target));
    this.#height = Math.max(this.#wholeHeight(), this.#top + this.#rowsHeight() + this.#window);
    this.#apply();
    this.#scrollTo(this.#top);
    this.#settle();
    return true;
  }

  #clear() {
    this.#rows = [];
    this.#rowsElement.replaceChildren();
  }

  #row(start, end, style) {
    const bytes = this.#bytes;
    const ended = end > start && bytes.at(end - 1) === 10;
    const row = { start, end, ended, ...makeRow(start, bytes.text(start, ended ? end - 1 : end), style) };
    this.#paintMark(row);
    return row;
  }

  #paintMark(row) {
    const marked = row.start <= this.#mark && this.#mark < row.end;
    row.element.classList.toggle("log-marked", marked);
  }

  #append(start, most) {
    const { size } = this;
    const added = [];
    let style = this.#rows.at(-1)?.style ?? this.#styleBefore(start);
    const stop = start + BATCH_BYTES;
    while (start < size && start < stop && added.length < most) {
      const row = this.#row(start, rowEnd(this.#bytes, start, size), style);
      added.push(row);
      ({ end: start } = row);
      ({ style } = row);
    }
    this.#rowsElement.append(...added.map((row) => row.element));
    this.#rows.push(...added);
  }

  #prepend() {
    const size = this.size;
    const starts = [];
    let start = this.#rows[0].start;
    const stop = start - BATCH_BYTES;
    while (start > 0 && start > stop && starts.length < BATCH_ROWS) {
      start = rowStart(this.#bytes, start - 1, size);
      starts.push(start);
    }
    const added = [];
    let style = this.#styleBefore(start);
    for (const [i, begin] of starts.reverse().entries()) {
      const row = this.#row(begin, starts[i + 1] ?? this.#rows[0].start, style);
      added.push(row);
      ({ style } = row);
    }
    const before = this.#rowsHeight();
    this.#rowsElement.prepend(...added.map((row) => row.element));
    this.#rows.unshift(...added);
    this.#top -= this.#rowsHeight() - before;
  }

  // The colours that are left over from what was printed shortly before.
  #styleBefore(start) {
    let style = PLAIN;
    const text = this.#bytes.latin(Math.max(0, start - REACH), start);
    for (const [, params] of text.matchAll(COLOURS)) style = graphics(params, style);
    return style;
  }

  // Add rows until there are enough around what is seen.
  async #fill(turn) {
    if (turn === this.#turn) this.#busy = turn;
    while (turn === this.#turn && this.#rows.length) {
      this.#grow();
      const last = this.#rows.at(-1);
      const first = this.#rows[0];
      const near = this.#near();
      const above = this.#scroller.scrollTop - this.#top;
      const below = this.#rowsHeight() - above - this.#window;
      // The reader went elsewhere; the event that tells so is on its way.
      if (Math.max(-above, -below) > (NEXT + 1) * this.#window && !this.follow) break;
      const downwards = last.end < this.size && (this.follow || below < near);
      if (downwards && this.follow && this.size - last.end > SKIP) {
        if (!(await this.#build(turn, this.size - 1))) return;
        continue;
      } else if (downwards) {
        const from = last.ended ? last.end : last.start;
        await this.#bytes.load(from - 2 * REACH, from + BATCH_BYTES + 2 * REACH);
        if (turn !== this.#turn) return;
        this.#dropOpen();
        this.#append(this.#rows.at(-1)?.end ?? from, BATCH_ROWS);
      } else if (first.start > 0 && above < near) {
        await this.#bytes.load(first.start - BATCH_BYTES - 3 * REACH, first.start + REACH);
        if (turn !== this.#turn) return;
        this.#prepend();
      } else {
        break;
      }
      this.#settle();
      if (this.#trim(downwards)) this.#settle();
    }
    if (this.#busy === turn) this.#busy = -1; // at once: what changes from now on needs another one
    this.#tell("logmoved");
  }

  // A last line that had no newline yet is made anew when the log has gone on.
  #dropOpen() {
    const last = this.#rows.at(-1);
    if (last.ended || rowEnd(this.#bytes, last.start, this.size) === last.end) return;
    last.element.remove();
    this.#rows.pop();
  }

  #trim(downwards) {
    const far = this.#near() + FAR * this.#window;
    const { top, bottom } = this.#scroller.getBoundingClientRect();
    const before = this.#rowsHeight();
    const kept = downwards ? this.#rows.findIndex((row) => this.#within(row, top - far, Infinity))
      : this.#rows.findLastIndex((row) => this.#within(row, -Infinity, bottom + far));
    if (kept < 0) return false;
    const gone = downwards ? this.#rows.splice(0, kept) : this.#rows.splice(kept + 1);
    for (const row of gone) row.element.remove();
    if (downwards) this.#top += before - this.#rowsHeight();
    return gone.length > 0;
  }

  #within(row, low, high) {
    const box = row.element.getBoundingClientRect();
    return box.bottom >= low && box.top <= high;
  }

  // Places

  #near() {
    const far = Math.min(NEAR * this.#window, LIGHT * this.#measuredScale());
    return Math.max(NEAR_AT_LEAST * this.#window, far);
  }

  #rowsHeight() {
    return this.#rowsElement.getBoundingClientRect().height;
  }

  #measuredScale() {
    const bytes = this.#rows.length ? this.#rows.at(-1).end - this.#rows[0].start : 0;
    return bytes ? this.#rowsHeight() / bytes : this.#scale;
  }

  // As high as the whole log would be, at the scale of what is in the page.
  #wholeHeight() {
    return Math.min(MAX_HEIGHT, this.size * this.#scale);
  }

  #proportional(offset) {
    const free = Math.max(0, this.#wholeHeight() - this.#window);
    return this.size ? (offset / this.size) * free : 0;
  }

  // Put right what is wrong with the places, so that nobody sees the rows move.
  #settle() {
    const height = this.#rowsHeight();
    const first = this.#rows[0], last = this.#rows.at(-1);
    const before = this.#top;
    const { scrollTop } = this.#scroller; // as it is before the canvas can become too short for it
    if (!this.#isResized() && this.follow && scrollTop < this.#expected - 1.5) this.#setFollow(false);
    const above = first ? Math.min(ROOM, first.start * this.#scale) : 0;
    const below = last ? Math.min(ROOM, (this.size - last.end) * this.#scale) : 0;
    if (above === 0) this.#top = 0;
    else if (this.#top < above || this.#top > 2 * MAX_HEIGHT) {
      this.#top = Math.round(Math.max(above, this.#proportional(first.start)));
    }
    const end = this.#top + height;
    this.#height = below === 0 ? end : Math.max(this.#wholeHeight(), end + below);
    this.#apply();
    if (this.follow && last?.end === this.size) this.#scrollTo(this.#height - this.#window);
    else this.#shift(scrollTop, this.#top - before);
  }

  // Scroll until the row stands at this share of the window, as far as the log goes.
  #align(offset, share) {
    const row = this.rowAt(offset);
    if (!row || (this.follow && this.#rows.at(-1).end === this.size)) return;
    const box = row.element.getBoundingClientRect();
    const inset = Math.max(0, (this.#window - box.height) * share);
    const away = box.top - this.#scroller.getBoundingClientRect().top - inset;
    this.#shift(this.#scroller.scrollTop, away);
  }

  #apply() {
    this.#canvas.style.height = `${this.#height}px`;
    this.#rowsElement.style.transform = `translateY(${this.#top}px)`;
  }

  #scrollTo(top) {
    if (Math.abs(this.#scroller.scrollTop - top) >= 1) this.#scroller.scrollTop = top;
    this.#expected = this.#scroller.scrollTop;
  }

  // So far from where it stood; what the reader has scrolled meanwhile, and is not told yet, stays his.
  #shift(from, distance) {
    if (Math.abs(this.#scroller.scrollTop - from - distance) >= 1) this.#scroller.scrollTop = from + distance;
    this.#expected += this.#scroller.scrollTop - from;
  }

  #seen() {
    const { top, bottom } = this.#scroller.getBoundingClientRect();
    const seen = this.#rows.filter((row) => this.#within(row, top + 1, bottom - 1));
    return { first: seen[0], last: seen.at(-1) };
  }

  // What the reader does

  #scrolled() {
    const { scrollTop } = this.#scroller;
    const moved = this.#isResized() ? 0 : scrollTop - this.#expected;
    this.#expected = scrollTop;
    const above = this.#top - (scrollTop + this.#window);
    const below = scrollTop - (this.#top + this.#rowsHeight());
    const gap = Math.max(above, below) / this.#window;
    if (Math.abs(moved) < 1.5 && gap <= 0) return; // it was ourselves
    const down = scrollTop + this.#window >= this.#height - 2;
    const atEnd = down && this.#rows.at(-1)?.end === this.size;
    if (moved <= -1.5 && !atEnd) this.#setFollow(false);
    else if (moved >= 1.5 && atEnd) this.#setFollow(true);
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#rest(), IDLE);
    if (gap <= NEXT) {
      this.#refill();
      this.#tell("logmoved");
    } else if (down) this.toEnd();
    else if (gap > NEARBY || !this.#rows.length) {
      this.#jump(scrollTop, this.size * (scrollTop / Math.max(1, this.#height - this.#window)));
    } else if (above > 0) this.#jump(scrollTop, this.#rows[0].start - (this.#top - scrollTop) / this.#scale);
    else this.#jump(scrollTop, this.#rows.at(-1).end + below / this.#scale);
  }

  // The window is another since the last look: then it was the browser that scrolled.
  #isResized() {
    if (this.#window === this.#windowBefore) return false;
    this.#windowBefore = this.#window;
    this.#expected = this.#scroller.scrollTop;
    return true;
  }

  // To this offset, roughly, and leave the scrollbar where it is.
  #jump(scrollTop, offset) {
    const target = Math.max(0, Math.min(this.size - 1, Math.floor(offset)));
    this.#wanted = [target, "start"];
    this.#work(++this.#turn, async (turn) => {
      if (await this.#build(turn, target, scrollTop)) await this.#fill(turn);
    });
  }

  // Nobody scrolls: the scrollbar may show where we are, if it is far from it.
  #rest() {
    const { first } = this.#seen();
    if (!first || this.follow) return;
    if (this.#rows[0].start === 0 || this.#rows.at(-1).end === this.size) return;
    const { scrollTop } = this.#scroller;
    const away = Math.round(this.#proportional(first.start) - scrollTop);
    if (Math.abs(away) < 3 * this.#window) return;
    const before = this.#top;
    this.#top = Math.max(0, before + away);
    this.#height = Math.max(this.#wholeHeight(), this.#top + this.#rowsHeight());
    this.#apply();
    this.#shift(scrollTop, this.#top - before);
    this.#settle();
  }

  #resized() {
    if (!this.#rows.length) return;
    this.#settle();
    this.#refill();
  }

  #setFollow(follow) {
    if (this.follow === follow) return;
    this.follow = follow;
    this.#tell("logfollow");
  }

  #tell(type, detail) {
    this.#scroller.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

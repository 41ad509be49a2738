// The scrolling window on a log of any length: a few hundred rows in the page, whatever lies around them.
//
// Rows (log-lines.js) stand in an element that is placed on `canvas`, as high as all of the log would be (up to MAX_HEIGHT),
// within `scroller`. How many lines there are is not known, so a place on the canvas stands for a place in
// the bytes, roughly: a jump of the scrollbar is taken for one in the bytes, while scrolling near the rows
// adds rows to their ends and takes away what is far off. Where the two drift apart, the rows are put back
// where they belong, together with the scrollbar, when nobody is scrolling or at either end of the log.
//
// `follow` is whether the end is kept in view; scrolling up ends it, scrolling to the end begins it again.
// Events on `scroller`: "logmoved" (what is seen changed), "logfollow", "logproblem" (detail: the error).

import { BATCH_BYTES, Lines } from "./log-lines.js";
import { REACH } from "./log-rows.js";

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
// A log that grows by more than this at once is not read through to its end, but from there.
const SKIP = 4 * BATCH_BYTES;
const IDLE = 300;

export class View {
  #scroller;
  #canvas;
  #rowsElement;
  #bytes;
  #lines;
  #top = 0; // where the rows stand on the canvas
  #height = 0; // of the canvas
  #scale = 0.1; // pixels for a byte
  #turn = 0; // of the latest place that was asked for; work on another is given up
  #known; // how long the log is by the latest word
  #busy = -1; // the turn that is being worked on
  #wanted = [-1, "end"];
  #expected = 0; // where we left the scrollbar
  #windowBefore = 0;
  #idle = 0;
  follow = true;

  constructor(scroller, canvas, rowsElement, bytes) {
    this.#scroller = scroller;
    this.#canvas = canvas;
    this.#rowsElement = rowsElement;
    this.#bytes = bytes;
    this.#lines = new Lines(rowsElement, bytes);
    this.#known = bytes.size;
    scroller.addEventListener("scroll", () => this.#scrolled(), { passive: true });
    new ResizeObserver(() => this.#resized()).observe(scroller);
  }

  // Those that are in the page.
  get rows() {
    return this.#lines.rows;
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
      this.#measure();
      this.#settle();
      this.#align(target, { start: 0, center: 0.4, end: 1 }[where]);
      await this.#fill(turn);
      if (turn === this.#turn) this.#rest();
    });
  }

  // After something went wrong.
  async retry() {
    if (this.rows.length) this.#refill();
    else await this.show(...this.#wanted);
  }

  // The log has grown to this size. Work that is under way sees it at its next step.
  grown(size) {
    this.#known = Math.max(this.#known, size);
    if (this.#known === this.size || this.#busy === this.#turn) return;
    if (this.rows.length) this.#refill();
    else this.show(this.follow ? -1 : 0, this.follow ? "end" : "start");
  }

  // Another log has the name, or this one was cut short.
  async replaced(size) {
    this.#known = size;
    this.#bytes.reset(size);
    this.#lines.clear();
    this.#settle();
    await this.show(-1, "end");
  }

  // Keep the end in view, from now on.
  async toEnd() {
    this.#setFollow(true);
    if (this.#hasEnd() && this.#busy !== this.#turn) this.#settle();
    else await this.show(-1, "end");
  }

  pause() {
    this.#setFollow(false);
  }

  // The offset whose row is marked, -1 for none.
  get marked() {
    return this.#lines.mark;
  }

  set marked(offset) {
    this.#lines.mark = offset;
  }

  // The row of this offset, if it is in the page.
  rowAt(offset) {
    return this.#lines.at(offset);
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
    this.#measure();
    this.#settle();
    if (!this.follow && first) {
      this.#shift(this.#scroller.scrollTop, first.element.getBoundingClientRect().top - before);
    }
    this.#refill();
  }

  // Work

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
    if (this.size) this.#lines.begin(target);
    else this.#lines.clear();
    this.#measure();
    this.#top = Math.round(scrollTop ?? this.#proportional(target));
    this.#height = Math.max(this.#wholeHeight(), this.#top + this.#lines.height + this.#window);
    this.#apply();
    this.#scrollTo(this.#top);
    this.#settle();
    return true;
  }

  // Add rows until there are enough around what is seen.
  async #fill(turn) {
    if (turn === this.#turn) this.#busy = turn;
    while (turn === this.#turn && this.rows.length) {
      this.#grow();
      const { first, last } = this.#lines;
      const near = this.#near();
      const above = this.#scroller.scrollTop - this.#top;
      const below = this.#lines.height - above - this.#window;
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
        this.#lines.extend();
      } else if (first.start > 0 && above < near) {
        await this.#bytes.load(first.start - BATCH_BYTES - 3 * REACH, first.start + REACH);
        if (turn !== this.#turn) return;
        this.#top -= this.#lines.prepend();
      } else {
        break;
      }
      this.#settle();
      this.#trim(downwards);
    }
    if (this.#busy === turn) this.#busy = -1; // at once: what changes from now on needs another one
    this.#tell("logmoved");
  }

  #trim(downwards) {
    const far = this.#near() + FAR * this.#window;
    const { top, bottom } = this.#scroller.getBoundingClientRect();
    if (downwards) this.#top += this.#lines.cutAbove(top - far);
    else this.#lines.cutBelow(bottom + far);
    this.#settle();
  }

  // Places

  #near() {
    const scale = this.#lines.scale || this.#scale;
    return Math.max(NEAR_AT_LEAST * this.#window, Math.min(NEAR * this.#window, LIGHT * scale));
  }

  #measure() {
    this.#scale = this.#lines.scale || this.#scale;
  }

  #hasEnd() {
    return this.#lines.last?.end === this.size;
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
    const height = this.#lines.height;
    const { first, last } = this.#lines;
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
    if (this.follow && this.#hasEnd()) this.#scrollTo(this.#height - this.#window);
    else this.#shift(scrollTop, this.#top - before);
  }

  // Scroll until the row stands at this share of the window, as far as the log goes.
  #align(offset, share) {
    const row = this.rowAt(offset);
    if (!row || (this.follow && this.#hasEnd())) return;
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
    const seen = this.#lines.between(top + 1, bottom - 1);
    return { first: seen[0], last: seen.at(-1) };
  }

  // What the reader does

  #scrolled() {
    const { scrollTop } = this.#scroller;
    const moved = this.#isResized() ? 0 : scrollTop - this.#expected;
    this.#expected = scrollTop;
    const above = this.#top - (scrollTop + this.#window);
    const below = scrollTop - (this.#top + this.#lines.height);
    const gap = Math.max(above, below) / this.#window;
    if (Math.abs(moved) < 1.5 && gap <= 0) return; // it was ourselves
    const down = scrollTop + this.#window >= this.#height - 2;
    const atEnd = down && this.#hasEnd();
    if (moved <= -1.5 && !atEnd) this.#setFollow(false);
    else if (moved >= 1.5 && atEnd) this.#setFollow(true);
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => this.#rest(), IDLE);
    if (gap <= NEXT) {
      this.#refill();
      this.#tell("logmoved");
    } else if (down) this.toEnd();
    else if (gap > NEARBY || !this.rows.length) {
      this.#jump(scrollTop, this.size * (scrollTop / Math.max(1, this.#height - this.#window)));
    } else if (above > 0) {
      this.#jump(scrollTop, this.#lines.first.start - (this.#top - scrollTop) / this.#scale);
    } else this.#jump(scrollTop, this.#lines.last.end + below / this.#scale);
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
    if (this.#lines.first.start === 0 || this.#hasEnd()) return;
    const { scrollTop } = this.#scroller;
    const away = Math.round(this.#proportional(first.start) - scrollTop);
    if (Math.abs(away) < 3 * this.#window) return;
    const before = this.#top;
    this.#top = Math.max(0, before + away);
    this.#height = Math.max(this.#wholeHeight(), this.#top + this.#lines.height);
    this.#apply();
    this.#shift(scrollTop, this.#top - before);
    this.#settle();
  }

  #resized() {
    if (!this.rows.length) return;
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

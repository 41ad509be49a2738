// The bytes of a log, as far as they are needed: fetched by ranges, block by block, few of them kept.
//
//   await blocks.load(from, to)         then all of [from, to) is there, as far as the log goes
//   lastNewline, firstNewline, at       what log-rows.js asks
//   text(from, to)                      the text of these bytes, which must be there
//
// `size` is how long the log is known to be; setting `grown` makes it longer. What was read before it grew
// stays valid, and only what is new is fetched. `load` rejects with a LoadError when the log cannot be had.

export const BLOCK = 131072;
const KEPT = 24;
const NEWLINE = 10;

export class LoadError extends Error {}

export class Blocks {
  #url;
  #blocks = new Map(); // number -> Uint8Array, the longest unused first
  #coming = new Map(); // number -> promise
  #stop = new AbortController();
  #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  size;

  constructor(url, size) {
    this.#url = url;
    this.size = size;
  }

  // Another file has the name now: nothing that was read is true of it.
  reset(size) {
    this.#stop.abort();
    this.#stop = new AbortController();
    this.#blocks.clear();
    this.#coming.clear();
    this.size = size;
  }

  // How many bytes are held in memory.
  get held() {
    let sum = 0;
    for (const block of this.#blocks.values()) sum += block.length;
    return sum;
  }

  has(from, to) {
    for (const number of this.#numbers(from, to)) if (!this.#whole(number)) return false;
    return true;
  }

  async load(from, to) {
    for (let tries = 0; !this.has(from, to); tries += 1) {
      if (tries > 2) throw new LoadError("the log changes faster than it can be read");
      const waits = new Set();
      let missing = [];
      const fetchMissing = () => {
        if (missing.length) waits.add(this.#fetch(missing));
        missing = [];
      };
      for (const number of this.#numbers(from, to)) {
        if (this.#coming.has(number)) waits.add(this.#coming.get(number));
        if (this.#coming.has(number) || this.#whole(number)) fetchMissing();
        else missing.push(number);
      }
      fetchMissing();
      await Promise.all(waits);
    }
    for (const number of this.#numbers(from, to)) this.#use(number);
  }

  lastNewline(from, to) {
    for (let high = Math.min(to, this.size); high > from; ) {
      const number = Math.floor((high - 1) / BLOCK);
      const low = number * BLOCK;
      const found = this.#block(number).lastIndexOf(NEWLINE, high - 1 - low);
      if (found >= 0 && low + found >= from) return low + found;
      high = low;
    }
    return -1;
  }

  firstNewline(from, to) {
    to = Math.min(to, this.size);
    for (let low = from; low < to; ) {
      const number = Math.floor(low / BLOCK);
      const found = this.#block(number).indexOf(NEWLINE, low - number * BLOCK);
      if (found >= 0) return number * BLOCK + found < to ? number * BLOCK + found : -1;
      low = (number + 1) * BLOCK;
    }
    return -1;
  }

  at(offset) {
    const number = Math.floor(offset / BLOCK);
    return this.#block(number)[offset - number * BLOCK];
  }

  text(from, to) {
    return this.#decoder.decode(this.#slice(from, to));
  }

  // One character for each byte: enough to look for what is ASCII.
  latin(from, to) {
    let text = "";
    const bytes = this.#slice(from, to);
    for (let i = 0; i < bytes.length; i += 8192) {
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    }
    return text;
  }

  #slice(from, to) {
    const first = Math.floor(from / BLOCK);
    if (to <= (first + 1) * BLOCK) return this.#block(first).subarray(from - first * BLOCK, to - first * BLOCK);
    const joined = new Uint8Array(to - from);
    for (const number of this.#numbers(from, to)) {
      const low = number * BLOCK;
      const part = this.#block(number).subarray(Math.max(0, from - low), Math.max(0, to - low));
      joined.set(part, Math.max(0, low - from));
    }
    return joined;
  }

  *#numbers(from, to) {
    const last = Math.ceil(Math.min(to, this.size) / BLOCK);
    for (let number = Math.floor(Math.max(0, from) / BLOCK); number < last; number += 1) yield number;
  }

  #length(number) {
    return Math.min(BLOCK, this.size - number * BLOCK);
  }

  #whole(number) {
    return (this.#blocks.get(number)?.length ?? -1) >= this.#length(number);
  }

  #block(number) {
    const block = this.#blocks.get(number);
    if (block === undefined) throw new Error(`block ${number} was not loaded`);
    return block;
  }

  #use(number) {
    const block = this.#block(number);
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
  }

  #fetch(numbers) {
    const begun = this.#blocks.get(numbers[0]) ?? new Uint8Array(0);
    const start = numbers[0] * BLOCK + begun.length;
    const end = numbers.at(-1) * BLOCK + this.#length(numbers.at(-1));
    const { signal } = this.#stop;
    const coming = this.#range(start, end, signal).then((data) => {
      signal.throwIfAborted(); // the log was replaced meanwhile
      const all = new Uint8Array(begun.length + data.length);
      all.set(begun);
      all.set(data, begun.length);
      numbers.forEach((number, i) => this.#keep(number, all.slice(i * BLOCK, (i + 1) * BLOCK)));
    }).finally(() => {
      for (const number of numbers) if (this.#coming.get(number) === coming) this.#coming.delete(number);
    });
    for (const number of numbers) this.#coming.set(number, coming);
    return coming;
  }

  #keep(number, block) {
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
    for (const old of this.#blocks.keys()) {
      if (this.#blocks.size <= KEPT) break;
      this.#blocks.delete(old);
    }
  }

  async #range(start, end, signal) {
    let answer;
    try {
      answer = await fetch(this.#url, {
        headers: { Range: `bytes=${start}-${end - 1}` },
        cache: "no-store", // it grows; and the browser's cache is not to hold gigabytes
        signal,
      });
      if (answer.status === 206) return new Uint8Array(await answer.arrayBuffer());
    } catch (error) {
      if (signal.aborted) throw error;
      throw new LoadError("the server cannot be reached", { cause: error });
    }
    throw new LoadError(`the server answers ${answer.status}`);
  }
}

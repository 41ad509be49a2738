// Where the rows of a log begin: found in the bytes around any offset, without a look at the rest.
//
// A row is a line, or a piece of a line that is too long to be shown at once. Beside the newlines there
// is a boundary at each multiple of PIECE that has no newline in the whole PIECE before it (moved behind
// the UTF-8 character that it would cut). So every line of up to PIECE bytes is one row, no row is longer
// than two of them and a character, and whoever looks, from wherever he came, sees the same rows.
//
// `bytes` gives what it has: lastNewline(from, to) and firstNewline(from, to), -1 for none, and at(offset).
// The functions look at no more than REACH bytes to each side of where they are asked about.

export const PIECE = 8192;
export const REACH = 2 * PIECE + 8;
const LONGEST_TAIL = 3;

// Where the row begins that `offset` lies in.
export function rowStart(bytes, offset, size) {
  let piece = Math.floor(offset / PIECE);
  const newline = bytes.lastNewline(piece * PIECE, offset);
  if (newline >= 0) return newline + 1;
  for (; piece > 0; piece -= 1) {
    const before = bytes.lastNewline((piece - 1) * PIECE, piece * PIECE);
    if (before >= 0) return before + 1;
    const start = between(bytes, piece * PIECE, size);
    if (start <= offset) return start;
  }
  return 0;
}

// Where the row ends that begins at `start`: the next one's start, or the end of the log.
export function rowEnd(bytes, start, size) {
  for (let piece = Math.floor(start / PIECE); ; piece += 1) {
    const [low, high] = [piece * PIECE, (piece + 1) * PIECE];
    const newline = bytes.firstNewline(Math.max(start, low), Math.min(high, size));
    if (newline >= 0) return newline + 1;
    if (high >= size) return size;
    if (bytes.lastNewline(low, Math.min(Math.max(start, low), high)) < 0) {
      return Math.min(between(bytes, high, size), size);
    }
  }
}

// The offset, or where the character ends that it lies in.
function between(bytes, offset, size) {
  let at = offset;
  while (at < offset + LONGEST_TAIL && at < size && (bytes.at(at) & 0xc0) === 0x80) at += 1;
  return at;
}

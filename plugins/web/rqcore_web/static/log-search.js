// Finding text in all of the log, on the server, and showing in the page what was found.

// The next place of the text from `from`, or null: {offset, line_offset}. The server looks at a piece at a
// time; `onPlace(offset, size)` tells how far it is, and `signal` ends it; it looks no further than `until`.
export async function find(url, { text, matchCase, from, until, forward, signal, onPlace }) {
  const query = new URLSearchParams({
    q: text, case: matchCase ? "1" : "0", direction: forward ? "forward" : "backward",
  });
  for (let next = from; next !== null; ) {
    query.set("from", String(next));
    const answer = await fetch(`${url}?${query}`, { signal, cache: "no-store" });
    if (!answer.ok) throw new Error(`the server answers ${answer.status}`);
    const found = await answer.json();
    if (found.matches.length) return found.matches[0];
    next = found.next;
    if (next === null || (forward ? next >= until : next <= until)) return null;
    onPlace(next, found.size);
  }
  return null;
}

// The text's places in this element, as ranges, whatever elements its pieces stand in.
export function* rangesOf(element, text, matchCase) {
  const fold = (string) => (matchCase ? string : lower(string));
  const nodes = [];
  const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  let whole = "";
  while (walker.nextNode()) {
    nodes.push([whole.length, walker.currentNode]);
    whole += walker.currentNode.data;
  }
  const wanted = fold(text);
  const folded = fold(whole);
  let node = 0;
  for (let at = folded.indexOf(wanted); at >= 0; at = folded.indexOf(wanted, at + wanted.length)) {
    while (node + 1 < nodes.length && nodes[node + 1][0] <= at) node += 1;
    const range = new Range();
    range.setStart(nodes[node][1], at - nodes[node][0]);
    const end = at + wanted.length;
    let last = node;
    while (last + 1 < nodes.length && nodes[last + 1][0] < end) last += 1;
    range.setEnd(nodes[last][1], end - nodes[last][0]);
    yield range;
  }
}

// Lower case, but where that would change the length: places have to stay where they are.
function lower(string) {
  const changed = string.toLowerCase();
  if (changed.length === string.length) return changed;
  return Array.from(string, (char) => (char.toLowerCase().length === char.length ? char.toLowerCase() : char)).join("");
}

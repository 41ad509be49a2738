// One stream of events (/api/v1/events), that comes back by itself after every interruption and says each
// time what it has seen (Last-Event-ID), so that nothing is missed. Read by fetch and not by EventSource:
// that cannot say what the page had seen when it was made, does not notice a connection that is dead, and
// gives up for good when the site answers with an error once.
//
// tell({kind: "open", last}) when it is open; tell({kind: "lost"}) when it is not any more;
// tell({kind: "event", type, id, data}) for each event. `last` is the id of the last event that was heard.

const TYPES = "state,status,queue,child,job,upload";
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;
// The site sends a comment every 15 seconds when nothing happens.
const SILENCE = 50000;

export class Stream {
  constructor(url, since, tell) {
    this.url = `${url}?types=${TYPES}`;
    this.last = since;
    this.tell = tell;
    // Not known yet: a stream that does not even begin is told of, too.
    this.isOpen = null;
    this.closed = false;
    this.wait = FIRST_WAIT;
    this.listen();
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.abort?.abort();
  }

  async listen() {
    this.abort = new AbortController();
    try {
      const headers = { Accept: "text/event-stream", ...(this.last ? { "Last-Event-ID": this.last } : {}) };
      const answer = await fetch(this.url, { headers, cache: "no-store", signal: this.abort.signal });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      this.wait = FIRST_WAIT;
      this.isOpen = true;
      this.tell({ kind: "open", last: this.last });
      await this.read(answer.body.pipeThrough(new TextDecoderStream()).getReader());
    } catch {
      // Nobody answers, or not any more.
    }
    clearTimeout(this.silence);
    if (this.closed) return;
    if (this.isOpen !== false) this.tell({ kind: "lost" });
    this.isOpen = false;
    this.timer = setTimeout(() => this.listen(), this.wait);
    this.wait = Math.min(LONGEST_WAIT, this.wait * 1.7);
  }

  async read(reader) {
    let text = "";
    for (;;) {
      clearTimeout(this.silence);
      this.silence = setTimeout(() => this.abort.abort(), SILENCE);
      const { done, value } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop();
      for (const block of blocks) this.heard(block);
    }
  }

  heard(block) {
    let type = "";
    const lines = [];
    for (const line of block.split("\n")) {
      const [, name, value] = line.match(/^(\w+): ?(.*)$/) ?? [];
      if (name === "id") this.last = value;
      else if (name === "event") type = value;
      else if (name === "data") lines.push(value);
    }
    if (type) this.tell({ kind: "event", type, id: this.last, data: JSON.parse(lines.join("\n") || "{}") });
  }
}

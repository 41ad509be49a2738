// One stream of events (/api/v1/events), that comes back by itself after every interruption.
//
// tell({kind: "open", last}) when it is open; tell({kind: "lost"}) when it is not any more;
// tell({kind: "event", type, id, data}) for each event. `last` is the id of the last event that was heard.

const TYPES = ["state", "status", "queue", "child", "reset"];
const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;

export class Stream {
  constructor(url, since, tell) {
    this.url = url;
    this.last = since;
    this.tell = tell;
    this.isOpen = false;
    this.wait = FIRST_WAIT;
    this.open();
  }

  open() {
    const query = new URLSearchParams({ types: TYPES.join(",") });
    if (this.last) query.set("since", this.last);
    this.source = new EventSource(`${this.url}?${query}`);
    this.source.onopen = () => {
      this.wait = FIRST_WAIT;
      this.isOpen = true;
      this.tell({ kind: "open", last: this.last });
    };
    this.source.onerror = () => this.lost();
    for (const type of TYPES) this.source.addEventListener(type, (event) => this.heard(type, event));
  }

  heard(type, event) {
    if (event.lastEventId) this.last = event.lastEventId;
    let data = {};
    try {
      data = JSON.parse(event.data);
    } catch {
      // An event without data.
    }
    this.tell({ kind: "event", type, id: this.last, data });
  }

  // The browser would come back by itself after most errors, but not after all: so it is done here.
  lost() {
    this.source.close();
    if (this.isOpen) this.tell({ kind: "lost" });
    this.isOpen = false;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.open(), this.wait);
    this.wait = Math.min(LONGEST_WAIT, this.wait * 1.7);
  }

  close() {
    clearTimeout(this.timer);
    this.source.close();
  }
}

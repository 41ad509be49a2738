// How long the log is and where its message stands, told by the server as it happens.
//
// `onSeen({state, size, file}, ended)` is called at once and at every change; `onConnection(up)` when the
// server is lost and found. The connection is held only while the page is seen: a browser has few of them,
// and what is said is always all that counts, so nothing is missed.

const FIRST_PAUSE = 1000, LONGEST_PAUSE = 10000;

export class Follower {
  #url;
  #onSeen;
  #onConnection;
  #source = null;
  #timer = 0;
  #pause = FIRST_PAUSE;

  constructor(url, onSeen, onConnection) {
    this.#url = url;
    this.#onSeen = onSeen;
    this.#onConnection = onConnection;
    document.addEventListener("visibilitychange", () => this.#changed());
    addEventListener("pagehide", () => this.#close());
    addEventListener("pageshow", () => this.#changed());
    document.addEventListener("rq:refreshed", () => this.#changed()); // live.js: it may run again
    this.#changed();
  }

  #changed() {
    if (document.hidden) this.#close();
    else if (!this.#source) this.#open();
  }

  #open() {
    clearTimeout(this.#timer);
    const source = new EventSource(this.#url);
    this.#source = source;
    const hear = (event, ended) => {
      this.#pause = FIRST_PAUSE;
      this.#onConnection(true);
      this.#onSeen(JSON.parse(event.data), ended);
    };
    source.addEventListener("log", (event) => hear(event, false));
    source.addEventListener("end", (event) => {
      this.#close(); // else the browser would ask again
      hear(event, true);
    });
    source.addEventListener("error", () => {
      if (this.#source !== source) return;
      this.#onConnection(false);
      if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
      this.#close();
      this.#timer = setTimeout(() => this.#changed(), this.#pause);
      this.#pause = Math.min(LONGEST_PAUSE, this.#pause * 2);
    });
  }

  #close() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
}

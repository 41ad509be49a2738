// The shared worker: one stream of events for all tabs of this browser that show the site.
//
// A tab says {kind: "hello", url, since} and later {kind: "bye"}; it is told what Stream tells.
import { Stream } from "./stream.js";

const ports = new Set();
let stream = null;

function tellAll(message) {
  for (const port of ports) port.postMessage(message);
}

function onMessage(port, message) {
  if (message.kind === "bye") {
    ports.delete(port);
    if (ports.size === 0 && stream) {
      stream.close();
      stream = null;
    }
    return;
  }
  ports.add(port);
  if (!stream) stream = new Stream(message.url, message.since, tellAll);
  else if (stream.isOpen !== null) port.postMessage(stream.isOpen ? { kind: "open", last: stream.last } : { kind: "lost" });
}

self.onconnect = (event) => {
  const port = event.ports[0];
  port.onmessage = (said) => onMessage(port, said.data);
};

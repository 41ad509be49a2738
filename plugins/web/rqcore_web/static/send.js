// A new message with its attachments: it is prepared, each file is attached, then it is committed, so that
// nobody sees it without them. Without files it is one request. The form's own way stays for everything
// else (no JavaScript), and what goes wrong is told here, with everything typed still in place.

const EVERY = 100;
let current = null;
let stopped = false;

const form = document.getElementById("send");
const files = document.getElementById("filedata");
const list = document.getElementById("uploads");
const problem = document.getElementById("send-problem");
const button = document.getElementById("send-button");
const stop = document.getElementById("send-stop");

if (files) {
  files.multiple = true;
  files.addEventListener("change", showFiles);
}
for (const field of form.querySelectorAll("textarea.grows")) {
  field.addEventListener("input", () => grow(field));
  grow(field);
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
stop.addEventListener("click", () => {
  stopped = true;
  current?.abort();
});

function grow(field) {
  field.rows = Math.min(20, Math.max(field.rows, field.value.split("\n").length));
}

function showFiles() {
  list.replaceChildren(...[...files.files].map((file) => uploadLine(file)));
}

function uploadLine(file) {
  const line = document.createElement("li");
  const name = document.createElement("bdi");
  const said = document.createElement("span");
  const bar = document.createElement("progress");
  name.textContent = file.name;
  said.className = "muted small";
  said.textContent = size(file.size);
  bar.max = file.size || 1;
  bar.value = 0;
  bar.hidden = true;
  bar.setAttribute("aria-label", `upload of ${file.name}`);
  line.append(name, said, bar);
  return line;
}

async function send() {
  const chosen = [...(files?.files ?? [])];
  const message = fields();
  stopped = false;
  if (!(await readDue(message))) return;
  busy(true, chosen.length > 0);
  tell("");
  let made = "";
  try {
    const wanted = message._method;
    if (chosen.length && wanted === "single_que") {
      throw new Error("a message that is only queued unless another waits cannot bring files");
    }
    if (chosen.length) message._method = "prep";
    made = (await post(`${form.dataset.queue}/new_message`, JSON.stringify(message), "application/json"))[1];
    const url = `${form.dataset.queue}/${made.slice(made.lastIndexOf("/") + 1)}`;
    for (const [at, file] of chosen.entries()) await attach(url, file, list.children[at]);
    if (chosen.length && wanted !== "prep") {
      await post(url, new URLSearchParams({ _method: "commit", x_format: "json" }));
    }
    location.href = url;
  } catch (error) {
    if (made && chosen.length) await forget(made);
    tell(stopped ? "Stopped: nothing was sent" : String(error.message ?? error));
    busy(false);
  }
}

// The time as it was typed becomes unix time; what is wrong with it is told beside it.
async function readDue(message) {
  const field = form.querySelector("[data-time-field]");
  if (!field) return true;
  const place = document.getElementById("due-problem");
  place.hidden = true;
  field.removeAttribute("aria-invalid");
  if (/^[0-9.]*$/.test(message.due)) return true;
  try {
    const text = new URLSearchParams({ text: message.due });
    const answer = await fetch(`${form.dataset.due}?${text}`, { headers: { Accept: "application/json" } });
    message.due = decided(await answer.text(), answer.status)[1];
    return true;
  } catch (error) {
    place.textContent = String(error.message ?? error);
    place.hidden = false;
    field.setAttribute("aria-invalid", "true");
    const folded = field.closest("details");
    if (folded) folded.open = true;
    field.focus();
    return false;
  }
}

function fields() {
  const message = {};
  for (const [name, value] of new FormData(form)) {
    const found = name.match(/^mesg\[(\w+)\]$/);
    // A form sends lines that end with CR and LF; a script expects what was typed.
    if (found) message[found[1]] = value.replaceAll("\r\n", "\n");
  }
  return message;
}

async function post(url, body, type) {
  const headers = { Accept: "application/json", ...(type ? { "Content-Type": type } : {}) };
  const answer = await fetch(url, { method: "POST", headers, body });
  return decided(await answer.text(), answer.status);
}

function decided(text, status) {
  let said;
  try {
    said = JSON.parse(text);
  } catch {
    throw new Error(text.trim() || `it was answered with status ${status}`);
  }
  if (!Array.isArray(said)) throw new Error(said.detail ?? `it was answered with status ${status}`);
  if (said[0] !== "ok") throw new Error(said[1] ?? "it was refused");
  return said;
}

function attach(url, file, line) {
  const [, said, bar] = line.children;
  const began = performance.now();
  let shown = 0;
  bar.hidden = false;
  return new Promise((resolve, reject) => {
    const body = new FormData();
    body.append("x_format", "json");
    body.append("msg_id", url.slice(url.lastIndexOf("/") + 1));
    body.append("filedata", file, file.name);
    current = new XMLHttpRequest();
    current.open("POST", `${url}/attach/new`);
    current.setRequestHeader("Accept", "application/json");
    current.upload.onprogress = ({ loaded, total }) => {
      const now = performance.now();
      if (now - shown < EVERY && loaded < total) return;
      shown = now;
      bar.max = total;
      bar.value = loaded;
      said.textContent = progress(loaded, total, (now - began) / 1000);
    };
    current.onload = () => {
      try {
        decided(current.responseText, current.status);
        bar.value = bar.max;
        said.textContent = `${size(file.size)}, attached`;
        resolve();
      } catch (error) {
        reject(new Error(`${file.name}: ${error.message}`));
      }
    };
    current.onerror = () => reject(new Error(`${file.name}: the connection was lost; try again`));
    current.onabort = () => reject(new Error("stopped"));
    current.send(body);
  });
}

function progress(loaded, total, seconds) {
  const rate = loaded / Math.max(seconds, 0.001);
  if (loaded >= total) return `${size(total)}, is being taken in…`;
  const left = Math.ceil((total - loaded) / Math.max(rate, 1));
  return `${size(loaded)} of ${size(total)}, ${size(rate)}/s, ${left} s left`;
}

// What was only prepared, and is not what was meant.
async function forget(fullId) {
  const url = `${form.dataset.queue}/${fullId.slice(fullId.lastIndexOf("/") + 1)}`;
  await fetch(url, { method: "POST", body: new URLSearchParams({ _method: "delete", x_format: "json" }) }).catch(
    () => {},
  );
}

function busy(is, withFiles) {
  button.disabled = is;
  stop.hidden = !(is && withFiles);
  button.textContent = is ? "Sending…" : "Send";
}

function tell(text) {
  problem.replaceChildren();
  if (!text) return;
  const line = document.createElement("p");
  line.className = "flash bad";
  line.textContent = text;
  problem.append(line);
  problem.scrollIntoView({ block: "nearest" });
}

function size(bytes) {
  let amount = bytes;
  if (amount < 1000) return `${Math.round(amount)} B`;
  for (const unit of ["kB", "MB", "GB", "TB"]) {
    amount /= 1000;
    if (amount < 999.95) return `${amount.toFixed(1)} ${unit}`;
  }
  return `${amount.toFixed(1)} PB`;
}

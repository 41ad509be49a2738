// Buttons that copy a text ([data-copy]). On plain http there is no navigator.clipboard: then the old way.

const SHOWN = 1400;

export function startCopying() {
  showButtons();
  document.addEventListener("rq:refreshed", showButtons);
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const done = await copy(button.dataset.copy);
    const use = button.querySelector("use");
    const glyph = use.getAttribute("href");
    const label = button.querySelector(".sr");
    const said = label.textContent;
    use.setAttribute("href", glyph.replace(/#.*/, done ? "#done" : "#err"));
    label.textContent = done ? "Copied" : "It could not be copied";
    setTimeout(() => {
      use.setAttribute("href", glyph);
      label.textContent = said;
    }, SHOWN);
  });
}

function showButtons() {
  for (const button of document.querySelectorAll("[data-copy][hidden]")) button.hidden = false;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyTheOldWay(text);
  }
}

function copyTheOldWay(text) {
  const focused = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "sr";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  focused?.focus({ preventScroll: true });
  return done;
}

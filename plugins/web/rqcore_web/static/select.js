// Selecting rows of a list: all at once, a range with Shift, and how many they are.
//
// [data-select-all] is the box above the list, name="id[]" those in its rows, [data-selected] shows the
// number, [data-needs-selection] are buttons that make no sense without one.

let last = null;

export function startSelecting() {
  const all = document.querySelector("[data-select-all]");
  if (!all) return;
  all.closest("[data-script]").hidden = false;
  all.addEventListener("change", () => {
    for (const box of boxes()) box.checked = all.checked;
    show();
  });
  document.addEventListener("click", (event) => {
    if (!event.target.matches?.("input[name='id[]']")) return;
    if (event.shiftKey && last) selectRange(last, event.target);
    last = event.target;
    show();
  });
  document.addEventListener("rq:refreshed", show);
  window.addEventListener("pageshow", show);
  show();
}

function boxes() {
  return [...document.querySelectorAll("input[name='id[]']")];
}

function selectRange(from, to) {
  const found = boxes();
  const [start, end] = [found.indexOf(from), found.indexOf(to)].sort((a, b) => a - b);
  if (start >= 0) for (const box of found.slice(start, end + 1)) box.checked = to.checked;
}

function show() {
  const all = document.querySelector("[data-select-all]");
  const found = boxes();
  const many = found.filter((box) => box.checked).length;
  if (all) {
    all.checked = many > 0 && many === found.length;
    all.indeterminate = many > 0 && many < found.length;
  }
  for (const place of document.querySelectorAll("[data-selected]")) {
    place.textContent = many ? `${many} selected` : "";
  }
  for (const button of document.querySelectorAll("[data-needs-selection]")) button.disabled = many === 0;
}

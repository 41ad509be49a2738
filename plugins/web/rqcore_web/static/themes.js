// The switch between light and dark. What the system prefers is not stored, so that it goes on to follow.

const dark = matchMedia("(prefers-color-scheme: dark)");

export function startThemes() {
  const button = document.getElementById("theme");
  button.hidden = false;
  button.addEventListener("click", toggleTheme);
}

export function toggleTheme() {
  const root = document.documentElement;
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : dark.matches;
  const wanted = isDark ? "light" : "dark";
  const preferred = dark.matches ? "dark" : "light";
  try {
    if (wanted === preferred) localStorage.removeItem("rq-theme");
    else localStorage.setItem("rq-theme", wanted);
  } catch {
    // Storage is forbidden here: it holds for this page.
  }
  if (wanted === preferred) delete root.dataset.theme;
  else root.dataset.theme = wanted;
}

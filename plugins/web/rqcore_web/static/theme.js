// Runs before the page is painted, so that a chosen theme never flashes the other one first.
// app.js changes it; nothing chosen means: as the system prefers.
"use strict";
try {
  const theme = localStorage.getItem("rq-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is forbidden here: as the system prefers.
}

// The entry of every page: what is added to pages that are whole without it.
import { startCopying } from "./copy.js";
import { startKeys } from "./keys.js";
import { startLive } from "./live.js";
import { startSelecting } from "./select.js";
import { startThemes } from "./themes.js";
import { startTimes } from "./times.js";

startThemes();
startTimes();
startCopying();
startSelecting();
startLive();
startKeys();

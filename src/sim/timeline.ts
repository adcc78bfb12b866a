/**
 * A run as one HTML file: lanes of nodes, messages between them, faults, operations and violations, to zoom and pan.
 *
 * Invariant: the file needs nothing else, neither from the network nor from disk (its content policy forbids both), and no text of a run becomes
 * markup: data is JSON whose `<` are escaped, put into the page as text.
 * The page's script is the source text of the functions of timeline-view.ts, timeline-draw.ts and timeline-page.ts, which are compiled, checked
 * and tested like all others. **Divergence**: a bundler that renames functions breaks it; bundle simulations with names kept.
 */
import * as drawing from "./timeline-draw.ts";
import { type TimelineModel, timelineModel } from "./timeline-model.ts";
import * as page from "./timeline-page.ts";
import { TIMELINE_STYLE } from "./timeline-style.ts";
import * as view from "./timeline-view.ts";
import type { RunResult } from "./world-types.ts";

/**
 * The timeline of a run as the text of an HTML file.
 *
 * Messages and drawn faults are shown when the run kept its trace (`keepTrace`).
 *
 * Cost: about 40 bytes a message.
 */
export function timelineHtml(result: RunResult): string {
  return pageOf(timelineModel(result));
}

function pageOf(model: TimelineModel): string {
  const functions = Object.values({ ...view, ...drawing, ...page }).filter((value) => typeof value === "function");
  const facts = model.facts.map(([name, value]) => `<div><dt>${escaped(name)}</dt><dd>${escaped(value)}</dd></div>`);
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>Simulated run, ${escaped(model.title)}</title>
<style>${TIMELINE_STYLE}</style>
</head>
<body>
<header>
<h1>${escaped(model.title)}</h1>
<span class="verdict ${model.verdict}">${model.verdict}</span>
<dl>${facts.join("")}</dl>
</header>
<section id="violations" aria-label="Violations"></section>
<section class="tools">
<fieldset><legend>Messages</legend><div id="message-filters"></div><div id="kind-filters"></div></fieldset>
<fieldset><legend>Faults</legend><div id="fault-filters"></div></fieldset>
<fieldset><legend>Operations</legend><div id="operation-filters"></div></fieldset>
<div class="zoom"><button id="zoom-out" title="Zoom out (-)">−</button><button id="zoom-in" title="Zoom in (+)">+</button><button id="zoom-all" title="Whole run (0)">all</button></div>
</section>
<p class="hint">Wheel zooms, drag moves, double click zooms in, the wheel over the names scrolls. <span id="note"></span></p>
<canvas id="canvas" tabindex="0" aria-label="Timeline of nodes, messages, faults and operations"></canvas>
<noscript>The timeline is drawn by a script.</noscript>
<div id="tip" hidden></div>
<script type="application/json" id="model">${JSON.stringify(model).replaceAll("<", "\\u003c")}</script>
<script>
"use strict";
(() => {
${functions.map(String).join("\n")}
${page.startTimeline.name}({ document, window }, JSON.parse(document.getElementById("model").textContent), 8000);
})();
</script>
</body>
</html>
`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}

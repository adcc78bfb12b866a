/**
 * Geometry of the timeline: which row is where, which pixel is when, what is under the pointer.
 *
 * Invariant: every function here is whole in itself, using only its parameters and other functions of this kind by name, as their source is
 * copied into the page (see timeline.ts); they run in Node too, where they are tested. Pixels count from the top left of the canvas.
 */
import type { TimelineModel } from "./timeline-model.ts";

/** What is seen of a model, and where. Changed by the page alone. */
export interface TimelineView {
  /** Time at the left edge of the plot, and how much time is seen. */
  startUs: number;
  spanUs: number;
  /** Of the canvas, in CSS pixels. */
  width: number;
  /** Names of what is not shown: "message delivered", "fault crash", "operation ok". */
  readonly hidden: Set<string>;
}

export interface TimelineLayout {
  /** Width of the names at the left. */
  readonly gutter: number;
  readonly overview: { readonly y: number; readonly height: number };
  readonly axisY: number;
  readonly phasesY: number;
  /** A row for each kind of fault that hit. */
  readonly faultKinds: readonly string[];
  readonly faultsY: number;
  readonly faultHeight: number;
  readonly nodesY: number;
  readonly nodeHeight: number;
  readonly processesY: number;
  readonly processHeight: number;
  readonly height: number;
}

/** Something under the pointer. */
export interface TimelineHit {
  readonly what: "message" | "fault" | "operation" | "node" | "mark";
  readonly index: number;
}

/** Rows from top to bottom: overview, axis, faults, nodes, processes. */
export function layoutTimeline(model: TimelineModel, view: TimelineView): TimelineLayout {
  const faultKinds = [...new Set(model.faults.map((fault) => fault.kind))].filter(
    (kind) => !view.hidden.has(`fault ${kind}`),
  );
  const overview = { y: 4, height: 30 };
  const axisY = overview.y + overview.height + 6;
  const phasesY = axisY + 22;
  const faultsY = phasesY + (model.phases.length === 0 ? 4 : 18);
  const faultHeight = 16;
  const nodesY = faultsY + faultKinds.length * faultHeight + (faultKinds.length === 0 ? 0 : 14);
  const nodeHeight = model.nodes.length <= 6 ? 52 : model.nodes.length <= 12 ? 36 : 24;
  const processesY = nodesY + model.nodes.length * nodeHeight + 14;
  const processHeight = model.processes.length <= 32 ? 17 : 9;
  const height = processesY + model.processes.length * processHeight + 10;
  return {
    gutter: 132,
    overview,
    axisY,
    phasesY,
    faultKinds,
    faultsY,
    faultHeight,
    nodesY,
    nodeHeight,
    processesY,
    processHeight,
    height,
  };
}

export function xOfTime(timeUs: number, view: TimelineView, layout: TimelineLayout): number {
  return layout.gutter + ((timeUs - view.startUs) / view.spanUs) * (view.width - layout.gutter);
}

export function timeOfX(x: number, view: TimelineView, layout: TimelineLayout): number {
  return view.startUs + ((x - layout.gutter) / (view.width - layout.gutter)) * view.spanUs;
}

/** Middle of a node's lane. */
export function yOfNode(node: number, layout: TimelineLayout): number {
  return layout.nodesY + (node + 0.5) * layout.nodeHeight;
}

/** Index of the first element of a sorted column that is not below a value. */
export function lowerBound(column: readonly number[], value: number): number {
  let low = 0;
  let high = column.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((column[middle] as number) < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Messages to draw: those sent in the seen time or a little before. Where they are too many, every `stride`-th of those that arrived and every
 * `rareStride`-th of the others, so that what was lost is seen.
 *
 * The choice goes by index, so that the same messages stay when the view moves.
 */
export function messagesInView(
  model: TimelineModel,
  view: TimelineView,
  limit: number,
): { readonly first: number; readonly end: number; readonly stride: number; readonly rareStride: number } {
  const { sentUs, tookUs, outcome } = model.messages;
  const first = lowerBound(sentUs, view.startUs - Math.max(view.spanUs, 1_000_000));
  const end = lowerBound(sentUs, view.startUs + view.spanUs);
  let arrived = 0;
  let others = 0;
  for (let index = first; index < end; index++) {
    if ((sentUs[index] as number) + (tookUs[index] as number) < view.startUs) continue;
    if (outcome[index] === 0) arrived++;
    else others++;
  }
  const strideOf = (count: number, most: number): number => 2 ** Math.max(0, Math.ceil(Math.log2(count / most)));
  // Lines of what was lost or held are bold: a few hundred fill the picture.
  return { first, end, stride: strideOf(arrived, limit), rareStride: strideOf(others, limit / 16) };
}

/** Whether a message is one of those that are drawn. */
export function isDrawn(model: TimelineModel, index: number, strides: { stride: number; rareStride: number }): boolean {
  return index % (model.messages.outcome[index] === 0 ? strides.stride : strides.rareStride) === 0;
}

/** Moves and stretches the view about a time, and keeps it within the run. */
export function zoomView(model: TimelineModel, view: TimelineView, factor: number, aboutUs: number): void {
  const spanUs = Math.min(model.endUs, Math.max(50, view.spanUs * factor));
  const share = (aboutUs - view.startUs) / view.spanUs;
  view.startUs = aboutUs - share * spanUs;
  view.spanUs = spanUs;
  view.startUs = Math.min(Math.max(0, view.startUs), Math.max(0, model.endUs - view.spanUs));
}

/** Shows a stretch of time with some room around it. */
export function showTimes(model: TimelineModel, view: TimelineView, startUs: number, endUs: number): void {
  const roomUs = Math.max(500, (endUs - startUs) * 0.25);
  view.spanUs = Math.min(model.endUs, endUs - startUs + 2 * roomUs);
  view.startUs = Math.min(Math.max(0, startUs - roomUs), Math.max(0, model.endUs - view.spanUs));
}

/** Round times for the axis, about one every 110 pixels. */
export function axisTicks(
  view: TimelineView,
  layout: TimelineLayout,
): { readonly stepUs: number; readonly ticks: readonly number[] } {
  const wantedUs = (view.spanUs / Math.max(1, view.width - layout.gutter)) * 110;
  const power = 10 ** Math.floor(Math.log10(wantedUs));
  const stepUs = Math.max(1, ([1, 2, 5, 10].find((digit) => digit * power >= wantedUs) ?? 10) * power);
  const ticks: number[] = [];
  for (let at = Math.ceil(view.startUs / stepUs) * stepUs; at <= view.startUs + view.spanUs; at += stepUs)
    ticks.push(at);
  return { stepUs, ticks };
}

/** `1.25 s`, `3.4 ms`, `17 µs`, with as many digits as steps of `stepUs` need. */
export function timeText(timeUs: number, stepUs: number): string {
  const [unitUs, unit]: [number, string] =
    timeUs === 0 || stepUs >= 10_000 || timeUs >= 1e6
      ? [1e6, "s"]
      : stepUs >= 10 || timeUs >= 1e3
        ? [1e3, "ms"]
        : [1, "µs"];
  const digits = Math.max(0, Math.ceil(Math.log10(unitUs / stepUs) - 1e-9));
  return `${(timeUs / unitUs).toFixed(Math.min(6, digits))} ${unit}`;
}

/** What is at a pixel: bars first, then the nearest drawn message, then the lane. */
export function hitTest(
  model: TimelineModel,
  view: TimelineView,
  x: number,
  y: number,
  limit: number,
): TimelineHit | undefined {
  const layout = layoutTimeline(model, view);
  if (x < layout.gutter || y < layout.faultsY) return undefined;
  const row = Math.floor((y - layout.processesY) / layout.processHeight);
  if (row >= 0) return hitBar(model, view, "operation", x, (index) => model.operations[index]?.row === row);
  const faultRow = Math.floor((y - layout.faultsY) / layout.faultHeight);
  const kind = layout.faultKinds[faultRow];
  if (kind !== undefined) return hitBar(model, view, "fault", x, (index) => model.faults[index]?.kind === kind);
  return hitMark(model, view, x, y) ?? hitMessage(model, view, x, y, limit) ?? hitLane(model, layout, y);
}

/** The narrowest bar at a place, with some pixels of tolerance. */
export function hitBar(
  model: TimelineModel,
  view: TimelineView,
  what: "operation" | "fault",
  x: number,
  isInRow: (index: number) => boolean,
): TimelineHit | undefined {
  const layout = layoutTimeline(model, view);
  const bars = what === "operation" ? model.operations : model.faults;
  let best = -1;
  let bestWidth = Number.POSITIVE_INFINITY;
  for (let index = 0; index < bars.length; index++) {
    const bar = bars[index] as { startUs: number; endUs: number };
    if (!isInRow(index)) continue;
    const left = xOfTime(bar.startUs, view, layout);
    const right = xOfTime(bar.endUs, view, layout);
    if (x < left - 3 || x > right + 3 || right - left >= bestWidth) continue;
    best = index;
    bestWidth = right - left;
  }
  return best < 0 ? undefined : { what, index: best };
}

export function hitMessage(
  model: TimelineModel,
  view: TimelineView,
  x: number,
  y: number,
  limit: number,
): TimelineHit | undefined {
  const layout = layoutTimeline(model, view);
  const seen = messagesInView(model, view, limit);
  let best = -1;
  let bestDistance = 5;
  for (let index = seen.first; index < seen.end; index++) {
    if (!isDrawn(model, index, seen)) continue;
    const line = messageLine(model, view, layout, index);
    if (line === undefined || x < Math.min(line.x1, line.x2) - 5 || x > Math.max(line.x1, line.x2) + 5) continue;
    const [dx, dy] = [line.x2 - line.x1, line.y2 - line.y1];
    const along = ((x - line.x1) * dx + (y - line.y1) * dy) / (dx * dx + dy * dy || 1);
    const at = Math.min(1, Math.max(0, along));
    const distance = Math.hypot(x - line.x1 - at * dx, y - line.y1 - at * dy);
    if (distance >= bestDistance) continue;
    best = index;
    bestDistance = distance;
  }
  return best < 0 ? undefined : { what: "message", index: best };
}

export function hitMark(model: TimelineModel, view: TimelineView, x: number, y: number): TimelineHit | undefined {
  const layout = layoutTimeline(model, view);
  const index = model.marks.findIndex(({ node, timeUs }) => {
    const fromTop = y - yOfNode(node, layout);
    return Math.abs(xOfTime(timeUs, view, layout) - x) < 6 && fromTop > -11 && fromTop < 3;
  });
  return index < 0 ? undefined : { what: "mark", index };
}

export function hitLane(model: TimelineModel, layout: TimelineLayout, y: number): TimelineHit | undefined {
  const index = Math.floor((y - layout.nodesY) / layout.nodeHeight);
  return index >= 0 && index < model.nodes.length ? { what: "node", index } : undefined;
}

/** Ends of a message's line, or undefined when it is hidden or goes nowhere that is shown. One that was lost ends half-way. */
export function messageLine(
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  index: number,
):
  | { readonly x1: number; readonly y1: number; readonly x2: number; readonly y2: number; readonly outcome: number }
  | undefined {
  const { messages } = model;
  const outcome = messages.outcome[index] as number;
  const from = messages.from[index] as number;
  const to = messages.to[index] as number;
  const name = ["delivered", "dropped", "held", "flying"][outcome] as string;
  if (from < 0 || to < 0 || view.hidden.has(`message ${name}`)) return undefined;
  if (view.hidden.has(`kind ${model.messageKinds[messages.kind[index] as number]}`)) return undefined;
  const sentUs = messages.sentUs[index] as number;
  const x1 = xOfTime(sentUs, view, layout);
  const x2 = Math.max(x1 + (outcome === 1 ? 2 : 0), xOfTime(sentUs + (messages.tookUs[index] as number), view, layout));
  const y1 = yOfNode(from, layout);
  const y2 = outcome === 1 || outcome === 3 ? y1 + (yOfNode(to, layout) - y1) * 0.45 : yOfNode(to, layout);
  return { x1, y1, x2, y2, outcome };
}

/**
 * Draws the timeline on a canvas, from back to front: lanes, messages, faults, operations, violations, names.
 *
 * Invariant: as in timeline-view.ts, every function is whole in itself; what is drawn follows from model, view and colours alone. One frame
 * draws at most `limit` messages that arrived and `limit` others, whatever the run had.
 */
import type { Canvas2d } from "./timeline-dom.ts";
import type { TimelineModel } from "./timeline-model.ts";
import {
  axisTicks,
  isDrawn,
  layoutTimeline,
  messageLine,
  messagesInView,
  type TimelineLayout,
  type TimelineView,
  timeText,
  xOfTime,
  yOfNode,
} from "./timeline-view.ts";

/** Colours by the names of the page's custom properties: "grid", "delivered", "ok", ... */
export type TimelineColours = Readonly<Record<string, string>>;

/** @returns one in how many of the messages that arrived was drawn */
export function drawTimeline(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  colours: TimelineColours,
  limit: number,
): number {
  const layout = layoutTimeline(model, view);
  context.clearRect(0, 0, view.width, layout.height);
  context.textBaseline = "middle";
  drawOverview(context, model, view, layout, colours);
  drawAxis(context, view, layout, colours);
  drawPhases(context, model, view, layout, colours);
  context.save();
  context.beginPath();
  context.rect(layout.gutter, layout.axisY, view.width - layout.gutter, layout.height - layout.axisY);
  context.clip();
  drawViolationBands(context, model, view, layout, colours);
  drawLanes(context, model, view, layout, colours);
  const stride = drawMessages(context, model, view, layout, colours, limit);
  drawMarks(context, model, view, layout, colours);
  drawFaults(context, model, view, layout, colours);
  drawOperations(context, model, view, layout, colours);
  context.restore();
  drawNames(context, model, layout, colours);
  return stride;
}

export function colourOf(colours: TimelineColours, name: string): string {
  return colours[name] ?? "#888";
}

/** What a kind of fault is about, which is its colour. */
export function faultGroup(kind: string): string {
  if (/^(crash|lose|pause|node-kill|cluster-crash)$/.test(kind)) return "fault-node";
  if (/^clock/.test(kind)) return "fault-clock";
  if (/^disk/.test(kind)) return "fault-disk";
  if (/^(worker|wake|region|ring)/.test(kind)) return "fault-thread";
  return /^nats/.test(kind) ? "fault-log" : "fault-network";
}

/** The whole run in a strip: how many messages were sent when, violations, and the part that is seen. */
export function drawOverview(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  const { y, height } = layout.overview;
  const width = view.width - layout.gutter;
  const columns = Math.max(1, Math.floor(width / 3));
  const counts = new Array<number>(columns).fill(0);
  const columnOf = (timeUs: number): number => Math.min(columns - 1, Math.floor((timeUs / model.endUs) * columns));
  for (const sentUs of model.messages.sentUs) counts[columnOf(sentUs)] = (counts[columnOf(sentUs)] as number) + 1;
  const most = Math.max(1, ...counts);
  context.fillStyle = colourOf(colours, "lane");
  context.fillRect(layout.gutter, y, width, height);
  context.fillStyle = colourOf(colours, "delivered");
  for (let column = 0; column < columns; column++) {
    const tall = ((counts[column] as number) / most) ** 0.5 * height;
    context.fillRect(layout.gutter + (column * width) / columns, y + height - tall, width / columns - 0.5, tall);
  }
  const xOf = (timeUs: number): number => layout.gutter + (timeUs / model.endUs) * width;
  for (const { kind, startUs, endUs } of model.faults) {
    context.fillStyle = colourOf(colours, faultGroup(kind));
    context.fillRect(xOf(startUs), y, Math.max(1, xOf(endUs) - xOf(startUs)), 3);
  }
  context.fillStyle = colourOf(colours, "violation");
  context.globalAlpha = 0.45;
  for (const { startUs, endUs } of model.violations) {
    if (endUs > 0) context.fillRect(xOf(startUs) - 1, y, Math.max(2, xOf(endUs) - xOf(startUs)), height);
  }
  context.globalAlpha = 1;
  context.strokeStyle = colourOf(colours, "text");
  context.lineWidth = 1.5;
  context.strokeRect(
    xOf(view.startUs),
    y + 0.5,
    Math.max(3, xOf(view.startUs + view.spanUs) - xOf(view.startUs)),
    height - 1,
  );
}

export function drawAxis(
  context: Canvas2d,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  const { stepUs, ticks } = axisTicks(view, layout);
  context.font = "11px system-ui, sans-serif";
  context.textAlign = "left";
  context.lineWidth = 1;
  for (const tick of ticks) {
    const x = Math.round(xOfTime(tick, view, layout)) + 0.5;
    context.strokeStyle = colourOf(colours, "grid");
    context.beginPath();
    context.moveTo(x, layout.axisY + 4);
    context.lineTo(x, layout.height);
    context.stroke();
    context.fillStyle = colourOf(colours, "muted");
    if (x < view.width - 40) context.fillText(timeText(tick, stepUs), x + 4, layout.axisY + 11);
  }
}

/** Where the phases of the run begin. */
export function drawPhases(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  context.lineWidth = 1;
  context.strokeStyle = colourOf(colours, "muted");
  context.fillStyle = colourOf(colours, "muted");
  context.font = "italic 11px system-ui, sans-serif";
  for (const [index, { timeUs, name }] of model.phases.entries()) {
    const x = Math.round(xOfTime(timeUs, view, layout)) + 0.5;
    if (x < layout.gutter || x > view.width) continue;
    context.setLineDash([4, 4]);
    context.beginPath();
    context.moveTo(x, layout.phasesY);
    context.lineTo(x, layout.height);
    context.stroke();
    context.setLineDash([]);
    const next = model.phases[index + 1];
    const end = next === undefined ? view.width : Math.min(view.width, xOfTime(next.timeUs, view, layout));
    drawText(context, name, x + 4, layout.phasesY + 7, end - x - 6);
  }
}

/** Behind everything: when the operations of a violation ran. */
export function drawViolationBands(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  context.fillStyle = colourOf(colours, "violation");
  for (const { startUs, endUs } of model.violations) {
    if (endUs === 0) continue;
    const left = xOfTime(startUs, view, layout);
    const width = Math.max(2, xOfTime(endUs, view, layout) - left);
    context.globalAlpha = 0.1;
    context.fillRect(left, layout.axisY + 18, width, layout.height);
    context.globalAlpha = 1;
    context.fillRect(left, layout.axisY + 18, width, 3);
  }
}

/** A line for each node, and a block where it was down or stood still. */
export function drawLanes(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  for (let node = 0; node < model.nodes.length; node++) {
    const y = yOfNode(node, layout);
    context.fillStyle = colourOf(colours, "lane");
    context.fillRect(layout.gutter, y - 3, view.width - layout.gutter, 6);
  }
  context.font = "11px system-ui, sans-serif";
  for (const { node, why, startUs, endUs } of model.downs) {
    const left = Math.max(layout.gutter, xOfTime(startUs, view, layout));
    const right = Math.min(view.width, xOfTime(endUs, view, layout));
    if (left > view.width || right < layout.gutter || view.hidden.has(`fault ${why}`)) continue;
    context.fillStyle = colourOf(colours, "fault-node");
    context.globalAlpha = why === "pause" ? 0.25 : 0.5;
    context.fillRect(left, yOfNode(node, layout) - 9, Math.max(2, right - left), 18);
    context.globalAlpha = 1;
    context.fillStyle = colourOf(colours, "text");
    drawText(context, why === "pause" ? "paused" : "down", left + 5, yOfNode(node, layout), right - left - 8);
  }
}

/** Triangles on lanes, over everything else there. */
export function drawMarks(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  context.fillStyle = colourOf(colours, "fault-thread");
  for (const { node, timeUs } of model.marks) {
    const x = xOfTime(timeUs, view, layout);
    const y = yOfNode(node, layout);
    if (x < layout.gutter || x > view.width) continue;
    context.beginPath();
    context.moveTo(x, y + 1);
    context.lineTo(x - 5, y - 9);
    context.lineTo(x + 5, y - 9);
    context.closePath();
    context.fill();
  }
}

/** Lines between lanes, those that arrived first, so that the lost and the late lie on top. */
export function drawMessages(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
  limit: number,
): number {
  const seen = messagesInView(model, view, limit);
  const paths: { x1: number; y1: number; x2: number; y2: number }[][] = [[], [], [], []];
  for (let index = seen.first; index < seen.end; index++) {
    if (!isDrawn(model, index, seen)) continue;
    const line = messageLine(model, view, layout, index);
    if (line !== undefined && line.x2 >= layout.gutter && line.x1 <= view.width) paths[line.outcome]?.push(line);
  }
  const names = ["delivered", "dropped", "held", "flying"];
  for (const outcome of [0, 3, 2, 1]) {
    const lines = paths[outcome] ?? [];
    context.strokeStyle = colourOf(colours, names[outcome] as string);
    context.lineWidth = outcome === 0 ? 1 : 1.5;
    // Many lines lie upon each other: fainter ones show where most are.
    context.globalAlpha = Math.max(0.12, Math.min(outcome === 0 ? 0.8 : 0.9, 150 / lines.length));
    context.setLineDash(outcome === 3 ? [3, 3] : []);
    context.beginPath();
    for (const { x1, y1, x2, y2 } of lines) {
      context.moveTo(x1, y1);
      context.lineTo(x2, y2);
      if (outcome !== 1) continue;
      context.moveTo(x2 - 3, y2 - 3);
      context.lineTo(x2 + 3, y2 + 3);
      context.moveTo(x2 + 3, y2 - 3);
      context.lineTo(x2 - 3, y2 + 3);
    }
    context.stroke();
    context.setLineDash([]);
    context.globalAlpha = 1;
    if (outcome === 0 && view.spanUs / (view.width - layout.gutter) < 40) drawArrivals(context, lines, colours);
  }
  return seen.stride;
}

/** Dots at arrivals, once single messages can be told apart. */
export function drawArrivals(
  context: Canvas2d,
  lines: readonly { x2: number; y2: number }[],
  colours: TimelineColours,
): void {
  context.fillStyle = colourOf(colours, "delivered");
  for (const { x2, y2 } of lines) context.fillRect(x2 - 1.5, y2 - 1.5, 3, 3);
}

export function drawFaults(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  context.font = "10px system-ui, sans-serif";
  const last = new Map<number, number>();
  for (const { kind, startUs, endUs, where } of model.faults) {
    const row = layout.faultKinds.indexOf(kind);
    if (row < 0) continue;
    const left = xOfTime(startUs, view, layout);
    const right = xOfTime(endUs, view, layout);
    if (right < layout.gutter || left > view.width) continue;
    const y = layout.faultsY + row * layout.faultHeight;
    const width = Math.max(2, right - left);
    // Ticks within a pixel of each other are one.
    if (width === 2 && left - (last.get(row) ?? -9) < 1) continue;
    last.set(row, left);
    context.fillStyle = colourOf(colours, faultGroup(kind));
    context.globalAlpha = width === 2 ? 0.9 : 0.75;
    context.fillRect(left, y + 2, width, layout.faultHeight - 4);
    context.globalAlpha = 1;
    context.fillStyle = colourOf(colours, "on-bar");
    const seenLeft = Math.max(left, layout.gutter);
    drawText(
      context,
      where,
      seenLeft + 4,
      y + layout.faultHeight / 2 + 0.5,
      Math.min(right, view.width) - seenLeft - 6,
    );
  }
}

export function drawOperations(
  context: Canvas2d,
  model: TimelineModel,
  view: TimelineView,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  const names = ["ok", "fail", "info", "open"];
  context.font = "10px system-ui, sans-serif";
  const inset = layout.processHeight > 12 ? 2 : 1;
  for (const isViolating of [false, true]) {
    for (const operation of model.operations) {
      if (operation.isViolating !== isViolating) continue;
      const name = names[operation.outcome] as string;
      const left = xOfTime(operation.startUs, view, layout);
      const width = Math.max(1.5, xOfTime(operation.endUs, view, layout) - left);
      if (left + width < layout.gutter || left > view.width || view.hidden.has(`operation ${name}`)) continue;
      const y = layout.processesY + operation.row * layout.processHeight + inset;
      const height = layout.processHeight - 2 * inset;
      context.fillStyle = colourOf(colours, isViolating ? "violation" : name);
      context.globalAlpha = operation.outcome === 3 && !isViolating ? 0.5 : 1;
      context.fillRect(left, y, width, height);
      context.globalAlpha = 1;
      if (isViolating) drawFlag(context, left, y, width, height, colours);
      context.fillStyle = colourOf(colours, "on-bar");
      const seenLeft = Math.max(left, layout.gutter);
      const room = Math.min(left + width, view.width) - seenLeft - 6;
      if (height > 10) drawText(context, `${operation.f} ${operation.value}`, seenLeft + 4, y + height / 2 + 0.5, room);
    }
  }
}

/** As much of a text as there is room for, and nothing where that is a letter or two. */
export function drawText(context: Canvas2d, text: string, x: number, y: number, room: number): void {
  if (room < 18) return;
  const { width } = context.measureText(text);
  const fitting = Math.floor((text.length * room) / Math.max(1, width)) - 1;
  if (width <= room) context.fillText(text, x, y);
  else if (fitting > 2) context.fillText(`${text.slice(0, fitting)}…`, x, y);
}

/** A frame that is seen also around a bar of a pixel. */
export function drawFlag(
  context: Canvas2d,
  left: number,
  y: number,
  width: number,
  height: number,
  colours: TimelineColours,
): void {
  context.strokeStyle = colourOf(colours, "violation");
  context.lineWidth = 1.5;
  context.strokeRect(left - 2.5, y - 1.5, width + 5, height + 3);
}

export function drawNames(
  context: Canvas2d,
  model: TimelineModel,
  layout: TimelineLayout,
  colours: TimelineColours,
): void {
  const rightAligned = (text: string, y: number, colour: string): void => {
    context.fillStyle = colourOf(colours, colour);
    context.fillText(text, layout.gutter - 10, y, layout.gutter - 16);
  };
  context.textAlign = "right";
  context.font = "11px system-ui, sans-serif";
  rightAligned("whole run", layout.overview.y + layout.overview.height / 2, "muted");
  for (const [row, kind] of layout.faultKinds.entries()) {
    rightAligned(kind, layout.faultsY + (row + 0.5) * layout.faultHeight, faultGroup(kind));
  }
  if (layout.processHeight > 12) {
    for (const [row, name] of model.processNames.entries()) {
      rightAligned(name, layout.processesY + (row + 0.5) * layout.processHeight, "muted");
    }
  }
  context.font = "600 12px system-ui, sans-serif";
  for (const [node, name] of model.nodes.entries()) rightAligned(name, yOfNode(node, layout), "text");
  context.textAlign = "left";
}

/**
 * The page of a timeline: pointer, keys, filters, tooltip and list of violations around the canvas.
 *
 * Invariant: as in timeline-view.ts, every function is whole in itself. The page is drawn once a frame at most, and only after something changed.
 */
import type { Page, PageElement, PageEvent } from "./timeline-dom.ts";
import { drawTimeline, faultGroup, type TimelineColours } from "./timeline-draw.ts";
import type { TimelineModel } from "./timeline-model.ts";
import {
  hitTest,
  layoutTimeline,
  showTimes,
  type TimelineHit,
  type TimelineView,
  timeOfX,
  timeText,
  zoomView,
} from "./timeline-view.ts";

export interface Session {
  readonly page: Page;
  readonly model: TimelineModel;
  readonly view: TimelineView;
  readonly canvas: PageElement;
  readonly limit: number;
  readonly changed: () => void;
}

/** Starts the page; called by its script. @public @param limit messages drawn in one frame */
export function startTimeline(page: Page, model: TimelineModel, limit: number): void {
  const { document, window } = page;
  const canvas = document.getElementById("canvas");
  const view: TimelineView = { startUs: 0, spanUs: model.endUs, width: 1000, hidden: new Set() };
  let isDue = false;
  const draw = (): void => {
    isDue = false;
    view.width = canvas.clientWidth;
    const { height } = layoutTimeline(model, view);
    const scale = window.devicePixelRatio || 1;
    canvas.style["height"] = `${height}px`;
    canvas.width = Math.round(view.width * scale);
    canvas.height = Math.round(height * scale);
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const stride = drawTimeline(context, model, view, coloursOf(page), limit);
    document.getElementById("note").textContent =
      stride === 1 ? "" : `Not all messages are drawn (1 in ${stride}): zoom in for all.`;
  };
  const changed = (): void => {
    if (isDue) return;
    isDue = true;
    window.requestAnimationFrame(draw);
  };
  const session: Session = { page, model, view, canvas, limit, changed };
  addFilters(session);
  addViolations(session);
  addPointer(session);
  addKeys(session);
  window.addEventListener("resize", changed);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
  draw();
}

export function coloursOf({ document, window }: Page): TimelineColours {
  const style = window.getComputedStyle(document.documentElement);
  const names =
    "text muted grid lane on-bar delivered dropped held flying ok fail info open violation fault-network fault-node fault-clock fault-disk fault-thread fault-log";
  return Object.fromEntries(names.split(" ").map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

export function addFilters(session: Session): void {
  const { page, model } = session;
  const add = (group: string, name: string, colour: string, count: number): void => {
    if (count === 0) return;
    const { document } = page;
    const label = document.createElement("label");
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    const swatch = document.createElement("i");
    swatch.style["background"] = `var(--${colour})`;
    box.addEventListener("change", () => {
      if (box.checked) session.view.hidden.delete(`${group} ${name}`);
      else session.view.hidden.add(`${group} ${name}`);
      session.changed();
    });
    label.append(box, swatch, `${name} ${count.toLocaleString("en-US")}`);
    document.getElementById(`${group}-filters`).append(label);
  };
  const countOf = (column: readonly number[], value: number): number =>
    column.filter((entry) => entry === value).length;
  for (const [index, name] of ["delivered", "dropped", "held", "flying"].entries()) {
    add("message", name, name, countOf(model.messages.outcome, index));
  }
  if (model.messageKinds.length > 1) {
    for (const [index, name] of model.messageKinds.entries())
      add("kind", name, "muted", countOf(model.messages.kind, index));
  }
  for (const kind of new Set(model.faults.map((fault) => fault.kind))) {
    add("fault", kind, faultGroup(kind), model.faults.filter((fault) => fault.kind === kind).length);
  }
  const outcomes = model.operations.map(({ outcome }) => outcome);
  for (const [index, name] of ["ok", "fail", "info", "open"].entries())
    add("operation", name, name, countOf(outcomes, index));
}

/** A click goes to the operations of the violation. */
export function addViolations({ page, model, view, changed }: Session): void {
  const list = page.document.getElementById("violations");
  for (const { rule, message, startUs, endUs } of model.violations) {
    const button = page.document.createElement("button");
    const strong = page.document.createElement("strong");
    strong.textContent = rule;
    button.append(strong, ` ${message}`);
    if (endUs > 0) {
      button.title = "Show its operations";
      button.addEventListener("click", () => {
        showTimes(model, view, startUs, endUs);
        changed();
      });
    }
    list.append(button);
  }
}

export function addPointer(session: Session): void {
  const { canvas, model, view, changed } = session;
  let drag: { x: number; startUs: number; isOverview: boolean } | undefined;
  const place = (event: PageEvent): { x: number; y: number } => {
    const { left, top } = canvas.getBoundingClientRect();
    return { x: event.clientX - left, y: event.clientY - top };
  };
  const moveTo = (startUs: number): void => {
    view.startUs = Math.min(Math.max(0, startUs), Math.max(0, model.endUs - view.spanUs));
    changed();
  };
  const centreOn = (x: number): void => {
    const { gutter } = layoutTimeline(model, view);
    moveTo(((x - gutter) / (view.width - gutter)) * model.endUs - view.spanUs / 2);
  };
  canvas.addEventListener("pointerdown", (event) => {
    const { x, y } = place(event);
    const { overview } = layoutTimeline(model, view);
    const isOverview = y <= overview.y + overview.height;
    drag = { x, startUs: view.startUs, isOverview };
    canvas.setPointerCapture(event.pointerId);
    if (isOverview) centreOn(x);
  });
  canvas.addEventListener("pointermove", (event) => {
    const { x, y } = place(event);
    const layout = layoutTimeline(model, view);
    if (drag === undefined) return showTip(session, hitTest(model, view, x, y, session.limit), event);
    if (drag.isOverview) return centreOn(x);
    moveTo(drag.startUs - ((x - drag.x) / (view.width - layout.gutter)) * view.spanUs);
  });
  for (const type of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(type, () => {
      drag = undefined;
    });
  }
  canvas.addEventListener("pointerleave", (event) => showTip(session, undefined, event));
  canvas.addEventListener("dblclick", (event) => zoomAt(session, 0.25, place(event).x));
  canvas.addEventListener("wheel", (event) => onWheel(session, event, place(event).x), { passive: false });
}

/** The wheel zooms over the plot, moves it sideways, and scrolls the page over the names. */
export function onWheel(session: Session, event: PageEvent, x: number): void {
  const { model, view, changed } = session;
  const layout = layoutTimeline(model, view);
  if (x < layout.gutter) return;
  event.preventDefault();
  const step = event.deltaMode === 1 ? 30 : 1;
  const sideways = event.shiftKey ? event.deltaX + event.deltaY : event.deltaX;
  if (Math.abs(sideways) > Math.abs(event.shiftKey ? 0 : event.deltaY)) {
    const byUs = ((sideways * step) / (view.width - layout.gutter)) * view.spanUs;
    view.startUs = Math.min(Math.max(0, view.startUs + byUs), Math.max(0, model.endUs - view.spanUs));
    changed();
  } else {
    zoomAt(session, 1.0018 ** (event.deltaY * step), x);
  }
}

export function zoomAt({ model, view, changed }: Session, factor: number, x: number): void {
  const layout = layoutTimeline(model, view);
  zoomView(model, view, factor, timeOfX(Math.max(x, layout.gutter), view, layout));
  changed();
}

/** Arrows move, plus and minus zoom, 0 shows all; the buttons do the same. */
export function addKeys(session: Session): void {
  const { page, model, view, changed } = session;
  const act = (name: string): boolean => {
    const middle = (132 + view.width) / 2;
    if (name === "+" || name === "=") zoomAt(session, 0.6, middle);
    else if (name === "-") zoomAt(session, 1 / 0.6, middle);
    else if (name === "0") zoomAt(session, Number.POSITIVE_INFINITY, middle);
    else if (name === "ArrowLeft" || name === "ArrowRight") {
      const byUs = view.spanUs * (name === "ArrowLeft" ? -0.2 : 0.2);
      view.startUs = Math.min(Math.max(0, view.startUs + byUs), Math.max(0, model.endUs - view.spanUs));
      changed();
    } else return false;
    return true;
  };
  page.window.addEventListener("keydown", (event) => {
    if (!event.ctrlKey && !event.metaKey && !event.altKey && act(event.key)) event.preventDefault();
  });
  for (const [id, key] of Object.entries({ "zoom-in": "+", "zoom-out": "-", "zoom-all": "0" })) {
    page.document.getElementById(id).addEventListener("click", () => void act(key));
  }
}

export function showTip({ page, model, view }: Session, hit: TimelineHit | undefined, event: PageEvent): void {
  const tip = page.document.getElementById("tip");
  tip.hidden = hit === undefined;
  if (hit === undefined) return;
  tip.textContent = tipText(model, view, hit);
  const { innerWidth, innerHeight } = page.window;
  tip.style["left"] = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
  const below = event.clientY + 16;
  const top = below + tip.offsetHeight > innerHeight ? event.clientY - tip.offsetHeight - 10 : below;
  tip.style["top"] = `${Math.max(4, top)}px`;
}

export function tipText(model: TimelineModel, view: TimelineView, hit: TimelineHit): string {
  const at = (timeUs: number): string => timeText(timeUs, Math.min(1000, view.spanUs / 1000));
  const took = (durationUs: number): string => timeText(durationUs, durationUs / 100 || 1);
  if (hit.what === "node") return `${model.nodes[hit.index]}: ${model.nodeNotes[hit.index]}`;
  if (hit.what === "mark") {
    const { text, timeUs } = model.marks[hit.index] as TimelineModel["marks"][number];
    return `${text}\nat ${at(timeUs)}`;
  }
  if (hit.what === "fault") {
    const { kind, where, detail, startUs } = model.faults[hit.index] as TimelineModel["faults"][number];
    return [`${kind} at ${where}`, `at ${at(startUs)} ${detail}`].join("\n");
  }
  if (hit.what === "operation") {
    const operation = model.operations[hit.index] as TimelineModel["operations"][number];
    const outcome = ["ok", "fail", "info: may have happened", "open at the end"][operation.outcome];
    return [
      `${model.processNames[operation.row]}: ${operation.f} ${operation.value}`,
      `${outcome}${operation.answer === "" ? "" : ` ${operation.answer}`}`,
      `at ${at(operation.startUs)}, took ${took(operation.endUs - operation.startUs)}`,
      ...(operation.isViolating ? ["part of a violation"] : []),
    ].join("\n");
  }
  const { sentUs, tookUs, from, to, outcome, kind, bytes } = model.messages;
  const { index } = hit;
  const name = ["delivered", "dropped", "held", "still flying"][outcome[index] as number];
  return [
    `${model.nodes[from[index] as number]} → ${model.nodes[to[index] as number]}: ${model.messageKinds[kind[index] as number]}, ${bytes[index]} bytes`,
    `${name}${outcome[index] === 0 || outcome[index] === 2 ? ` after ${took(tookUs[index] as number)}` : ""}`,
    `sent at ${at(sentUs[index] as number)}`,
  ].join("\n");
}

/** The timeline: its model, the geometry of its page, and the page itself run against a canvas that writes down what is drawn. */
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { timelineHtml } from "../../src/sim/timeline.ts";
import { MESSAGE_OUTCOMES, type TimelineModel, timelineModel } from "../../src/sim/timeline-model.ts";
import {
  axisTicks,
  hitTest,
  isDrawn,
  layoutTimeline,
  lowerBound,
  messageLine,
  messagesInView,
  type TimelineView,
  timeOfX,
  timeText,
  xOfTime,
  yOfNode,
  zoomView,
} from "../../src/sim/timeline-view.ts";
import type { RunResult } from "../../src/sim/world-types.ts";
import { fakeRun } from "./fake-run.ts";

function viewOf(model: TimelineModel, hidden: readonly string[] = []): TimelineView {
  return { startUs: 0, spanUs: model.endUs, width: 1_000, hidden: new Set(hidden) };
}

describe("timelineModel", () => {
  const run = fakeRun({ violated: true });

  it("pairs sends with what became of them", () => {
    const { messages, messageKinds } = timelineModel({
      ...run,
      trace: [
        { timeUs: 1, kind: "deliver frame", where: "n1>n0", detail: 9 }, // sent before the trace was kept
        { timeUs: 10, kind: "send frame", where: "n0>n1", detail: 100 },
        { timeUs: 20, kind: "send frame", where: "n0>n1", detail: 200 },
        { timeUs: 30, kind: "deliver frame", where: "n0>n1", detail: 200 },
        { timeUs: 35, kind: "timer", where: "n0" },
        { timeUs: 40, kind: "send datagram", where: "n2>n1", detail: 100 },
        { timeUs: 40, kind: "drop datagram", where: "n2>n1", detail: 100 },
        { timeUs: 50, kind: "send frame", where: "n1>n2", detail: 7 },
        { timeUs: 50, kind: "hold frame", where: "n1>n2", detail: 7 },
        { timeUs: 90, kind: "deliver frame", where: "n1>n2", detail: 7 },
      ],
    });
    expect(messageKinds).toEqual(["frame", "datagram"]);
    expect(messages.sentUs).toEqual([10, 20, 40, 50]);
    expect(messages.outcome.map((outcome) => MESSAGE_OUTCOMES[outcome])).toEqual([
      "flying",
      "delivered",
      "dropped",
      "held",
    ]);
    expect(messages.tookUs).toEqual([0, 10, 0, 40]);
    expect([messages.from, messages.to]).toEqual([
      [0, 0, 2, 1],
      [1, 1, 1, 2],
    ]);
  });

  it("has every operation with its end, and marks those of violations", () => {
    const model = timelineModel(run);
    expect(model.operations).toHaveLength(run.operations.length);
    const counts = [0, 1, 2, 3].map((outcome) => model.operations.filter((entry) => entry.outcome === outcome).length);
    expect(counts).toEqual([
      ...["ok", "fail", "info"].map((type) => run.history.filter((entry) => entry.type === type).length),
      1,
    ]);
    const marked = model.operations.filter(({ isViolating }) => isViolating);
    expect(marked).toHaveLength(3);
    const [violation] = model.violations;
    for (const { endUs } of marked) {
      expect(endUs).toBeGreaterThanOrEqual(violation?.startUs as number);
      expect(endUs).toBeLessThanOrEqual(violation?.endUs as number);
    }
  });

  it("has timed faults as stretches, drawn ones as points, and the nodes of both", () => {
    const { faults, endUs } = timelineModel(run);
    expect(faults).toHaveLength(run.faults.length);
    expect(faults.find(({ kind }) => kind === "crash")).toMatchObject({
      startUs: 4e6,
      endUs: 7e6,
      nodes: [1],
      where: "n1",
    });
    expect(faults.find(({ kind }) => kind === "lose")).toMatchObject({ endUs, nodes: [4] });
    expect(faults.find(({ kind }) => kind === "worker-slow")).toMatchObject({ nodes: [0] });
    const drop = faults.find(({ kind }) => kind === "drop");
    expect(drop?.startUs).toBe(drop?.endUs);
    expect(drop?.nodes).toHaveLength(2);
  });

  it("takes a run of nothing", () => {
    const empty = timelineModel({
      ...run,
      trace: [],
      history: [],
      faults: [],
      violations: [],
      simulatedMs: 0,
      nodes: [],
    });
    expect(empty).toMatchObject({ endUs: 1, operations: [], faults: [], processes: [] });
    expect(timelineHtml({ ...run, trace: [], history: [], faults: [], violations: [], nodes: [] })).toContain(
      "<canvas",
    );
  });
});

describe("geometry", () => {
  const model = timelineModel(fakeRun({ violated: true, messages: 100_000, seconds: 60 }));

  it("draws a bounded number of messages, the same ones wherever the view stands", () => {
    const view = viewOf(model);
    for (const spanUs of [model.endUs, 10e6, 1e6, 1e4]) {
      view.spanUs = spanUs;
      view.startUs = model.endUs / 3;
      const seen = messagesInView(model, view, 4_000);
      const { sentUs, tookUs } = model.messages;
      const isSeen = (index: number): boolean => (sentUs[index] as number) + (tookUs[index] as number) >= view.startUs;
      const drawn = range(seen.first, seen.end).filter((index) => isSeen(index) && isDrawn(model, index, seen));
      expect(drawn.length).toBeLessThanOrEqual(4_000 + 250);
      expect(drawn.length).toBeGreaterThan(0);
      if (spanUs === 1e4) expect([seen.stride, seen.rareStride]).toEqual([1, 1]);
    }
  });

  it("finds under the pointer what is drawn there", () => {
    const view = { ...viewOf(model), spanUs: 50_000, startUs: 20_000_000 };
    const layout = layoutTimeline(model, view);
    const seen = messagesInView(model, view, 4_000);
    let found = 0;
    for (const index of range(seen.first, seen.end)) {
      const line = messageLine(model, view, layout, index);
      if (line === undefined || line.x1 < layout.gutter || line.x2 > view.width) continue;
      const hit = hitTest(model, view, (line.x1 + line.x2) / 2, (line.y1 + line.y2) / 2, 4_000);
      expect(hit?.what).toBe("message");
      if (hit?.index === index) found++;
    }
    expect(found).toBeGreaterThan(20);
    const whole = viewOf(model);
    for (const [index, { kind, startUs }] of [...model.faults.entries()].filter(([, fault]) => fault.kind !== "drop")) {
      const y = layout.faultsY + (layout.faultKinds.indexOf(kind) + 0.5) * layout.faultHeight;
      expect(hitTest(model, whole, xOfTime(startUs, whole, layout) + 1, y, 4_000)).toEqual({ what: "fault", index });
    }
    const marked = model.operations.findIndex(({ isViolating }) => isViolating);
    const { row, startUs, endUs } = model.operations[marked] as TimelineModel["operations"][number];
    const y = layout.processesY + (row + 0.5) * layout.processHeight;
    expect(hitTest(model, whole, xOfTime((startUs + endUs) / 2, whole, layout), y, 4_000)).toEqual({
      what: "operation",
      index: marked,
    });
    expect(
      hitTest(
        model,
        { ...whole, hidden: new Set(MESSAGE_OUTCOMES.map((name) => `message ${name}`)) },
        500,
        yOfNode(2, layout),
        9,
      ),
    ).toEqual({ what: "node", index: 2 });
    expect(hitTest(model, whole, 10, 300, 4_000)).toBeUndefined();
  });

  it("keeps the time under the pointer when it zooms, and stays within the run", () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.double({ min: 0.1, max: 10, noNaN: true }), fc.double({ min: 0, max: 1, noNaN: true })), {
          maxLength: 20,
        }),
        (steps) => {
          const view = viewOf(model);
          const layout = layoutTimeline(model, view);
          for (const [factor, share] of steps) {
            const x = layout.gutter + share * (view.width - layout.gutter);
            const aboutUs = timeOfX(x, view, layout);
            zoomView(model, view, factor, aboutUs);
            expect(view.startUs).toBeGreaterThanOrEqual(0);
            expect(view.startUs + view.spanUs).toBeLessThanOrEqual(model.endUs + 1e-3);
            const isFree = view.startUs > 0 && view.startUs + view.spanUs < model.endUs - 1;
            if (isFree)
              expect(Math.abs(timeOfX(x, view, layout) - aboutUs)).toBeLessThanOrEqual(1e-3 * view.spanUs + 1e-3);
          }
        },
      ),
    );
  });

  it("labels the axis at round times", () => {
    const view = { ...viewOf(model), startUs: 1_234_567, spanUs: 4_000 };
    const { stepUs, ticks } = axisTicks(view, layoutTimeline(model, view));
    expect(stepUs).toBe(1_000);
    expect(ticks).toEqual([1_235_000, 1_236_000, 1_237_000, 1_238_000]);
    expect(ticks.map((tick) => timeText(tick, stepUs))).toEqual(["1.235 s", "1.236 s", "1.237 s", "1.238 s"]);
    expect([timeText(0, 1e6), timeText(1_500, 10), timeText(17, 1)]).toEqual(["0 s", "1.50 ms", "17 µs"]);
    expect([lowerBound([1, 3, 3, 5], 3), lowerBound([1, 3], 9), lowerBound([], 1)]).toEqual([1, 2, 0]);
  });
});

describe("timelineHtml", () => {
  const violated = (message: string, rule = "linearizable"): RunResult => ({
    ...fakeRun({ violated: true, messages: 300 }),
    violations: [{ rule, message, entries: [] }],
  });

  it("needs nothing from outside", () => {
    const html = timelineHtml(fakeRun({ violated: true }));
    expect(html).not.toMatch(/\b(?:src|href)=|@import|url\(|https?:/);
    expect(html).toContain(`Content-Security-Policy" content="default-src 'none'`);
  });

  it("makes no markup of a run's texts", () => {
    const evil = `</script><script>alert(1)</script><!--`;
    const html = timelineHtml({ ...violated(evil, evil), traceHash: evil });
    expect(html.match(/<script/g)).toHaveLength(2);
    expect(html).not.toContain("<!--");
    expect(modelIn(html).violations[0]?.message).toBe(evil);
  });

  it("draws lanes, messages, faults and operations, and tells about what is pointed at", () => {
    const html = timelineHtml(fakeRun({ violated: true, messages: 30_000 }));
    const page = runPage(html);
    expect(page.texts()).toEqual(
      expect.arrayContaining(["n0", "n4", "crash", "partition", "process 0", "process 7", "0 s"]),
    );
    expect(page.lines()).toBeGreaterThan(3_000);
    expect(page.lines()).toBeLessThan(30_000);
    expect(page.text("note")).toContain("1 in 4");
    const model = modelIn(html);
    const view = viewOf(model);
    const layout = layoutTimeline(model, view);
    page.point(
      xOfTime(5e6, view, layout),
      layout.faultsY + layout.faultKinds.indexOf("crash") * layout.faultHeight + 5,
    );
    expect(page.text("tip")).toBe("crash at n1\nat 4.000 s for 3000 ms");
    page.press("0");
    page.press("+");
    page.press("+");
    expect(page.text("note")).toContain("1 in 2");
    page.click(0);
    expect(page.text("note")).toBe("");
    expect(page.lines()).toBeGreaterThan(0);
  });
});

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from) }, (_, index) => from + index);
}

function modelIn(html: string): TimelineModel {
  const [, text] = /id="model">([^<]*)</.exec(html) ?? [];
  return JSON.parse(text as string) as TimelineModel;
}

type Listener = (event: Record<string, unknown>) => void;

/** Runs a page's script with elements that remember, and a canvas that writes down. */
function runPage(html: string) {
  const elements = new Map<string, ReturnType<typeof element>>();
  const buttons: ReturnType<typeof element>[] = [];
  const keys: Listener[] = [];
  let calls: [string, ...unknown[]][] = [];
  const context = new Proxy<Record<string, unknown>>(
    {},
    {
      get: (_, name) => {
        if (name === "measureText") return (text: string) => ({ width: text.length * 6 });
        return (...values: unknown[]) => calls.push([String(name), ...values]);
      },
      set: () => true,
    },
  );
  function element(): Record<string, unknown> & { listeners: Map<string, Listener> } {
    const listeners = new Map<string, Listener>();
    return {
      listeners,
      textContent: "",
      style: {},
      clientWidth: 1_000,
      offsetWidth: 100,
      offsetHeight: 40,
      append: () => undefined,
      addEventListener: (type: string, listener: Listener) => listeners.set(type, listener),
      getBoundingClientRect: () => ({ left: 0, top: 0 }),
      getContext: () => {
        calls = [];
        return context;
      },
    };
  }
  const byId = (id: string): ReturnType<typeof element> => {
    const found = elements.get(id) ?? element();
    elements.set(id, found);
    return found;
  };
  byId("model")["textContent"] = JSON.stringify(modelIn(html));
  const document = {
    documentElement: element(),
    getElementById: byId,
    createElement: (tag: string) => {
      const made = element();
      if (tag === "button") buttons.push(made);
      return made;
    },
  };
  const window = {
    devicePixelRatio: 2,
    innerWidth: 1_000,
    innerHeight: 900,
    addEventListener: (type: string, listener: Listener) => {
      if (type === "keydown") keys.push(listener);
    },
    requestAnimationFrame: (callback: () => void) => callback(),
    getComputedStyle: () => ({ getPropertyValue: () => "#123456" }),
    matchMedia: () => ({ matches: false, addEventListener: () => undefined }),
  };
  const scripts = [...html.matchAll(/<script>([\s\S]*?)<\/script>/g)].map(([, text]) => text as string);
  expect(scripts).toHaveLength(1);
  runInNewContext(scripts[0] as string, { document, window });
  return {
    texts: () => calls.filter(([name]) => name === "fillText").map(([, text]) => text),
    lines: () => calls.filter(([name]) => name === "lineTo").length,
    text: (id: string) => byId(id)["textContent"],
    point: (clientX: number, clientY: number) => byId("canvas").listeners.get("pointermove")?.({ clientX, clientY }),
    press: (key: string) => {
      for (const listener of keys) listener({ key, preventDefault: () => undefined });
    },
    click: (index: number) => buttons[index]?.listeners.get("click")?.({}),
  };
}

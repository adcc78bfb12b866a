/**
 * Random traffic under random faults.
 *
 * Acceptable outcomes: what an end receives is what its other end sent, from the first frame on, in order, none twice, each
 * with at most one flipped bit; `onClose` comes once and last; nothing is called in a dead node. After everything healed, a
 * connection is closed at both ends, or open at both ends with every frame delivered. The recorded faults give the same run.
 */
import fc from "fast-check";
import { expect, it } from "vitest";
import type { Fault, FaultInjector } from "../../src/sim/fault-types.ts";
import { createFaultInjector, createReplayInjector } from "../../src/sim/injector.ts";
import { HOLD, PASS, type RuleGuard } from "../../src/sim/network-types.ts";
import { bitsApart, type End, NetworkWorld } from "./network-world.ts";
import { createHashStream } from "./streams.ts";
import { TestLoop } from "./test-loop.ts";

const seed = Number(process.env["SEED"]);
const NODES = ["n0", "n1", "n2"];
const SECOND_US = 1_000_000;
const TRAFFIC_US = 20 * SECOND_US;
/** Dial timeout, idle limit with its spread and the longest wait for a retransmission, with room. */
const SETTLE_US = 20 * SECOND_US;

const node = fc.nat(NODES.length - 1);
const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant("dial" as const), node, to: node }) },
  { weight: 20, arbitrary: fc.record({ type: fc.constant("send" as const), end: fc.nat(), bytes: fc.nat(200) }) },
  { weight: 6, arbitrary: fc.record({ type: fc.constant("datagram" as const), end: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("close" as const), end: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("crash" as const), node }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("close transport" as const), node }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("start" as const), node }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("pause" as const), node }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("resume" as const), node }) },
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constantFrom("cut", "clog", "hold by rule"), node, to: node, ms: fc.nat(7000) }),
  },
);
const schedule = fc.record({
  actions: fc.array(fc.record({ atUs: fc.nat(TRAFFIC_US), action }), { minLength: 30, maxLength: 150 }),
  rates: fc.record({
    drop: fc.constantFrom(0, 0.01, 0.3),
    delay: fc.constantFrom(0, 0.2),
    reorder: fc.constantFrom(0, 0.3),
    duplicate: fc.constantFrom(0, 0.2),
    corrupt: fc.constantFrom(0, 0.05),
  }),
  bytesPerSecond: fc.constantFrom(Number.POSITIVE_INFINITY, 20_000),
  run: fc.nat(),
});
type Schedule = typeof schedule extends fc.Arbitrary<infer T> ? T : never;
type Action = Schedule["actions"][number]["action"];

function act(world: NetworkWorld, action: Action): void {
  switch (action.type) {
    case "dial":
      world.dial(NODES[action.node] as string, NODES[action.to] as string);
      return;
    case "send":
    case "datagram":
    case "close": {
      const end = world.ends[action.end % Math.max(1, world.ends.length)];
      if (end === undefined) return;
      if (action.type === "send") world.send(end, action.bytes);
      else if (action.type === "datagram") world.sendDatagram(end);
      else world.close(end);
      return;
    }
    case "crash":
      world.crash(NODES[action.node] as string);
      return;
    case "close transport":
      world.closeTransport(NODES[action.node] as string);
      return;
    case "start":
      if (!world.isUp(NODES[action.node] as string)) world.start(NODES[action.node] as string);
      return;
    case "pause":
      world.pause(NODES[action.node] as string);
      return;
    case "resume":
      world.resume(NODES[action.node] as string);
      return;
    default:
      block(world, action.type, NODES[action.node] as string, NODES[action.to] as string, action.ms);
  }
}

function block(world: NetworkWorld, type: string, from: string, to: string, ms: number): void {
  if (from === to) return;
  const { network, loop } = world;
  let guard: RuleGuard;
  if (type === "cut") guard = network.cut([{ from, to }]);
  else if (type === "clog") guard = network.clog([{ from, to }]);
  else guard = network.install((message) => (message.from === from && message.to === to ? HOLD : PASS));
  loop.at(loop.nowUs + ms * 1000, () => guard.uninstall());
}

function play({ actions, run, bytesPerSecond }: Schedule, injector: FaultInjector): NetworkWorld {
  const world = new NetworkWorld(run, NODES, injector, { bytesPerSecond }, new TestLoop(run));
  for (const { atUs, action } of actions) world.loop.at(atUs, () => act(world, action));
  world.loop.run(TRAFFIC_US);
  injector.quiet();
  world.network.heal();
  for (const name of NODES) world.resume(name);
  for (const name of NODES) if (!world.isUp(name)) world.start(name);
  world.loop.run(TRAFFIC_US + SETTLE_US);
  return world;
}

/** Whether what came is what the other end sent from its first frame on, with at most one flipped bit each. */
function isPrefix(end: End, maxBits: number): boolean {
  const sent = end.other?.sent ?? [];
  return end.received.every((frame, index) => {
    const bits = index < sent.length ? bitsApart(frame, sent[index] as Uint8Array) : -1;
    return bits >= 0 && bits <= maxBits;
  });
}

it("keeps the promises of connections", () => {
  const seen = { closedByFault: 0, openAndWhole: 0, damaged: 0, frames: 0, datagrams: 0 };
  fc.assert(
    fc.property(schedule, (one) => {
      const injector = createFaultInjector(one.rates, createHashStream(one.run), []);
      const world = play(one, injector);
      for (const end of world.ends) {
        expect(end.late).toBe(0);
        expect(end.opened).toBeLessThanOrEqual(1);
        if (end.received.length > 0) expect(end.opened).toBe(1);
        if (one.rates.corrupt === 0 && end.received.length > 0) expect(end.other).toBeDefined();
        // A damaged greeting may match no end.
        if (end.other === undefined) continue;
        expect(isPrefix(end, one.rates.corrupt > 0 ? 1 : 0)).toBe(true);
        for (const datagram of end.datagrams) expect(datagram.length).toBe(16);
        const isOpen = end.closed === undefined && world.isAlive(end);
        const isOtherOpen = end.other.closed === undefined && world.isAlive(end.other);
        expect(isOpen).toBe(isOtherOpen);
        if (isOpen) expect(end.received.length).toBe(end.other.sent.length);
        seen.frames += end.received.length;
        seen.datagrams += end.datagrams.length;
        if (isOpen) seen.openAndWhole++;
        else if (end.closed?.code === "ERR_UNAVAILABLE") seen.closedByFault++;
        if (!isPrefix(end, 0)) seen.damaged++;
      }
    }),
    { seed, numRuns: 300 },
  );
  // The run must have met what it is about.
  for (const [what, count] of Object.entries(seen)) expect(count, what).toBeGreaterThan(5);
});

it("gives the same run for the same seed, and for the faults that a run recorded", () => {
  let faults = 0;
  fc.assert(
    fc.property(schedule, (one) => {
      const create = () => createFaultInjector(one.rates, createHashStream(one.run), []);
      const injector = create();
      const { lines } = play(one, injector).loop;
      expect(play(one, create()).loop.lines).toEqual(lines);
      const replay = createReplayInjector(injector.injected);
      expect(play(one, replay).loop.lines).toEqual(lines);
      const sorted = (list: readonly Fault[]) => list.map((fault) => JSON.stringify(fault));
      expect(sorted(replay.injected)).toEqual(sorted(injector.injected));
      faults += injector.injected.length;
    }),
    { seed, numRuns: 60 },
  );
  expect(faults).toBeGreaterThan(100);
});

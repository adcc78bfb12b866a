/** Timed faults: begun, ended, recorded, healed. The parts of the world are a list of what was done to them. */
import { describe, expect, it } from "vitest";
import { FaultDriver, type FaultTargets } from "../../src/sim/fault-driver.ts";
import { planTimed } from "../../src/sim/fault-plan.ts";
import type { FaultKind, TimedFault } from "../../src/sim/fault-types.ts";
import { resolveFaultShape, resolveFaults } from "../../src/sim/faults.ts";
import { createFaultInjector, createReplayInjector } from "../../src/sim/injector.ts";
import { SimNetwork } from "../../src/sim/network.ts";
import { TestLoop } from "./test-loop.ts";

const seed = Number(process.env["SEED"]);
const NODES = ["n0", "n1", "n2", "n3", "n4"];

function fault(kind: FaultKind, atMs: number, durationMs: number, targets: readonly string[], size = 0): TimedFault {
  return { kind, atMs, durationMs, targets, size };
}

function drive(injector: ReturnType<typeof createReplayInjector>, hasWorkers = true, seedOfLoop = 1) {
  const loop = new TestLoop(seedOfLoop);
  const done: string[] = [];
  const note = (what: string): void => void done.push(`${loop.nowUs / 1000} ${what}`);
  const noteWorker = (what: string): boolean => {
    if (hasWorkers) note(what);
    return hasWorkers;
  };
  const service = (name: string) => ({
    begin: ({ kind, size, durationMs }: TimedFault) => {
      note(`${name} ${kind} ${size} for ${durationMs}`);
      return true;
    },
    heal: () => note(`${name} heals`),
  });
  const network = new SimNetwork(loop, injector);
  const targets: FaultTargets = {
    nodes: NODES,
    network,
    crashNode: (node) => note(`crash ${node}`),
    killNode: (node) => note(`kill ${node}`),
    restartNode: (node) => note(`restart ${node}`),
    loseNode: (node) => note(`lose ${node}`),
    pauseNode: (node) => note(`pause ${node}`),
    resumeNode: (node) => note(`resume ${node}`),
    stepClock: (node, ms) => note(`step ${node} ${ms}`),
    driftClock: (node, ppm) => note(`drift ${node} ${ppm}`),
    skewClock: (node, ms) => note(`skew ${node} ${ms}`),
    killWorker: (node, worker) => noteWorker(`kill ${node} ${worker}`),
    slowWorker: (node, worker, factor) => noteWorker(`slow ${node} ${worker} ${factor}`),
    tearRegion: (node, worker, size) => noteWorker(`tear ${node} ${worker} ${size}`),
    corruptRing: (node, worker, size) => noteWorker(`ring ${node} ${worker} ${size}`),
    disk: (node) => service(`disk of ${node}`),
    nats: service("nats"),
  };
  const driver = new FaultDriver(loop, injector, targets);
  driver.prepare();
  driver.start();
  return { loop, done, driver, network };
}

function play(...faults: TimedFault[]) {
  return drive(createReplayInjector(faults));
}

describe("a driver", () => {
  it("begins and ends each kind at its times", () => {
    const { loop, done } = play(
      fault("clock-skew", 0, 0, ["n0"], 0.5),
      fault("crash", 10, 5, ["n1"]),
      fault("pause", 20, 5, ["n1"]),
      fault("clock-step", 30, 0, ["n2"], 0.5),
      fault("clock-drift", 40, 5, ["n2"], 0.75),
      fault("worker-crash", 50, 0, ["n3/w1"]),
      fault("worker-slow", 60, 5, ["n3/w12"], 0.5),
      fault("region-torn", 70, 0, ["n3/w0"], 0.25),
      fault("ring-corrupt", 80, 0, ["n3/w0"], 0.125),
      fault("disk-full", 90, 5, ["n4/disk"]),
      fault("nats-restarted", 100, 0, ["nats"]),
      fault("nats-frozen", 110, 5, ["nats"]),
      fault("node-kill", 114, 5, ["n1"]),
      fault("lose", 120, 0, ["n4"]),
    );
    loop.run(1_000_000);
    expect(done).toEqual([
      "0 skew n0 1800000",
      "10 crash n1",
      "15 restart n1",
      "20 pause n1",
      "25 resume n1",
      "30 step n2 2500",
      "40 drift n2 25000",
      "45 drift n2 0",
      "50 kill n3 1",
      "60 slow n3 12 26",
      "65 slow n3 12 1",
      "70 tear n3 0 0.25",
      "80 ring n3 0 0.125",
      "90 disk of n4 disk-full 0 for 5",
      "100 nats nats-restarted 0 for 0",
      "110 nats nats-frozen 0 for 5",
      "114 kill n1",
      "119 restart n1",
      "120 lose n4",
    ]);
  });

  it("takes the power of all nodes but the lost, and starts them one after the other, whatever else had them", () => {
    const { loop, done, driver } = play(
      fault("crash", 10, 200, ["n0"]),
      fault("lose", 20, 0, ["n1"]),
      fault("pause", 30, 300, ["n2"]),
      fault("cluster-crash", 40, 40, ["n2", "n0", "n1", "n4", "n3"]),
      fault("crash", 55, 100, ["n2"]), // is up again
      fault("node-kill", 56, 100, ["n3"]), // is not
    );
    loop.run(70_000);
    expect(NODES.map((node) => driver.isUp(node))).toEqual([true, false, false, false, true]);
    loop.run(1_000_000);
    expect(done.slice(3)).toEqual([
      "40 crash n2",
      "40 crash n0",
      "40 crash n4",
      "40 crash n3",
      "50 restart n2",
      "55 crash n2",
      "60 restart n0",
      "70 restart n4",
      "80 restart n3",
      "155 restart n2",
    ]);
  });

  it("restores power at quiet", () => {
    const { loop, done, driver } = play(fault("cluster-crash", 10, 90, NODES.slice(0, 3)));
    loop.run(50_000);
    driver.quiet();
    loop.run(1_000_000);
    expect(done.slice(3)).toEqual(["40 restart n0", "50 restart n1", "50 restart n2"]);
  });

  it("lets the later of two faults have a thing, and leaves alone what is down", () => {
    const { loop, done, driver } = play(
      fault("pause", 10, 50, ["n0"]),
      fault("crash", 20, 10, ["n0"]), // takes the paused node
      fault("crash", 25, 50, ["n0"]), // is down already
      fault("worker-crash", 26, 0, ["n0/w0"]), // has no workers now
      fault("clock-drift", 100, 20, ["n1"], 0),
      fault("clock-drift", 110, 20, ["n1"], 0.75),
      fault("crash", 200, 50, ["n2"]),
      fault("lose", 210, 0, ["n2"]), // does not come back
      fault("crash", 300, 5, ["n2"]),
    );
    loop.run(27_000);
    expect([driver.isUp("n0"), driver.isUp("n1")]).toEqual([false, true]);
    loop.run(1_000_000);
    expect(done).toEqual([
      "10 pause n0",
      "20 crash n0",
      "30 restart n0",
      "100 drift n1 -50000",
      "110 drift n1 25000",
      "130 drift n1 0",
      "200 crash n2",
      "210 lose n2",
    ]);
    expect([driver.isUp("n0"), driver.isUp("n2")]).toEqual([true, false]);
  });

  it("records what hit and nothing else", () => {
    const faults = [
      fault("region-torn", 1, 0, ["n0/w0"]),
      fault("pause", 2, 1, ["n0"]),
      fault("worker-slow", 8, 1, ["n0/w0"]),
    ];
    const injector = createReplayInjector(faults);
    drive(injector, false).loop.run(1_000_000);
    expect(injector.injected).toEqual([faults[1]]);
    const hit = createReplayInjector(faults);
    drive(hit, true).loop.run(1_000_000);
    expect(hit.injected).toEqual(faults);
  });

  it("heals everything at quiet and begins nothing after it", () => {
    const { loop, done, driver, network } = play(
      fault("crash", 10, 500, ["n0"]),
      fault("partition", 11, 500, ["n1"]),
      fault("clog", 12, 500, ["n2", "n3"]),
      fault("clock-drift", 13, 500, ["n2"], 0.75),
      fault("nats-frozen", 14, 500, ["nats"]),
      fault("pause", 30, 500, ["n3"]),
    );
    const arrived: number[] = [];
    for (const node of NODES) network.transport(node, 1).listen(() => noHandler(() => arrived.push(loop.nowUs)));
    loop.run(20_000);
    done.length = 0;
    driver.quiet();
    driver.quiet();
    expect(done).toEqual(["20 restart n0", "20 drift n2 0", "20 nats heals"]);
    expect(driver.isUp("n0")).toBe(true);
    loop.run(1_000_000);
    expect(done.length).toBe(3);
  });

  it("cuts and clogs the network for as long as the fault lasts", () => {
    const { loop, network } = play(fault("partition", 10, 300, ["n1"]), fault("clog", 400, 300, ["n0", "n1"]));
    const opened: number[] = [];
    const transports = NODES.map((node) => network.transport(node, 1));
    for (const transport of transports) transport.listen(() => noHandler(() => undefined));
    for (const atMs of [5, 20, 350, 420, 800])
      loop.at(
        atMs * 1000,
        () =>
          void transports[0]?.dial(
            "n1",
            noHandler(() => opened.push(Math.floor(loop.nowUs / 1000))),
          ),
      );
    loop.run(3_000_000);
    expect(opened.length).toBe(5);
    expect(opened[0]).toBeLessThan(10);
    expect(opened.filter((ms) => ms > 10 && ms < 310)).toEqual([]);
    expect(opened.filter((ms) => ms >= 400 && ms < 700)).toEqual([]);
  });

  it("replays a run of all kinds from what the run recorded", () => {
    for (let run = 0; run < 20; run++) {
      const shape = resolveFaultShape({
        nodes: NODES,
        workersPerNode: 2,
        acks: 3,
        disks: true,
        nats: true,
        storage: true,
      });
      const { stream } = new TestLoop(seed + run);
      const rates = resolveFaults("all", stream("swarm"), shape);
      const injector = createFaultInjector(rates, stream, planTimed(rates, stream, shape, 600_000));
      const first = drive(injector, run % 2 === 0, run);
      first.loop.run(700_000_000);
      const replay = createReplayInjector(injector.injected);
      const second = drive(replay, run % 2 === 0, run);
      second.loop.run(700_000_000);
      expect(first.done.length).toBeGreaterThan(20);
      expect(second.done).toEqual(first.done);
      expect(replay.injected).toEqual(injector.injected);
    }
  });
});

function noHandler(onOpen: () => void) {
  return { onOpen, onFrame: () => undefined, onDatagram: () => undefined, onClose: () => undefined };
}

import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { createSnapshot, MEMBER_STATE, withStates } from "../../src/topology/snapshot.ts";
import {
  createTopologyBlock,
  LocalTopology,
  SharedTopology,
  type TopologySource,
} from "../../src/topology/topology-source.ts";
import { isWhole, type PublisherInput, snapshotOfEpoch } from "./epoch-map.ts";

const LONG = process.env["SHARDLOOM_LONG"] === "1";

describe.each<[string, () => TopologySource]>([
  ["of one thread", () => new LocalTopology(snapshotOfEpoch(5))],
  ["in shared memory", () => new SharedTopology(createTopologyBlock(snapshotOfEpoch(5)))],
  [
    "in shared memory, known already",
    () => new SharedTopology(createTopologyBlock(snapshotOfEpoch(5)), snapshotOfEpoch(5)),
  ],
])("topology source %s", (_, create) => {
  it("gives what it was made with, the same object while nothing changes", () => {
    const source = create();
    expect(source.current()).toEqual(snapshotOfEpoch(5));
    expect(source.current()).toBe(source.current());
  });

  it("learns what is newer and never goes back", () => {
    const source = create();
    source.learn(snapshotOfEpoch(4));
    expect(source.current().topologyEpoch).toBe(5);
    const same = createSnapshot({ shards: 2, vshards: 2, topologyEpoch: 5 });
    source.learn(same);
    expect(source.current()).not.toBe(same);
    const newer = snapshotOfEpoch(9);
    source.learn(newer);
    source.learn(snapshotOfEpoch(7));
    expect(source.current()).toBe(newer);
    expect(source.current()).toEqual(snapshotOfEpoch(9));
  });
});

describe("shared topology", () => {
  it("shows to every handle what one publishes", () => {
    const block = createTopologyBlock(snapshotOfEpoch(1));
    const [control, early] = [new SharedTopology(block), new SharedTopology(block)];
    expect(early.current().topologyEpoch).toBe(1);
    control.publish(snapshotOfEpoch(2));
    const late = new SharedTopology(block);
    for (const source of [control, early, late]) expect(source.current()).toEqual(snapshotOfEpoch(2));
  });

  it("keeps what was learned until something newer is published", () => {
    const block = createTopologyBlock(snapshotOfEpoch(1));
    const [control, reader] = [new SharedTopology(block), new SharedTopology(block)];
    reader.learn(snapshotOfEpoch(4));
    control.publish(snapshotOfEpoch(3));
    expect(reader.current().topologyEpoch).toBe(4);
    control.publish(snapshotOfEpoch(5));
    expect(reader.current()).toEqual(snapshotOfEpoch(5));
  });

  it("holds smaller maps than its first, and refuses larger ones", () => {
    const block = createTopologyBlock(createSnapshot({ shards: 4, vshards: 64, replicationFactor: 2 }));
    const control = new SharedTopology(block);
    const smaller = createSnapshot({ shards: 3, vshards: 64, topologyEpoch: 2 });
    control.publish(smaller);
    expect(new SharedTopology(block).current()).toEqual(smaller);
    const larger = createSnapshot({ shards: 4, vshards: 64, replicationFactor: 3, topologyEpoch: 3 });
    expect(() => control.publish(larger)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    expect(new SharedTopology(block).current()).toEqual(smaller);
  });

  it("publishes changes of state", () => {
    const block = createTopologyBlock(createSnapshot({ shards: 2, vshards: 4 }));
    const [control, reader] = [new SharedTopology(block), new SharedTopology(block)];
    reader.current();
    control.publish(withStates(control.current(), Uint8Array.of(MEMBER_STATE.UP, MEMBER_STATE.DOWN)));
    expect([...reader.current().states]).toEqual([MEMBER_STATE.UP, MEMBER_STATE.DOWN]);
  });
});

// Acceptable outcomes: each map that is read is one of those that were published, whole; epochs never fall; the last one comes.
it("shows no torn map while another thread publishes", { timeout: 120_000 }, async () => {
  const [wanted, limitMs] = LONG ? [1_000_000, 60_000] : [5000, 10_000];
  const block = createTopologyBlock(snapshotOfEpoch(1));
  const word = new Int32Array(new SharedArrayBuffer(4));
  const input: PublisherInput = { block, reader: word.buffer };
  const worker = new Worker(new URL("./publisher.worker.js", import.meta.url), { workerData: input });
  try {
    await once(worker, "message");
    const ended = once(worker, "message");
    const torn: number[] = [];
    let [epoch, seen, falls] = [1, 0, 0];
    Atomics.store(word, 0, 1);
    Atomics.notify(word, 0);
    for (const deadlineMs = performance.now() + limitMs; seen < wanted && performance.now() < deadlineMs; ) {
      // A handle that knows nothing reads the block whatever its epoch: more chances to be interrupted.
      const snapshot = new SharedTopology(block).current();
      if (snapshot.topologyEpoch < epoch) falls++;
      if (snapshot.topologyEpoch > epoch) seen++;
      epoch = snapshot.topologyEpoch;
      if (!isWhole(snapshot)) torn.push(epoch);
    }
    Atomics.store(word, 0, 2);
    const [{ lastEpoch }] = (await ended) as [{ lastEpoch: number }];
    expect({ torn, falls }).toEqual({ torn: [], falls: 0 });
    process.stdout.write(`topology race: ${seen} epochs seen of ${lastEpoch}\n`);
    expect(seen).toBeGreaterThan(100); // a reader that sees only the first and the last map has not raced
    const last = new SharedTopology(block).current();
    expect([last.topologyEpoch, isWhole(last)]).toEqual([lastEpoch, true]);
  } finally {
    await worker.terminate();
  }
});

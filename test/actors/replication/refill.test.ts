/** A primary whose node has lost its memory, among peers that answer as they are told: when it decides, what it takes, where it goes on. */
import { describe, expect, test } from "vitest";
import type { EngineReply, ReceivedEffect, ReplicatedEngine } from "../../../actors/engine.ts";
import { Primary } from "../../../actors/replication/primary.ts";
import type { PrimaryOptions } from "../../../actors/replication/primary-options.ts";
import {
  answerCopies,
  answerFetched,
  COPY,
  type CopyState,
  PART,
  readAskedCopies,
  readFetch,
  readSnapshot,
  readSource,
} from "../../../actors/replication/replica-messages.ts";
import { VshardGate } from "../../../actors/replication/vshard-gate.ts";
import { ShardloomError } from "../../../src/errors.ts";
import { type Payload, PendingRequest, type ReplySink } from "../../../src/routing/pending-request.ts";
import { createVirtualTime } from "../../../src/runtime/scheduler.ts";
import type { ShardLog } from "../../../src/store/log.ts";
import { baseLsn, firstShardIncarnation, nodeIncarnationOf } from "../../../src/topology/member.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot, MAX_MAP_VERSION, MEMBER_STATE } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import { REPLICA_FETCH, REPLICA_SNAPSHOT, REPLICA_STATUS } from "../../../src/wire/message-types.ts";
import {
  CONSISTENCY,
  REFUSAL,
  RoutedReader,
  type RoutedRequest,
  routedRequestBytes,
  SCOPE,
  writeRoutedRequest,
} from "../../../src/wire/routed-codec.ts";
import { wireMemory } from "../vector/support.ts";

const TYPE = 1;
const SHARDS = 5;
const VSHARDS = 8;
/** Vshards of shard 0. */
const OWN = [0, 5];

interface Peer {
  up: boolean;
  state: CopyState;
  lsn: number;
  isUnsure: boolean;
  /** What it holds of every vshard, one part each. */
  parts: string[];
  /** Vshards that it was sent a snapshot of. */
  filled: Set<number>;
  /** Called with the number of each part that it is asked for. */
  onFetch: (sequence: number) => void;
}

async function stage(life = 2, more: Partial<PrimaryOptions> = {}) {
  const time = createVirtualTime(1_000);
  const snapshot = createSnapshot({ shards: SHARDS, vshards: VSHARDS, replicationFactor: SHARDS });
  const topology = new LocalTopology(snapshot);
  const nowMs = (): number => time.clock.nowMs();
  const table = new ReplicaTable(
    createReplicaBlock(snapshot, (shard) => shard !== 0),
    topology,
    nowMs,
  );
  const peers: Peer[] = Array.from({ length: SHARDS }, () => ({
    up: false,
    state: COPY.UNKNOWN,
    lsn: -1,
    isUnsure: false,
    parts: [],
    filled: new Set(),
    onFetch: () => undefined,
  }));
  const rows = new Map<number, string[]>();
  const sources: number[] = [];
  let open = true;
  const engine: ReplicatedEngine = {
    types: [TYPE],
    has: () => open,
    apply: ({ vshard, bytes, offset, length }: ReceivedEffect) => {
      if (!open) throw new ShardloomError("ERR_UNKNOWN_COLLECTION", "Cannot find collection as it is not open yet");
      rows.get(vshard)?.push(String.fromCharCode(...bytes.subarray(offset, offset + length)));
    },
    snapshot: () => () => undefined,
    beginRestore: (vshard) => void rows.set(vshard, []),
    endRestore: () => undefined,
    contentHash: () => 0n,
  };
  const request =
    (peer: Peer) => (type: number, v: number, p: number, atMs: number, payload: Payload, sink: ReplySink) => {
      const memory = wireMemory(payload.byteLength + 8);
      payload.write(memory, 0);
      const message = { ...memory, offset: 0, length: payload.byteLength };
      sources.push(readSource(message).incarnation);
      time.scheduler.after(peer.up ? 1 : 100, () => {
        if (!peer.up) return sink.onFailure(new ShardloomError("ERR_TIMEOUT", "Cannot wait any longer"));
        const frame = { ...wireMemory(4_096), offset: 0, length: 4_096, serviceUs: 0, queueUs: 0 };
        const reply = { ...frame, claim: () => undefined } as unknown as EngineReply;
        try {
          answerTo(peer, type, message, reply);
        } catch (error) {
          return sink.onFailure(ShardloomError.from(error));
        }
        sink.onReply(frame);
      });
      return new PendingRequest(type, v, p, atMs, payload, sink, undefined, undefined);
    };
  const start = (incarnation: number): Primary => {
    let attached = false; // a worker's peers are attached after its primary was made
    const primary = new Primary({
      shard: 0,
      incarnation,
      acks: 2,
      topology,
      table,
      nowMs,
      engines: [engine],
      clock: time.clock,
      scheduler: time.scheduler,
      requestTimeoutMs: 100,
      ...more,
      requester: (peer) => (attached ? { maxPayloadBytes: 4_096, request: request(peers[peer] as Peer) } : undefined),
    });
    attached = true;
    primary.start();
    return primary;
  };
  const primary = start(firstShardIncarnation(life));
  const setOpen = (value: boolean): void => {
    open = value;
  };
  return { ...time, topology, table, peers, rows, sources, primary, start, setOpen };
}

function answerTo(peer: Peer, type: number, message: Parameters<typeof readFetch>[0], reply: EngineReply): void {
  if (type === REPLICA_STATUS) {
    const { state, lsn, isUnsure } = peer;
    answerCopies(
      reply,
      readAskedCopies(message)
        .map(({ vshard }) => vshard)
        .map((vshard) => ({ vshard, state, lsn, isUnsure })),
    );
  } else if (type === REPLICA_FETCH) {
    const wanted = readFetch(message);
    peer.onFetch(wanted.sequence);
    const text = peer.parts[wanted.sequence];
    const body = Uint8Array.from(text ?? "", (letter) => letter.charCodeAt(0));
    const part = text === undefined ? PART.END : PART.BODY;
    answerFetched(reply, { ...wanted, part, lsn: peer.lsn, type: TYPE, collection: 1 }, body);
  } else {
    expect(type).toBe(REPLICA_SNAPSHOT);
    const { vshard, part, startLsn } = readSnapshot(message);
    peer.filled.add(vshard);
    const state = part === PART.END ? COPY.VALID : COPY.RESTORING;
    answerCopies(reply, [{ vshard, state, lsn: startLsn }]);
  }
}

function tell(peer: Peer | undefined, lsn: number, parts: string[], state: CopyState = COPY.VALID): void {
  Object.assign(peer as Peer, { up: true, lsn, parts, state });
}

test("a successor tells copies of what was never written to that there is nothing, as its predecessor may have died over that", async () => {
  const { peers, sources, advance, start } = await stage(1);
  for (const peer of peers) tell(peer, -1, [], COPY.UNKNOWN);
  await advance(1_000);
  expect(sources).toEqual([]); // in the beginning nobody has to be told
  start(2);
  await advance(1_000);
  for (const peer of peers.slice(1)) expect([...peer.filled].sort((a, b) => a - b)).toEqual(OWN);
});

test("lives number their workers and writes above each other", () => {
  for (const life of [1, 2, 77, 32_767]) {
    const first = firstShardIncarnation(life);
    expect([first, first + 65_535].map(nodeIncarnationOf)).toEqual([life, life]);
    expect(first + 65_535 <= 0x7fffffff || life === 32_767).toBe(true);
    expect(baseLsn(life + 1)).toBeGreaterThan(baseLsn(life) + 8e9);
    expect(Number.isSafeInteger(baseLsn(life) + 8e9)).toBe(true);
  }
  expect([firstShardIncarnation(1), baseLsn(1)]).toEqual([1, 0]);
  expect(Number.isSafeInteger(baseLsn(MAX_MAP_VERSION) + 8e9)).toBe(true);
});

describe("a primary that has lost its memory", () => {
  test("decides nothing before one of those that answered must have every write of a majority", async () => {
    const { peers, primary, advance, table, rows } = await stage();
    tell(peers[1], 7, ["a"]);
    tell(peers[2], 9, ["b", "c"]);
    await advance(20_000);
    expect([...primary.refilling]).toEqual(OWN);
    const unavailable = expect.objectContaining({ code: "ERR_UNAVAILABLE", retryable: true });
    for (const vshard of OWN)
      expect(() => primary.begin(1, 0).add(vshard, TYPE, 1, Uint8Array.of(1))).toThrow(unavailable);
    expect(() => primary.begin(1, 0).touch(VSHARDS + 5)).toThrow(unavailable); // a hash of that vshard
    expect([table.ownHead(0), table.hasOwnHead(5)]).toEqual([-1, false]);
    tell(peers[4], -1, [], COPY.UNKNOWN); // it may have lost what the fourth has
    primary.peerAttached(4);
    await advance(20_000);
    expect([...primary.refilling]).toEqual(OWN);
    tell(peers[3], 1, ["a"]);
    primary.peerAttached(3);
    await advance(2_000);
    expect(primary.refilling.size).toBe(0);
    expect(OWN.map((vshard) => rows.get(vshard))).toEqual([
      ["b", "c"],
      ["b", "c"],
    ]);
    for (const vshard of OWN) expect(table.ownHead(vshard)).toBe(baseLsn(2));
  });

  test("waits a while for those that it does not need, and not at all when all have answered", async () => {
    const most = await stage();
    for (const peer of [1, 2, 3]) tell(most.peers[peer], peer, ["x"]);
    await most.advance(450);
    expect(most.primary.refilling.size).toBe(2);
    await most.advance(1_000);
    expect(most.primary.refilling.size).toBe(0);
    const all = await stage();
    for (const peer of [1, 2, 3, 4]) tell(all.peers[peer], peer, ["x"]);
    all.primary.start();
    await all.advance(150);
    expect(all.primary.refilling.size).toBe(0);
  });

  test("takes no copy for a witness that may have forgotten what it acknowledged, not its own either, unless all have told", async () => {
    const { peers, primary, advance, rows } = await stage(2, { own: () => ({ lsn: 9, exact: true, isUnsure: true }) });
    tell(peers[1], 8, ["a"]);
    tell(peers[2], 7, ["b"]);
    tell(peers[3], 9, ["c"]);
    (peers[3] as Peer).isUnsure = true;
    await advance(20_000);
    expect([...primary.refilling]).toEqual(OWN); // with both it were five of five
    tell(peers[4], 11, ["d"]);
    primary.peerAttached(4);
    await advance(2_000);
    expect(OWN.map((vshard) => rows.get(vshard))).toEqual([["d"], ["d"]]);
    const all = await stage(2, { own: () => ({ lsn: 9, exact: true, isUnsure: true }) });
    for (const peer of all.peers.slice(1)) {
      tell(peer, 5, ["x"]);
      peer.isUnsure = true;
    }
    await all.advance(1_000);
    expect([all.primary.refilling.size, all.rows.size]).toEqual([0, 0]); // what is here is the furthest
  });

  test("logs what was here already only where the log has not got it", async () => {
    for (const isLogged of [true, false]) {
      const relogged: [number, number][] = [];
      const { peers, advance } = await stage(2, {
        own: () => ({ lsn: 9, exact: true }),
        isLogged: () => isLogged,
        onRefilled: (vshard, lsn) => relogged.push([vshard, lsn]),
      });
      for (const peer of peers.slice(1)) tell(peer, 5, ["x"]);
      await advance(1_000);
      expect(relogged).toEqual(isLogged ? [] : OWN.map((vshard) => [vshard, baseLsn(2)]));
    }
  });

  test("logs what is here anew after a transfer that was broken off: it is not what its LSN stood for any more", async () => {
    const relogged: number[] = [];
    const { peers, primary, advance } = await stage(2, {
      own: () => ({ lsn: 9, exact: true }),
      isLogged: () => true,
      onRefilled: (vshard) => relogged.push(vshard),
    });
    for (const peer of peers.slice(1, 4)) tell(peer, 9, ["x", "y"]);
    tell(peers[4], 12, ["new"]);
    (peers[4] as Peer).onFetch = () => {
      tell(peers[4], 5, []); // what it said before was in its memory
    };
    await advance(5_000);
    expect(primary.refilling.size).toBe(0);
    expect(relogged).toEqual(OWN);
  });

  test("shows nothing of what it got before its log has it", async () => {
    const log = { head: 0, durable: 0, failure: undefined, assertRoom: () => undefined } as unknown as ShardLog & {
      durable: number;
    };
    let position = Number.POSITIVE_INFINITY;
    const { peers, primary, advance } = await stage(2, {
      log,
      own: () => ({ lsn: -1, exact: false }),
      loggedAt: () => position,
    });
    for (const peer of peers.slice(1)) tell(peer, 9, ["x"]);
    await advance(3_000);
    expect(primary.refilling.size).toBe(0);
    const read = (): Promise<string> =>
      new Promise((resolve) => {
        const held = { cancelled: false, send: () => resolve("sent"), fail: (error: Error) => resolve(error.message) };
        primary.settle(undefined, held, new Uint8Array(0), 0);
      });
    expect(primary.isSettled(undefined)).toBe(false);
    expect(await read()).toContain("log must have it");
    position = 7; // the log takes it now
    primary.logChanged();
    const waiting = read();
    expect(primary.isSettled(undefined)).toBe(false);
    log.durable = 7;
    primary.logChanged();
    expect(primary.isSettled(undefined)).toBe(true);
    expect(await waiting).toBe("sent");
  });

  test("does not wait for one that it does not need while that one's worker is being replaced", async () => {
    for (const state of [MEMBER_STATE.UP, MEMBER_STATE.JOINING]) {
      const { peers, primary, topology, advance } = await stage();
      const states = topology.current().states.slice();
      states[4] = state;
      topology.learn({ ...topology.current(), topologyEpoch: 2, states });
      primary.peerAttached(4);
      for (const peer of [1, 2, 3]) tell(peers[peer], peer, ["x"]);
      await advance(450);
      expect(primary.refilling.size).toBe(state === MEMBER_STATE.UP ? 2 : 0);
    }
  });

  test("takes a copy that was being filled when none is known to be further", async () => {
    const { peers, advance, rows } = await stage();
    tell(peers[1], 7, ["valid"]);
    tell(peers[2], 9, ["mixed"], COPY.RESTORING);
    tell(peers[3], 8, ["found"], COPY.UNKNOWN);
    tell(peers[4], -1, [], COPY.UNKNOWN);
    await advance(1_000);
    expect(rows.get(0)).toEqual(["mixed"]);
  });

  test("starts empty when nobody has anything", async () => {
    const { peers, primary, advance, table, rows } = await stage(3);
    for (const peer of peers) tell(peer, -1, [], COPY.UNKNOWN);
    tell(peers[2], 0, [], COPY.VALID);
    await advance(1_000);
    expect([primary.refilling.size, rows.size, table.ownHead(5)]).toEqual([0, 0, baseLsn(3)]);
  });

  test("goes on above all LSNs of the lives before, and fills every copy, also one that is further than all that it heard", async () => {
    const { peers, primary, advance, table } = await stage();
    for (const peer of [1, 2, 3]) tell(peers[peer], 10 + peer, ["x"]);
    await advance(1_500);
    expect(primary.refilling.size).toBe(0);
    const write = primary.begin(1, 0);
    write.add(0, TYPE, 1, Uint8Array.of(1));
    write.publish();
    primary.commit(write, undefined, undefined);
    expect(write.written?.lsns).toEqual(Float64Array.of(baseLsn(2) + 1));
    tell(peers[4], 14, ["nobody has asked me"]); // as many as it would have been without the gap
    primary.peerAttached(4);
    await advance(5_000);
    for (const peer of peers.slice(1)) expect([...peer.filled].sort((a, b) => a - b)).toEqual(OWN);
    expect(table.head(0)).toBe(baseLsn(2) + 1);
  });

  test("begins anew when a copy is lost in the middle, and when its collection is not open yet", async () => {
    const { peers, primary, advance, rows, setOpen } = await stage();
    for (const peer of [1, 2, 3, 4]) tell(peers[peer], peer, ["x", "y"]);
    let fetches = 0;
    (peers[4] as Peer).onFetch = () => {
      if (++fetches === 2) throw new ShardloomError("ERR_WORKER_LOST", "Cannot answer as the worker died");
    };
    setOpen(false);
    await advance(5_000);
    expect(primary.refilling.size).toBe(2);
    setOpen(true);
    await advance(3_000);
    expect(primary.refilling.size).toBe(0);
    expect(fetches).toBeGreaterThan(5);
    expect(rows.get(5)).toEqual(["x", "y"]);
  });

  test("takes the furthest that is left when the one it had chosen has lost its memory too", async () => {
    const { peers, primary, advance, rows } = await stage();
    for (const peer of [1, 2, 3, 4]) tell(peers[peer], peer, [`of ${peer}`]);
    (peers[4] as Peer).onFetch = () => {
      tell(peers[4], -1, [], COPY.UNKNOWN); // what it answers now is less than what it was chosen for
    };
    await advance(5_000);
    expect(primary.refilling.size).toBe(0);
    for (const vshard of OWN) expect(rows.get(vshard)).toEqual(["of 3"]);
  });

  test("hands over to its successor what is back, and that asks for the rest", async () => {
    const { peers, primary, start, advance, table } = await stage();
    for (const peer of [1, 2, 3, 4]) tell(peers[peer], 3, ["x"]);
    let fetches = 0;
    for (const peer of peers)
      peer.onFetch = () => {
        if (++fetches > 2) throw new ShardloomError("ERR_TIMEOUT", "Cannot answer in time");
      };
    await advance(1_000);
    expect([...primary.refilling]).toEqual([5]);
    primary.close();
    for (const peer of peers) peer.onFetch = () => undefined;
    const next = start(firstShardIncarnation(2) + 1);
    expect([...next.refilling]).toEqual([5]);
    await advance(2_000);
    expect(next.refilling.size).toBe(0);
    const last = start(firstShardIncarnation(2) + 2);
    expect(last.refilling.size).toBe(0);
    expect(table.head(5)).toBe(baseLsn(2));
  });

  test("in the first life of a node there is nothing to get back", async () => {
    const { primary, table } = await stage(1);
    expect(primary.refilling.size).toBe(0);
    expect([table.ownHead(0), table.ownHead(5)]).toEqual([0, 0]);
  });

  test("answers for no vshard that is not back, whatever the consistency, and for those that are", async () => {
    const { primary, topology, table, peers, advance } = await stage();
    const gate = new VshardGate(0, topology, table, primary);
    const refused = (request: RoutedRequest): unknown => {
      const memory = wireMemory(routedRequestBytes(request));
      writeRoutedRequest(memory, 0, request);
      gate.admit(new RoutedReader().open(memory, 0, routedRequestBytes(request)));
      return [gate.refused.map(({ vshard, reason }) => [vshard, reason]), gate.accepted()?.[0] ?? "all"];
    };
    const strong = { consistency: CONSISTENCY.STRONG, scope: SCOPE.PRIMARY } as const;
    const eventual = { consistency: CONSISTENCY.EVENTUAL, scope: SCOPE.LISTED, vshards: Uint16Array.of(5) } as const;
    const syncing = OWN.map((vshard) => [vshard, REFUSAL.SYNCING]);
    expect(refused(strong)).toEqual([syncing, 0]);
    expect(refused(eventual)).toEqual([[[5, REFUSAL.SYNCING]], 0]);
    // A write is refused as a whole, where it begins.
    expect(refused({ consistency: CONSISTENCY.WRITE, scope: SCOPE.PRIMARY, acks: 1 })).toEqual([[], 1]);
    for (const peer of peers) tell(peer, 1, ["x"]);
    await advance(1_000);
    expect(refused(strong)).toEqual([[], 1]);
    expect(refused(eventual)).toEqual([[], 0]);
  });
});

/** The receiving side of replication and its messages, one message at a time: gaps, repetitions, impostors, garbage. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { EngineReply, EngineRequest, ReceivedEffect } from "../../../actors/engine.ts";
import { Copies } from "../../../actors/replication/copies.ts";
import {
  type AskedCopy,
  appendMessage,
  COPY,
  type CopyStatus,
  PART,
  readCopies,
  snapshotMessage,
  statusMessage,
} from "../../../actors/replication/replica-messages.ts";
import { ShardloomError } from "../../../src/errors.ts";
import type { Payload } from "../../../src/routing/pending-request.ts";
import { firstShardIncarnation } from "../../../src/topology/member.ts";
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import { REPLICA_APPEND, REPLICA_SNAPSHOT, REPLICA_STATUS } from "../../../src/wire/message-types.ts";
import { wireMemory } from "../vector/support.ts";

const asked = (...vshards: number[]): AskedCopy[] => vshards.map((vshard) => ({ vshard, from: 0, to: 0, head: -1 }));
const askedBy = (head: number, from = 0, to = 0): AskedCopy[] => [{ vshard: 0, from, to, head }];

const TYPE = 0x0103;
const PRIMARY = { shard: 0, incarnation: 2 };

/** Shard 1, which holds copies of the vshards of shard 0, with an engine that writes down what it is told. */
function bed() {
  const topology = new LocalTopology(createSnapshot({ shards: 3, vshards: 4, replicationFactor: 2 }));
  const table = new ReplicaTable(createReplicaBlock(topology.current()), topology, () => 5);
  const told: string[] = [];
  const engine = {
    types: [TYPE],
    has: () => true,
    apply: ({ vshard, bytes, offset, length }: ReceivedEffect) => {
      told.push(`${vshard}:${String.fromCharCode(...bytes.subarray(offset, offset + length))}`);
    },
    snapshot: () => () => undefined,
    beginRestore: (vshard: number) => void told.push(`begin ${vshard}`),
    endRestore: (vshard: number) => void told.push(`end ${vshard}`),
    contentHash: () => 0n,
  };
  const make = (incarnation = 1, forgets = false): Copies =>
    new Copies({ shard: 1, incarnation, topology, table, nowMs: () => 5, engines: [engine], forgets, isFresh: true });
  return { table, told, copies: make(), make };
}

function send(copies: Copies, type: number, payload: Payload, mutate?: (bytes: Uint8Array) => void): CopyStatus[] {
  const memory = wireMemory(payload.byteLength + 64);
  payload.write(memory, 16);
  mutate?.(memory.bytes.subarray(16, 16 + payload.byteLength));
  return deliver(copies, type, { ...memory, offset: 16, length: payload.byteLength });
}

function deliver(copies: Copies, type: number, request: EngineRequest): CopyStatus[] {
  let claimed = { ...wireMemory(8), offset: 0, length: 0 };
  const reply = {
    claim: (length: number) => {
      claimed = { ...wireMemory(length), offset: 0, length };
      Object.assign(reply, claimed);
    },
  } as unknown as EngineReply;
  copies.handlers.get(type)?.(request, reply);
  return readCopies(claimed, 0, claimed.length);
}

const text = (value: string): Uint8Array => Uint8Array.from(value, (letter) => letter.charCodeAt(0));
const entry = (vshard: number, lsn: number) => ({
  vshard,
  entry: { lsn, atMs: 1, type: TYPE, collection: 1, body: text(`e${lsn}`) },
});
const append = (...entries: ReturnType<typeof entry>[]): Payload => appendMessage(PRIMARY, entries);
const chunk = (
  sequence: number,
  part: (typeof PART)[keyof typeof PART],
  transfer = 1,
  startLsn = 7,
  endLsn = 9,
): Payload =>
  snapshotMessage(PRIMARY, {
    vshard: 0,
    transfer,
    sequence,
    part,
    startLsn,
    endLsn,
    type: TYPE,
    collection: 1,
    body: part === PART.BODY ? text(`s${sequence}`) : new Uint8Array(0),
  });

describe("entries", () => {
  test("are applied in order, once, and never over a gap", () => {
    const { copies, told, table } = bed();
    expect(send(copies, REPLICA_APPEND, append(entry(0, 1), entry(3, 1), entry(0, 2)))).toEqual([
      { vshard: 0, state: COPY.VALID, lsn: 2 },
      { vshard: 3, state: COPY.VALID, lsn: 1 },
    ]);
    expect(send(copies, REPLICA_APPEND, append(entry(0, 2), entry(0, 4), entry(0, 5)))).toEqual([
      { vshard: 0, state: COPY.VALID, lsn: 2 },
    ]);
    expect(send(copies, REPLICA_APPEND, append(entry(0, 2), entry(0, 3)))).toEqual([
      { vshard: 0, state: COPY.VALID, lsn: 3 },
    ]);
    expect(told).toEqual(["0:e1", "3:e1", "0:e2", "0:e3"]);
    expect([table.appliedLsn(0, 1), table.appliedLsn(3, 1)]).toEqual([3, 1]);
  });

  test("go on where the worker's predecessor ended", () => {
    const { copies, make, told } = bed();
    send(copies, REPLICA_APPEND, append(entry(0, 1), entry(0, 2)));
    const next = make();
    expect(send(next, REPLICA_STATUS, statusMessage(PRIMARY, asked(0, 3)))).toEqual([
      { vshard: 0, state: COPY.VALID, lsn: 2 },
      { vshard: 3, state: COPY.VALID, lsn: 0 },
    ]);
    send(next, REPLICA_APPEND, append(entry(0, 3)));
    expect(told).toEqual(["0:e1", "0:e2", "0:e3"]);
  });

  test("of who is not the primary, of its dead worker, or for no copy of ours, change nothing", () => {
    const { copies, told } = bed();
    send(copies, REPLICA_STATUS, statusMessage(PRIMARY, asked()));
    const stale = appendMessage({ shard: 0, incarnation: 1 }, [entry(0, 1)]);
    const impostor = appendMessage({ shard: 2, incarnation: 9 }, [entry(0, 1)]);
    const elsewhere = appendMessage({ shard: 2, incarnation: 9 }, [entry(2, 1)]); // copies on shards 2 and 0
    for (const message of [stale, impostor, elsewhere])
      expect(codeOf(() => send(copies, REPLICA_APPEND, message))).toBe("ERR_STALE_EPOCH");
    expect(told).toEqual([]);
  });
});

describe("a snapshot", () => {
  test("makes the copy unreadable until what it missed is applied", () => {
    const { copies, told, table } = bed();
    send(copies, REPLICA_APPEND, append(entry(0, 1)));
    expect(send(copies, REPLICA_SNAPSHOT, chunk(0, PART.BEGIN))[0]?.state).toBe(COPY.RESTORING);
    expect([table.appliedLsn(0, 1), table.lag(0, 1)]).toEqual([-1, undefined]);
    send(copies, REPLICA_SNAPSHOT, chunk(1, PART.BODY));
    // Entries mean nothing while rows are being filled in.
    expect(send(copies, REPLICA_APPEND, append(entry(0, 2)))[0]?.state).toBe(COPY.RESTORING);
    expect(send(copies, REPLICA_SNAPSHOT, chunk(2, PART.END))[0]).toEqual({ vshard: 0, state: COPY.REPLAYING, lsn: 7 });
    send(copies, REPLICA_APPEND, append(entry(0, 8)));
    expect(table.appliedLsn(0, 1)).toBe(-1);
    expect(send(copies, REPLICA_APPEND, append(entry(0, 9)))[0]).toEqual({ vshard: 0, state: COPY.VALID, lsn: 9 });
    expect(table.appliedLsn(0, 1)).toBe(9);
    expect(told).toEqual(["0:e1", "begin 0", "0:s1", "end 0", "0:e8", "0:e9"]);
  });

  test("whose end was long on its way leaves no doubt how far the copy lags", () => {
    const { copies, table } = bed();
    send(copies, REPLICA_SNAPSHOT, chunk(0, PART.BEGIN));
    table.publishHead(0, 9, 4); // 8 and 9 were appended after the end was sent; it is 5 now
    send(copies, REPLICA_SNAPSHOT, chunk(1, PART.END, 1, 7, 7));
    expect(table.appliedLsn(0, 1)).toBe(7);
    expect(table.lag(0, 1)?.lagMs).toBeGreaterThanOrEqual(1);
  });

  test("of which a part is missing, or that another worker began, is begun again", () => {
    const { copies, make, told } = bed();
    send(copies, REPLICA_SNAPSHOT, chunk(0, PART.BEGIN));
    expect(send(copies, REPLICA_SNAPSHOT, chunk(2, PART.BODY))[0]?.state).toBe(COPY.UNKNOWN);
    expect(send(copies, REPLICA_SNAPSHOT, chunk(1, PART.BODY, 9))[0]?.state).toBe(COPY.UNKNOWN);
    const next = make();
    expect(send(next, REPLICA_STATUS, statusMessage(PRIMARY, asked(0)))[0]?.state).toBe(COPY.UNKNOWN);
    expect(send(next, REPLICA_SNAPSHOT, chunk(1, PART.BODY))[0]?.state).toBe(COPY.UNKNOWN);
    send(next, REPLICA_SNAPSHOT, chunk(0, PART.BEGIN, 2));
    expect(send(next, REPLICA_SNAPSHOT, chunk(1, PART.END, 2, 7, 7))[0]).toEqual({
      vshard: 0,
      state: COPY.VALID,
      lsn: 7,
    });
    expect(told).toEqual(["begin 0", "begin 0", "end 0"]);
  });
});

test("messages that are cut short or altered end in a typed error, or are messages", () => {
  const messages: [number, Payload][] = [
    [REPLICA_APPEND, append(entry(0, 1), entry(3, 1))],
    [REPLICA_STATUS, statusMessage(PRIMARY, asked(0, 3))],
    [REPLICA_SNAPSHOT, chunk(0, PART.BEGIN)],
    [REPLICA_SNAPSHOT, chunk(1, PART.BODY)],
  ];
  let refused = 0;
  fc.assert(
    fc.property(fc.constantFrom(...messages), fc.nat(), fc.nat(255), fc.nat(), ([type, message], at, value, cut) => {
      const { copies } = bed();
      const whole = codeOf(() =>
        send(copies, type, message, (bytes) => {
          bytes[at % bytes.length] = value;
        }),
      );
      const memory = wireMemory(message.byteLength + 64);
      message.write(memory, 16);
      const request = { ...memory, offset: 16, length: cut % message.byteLength };
      const short = codeOf(() => deliver(bed().copies, type, request));
      for (const code of [whole, short])
        expect(["", "ERR_CORRUPT", "ERR_STALE_EPOCH", "ERR_UNKNOWN_MESSAGE"]).toContain(code);
      if (short === "ERR_CORRUPT") refused++;
    }),
    { numRuns: 1_000 },
  );
  expect(refused).toBeGreaterThan(300);
});

function codeOf(act: () => unknown): string {
  try {
    act();
    return "";
  } catch (error) {
    return ShardloomError.is(error) ? error.code : String(error);
  }
}

describe("a copy that may have forgotten what it acknowledged", () => {
  const ask = (copies: Copies, question = asked(0)): CopyStatus[] =>
    send(copies, REPLICA_STATUS, statusMessage(PRIMARY, question));
  const unsure = [{ vshard: 0, state: COPY.VALID, lsn: 5, isUnsure: true }];
  const sure = [{ vshard: 0, state: COPY.VALID, lsn: 5 }];
  const restarted = (): Copies => {
    const { make, table } = bed();
    table.publishApplied(0, 1, 5, 0);
    return make(firstShardIncarnation(2), true);
  };

  test("says so until it has what its primary has, however it came to that", () => {
    const level = restarted();
    expect(ask(level)).toEqual(unsure);
    expect(level.own(0).isUnsure).toBe(true);
    expect(ask(level, askedBy(4))).toEqual(unsure); // it has what its primary has not
    expect(ask(level, askedBy(5))).toEqual(sure);
    expect(ask(level)).toEqual(sure);
    expect(level.own(0).isUnsure).toBe(false);
    const following = restarted();
    expect(ask(following, askedBy(7))).toEqual(unsure);
    expect(send(following, REPLICA_APPEND, append(entry(0, 6)))).toEqual([{ ...unsure[0], lsn: 6 }]);
    expect(send(following, REPLICA_APPEND, append(entry(0, 7)))).toEqual([{ ...sure[0], lsn: 7 }]);
    const renumbered = restarted();
    expect(ask(renumbered, askedBy(9, 5, 9))).toEqual([{ ...sure[0], lsn: 9 }]);
    const filled = restarted();
    expect(send(filled, REPLICA_SNAPSHOT, chunk(0, PART.BEGIN))[0]?.isUnsure).toBe(true);
    expect(send(filled, REPLICA_SNAPSHOT, chunk(1, PART.END))).toEqual([{ vshard: 0, state: COPY.REPLAYING, lsn: 7 }]);
    const primary = restarted();
    primary.noteLevel(0);
    expect(ask(primary)).toEqual(sure);
  });

  test("forgets nothing where its disk has all, or in its first life", () => {
    const { make, table } = bed();
    table.publishApplied(0, 1, 5, 0);
    expect(ask(make(firstShardIncarnation(2)))).toEqual(sure);
  });

  test("is not level with a primary that asks anew and does not know yet what there is", () => {
    const copies = restarted();
    ask(copies, askedBy(7));
    ask(copies); // another one, which is not there yet
    expect(send(copies, REPLICA_APPEND, append(entry(0, 6), entry(0, 7)))).toEqual([{ ...unsure[0], lsn: 7 }]);
  });
});

describe("what a copy is not behind", () => {
  const ask = (copies: Copies): CopyStatus[] => send(copies, REPLICA_STATUS, statusMessage(PRIMARY, asked(0)));

  test("is told while it is filled, also by its successor", () => {
    const { copies, make } = bed();
    send(copies, REPLICA_APPEND, append(entry(0, 1), entry(0, 2)));
    send(copies, REPLICA_SNAPSHOT, chunk(0, PART.BEGIN));
    expect(ask(copies)).toEqual([{ vshard: 0, state: COPY.RESTORING, lsn: 2 }]);
    expect(ask(make())).toEqual([{ vshard: 0, state: COPY.UNKNOWN, lsn: 2 }]);
    send(copies, REPLICA_SNAPSHOT, chunk(1, PART.END));
    expect(ask(copies)).toEqual([{ vshard: 0, state: COPY.REPLAYING, lsn: 7 }]);
    const heir = make();
    expect(ask(heir)).toEqual([{ vshard: 0, state: COPY.UNKNOWN, lsn: 7 }]);
    send(heir, REPLICA_SNAPSHOT, chunk(0, PART.BEGIN, 2)); // and is not forgotten when it is filled again
    expect(ask(heir)).toEqual([{ vshard: 0, state: COPY.RESTORING, lsn: 7 }]);
  });

  test("is nothing in a node's second life: it claims no vshard to be empty", () => {
    const { make, table } = bed();
    table.publishUnknown(0, 1);
    expect(ask(make(firstShardIncarnation(2)))).toEqual([{ vshard: 0, state: COPY.UNKNOWN, lsn: -1 }]);
    expect(table.appliedLsn(0, 1)).toBe(-1);
    expect(ask(make())).toEqual([{ vshard: 0, state: COPY.VALID, lsn: 0 }]);
  });
});

/** The receiving side of replication and its messages, one message at a time: gaps, repetitions, impostors, garbage. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { EngineReply, EngineRequest, ReceivedEffect } from "../../../actors/engine.ts";
import { Copies } from "../../../actors/replication/copies.ts";
import {
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
import { createReplicaBlock, ReplicaTable } from "../../../src/topology/replica-table.ts";
import { createSnapshot } from "../../../src/topology/snapshot.ts";
import { LocalTopology } from "../../../src/topology/topology-source.ts";
import { REPLICA_APPEND, REPLICA_SNAPSHOT, REPLICA_STATUS } from "../../../src/wire/message-types.ts";
import { wireMemory } from "../vector/support.ts";

const TYPE = 0x0103;
const PRIMARY = { shard: 0, incarnation: 2 };

/** Shard 1, which holds copies of the vshards of shard 0, with an engine that writes down what it is told. */
function bed() {
  const topology = new LocalTopology(createSnapshot({ shards: 3, vshards: 4, replicationFactor: 2 }));
  const table = new ReplicaTable(createReplicaBlock(topology.current()), topology, () => 5);
  const told: string[] = [];
  const engine = {
    types: [TYPE],
    apply: ({ vshard, bytes, offset, length }: ReceivedEffect) => {
      told.push(`${vshard}:${String.fromCharCode(...bytes.subarray(offset, offset + length))}`);
    },
    snapshot: () => () => undefined,
    beginRestore: (vshard: number) => void told.push(`begin ${vshard}`),
    endRestore: (vshard: number) => void told.push(`end ${vshard}`),
  };
  const make = (): Copies => new Copies({ shard: 1, topology, table, nowMs: () => 5, engines: [engine] });
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
    expect(send(next, REPLICA_STATUS, statusMessage(PRIMARY, [0, 3]))).toEqual([
      { vshard: 0, state: COPY.VALID, lsn: 2 },
      { vshard: 3, state: COPY.VALID, lsn: 0 },
    ]);
    send(next, REPLICA_APPEND, append(entry(0, 3)));
    expect(told).toEqual(["0:e1", "0:e2", "0:e3"]);
  });

  test("of who is not the primary, of its dead worker, or for no copy of ours, change nothing", () => {
    const { copies, told } = bed();
    send(copies, REPLICA_STATUS, statusMessage(PRIMARY, []));
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
    expect(send(next, REPLICA_STATUS, statusMessage(PRIMARY, [0]))[0]?.state).toBe(COPY.UNKNOWN);
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
    [REPLICA_STATUS, statusMessage(PRIMARY, [0, 3])],
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

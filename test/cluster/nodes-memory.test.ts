/** Registered memory of another node's shards: read by message, with the statuses of a read in place; what its regions hold of a collection. */
import { setImmediate as nextTurn } from "node:timers/promises";
import { afterEach, describe, expect, it } from "vitest";
import { ACCESS, type Cluster, connect, STATUS, statusName } from "../../src/index.ts";
import { TestNodes } from "../support/nodes.ts";

const READ = 1;

let of: TestNodes | undefined;
afterEach(async () => {
  await of?.[Symbol.asyncDispose]();
  of = undefined;
});

/** A region of a node's, with a pattern in it. */
function pattern(node: Cluster, byteLength: number, cellStrideBytes = 0): ReturnType<Cluster["regions"]["register"]> {
  const byteOffset = node.arena.allocate(byteLength);
  for (let at = 0; at < byteLength; at++)
    if (cellStrideBytes === 0 || at % cellStrideBytes >= 32) node.arena.bytes[byteOffset + at] = (at * 31 + 7) & 0xff;
  return node.regions.register({
    byteOffset,
    byteLength,
    access: ACCESS.READ,
    ...(cellStrideBytes === 0 ? {} : { cellStrideBytes }),
  });
}

describe("a region of another node", () => {
  it("is read like one of this node, with the same statuses, and says by what", async () => {
    of = await new TestNodes(2).start();
    const [here, there] = [of.node(0), of.node(1)];
    const plain = pattern(there, 1_000);
    const cells = pattern(there, 4 * 96, 96);
    const gone = pattern(there, 64);
    there.regions.deregister(gone);
    const secret = there.regions.register({
      byteOffset: there.arena.allocate(64),
      byteLength: 64,
      access: ACCESS.WRITE,
    });
    const refs = [
      plain,
      { ...plain, address: plain.address + 1, length: 3 },
      { ...plain, length: 0 },
      { ...plain, length: 1_001 },
      { ...plain, length: 4_294_967_295 },
      { ...plain, address: plain.address - 4 },
      { ...plain, address: Number.NaN },
      { ...plain, rkey: plain.rkey + 4_096 },
      { ...plain, rkey: 17 },
      { ...plain, rkey: undefined as unknown as number },
      { ...plain, generation: 0 },
      { ...cells, length: 96 },
      { ...cells, length: 96, generation: 0 },
      { ...cells, length: 96, generation: 3 },
      { ...cells, length: 96, generation: 0.5 },
      { ...cells, length: 97 },
      gone,
      secret,
    ];
    const requests = (targets: Uint8Array[]) =>
      refs.map((ref, id) => ({ id, opcode: READ, ref, local: targets[id] as Uint8Array }));
    const targets = (): Uint8Array[] => refs.map(() => new Uint8Array(1_000).fill(0));
    const [byMessage, inPlace] = [targets(), targets()];
    const far = await here.readerOf(1).post(requests(byMessage));
    const near = await there.readerOf(1).post(requests(inPlace));
    expect(far).toMatchObject({ by: "message", messages: 1 });
    expect(near).toMatchObject({ by: "one-sided", messages: 0 });
    expect(far.completions).toEqual(near.completions);
    expect(byMessage).toEqual(inPlace);
    const seen = new Set(far.completions.map(({ status }) => statusName(status)));
    expect([...seen].sort()).toEqual([
      "INVALID_RKEY",
      "OUT_OF_BOUNDS",
      "REGION_REVOKED",
      "REMOTE_ACCESS_ERROR",
      "SPANS_CELLS",
      "STALE_CELL",
      "SUCCESS",
    ]);
    expect(byMessage[0]).toEqual(there.arena.bytes.slice(plain.address, plain.address + 1_000));
    // A target without room, and what is no read.
    expect(await here.readerOf(1).read(plain, new Uint8Array(999))).toEqual({
      status: STATUS.LOCAL_LENGTH_ERROR,
      by: "message",
    });
    expect(await here.readerOf(1).read(plain, new Uint8Array(1_001), 2)).toMatchObject({
      status: STATUS.LOCAL_LENGTH_ERROR,
    });
    const write = { id: 9, opcode: 2, ref: plain, local: new Uint8Array(1_000) };
    expect((await here.readerOf(1).post([write])).completions).toMatchObject([
      { id: 9, status: STATUS.INVALID_REQUEST },
    ]);
    await expect(here.readerOf(1).bytes({ ...plain, length: 1_001 })).rejects.toMatchObject({
      code: "ERR_REGION_ACCESS",
      details: {
        shard: 1,
        status: "OUT_OF_BOUNDS",
        address: plain.address,
        rkey: plain.rkey,
        length: 1_001,
        by: "message",
      },
    });
    expect(() => here.readerOf(2)).toThrow(expect.objectContaining({ code: "ERR_INVALID_ARGUMENT" }));
    // The key of one node's region says nothing to another.
    await expect(here.readerOf(0).bytes(plain)).rejects.toMatchObject({
      details: { status: "INVALID_RKEY", by: "one-sided" },
    });
    const thread = await connect(await here.port());
    expect(await thread.readerOf(1).bytes({ ...plain, length: 100 })).toEqual(byMessage[0]?.slice(0, 100));
    expect(thread.readerOf(0).by).toBe("one-sided");
    await thread.close();
  });

  it("gives nothing of a range whose key is revoked between two messages", async () => {
    of = await new TestNodes(2).start();
    const [here, there] = [of.node(0), of.node(1)];
    const ref = pattern(there, 2_000_000);
    const target = new Uint8Array(ref.length);
    const answered = (): number => here.linkStats()[0]?.counters.delivered ?? 0;
    const before = answered();
    const reading = here.readerOf(1).post([{ id: 7, opcode: READ, ref, local: target }]);
    while (answered() === before) await nextTurn();
    there.regions.deregister(ref);
    const { completions, messages } = await reading;
    expect(completions).toMatchObject([{ id: 7, status: STATUS.REGION_REVOKED, byteLength: 0 }]);
    expect(messages).toBeGreaterThan(1);
    expect(target.every((byte) => byte === 0)).toBe(true);
  });

  it("is no region of the node's next life", async () => {
    of = await new TestNodes(2).start();
    const ref = pattern(of.node(1), 64);
    const target = new Uint8Array(64);
    expect(await of.node(0).readerOf(1).read(ref, target)).toEqual({ status: STATUS.SUCCESS, by: "message" });
    of.network.crash("n1");
    await of.node(1).close({ timeoutMs: 5_000 });
    await expect(of.node(0).readerOf(1).read(ref, target)).rejects.toMatchObject({
      code: expect.stringMatching(/^ERR_(UNAVAILABLE|WORKER_LOST)$/),
    });
    await of.startNode(1, 2);
    await of.whenWhole();
    target.fill(0);
    expect(await of.node(0).readerOf(1).read(ref, target)).toEqual({ status: STATUS.INVALID_RKEY, by: "message" });
    expect(target).toEqual(new Uint8Array(64));
  });

  it.each([
    ["both nodes", [0, 1]],
    ["the node that asks", [0]],
    ["the node that is asked", [1]],
  ])("comes in as many messages as it takes where rings are small on %s", async (_, nodes) => {
    const rings = { requestRingBytes: 16_384, replyRingBytes: 16_384, meshRingBytes: 16_384 };
    of = await new TestNodes(2, {}, (at) => (nodes.includes(at) ? rings : {})).start();
    const [here, there] = [of.node(0), of.node(1)];
    const large = pattern(there, 100_000);
    const cell = pattern(there, 20_000, 20_000);
    const small = pattern(there, 64);
    const target = new Uint8Array(100_000);
    const long = { id: 0, opcode: READ, ref: large, local: target };
    const versioned = { id: 1, opcode: READ, ref: cell, local: new Uint8Array(20_000) };
    const many = Array.from({ length: 300 }, (_, at) => ({
      id: 2 + at,
      opcode: READ,
      ref: small,
      local: new Uint8Array(64),
    }));
    const { completions, messages } = await here.readerOf(1).post([long, versioned, ...many]);
    expect(completions.map(({ id }) => id)).toEqual([0, 1, ...many.map(({ id }) => id)]);
    expect(new Set(completions.map(({ status }) => status))).toEqual(new Set([STATUS.SUCCESS]));
    expect(messages).toBeGreaterThan(20);
    const isSame = (bytes: Uint8Array, { address }: { address: number }): boolean =>
      bytes.every((byte, at) => byte === there.arena.bytes[address + at]);
    expect([isSame(target, large), isSame(versioned.local, cell)]).toEqual([true, true]);
    for (const { local } of many) expect(local).toEqual(there.arena.bytes.slice(small.address, small.address + 64));
  });
});

/**
 * Programs over cells, regions, verbs and the arena.
 *
 * Invariant: a body makes its handles itself, as a thread would; results are plain data; keys come from counters.
 */
import assert from "node:assert/strict";
import type { ExploreOptions } from "../../../src/sim/explorer/explore.ts";
import type { Production } from "./production.ts";

type Memory = { readonly memory: SharedArrayBuffer };

const PAYLOAD = 8;
const LOW = 0;
const HIGH = 1;

/** A writer updates a cell twice over the wrap of its version; a reader looks twice and must never accept a mixture. */
export function cellReads({ cell }: Production, rmw: boolean): ExploreOptions<Memory> {
  return {
    setup: () => {
      const memory = new SharedArrayBuffer(64);
      const words = new Int32Array(memory);
      words[LOW] = -2; // one write before the wrap
      words[HIGH] = 7;
      return { memory };
    },
    threads: [
      ({ memory }) => {
        const words = new Int32Array(memory);
        for (const value of [1, 2]) {
          assert.ok(cell.beginWrite(words, 0, 1));
          words[PAYLOAD] = value;
          words[PAYLOAD + 1] = value;
          cell.endWrite(words, 0);
        }
      },
      ({ memory }) => {
        const words = new Int32Array(memory);
        const reader = new cell.CellReader(words, rmw);
        const seen: number[][] = [];
        for (let look = 0; look < 2; look++) {
          if (!reader.begin(0)) continue;
          const pair = [words[PAYLOAD] as number, words[PAYLOAD + 1] as number];
          if (reader.validate()) seen.push(pair);
        }
        return seen;
      },
    ],
    check: ({ shared, results }) => {
      const words = new Int32Array(shared.memory);
      assert.deepEqual([...words.subarray(0, 2)], [2, 8]);
      let last = 0;
      for (const [first, second] of results[1] as number[][]) {
        assert.equal(first, second, "a torn read was accepted");
        assert.ok((first as number) >= last, "a read went back in time");
        last = first as number;
      }
    },
  };
}

/** As many writes as bring the low word of the version back to what it was: only the high word tells. */
export function cellWrap({ cell }: Production): ExploreOptions<Memory> {
  return {
    setup: () => ({ memory: new SharedArrayBuffer(64) }),
    threads: [
      ({ memory }) => {
        const words = new Int32Array(memory);
        assert.ok(cell.beginWrite(words, 0, 1));
        words[PAYLOAD] = 1;
        Atomics.store(words, LOW, -1); // and 2^31 - 1 writes later, in the last one before the wrap:
        words[PAYLOAD + 1] = 1;
        cell.endWrite(words, 0);
      },
      ({ memory }) => {
        const words = new Int32Array(memory);
        const reader = new cell.CellReader(words, false);
        if (!reader.begin(0)) return undefined;
        const pair = [words[PAYLOAD] as number, words[PAYLOAD + 1] as number];
        return reader.validate() ? pair : undefined;
      },
    ],
    check: ({ results }) => {
      const pair = results[1] as number[] | undefined;
      assert.ok(pair === undefined || pair[0] === pair[1], "a read over a whole lap of the version was accepted");
    },
  };
}

/** Two writers that read, add one and write back; one of them gives its second write up. */
export function cellWriters({ cell }: Production): ExploreOptions<Memory> {
  const add = (memory: SharedArrayBuffer, gives: boolean): number => {
    const words = new Int32Array(memory);
    let written = 0;
    for (let turn = 0; turn < 2; turn++) {
      if (!cell.tryBeginWrite(words, 0)) continue;
      if (gives && turn === 1) {
        cell.cancelWrite(words, 0);
        continue;
      }
      words[PAYLOAD] = (words[PAYLOAD] as number) + 1;
      cell.endWrite(words, 0);
      written++;
    }
    return written;
  };
  return {
    setup: () => ({ memory: new SharedArrayBuffer(64) }),
    threads: [({ memory }) => add(memory, false), ({ memory }) => add(memory, true)],
    check: ({ shared, results }) => {
      const words = new Int32Array(shared.memory);
      assert.equal(words[PAYLOAD], (results[0] as number) + (results[1] as number), "a write was lost");
      assert.equal((words[LOW] as number) & 1, 0, "the cell stayed odd");
    },
  };
}

interface Region {
  readonly memory: WebAssembly.Memory;
  readonly ref: { readonly address: number; readonly rkey: number; readonly length: number };
  readonly base: number;
  readonly byteLength: number;
}

const OLD = 0x1111_1111;
const NEW = 0x2222_2222;
const REMOTE = 0x3333_3333;
const OWNER = 1;
const SUCCESS = 0;

function keys(first: number): () => number {
  let next = first;
  return () => next++;
}

/** A registered region full of OLD, plain or of one cell; the reference covers 8 bytes of it. */
function regionOf(production: Production, stride: number): Region {
  const { arena, region } = production;
  const memory = arena.createArena({ capacityBytes: 1 << 20 });
  const handle = new arena.Arena(memory);
  const byteLength = stride === 0 ? 16 : stride;
  const base = handle.allocate(byteLength);
  const table = new region.RegionTable(handle, OWNER, keys(1));
  const access = region.ACCESS.READ | region.ACCESS.WRITE | region.ACCESS.ATOMIC;
  const whole = table.register({ byteOffset: base, byteLength, access, cellStrideBytes: stride });
  const address = stride === 0 ? base : base + 32;
  for (let word = address >>> 2; word < (base + byteLength) >>> 2; word++) handle.i32[word] = OLD;
  return { memory, base, byteLength, ref: { address, rkey: whole.rkey, length: 8 } };
}

/**
 * A reader reads twice through one key while the owner takes the key back and gives the memory to somebody else under another
 * (`again`: the same slot; else it is freed first): a read that ends in SUCCESS holds old data only, any other holds none.
 */
export function regionRead(
  production: Production,
  stride: number,
  again: boolean,
  reads: number = 2,
): ExploreOptions<Region> {
  const { arena, region, verbs } = production;
  return {
    setup: () => regionOf(production, stride),
    threads: [
      ({ memory, ref }) => {
        const reader = new verbs.Verbs(new arena.Arena(memory), { attempts: 1, rmwCheck: false });
        const target = new Uint8Array(8);
        const words = new Int32Array(target.buffer);
        const seen: number[][] = [];
        for (let read = 0; read < reads; read++) {
          words.fill(0);
          seen.push([reader.read(ref, target), ...words]);
        }
        return seen;
      },
      ({ memory, ref, base, byteLength }) => {
        const handle = new arena.Arena(memory);
        const table = new region.RegionTable(handle, OWNER, keys(1000));
        const options = { byteOffset: base, byteLength, access: region.ACCESS.READ, cellStrideBytes: stride };
        if (again) table.reregister(ref, options);
        else table.deregister(ref);
        handle.i32[ref.address >>> 2] = NEW;
        handle.i32[(ref.address >>> 2) + 1] = NEW;
        if (!again) table.register(options);
      },
    ],
    check: ({ results }) => {
      for (const [status, ...words] of results[0] as number[][]) {
        const expected = status === SUCCESS ? OLD : 0;
        assert.deepEqual(
          words,
          [expected, expected],
          `status ${status} came with ${words.map((word) => word.toString(16))}`,
        );
      }
    },
  };
}

/** What a remote thread does to the region while its owner takes it back. */
export type RemoteOperation = "write" | "fetchAdd" | "compareAndSwap";

/** Once deregister() has returned, the memory is somebody else's: no remote write may land in it. Two remote threads add. */
export function regionAdds(production: Production): ExploreOptions<Region> {
  const { verbs, arena } = production;
  const single = regionWrite(production, 0, "fetchAdd");
  const add = ({ memory, ref }: Region): number =>
    new verbs.Verbs(new arena.Arena(memory)).fetchAdd({ ...ref, length: 4 }, 1);
  return {
    ...single,
    threads: [add, single.threads[1] as (typeof single.threads)[number], add],
    check: ({ shared, results }) => {
      const [first, fate, second] = results;
      const done = [first, second].filter((status) => status === SUCCESS).length;
      const word = new Int32Array(shared.memory.buffer, shared.ref.address, 1)[0];
      const expected = fate === "reused" ? NEW : OLD + done;
      assert.equal(word, expected, "a remote write was lost, or landed in memory of somebody else");
    },
  };
}

/** As {@link regionAdds}, with one remote thread and any operation, in a plain region or a cell. */
export function regionWrite(
  production: Production,
  stride: number,
  operation: RemoteOperation,
): ExploreOptions<Region> {
  const { arena, region, verbs } = production;
  return {
    setup: () => regionOf(production, stride),
    threads: [
      ({ memory, ref }) => {
        const remote = new verbs.Verbs(new arena.Arena(memory), { attempts: 1, rmwCheck: false });
        if (operation === "write") return remote.write(ref, new Uint8Array(new Int32Array([REMOTE, REMOTE]).buffer));
        const word = { address: ref.address, rkey: ref.rkey, length: 4 };
        if (operation === "fetchAdd") return remote.fetchAdd(word, REMOTE - OLD);
        return remote.compareAndSwap(word, OLD, REMOTE);
      },
      ({ memory, ref, base, byteLength }) => {
        const handle = new arena.Arena(memory);
        const table = new region.RegionTable(handle, OWNER, keys(1000));
        for (let turn = 0; ; turn++) {
          try {
            table.deregister(ref, { timeoutMs: 2e-6 }); // one look
            break;
          } catch (error) {
            assert.match(String(error), /still in flight/);
            if (turn === 1) return "in flight";
          }
        }
        for (let word = base >>> 2; word < (base + byteLength) >>> 2; word++) handle.i32[word] = NEW;
        return "reused";
      },
    ],
    check: ({ shared, results }) => {
      const words = new Int32Array(shared.memory.buffer, shared.ref.address, 2);
      const whole = new Int32Array(shared.memory.buffer, shared.base, shared.byteLength >> 2);
      const [status, fate] = results;
      if (fate === "reused")
        assert.ok(
          [...whole].every((word) => word === NEW),
          "a remote write landed in memory of somebody else",
        );
      else {
        const second = operation === "write" ? REMOTE : OLD;
        assert.deepEqual([...words], status === SUCCESS ? [REMOTE, second] : [OLD, OLD]);
      }
    },
  };
}

/**
 * A remote thread writes through a key that is being replaced and then through the new one, while the owner takes that back,
 * too: what it does in vain must not hide what it does rightly from the owner that waits for it.
 */
export function regionRenewed(production: Production): ExploreOptions<Region & { readonly post: SharedArrayBuffer }> {
  const { arena, region, verbs } = production;
  return {
    setup: () => ({ ...regionOf(production, 0), post: new SharedArrayBuffer(8) }),
    threads: [
      ({ memory, ref, post }) => {
        const remote = new verbs.Verbs(new arena.Arena(memory), { attempts: 1, rmwCheck: false });
        const first = remote.fetchAdd({ ...ref, length: 4 }, 0);
        const rkey = new Float64Array(post)[0] as number;
        if (rkey === 0) return [first];
        return [first, remote.fetchAdd({ ...ref, rkey, length: 4 }, 1)];
      },
      ({ memory, ref, base, byteLength, post }) => {
        const handle = new arena.Arena(memory);
        const table = new region.RegionTable(handle, OWNER, keys(1000));
        const looks = { timeoutMs: 4e-6 };
        try {
          const renewed = table.reregister(ref, looks);
          new Float64Array(post)[0] = renewed.rkey;
          table.deregister(renewed, looks);
        } catch (error) {
          assert.match(String(error), /still in flight/);
          return "in flight";
        }
        for (let word = base >>> 2; word < (base + byteLength) >>> 2; word++) handle.i32[word] = NEW;
        return "reused";
      },
    ],
    check: ({ shared, results }) => {
      const word = new Int32Array(shared.memory.buffer, shared.ref.address, 1)[0];
      if (results[1] === "reused") assert.equal(word, NEW, "a remote write landed in memory of somebody else");
    },
  };
}

/** Two owners register at once where the next slots are taken: each gets a slot of its own, and both keys open theirs. */
export function regionClaims(production: Production): ExploreOptions<Region> {
  const { arena, region, verbs } = production;
  const claim = ({ memory, base }: Region, owner: number): unknown => {
    const table = new region.RegionTable(new arena.Arena(memory), owner, keys(1000 * owner));
    return table.register({ byteOffset: base, byteLength: 16, access: region.ACCESS.READ });
  };
  return {
    setup: () => {
      const shared = regionOf(production, 0);
      new Int32Array(shared.memory.buffer)[4] = 0; // the cursor: the first owner meets the taken slot and goes on to the next
      return shared;
    },
    threads: [(shared) => claim(shared, 2), (shared) => claim(shared, 3)],
    check: ({ shared, results }) => {
      const reader = new verbs.Verbs(new arena.Arena(shared.memory));
      for (const { rkey } of [shared.ref, ...(results as Region["ref"][])])
        assert.equal(reader.checkKey(rkey), SUCCESS);
    },
  };
}

/** Two threads take blocks from one free list while one of them gives a block back (the A-B-A of a stack). */
export function arenaBlocks({ arena }: Production): ExploreOptions<{ readonly memory: WebAssembly.Memory }> {
  return {
    setup: () => {
      const memory = arena.createArena({ capacityBytes: 1 << 20 });
      const handle = new arena.Arena(memory);
      const blocks = [handle.allocate(64), handle.allocate(64), handle.allocate(64)];
      for (const block of blocks) handle.free(block, 64);
      return { memory };
    },
    threads: [
      ({ memory }) => [new arena.Arena(memory).allocate(64)],
      ({ memory }) => {
        const handle = new arena.Arena(memory);
        const first = handle.allocate(64);
        const second = handle.allocate(64);
        handle.free(first, 64);
        return [second];
      },
    ],
    check: ({ shared, results }) => {
      const handle = new arena.Arena(shared.memory);
      const held = [...(results[0] as number[]), ...(results[1] as number[]), handle.allocate(64), handle.allocate(64)];
      assert.equal(new Set(held).size, held.length, `one block was handed out twice: ${held}`);
    },
  };
}

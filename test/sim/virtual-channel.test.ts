import { describe, expect, it } from "vitest";
import { ShardloomError } from "../../src/errors.ts";
import { cloneForThread } from "../../src/sim/clone.ts";
import { WorldLoop } from "../../src/sim/loop.ts";
import { NodeClock } from "../../src/sim/node-clock.ts";
import { SimThread } from "../../src/sim/threads.ts";
import { VirtualChannel } from "../../src/sim/virtual-channel.ts";

const SECOND_US = 1_000_000;

interface Api {
  echo(value: unknown): unknown;
  where(): string;
  fail(): void;
  never(): Promise<void>;
  mark(word: string): void;
}

function stage(seed = 1) {
  const loop = new WorldLoop({ seed });
  const clock = new NodeClock(() => loop.nowUs, 0);
  const main = new SimThread(loop, { name: "n0", incarnation: 1, clock });
  const worker = new SimThread(loop, { name: "n0/w0", incarnation: 1, clock });
  const channel = new VirtualChannel(loop, loop.stream("channel"), main);
  const marks: string[] = [];
  const api: Api = {
    echo: (value) => value,
    where: () => loop.current.name,
    fail: () => {
      throw new ShardloomError("ERR_OVERLOADED", "full", { details: { limit: 3 } });
    },
    never: () => new Promise(() => undefined),
    mark: (word) => void marks.push(word),
  };
  let posts = 0;
  const connection = channel.connect<Api>(() => posts++);
  return { loop, main, worker, channel, api, marks, connection, posts: () => posts };
}

describe("a control channel between simulated threads", () => {
  it("runs calls on the server's thread and answers on the caller's; those made early wait for the server", async () => {
    const { loop, main, worker, channel, api, connection, posts } = stage();
    const seen: string[] = [];
    main.post(0, "test", () => {
      void connection.remote.where().then((where) => seen.push(`${where} told ${loop.current.name}`));
    });
    worker.post(5_000, "test", () => void channel.serve(worker, api));
    await loop.run(SECOND_US);
    expect(seen).toEqual(["n0/w0 told n0"]);
    expect(posts()).toBe(1);
  });

  it("keeps the order of calls, whatever the seed", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const { loop, main, worker, channel, api, marks, connection } = stage(seed);
      worker.post(0, "test", () => void channel.serve(worker, api));
      const words = Array.from({ length: 20 }, (_, at) => String(at));
      main.post(100, "test", () => {
        for (const word of words) void connection.remote.mark(word);
      });
      await loop.run(SECOND_US);
      expect(marks).toEqual(words);
    }
  });

  it("copies what crosses, keeps the class and code of errors, and refuses unknown methods", async () => {
    const { loop, main, worker, channel, api, connection } = stage();
    worker.post(0, "test", () => void channel.serve(worker, api));
    const shared = new SharedArrayBuffer(8);
    const sent = { list: [1, { deep: true }], shared, bytes: new Uint8Array([1, 2]) };
    const results: unknown[] = [];
    main.post(10, "test", () => {
      void (async () => {
        results.push(await connection.remote.echo(sent));
        results.push(await connection.remote.fail().catch((error: unknown) => error));
        results.push(
          await (connection.remote as unknown as { gone(): Promise<void> }).gone().catch((error: unknown) => error),
        );
      })();
      sent.list.push(2); // after the call: the copy has been made
    });
    await loop.run(SECOND_US);
    const [echoed, failed, unknown] = results as [typeof sent, unknown, unknown];
    expect(echoed).toEqual({ list: [1, { deep: true }], shared, bytes: new Uint8Array([1, 2]) });
    expect(echoed.shared).toBe(shared);
    expect(echoed.list[1]).not.toBe(sent.list[1]);
    expect(failed).toMatchObject({ code: "ERR_OVERLOADED", details: { limit: 3 } });
    expect(ShardloomError.is(failed)).toBe(true);
    expect(unknown).toMatchObject({ code: "ERR_UNKNOWN_MESSAGE" });
  });

  it("settles what is open when the caller ends it, and not when the other side dies", async () => {
    const { loop, main, worker, channel, api, connection } = stage();
    worker.post(0, "test", () => void channel.serve(worker, api));
    const ends: unknown[] = [];
    main.post(10, "test", () => {
      connection.remote.never().catch((error: unknown) => ends.push(error));
    });
    loop.at(1_000, () => worker.kill());
    await loop.run(SECOND_US / 2);
    expect(ends).toEqual([]);
    const error = new ShardloomError("ERR_WORKER_LOST", "it died");
    main.post(0, "test", () => connection.end(error));
    main.post(100, "test", () => {
      connection.remote.mark("late").catch((late: unknown) => ends.push(late));
    });
    await loop.run(SECOND_US);
    expect(ends).toEqual([error, error]);
  });
});

describe("a clone for another thread", () => {
  it("shares memory that is made to be shared, and what moves, by identity", () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    const port = { mine: true };
    const words = new Int32Array(new SharedArrayBuffer(4));
    const clone = cloneForThread({ memory, words, nested: [port] }, [port]);
    expect(clone.memory).toBe(memory);
    expect(clone.words).toBe(words);
    expect(clone.nested[0]).toBe(port);
  });

  it.each([
    ["a function", { call: () => 1 }],
    ["a symbol", [Symbol("no")]],
  ])("refuses %s", (_, value) => {
    expect(() => cloneForThread(value)).toThrow(expect.objectContaining({ code: "ERR_INTERNAL" }));
  });

  it("refuses what holds itself", () => {
    const loop: { self?: unknown } = {};
    loop.self = loop;
    expect(() => cloneForThread(loop)).toThrow(expect.objectContaining({ code: "ERR_INTERNAL" }));
  });
});

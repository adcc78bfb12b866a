/** What a life of a simulated node has of its machine: a directory of its disk, for itself, which outlives it. */
import { expect, test } from "vitest";
import type { OpenDirectory, Platform } from "../../src/plane/platform.ts";
import { SimDisk } from "../../src/sim/disk.ts";
import { createReplayInjector } from "../../src/sim/injector.ts";
import { WorldLoop } from "../../src/sim/loop.ts";
import { loopOfThread } from "../../src/sim/thread-loop.ts";
import { WorldNode } from "../../src/sim/world-node.ts";

function node() {
  const loop = new WorldLoop({ seed: 1, keepTrace: 0 });
  const disk = new SimDisk({ node: "n0", loop, faults: createReplayInjector([]) });
  const made = new WorldNode(loop, {
    name: "n0",
    shards: [0],
    modules: new Map(),
    startDisk: (main) => disk.start({ name: "n0", loop: loopOfThread(loop, main) }),
    onError: (_, error) => loop.fail(error),
  });
  return { loop, disk, node: made };
}

/** Runs work on the main thread of a life. */
async function on<T>(loop: WorldLoop, main: { post: WorldNodePost }, work: () => Promise<T>): Promise<T> {
  const done: { value?: T; error?: Error } = {};
  main.post(0, "work", () => {
    work().then(
      (value) => {
        done.value = value;
        loop.stop();
      },
      (error: unknown) => {
        done.error = error as Error;
        loop.stop();
      },
    );
  });
  await loop.run(loop.nowUs + 10_000_000);
  if (done.error !== undefined) throw done.error;
  return done.value as T;
}
type WorldNodePost = (delayUs: number, kind: string, callback: () => void) => unknown;

async function write({ disk }: OpenDirectory, path: string): Promise<void> {
  const file = await disk.open(path, "write");
  await file.write(0, Uint8Array.of(7));
  await file.sync();
  await disk.syncDirectory("");
}

test("the next life of a node has the directory that the last one left, and one life has it once", async () => {
  const { loop, disk, node: own } = node();
  const first = own.boot();
  const open = (platform: Platform): Promise<OpenDirectory> => platform.openDirectory("/data");
  const held = await on(loop, first.main, () => open(first.platform));
  await on(loop, first.main, () => write(held, "a"));
  await expect(on(loop, first.main, () => open(first.platform))).rejects.toMatchObject({
    code: "ERR_DIRECTORY_IN_USE",
  });
  own.crash();
  disk.crash();
  const second = own.boot();
  const again = await on(loop, second.main, () => open(second.platform));
  expect(await on(loop, second.main, () => again.disk.list(""))).toEqual(["a"]);
  expect(() => own.boot()).toThrow("Cannot start n0 as it is up");
});
